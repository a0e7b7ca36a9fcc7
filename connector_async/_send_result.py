"""The receipt of one message."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import attrs

from connector_async.exchange import Response
from connector_async.protocol.retry import Attempt

if TYPE_CHECKING:
    from connector_async.wire import EventPublished

__all__ = ["ReceiptBook", "SendResult"]


class ReceiptBook(Protocol):
    """Where the agent's receipts are noted, once webhooks are connected."""

    async def wait(self, dialog_id: str, sequence: int | None, request_id: str, status: str, timeout: float) -> None:
        """Return when a receipt of this kind has come for this message.

        Raises:
            TimeoutError: None came in time.
            RuntimeError: No webhooks are connected, so that none can come.
        """
        ...


@attrs.frozen(eq=False)
class SendResult:
    """The cloud's OK to a message.

    Attributes:
        request_id: The id it went by.
        dialog_id: The dialog it went to.
        response: Body, status, headers and raw bytes of the answer.
    """

    request_id: str
    dialog_id: str
    response: Response[EventPublished] = attrs.field(repr=False)
    _receipts: ReceiptBook | None = attrs.field(repr=False)

    @property
    def sequence(self) -> int | None:
        """The server's number as it came, or None.

        The documentation calls it an optional counter of how often the same request was sent: above 0 it may mean
        that the request was repeated. Live systems use it as the event's number in its dialog, which receipts refer
        to. Do not compute with it.

        Source: Connector API overview, "Responses"; protocol notes on `sequence`.
        """
        return self.response.body.sequence

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """One entry for each time it was sent, oldest first; each carries our own counter (0, 2, 4, 8 …)."""
        return self.response.attempts

    @property
    def maybe_duplicate(self) -> bool:
        """Whether an earlier attempt may have landed as well."""
        return self.response.maybe_duplicate

    async def delivered(self, *, timeout: float = 60.0) -> None:
        """Wait until the brand's side has received it (receipt ACCEPT, or READ, which implies it).

        Raises:
            TimeoutError: No receipt came within `timeout` seconds.
            RuntimeError: No webhooks are connected: nothing can be heard.
        """
        await self._wait("ACCEPT", timeout)

    async def read(self, *, timeout: float = 600.0) -> None:
        """Wait until an agent has read it (receipt READ).

        Raises:
            TimeoutError: No receipt came within `timeout` seconds.
            RuntimeError: No webhooks are connected: nothing can be heard.
        """
        await self._wait("READ", timeout)

    async def _wait(self, status: str, timeout: float) -> None:
        if self._receipts is None:
            raise RuntimeError(
                "receipts come by webhook, and this session has none connected: "
                "use `session.webhook_app()` or `session.serve()`"
            )
        await self._receipts.wait(self.dialog_id, self.sequence, self.request_id, status, timeout)
