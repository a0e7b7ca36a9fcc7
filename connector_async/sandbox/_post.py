"""Where webhooks go: an HTTP endpoint, by a small HTTP/1.1 client of the sandbox's own, or an ASGI application.

The sandbox must be able to disagree with the product, so nothing of its transport is used here.
"""

from __future__ import annotations

import contextlib
import logging
import ssl
from collections.abc import Sequence
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import anyio
import anyio.abc
import httptools
from starlette.types import ASGIApp

from connector_async.errors import ConfigurationError

__all__ = ["POST_FAILURES", "AsgiTarget", "HttpTarget", "Target"]

_log = logging.getLogger(__name__)

Headers = Sequence[tuple[bytes, bytes]]

_TIMEOUT: Final = 5.0  # seconds, to connect and again to be answered
_MAX_ANSWER: Final = 64 * 1024  # nobody needs to say more to a webhook


class AnswerTooLong(Exception):
    """The endpoint answers with more than a webhook reads."""


POST_FAILURES: Final = (
    OSError,
    anyio.BrokenResourceError,
    anyio.ClosedResourceError,
    anyio.EndOfStream,
    httptools.HttpParserError,
    httptools.HttpParserUpgrade,
    AnswerTooLong,
)
"""What `Target.post` raises when no usable answer came; a timeout is an OSError."""


class Target(Protocol):
    """Somewhere to deliver to."""

    async def post(self, headers: Headers, body: bytes) -> int:
        """POST the body and return the status of the answer; raises one of `POST_FAILURES`."""
        ...

    async def aclose(self) -> None:
        """Let go of what is kept open."""
        ...


class _Answer:
    """What httptools calls back."""

    def __init__(self) -> None:
        self.parser: Any = httptools.HttpResponseParser(self)
        self.is_complete = False
        self.has_begun = False
        self.status = 0
        self.may_stay = False

    def on_headers_complete(self) -> None:
        # Asked here, since the parser forgets both once the message is complete.
        self.status = int(self.parser.get_status_code())
        self.may_stay = bool(self.parser.should_keep_alive())

    def on_message_complete(self) -> None:
        self.is_complete = True

    def on_message_begin(self) -> None:
        self.is_complete = False

    async def read(self, stream: anyio.abc.ByteStream) -> tuple[int, bool]:
        """The status, and whether the connection may be used again."""
        size = 0
        while not self.is_complete or self.status < 200:
            try:
                data = await stream.receive()
            except anyio.EndOfStream:
                if self.status >= 200:  # a body without a length, which ends with the connection
                    break
                raise
            self.has_begun = True
            size += len(data)
            if size > _MAX_ANSWER:
                raise AnswerTooLong
            self.parser.feed_data(data)
        return self.status, self.is_complete and self.may_stay


class HttpTarget:
    """An endpoint by URL, http or https, with connections kept open between deliveries."""

    def __init__(self, url: str, *, ssl_context: ssl.SSLContext | None = None) -> None:
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise ConfigurationError(f"webhook endpoint {url!r} is no URL: {error}") from error
        if parts.scheme not in ("http", "https") or not parts.hostname or not url.isascii() or " " in url:
            raise ConfigurationError(
                f"webhook endpoint {url!r} must be a URL that begins with http:// or https://, in plain ASCII"
            )
        self._host = parts.hostname
        self._tls = parts.scheme == "https"
        self._port = port or (443 if self._tls else 80)
        self._ssl_context = ssl_context
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._head = f"POST {path} HTTP/1.1\r\nhost: {parts.netloc.rpartition('@')[2]}\r\n".encode("latin-1")
        self._idle: list[anyio.abc.ByteStream] = []

    async def post(self, headers: Headers, body: bytes) -> int:
        """POST the body and return the status of the answer; raises one of `POST_FAILURES`."""
        lines = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
        request = b"%s%scontent-length: %d\r\n\r\n%s" % (self._head, lines, len(body), body)
        while self._idle:
            stream, answer = self._idle.pop(), _Answer()
            try:
                return await self._exchange(stream, answer, request)
            except (OSError, anyio.BrokenResourceError, anyio.EndOfStream, anyio.ClosedResourceError):
                if answer.has_begun:
                    raise
                # The endpoint had closed it while it was idle: that is no failure of this delivery.
        with anyio.fail_after(_TIMEOUT):
            stream = await self._connect()
        return await self._exchange(stream, _Answer(), request)

    async def _connect(self) -> anyio.abc.ByteStream:
        if self._tls:
            context = self._ssl_context or ssl.create_default_context()
            return await anyio.connect_tcp(
                self._host, self._port, tls=True, ssl_context=context, tls_standard_compatible=False
            )
        return await anyio.connect_tcp(self._host, self._port)

    async def _exchange(self, stream: anyio.abc.ByteStream, answer: _Answer, request: bytes) -> int:
        may_stay = False
        try:
            with anyio.fail_after(_TIMEOUT):
                await stream.send(request)
                status, may_stay = await answer.read(stream)
        finally:
            if may_stay:
                self._idle.append(stream)
            else:
                await anyio.aclose_forcefully(stream)
        return status

    async def aclose(self) -> None:
        """Close the idle connections."""
        while self._idle:
            with contextlib.suppress(*POST_FAILURES):
                await anyio.aclose_forcefully(self._idle.pop())


class AsgiTarget:
    """An ASGI application in this process."""

    def __init__(self, app: ASGIApp, path: str) -> None:
        self._app = app
        self._path, _, query = path.partition("?")
        self._query = query.encode("latin-1")

    async def post(self, headers: Headers, body: bytes) -> int:
        """POST the body and return the status of the answer; raises one of `POST_FAILURES`."""
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "https",
            "path": self._path,
            "raw_path": self._path.encode(),
            "query_string": self._query,
            "root_path": "",
            "headers": [(b"host", b"webhooks.test"), (b"content-length", b"%d" % len(body)), *headers],
            "client": ("127.0.0.1", 1),
            "server": ("webhooks.test", 443),
        }
        incoming: list[dict[str, Any]] = [{"type": "http.request", "body": body, "more_body": False}]
        statuses: list[int] = []

        async def receive() -> dict[str, Any]:
            return incoming.pop() if incoming else {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        with anyio.fail_after(_TIMEOUT):
            try:
                await self._app(scope, receive, send)
            except TimeoutError:
                raise
            except Exception:  # noqa: BLE001 - what a server does with an application that fails
                _log.exception("the webhook application failed")
                return 500
        if not statuses:
            raise ConnectionResetError("the application returned without an answer")
        return statuses[0]

    async def aclose(self) -> None:
        """Nothing is kept open."""
