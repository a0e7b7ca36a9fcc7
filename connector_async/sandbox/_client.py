"""The shortest way from a sandbox to a client of it, for tests.

The one module of the sandbox that knows the client, and only to hand it out: nothing that the sandbox answers depends
on it, so that the two can disagree. The import contract names this exception.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any, Unpack

if TYPE_CHECKING:
    from connector_async import AppCredentials, ConnectorSession
    from connector_async.session._options import SessionOptions

__all__ = ["ForClients"]


class ForClients:
    """What a `Sandbox` offers to those who use our client."""

    account_id: str
    client_id: str
    client_secret: str
    url: str
    app: Any
    in_process: bool
    ssl_context: ssl.SSLContext | None

    @property
    def credentials(self) -> AppCredentials:
        """Of the first account."""
        from connector_async import AppCredentials

        return AppCredentials(self.client_id, self.client_secret)

    def session(self, **options: Unpack[SessionOptions]) -> ConnectorSession:
        """A session of the first account with this sandbox, to be entered.

        Args:
            options: Any keyword of `ConnectorSession`, instead of what fits this sandbox.
        """
        import httpx

        from connector_async import ConnectorSession

        options.setdefault("domains", self.url)
        if self.in_process:
            options.setdefault("transport", httpx.ASGITransport(self.app))
        elif self.ssl_context is not None:
            options.setdefault("ssl_context", self.ssl_context)
        return ConnectorSession(self.account_id, self.credentials, **options)
