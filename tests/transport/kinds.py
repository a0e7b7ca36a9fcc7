"""Every transport that the contract suite runs against, and what is known of the shortcomings of the foreign ones.

A shortcoming is data, not a reason to skip: the suite asserts that the transport still behaves so, and tells us when
it has been mended.
"""

from __future__ import annotations

import functools
import importlib.util
import ssl
from collections.abc import Callable, Mapping
from typing import Any

import attrs
import httpx
import pytest

from connector_async.errors import (
    RedirectRefused,
    RemoteProtocolError,
    ResponseTooLarge,
    TLSError,
    TransportError,
)
from connector_async.transport import Answer, HttpxTransport, PooledTransport, Transport

__all__ = ["EVERY_KIND", "OWN_KINDS", "Kind", "outcome_of"]

_LIMITS = httpx.Limits(max_connections=200, max_keepalive_connections=200, keepalive_expiry=15)


@functools.cache
def _no_tls() -> ssl.SSLContext:
    # Plain http needs none, and building the usual one costs 20 ms each time.
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _pooled(context: ssl.SSLContext | None, ca_pem: bytes) -> Transport:
    return PooledTransport(max_connections=200, ssl_context=context or _no_tls())


def _httpx(context: ssl.SSLContext | None, ca_pem: bytes) -> Transport:
    inner = httpx.AsyncHTTPTransport(verify=context or _no_tls(), limits=_LIMITS, trust_env=False)
    return HttpxTransport(inner, close_inner=True)


def _pooled_as_httpx(context: ssl.SSLContext | None, ca_pem: bytes) -> Transport:
    """The other interface of the pooled transport, through a client of httpx."""
    pooled = PooledTransport(max_connections=200, ssl_context=context or _no_tls())
    return HttpxTransport(httpx.AsyncClient(transport=pooled, trust_env=False), close_inner=True)


def _aiohttp(context: ssl.SSLContext | None, ca_pem: bytes) -> Transport:
    import httpx_aiohttp

    inner: Any = httpx_aiohttp.AiohttpTransport(verify=context or _no_tls(), limits=_LIMITS, trust_env=False)
    return HttpxTransport(inner, close_inner=True)


def _pyreqwest(context: ssl.SSLContext | None, ca_pem: bytes) -> Transport:
    from pyreqwest.client import ClientBuilder
    from pyreqwest.compatibility.httpx import HttpxTransport as PyreqwestTransport

    builder: Any = ClientBuilder().no_proxy().follow_redirects(False).http1_only()
    if ca_pem:
        builder = builder.add_root_certificate_pem(ca_pem)
    return HttpxTransport(PyreqwestTransport(builder.build()), close_inner=True)


@attrs.frozen(kw_only=True)
class Kind:
    """One transport.

    Attributes:
        make: From a TLS context, and the same trust as PEM for what has no contexts.
        shortcomings: Fault or case to what it does instead of what it should.
        knows_not_sent: It tells for certain that nothing was sent.
        leaks: Faults after which it leaves a socket to the garbage collector.
    """

    name: str
    make: Callable[[ssl.SSLContext | None, bytes], Transport]
    shortcomings: Mapping[str, str] = attrs.field(factory=dict)
    knows_not_sent: bool = True
    leaks: frozenset[str] = frozenset()

    def __call__(self, context: ssl.SSLContext | None = None, ca_pem: bytes = b"") -> Transport:
        return self.make(context, ca_pem)


POOLED = Kind(name="pooled", make=_pooled)
POOLED_AS_HTTPX = Kind(name="pooled-as-httpx", make=_pooled_as_httpx)
HTTPX = Kind(
    name="httpx",
    make=_httpx,
    leaks=frozenset({"tls handshake stall"}),
    shortcomings={
        "10,000 interim answers": "ok [] | unknown, timed out",
        # Read together with the answer before it, so it is taken for the next one. The reqId check catches it.
        "surplus response": 'ok ["surplus"]',
    },
)
AIOHTTP = Kind(
    name="httpx-aiohttp",
    make=_aiohttp,
    knows_not_sent=False,
    shortcomings={
        "bad status line": "unknown",  # raises a ClientResponseError of aiohttp
        "200 KB header": "unknown",
        "endless chunk extension": "unknown, timed out",
        "endless trailer": "unknown",
        "10,000 interim answers": "ok [] | unknown, timed out",
        "answer unasked": 'ok ["unasked"]',
        "zero window": "unknown | unknown, timed out",
    },
)
PYREQWEST = Kind(
    name="pyreqwest",
    make=_pyreqwest,
    knows_not_sent=False,
    shortcomings={
        "bad status line": "unknown",
        "200 KB header": "ok []",
        "corrupt gzip": "unknown",  # decompresses by itself, and without a bound of its own
        "1 GiB content-length": "unknown, timed out",
        "endless chunk extension": "unknown",
        "endless trailer": "unknown",
        "10,000 interim answers": "ok [] | unknown, timed out",
        "tls TLS 1.1": "not told from other failures to connect",
        "tls plain http": "not told from other failures to connect",
    },
)


def _param(kind: Kind, module: str | None = None) -> Any:
    missing = module is not None and importlib.util.find_spec(module) is None
    return pytest.param(kind, id=kind.name, marks=[pytest.mark.skipif(missing, reason=f"{module} is not installed")])


OWN_KINDS = [_param(POOLED), _param(POOLED_AS_HTTPX), _param(HTTPX)]
EVERY_KIND = [*OWN_KINDS, _param(AIOHTTP, "httpx_aiohttp"), _param(PYREQWEST, "pyreqwest")]


def outcome_of(result: Answer | BaseException) -> str:
    """What became of an exchange, in one of the words of the catalogue."""
    match result:
        case Answer():
            return f"ok {result.body.decode('latin-1')[:20]}"
        case TLSError(retryable=False):
            return "tls"
        case TransportError(timed_out=True):
            return "unknown, timed out" if result.sent else "not sent, timed out"
        case TransportError():
            return "unknown" if result.sent else "not sent"
        case RedirectRefused():
            return "redirect refused"
        case ResponseTooLarge():
            return "too large"
        case RemoteProtocolError():
            return "protocol error"
        case _:
            raise result
