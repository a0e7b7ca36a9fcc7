"""A worker that was paused for longer than its leases does not begin what others have taken over meanwhile."""

from __future__ import annotations

from typing import Any

import anyio
import attrs
import pytest

from connector_async.errors import StoreUnavailable
from connector_async.store import Delivery
from connector_async.webhooks import Incoming, Router, WebhookSettings
from connector_async.wire import ContentEvent
from tests.webhooks.rig import ACCOUNT, Rig, content, rig, until
from tests.webhooks.test_dispatcher import DurableInMemory

pytestmark = pytest.mark.anyio

SETTINGS = WebhookSettings(lease=60.0, poll_interval=0.005, gap_timeout=0.0)
NOON = 1_000_000.0


class Paused:
    """A worker that is paused in its first event, for a hundred seconds, with three more in memory."""

    def __init__(self, *, others: int) -> None:
        self.store, self.router = DurableInMemory(), Router()
        self.now, self.others = NOON, others
        self.taken: list[Delivery] = []
        self.handled: list[int] = []
        self.worker: Rig | None = None
        self.router.on(ContentEvent)(self.handle)

    async def handle(self, message: Incoming[ContentEvent]) -> None:
        assert message.sequence is not None
        if not self.handled:
            await until(lambda: self.worker and self.worker.dispatcher._durable.claimed == 4)
            self.now += 100.0
            self.taken = await self.take(self.others)
        self.handled.append(message.sequence)

    async def take(self, limit: int) -> list[Delivery]:
        return await self.store.claim_deliveries(
            ACCOUNT, owner="other", now=self.now, lease_until=self.now + 60.0, limit=limit
        )

    async def deliver(self, worker: Rig) -> None:
        self.worker = worker
        worker.dispatcher._durable.wall_clock = lambda: self.now
        await worker.deliver(*[content("c", number) for number in range(4)])

    async def settle(self) -> None:
        for delivery in self.taken:
            assert await self.store.settle_delivery(ACCOUNT, delivery.key, owner="other")


async def test_what_others_have_taken_over_is_not_begun(caplog: pytest.LogCaptureFixture) -> None:
    """Up to 512 events were handled here too, beside and out of turn with the worker that had taken them."""
    paused = Paused(others=4)
    async with rig(paused.router, store=paused.store, settings=SETTINGS) as worker:
        await paused.deliver(worker)
        await until(lambda: paused.handled and not worker.dispatcher.stats().waiting)
        await paused.settle()
        await worker.quiet()
        assert worker.dispatcher._durable.claimed == 0
    assert paused.handled == [0]
    assert "does a handler block the event loop?" in caplog.text


async def test_what_nobody_has_taken_over_is_handled_after_what_another_has() -> None:
    paused = Paused(others=1)
    async with rig(paused.router, store=paused.store, settings=SETTINGS) as worker:
        await paused.deliver(worker)
        await until(lambda: paused.handled and not worker.dispatcher.stats().waiting)
        assert paused.handled == [0]
        await paused.settle()
        await worker.quiet()
    assert paused.handled == [0, 1, 2, 3]


async def test_what_is_given_back_goes_first_with_one_who_read_his_clock_before() -> None:
    """He waited for the file's lock meanwhile; what was behind it, and never claimed, went before it."""
    paused = Paused(others=1)
    take = paused.take

    async def take_and_put(limit: int) -> list[Delivery]:
        taken = await take(limit)
        await paused.store.put_delivery(ACCOUNT, key="later", lane="c", body=b"{}", received_at=1.0)
        return taken

    async with rig(
        paused.router, store=paused.store, settings=attrs.evolve(SETTINGS, poll_interval=1000.0)
    ) as worker:
        paused.take = take_and_put  # type: ignore[method-assign]
        await paused.deliver(worker)
        await until(lambda: paused.handled and not worker.dispatcher._durable.claimed)
        worker.dispatcher._durable.stop()
        await paused.settle()
        paused.now -= 1.0
        assert [one.key for one in await take(2)] == [f"event c c {number}" for number in (1, 2)]


async def test_nothing_newer_is_handled_before_what_was_lost_and_is_ours_again() -> None:
    """It had never been claimed, and stood behind what is given back in memory alone."""
    paused = Paused(others=1)
    take = paused.take

    async def take_and_settle(limit: int) -> list[Delivery]:
        taken = await take(limit)
        for delivery in taken:
            assert await paused.store.settle_delivery(ACCOUNT, delivery.key, owner="other")
        await worker.deliver(content("c", 4))
        return taken

    async with rig(paused.router, store=paused.store, settings=SETTINGS) as worker:
        paused.take = take_and_settle  # type: ignore[method-assign]
        await paused.deliver(worker)
        await until(lambda: len(paused.handled) == 5)
        await worker.quiet()
    assert paused.handled == [0, 1, 2, 3, 4]


async def test_what_is_claimed_while_a_loss_is_noticed_waits_behind_what_was_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    router, store, handled, release = Router(), DurableInMemory(), list[int](), anyio.Event()
    claim = store.claim_deliveries

    @router.on(ContentEvent)
    async def handle(message: Incoming[ContentEvent]) -> None:
        await release.wait()
        handled.append(message.sequence or 0)

    async def claim_and_lose(*args: Any, **facts: Any) -> list[Delivery]:
        claims = await claim(*args, **facts)
        if worker.dispatcher._durable._unbegun and claims:
            worker.dispatcher._durable._lose()
            release.set()
        return claims

    async with rig(router, store=store, settings=SETTINGS) as worker:
        monkeypatch.setattr(store, "claim_deliveries", claim_and_lose)
        await worker.deliver(content("c", 0), content("c", 1))
        await until(lambda: worker.dispatcher._durable.claimed == 2)
        await worker.deliver(content("c", 2))
        await until(lambda: len(handled) == 3)
        await worker.quiet()
    assert handled == [0, 1, 2]
    assert worker.dispatcher._durable.claimed == 0


async def test_where_nobody_else_was_there_it_goes_on() -> None:
    paused = Paused(others=0)
    async with rig(paused.router, store=paused.store, settings=SETTINGS) as worker:
        await paused.deliver(worker)
        await worker.quiet()
    assert paused.handled == [0, 1, 2, 3]


async def test_nothing_is_begun_while_the_store_cannot_say_whose_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is given back, once the store can be told that, and claimed anew."""
    paused = Paused(others=0)
    gone = ("renew_deliveries", "retry_delivery")

    async def fail(*_args: object, **_facts: object) -> bool:
        raise StoreUnavailable("gone")

    async def take(_limit: int) -> list[Delivery]:
        for name in gone:
            monkeypatch.setattr(paused.store, name, fail, raising=False)
        return []

    async with rig(paused.router, store=paused.store, settings=SETTINGS) as worker:
        monkeypatch.setattr(paused, "take", take)
        await paused.deliver(worker)
        await until(lambda: paused.handled and not worker.dispatcher.stats().waiting)
        assert paused.handled == [0]
        for name in gone:
            monkeypatch.delattr(paused.store, name)
        await worker.quiet()
    assert paused.handled == [0, 1, 2, 3]
