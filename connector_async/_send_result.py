"""The receipt of one message."""

from __future__ import annotations

import attrs

from connector_async._receipts import ReceiptBook, SentMessage
from connector_async.exchange import Response
from connector_async.protocol.retry import Attempt
from connector_async.wire import EventPublished

__all__ = ["SendResult"]


@attrs.frozen(eq=False)
class SendResult:
    """A message has landed.

    Attributes:
        request_id: The id it went by.
        dialog_id: The dialog it went to.
        attempts: One entry for each time it was sent, oldest first; each carries our own counter (0, 2, 4, 8 …).
        response: The cloud's OK: body, status, headers and raw bytes. None if no answer came, and the message's own
            echo proved that it landed.
        maybe_duplicate: Whether an earlier attempt may have landed as well.
    """

    request_id: str
    dialog_id: str
    attempts: tuple[Attempt, ...]
    response: Response[EventPublished] | None = attrs.field(repr=False)
    maybe_duplicate: bool
    _book: ReceiptBook | None = attrs.field(default=None, repr=False)
    _message: SentMessage | None = attrs.field(default=None, repr=False)

    def __reduce__(self) -> tuple[type[SendResult], tuple[object, ...]]:
        """A copy is a value: it hears of no receipts."""
        return SendResult, (self.request_id, self.dialog_id, self.attempts, self.response, self.maybe_duplicate)

    @property
    def sequence(self) -> int | None:
        """The server's number as it came, or None.

        The documentation calls it an optional counter of how often the same request was sent: above 0 it may mean
        that the request was repeated. Live systems use it as the event's number in its dialog, which receipts refer
        to. Do not compute with it.

        Source: Connector API overview, "Responses".
        """
        return None if self.response is None else self.response.body.sequence

    async def delivered(self, *, timeout: float = 60.0) -> None:
        """Wait until the brand's side has received it (receipt ACCEPT, or READ, which implies it).

        Not in a handler of the same conversation; see `Conversation.wait_for`.

        Raises:
            TimeoutError: No receipt came within `timeout` seconds.
            RuntimeError: No webhooks are connected: nothing can be heard.
            SessionClosed: The session closed first.
        """
        await self._wait("ACCEPT", timeout)

    async def read(self, *, timeout: float = 600.0) -> None:
        """Wait until an agent has read it (receipt READ); as for `delivered`, not in a handler.

        Raises:
            TimeoutError: No receipt came within `timeout` seconds.
            RuntimeError: No webhooks are connected: nothing can be heard.
            SessionClosed: The session closed first.
        """
        await self._wait("READ", timeout)

    async def _wait(self, status: str, timeout: float) -> None:
        if self._book is None or self._message is None:
            raise RuntimeError(
                "receipts come by webhook, and this session had none connected when the message was sent: "
                "use `session.webhook_app()` or `session.serve()`"
            )
        await self._book.wait(self._message, status, timeout)
