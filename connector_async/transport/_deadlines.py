"""One timer for every deadline of a transport.

A timer per message costs as much as a third of the message. Deadlines are rounded up to the next tick instead, and
everything that shares a tick ends in one callback. Knows nothing of connections: what it holds has an `expire()`.
"""

from __future__ import annotations

import asyncio
from heapq import heappop, heappush
from typing import Protocol

__all__ = ["TICKS", "Deadlines", "Expiring"]

# Ticks in a second: a deadline is met at most 10 ms late, well inside the 50 ms that are promised.
TICKS = 100
# A year from now is as good as never, and keeps infinity out of the arithmetic.
_FAR = 3.2e7


class Expiring(Protocol):
    """Something with a deadline."""

    def expire(self) -> None:
        """Called once, at the deadline or up to a tick later, unless it was taken out before."""
        ...


class Deadlines:
    """Sets of things by the tick before which they must not expire.

    Adding a thing to `bucket(deadline)` sets its deadline, discarding it from there cancels it. `buckets` has the
    sets that exist already, by `int(deadline * TICKS)`: one look-up there is all that a message pays.
    """

    __slots__ = ("_due", "_loop", "_timer", "_timer_tick", "buckets")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.buckets: dict[int, set[Expiring]] = {}
        self._due: list[int] = []
        self._timer: asyncio.TimerHandle | None = None
        self._timer_tick = 0

    def bucket(self, deadline: float) -> set[Expiring]:
        """The set of what expires at `deadline` (seconds on the loop's clock) or up to a tick later."""
        tick = int(min(deadline, self._loop.time() + _FAR) * TICKS)
        bucket = self.buckets.get(tick)
        if bucket is None:
            bucket = self.buckets[tick] = set()
            heappush(self._due, tick)
            if self._timer is None or tick < self._timer_tick:
                self._arm(tick)
        return bucket

    def close(self) -> None:
        """Forget everything; nothing expires any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.buckets.clear()
        self._due.clear()

    def _arm(self, tick: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_tick = tick
        self._timer = self._loop.call_at((tick + 1) / TICKS, self._run)

    def _run(self) -> None:
        self._timer = None
        # A hair more than the clock says: a tick must not be missed by the rounding of its own product.
        past = self._loop.time() * TICKS + 0.001
        while self._due and self._due[0] + 1 <= past:
            # Out of the table first: what expires now may add a deadline of its own.
            for item in tuple(self.buckets.pop(heappop(self._due))):
                item.expire()
        if self._due:
            self._arm(self._due[0])
