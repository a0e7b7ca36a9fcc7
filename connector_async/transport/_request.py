"""A request of httpx as it goes out: where to, its head, how its body is framed.

Refuses what would be read as something else than what was meant. Knows nothing of connections.
"""

from __future__ import annotations

import math
import re

import httpx

from connector_async.transport._pool import Origin

__all__ = ["head_of", "origin_of", "timeouts_of"]

_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# What must never stand in a head: it would end the line, or the request. The rest is for the server to judge.
_FORBIDDEN = re.compile(rb"[\r\n\0]")
_TARGET = re.compile(rb"[\x21-\x7e]+")


def timeouts_of(request: httpx.Request) -> dict[str, float]:
    """Seconds for each phase as httpx names them; infinity where there is no limit."""
    given = {name: value for name, value in request.extensions.get("timeout", {}).items() if value is not None}
    return {name: given.get(name, math.inf) for name in ("pool", "connect", "write", "read")}


def origin_of(request: httpx.Request) -> Origin:
    """What a connection is made to, and whom its certificate must name if that is another."""
    scheme, host = request.url.scheme, request.url.raw_host.decode("ascii")
    if scheme not in ("http", "https") or not host:
        raise httpx.UnsupportedProtocol(f"cannot send to a {scheme or 'missing'!r} URL", request=request)
    port = request.url.port
    if port is None:
        port = 443 if scheme == "https" else 80
    server_name = request.extensions.get("sni_hostname")
    return (scheme, host, port, server_name) if server_name and scheme == "https" else (scheme, host, port)


def head_of(request: httpx.Request) -> tuple[bytes, int | None]:
    """The head as it goes out, and the length of the body: None when it goes in chunks."""
    method = request.method.encode("ascii", "replace")
    target = request.extensions.get("target", request.url.raw_path)
    if not _TOKEN.fullmatch(method) or method == b"CONNECT" or not _TARGET.fullmatch(target):
        raise httpx.LocalProtocolError("the request line is not valid", request=request)
    if len(request.headers.get_list("host")) != 1:
        raise httpx.LocalProtocolError("a request has exactly one Host header", request=request)
    lines = [b"%s %s HTTP/1.1" % (method, target)]
    for name, value in request.headers.raw:
        if not _TOKEN.fullmatch(name) or _FORBIDDEN.search(value):
            raise httpx.LocalProtocolError("a header has characters that HTTP does not allow", request=request)
        if name.lower() != b"content-length":
            lines.append(b"%s: %s" % (name, value))
    length = _length(request)
    if length is not None and "content-length" in request.headers:
        lines.append(b"Content-Length: %d" % length)
    return b"\r\n".join((*lines, b"", b"")), length


def _length(request: httpx.Request) -> int | None:
    """What the headers say of the body's length, without a doubt: two servers must not read it in two ways."""
    codings = request.headers.get_list("transfer-encoding")
    if codings:  # then they alone count, and a length must not be told (RFC 9112, 6.2); httpx gives both
        if [coding.lower() for coding in codings] != ["chunked"]:
            raise httpx.LocalProtocolError("the only transfer encoding there is for us is chunked", request=request)
        return None
    lengths = set(request.headers.get_list("content-length", split_commas=True)) or {"0"}
    length = lengths.pop()
    if lengths or not (length.isascii() and length.isdecimal()):
        raise httpx.LocalProtocolError("the Content-Length is not one number", request=request)
    return int(length)
