"""`ack="handled"`: the answer to the vendor is the outcome of the handlers."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from connector_async.webhooks import Incoming, Router, WebhookSettings
from connector_async.wire import ContentEvent
from tests.backends import VIRTUAL
from tests.webhooks.rig import change, chat_state, content, notification, rig
from tests.webhooks.test_dispatcher import DurableInMemory, order_of, recording

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", [VIRTUAL])]


async def test_the_answer_comes_when_the_handlers_are_done() -> None:
    """Not before."""
    router, done = Router(), list[float]()

    @router.on(ContentEvent)
    async def slow(message: Incoming[ContentEvent]) -> None:
        await anyio.sleep(0.5)
        done.append(anyio.current_time())

    async with rig(router, ack="handled") as worker:
        started = anyio.current_time()
        assert await worker.deliver(content("c", 0)) == [200]
        assert anyio.current_time() - started == pytest.approx(0.5, abs=0.05)
        assert len(done) == 1
        assert await worker.deliver(content("c", 0), chat_state("c")) == [200, 200]
        await worker.quiet()
    assert len(done) == 1


async def test_a_failure_is_told_and_the_next_delivery_counts() -> None:
    """503: the vendor delivers it again, and that is no double."""
    router, attempts = Router(), list[str]()

    @router.on()
    async def second_time_lucky(incoming: Incoming[Any]) -> None:
        attempts.append(type(incoming.event).__name__)
        if attempts.count(attempts[-1]) == 1:
            raise ValueError("no")

    async with rig(router, ack="handled") as worker:
        for message in (notification(content("c", 0)), change("c", 7)):
            assert [await worker.post(message) for _ in range(3)] == [503, 200, 200]
        unnumbered = notification(content("c", None))
        assert [await worker.post(unnumbered) for _ in range(2)] == [200, 200]
    assert attempts == ["ContentEvent"] * 2 + ["ConversationChange"] * 2 + ["ContentEvent"] * 2


async def test_a_slow_handler_is_not_waited_for_beyond_the_vendors_patience() -> None:
    """503 after two seconds; a second delivery waits for the same run, which happens once."""
    router, done = Router(), list[int | None]()

    @router.on(ContentEvent)
    async def slow(message: Incoming[ContentEvent]) -> None:
        await anyio.sleep(3)
        done.append(message.sequence)

    async with rig(router, ack="handled") as worker:
        started = anyio.current_time()
        assert await worker.deliver(content("c", 0)) == [503]
        assert anyio.current_time() - started == pytest.approx(2.0, abs=0.1)
        assert await worker.deliver(content("c", 0)) == [200]
        assert worker.dispatcher.stats().duplicates == 1
    assert done == [0]


async def test_a_full_queue_is_told() -> None:
    """503, and nothing is remembered of it."""
    router, release = Router(), anyio.Event()
    got = recording(router)

    @router.on(ContentEvent)
    async def park(message: Incoming[ContentEvent]) -> None:
        await release.wait()

    async with rig(router, ack="handled", settings=WebhookSettings(max_queue=1)) as worker:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(worker.deliver, content("c", 0))
            await anyio.sleep(0.1)
            assert await worker.deliver(content("c", 1)) == [503]
            release.set()
        assert await worker.deliver(content("c", 1)) == [200]
    assert order_of(got, "c") == [0, 1]


async def test_with_a_durable_store_a_failure_is_no_failure_of_the_delivery() -> None:
    """Non-2xx only when the event is not durable (fault table W7): the store will try again."""
    router, attempts = Router(), list[int]()

    @router.on(ContentEvent)
    async def second_time_lucky(message: Incoming[ContentEvent]) -> None:
        attempts.append(message.attempt)
        if len(attempts) == 1:
            raise ValueError("no")

    now = 1000.0
    async with rig(router, ack="handled", store=DurableInMemory()) as worker:
        worker.dispatcher._durable.wall_clock = lambda: now
        assert await worker.deliver(content("c", 0), content("c", 0), chat_state("c")) == [200, 200, 200]
        assert attempts == [1]
        now += 2
        await anyio.sleep(2)
        await worker.quiet()
        assert worker.dispatcher._in_progress == {}
    assert attempts == [1, 2]


async def test_with_a_durable_store_the_answer_waits_but_not_for_ever() -> None:
    """Stored is enough for a 200; handled is waited for as long as the vendor's patience allows."""
    router, store = Router(), DurableInMemory()

    @router.on(ContentEvent)
    async def slow(message: Incoming[ContentEvent]) -> None:
        await anyio.sleep(5 if message.sequence else 1)

    async with rig(router, ack="handled", store=store) as worker:
        for sequence, seconds in ((0, 1.0), (1, 2.0)):
            started = anyio.current_time()
            assert await worker.deliver(content("c", sequence)) == [200]
            assert anyio.current_time() - started == pytest.approx(seconds, abs=0.1)
        store.is_down = True
        assert await worker.deliver(content("c", 2)) == [503]
        await worker.quiet()
