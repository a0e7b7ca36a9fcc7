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
from connector_async.webhooks._patience import Patience
from connector_async.webhooks.dispatcher import Acceptance, Dispatcher
from connector_async.webhooks.events import AnswersSlow, DeliveryRefused, PreviousSecretNeeded
from connector_async.webhooks.receiver import MAX_BODY_BYTES
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


class _NotAccepted(Exception):
    """The request is refused before it is looked at as a delivery; without a status if there is nobody to answer."""

    def __init__(self, status: int | None) -> None:
        super().__init__(status)
        self.status = status


class _SecretsUnknown(Exception):
    """The session has no credentials yet."""


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
        self._patience = Patience()
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
        if scope["type"] == "http":
            status = await self._serve(scope, receive)
            if status is not None:
                # The list is the receiver's to change: frameworks add headers of their own.
                await send({"type": "http.response.start", "status": status, "headers": [*_HEADERS[status]]})
                await send({"type": "http.response.body", "body": _TEXTS[status]})
        elif scope["type"] == "lifespan":
            await _live(receive, send)
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
        try:
            head = read_head(headers)
        except WebhookError as error:
            status = self._refuse(error, None)
        else:
            status = await self._take(head, body)
        return status, _TEXTS[status]

    async def _serve(self, scope: Scope, receive: Receive) -> int | None:
        """The status to answer with; None if there is nobody to answer."""
        try:
            head = self._look_at(scope)
            reading = self._read(head, receive)
            is_done, body = self._patience.begin(reading)
            if not is_done:
                body = await self._patience.finish(self._read_timeout, reading, body)
        except _NotAccepted as refusal:
            return refusal.status
        except TimeoutError:
            return 408
        return await self._take(head, body)

    def _look_at(self, scope: Scope) -> Head:
        """The headers, if the body is worth reading: who is no vendor gets no memory."""
        if scope["method"] != "POST":
            raise _NotAccepted(405)
        try:
            head = read_head(scope["headers"])
        except WebhookError as error:
            raise _NotAccepted(self._refuse(error, None)) from error
        if not head.is_plain:
            # The signature is over the bytes as sent, so they must come unencoded.
            raise _NotAccepted(400)
        if head.length is not None and head.length > self._max_body_bytes:
            raise _NotAccepted(413)
        return head

    async def _read(self, head: Head, receive: Receive) -> bytes:
        chunks: list[bytes] = []
        size, is_more = 0, True
        while is_more:
            message = await receive()
            if message["type"] == "http.disconnect":
                logger.debug("the client hung up before its request was complete")
                raise _NotAccepted(None)
            is_more = message.get("more_body", False)
            chunks.append(message.get("body", b""))
            size += len(chunks[-1])
            if size > self._max_body_bytes:
                raise _NotAccepted(413)
        if head.length is not None and size != head.length:
            raise _NotAccepted(400)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def _take(self, head: Head, body: bytes) -> int:
        """The status of a delivery; how long that took is watched."""
        started = self._clock()
        dispatcher: Dispatcher | None = None
        try:
            dispatcher = await self._accounts(head.account_id)
            if dispatcher is None:
                raise WrongAccount("the delivery is for an account that is not served here")
            if len(body) > self._max_body_bytes:
                raise WebhookBodyTooLarge(f"the body exceeds {self._max_body_bytes} bytes")
            try:
                accepting = self._open(dispatcher, head, body)
            except (InvalidSignature, UnreadableNotification) as error:
                accepting = self._think_again(error, dispatcher, head, body)
            status = 200 if await accepting is Acceptance.DONE else 503
        except _SecretsUnknown:
            logger.warning("a delivery is left to the vendor to bring again: the credentials are not known yet")
            status = 503
        except WebhookError as error:
            status = self._refuse(error, dispatcher)
        except Exception:
            logger.exception("a delivery could not be taken in")
            status = 500
        now = self._clock()
        mean = self._guard.record(now - started, now)
        if mean is not None:
            self._raise_alarm(mean, dispatcher)
        return status

    def _open(self, dispatcher: Dispatcher, head: Head, body: bytes) -> Awaitable[Acceptance]:
        receiver = dispatcher.receiver
        if receiver is None:
            raise _SecretsUnknown
        is_heard = self._refusals.count < _REFUSALS_PER_SECOND or int(self._clock()) != self._refusals.second
        notification, used_previous = receiver.open(head, body, with_diagnosis=is_heard)
        if used_previous:
            dispatcher.port.emit(PreviousSecretNeeded(account_id=head.account_id, client_id=head.client_id))
        return dispatcher.accept(notification, body, self._ack)

    async def _think_again(self, error: WebhookError, dispatcher: Dispatcher, head: Head, body: bytes) -> Acceptance:
        """What does not fit may fit other secrets; what fits and cannot be read may be kept.

        Raises:
            WebhookError: Neither is so.
        """
        if isinstance(error, InvalidSignature):
            if self._reload_secrets is None or not await self._reload_secrets(head.account_id):
                raise error
            try:
                # The same receiver, with other secrets now.
                return await self._open(dispatcher, head, body)
            except UnreadableNotification as unreadable:
                error = unreadable
        acceptance = await dispatcher.keep_unreadable(body)
        if acceptance is None:
            raise error
        return acceptance

    def _refuse(self, error: WebhookError, dispatcher: Dispatcher | None) -> int:
        """The status of a delivery that is refused; the hooks hear of it where the account is known."""
        reason = error.reason if isinstance(error, InvalidSignature) else str(error)
        if self._refusals.allows(self._clock()):
            logger.warning("delivery refused with %d: %s: %s", error.status, type(error).__name__, reason)
        if dispatcher is not None:
            dispatcher.counters.refused += 1
            dispatcher.port.emit(DeliveryRefused(status=error.status, reason=f"{type(error).__name__}: {reason}"))
        return error.status

    def _raise_alarm(self, mean: float, dispatcher: Dispatcher | None) -> None:
        logger.error(
            "webhooks were answered in %.1f s on average over %d s; at 2.5 s over 2 minutes the vendor may disable "
            "the app without notice: look for what blocks the event loop, or for a slow disk under the store",
            mean,
            self._guard.window,
        )
        if dispatcher is not None:
            dispatcher.port.emit(AnswersSlow(mean=mean, window=self._guard.window))


async def _live(receive: Receive, send: Send) -> None:
    """There is nothing to start or stop here: the session owns everything."""
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            await send({"type": "lifespan.shutdown.complete"})
            return
