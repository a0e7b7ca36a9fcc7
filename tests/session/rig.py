"""A session over a small scripted cloud."""

from __future__ import annotations

from typing import Any

from connector_async import AppCredentials, ConnectorSession
from tests.doubles import BASE, FakeCloud, ScriptedTransport

__all__ = ["DOMAINS", "FakeCloud", "session_over"]

DOMAINS = {"sentinel": BASE, "idp": BASE, "asyncMessagingEnt": BASE}


def session_over(cloud: FakeCloud, **options: Any) -> ConnectorSession:
    """Not entered yet; `client` is the client id that the cloud expects."""
    options.setdefault("transport", ScriptedTransport(cloud))
    options.setdefault("domains", DOMAINS)
    return ConnectorSession("12345678", AppCredentials("client", "a-secret"), **options)
