"""What a worker leaves behind when it ends, whatever it is doing at that moment, and whatever fails beside it."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest

from connector_async.webhooks import Incoming, Router, Unclaimed, WebhookSettings
from connector_async.webhooks.events import HandlerFailed
from connector_async.wire import ContentEvent
from tests.backends import VIRTUAL
from tests.webhooks.rig import ACCOUNT, content, encoded, headers_for, notification, rig, until
from tests.webhooks.test_dispatcher import DurableInMemory, order_of, recording

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", [VIRTUAL])]


class Odd(DurableInMemory):
    """A store of one's own, which raises what no store should, once at each of its calls named."""

    def __init__(self, *names: str) -> None:
        super().__init__()
        self.to_fail = set(names)

    def _odd(self, name: str) -> None:
        if name in self.to_fail:
            self.to_fail.remove(name)
            raise OSError(name)

    async def first_time(self, account_id: str, key: str) -> bool:
        self._odd("first_time")
        return await super().first_time(account_id, key)

    async def put_delivery(self, account_id: str, **facts: Any) -> Any:
        self._odd("put")
        return await super().put_delivery(account_id, **facts)

    async def claim_deliveries(self, account_id: str, **facts: Any) -> Any:
        self._odd("claim")
        return await super().claim_deliveries(account_id, **facts)

    async def settle_delivery(self, account_id: str, key: str, *, owner: str) -> bool:
        self._odd("settle")
        return await super().settle_delivery(account_id, key, owner=owner)

    async def release_deliveries(self, account_id: str, *, owner: str) -> int:
        self._odd("release")
        return await super().release_deliveries(account_id, owner=owner)


class Slow(DurableInMemory):
    """Takes its time, and a claim is made whether or not anybody still waits for it, as in a thread."""

    def __init__(self) -> None:
        super().__init__()
        self.claiming = anyio.Event()
        self.go_on = anyio.Event()

    async def claim_deliveries(self, account_id: str, **facts: Any) -> Any:
        self.claiming.set()
        await self.go_on.wait()
        return await super().claim_deliveries(account_id, **facts)

    async def release_deliveries(self, account_id: str, *, owner: str) -> int:
        await anyio.sleep(0.5)
        return await super().release_deliveries(account_id, owner=owner)


@pytest.mark.parametrize("how", ["no time", "cancelled"])
async def test_claims_are_given_back_however_little_time_there_is(how: str) -> None:
    """Found by reading: with no time for handlers there was none for this either, and a cancelled drain forgot it."""
    router, store = Router(), Slow()
    store.go_on.set()

    @router.on(ContentEvent)
    async def hang(message: Incoming[ContentEvent]) -> None:
        await anyio.sleep(1000)

    async with rig(router, store=store, drain=0.0) as worker:
        await worker.deliver(content("c", 0), content("c", 1))
        await anyio.sleep(1)
        assert (await store.delivery_counts(ACCOUNT)).claimed == 2
        if how == "no time":
            assert await worker.dispatcher.drain(0.0) == 0
        else:
            with anyio.move_on_after(1) as scope:
                await worker.dispatcher.drain(100.0)
            assert scope.cancelled_caught
        assert (await store.delivery_counts(ACCOUNT)).waiting == 2


async def test_what_is_being_claimed_at_the_end_is_given_back() -> None:
    """Nobody else would take it before the lease ends."""
    router, store = Router(), Slow()
    got = recording(router)
    async with rig(router, store=store) as worker:
        await worker.deliver(content("c", 0))
        await store.claiming.wait()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(worker.dispatcher.drain, 1.0)
            await anyio.sleep(1)
            store.go_on.set()
        assert (await store.delivery_counts(ACCOUNT)).waiting == 1
    assert got == []


async def test_a_store_that_does_not_answer_does_not_keep_a_worker_from_ending() -> None:
    """The lease ends by itself."""
    store = Slow()
    async with rig(store=store) as worker:
        await worker.deliver(content("c", 0))
        await store.claiming.wait()
        with anyio.fail_after(5):
            await worker.dispatcher.drain(1.0)
        store.go_on.set()


async def test_while_it_drains_an_answer_does_not_wait_for_handlers_that_will_not_run() -> None:
    """With a durable store and `ack="handled"`: it is stored, and another worker's to handle."""
    store = DurableInMemory()
    async with rig(store=store, ack="handled") as worker:
        await worker.dispatcher.drain(1.0)
        before = anyio.current_time()
        assert await worker.deliver(content("c", 0)) == [200]
        assert anyio.current_time() == before
        assert (await store.delivery_counts(ACCOUNT)).waiting == 1


async def test_an_answer_that_waits_when_the_worker_ends_is_given_at_once() -> None:
    """Without a durable store the vendor is told to try again, and need not wait for that."""
    router, statuses = Router(), list[int]()

    @router.on(ContentEvent)
    async def hang(message: Incoming[ContentEvent]) -> None:
        await anyio.sleep(1000)

    async with rig(router, ack="handled", settings=WebhookSettings(handled_timeout=100.0)) as worker:

        async def deliver() -> None:
            statuses.extend(await worker.deliver(content("c", 0)))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(deliver)
            await anyio.sleep(1)
            assert await worker.dispatcher.drain(3.0) == 1
        assert anyio.current_time() < 10
        assert statuses == [503]


async def test_doubles_leave_nothing_in_memory() -> None:
    """Found by reading: with `ack="handled"` and a durable store each double was remembered for ever."""
    router, store = Router(), DurableInMemory(max_entries=2)
    got = recording(router)
    async with rig(router, store=store, ack="handled") as worker:
        assert await worker.deliver(content("c", 0), content("c", 0)) == [200, 200]
        worker.dispatcher._sorting.lanes.stop()
        answers = await worker.deliver(*[content("c", number) for number in range(1, 5)])
        assert answers[-1] == 503
        body = encoded(notification(content("c", 9)))
        with anyio.move_on_after(0.0):
            await worker.app.handle(headers_for(body), body)
        assert worker.dispatcher._in_progress == {}
    assert order_of(got, "c") == [0]


@pytest.mark.parametrize("ack", ["queued", "stored", "handled"])
@pytest.mark.parametrize("call", ["first_time", "put", "claim", "settle", "release"])
async def test_a_store_that_raises_what_it_should_not_costs_no_session(ack: Any, call: str) -> None:
    """A store is the user's to write; the vendor is asked to try again where an event is not kept."""
    router, store = Router(), Odd(call)
    got = recording(router)
    async with rig(router, store=store, ack=ack) as worker:
        while await worker.deliver(content("c", 0)) != [200]:
            assert call == "put"
        await worker.quiet()
        assert await worker.deliver(content("c", 1)) == [200]
        await worker.quiet()
    assert set(order_of(got, "c")) == {0, 1}


async def test_a_failing_handler_and_a_store_that_raises_cost_no_session() -> None:
    """What was queued and failed would go to the store; that it cannot is said."""
    router, store = Router(), Odd("put")

    @router.on(ContentEvent)
    async def fail(message: Incoming[ContentEvent]) -> None:
        raise LookupError

    async with rig(router, store=store, ack="queued") as worker:
        assert await worker.deliver(content("c", 0)) == [200]
        await worker.quiet()
        (failed,) = worker.port.emitted_of(HandlerFailed)
        assert failed.wait is None


@pytest.mark.parametrize("where", ["handler", "on_error", "on_unclaimed"])
async def test_a_group_of_cancellations_that_nobody_asked_for_is_a_failure_and_no_more(where: str) -> None:
    """Found by trial: let out, it would end the session and with it everything else that is at work."""
    router = Router()
    group = BaseExceptionGroup("what a library of the user's gathers", [asyncio.CancelledError(), LookupError()])

    async def fail(*_: object) -> str:
        raise group

    if where == "handler":
        router.on(ContentEvent)(fail)
    elif where == "on_unclaimed":
        router.on_unclaimed(fail)
    else:

        @router.on(ContentEvent)
        async def handle(message: Incoming[ContentEvent]) -> None:
            raise LookupError

        router.on_error(fail)
    async with rig(router) as worker:
        worker.port.foreign = {"c"} if where == "on_unclaimed" else set()
        assert await worker.deliver(content("c", 0)) == [200]
        await worker.quiet()
        assert worker.dispatcher.stats().failed == 1


@pytest.mark.parametrize("where", ["on_error", "on_unclaimed"])
async def test_what_stands_around_handlers_is_cancelled_at_last_as_they_are(where: str) -> None:
    """Found by reading: it kept a worker and its conversation for ever."""
    router, hung = Router(), anyio.Event()

    async def hang(*_: object) -> None:
        hung.set()
        await anyio.sleep_forever()

    @router.on(ContentEvent)
    async def fail(message: Incoming[ContentEvent]) -> None:
        raise LookupError

    if where == "on_error":
        router.on_error(hang)
    else:

        @router.on_unclaimed
        async def ask(_: Unclaimed) -> None:
            await hang()

    async with rig(router, settings=WebhookSettings(handler_timeout=5.0)) as worker:
        worker.port.foreign = {"c"} if where == "on_unclaimed" else set()
        await worker.deliver(content("c", 0))
        await hung.wait()
        await anyio.sleep(6)
        await until(lambda: not worker.dispatcher.stats().waiting)
        assert worker.dispatcher.stats().failed == 1


@pytest.mark.parametrize("how", ["and waits", "and returns", "later"])
async def test_a_handler_that_cancels_the_task_it_runs_in_ends_nothing_but_itself(how: str) -> None:
    """Found by trial: where only the last of several messages counts, people cancel the task of the one before."""
    router = Router()
    heard: list[str] = []

    @router.on(ContentEvent)
    async def handle(message: Incoming[ContentEvent]) -> None:
        heard.append(message.text)
        if len(heard) > 1:
            return
        if how == "later":
            await anyio.sleep(0.1)
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        if how != "and returns":
            await anyio.sleep(0.1)

    async with rig(router) as worker:
        for number in range(3):
            assert await worker.deliver(content("c", number)) == [200]
        await worker.quiet()
        assert len(heard) == 3
        assert worker.dispatcher.stats().failed == (how != "and returns")


async def test_what_is_shown_of_a_dispatcher_is_short_and_holds_no_words() -> None:
    """Found by trial: its repr was five pages of its innards, with the bodies of the deliveries that waited."""
    router, going_on = Router(), anyio.Event()

    @router.on()
    async def wait(_incoming: Incoming[Any]) -> None:
        await going_on.wait()

    async with rig(router) as worker:
        await worker.deliver(content("c", 0, message="my secret"), content("c", 1, message="my secret"))
        await anyio.wait_all_tasks_blocked()
        assert repr(worker.dispatcher) == f"Dispatcher({worker.port.account_id!r}, 0 handled, 2 waiting)"
        going_on.set()
        await worker.quiet()
