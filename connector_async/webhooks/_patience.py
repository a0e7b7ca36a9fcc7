"""Time limits and signals that cost nothing where there is nothing to wait for."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, Protocol, TypeVar, cast

import anyio

__all__ = ["Patience", "Signal"]

T = TypeVar("T")


class Signal(Protocol):
    """What one task waits for and another gives, once: a future, or what looks like one."""

    def done(self) -> bool:
        """Whether it was given, or whoever waits was cancelled."""
        ...

    def set_result(self, result: None, /) -> None:
        """Give it."""
        ...

    def __await__(self) -> Generator[Any, Any, None]:
        """Wait for it."""
        ...


class Patience:
    """Waiting, in whichever event loop runs; one for each run of one.

    Which kind of loop it is, is asked once: until Python 3.12 each question is a system call.
    """

    __slots__ = ("_loop",)

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | bool | None = None
        """None: not asked yet; False: not asyncio's."""

    def begin(self, work: Awaitable[T]) -> tuple[bool, Any]:
        """Let work go on until it first waits: whether it is done, and what it has returned; else see `finish`.

        Nearly every body is there when it is asked for, and many handlers never wait: a time limit from the start
        would be the dearest part of either.
        """
        if self._loop is None:
            self._loop = _asyncio_loop() or False
        if self._loop is False or work.__class__ is not types.CoroutineType:
            # A limit of anyio comes first: its scopes nest, and the work may leave one open when it first waits.
            return False, None
        try:
            return False, cast("Coroutine[Any, Any, T]", work).send(None)
        except StopIteration as stop:
            return True, stop.value

    async def finish(self, seconds: float | None, work: Awaitable[T], waits_for: Any) -> T:
        """Await what has begun and is not done.

        Args:
            seconds: How long it may still take; None: for ever.
            waits_for: What `begin` gave.

        Raises:
            TimeoutError: It was not done in time, and is cancelled.
        """
        if self._loop is False or work.__class__ is not types.CoroutineType:
            with anyio.fail_after(seconds):
                return await work
        async with asyncio.timeout(seconds):
            return await _rest(cast("Coroutine[Any, Any, T]", work), waits_for)

    def signal(self) -> Signal:
        """A new signal. Anyio's events, which many may wait for, cost twice a future."""
        if self._loop is None:
            self._loop = _asyncio_loop() or False
        return self._loop.create_future() if isinstance(self._loop, asyncio.AbstractEventLoop) else _EventSignal()

    def clock(self) -> Callable[[], float]:
        """The clock of the running event loop; `anyio.current_time` finds out at each call which loop that is."""
        loop = _asyncio_loop()
        return anyio.current_time if loop is None else loop.time


class _EventSignal:
    """A signal for the loops that have no futures."""

    def __init__(self) -> None:
        self._event = anyio.Event()

    def done(self) -> bool:
        return self._event.is_set()

    def set_result(self, _: None, /) -> None:
        self._event.set()

    def __await__(self) -> Generator[Any, Any, None]:
        return self._event.wait().__await__()


@types.coroutine
def _rest(work: Coroutine[Any, Any, T], waits_for: Any) -> Generator[Any, Any, T]:
    """What is left of a coroutine that has begun and waits."""
    while True:
        failure: BaseException | None = None
        answer: Any = None
        try:
            answer = yield waits_for
        except GeneratorExit:
            work.close()
            raise
        except BaseException as error:  # noqa: BLE001 - it is the work's, cancellation too
            failure = error
        try:
            waits_for = work.send(answer) if failure is None else work.throw(failure)
        except StopIteration as stop:
            result: T = stop.value
            return result


def _asyncio_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
