"""One timer for every deadline of a transport.

A timer per message costs as much as a third of the message. Deadlines are rounded up to the next tick instead, and
everything that shares a tick ends in one callback. Knows nothing of connections: what it holds has an `expire()`.
"""

from __future__ import annotations

import asyncio
from heapq import heappop, heappush
from typing import Protocol

__all__ = ["Deadlines", "Expiring"]

# Ticks in a second: a deadline is met at most 10 ms late, well inside the 50 ms that are promised.
_TICKS = 100
# A year from now is as good as never, and keeps infinity out of the arithmetic.
_FAR = 3.2e7


class Expiring(Protocol):
    """Something with a deadline."""

    def expire(self) -> None:
        """Called once, at the deadline or up to a tick later, unless it was taken out before."""
        ...


class Deadlines:
    """Sets of things by the tick at which they expire.

    `add` returns the set that the thing now is in; discarding it from there cancels the deadline.
    """

    __slots__ = ("_buckets", "_due", "_loop", "_timer", "_timer_tick")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._buckets: dict[int, set[Expiring]] = {}
        self._due: list[int] = []
        self._timer: asyncio.TimerHandle | None = None
        self._timer_tick = 0

    def add(self, item: Expiring, deadline: float) -> set[Expiring]:
        """Call `item.expire()` at `deadline` (seconds on the loop's clock)."""
        try:
            tick = int(deadline * _TICKS) + 1
        except OverflowError:
            tick = int((self._loop.time() + _FAR) * _TICKS)
        bucket = self._buckets.get(tick)
        if bucket is None:
            bucket = self._new_bucket(tick)
        bucket.add(item)
        return bucket

    def close(self) -> None:
        """Forget everything; nothing expires any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._buckets.clear()
        self._due.clear()

    def _new_bucket(self, tick: int) -> set[Expiring]:
        bucket = self._buckets[tick] = set[Expiring]()
        heappush(self._due, tick)
        if self._timer is None or tick < self._timer_tick:
            self._arm(tick)
        return bucket

    def _arm(self, tick: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_tick = tick
        self._timer = self._loop.call_at(tick / _TICKS, self._run)

    def _run(self) -> None:
        self._timer = None
        now = self._loop.time()
        while self._due and self._due[0] <= now * _TICKS:
            # Out of the table first: what expires now may add a deadline of its own.
            for item in tuple(self._buckets.pop(heappop(self._due))):
                item.expire()
        if self._due:
            self._arm(self._due[0])
