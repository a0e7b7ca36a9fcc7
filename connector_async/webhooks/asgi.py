"""The ASGI app that the vendor posts to, and the same for any other framework: headers and body in, status out.

Thin on purpose: it reads and bounds the body, asks the receiver and the dispatcher, and watches the time.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import attrs

from connector_async.errors import (
    InvalidSignature,
    UnreadableNotification,
    WebhookBodyTooLarge,
    WebhookError,
    WrongAccount,
)
from connector_async.webhooks._answer_guard import AnswerGuard
from connector_async.webhooks._head import Head, Headers, read_head
from connector_async.webhooks._patience import within
from connector_async.webhooks.dispatcher import Acceptance, Dispatcher
from connector_async.webhooks.events import AnswersSlow, DeliveryRefused, PreviousSecretNeeded
from connector_async.webhooks.receiver import MAX_BODY_BYTES, Verified
from connector_async.webhooks.settings import Ack

__all__ = ["AccountDirectory", "WebhookApp"]

logger = logging.getLogger("connector_async.webhooks")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
AccountDirectory = Callable[[str], Awaitable[Dispatcher | None]]
"""Account id to its dispatcher; None for accounts that are not served."""
SecretsReload = Callable[[str], Awaitable[bool]]
"""Asked when a signature of this account does not fit; whether other secrets are known now."""

_REFUSALS_PER_SECOND = 10
"""Refusals that are diagnosed and logged: strangers must not fill the disk, nor have us hash for them."""

_TEXTS = {
    200: b"",  # nobody reads it, and servers write a body apart from its head: one more system call
    400: b"unreadable",
    401: b"unauthorized",
    405: b"POST only",
    408: b"too slow",
    413: b"too large",
    500: b"error",
    503: b"try again",
}


def _headers_of(status: int) -> tuple[tuple[bytes, bytes], ...]:
    headers = [(b"content-length", b"%d" % len(_TEXTS[status]))]
    if _TEXTS[status]:
        headers.append((b"content-type", b"text/plain; charset=utf-8"))
    if status == 405:
        headers.append((b"allow", b"POST"))
    if status in {400, 401, 408, 413}:
        # What is left of the body would be taken for the next request.
        headers.append((b"connection", b"close"))
    return tuple(headers)


_HEADERS = {status: _headers_of(status) for status in _TEXTS}


class _ClientGone(Exception):
    """The client hung up before its request was complete: there is nobody to answer."""


class _NotAccepted(Exception):
    """The request is refused before it is looked at as a delivery."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


@attrs.define(eq=False)
class _RefusalLimit:
    """Lets so many per second pass."""

    second: int = 0
    count: int = 0

    def allows(self, now: float) -> bool:
        if int(now) != self.second:
            self.second, self.count = int(now), 0
        self.count += 1
        return self.count <= _REFUSALS_PER_SECOND


class WebhookApp:
    """Receives the webhooks of one or many accounts.

    In FastAPI and Starlette, as an exact route (a mount answers `/webhooks` with 307, which the vendor counts as a
    failure):

        app.add_route("/webhooks", session.webhook_app().endpoint, methods=["POST"])

    In any other framework: `status, text = await webhooks.handle(request_headers, raw_body)`.

    Args:
        accounts: Finds the dispatcher of an account.
        ack: When to answer 200; None: stored, where the store is durable, else queued.
        reload_secrets: Asked when a signature does not fit; if it says True the delivery is verified once more.
        max_body_bytes: Larger bodies are answered with 413, and not read to their end.
        read_timeout: Seconds in which a body must have come, else 408.
        clock: Seconds on any clock that does not go back.
    """

    def __init__(
        self,
        accounts: AccountDirectory,
        *,
        ack: Ack | None = None,
        reload_secrets: SecretsReload | None = None,
        max_body_bytes: int = MAX_BODY_BYTES,
        read_timeout: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if ack not in {None, "queued", "stored", "handled"}:
            raise ValueError(f"ack is 'queued', 'stored' or 'handled', not {ack!r}")
        self._accounts = accounts
        self._ack: Ack | None = ack
        self._reload_secrets = reload_secrets
        self._max_body_bytes = max_body_bytes
        self._read_timeout = read_timeout
        self._clock = clock
        self._guard = AnswerGuard()
        self._refusals = _RefusalLimit()

    @classmethod
    def of(cls, dispatcher: Dispatcher, **options: Any) -> WebhookApp:
        """For one account only; options as for the class."""

        async def only(account_id: str) -> Dispatcher | None:
            return dispatcher if account_id == dispatcher.port.account_id else None

        return cls(only, **options)

    @property
    def endpoint(self) -> Any:
        """For an exact route: the app itself, which answers at whatever path it is called with.

        Untyped, because Starlette's `add_route` takes an ASGI app at run time but does not say so in its types.
        """
        return self

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the lifespan of the server."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["type"] == "http":
            await self._serve(scope, receive, send)
        else:
            raise RuntimeError(f"webhooks come by http, not by {scope['type']}")

    async def handle(self, headers: Headers, body: bytes) -> tuple[int, bytes]:
        """Take one delivery.

        Args:
            headers: Those of the request.
            body: Its raw bytes.

        Returns:
            The status to answer with and a short plain text, empty for 200. Nothing is raised but cancellation.
        """
        account: list[Dispatcher] = []
        try:
            head = read_head(headers)
        except WebhookError as error:
            self._note_refusal(error, account)
            return error.status, _TEXTS[error.status]
        return await self._timed(head, body, account)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if scope["method"] != "POST":
                raise _NotAccepted(405)
            # Who is no vendor gets no memory: the body is not even read.
            head = read_head(scope["headers"])
            body = await self._read(head, receive)
        except WebhookError as error:
            self._note_refusal(error, [])
            status, text = error.status, _TEXTS[error.status]
        except _ClientGone:
            logger.debug("the client hung up before its request was complete")
            return
        except _NotAccepted as refusal:
            status, text = refusal.status, _TEXTS[refusal.status]
        else:
            status, text = await self._timed(head, body, [])
        await _answer(send, status, text)

    async def _read(self, head: Head, receive: Receive) -> bytes:
        if not head.is_plain:
            # The signature is over the bytes as sent, so they must come unencoded.
            raise _NotAccepted(400)
        if head.length is not None and head.length > self._max_body_bytes:
            raise _NotAccepted(413)
        try:
            body = await within(self._read_timeout, self._join(receive))
        except TimeoutError:
            raise _NotAccepted(408) from None
        if head.length is not None and len(body) != head.length:
            raise _NotAccepted(400)
        return body

    async def _join(self, receive: Receive) -> bytes:
        chunks: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _ClientGone
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > self._max_body_bytes:
                raise _NotAccepted(413)
            if not message.get("more_body", False):
                return b"".join((*chunks, chunk)) if chunks else chunk
            chunks.append(chunk)

    async def _timed(self, head: Head, body: bytes, account: list[Dispatcher]) -> tuple[int, bytes]:
        started = self._clock()
        try:
            status = await self._take(head, body, account)
        except WebhookError as error:
            status = error.status
            self._note_refusal(error, account)
        except Exception:
            logger.exception("a delivery could not be taken in")
            status = 500
        now = self._clock()
        mean = self._guard.record(now - started, now)
        if mean is not None:
            self._raise_alarm(mean, account)
        return status, _TEXTS[status]

    async def _take(self, head: Head, body: bytes, account: list[Dispatcher]) -> int:
        """The status; `account` gets the dispatcher as soon as it is known, also when this raises."""
        dispatcher = await self._accounts(head.account_id)
        if dispatcher is None:
            raise WrongAccount("the delivery is for an account that is not served here")
        account.append(dispatcher)
        if len(body) > self._max_body_bytes:
            raise WebhookBodyTooLarge(f"the body exceeds {self._max_body_bytes} bytes")
        try:
            try:
                verified = self._verify(dispatcher, head, body)
            except InvalidSignature:
                if self._reload_secrets is None or not await self._reload_secrets(head.account_id):
                    raise
                # The same receiver, with other secrets now.
                verified = self._verify(dispatcher, head, body)
        except UnreadableNotification:
            acceptance = await dispatcher.keep_unreadable(body)
            if acceptance is None:
                raise
            return _status_of(acceptance)
        if verified is None:
            logger.warning("a delivery is left to the vendor to bring again: the credentials are not known yet")
            return 503
        if verified.used_previous_secret:
            dispatcher.port.emit(PreviousSecretNeeded(account_id=verified.account_id, client_id=verified.client_id))
        ack = self._ack or ("stored" if dispatcher.port.store.durable else "queued")
        return _status_of(await dispatcher.accept(verified.notification, body, ack))

    def _verify(self, dispatcher: Dispatcher, head: Head, body: bytes) -> Verified | None:
        """What was verified; None before the session has any secret."""
        receiver = dispatcher.receiver
        if receiver is None:
            return None
        is_heard = self._refusals.count < _REFUSALS_PER_SECOND or int(self._clock()) != self._refusals.second
        return receiver.verify_read(head, body, with_diagnosis=is_heard)

    def _note_refusal(self, error: WebhookError, account: list[Dispatcher]) -> None:
        reason = error.reason if isinstance(error, InvalidSignature) else str(error)
        if self._refusals.allows(self._clock()):
            logger.warning("delivery refused with %d: %s: %s", error.status, type(error).__name__, reason)
        for dispatcher in account:
            dispatcher.counters.refused += 1
            dispatcher.port.emit(DeliveryRefused(status=error.status, reason=f"{type(error).__name__}: {reason}"))

    def _raise_alarm(self, mean: float, account: list[Dispatcher]) -> None:
        logger.error(
            "webhooks were answered in %.1f s on average over %d s; at 2.5 s over 2 minutes the vendor may disable "
            "the app without notice: look for what blocks the event loop, or for a slow disk under the store",
            mean,
            self._guard.window,
        )
        for dispatcher in account:
            dispatcher.port.emit(AnswersSlow(mean=mean, window=self._guard.window))


def _status_of(acceptance: Acceptance) -> int:
    return 200 if acceptance is Acceptance.DONE else 503


async def _answer(send: Send, status: int, text: bytes) -> None:
    # The list is the receiver's to change: frameworks add headers of their own.
    await send({"type": "http.response.start", "status": status, "headers": [*_HEADERS[status]]})
    await send({"type": "http.response.body", "body": text})


async def _live(receive: Receive, send: Send) -> None:
    """There is nothing to start or stop here: the session owns everything."""
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            await send({"type": "lifespan.shutdown.complete"})
            return
