"""Waiting for one's turn: the lanes of `protocol.lanes`, with a clock."""

from __future__ import annotations

import math
from collections.abc import Generator
from contextlib import contextmanager

from connector_async._concurrency import Clock, TimerHandle
from connector_async.exchange._call import Call, Stage
from connector_async.protocol.lanes import Lanes, TicketState

__all__ = ["Expired", "Gate"]


class Expired(Exception):
    """The deadline passed while a call waited for something of ours. Never leaves the package."""


class Gate:
    """Where calls wait: for their lane, for width, for the rate, between two attempts.

    Every wait ends at the call's deadline with `Expired`, or with the error given to `Call.interrupt`.
    """

    def __init__(self, lanes: Lanes, clock: Clock) -> None:
        self.lanes = lanes
        self._clock = clock
        self._rate_timer: TimerHandle | None = None
        lanes.alarm = self._arm_rate_timer
        self._closed = False

    async def resume(self, call: Call) -> None:
        """Wait until a call that kept only its lane may run again."""
        now = self._clock.time()
        if not self.lanes.resume(call, now):
            await self.queue(call, now)

    @contextmanager
    def lane_only(self, call: Call, stage: Stage) -> Generator[None]:
        """Give the width to others while the call waits for something else, and note the time."""
        started = self._clock.time()
        call.stage = stage
        self.lanes.pause(call, started)
        try:
            yield
        finally:
            spent = self._clock.time() - started
            if stage is Stage.TOKEN:
                call.token += spent
            else:
                call.backing_off += spent

    async def sleep(self, call: Call, seconds: float) -> None:
        """Pause; the caller has made sure that it ends before the deadline."""
        if seconds > 0:
            await self._wait(call, self._clock.time() + seconds, None)

    def close(self) -> None:
        """Stop the timer for good; idempotent."""
        self._closed = True
        if self._rate_timer is not None:
            self._rate_timer.cancel()
            self._rate_timer = None

    async def queue(self, call: Call, since: float) -> None:
        """Wait for the turn of a call that `lanes` did not let on at once, at the time `since`."""
        call.stage = Stage.QUEUED
        # It may have been granted by now: whoever was let on may have ended at once.
        if call.state is not TicketState.RUNNING:
            try:
                await self._wait(call, call.deadline, Expired)
            finally:
                call.queued += self._clock.time() - since

    async def _wait(self, call: Call, until: float, expired: type[Exception] | None) -> None:
        """Wait for somebody to settle the call's slot; at `until` go on, or raise an `expired`."""
        slot = call.slot = self._clock.slot()
        timer = None
        if until < math.inf:
            ring = slot.settle if expired is None else lambda: slot.fail(expired())
            timer = self._clock.call_at(until, ring)
        try:
            await slot
        finally:
            call.slot = None
            if timer is not None:
                timer.cancel()

    def _arm_rate_timer(self, when: float) -> None:
        if self._rate_timer is None and not self._closed:
            self._rate_timer = self._clock.call_at(when, self._rate_allows)

    def _rate_allows(self) -> None:
        self._rate_timer = None
        self.lanes.wake(self._clock.time())
