"""One queue per conversation: in order within, at once across, never more than so many at work."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Generic, TypeVar

import anyio
import attrs

__all__ = ["Lanes"]

Job = TypeVar("Job")


@attrs.define(eq=False)
class Lanes(Generic[Job]):
    """Queues by name, and the tasks that work them off.

    A task takes one job of a lane and then sends the lane to the back, so that one busy conversation does not keep
    the others waiting. Tasks exist only while there is work.

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
        if self._workers < self.width and not self._is_stopped:
            self._workers += 1
            self.start_soon(self._work)

    def stop(self) -> None:
        """Begin no further job."""
        self._is_stopped = True

    async def idle(self) -> None:
        """Wait until no job waits or is at work."""
        while self._size:
            self._idle = self._idle or anyio.Event()
            await self._idle.wait()

    async def _work(self) -> None:
        try:
            while self._ready and not self._is_stopped:
                lane = self._ready.popleft()
                queue = self._queues[lane]
                try:
                    await self.run(queue[0])
                finally:
                    self._leave(lane, queue)
        finally:
            self._workers -= 1

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
