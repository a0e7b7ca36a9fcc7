"""The one seam to the event loop: a clock, a timer, and a one-shot place to wait.

The portable primitives of anyio cost the message path several microseconds each (`anyio.fail_after` 11 µs, an
`asyncio.Future` with one timer 2 µs), so on asyncio the cheaper ones stand here. On trio the same interface is built
from anyio's.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import math
import threading
import time
from collections.abc import Awaitable, Callable, Generator, Hashable
from typing import Any, Generic, Protocol, TypeVar, cast

import anyio
from anyio.abc import TaskGroup

__all__ = [
    "ELSEWHERE",
    "Clock",
    "SingleFlight",
    "Slot",
    "TimerHandle",
    "current_clock",
    "failure_of",
    "go_on",
    "is_cancelled_by_name",
    "twin",
]

T = TypeVar("T")

ELSEWHERE = (
    "this session lives in another event loop; from a thread use "
    "`asyncio.run_coroutine_threadsafe(session.send(...), loop).result()`"
)


class TimerHandle(Protocol):
    """A timer that has not fired, or has."""

    def cancel(self) -> None:
        """Do not fire; harmless if it has."""
        ...


class Slot(Protocol):
    """Holds one waiter's outcome. The first outcome counts, later ones are ignored."""

    def settle(self) -> None:
        """Let the waiter go on."""
        ...

    def fail(self, error: BaseException) -> None:
        """Let the waiter go on with an error, which is given out once."""
        ...

    def __await__(self) -> Generator[object, None, None]: ...


class Clock(Protocol):
    """Time, timers and slots of one event loop."""

    def time(self) -> float:
        """Seconds on the loop's clock."""
        ...

    def call_at(self, when: float, callback: Callable[[], None]) -> TimerHandle:
        """Call back at a time; exceptions must not leave the callback."""
        ...

    def slot(self) -> Slot:
        """A fresh slot."""
        ...

    def is_here(self) -> bool:
        """Whether the caller runs in this loop. From another one, or its thread, nothing here is to be touched."""
        ...


def current_clock(task_group: TaskGroup) -> Clock:
    """The clock of the running loop. `task_group` carries the timers where the loop has none of its own."""
    try:
        # Asked for the task, not for the loop: trio in guest mode runs inside an asyncio loop, in no task of it.
        on_asyncio = asyncio.current_task() is not None
    except RuntimeError:
        on_asyncio = False
    return _AsyncioClock(asyncio.get_running_loop()) if on_asyncio else _PortableClock(task_group)


class _AsyncioSlot:
    __slots__ = ("_future",)

    def __init__(self, future: asyncio.Future[list[BaseException] | None]) -> None:
        self._future = future

    def settle(self) -> None:
        if not self._future.done():
            self._future.set_result(None)

    def fail(self, error: BaseException) -> None:
        # Carried as a result, not as the future's exception: a slot nobody awaits must not print
        # "exception was never retrieved". In a list, to be taken out: its traceback will hold frames that hold the
        # slot, and it would stay alive in a cycle.
        if not self._future.done():
            self._future.set_result([error])

    def __await__(self) -> Generator[object, None, None]:
        error = yield from self._future.__await__()
        if error:
            raise error.pop()


class _AsyncioClock:
    __slots__ = ("_loop", "time")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        # What asyncio's own loops do, without the two calls around it: a message asks five times.
        is_plain = getattr(loop.time, "__func__", None) is asyncio.BaseEventLoop.time
        now: Any = time.monotonic if is_plain else loop.time
        self.time = now

    def call_at(self, when: float, callback: Callable[[], None]) -> TimerHandle:
        return self._loop.call_at(when, callback)

    def slot(self) -> Slot:
        return _AsyncioSlot(self._loop.create_future())

    def is_here(self) -> bool:
        try:
            return asyncio.get_running_loop() is self._loop
        except RuntimeError:
            return False


class _PortableSlot:
    __slots__ = ("_error", "_event")

    def __init__(self) -> None:
        self._event = anyio.Event()
        self._error: BaseException | None = None

    def settle(self) -> None:
        self._event.set()

    def fail(self, error: BaseException) -> None:
        if not self._event.is_set():
            self._error = error
            self._event.set()

    def __await__(self) -> Generator[object, None, None]:
        yield from self._event.wait().__await__()
        error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:
                del error  # its traceback holds this frame


class _PortableClock:
    __slots__ = ("_task_group", "_thread")

    def __init__(self, task_group: TaskGroup) -> None:
        self._task_group = task_group
        self._thread = threading.get_ident()

    def time(self) -> float:
        return anyio.current_time()

    def call_at(self, when: float, callback: Callable[[], None]) -> TimerHandle:
        scope = anyio.CancelScope()
        self._task_group.start_soon(self._fire, scope, when, callback)
        return scope

    async def _fire(self, scope: anyio.CancelScope, when: float, callback: Callable[[], None]) -> None:
        with scope:
            await anyio.sleep_until(when)
            callback()

    def slot(self) -> Slot:
        return _PortableSlot()

    def is_here(self) -> bool:
        return threading.get_ident() == self._thread


class _Flight(Generic[T]):
    __slots__ = ("has_failed", "has_landed", "result", "waiters")

    def __init__(self) -> None:
        self.waiters: dict[Slot, None] = {}  # in the order in which they came, and in which they go on
        self.result: T | None = None
        self.has_landed = self.has_failed = False


class SingleFlight:
    """Runs one task per key, however many wait for it; a waiter that is cancelled does not cancel the others' task.

    Args:
        task_group: Carries the tasks; when it is cancelled, the waiters get `closed()`.
        closed: Makes the error for waiters of a flight that was cut off.
    """

    __slots__ = ("_clock", "_closed", "_flights", "_task_group")

    def __init__(self, task_group: TaskGroup, clock: Clock, closed: Callable[[], Exception]) -> None:
        self._task_group = task_group
        self._clock = clock
        self._closed = closed
        self._flights: dict[Hashable, _Flight[Any]] = {}

    def __len__(self) -> int:
        return len(self._flights)

    def is_under_way(self, key: Hashable) -> bool:
        """Whether such a flight is in the air, or those who waited for it have not all gone on."""
        return key in self._flights

    async def run(self, key: Hashable, work: Callable[[], Awaitable[T]]) -> T:
        """The result of `work`, or of the flight under this key that is under way already.

        Raises:
            Exception: What `work` raised; each waiter gets a copy of its own.
            Exception: `closed()`, where the task group carries no more tasks.
        """
        if not self._clock.is_here():
            # The task would start there, and end there with that loop: a cancellation for the whole group.
            raise RuntimeError(ELSEWHERE)
        flight: _Flight[T] | None = self._flights.get(key)
        if flight is not None and flight.has_landed:
            await anyio.lowlevel.checkpoint()  # those who waited have been told, and go on in this turn: after them
            if not flight.has_failed:
                return flight.result  # type: ignore[return-value]  # set when it landed
            flight = self._flights.get(key)
        slot = self._clock.slot()
        if flight is None or flight.has_landed:
            flight = _Flight()
            flight.waiters[slot] = None
            self._take_off(key, flight, work)
        else:
            flight.waiters[slot] = None
        try:
            await slot
        finally:
            flight.waiters.pop(slot, None)
            self._let_go(key, flight)
        return flight.result  # type: ignore[return-value]  # set before the slot is settled

    def start(self, key: Hashable, work: Callable[[], Awaitable[object]]) -> None:
        """Have `work` done for nobody in particular, unless it is under way; its failure is told to nobody either."""
        flight = self._flights.get(key)
        if flight is None or flight.has_landed:
            self._take_off(key, _Flight(), work)

    def _let_go(self, key: Hashable, flight: _Flight[Any]) -> None:
        if flight.has_landed and not flight.waiters and self._flights.get(key) is flight:
            del self._flights[key]

    def _take_off(self, key: Hashable, flight: _Flight[T], work: Callable[[], Awaitable[T]]) -> None:
        # Entered first: an eager task may be through before `start_soon` returns.
        self._flights[key] = flight
        try:
            self._task_group.start_soon(self._fly, key, flight, work)
        except RuntimeError:
            # The task group is closed: a flight that never starts must not be waited for.
            del self._flights[key]
            raise self._closed() from None

    async def _fly(self, key: Hashable, flight: _Flight[T], work: Callable[[], Awaitable[T]]) -> None:
        failure: Exception | None = self._closed()
        try:
            flight.result = await work()
            failure = None
        except BaseException as error:  # noqa: BLE001 - carried to the waiters, whatever it is
            failure = failure_of(error)
        finally:
            flight.has_landed, flight.has_failed = True, failure is not None
            for slot in flight.waiters:
                if failure is None:
                    slot.settle()
                else:
                    slot.fail(twin(failure))
            failure = None  # its traceback holds this frame
            self._let_go(key, flight)


def failure_of(error: BaseException) -> Exception:
    """What code of the user's, or of a library of theirs, has raised, as an error that can be told.

    A CancelledError comes also where nobody has cancelled this task: something that was awaited had been cancelled.
    Let out of a task of ours, it would take the whole session with it. So would a group of such errors.

    Raises:
        BaseException: This task is being cancelled, or the process is to end.
    """
    if isinstance(error, Exception):
        return error
    if _is_cancellation(error):
        task = asyncio.current_task()
        if task is not None and not task.cancelling():
            made = RuntimeError("what was awaited had been cancelled")
            made.__cause__ = error
            return made
    try:
        raise error
    finally:
        del error  # its traceback holds this frame


def is_cancelled_by_name() -> bool:
    """Whether somebody has cancelled this very task, and no scope around it is: as code that runs in it can."""
    try:
        task = asyncio.current_task()
    except RuntimeError:
        return False
    return task is not None and task.cancelling() > 0 and anyio.current_effective_deadline() != -math.inf


async def go_on() -> None:
    """Forget that this task was cancelled by name, if it was; for tasks of ours that run the code of others."""
    if is_cancelled_by_name():
        task = cast("asyncio.Task[object]", asyncio.current_task())
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0)  # one that was asked for, and is thrown only now
        while task.cancelling():
            task.uncancel()


def _is_cancellation(error: BaseException) -> bool:
    """Whether nothing but CancelledErrors keeps it from being an Exception."""
    if isinstance(error, BaseExceptionGroup):
        _, rest = cast("BaseExceptionGroup[BaseException]", error).split((Exception, asyncio.CancelledError))
        return rest is None
    return isinstance(error, asyncio.CancelledError)


def twin(error: Exception) -> Exception:
    """A copy to raise to one more waiter, so that tracebacks do not pile up on one object."""
    try:
        other = copy.copy(error)
    except Exception:  # noqa: BLE001 - a foreign class that cannot be copied is still better than no error at all
        return error
    other.__cause__ = error.__cause__
    other.__suppress_context__ = True
    return other.with_traceback(error.__traceback__)
