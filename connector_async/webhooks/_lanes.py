"""One queue per conversation: in order within, at once across, never more than so many at work."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Generic, TypeVar

import anyio
import attrs

from connector_async.webhooks._patience import Patience, Signal

__all__ = ["Lanes"]

Job = TypeVar("Job")

_SPARE = 16
"""Workers that stay for the next job: to wake one costs half of what it costs to start one."""


@attrs.define(eq=False)
class Lanes(Generic[Job]):
    """Queues by name, and the tasks that work them off.

    A task takes one job of a lane and then sends the lane to the back, so that one busy conversation does not keep
    the others waiting. They send for each other: one that begins a job has the next one come if there is more to do,
    so that jobs that never wait are all done by one. A few stay until `stop` when there is nothing to do.

    Args:
        run: What to do with a job; must not raise.
        start_soon: Starts a task.
        width: How many jobs are at work at once, at most.
        patience: Of the event loop.
    """

    run: Callable[[Job], Awaitable[None]]
    start_soon: Callable[[Callable[..., Coroutine[Any, Any, None]]], object]
    width: int
    patience: Patience = attrs.field(factory=Patience)
    _ready: deque[tuple[str, Job]] = attrs.field(factory=deque[tuple[str, Job]], init=False)
    """The first job of each lane that is not at work."""
    _behind: dict[str, deque[Job] | None] = attrs.field(factory=dict[str, "deque[Job] | None"], init=False)
    """What waits behind the first job of a lane; None until there is something, as in most lanes there never is."""
    _workers: int = attrs.field(default=0, init=False)
    _spare: list[Signal] = attrs.field(factory=list[Signal], init=False)
    """Each wakes a worker."""
    _is_summoned: bool = attrs.field(default=False, init=False)
    """A worker is on its way."""
    size: int = attrs.field(default=0, init=False)
    """Jobs that wait or are at work. Read only; a plain field, for it is looked at for each event."""
    _is_stopped: bool = attrs.field(default=False, init=False)
    _idle: anyio.Event | None = attrs.field(default=None, init=False)

    def put(self, lane: str, job: Job) -> None:
        """Add a job to the end of its lane."""
        self.size += 1
        if lane not in self._behind:
            self._behind[lane] = None
            self._ready.append((lane, job))
            self._summon()
        elif (waiting := self._behind[lane]) is None:
            self._behind[lane] = deque((job,))
        else:
            waiting.append(job)

    def stop(self) -> None:
        """Begin no further job."""
        self._is_stopped = True
        while self._spare:
            _give(self._spare.pop())

    async def idle(self) -> None:
        """Wait until no job waits or is at work."""
        while self.size:
            self._idle = self._idle or anyio.Event()
            await self._idle.wait()

    def _summon(self) -> None:
        """Have a worker come for what is ready, unless one is on its way or all are at work."""
        if self._is_summoned or self._is_stopped:
            return
        if self._spare:
            self._is_summoned = True
            _give(self._spare.pop())
        elif self._workers < self.width:
            self._is_summoned = True
            self._workers += 1
            self.start_soon(self._work)

    async def _work(self) -> None:
        try:
            self._is_summoned = False
            while not self._is_stopped:
                if not self._ready:
                    if len(self._spare) == _SPARE:
                        return
                    await self._wait()
                    continue
                lane, job = self._ready.popleft()
                if self._ready:
                    self._summon()
                try:
                    await self.run(job)
                finally:
                    self._leave(lane)
        finally:
            self._workers -= 1

    async def _wait(self) -> None:
        """Stay until there is something to do."""
        summons = self.patience.signal()
        self._spare.append(summons)
        try:
            await summons
        except BaseException:
            # Cancelled: nobody may send for it any more, or somebody has and needs another.
            if summons in self._spare:
                self._spare.remove(summons)
            else:
                self._is_summoned = False
            raise
        self._is_summoned = False

    def _leave(self, lane: str) -> None:
        self.size -= 1
        waiting = self._behind[lane]
        if waiting:
            self._ready.append((lane, waiting.popleft()))
        else:
            del self._behind[lane]
        if not self.size and self._idle is not None:
            self._idle.set()
            self._idle = None


def _give(signal: Signal) -> None:
    # Whoever waited for it may have been cancelled.
    if not signal.done():
        signal.set_result(None)
