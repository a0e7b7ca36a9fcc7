"""A time limit that costs nothing where there is nothing to wait for."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, TypeVar, cast

import anyio

__all__ = ["Call", "loop_clock", "within"]

T = TypeVar("T")


async def within(seconds: float, work: Awaitable[T]) -> T:
    """Await the work; the clock starts when it first waits for something.

    Nearly every body is there when it is asked for, and many handlers never wait: a limit from the start would be
    the dearest part of either.

    Raises:
        TimeoutError: It was not done in time, and is cancelled.
    """
    if not isinstance(work, types.CoroutineType) or not _is_asyncio():
        with anyio.fail_after(seconds):
            return await work
    coroutine = cast("Coroutine[Any, Any, T]", work)
    try:
        first = coroutine.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    # Not a cancel scope of anyio: those nest, and the work may have entered one already that it has yet to leave.
    async with asyncio.timeout(seconds):
        return await _rest(coroutine, first)


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


class Call:
    """What one task waits for and another gives, once. Anyio's events, which many may wait for, cost twice this."""

    __slots__ = ("_signal",)

    def __init__(self) -> None:
        self._signal: asyncio.Future[None] | anyio.Event
        self._signal = asyncio.get_running_loop().create_future() if _is_asyncio() else anyio.Event()

    def give(self) -> None:
        """Let the other task go on; nothing happens if it was cancelled."""
        if isinstance(self._signal, anyio.Event):
            self._signal.set()
        elif not self._signal.done():
            self._signal.set_result(None)

    async def wait(self) -> None:
        """Wait for it."""
        await (self._signal.wait() if isinstance(self._signal, anyio.Event) else self._signal)


def loop_clock() -> Callable[[], float]:
    """The clock of the running event loop; `anyio.current_time` finds out at each call which loop that is."""
    return asyncio.get_running_loop().time if _is_asyncio() else anyio.current_time


def _is_asyncio() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
