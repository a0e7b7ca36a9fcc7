"""The sandbox's own work outside of requests: timers and tasks, counted, so that one can wait for all of it.

Waiting follows anyio's clock, so a virtual one carries retries of three days in no time.
"""

from __future__ import annotations

import heapq
import itertools
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.abc

__all__ = ["Background"]

_log = logging.getLogger(__name__)


class Background:
    """Timers and tasks of one sandbox, alive between `run()` and its cancellation."""

    def __init__(self) -> None:
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._running = 0
        self._wake = anyio.Event()
        self._idle = anyio.Event()
        self._tasks: anyio.abc.TaskGroup | None = None

    @property
    def is_alive(self) -> bool:
        """Whether there is a task group to work in."""
        return self._tasks is not None

    def later(self, seconds: float, act: Callable[[], None]) -> None:
        """Call a function after so many seconds; what it raises is logged and costs nothing else.

        Without a task group (before the sandbox is opened, and once it is closed) nothing is done.
        """
        if self._tasks is None:
            return
        heapq.heappush(self._due, (anyio.current_time() + seconds, next(self._numbers), act))
        self._wake.set()

    def spawn(self, work: Callable[..., Awaitable[Any]], *args: object) -> None:
        """Run a coroutine function as a task of the sandbox; without a task group it is dropped."""
        if self._tasks is not None:
            self._running += 1
            self._tasks.start_soon(self._guarded, work, args)

    async def _guarded(self, work: Callable[..., Awaitable[Any]], args: tuple[object, ...]) -> None:
        try:
            await work(*args)
        except Exception:  # noqa: BLE001 - one failure must not end the sandbox, and it is logged
            _log.exception("the sandbox's background work failed")
        finally:
            self._running -= 1
            self._note_idle()

    def _note_idle(self) -> None:
        if not self._running and not self._due:
            self._idle.set()

    async def wait_idle(self) -> None:
        """Return when no task runs and no timer is pending."""
        while self._running or self._due:
            self._idle = anyio.Event()
            await self._idle.wait()

    async def run(
        self, tasks: anyio.abc.TaskGroup, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        """Serve the timers until cancelled; `tasks` is where spawned work runs."""
        self._tasks = tasks
        task_status.started()
        try:
            while True:
                self._wake = anyio.Event()
                wait = self._due[0][0] - anyio.current_time() if self._due else float("inf")
                if wait > 0:
                    with anyio.move_on_after(wait):
                        await self._wake.wait()
                self._act()
        finally:
            self._tasks = None

    def _act(self) -> None:
        now = anyio.current_time()
        while self._due and self._due[0][0] <= now:
            act = self._due[0][2]
            try:
                act()
            except Exception:  # noqa: BLE001 - one failure must not end the sandbox, and it is logged
                _log.exception("the sandbox's background work failed")
            finally:
                # Only now, so that nobody finds the sandbox idle in between. It is still the first: what `act` has
                # pushed is due later, or has a higher number.
                heapq.heappop(self._due)
        self._note_idle()
