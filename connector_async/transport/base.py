"""The seam between the session and HTTP: bytes in, bytes out.

Owns the shapes that cross it (`Target`, `Headers`, `Answer`) and the `Transport` protocol. Knows nothing of messages,
tokens or retries.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self, runtime_checkable

from connector_async.errors import LocalProtocolError

if TYPE_CHECKING:
    import httpx

__all__ = ["Answer", "Headers", "Target", "Transport", "header_pairs"]

_DEFAULT_PORTS = {"http": 80, "https": 443}
# RFC 9110 5.5 allows visible ASCII, space and tab; the API's own values need no more.
_VALUE = re.compile(r"[\t\x20-\x7e]*")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HOST = re.compile(r"[0-9A-Za-z._-]+|\[[0-9A-Fa-f:.]+\]")
_PATH = re.compile(r"/[\x21-\x7e]*")


class Target:
    """Where to post: one URL, taken apart and made ready once.

    Two targets of the same URL are different targets: `Transport.abort` ends the exchanges of one of them only.

    Raises:
        LocalProtocolError: The URL is not plain http(s) with a host, or has characters that HTTP does not allow.
    """

    __slots__ = ("head", "host", "origin", "path", "port", "scheme", "url")

    def __init__(self, base: str, path: str) -> None:
        scheme, separator, authority = base.rstrip("/").partition("://")
        if not separator or scheme not in _DEFAULT_PORTS:
            raise LocalProtocolError(f"not a base URL: {base!r} (expected http://host or https://host)")
        host, port = _split_authority(authority)
        if not _PATH.fullmatch(path):
            raise LocalProtocolError(f"not a request path: {path!r}")
        self.scheme = scheme
        self.host = host.strip("[]")
        self.port = _DEFAULT_PORTS[scheme] if port is None else port
        self.path = path
        # Scheme, host and port: what a connection is made to. Kept, because every message looks it up.
        self.origin = (self.scheme, self.host, self.port)
        shown = host if port is None or port == _DEFAULT_PORTS[scheme] else f"{host}:{port}"
        self.url = f"{scheme}://{shown}{path}"
        # `identity`: an answer of a few bytes gains nothing from compression, and a bomb cannot hide in it.
        self.head = f"POST {path} HTTP/1.1\r\nHost: {shown}\r\nAccept-Encoding: identity\r\n".encode("ascii")

    def __repr__(self) -> str:
        return f"Target({self.url!r})"


def _split_authority(authority: str) -> tuple[str, int | None]:
    host, port = authority, ""
    if not authority.endswith("]") and ":" in authority:
        host, _, port = authority.rpartition(":")
    if not _HOST.fullmatch(host) or (port and not (port.isascii() and port.isdigit() and int(port) < 65536)):
        raise LocalProtocolError(f"not a host: {authority!r} (expected host or host:port)")
    return host, int(port) if port else None


class Headers(bytes):
    """Request headers, checked and encoded once for many requests: bytes, the lines each with its end.

    `Host`, `Accept-Encoding` and `Content-Length` are the transport's and must not be given.

    Raises:
        LocalProtocolError: A name or value has characters that HTTP does not allow, such as a line break.
    """

    __slots__ = ()

    def __new__(cls, items: Iterable[tuple[str, str]]) -> Self:
        lines: list[str] = []
        for name, value in items:
            if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
                # The value may be a token: it is not shown.
                raise LocalProtocolError(f"header {name!r} has characters that HTTP does not allow")
            lines.append(f"{name}: {value}\r\n")
        return super().__new__(cls, "".join(lines).encode("ascii"))

    def __repr__(self) -> str:
        return f"Headers({', '.join(name for name, _ in header_pairs(self))})"

    __str__ = __repr__  # that of bytes would show the tokens


def header_pairs(headers: bytes) -> list[tuple[str, str]]:
    """Names and values, taken out of the lines that `Transport.post` gets."""
    return [
        (name, value) for name, _, value in [line.partition(": ") for line in headers.decode("ascii").splitlines()]
    ]


class Answer:
    """What came back: `status`, `headers` and the whole `body`.

    `connection` is the transport's own note of where it came from, for `Transport.discard`.

    Args:
        headers: Pairs of bytes, names in lower case; or the raw head without its last line end, status line included,
            which is taken apart when somebody asks: for most answers nobody does.
    """

    __slots__ = ("_headers", "body", "connection", "status")

    def __init__(
        self, status: int, headers: tuple[tuple[bytes, bytes], ...] | bytes, body: bytes, connection: object = None
    ) -> None:
        self.status = status
        self._headers = headers
        self.body = body
        self.connection = connection

    @property
    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """Pairs of bytes in the order they came, names in lower case."""
        if isinstance(self._headers, bytes):
            self._headers = _taken_apart(self._headers)
        return self._headers

    def header(self, name: bytes) -> str | None:
        """The first value of a header (`name` in lower case), or None."""
        for key, value in self.headers:
            if key == name:
                return value.decode("latin-1")
        return None

    def __reduce__(self) -> tuple[type[Answer], tuple[object, ...]]:
        """A copy is a value: it does not know the connection."""
        return Answer, (self.status, self._headers, self.body)

    def __repr__(self) -> str:
        return f"Answer({self.status}, {len(self.body)} bytes)"


def _taken_apart(head: bytes) -> tuple[tuple[bytes, bytes], ...]:
    fields: list[tuple[bytes, bytes]] = []
    for line in head.split(b"\r\n")[1:]:
        if line.startswith((b" ", b"\t")) and fields:  # a folded value (RFC 9112, 5.2)
            name, value = fields[-1]
            fields[-1] = (name, b" ".join((value, line.strip(b" \t"))))
            continue
        name, _, value = line.partition(b":")
        fields.append((name.lower(), value.strip(b" \t")))
    return tuple(fields)


@runtime_checkable
class Transport(Protocol):
    """One HTTP exchange at a time, many at once; safe to cancel at every await."""

    async def post(self, target: Target, headers: bytes, body: bytes, deadline: float) -> Answer:
        """Send one POST and read the whole answer.

        Cancelling closes the connection it used: a connection with an answer outstanding is never used again.

        Args:
            headers: `Headers`, or several of them one after the other.
            deadline: Seconds on the event-loop clock (`anyio.current_time()`); covers waiting for a connection,
                connecting, sending and the last byte of the answer.

        Raises:
            TransportError: No answer; `phase`, `sent`, `reused`, `answered`, `timed_out` say how far it had come.
            RemoteProtocolError: What came is not a usable HTTP answer (also ResponseTooLarge, RedirectRefused).
        """
        ...

    def discard(self, answer: Answer) -> None:
        """Do not use the connection of this answer again: what came on it was not what was asked for."""
        ...

    def abort(self, target: Target) -> None:
        """End every exchange with this target at once: each raises TransportError."""
        ...

    @property
    def client(self) -> httpx.AsyncClient:
        """An httpx client over the same connections, for look-ups and file transfer. Not to be closed by users."""
        ...

    async def aclose(self) -> None:
        """End all exchanges and close all connections; idempotent."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...
