"""The virtual clock jumps when all is idle, and only then."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator

import anyio
import anyio.lowlevel
import pytest

from tests.backends import VIRTUAL
from tests.virtual_clock import VirtualClockLoop

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", [VIRTUAL])]


@pytest.fixture(autouse=True)
def _real_time_stays_short() -> Iterator[None]:
    started = time.monotonic()
    yield
    assert time.monotonic() - started < 5


async def test_an_hour_passes_at_once() -> None:
    before = anyio.current_time()
    await anyio.sleep(3600)
    assert anyio.current_time() - before == pytest.approx(3600)


async def test_sleepers_wake_in_the_order_of_their_times() -> None:
    woken: list[float] = []

    async def sleeper(seconds: float) -> None:
        await anyio.sleep(seconds)
        woken.append(seconds)

    async with anyio.create_task_group() as tg:
        for seconds in (30.0, 0.001, 7200.0, 5.0):
            tg.start_soon(sleeper, seconds)
    assert woken == [0.001, 5.0, 30.0, 7200.0]


async def test_a_timeout_does_not_fire_while_work_is_ready() -> None:
    with anyio.fail_after(0.001):
        for _ in range(1000):
            await anyio.lowlevel.checkpoint()
    assert anyio.current_time() < 0.001


async def test_a_timeout_fires_when_only_it_is_left() -> None:
    before = anyio.current_time()
    with pytest.raises(TimeoutError):
        with anyio.fail_after(60):
            await anyio.sleep_forever()
    assert anyio.current_time() - before == pytest.approx(60)


async def test_bytes_on_a_socket_come_before_a_timer() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(4))
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(answer, "127.0.0.1", 0, family=socket.AF_INET) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        with anyio.fail_after(0.5):
            writer.write(b"ping")
            assert await reader.readexactly(4) == b"ping"
            assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
    assert anyio.current_time() < 0.5


async def test_time_can_be_moved_by_hand() -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualClockLoop)
    async with anyio.create_task_group() as tg:
        tg.start_soon(anyio.sleep, 100)
        await anyio.lowlevel.checkpoint()
        loop.advance(3000)
    assert anyio.current_time() == pytest.approx(3000)
    with pytest.raises(ValueError, match="backwards"):
        loop.advance(-1)


async def test_years_pass_without_a_stall() -> None:
    """At large values the float's step exceeds the loop's clock resolution; the clock must still move."""
    await anyio.sleep(3e8)  # noqa: ASYNC116 - the length is the point
    for _ in range(100):
        await anyio.sleep(1e-9)
    assert anyio.current_time() >= 3e8
