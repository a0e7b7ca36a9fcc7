"""How long the vendor waits for an answer while handlers are at work."""

from __future__ import annotations

import contextlib
import gc
import math
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from connector_async.webhooks import Incoming, Router
from connector_async.wire import ContentEvent
from tests.webhooks.rig import Post, content, encoded, headers_for, notification, rig

pytestmark = pytest.mark.anyio

AT_ONCE, WAVES, LIMIT = 200, 3, 0.050
App = Callable[..., Awaitable[None]]


async def test_w7_two_hundred_deliveries_at_once_are_answered_within_50_ms_while_handlers_hang() -> None:
    """p99 of the answers (issue of the webhooks, shown by). The handlers hang until the test lets them go, which is
    longer than any 5 s; every wave meets the handlers of those before it.

    Time is that of this thread on the processor: what an answer takes where nothing else runs. It leaves out what
    other processes take meanwhile, and nothing of ours: an answer that waited for a handler would never come. One of
    three runs must do. Under a tracer, which makes everything several times slower, 1 s is enough.
    """
    limit = LIMIT if sys.gettrace() is None else 1.0
    figures: list[float] = []
    while len(figures) < 3 and (not figures or figures[-1] >= limit):
        figures.append(await _p99_of_a_run())
    assert min(figures) < limit, f"p99 of the answers was {[f'{one * 1e3:.0f} ms' for one in figures]}"


async def _p99_of_a_run() -> float:
    router, release, at_work = Router(), anyio.Event(), 0

    @router.on(ContentEvent)
    async def slow(message: Incoming[ContentEvent]) -> None:
        nonlocal at_work
        at_work += 1
        await release.wait()

    durations: list[float] = []
    async with rig(router) as worker:
        for wave in range(WAVES):
            bodies = [encoded(notification(content(f"c{number}", wave))) for number in range(AT_ONCE)]
            requests = [_Arrived([body], headers_for(body)) for body in bodies]
            with _no_collection():
                durations += await _answer_times(worker.app, requests)
            await anyio.wait_all_tasks_blocked()
            assert at_work == AT_ONCE, "every conversation has a handler at work, and the rest waits behind it"
        assert worker.dispatcher.stats().waiting == AT_ONCE * WAVES
        release.set()
        await worker.quiet()
        assert at_work == AT_ONCE * WAVES, "nothing was lost"
    durations.sort()
    return durations[math.ceil(len(durations) * 0.99) - 1]


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """A look through the heap of a whole test run takes longer than what is measured."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class _Arrived(Post):
    """A delivery that arrived together with others: its body is there after all of them have begun."""

    async def receive(self) -> Any:
        await anyio.lowlevel.checkpoint()
        return await super().receive()


async def _answer_times(app: App, requests: list[_Arrived]) -> list[float]:
    """Seconds from the arrival of all to the answer of each, on the processor."""
    durations: list[float] = []

    async def one(request: _Arrived) -> None:
        assert await request.to(app) == 200
        durations.append(time.thread_time() - started)

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            started = time.thread_time()
            for request in requests:
                tasks.start_soon(one, request)
    return durations
