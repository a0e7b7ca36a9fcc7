"""The keywords of `ConnectorSession` by their types, for what passes them on. A test compares them with its own."""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Mapping
from typing import TypedDict

import httpx

from connector_async.auth import TokenSettings
from connector_async.hooks import Hook
from connector_async.protocol.retry import RetryPolicy
from connector_async.session._settings import SessionLimits
from connector_async.store import Store
from connector_async.transport import Transport
from connector_async.webhooks import Router
from connector_async.wire import ClientProperties

__all__ = ["EachSession", "SessionOptions"]


class EachSession(TypedDict, total=False):
    """Those that may be the same for the sessions of many accounts."""

    domains: Mapping[str, str] | str | None
    retry: RetryPolicy | None
    timeout: float | None
    client_properties: ClientProperties | str | None
    drain: float
    tokens: TokenSettings | None


class SessionOptions(EachSession, total=False):
    """All of them."""

    transport: Transport | httpx.AsyncBaseTransport | httpx.AsyncClient | None
    proxy: str | httpx.URL | httpx.Proxy | None
    ssl_context: ssl.SSLContext | None
    limits: SessionLimits | None
    router: Router | None
    store: Store | None
    hooks: Iterable[Hook]
