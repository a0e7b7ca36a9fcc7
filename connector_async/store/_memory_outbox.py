"""The outbox in this process: for messages that may be lost with it, and for tests."""

from __future__ import annotations

import time
from bisect import insort
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Sequence

import attrs

from connector_async.store.outbox import (
    Advance,
    Claim,
    MessageState,
    OutboxCounts,
    OutboxEntry,
    OutboxMessage,
    PutResult,
    Settlement,
)

__all__ = ["MemoryOutbox"]

_Key = tuple[str, str]
_Tally = tuple[MessageState, bool]


@attrs.define(eq=False)
class _Entry:
    number: int
    message: OutboxMessage
    put_at: float
    state: MessageState = MessageState.WAITING
    attempts: int = 0
    sequence: int | None = None
    conversation_id: str | None = None
    reason: str | None = None
    maybe_duplicate: bool = False
    settled_at: float | None = None
    exception_number: int = 0

    def __lt__(self, other: _Entry) -> bool:
        return self.number < other.number


@attrs.define(eq=False)
class _Lane:
    entries: list[_Entry] = attrs.field(factory=list[_Entry])
    """Unsettled, in the order they were put."""
    owner: str | None = None
    fence: int = 0
    free_at: float = 0.0
    """When it can be claimed: when it is due, or when its owner's lease ends."""
    held_by: str | None = None
    """The id of a final message that the others wait behind."""

    @property
    def first(self) -> _Entry:
        """The one to go next: one that was revived while another was under way stands behind that one."""
        return min(self.entries[:2])


def _unset(wall: Callable[[], float]) -> Callable[[], float]:
    """The wall's clock as it would be if nobody set it: leases and pauses must not end, or last, an hour more."""
    if wall is not time.time:
        return wall
    began = time.time() - time.monotonic()
    return lambda: began + time.monotonic()


@attrs.define(eq=False)
class MemoryOutbox:
    """Lanes in dictionaries. See `Outbox` for what each method does.

    Args:
        max_waiting: How many messages of one account may be unsettled.
        max_settled: How many accepted messages are remembered, over all accounts; the oldest go first.
        max_dead: How many that ended otherwise are kept, over all accounts.
        wall: The clock, in seconds.
    """

    max_waiting: int = attrs.field(default=1_000_000, kw_only=True)
    max_settled: int = attrs.field(default=100_000, kw_only=True)
    max_dead: int = attrs.field(default=10_000, kw_only=True)
    wall: Callable[[], float] = attrs.field(default=time.time, converter=_unset, kw_only=True, repr=False)
    _entries: dict[_Key, _Entry] = attrs.field(factory=dict[_Key, _Entry], init=False, repr=False)
    _lanes: dict[_Key, _Lane] = attrs.field(factory=dict[_Key, _Lane], init=False, repr=False)
    _unsettled: Counter[str] = attrs.field(factory=Counter[str], init=False, repr=False)
    _settled: OrderedDict[_Key, None] = attrs.field(factory=OrderedDict[_Key, None], init=False, repr=False)
    _dead: OrderedDict[_Key, None] = attrs.field(factory=OrderedDict[_Key, None], init=False, repr=False)
    _pruned: dict[str, Counter[_Tally]] = attrs.field(factory=dict[str, Counter[_Tally]], init=False, repr=False)
    _fence: int = attrs.field(default=0, init=False, repr=False)
    _number: int = attrs.field(default=0, init=False, repr=False)
    _exceptions: int = attrs.field(default=0, init=False, repr=False)

    @property
    def durable(self) -> bool:
        """False: what was put is gone with the process."""
        return False

    async def put(self, account_id: str, messages: Sequence[OutboxMessage]) -> list[PutResult]:
        """Keep messages."""
        return [self._put(account_id, message) for message in messages]

    def _put(self, account_id: str, message: OutboxMessage) -> PutResult:
        key = (account_id, message.id)
        if key in self._entries:
            return PutResult.KNOWN
        if self._unsettled[account_id] >= self.max_waiting:
            return PutResult.FULL
        self._number += 1
        now = self.wall()
        entry = self._entries[key] = _Entry(self._number, message, now)
        self._unsettled[account_id] += 1
        lane = self._lanes.get((account_id, message.consumer))
        if lane is None:
            lane = self._lanes[account_id, message.consumer] = _Lane(free_at=now)
        lane.entries.append(entry)
        return PutResult.ADDED

    async def claim(self, account_id: str, *, owner: str, lease: float, limit: int) -> list[Claim]:
        """Take up to `limit` lanes that are free and due, longest due first."""
        now = self.wall()
        free = [
            (lane.free_at, lane.first.number, lane)
            for (whose, _), lane in self._lanes.items()
            if whose == account_id and lane.entries and lane.held_by is None and lane.free_at <= now
        ]
        free.sort(key=lambda one: one[:2])
        claims: list[Claim] = []
        for _, _, lane in free[:limit]:
            self._fence += 1
            lane.owner, lane.fence, lane.free_at = owner, self._fence, now + lease
            claims.append(self._begin(account_id, lane))
        return claims

    @staticmethod
    def _begin(account_id: str, lane: _Lane) -> Claim:
        head = lane.first
        if head is not lane.entries[0]:
            lane.entries.sort()
        was_begun = head.state is MessageState.BEGUN
        head.state = MessageState.BEGUN
        head.maybe_duplicate = head.maybe_duplicate or was_begun
        return Claim(
            account_id=account_id,
            message=head.message,
            owner=lane.owner or "",
            fence=lane.fence,
            attempts=head.attempts,
            was_begun=was_begun,
            maybe_duplicate=head.maybe_duplicate,
            put_at=head.put_at,
        )

    async def advance(
        self, account_id: str, settlements: Sequence[tuple[Claim, Settlement]], *, lease: float
    ) -> list[Advance]:
        """Settle heads, and begin the next of each lane."""
        return [self._advance(account_id, claim, settlement, lease) for claim, settlement in settlements]

    def _advance(self, account_id: str, claim: Claim, settlement: Settlement, lease: float) -> Advance:
        lane = self._owned(account_id, claim)
        if lane is None:
            return Advance(is_settled=False)
        now = self.wall()
        self._settle(account_id, lane, settlement, now)
        rests = settlement.state is MessageState.WAITING and settlement.retry_in > 0
        if lane.entries and lane.held_by is None and not rests:
            lane.free_at = now + lease
            return Advance(is_settled=True, next=self._begin(account_id, lane))
        # Otherwise than resting it is empty or held, and then nobody asks when it is free.
        self._give_back(account_id, claim.message.consumer, lane, now + settlement.retry_in)
        return Advance(is_settled=True)

    def _owned(self, account_id: str, claim: Claim) -> _Lane | None:
        lane = self._lanes.get((account_id, claim.message.consumer))
        if lane is None or (lane.owner, lane.fence) != (claim.owner, claim.fence):
            return None
        # Settled twice by the same owner: the head is the next message by now.
        return lane if lane.entries[0].message.id == claim.message.id else None

    def _settle(self, account_id: str, lane: _Lane, settlement: Settlement, now: float) -> None:
        entry = lane.entries[0]
        entry.state = settlement.state
        entry.attempts = settlement.attempts
        entry.sequence = settlement.sequence
        entry.conversation_id = settlement.conversation_id
        entry.reason = settlement.reason
        entry.maybe_duplicate = entry.maybe_duplicate or settlement.maybe_duplicate
        if not settlement.state.is_final:
            return
        del lane.entries[0]
        entry.settled_at = now
        self._unsettled[account_id] -= 1
        key = (account_id, entry.message.id)
        if settlement.holds_lane:
            lane.held_by = entry.message.id
        if settlement.state is not MessageState.ACCEPTED or entry.maybe_duplicate:
            self._exceptions += 1
            entry.exception_number = self._exceptions
        if settlement.state is MessageState.ACCEPTED:
            entry.message = attrs.evolve(entry.message, body=b"", opening=None)
            self._keep(self._settled, key, self.max_settled)
        else:
            self._keep(self._dead, key, self.max_dead)

    def _keep(self, shelf: OrderedDict[_Key, None], key: _Key, bound: int) -> None:
        shelf[key] = None
        if len(shelf) > bound:
            oldest, _ = shelf.popitem(last=False)
            entry = self._entries.pop(oldest)
            self._pruned.setdefault(oldest[0], Counter())[entry.state, entry.maybe_duplicate] += 1
            lane = self._lanes.get((oldest[0], entry.message.consumer))
            if lane is not None and lane.held_by == oldest[1]:
                self._let_go(oldest[0], entry.message.consumer, lane)

    def _give_back(self, account_id: str, consumer: str, lane: _Lane, free_at: float) -> None:
        lane.owner, lane.free_at = None, free_at
        if not lane.entries and lane.held_by is None:
            self._lanes.pop((account_id, consumer), None)

    def _let_go(self, account_id: str, consumer: str, lane: _Lane) -> None:
        lane.held_by = None
        if lane.owner is None:
            self._give_back(account_id, consumer, lane, self.wall())

    async def renew(
        self, account_id: str, *, owner: str, lease: float, consumers: Collection[str] | None = None
    ) -> frozenset[str]:
        """Extend the leases of a pump; the lanes that it still owns."""
        until = self.wall() + lease
        kept: set[str] = set()
        for (whose, consumer), lane in self._lanes.items():
            if whose == account_id and lane.owner == owner and (consumers is None or consumer in consumers):
                lane.free_at = until
                kept.add(consumer)
        return frozenset(kept)

    async def release(self, account_id: str, claims: Sequence[Claim]) -> int:
        """Give lanes back whose heads were certainly not sent."""
        released = 0
        for claim in claims:
            lane = self._owned(account_id, claim)
            if lane is not None:
                head = lane.entries[0]
                # What an earlier owner began stays begun: it may have been sent by that one.
                head.state = MessageState.BEGUN if claim.was_begun else MessageState.WAITING
                self._give_back(account_id, claim.message.consumer, lane, self.wall())
                released += 1
        return released

    async def counts(self, account_id: str) -> OutboxCounts:
        """How many are where."""
        tally = Counter(self._pruned.get(account_id, Counter()))
        oldest: float | None = None
        for (whose, _), entry in self._entries.items():
            if whose == account_id:
                tally[entry.state, entry.maybe_duplicate] += 1
                if not entry.state.is_final:
                    oldest = entry.put_at if oldest is None else min(oldest, entry.put_at)
        states: Counter[str] = Counter()
        for (state, _), number in tally.items():
            states[state.value] += number
        return OutboxCounts(
            **states,
            maybe_duplicate=tally[MessageState.ACCEPTED, True],
            held_lanes=sum(
                whose == account_id and lane.held_by is not None for (whose, _), lane in self._lanes.items()
            ),
            oldest_age=None if oldest is None else max(0.0, self.wall() - oldest),
        )

    async def next_due(self, account_id: str) -> float | None:
        """Seconds until a lane can be claimed."""
        due = [
            lane.free_at
            for (whose, _), lane in self._lanes.items()
            if whose == account_id and lane.entries and lane.held_by is None
        ]
        return max(0.0, min(due) - self.wall()) if due else None

    async def find(self, account_id: str, message_id: str) -> OutboxEntry | None:
        """One message."""
        entry = self._entries.get((account_id, message_id))
        return None if entry is None else _shown(entry)

    async def exceptions(self, account_id: str, *, after: int = 0, limit: int = 100) -> list[tuple[int, OutboxEntry]]:
        """Those that ended otherwise than accepted once, by number."""
        found = sorted(
            (
                entry
                for (whose, _), entry in self._entries.items()
                if whose == account_id and entry.exception_number > after
            ),
            key=lambda entry: entry.exception_number,
        )
        return [(entry.exception_number, _shown(entry)) for entry in found[:limit]]

    async def revive(self, account_id: str, message_id: str) -> bool:
        """Let a dead one be sent again, in its old place."""
        key = (account_id, message_id)
        if key not in self._dead:
            return False
        del self._dead[key]
        entry = self._entries[key]
        entry.maybe_duplicate = entry.maybe_duplicate or entry.state is MessageState.UNKNOWN
        entry.state, entry.settled_at, entry.reason, entry.exception_number = MessageState.WAITING, None, None, 0
        self._unsettled[account_id] += 1
        consumer = entry.message.consumer
        lane = self._lanes.setdefault((account_id, consumer), _Lane(free_at=self.wall()))
        # Never before a head that is under way.
        begun = lane.entries[:1] if lane.owner is not None else []
        rest = lane.entries[len(begun) :]
        insort(rest, entry)
        lane.entries = begun + rest
        if lane.held_by == message_id:
            self._let_go(account_id, consumer, lane)
        return True

    async def discard(self, account_id: str, message_id: str) -> bool:
        """Let the messages behind a final one go on."""
        entry = self._entries.get((account_id, message_id))
        lane = None if entry is None else self._lanes.get((account_id, entry.message.consumer))
        if entry is None or lane is None or lane.held_by != message_id:
            return False
        self._let_go(account_id, entry.message.consumer, lane)
        return True

    async def forget(self, account_id: str, ext_consumer_id: str) -> None:
        """Erase a consumer's messages."""
        theirs = [
            key
            for key, entry in self._entries.items()
            if key[0] == account_id and entry.message.consumer == ext_consumer_id
        ]
        for key in theirs:
            entry = self._entries.pop(key)
            self._settled.pop(key, None)
            self._dead.pop(key, None)
            if not entry.state.is_final:
                self._unsettled[account_id] -= 1
        self._lanes.pop((account_id, ext_consumer_id), None)


def _shown(entry: _Entry) -> OutboxEntry:
    return OutboxEntry(
        message=entry.message,
        state=entry.state,
        attempts=entry.attempts,
        sequence=entry.sequence,
        conversation_id=entry.conversation_id,
        reason=entry.reason,
        maybe_duplicate=entry.maybe_duplicate,
        put_at=entry.put_at,
        settled_at=entry.settled_at,
    )
