"""Messages that the session owns, and what becomes of each."""

from __future__ import annotations

from enum import Enum
from typing import Generic

import attrs
from typing_extensions import TypeVar

from connector_async._concurrency import Clock, Slot
from connector_async._redact import mask
from connector_async._send_result import SendResult
from connector_async.consumer import Consumer, Opening
from connector_async.conversation import Conversation
from connector_async.wire import Event

__all__ = ["Outcome", "OutcomeStatus", "Outgoing", "Submission"]

K = TypeVar("K", default=None)


def _masked(to: object) -> str:
    # As a `Consumer` shows itself: such ids may be telephone numbers.
    return repr(mask(to) if isinstance(to, str) else to)


@attrs.frozen
class Outgoing(Generic[K]):
    """One message to send.

    Attributes:
        to: The `ext_consumer_id`, a `Consumer` (their conversation is found or opened), or a `Conversation`.
        body: A text, or any event.
        key: Yours; it comes back on the outcome.
        request_id: The id to send it under, for a message that an earlier process may have sent. While it is in
            flight, another message under the same id is refused: it could be the same one, from a queue that gives
            it out twice.
        opening: How to open a conversation, if need be.
        prior_attempts: How often an earlier process has sent this `request_id`.
        timeout: Seconds from the moment it is its turn; the session's default when None.
    """

    to: str | Consumer | Conversation = attrs.field(repr=_masked)
    body: str | Event = attrs.field(repr=False)
    key: K | None = attrs.field(default=None, kw_only=True)
    request_id: str | None = attrs.field(default=None, kw_only=True)
    opening: Opening | None = attrs.field(default=None, kw_only=True)
    prior_attempts: int = attrs.field(default=0, kw_only=True)
    timeout: float | None = attrs.field(default=None, kw_only=True)


class OutcomeStatus(Enum):
    """What became of a message."""

    ACCEPTED = "accepted"
    """The cloud said OK."""
    REFUSED = "refused"
    """It can never succeed as it is; `Outcome.error` says why."""
    NOT_SENT = "not_sent"
    """It did not reach the cloud: safe to send again."""
    UNKNOWN = "unknown"
    """It may have landed."""


@attrs.frozen(kw_only=True)
class Outcome(Generic[K]):
    """The one outcome of one message.

    Attributes:
        result: The receipt, if it was accepted.
        error: Why it was not, otherwise.
        conversation_id: Where it went, or was to go; None if no conversation could be had.
    """

    message: Outgoing[K] = attrs.field(repr=False)
    status: OutcomeStatus
    result: SendResult | None = None
    error: Exception | None = None
    conversation_id: str | None = None

    @property
    def key(self) -> K | None:
        """The message's key."""
        return self.message.key

    @property
    def maybe_duplicate(self) -> bool:
        """Whether it may have landed more than once."""
        return self.result is not None and self.result.maybe_duplicate


class Submission(Generic[K]):
    """A message that was admitted: the session sends it, whatever becomes of the caller."""

    __slots__ = ("_clock", "_outcome", "_slots", "message")

    def __init__(self, message: Outgoing[K], clock: Clock) -> None:
        self.message = message
        self._clock = clock
        self._outcome: Outcome[K] | None = None
        self._slots: list[Slot] = []

    @property
    def done(self) -> bool:
        """Whether the outcome is known."""
        return self._outcome is not None

    def __repr__(self) -> str:
        state = "waits or is under way" if self._outcome is None else self._outcome.status.value
        return f"Submission({self.message!r}, {state})"

    async def outcome(self) -> Outcome[K]:
        """Wait for the outcome. Cancelling this does not cancel the message."""
        while self._outcome is None:
            slot = self._clock.slot()
            self._slots.append(slot)
            await slot
        return self._outcome

    def settle(self, outcome: Outcome[K]) -> None:
        """Called by the session, once."""
        self._outcome = outcome
        for slot in self._slots:
            slot.settle()
