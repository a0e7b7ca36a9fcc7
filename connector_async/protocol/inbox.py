"""Notifications that come twice, late or out of order, put right per conversation.

Webhooks deliver at least once at best, and different event types may take different ways. Events
with a sequence are ordered within their dialog: one that comes early waits for those before it, for a while. What
never came is a gap, and what follows it is released with a mark. Conversation changes each carry the whole state, so
there only the newest counts. Time comes in as an argument.

The inbox does not know what the items are, and it remembers within bounds: `max_streams` dialogs, and in each of them
the numbers seen as at most `_MAX_RANGES` ranges.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from collections import OrderedDict, deque
from enum import Enum
from typing import Generic, TypeVar

import attrs

__all__ = ["Inbox", "Offer", "Release", "Verdict", "event_digest"]

Item = TypeVar("Item")

_MAX_RANGES = 64
"""Ranges of seen numbers in one dialog. An app without receipts leaves a hole at each receipt, so there are many."""

_HOPELESS = 3
"""After so many gaps of a dialog that nobody filled, its later gaps are not waited for: the numbers between belong to
event types that this app is not registered for. One late event restores the patience."""


class Verdict(Enum):
    """What the inbox makes of an item."""

    RELEASED = "released"
    HELD = "held"
    """It waits for those before it; `expire` releases it at the latest."""
    DUPLICATE = "duplicate"
    OUTDATED = "outdated"
    """A conversation change that is older than one seen before, or an event from before what is remembered."""


@attrs.frozen
class Release(Generic[Item]):
    """An item whose turn has come."""

    item: Item
    after_gap: bool = False
    """Numbers before it are missing: never sent to us, lost, or still to come."""
    is_late: bool = False
    """Later ones of the dialog were released before it."""


@attrs.frozen
class Offer(Generic[Item]):
    """The verdict on one item, and all whose turn has come through it, in order."""

    verdict: Verdict
    released: tuple[Release[Item], ...] = ()


@attrs.define(eq=False)
class _Stream(Generic[Item]):
    """One dialog: what was seen, what is next, and what waits."""

    next: int | None = None
    """None until the first release: the stream may have begun before us, and its first event may come second."""
    seen: list[tuple[int, int]] = attrs.field(factory=list[tuple[int, int]])
    """Released numbers as sorted ranges, ends included."""
    floor: int = -1
    """Up to here it is no longer known which numbers were seen."""
    held: dict[int, tuple[Item, float]] = attrs.field(factory=dict[int, tuple[Item, float]])
    """What waits, and until when."""
    fruitless: int = 0
    """Gaps in a row that nobody filled."""

    def has_seen(self, sequence: int) -> bool:
        at = bisect_right(self.seen, (sequence, _INFINITE)) - 1
        return at >= 0 and self.seen[at][1] >= sequence

    def see_next(self, sequence: int) -> None:
        """Remember the next number, which nearly always continues the last range."""
        if self.seen and self.seen[-1][1] == sequence - 1:
            self.seen[-1] = (self.seen[-1][0], sequence)
        else:
            self.see(sequence)
        self.next = sequence + 1

    def see(self, sequence: int) -> None:
        """Remember a number; the ranges that it joins become one."""
        at = bisect_right(self.seen, (sequence, _INFINITE))
        if at > 0 and self.seen[at - 1][1] >= sequence:
            # A second try: another range within this one would hide what lies above it.
            return
        low = high = sequence
        if at < len(self.seen) and self.seen[at][0] == sequence + 1:
            high = self.seen.pop(at)[1]
        if at > 0 and self.seen[at - 1][1] == sequence - 1:
            at -= 1
            low = self.seen.pop(at)[0]
        self.seen.insert(at, (low, high))
        if len(self.seen) > _MAX_RANGES:
            self.floor = max(self.floor, self.seen.pop(0)[1])

    def unsee(self, sequence: int) -> None:
        """Forget one released number."""
        at = bisect_right(self.seen, (sequence, _INFINITE)) - 1
        if at < 0 or self.seen[at][1] < sequence:
            return
        low, high = self.seen.pop(at)
        if sequence < high:
            self.seen.insert(at, (sequence + 1, high))
        if low < sequence:
            self.seen.insert(at, (low, sequence - 1))


_INFINITE = float("inf")
_NOTHING = (None, None)


@attrs.define(eq=False)
class Inbox(Generic[Item]):
    """Doubles, order and gaps, for many conversations.

    Args:
        window: How many items of one dialog wait for those before them, at most.
        patience: Seconds that they wait, at most. 0: nothing waits; late ones are marked late.
        max_streams: How many dialogs, and how many conversations, are remembered; the least recently used go.
    """

    window: int = attrs.field(default=32, kw_only=True, validator=attrs.validators.ge(1))
    patience: float = attrs.field(default=1.0, kw_only=True, validator=attrs.validators.ge(0))
    max_streams: int = attrs.field(default=10_000, kw_only=True, validator=attrs.validators.ge(1))
    _streams: OrderedDict[tuple[str, str], _Stream[Item]] = attrs.field(
        factory=OrderedDict[tuple[str, str], _Stream[Item]], init=False, repr=False
    )
    _deadlines: deque[tuple[float, tuple[str, str], int]] = attrs.field(
        factory=deque[tuple[float, tuple[str, str], int]], init=False, repr=False
    )
    """Until when what was held waits, the earliest first since all wait equally long; and what was released since."""
    _held: int = attrs.field(default=0, init=False, repr=False)
    _stamps: OrderedDict[str, int] = attrs.field(factory=OrderedDict[str, int], init=False, repr=False)

    @property
    def held(self) -> int:
        """How many items wait for those before them."""
        return self._held

    @property
    def next_deadline(self) -> float | None:
        """When `expire` has something to release, or None."""
        while self._deadlines:
            until, key, sequence = self._deadlines[0]
            if self._is_held(key, sequence, until):
                return until
            self._deadlines.popleft()
        return None

    def take_next(self, conversation_id: str, dialog_id: str, sequence: int) -> bool:
        """Whether an event comes in its turn, with nothing before it or behind; it counts as released then.

        Nearly all do. The others are for `offer` to judge.
        """
        key = (conversation_id, dialog_id)
        stream = self._streams.get(key)
        if stream is None or sequence != stream.next or stream.held:
            return False
        self._streams.move_to_end(key)
        stream.see_next(sequence)
        return True

    def offer(
        self, item: Item, *, conversation_id: str, dialog_id: str, sequence: int, now: float, is_new: bool = False
    ) -> Offer[Item]:
        """Take in one event that has a sequence.

        Args:
            item: What to give out when its turn has come.
            conversation_id: Its conversation.
            dialog_id: Its dialog: each counts on its own.
            sequence: Its number in the dialog.
            now: Seconds on any clock that does not go back.
            is_new: The caller knows that it was not handled before, even if it was released before: a second try.
        """
        key = (conversation_id, dialog_id)
        stream, evicted = self._stream(key)
        offer = self._offer(key, stream, item, sequence, now, is_new=is_new)
        return attrs.evolve(offer, released=(*evicted, *offer.released)) if evicted else offer

    def offer_change(self, *, conversation_id: str, stamp: int) -> Verdict:
        """Whether a conversation change with this `metaDataLastUpdateTs` is newer than all before it."""
        newest = self._stamps.get(conversation_id)
        if newest is not None and stamp <= newest:
            return Verdict.DUPLICATE if stamp == newest else Verdict.OUTDATED
        self._stamps[conversation_id] = stamp
        self._stamps.move_to_end(conversation_id)
        if len(self._stamps) > self.max_streams:
            self._stamps.popitem(last=False)
        return Verdict.RELEASED

    def expire(self, now: float) -> list[Release[Item]]:
        """Release what has waited long enough, and what it waited with in the gap before it."""
        released: list[Release[Item]] = []
        while self._deadlines and self._deadlines[0][0] <= now:
            until, key, sequence = self._deadlines.popleft()
            if not self._is_held(key, sequence, until):
                continue
            stream = self._streams[key]
            while sequence in stream.held:
                released += self._skip_gap(stream)
            if not self._is_patient(stream):
                released += self._skip_all(stream)
        return released

    def flush(self) -> list[Release[Item]]:
        """Release all that waits, gaps or not: before the inbox is given up."""
        return [release for stream in self._streams.values() for release in self._skip_all(stream)]

    def retract(self, *, conversation_id: str, dialog_id: str, sequence: int) -> None:
        """Forget that an event was released: it was not handled, and its next delivery counts."""
        stream = self._streams.get((conversation_id, dialog_id))
        if stream is not None:
            stream.unsee(sequence)

    def retract_change(self, *, conversation_id: str, stamp: int) -> None:
        """Forget a conversation change, if no newer one came since."""
        if self._stamps.get(conversation_id) == stamp:
            del self._stamps[conversation_id]

    def _stream(self, key: tuple[str, str]) -> tuple[_Stream[Item], list[Release[Item]]]:
        stream = self._streams.get(key)
        if stream is not None:
            self._streams.move_to_end(key)
            return stream, []
        stream = self._streams[key] = _Stream()
        if len(self._streams) <= self.max_streams:
            return stream, []
        _, evicted = self._streams.popitem(last=False)
        return stream, self._skip_all(evicted)

    def _offer(
        self, key: tuple[str, str], stream: _Stream[Item], item: Item, sequence: int, now: float, *, is_new: bool
    ) -> Offer[Item]:
        if sequence in stream.held or (stream.has_seen(sequence) and not is_new):
            return Offer(Verdict.DUPLICATE)
        if sequence <= stream.floor and not is_new:
            return Offer(Verdict.OUTDATED)
        if stream.next is not None and sequence < stream.next:
            stream.fruitless = 0
            stream.see(sequence)
            return Offer(Verdict.RELEASED, (Release(item, is_late=True),))
        was_waiting = bool(stream.held)
        until = now + self.patience
        stream.held[sequence] = (item, until)
        self._held += 1
        released = self._release_ready(stream)
        if released and was_waiting:
            stream.fruitless = 0
        while len(stream.held) > (self.window if self._is_patient(stream) else 0):
            released += self._skip_gap(stream)
        if sequence not in stream.held:
            return Offer(Verdict.RELEASED, tuple(released))
        self._deadlines.append((until, key, sequence))
        return Offer(Verdict.HELD, tuple(released))

    def _is_held(self, key: tuple[str, str], sequence: int, until: float) -> bool:
        """Whether an event that was held until then still is; its number may have come anew since."""
        stream = self._streams.get(key)
        return stream is not None and stream.held.get(sequence, _NOTHING)[1] == until

    def _is_patient(self, stream: _Stream[Item]) -> bool:
        return self.patience > 0 and stream.fruitless < _HOPELESS

    def _release_ready(self, stream: _Stream[Item], *, after_gap: bool = False) -> list[Release[Item]]:
        """Release from the next number on, as far as they follow each other."""
        # Zero is the first number of every dialog: no need to wait for an earlier one.
        at = 0 if stream.next is None else stream.next
        released: list[Release[Item]] = []
        while at in stream.held:
            item, _ = stream.held.pop(at)
            self._held -= 1
            released.append(Release(item, after_gap=after_gap and not released))
            stream.see(at)
            at += 1
            stream.next = at
        return released

    def _skip_gap(self, stream: _Stream[Item]) -> list[Release[Item]]:
        is_start = stream.next is None
        stream.next = min(stream.held)
        stream.fruitless += not is_start
        return self._release_ready(stream, after_gap=not is_start)

    def _skip_all(self, stream: _Stream[Item]) -> list[Release[Item]]:
        released: list[Release[Item]] = []
        while stream.held:
            released += self._skip_gap(stream)
        return released


def event_digest(event: object) -> str:
    """By what a worker that sent an event knows its echo again: a digest of the event's JSON value.

    An echo does not carry the id of the request that caused it.
    """
    return hashlib.sha256(json.dumps(event, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
