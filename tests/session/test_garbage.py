"""A request that fails leaves nothing behind that only the garbage collector finds: errors come by the thousand.

An error's traceback holds the frames that it went through. Where one of them names the error, or what holds it, all
that these frames name stays alive in a cycle, the message too.
"""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Callable
from types import FrameType
from typing import Any

import anyio
import pytest

from connector_async import ConnectorSession, Outgoing, RetryPolicy, SessionLimits
from connector_async.sandbox import Reset, Sandbox
from tests.backends import ASYNCIO
from tests.doubles import FakeCloud, Post, answer, lost
from tests.session.rig import session_over

pytestmark = pytest.mark.anyio


async def left_by(work: Callable[[], Any]) -> list[str]:
    """The errors and frames that are found in cycles after it failed, when all that is made once has been made."""
    await _fail(work)
    gc.disable()
    gc.freeze()  # what was there before is not looked at
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        await _fail(work)
        gc.collect()
        return [repr(one) for one in gc.garbage if isinstance(one, (BaseException, FrameType))]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.unfreeze()
        gc.enable()


async def _fail(work: Callable[[], Any]) -> None:
    with pytest.raises(Exception, match=r"."):
        await work()
    await anyio.wait_all_tasks_blocked()


async def _lost(_post: Post) -> Any:
    raise lost()


async def _down(_post: Post) -> Any:
    return answer(503)


async def _refused(post: Post) -> Any:
    return answer(400, {"code": "BAD_REQUEST", "body": {"msg": "no"}, "reqId": post.ids[0]})


async def _send_many(session: ConnectorSession) -> None:
    async def source() -> AsyncIterator[Outgoing[Any]]:
        yield Outgoing("customer", "hello")
        raise ValueError("the source failed")

    async with session.send_many(source()) as outcomes:
        async for _ in outcomes:
            pass


_WORK: dict[str, Callable[[ConnectorSession], Any]] = {
    "send_text": lambda session: session.conversation("c-1", "customer").send_text("hello"),
    "ensure": lambda session: session.consumer("new").ensure_conversation(),
    "open": lambda session: session.consumer("new").open_conversation(),
    "send_many": _send_many,
}


@pytest.mark.parametrize("work", _WORK.values(), ids=_WORK)
@pytest.mark.parametrize("happens", [_lost, _down, _refused])
async def test_what_the_cloud_lets_fail_leaves_no_cycle(
    work: Callable[[ConnectorSession], Any], happens: Callable[[Post], Any]
) -> None:
    """Found by trial: the frame that sends held the cause of what it raised."""
    cloud = FakeCloud()
    async with session_over(cloud, retry=RetryPolicy.none()) as session:
        await session.conversation("c-1", "customer").send_text("warm")
        cloud.on_message = happens
        assert await left_by(lambda: work(session)) == []


@pytest.mark.parametrize("work", ["send_text", "ensure"])
async def test_tokens_that_cannot_be_had_leave_no_cycle(work: str) -> None:
    """Those who wait for one flight get copies of its error."""
    cloud = FakeCloud()
    cloud.on_consumer = _down
    async with session_over(cloud, retry=RetryPolicy.none()) as session:
        assert await left_by(lambda: _WORK[work](session)) == []


async def test_a_time_that_ran_out_in_the_queue_leaves_no_cycle() -> None:
    """It is told by whoever keeps the time, not raised where one waits."""
    cloud = FakeCloud()
    async with session_over(cloud, retry=RetryPolicy.none(), limits=SessionLimits(max_in_flight=1)) as session:
        await session.conversation("c-1", "customer").send_text("warm")
        cloud.latency = 60.0
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(session.conversation("c-1", "customer").send_text, "in the way")
            await anyio.wait_all_tasks_blocked()
            late = session.conversation("c-2", "another")
            assert await left_by(lambda: late.send_text("hello", timeout=0.01)) == []
            tasks.cancel_scope.cancel()


@pytest.mark.parametrize("anyio_backend", [ASYNCIO])
async def test_a_connection_that_breaks_leaves_no_cycle() -> None:
    """The pooled transport's future holds the error that it ends with."""
    async with Sandbox(agent="silent") as cloud, cloud.session(retry=RetryPolicy.none()) as session:
        conversation = await session.consumer("customer").open_conversation()
        cloud.fail_next(Reset(at="before"), times=2)
        assert await left_by(lambda: conversation.send_text("hello")) == []
