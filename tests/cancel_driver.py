"""Cancels a coroutine at its k-th suspension, for every k.

Owns the trick; what must hold afterwards is the caller's to assert. `count` learns how many suspensions a path has,
`cancelled_at` runs it again and cancels it at one of them.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, Literal

import anyio
import attrs

__all__ = ["MODES", "Mode", "cancelled_at", "count"]

Mode = Literal["native", "native-same-tick", "scope", "scope-same-tick"]
MODES: tuple[Mode, ...] = ("native", "native-same-tick", "scope", "scope-same-tick")

_NEVER = 10**9


@attrs.define
class _State:
    suspensions: int = 0
    fired: bool = False


def _cancel(state: _State, cancel: Callable[[], object]) -> None:
    if not state.fired:
        state.fired = True
        cancel()


@types.coroutine
def _drive(
    coro: Coroutine[Any, Any, Any], at: int, state: _State, cancel: Callable[[], object], *, same_tick: bool
) -> Generator[Any, Any, Any]:
    send: Callable[[Any], Any] = coro.send
    arg: Any = None
    loop = asyncio.get_running_loop()
    while True:
        try:
            future = send(arg)
        except StopIteration as end:
            return end.value
        state.suspensions += 1
        if state.suspensions == at:
            if same_tick and future is not None:
                # In the very turn in which what was waited for comes: the result and the cancellation meet.
                future.add_done_callback(lambda _done: _cancel(state, cancel))
            else:
                loop.call_soon(_cancel, state, cancel)
        try:
            arg = yield future
            send = coro.send
        except BaseException as error:
            arg, send = error, coro.throw


async def _awaited(gen: Awaitable[Any]) -> Any:
    return await gen


async def count(make: Callable[[], Coroutine[Any, Any, Any]]) -> int:
    """How often the coroutine suspends when nobody cancels it."""
    state = _State()
    await _awaited(_drive(make(), _NEVER, state, lambda: None, same_tick=False))
    return state.suspensions


async def cancelled_at(make: Callable[[], Coroutine[Any, Any, Any]], at: int, mode: Mode) -> bool:
    """Run it and cancel it at its suspension number `at` (from 1).

    Returns:
        Whether it was cancelled: False when it ended before, or in the same turn.

    Raises:
        AssertionError: The cancellation was swallowed.
    """
    state = _State()
    same_tick = mode.endswith("same-tick")
    if mode.startswith("scope"):
        with anyio.CancelScope() as scope:
            await _awaited(_drive(make(), at, state, scope.cancel, same_tick=same_tick))
            return False
        assert scope.cancelled_caught
        return True
    finished = False

    async def run() -> None:
        nonlocal finished
        await _awaited(_drive(make(), at, state, task.cancel, same_tick=same_tick))
        finished = True

    task = asyncio.create_task(run())
    await asyncio.wait([task])
    if task.cancelled():
        return True
    assert finished, task.exception()
    return False
