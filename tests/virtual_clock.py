"""An asyncio event loop on which time passes only when there is nothing else to do.

Owns nothing but the clock: timers, `asyncio.sleep`, `anyio.fail_after` and `anyio.current_time()` follow it, so an
hour of token life takes no time. Use it as `anyio_backend` (see `tests/backends.py`).

What it cannot know: a worker thread or another process that is still computing. Time may jump past a deadline while
one is at work, so keep those out of timed tests. `time.time()` and `time.monotonic()` are not touched.
"""

from __future__ import annotations

import asyncio
import math
import selectors
from collections.abc import Mapping
from typing import Any

__all__ = ["VirtualClockLoop"]

# Real seconds that bytes on their way through the loopback device get before a timer may fire ahead of them.
_GRACE = 0.002
# Real seconds without an event and without a timer after which the loop is taken to be stuck.
_STUCK_AFTER = 5.0
# The loop watches its own wake-up pipe; anything beyond that is a socket of the test.
_OWN_FILES = 1


class _JumpingSelector(selectors.BaseSelector):
    """Never sleeps until a timer is due: moves the clock there instead."""

    def __init__(self) -> None:
        self.now = 0.0
        self._real = selectors.DefaultSelector()

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.modify(fileobj, events, data)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._real.get_map()

    def close(self) -> None:
        self._real.close()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            events = self._real.select(_STUCK_AFTER)
            if not events:
                raise RuntimeError("the event loop has no timer and nothing happens: the test would wait for ever")
            return events
        patience = _GRACE if timeout > 0 and len(self._real.get_map()) > _OWN_FILES else 0
        events = self._real.select(patience)
        if not events and timeout > 0:
            # At large values `now + timeout` may be `now` again: the smallest step still has to be one.
            self.now = max(self.now + timeout, math.nextafter(self.now, math.inf))
        return events


class VirtualClockLoop(asyncio.SelectorEventLoop):
    """`asyncio.SelectorEventLoop` whose `time()` starts at 0 and jumps to the next timer when all else is idle."""

    def __init__(self) -> None:
        self._clock = _JumpingSelector()
        super().__init__(self._clock)
        # asyncio fires what is due within this; its own 1 ns is less than the step of a float after some months.
        self._clock_resolution = 1e-6

    def time(self) -> float:
        return self._clock.now

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Waits for the threads themselves: Python 3.12 waits 300 seconds for them, which pass at once here."""
        await super().shutdown_default_executor()

    def advance(self, seconds: float) -> None:
        """Move the clock by hand, as a suspended machine would; timers that are due fire at the next turn."""
        if seconds < 0:
            raise ValueError("time does not run backwards on this clock")
        self._clock.now += seconds
