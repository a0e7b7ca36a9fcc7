"""One queue per conversation: in order within, at once across, never more than so many at work."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Generic, TypeVar

import anyio
import attrs

from connector_async.webhooks._patience import Call

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
    """

    run: Callable[[Job], Awaitable[None]]
    start_soon: Callable[[Callable[..., Coroutine[Any, Any, None]]], object]
    width: int
    _queues: dict[str, deque[Job]] = attrs.field(factory=dict[str, "deque[Job]"], init=False)
    _ready: deque[str] = attrs.field(factory=deque[str], init=False)
    _workers: int = attrs.field(default=0, init=False)
    _spare: list[Call] = attrs.field(factory=list[Call], init=False)
    """Given to wake the worker that waits for it."""
    _is_summoned: bool = attrs.field(default=False, init=False)
    """A worker is on its way."""
    _size: int = attrs.field(default=0, init=False)
    _is_stopped: bool = attrs.field(default=False, init=False)
    _idle: anyio.Event | None = attrs.field(default=None, init=False)

    def __len__(self) -> int:
        """Jobs that wait or are at work."""
        return self._size

    def put(self, lane: str, job: Job) -> None:
        """Add a job to the end of its lane."""
        self._size += 1
        queue = self._queues.get(lane)
        if queue is not None:
            queue.append(job)
            return
        self._queues[lane] = deque([job])
        self._ready.append(lane)
        self._summon()

    def stop(self) -> None:
        """Begin no further job."""
        self._is_stopped = True
        while self._spare:
            self._spare.pop().give()

    async def idle(self) -> None:
        """Wait until no job waits or is at work."""
        while self._size:
            self._idle = self._idle or anyio.Event()
            await self._idle.wait()

    def _summon(self) -> None:
        """Have a worker come for what is ready, unless one is on its way or all are at work."""
        if self._is_summoned or self._is_stopped:
            return
        if self._spare:
            self._is_summoned = True
            self._spare.pop().give()
        elif self._workers < self.width:
            self._is_summoned = True
            self._workers += 1
            self.start_soon(self._work)

    async def _work(self) -> None:
        try:
            self._is_summoned = False
            while not self._is_stopped:
                if self._ready:
                    await self._do_next()
                elif len(self._spare) < _SPARE:
                    await self._wait()
                else:
                    return
        finally:
            self._workers -= 1

    async def _do_next(self) -> None:
        lane = self._ready.popleft()
        if self._ready:
            self._summon()
        queue = self._queues[lane]
        try:
            await self.run(queue[0])
        finally:
            self._leave(lane, queue)

    async def _wait(self) -> None:
        """Stay until there is something to do."""
        summons = Call()
        self._spare.append(summons)
        try:
            await summons.wait()
        finally:
            if summons in self._spare:
                self._spare.remove(summons)
            else:
                self._is_summoned = False

    def _leave(self, lane: str, queue: deque[Job]) -> None:
        queue.popleft()
        self._size -= 1
        if queue:
            self._ready.append(lane)
        else:
            del self._queues[lane]
        if not self._size and self._idle is not None:
            self._idle.set()
            self._idle = None
