"""The store that a session has when it is given none: everything in this process, bounded, gone at its end."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

import attrs

from connector_async.store._memory_inbox import MemoryInbox
from connector_async.store._memory_outbox import MemoryOutbox
from connector_async.store._memory_records import MemoryRecords
from connector_async.store._memory_tokens import MemoryTokenShare
from connector_async.store.base import (
    Admission,
    ConsumerRecord,
    ConversationRecord,
    DeadDelivery,
    Delivery,
    DeliveryCounts,
)
from connector_async.store.tokens import SharedToken

__all__ = ["MemoryStore"]

_Key = tuple[str, str]


def _outbox_of(store: MemoryStore) -> MemoryOutbox:
    return MemoryOutbox(
        max_waiting=store.max_entries, max_settled=store.max_entries, max_dead=store.max_dead, wall=store.wall
    )


@attrs.define(eq=False)
class MemoryStore:
    """Consumers, conversations and seen notifications in dictionaries; the least recently used go first.

    Args:
        max_entries: How many consumers, conversations, seen keys and waiting deliveries are kept, each.
        max_dead: How many deliveries that were given up are kept for each account.
        wall: The clock, in seconds.
    """

    max_entries: int = attrs.field(default=100_000, validator=attrs.validators.ge(1))
    max_dead: int = attrs.field(default=1_000, validator=attrs.validators.ge(1))
    wall: Callable[[], float] = attrs.field(default=time.time, kw_only=True, repr=False)
    _records: MemoryRecords = attrs.field(
        default=attrs.Factory(lambda self: MemoryRecords(self.max_entries), takes_self=True), init=False, repr=False
    )
    _seen: OrderedDict[_Key, None] = attrs.field(factory=OrderedDict[_Key, None], init=False, repr=False)
    _echoes: OrderedDict[tuple[str, str, str], list[int | None]] = attrs.field(
        factory=OrderedDict[tuple[str, str, str], list[int | None]], init=False, repr=False
    )
    _inboxes: dict[str, MemoryInbox] = attrs.field(factory=dict[str, MemoryInbox], init=False, repr=False)
    _receipts: OrderedDict[tuple[str, str, int], set[str]] = attrs.field(
        factory=OrderedDict[tuple[str, str, int], set[str]], init=False, repr=False
    )
    _share: MemoryTokenShare = attrs.field(
        default=attrs.Factory(lambda self: MemoryTokenShare(self.wall), takes_self=True), init=False, repr=False
    )
    outbox: MemoryOutbox = attrs.field(default=attrs.Factory(_outbox_of, takes_self=True), init=False, repr=False)
    """The messages on their way out."""

    @property
    def durable(self) -> bool:
        """False: what was put is gone with the process."""
        return False

    async def put_consumer(self, record: ConsumerRecord) -> None:
        """Keep a consumer."""
        self._records.put_consumer(record)

    async def get_consumer(self, account_id: str, ext_consumer_id: str) -> ConsumerRecord | None:
        """The consumer with this channel id."""
        return self._records.get_consumer(account_id, ext_consumer_id)

    async def find_consumer(self, account_id: str, lp_consumer_id: str) -> ConsumerRecord | None:
        """The consumer with the cloud's id."""
        return self._records.find_consumer(account_id, lp_consumer_id)

    async def drop_consumer_token(self, account_id: str, ext_consumer_id: str) -> None:
        """Forget a token that was refused."""
        self._records.drop_token(account_id, ext_consumer_id)

    async def put_conversation(self, record: ConversationRecord) -> None:
        """Keep a conversation."""
        self._records.put_conversation(record)

    async def get_conversation(self, account_id: str, conversation_id: str) -> ConversationRecord | None:
        """The conversation with this id, open or closed."""
        return self._records.get_conversation(account_id, conversation_id)

    async def get_open_conversation(self, account_id: str, ext_consumer_id: str) -> ConversationRecord | None:
        """The consumer's newest conversation that is not closed."""
        return self._records.get_open_conversation(account_id, ext_consumer_id)

    async def close_conversation(self, account_id: str, conversation_id: str) -> None:
        """Mark it closed; unknown ids are ignored."""
        self._records.close_conversation(account_id, conversation_id)

    async def first_time(self, account_id: str, key: str) -> bool:
        """Whether this key was never given before, among the last `max_entries`."""
        if (account_id, key) in self._seen:
            return False
        self._seen[account_id, key] = None
        if len(self._seen) > self.max_entries:
            self._seen.popitem(last=False)
        return True

    async def put_echo(self, account_id: str, conversation_id: str, digest: str, sequence: int | None) -> None:
        """Keep the echo of a consumer's message that no send was waiting for."""
        key = (account_id, conversation_id, digest)
        self._echoes.setdefault(key, []).append(sequence)
        self._echoes.move_to_end(key)
        if len(self._echoes) > self.max_entries:
            self._echoes.popitem(last=False)

    async def take_echo(self, account_id: str, conversation_id: str, digest: str) -> tuple[bool, int | None]:
        """Whether such an echo came, and its sequence; each is given out once."""
        key = (account_id, conversation_id, digest)
        waiting = self._echoes.get(key)
        if waiting is None:
            return False, None
        sequence = waiting.pop(0)
        if not waiting:
            del self._echoes[key]
        return True, sequence

    async def put_receipt(self, account_id: str, conversation_id: str, status: str, sequences: Sequence[int]) -> None:
        """Keep what a receipt says of the messages with these numbers."""
        for sequence in sequences:
            key = (account_id, conversation_id, sequence)
            self._receipts.setdefault(key, set()).add(status)
            if len(self._receipts) > self.max_entries:
                self._receipts.popitem(last=False)

    async def receipts_of(self, account_id: str, conversation_id: str, sequence: int) -> frozenset[str]:
        """What receipts said of one message."""
        return frozenset(self._receipts.get((account_id, conversation_id, sequence), ()))

    @property
    def shares_tokens(self) -> bool:
        """True: the sessions of this process that are given it share one AppJWT."""
        return True

    async def get_app_token(self, account_id: str, name: str) -> SharedToken | None:
        """The newest AppJWT, if it has not ended."""
        return self._share.get((account_id, name))

    async def put_app_token(self, account_id: str, name: str, *, value: str, seconds: float, fence: int) -> bool:
        """Keep a token; False when one was put under a later lease."""
        return self._share.put((account_id, name), value, seconds, fence)

    async def acquire_lease(self, account_id: str, name: str, *, owner: str, seconds: float) -> int | None:
        """Become, or stay, the one who renews."""
        return self._share.acquire((account_id, name), owner, seconds)

    async def release_lease(self, account_id: str, name: str, *, owner: str) -> None:
        """Let the next one renew."""
        self._share.release((account_id, name), owner)

    async def put_delivery(
        self, account_id: str, *, key: str, lane: str, body: bytes, received_at: float, part: int = 0
    ) -> Admission:
        """Keep one event until it is handled, or until the process ends."""
        return self._inbox(account_id).put(key=key, lane=lane, body=body, received_at=received_at, part=part)

    async def claim_deliveries(
        self, account_id: str, *, owner: str, now: float, lease_until: float, limit: int
    ) -> list[Delivery]:
        """Take up to `limit` that are due, oldest first."""
        return self._inbox(account_id).claim(account_id, owner=owner, now=now, lease_until=lease_until, limit=limit)

    async def renew_deliveries(self, account_id: str, *, owner: str, lease_until: float) -> int:
        """Extend all leases of a worker."""
        return self._inbox(account_id).renew(owner=owner, lease_until=lease_until)

    async def settle_delivery(self, account_id: str, key: str, *, owner: str) -> bool:
        """Mark it handled; its key stays known."""
        return self._inbox(account_id).settle(key, owner=owner)

    async def retry_delivery(self, account_id: str, key: str, *, owner: str, due_at: float) -> bool:
        """Give it back, to be claimed from `due_at`."""
        return self._inbox(account_id).retry(key, owner=owner, due_at=due_at)

    async def dead_letter_delivery(self, account_id: str, key: str, *, owner: str, reason: str) -> bool:
        """Give it up and keep it aside."""
        return self._inbox(account_id).bury(account_id, key, owner=owner, reason=reason)

    async def release_deliveries(self, account_id: str, *, owner: str) -> int:
        """Give back all that a stopping worker holds."""
        return self._inbox(account_id).release(owner=owner)

    async def delivery_counts(self, account_id: str) -> DeliveryCounts:
        """How many wait, are claimed, are dead."""
        return self._inbox(account_id).counts()

    async def dead_deliveries(self, account_id: str, *, limit: int = 100) -> list[DeadDelivery]:
        """Those that were given up, oldest first."""
        return self._inbox(account_id).dead(limit)

    async def revive_delivery(self, account_id: str, key: str) -> bool:
        """Let a dead one be claimed again."""
        return self._inbox(account_id).revive(key)

    async def forget(self, account_id: str, ext_consumer_id: str) -> None:
        """Erase the consumer, the token, all conversations, and what the inbox and the echoes hold of them."""
        for conversation_id in self._records.forget(account_id, ext_consumer_id):
            self._inbox(account_id).forget(conversation_id)
            for key in [key for key in self._echoes if key[:2] == (account_id, conversation_id)]:
                del self._echoes[key]
            for receipt in [key for key in self._receipts if key[:2] == (account_id, conversation_id)]:
                del self._receipts[receipt]
        await self.outbox.forget(account_id, ext_consumer_id)

    async def aclose(self) -> None:
        """Nothing is held open; what was put stays readable."""

    def _inbox(self, account_id: str) -> MemoryInbox:
        inbox = self._inboxes.get(account_id)
        if inbox is None:
            inbox = MemoryInbox(max_waiting=self.max_entries, max_settled=self.max_entries, max_dead=self.max_dead)
            self._inboxes[account_id] = inbox
        return inbox
