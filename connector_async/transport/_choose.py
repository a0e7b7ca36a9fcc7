"""Which transport a session uses: ours, httpx's where a proxy or trio asks for it, or what the user passed."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from urllib.request import getproxies

import httpx

from connector_async._arguments import kind_of, offers
from connector_async.errors import ConfigurationError
from connector_async.transport._httpx import HttpxTransport
from connector_async.transport._tls import check_context
from connector_async.transport.base import Transport
from connector_async.transport.pooled import PooledTransport

__all__ = ["as_transport", "check_transport"]

_IDLE_TIMEOUT = 15.0
_SCHEMES = "a proxy is a URL that begins with http://, https://, socks5:// or socks5h://"


def as_transport(
    value: Transport | httpx.AsyncBaseTransport | httpx.AsyncClient | None = None,
    *,
    max_connections: int = 256,
    max_body_bytes: int = 1_048_576,
    ssl_context: ssl.SSLContext | None = None,
    proxy: str | httpx.URL | httpx.Proxy | None = None,
) -> tuple[Transport, bool]:
    """The transport to use, and whether it is ours to enter and close.

    To be called inside the event loop: trio has no pooled transport.

    Args:
        value: What the user passed. A `Transport` is used as it is; anything of httpx is wrapped (the wrapper is
            ours, what is inside stays the user's); None chooses `PooledTransport`, or httpx's own transport when a
            proxy is given or configured in the environment (`NO_PROXY` is respected, as in httpx), or under trio.
        max_connections: Connections in total, for what is made here.
        max_body_bytes: Largest body of an answer, for what is made here.
        ssl_context: For what is made here.
        proxy: A proxy for everything.

    Raises:
        ConfigurationError: `value` is nothing of the kind, or not for this event loop, or a proxy cannot be used.
    """
    check_transport(value, proxy=proxy, ssl_context=ssl_context)
    if isinstance(value, PooledTransport) and not _on_asyncio():
        raise ConfigurationError("PooledTransport runs on asyncio only: pass an httpx.AsyncHTTPTransport, or nothing")
    if isinstance(value, PooledTransport | HttpxTransport):
        return value, False
    if isinstance(value, httpx.AsyncBaseTransport | httpx.AsyncClient):
        return HttpxTransport(value, max_body_bytes=max_body_bytes), True
    if value is not None:
        return value, False
    from_environment = proxy is None and _environment_has_proxy(getproxies())
    if not (proxy or from_environment) and _on_asyncio():
        return (
            PooledTransport(max_connections=max_connections, max_body_bytes=max_body_bytes, ssl_context=ssl_context),
            True,
        )
    inner = _client(proxy, ssl_context, max_connections, from_environment=from_environment)
    wrapped = HttpxTransport(inner, max_body_bytes=max_body_bytes, max_exchanges=max_connections, close_inner=True)
    return wrapped, True


def check_transport(value: object, *, proxy: object = None, ssl_context: object = None) -> None:
    """What `as_transport` takes.

    Raises:
        ConfigurationError: It is nothing of the kind.
    """
    check_context(ssl_context)
    _check_proxy(proxy)
    if value is None or isinstance(value, httpx.AsyncBaseTransport | httpx.AsyncClient):
        return
    if not offers(value, Transport):
        raise ConfigurationError(
            f"transport must be a Transport, or an AsyncBaseTransport or AsyncClient of httpx, got {kind_of(value)}"
        )


def _check_proxy(proxy: object) -> None:
    if proxy is None or isinstance(proxy, httpx.Proxy):
        return
    if not isinstance(proxy, str | httpx.URL):
        raise ConfigurationError(f"proxy must be the URL of a proxy, or an httpx.Proxy, got {kind_of(proxy)}")
    try:
        httpx.Proxy(proxy)
    except (ValueError, httpx.InvalidURL):
        # Without what was given: it may hold a password.
        raise ConfigurationError(f"proxy: {_SCHEMES}") from None


def _client(
    proxy: str | httpx.URL | httpx.Proxy | None,
    ssl_context: ssl.SSLContext | None,
    max_connections: int,
    *,
    from_environment: bool,
) -> httpx.AsyncClient:
    which = "a proxy in the environment (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY)" if from_environment else "proxy"
    try:
        return httpx.AsyncClient(
            verify=ssl_context or True,
            proxy=proxy,
            trust_env=from_environment,
            timeout=None,  # noqa: S113 - each exchange has a deadline
            limits=httpx.Limits(
                max_connections=max_connections,
                max_keepalive_connections=max_connections,
                keepalive_expiry=_IDLE_TIMEOUT,
            ),
        )
    except ImportError as error:
        raise ConfigurationError(f"{which}: {error}") from error
    except (ValueError, httpx.InvalidURL):
        raise ConfigurationError(f"{which}: {_SCHEMES}") from None


def _environment_has_proxy(proxies: Mapping[str, str]) -> bool:
    """As httpx reads it; which hosts go past the proxy is left to httpx."""
    exempt = [host.strip() for host in proxies.get("no", "").split(",")]
    return "*" not in exempt and any(proxies.get(scheme) for scheme in ("http", "https", "all"))


def _on_asyncio() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
