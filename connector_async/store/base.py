"""What a session remembers about consumers and conversations, and the interface to any place that keeps it.

A webhook names only the conversation and the `lp_consumer_id`; a store is what tells a restarted worker whose they
are. It is also the durable inbox of the webhooks: an event put here is answered with 200 and handled later, by any
worker that shares the store. Every method takes the account: one store may serve many.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Protocol, runtime_checkable

import attrs

__all__ = [
    "Admission",
    "ConsumerRecord",
    "ContactStore",
    "ConversationRecord",
    "DeadDelivery",
    "Delivery",
    "DeliveryCounts",
    "Store",
]


@attrs.frozen(kw_only=True)
class ConsumerRecord:
    """One consumer of one account, as the identity service knows it."""

    account_id: str
    ext_consumer_id: str
    lp_consumer_id: str | None
    token: str = attrs.field(repr=False)
    """The ConsumerJWS; it never expires. Empty after `drop_consumer_token`."""


@attrs.frozen(kw_only=True)
class ConversationRecord:
    """One conversation and the consumer it belongs to."""

    account_id: str
    conversation_id: str
    ext_consumer_id: str
    client_properties: str | None = None
    """The `Client-Properties` header that every call of this conversation must carry, or None when none is known."""
    opened_at: float = 0.0
    """Wall-clock seconds."""
    is_closed: bool = False


class Admission(Enum):
    """What became of a delivery that was put into the store."""

    NEW = "new"
    SEEN = "seen"
    """The same key was put before, whether it is handled by now or not."""
    FULL = "full"
    """The store holds as many unhandled deliveries as it may; this one was not kept."""


@attrs.frozen(kw_only=True)
class Delivery:
    """One event of one webhook delivery, claimed by one worker until its lease ends."""

    account_id: str
    key: str
    """Equal for the same event however often it is delivered."""
    lane: str
    """Events of one lane are claimed by one worker at a time: the conversation id."""
    body: bytes = attrs.field(repr=False)
    """The raw body of the delivery, as it was verified."""
    part: int
    """Which of the body's changes this is."""
    received_at: float
    """Wall-clock seconds."""
    attempts: int
    """How often it was claimed, this time included."""


@attrs.frozen(kw_only=True)
class DeadDelivery:
    """A delivery that was given up, and why."""

    account_id: str
    key: str
    lane: str
    body: bytes = attrs.field(repr=False)
    part: int
    received_at: float
    attempts: int
    reason: str


@attrs.frozen(kw_only=True)
class DeliveryCounts:
    """How much of the durable inbox is not handled."""

    waiting: int
    claimed: int
    dead: int
    oldest_received_at: float | None
    """Wall-clock seconds of the oldest delivery that is neither handled nor dead."""


@runtime_checkable
class Store(Protocol):
    """Consumers, conversations and seen notifications. Safe for many tasks; every method may be cancelled."""

    @property
    def durable(self) -> bool:
        """Whether what was put survives this process."""
        ...

    async def put_consumer(self, record: ConsumerRecord) -> None:
        """Keep a consumer; an older record of the same consumer is replaced."""
        ...

    async def get_consumer(self, account_id: str, ext_consumer_id: str) -> ConsumerRecord | None:
        """The consumer with this channel id."""
        ...

    async def find_consumer(self, account_id: str, lp_consumer_id: str) -> ConsumerRecord | None:
        """The consumer with the cloud's id."""
        ...

    async def drop_consumer_token(self, account_id: str, ext_consumer_id: str) -> None:
        """Forget a token that was refused; what else is known of the consumer stays, with an empty token."""
        ...

    async def put_conversation(self, record: ConversationRecord) -> None:
        """Keep a conversation; an older record of the same conversation is replaced.

        Of `client_properties` None replaces nothing: a process that heard of the conversation does not know with
        which properties another one opened it.
        """
        ...

    async def get_conversation(self, account_id: str, conversation_id: str) -> ConversationRecord | None:
        """The conversation with this id, open or closed."""
        ...

    async def get_open_conversation(self, account_id: str, ext_consumer_id: str) -> ConversationRecord | None:
        """The consumer's newest conversation that is not closed: there is at most one in the cloud."""
        ...

    async def close_conversation(self, account_id: str, conversation_id: str) -> None:
        """Mark it closed; unknown ids are ignored."""
        ...

    async def first_time(self, account_id: str, key: str) -> bool:
        """Whether this key was never given before (within the store's bound); remembers it."""
        ...

    async def put_echo(self, account_id: str, conversation_id: str, digest: str, sequence: int | None) -> None:
        """Keep the echo of a consumer's message that no send of this worker was waiting for."""
        ...

    async def take_echo(self, account_id: str, conversation_id: str, digest: str) -> tuple[bool, int | None]:
        """Whether an echo with this digest came to any worker, and its sequence; each echo is given out once."""
        ...

    async def put_receipt(self, account_id: str, conversation_id: str, status: str, sequences: Sequence[int]) -> None:
        """Keep what a receipt says of the messages with these numbers, for the worker that sent them."""
        ...

    async def receipts_of(self, account_id: str, conversation_id: str, sequence: int) -> frozenset[str]:
        """What receipts said of one message, to any worker: the API's words, such as `ACCEPT` and `READ`."""
        ...

    async def put_delivery(
        self, account_id: str, *, key: str, lane: str, body: bytes, received_at: float, part: int = 0
    ) -> Admission:
        """Keep one event until a worker has handled it. When this returns NEW from a durable store, it is on disk."""
        ...

    async def claim_deliveries(
        self, account_id: str, *, owner: str, now: float, lease_until: float, limit: int
    ) -> list[Delivery]:
        """Take up to `limit` that are due, oldest first, for one worker.

        A lane of which another worker holds a live lease is left alone, so that the events of one conversation are
        not handled by two workers at once. A lease that ended is claimable again.

        Args:
            account_id: The account.
            owner: The worker; unique to the run of one process.
            now: Wall-clock seconds.
            lease_until: Wall-clock seconds at which others may take them over.
            limit: How many at most.
        """
        ...

    async def renew_deliveries(self, account_id: str, *, owner: str, lease_until: float) -> int:
        """Extend all leases of a worker; how many it holds."""
        ...

    async def settle_delivery(self, account_id: str, key: str, *, owner: str) -> bool:
        """Mark it handled; its key stays known. False when the lease went to another worker meanwhile."""
        ...

    async def retry_delivery(self, account_id: str, key: str, *, owner: str, due_at: float) -> bool:
        """Give it back, to be claimed from `due_at` (wall-clock seconds). False as for `settle_delivery`."""
        ...

    async def dead_letter_delivery(self, account_id: str, key: str, *, owner: str, reason: str) -> bool:
        """Give it up; it is kept aside with the reason. False as for `settle_delivery`."""
        ...

    async def release_deliveries(self, account_id: str, *, owner: str) -> int:
        """Give back all that a stopping worker has not begun to handle; the claim does not count as an attempt."""
        ...

    async def delivery_counts(self, account_id: str) -> DeliveryCounts:
        """How many wait, are claimed, are dead, and since when the oldest waits."""
        ...

    async def dead_deliveries(self, account_id: str, *, limit: int = 100) -> list[DeadDelivery]:
        """Those that were given up, oldest first."""
        ...

    async def revive_delivery(self, account_id: str, key: str) -> bool:
        """Let a dead one be claimed again, its attempts counted from zero; False when there is none."""
        ...

    async def forget(self, account_id: str, ext_consumer_id: str) -> None:
        """Erase the consumer, the token, all conversations, and what the inbox and the echoes hold of them."""
        ...

    async def aclose(self) -> None:
        """Release what the store holds open; idempotent."""
        ...


@runtime_checkable
class ContactStore(Protocol):
    """A store in which a consumer and their conversation are found in one look-up; of others two are asked for."""

    async def get_contact(
        self, account_id: str, ext_consumer_id: str
    ) -> tuple[ConsumerRecord | None, ConversationRecord | None]:
        """What `get_consumer` and `get_open_conversation` give."""
        ...
