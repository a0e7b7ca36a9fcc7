"""Messages that must not be lost, on their way out: what an outbox keeps, and the interface to any engine.

An outbox is a set of lanes, one for each consumer. A lane is owned by one pump at a time, by a lease with a fencing
number; only the head of a lane is ever under way. To begin a message is written down before it is sent, in the same
step that settles the one before it. So after a crash exactly the heads of the lanes that were owned may have been
sent, and they say so (`Claim.was_begun`); and a paused owner that wakes late can settle nothing any more.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from enum import Enum
from typing import Protocol, runtime_checkable

import attrs

__all__ = [
    "Advance",
    "Claim",
    "MessageState",
    "Outbox",
    "OutboxCounts",
    "OutboxEntry",
    "OutboxMessage",
    "OutboxStore",
    "PutResult",
    "Settlement",
]


class MessageState(Enum):
    """Where a message of an outbox is."""

    WAITING = "waiting"
    """Not begun, or to be sent again."""
    BEGUN = "begun"
    """Its lane's owner is sending it, or was when it died."""
    ACCEPTED = "accepted"
    """The cloud said OK."""
    REFUSED = "refused"
    """It can never succeed as it is."""
    NOT_SENT = "not_sent"
    """Given up without having reached the cloud."""
    UNKNOWN = "unknown"
    """It may have landed, and is not sent again."""

    @property
    def is_final(self) -> bool:
        """Whether no pump will send it again by itself."""
        return self not in (MessageState.WAITING, MessageState.BEGUN)


class PutResult(Enum):
    """What became of a message that was put."""

    ADDED = "added"
    KNOWN = "known"
    """A message with this id was put before; what was put now is not kept."""
    FULL = "full"
    """The outbox holds as many unsettled messages as it may; this one is not kept."""


@attrs.frozen(kw_only=True)
class OutboxMessage:
    """One message to keep until its end is known."""

    id: str
    """The caller's id, unique in the account: putting it again changes nothing."""
    consumer: str
    """The `ext_consumer_id`, which is the lane: messages of one consumer go in the order they were put."""
    body: bytes = attrs.field(repr=False)
    """The event, as the wire's JSON."""
    request_id: str
    """The id it is sent under, every time: at most 64 characters."""
    opening: bytes | None = attrs.field(default=None, repr=False)
    """How to open a conversation, if need be; JSON that the pump reads."""


@attrs.frozen(kw_only=True)
class Claim:
    """The head of a lane, begun, in the hands of the lane's owner."""

    account_id: str
    message: OutboxMessage
    owner: str
    fence: int
    """Grows with each time that any lane gets an owner; an older number has lost its lane."""
    attempts: int
    """How often it was sent before, as far as it was written down."""
    was_begun: bool
    """An earlier owner began it and told no end: it may have been sent."""
    maybe_duplicate: bool
    """It may have landed before, for this reason or as an earlier settlement said."""
    put_at: float
    """Wall-clock seconds, by the engine's clock."""


@attrs.frozen(kw_only=True)
class Settlement:
    """What became of a claimed message.

    Attributes:
        state: A final state, or WAITING: it is sent again `retry_in` seconds from now, still at the head.
        attempts: How often it was sent so far, earlier owners included.
        reason: One sentence for whoever looks; no message text.
        retry_in: Seconds; its lane rests as long.
        holds_lane: With a final state: the messages behind it wait until it is revived or discarded.
    """

    state: MessageState
    attempts: int = 0
    sequence: int | None = None
    conversation_id: str | None = None
    reason: str | None = None
    maybe_duplicate: bool = False
    retry_in: float = 0.0
    holds_lane: bool = False


@attrs.frozen(kw_only=True)
class Advance:
    """The answer to a settlement.

    Attributes:
        is_settled: False: the lane went to another owner meanwhile, and nothing was changed.
        next: The lane's next message, begun; None when there is none that is due: the lane is given back then.
    """

    is_settled: bool
    next: Claim | None = None


@attrs.frozen(kw_only=True)
class OutboxEntry:
    """A message as a person looks at it."""

    message: OutboxMessage
    state: MessageState
    attempts: int
    sequence: int | None
    conversation_id: str | None
    reason: str | None
    maybe_duplicate: bool
    put_at: float
    settled_at: float | None
    """Wall-clock seconds by the engine's clock; None while it is not settled."""


@attrs.frozen(kw_only=True)
class OutboxCounts:
    """How many messages of an account are where; `maybe_duplicate` of the accepted may have landed twice."""

    waiting: int = 0
    begun: int = 0
    accepted: int = 0
    refused: int = 0
    not_sent: int = 0
    unknown: int = 0
    maybe_duplicate: int = 0
    held_lanes: int = 0
    oldest_age: float | None = None
    """Seconds since the oldest unsettled message was put."""

    @property
    def unsettled(self) -> int:
        """Those that have no final state yet."""
        return self.waiting + self.begun


@runtime_checkable
class Outbox(Protocol):
    """Keeps messages until their end is known. Safe for many tasks and, where durable, for many processes.

    Times are durations: each engine has one clock of its own (a shared database's is the database's), so that the
    clocks of the machines need not agree. In memory, and in a file on Linux, nobody can set it; where the server of a
    database jumps back, what waits there waits as much longer. Batches are written together: all of a call, or none.
    Every method raises StoreUnavailable when the engine cannot be used; nothing was changed then.
    """

    @property
    def durable(self) -> bool:
        """Whether what was put survives this process."""
        ...

    async def put(self, account_id: str, messages: Sequence[OutboxMessage]) -> list[PutResult]:
        """Keep messages; when this returns from a durable engine, those ADDED are on disk."""
        ...

    async def claim(self, account_id: str, *, owner: str, lease: float, limit: int) -> list[Claim]:
        """Take up to `limit` lanes that have a due message and no live owner, longest due first; begin their heads.

        Args:
            account_id: The account.
            owner: The pump; unique to the run of one process.
            lease: Seconds until others may take the lanes over.
            limit: How many at most.
        """
        ...

    async def advance(
        self, account_id: str, settlements: Sequence[tuple[Claim, Settlement]], *, lease: float
    ) -> list[Advance]:
        """Settle heads, and begin the next message of each lane, whose lease runs for `lease` seconds from now.

        At most one settlement for each lane.
        """
        ...

    async def renew(
        self, account_id: str, *, owner: str, lease: float, consumers: Collection[str] | None = None
    ) -> frozenset[str]:
        """Extend the live leases of a pump.

        Args:
            account_id: The account.
            owner: The pump.
            lease: Seconds from now.
            consumers: The lanes that it carries; None for all it owns. What was claimed and could not be told (a
                connection that broke at the COMMIT) is owned and carried by nobody: that lease has to end.

        Returns:
            The lanes of these that it still owns.
        """
        ...

    async def release(self, account_id: str, claims: Sequence[Claim]) -> int:
        """Give lanes back whose heads were begun but certainly not sent: as if they had never been claimed."""
        ...

    async def counts(self, account_id: str) -> OutboxCounts:
        """How many are where, and how old the oldest is."""
        ...

    async def next_due(self, account_id: str) -> float | None:
        """Seconds until a lane without an owner, or one whose lease ends, can be claimed; None if there is none."""
        ...

    async def find(self, account_id: str, message_id: str) -> OutboxEntry | None:
        """One message; settled ones are remembered up to the engine's bound."""
        ...

    async def exceptions(self, account_id: str, *, after: int = 0, limit: int = 100) -> list[tuple[int, OutboxEntry]]:
        """Messages that ended REFUSED, NOT_SENT or UNKNOWN, or were accepted as `maybe_duplicate`, in steps.

        Args:
            account_id: The account.
            after: The number of the last one seen; 0 begins.
            limit: How many at most.
        """
        ...

    async def revive(self, account_id: str, message_id: str) -> bool:
        """Let a REFUSED, NOT_SENT or UNKNOWN one be sent again, in its old place; False when there is none."""
        ...

    async def discard(self, account_id: str, message_id: str) -> bool:
        """Let the messages behind a final one that holds its lane go on; False when it holds none."""
        ...

    async def forget(self, account_id: str, ext_consumer_id: str) -> None:
        """Erase a consumer's messages, whatever their state."""
        ...


@runtime_checkable
class OutboxStore(Protocol):
    """A store that has an outbox, as all of ours do."""

    @property
    def outbox(self) -> Outbox:
        """The messages on their way out."""
        ...
