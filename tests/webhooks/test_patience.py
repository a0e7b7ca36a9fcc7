"""A time limit that begins only where there is something to wait for."""

from __future__ import annotations

from collections.abc import Awaitable, Generator
from typing import Any

import anyio
import pytest

from connector_async.webhooks._patience import Patience
from tests.backends import ASYNCIO_AND_TRIO, VIRTUAL

pytestmark = pytest.mark.anyio


async def within(seconds: float, work: Awaitable[Any]) -> Any:
    """As everything that has a time limit is awaited."""
    patience = Patience()
    is_done, value = patience.begin(work)
    return value if is_done else await patience.finish(seconds, work, value)


@pytest.mark.parametrize("anyio_backend", ASYNCIO_AND_TRIO)
async def test_what_is_done_at_once_returns_its_value() -> None:
    """And raises what it raises."""

    async def at_once(value: int) -> int:
        if not value:
            raise LookupError("nothing")
        return value

    assert await within(1.0, at_once(7)) == 7
    with pytest.raises(LookupError):
        await within(1.0, at_once(0))


@pytest.mark.parametrize("anyio_backend", ASYNCIO_AND_TRIO)
async def test_what_waits_goes_on_where_it_was() -> None:
    """Through several waits, with values, errors and scopes of its own that were entered before the first wait."""
    log: list[str] = []

    async def work() -> str:
        with anyio.move_on_after(60) as scope:
            for step in "abc":
                await anyio.lowlevel.checkpoint()
                log.append(step)
        assert not scope.cancelled_caught
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.lowlevel.checkpoint)
        return "done"

    assert await within(60.0, work()) == "done"
    assert log == ["a", "b", "c"]


@pytest.mark.parametrize("anyio_backend", [VIRTUAL])
async def test_what_takes_too_long_is_cancelled() -> None:
    """With TimeoutError, also out of a scope of its own; what it does on its way out is done."""
    log: list[str] = []

    async def work() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.sleep_forever)
            try:
                await anyio.sleep(1_000)
            finally:
                log.append("tidied")

    started = anyio.current_time()
    with pytest.raises(TimeoutError):
        await within(30.0, work())
    assert anyio.current_time() - started == pytest.approx(30.0, abs=0.1)
    assert log == ["tidied"]
    await anyio.sleep(1)


async def test_a_cancelled_caller_takes_its_work_along() -> None:
    """Cancellation is no timeout."""
    log: list[str] = []

    async def work() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            log.append("tidied")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(within, 60.0, work())
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert log == ["tidied"]


async def test_any_awaitable_will_do() -> None:
    """A handler may be any callable whose result can be awaited."""

    class Later:
        def __await__(self) -> Generator[Any, Any, str]:
            yield from anyio.lowlevel.checkpoint().__await__()
            return "later"

    assert await within(60.0, Later()) == "later"


async def test_what_is_closed_while_it_waits_closes_its_work() -> None:
    """As when the event loop is given up."""
    log: list[str] = []

    async def work() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            log.append("closed")

    waiting: Any = within(60.0, work())
    waiting.send(None)
    waiting.close()
    assert log == ["closed"]
