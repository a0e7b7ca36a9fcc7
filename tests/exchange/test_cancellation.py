"""C12: cancelled at every suspension, in every way, a request leaves nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from connector_async.errors import Landed
from connector_async.exchange import Response
from connector_async.hooks import RequestFinished
from connector_async.wire import ConsumerRequestConversation, SetUserProfile
from tests.backends import UVLOOP
from tests.cancel_driver import MODES, Mode, cancelled_at, count
from tests.doubles import FakeCloud, answer, lost, unauthorized
from tests.exchange.rig import Rig, rig
from tests.exchange.test_deadlines import hang

pytestmark = pytest.mark.anyio

Prepare = Callable[[Rig], Awaitable[None]]


async def cold(_r: Rig) -> None:
    """No host, no token: everything is fetched."""


async def warm(r: Rig) -> None:
    """Only the message itself."""
    await r.send("d0")


async def refreshing(r: Rig) -> None:
    """The AppJWT is refused and renewed on the way."""
    await r.send("d0")
    await anyio.lowlevel.checkpoint()
    r.cloud.revoke()


async def bad_consumer(r: Rig) -> None:
    """The ConsumerJWS is refused, and renewed in vain or not."""
    await r.send("d0")
    r.cloud.script = [unauthorized(40103)]

    async def another(post: object) -> Any:
        await anyio.lowlevel.checkpoint()
        return answer(201, {"token": f"jws.{len(r.cloud.consumer_posts)}"})

    r.cloud.on_consumer = another


async def backing_off(r: Rig) -> None:
    """Two attempts fail before one is taken."""
    await r.send("d0")
    r.cloud.script = [lost(), answer(429)]


async def identity_backing_off(r: Rig) -> None:
    """The identity service has a bad moment first."""
    replies = [answer(503)]

    async def moody(post: Any) -> Any:
        return replies.pop() if replies else await r.cloud.give_consumer(post)

    r.cloud.on_consumer = moody


PATHS: dict[str, Prepare] = {
    one.__name__: one for one in (cold, warm, refreshing, bad_consumer, backing_off, identity_backing_off)
}


@asynccontextmanager
async def contended(r: Rig, *, busy: bool) -> AsyncIterator[None]:
    """Others want the width, and the lane, at the same time."""
    async with anyio.create_task_group() as tasks:
        if busy:
            for number in range(3):
                tasks.start_soon(r.send, "d1" if number == 1 else f"busy-{number}")
            await anyio.lowlevel.checkpoint()
        yield


async def one_run(path: Prepare, *, at: int, mode: Mode, busy: bool, batch: bool) -> bool:
    """One request, cancelled at one suspension; the quiet end state; whether it was cancelled."""
    before = asyncio.all_tasks()
    async with rig(FakeCloud(), width=1 if busy else 8) as r:
        await path(r)
        began = r.engine.counters.requests
        async with contended(r, busy=busy):
            cancelled = await cancelled_at(lambda: request(r, batch=batch), at, mode)
        # Renewals and fetches that it had begun go on for whoever comes next.
        await anyio.sleep(40.0)
        r.assert_quiet()
        c = r.engine.counters
        assert c.cancelled == int(cancelled)
        assert c.accepted == c.requests - c.cancelled
        assert c.requests <= began + 1 + 3 * busy
        for event in r.told(RequestFinished):
            if event.outcome == "cancelled" and not event.attempts and not r.cloud.message_posts:
                assert event.landed is Landed.NO
        assert r.engine.lanes.running == 0
        assert r.transport.open == {}  # type: ignore[attr-defined]  # of the double
        r.cloud.script.clear()
        for number in range(5):
            assert isinstance(await r.send(f"d{number}"), Response)
        assert r.keeper._waiters == set()
        r.assert_quiet()
    await anyio.lowlevel.checkpoint()
    assert asyncio.all_tasks() <= before
    return cancelled


async def request(r: Rig, *, batch: bool) -> object:
    if batch:
        call = r.call(SetUserProfile(), ConsumerRequestConversation(brand_id="12345678"), batch=True)
        return await r.engine.run(call, 300.0)
    return await r.send("d1", timeout=300.0)


async def suspensions(path: Prepare, *, busy: bool, batch: bool) -> int:
    async with rig(FakeCloud(), width=1 if busy else 8) as r:
        await path(r)
        async with contended(r, busy=busy):
            return await count(lambda: request(r, batch=batch))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("busy", [False, True], ids=["alone", "contended"])
@pytest.mark.parametrize("path", PATHS)
async def test_c12_cancelled_at_any_point_a_request_leaves_nothing_behind(path: str, busy: bool, mode: Mode) -> None:
    """C12: quiet end state after each; the cancellation always surfaces."""
    prepare = PATHS[path]
    total = await suspensions(prepare, busy=busy, batch=False)
    assert total >= 1
    cancelled = [await one_run(prepare, at=at, mode=mode, busy=busy, batch=False) for at in range(1, total + 1)]
    assert sum(cancelled) >= total * 0.5


@pytest.mark.parametrize("mode", MODES)
async def test_c12_a_batch_is_no_different(mode: Mode) -> None:
    """C12: several ids at once."""
    total = await suspensions(cold, busy=False, batch=True)
    for at in range(1, total + 1):
        await one_run(cold, at=at, mode=mode, busy=False, batch=True)


@pytest.mark.parametrize("anyio_backend", [UVLOOP])
@pytest.mark.parametrize("mode", MODES)
async def test_c12_on_uvloop_too(mode: Mode) -> None:
    """C12, where its pauses are short enough for real time."""
    async with rig() as r:
        total = await count(lambda: r.send("d1"))
        await r.keeper.renew(1, certain=True)
    for at in range(1, total + 1):
        async with rig() as r:
            cancelled = await cancelled_at(partial(r.send, "d1"), at, mode)
            assert r.engine.counters.cancelled == int(cancelled)
            await r.send("d2")
            r.assert_quiet()


async def test_a_cancelled_caller_is_told_to_counters_and_hooks() -> None:
    """Issue 3, item 5: before the first byte nothing was sent; after it nobody knows."""
    async with rig() as r:
        r.cloud.on_token = hang
        with anyio.move_on_after(1.0):
            await r.send()
        r.cloud.on_token = r.cloud.give_token
        await anyio.sleep(20.0)
        await r.send("d2")
        r.cloud.on_message = hang
        with anyio.move_on_after(1.0):
            await r.send("d3")
        before, _, after = r.told(RequestFinished)
        assert (before.outcome, before.landed) == ("cancelled", Landed.NO)
        assert (after.outcome, after.landed) == ("cancelled", Landed.UNKNOWN)
        assert r.engine.counters.cancelled == 2
        r.assert_quiet()
