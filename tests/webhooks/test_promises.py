"""What each `ack` promises holds whenever a worker ends, and with whatever handlers: slow, fast, failing, hanging."""

from __future__ import annotations

import random
from collections import defaultdict

import anyio
import pytest

from connector_async.webhooks import Ack, Incoming, Router, WebhookSettings
from connector_async.wire import ContentEvent
from tests.backends import VIRTUAL
from tests.webhooks.rig import Rig, content, rig
from tests.webhooks.test_dispatcher import DurableInMemory

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", [VIRTUAL])]

Event = tuple[str, int]
SEEDS = range(12)


class World:
    """The vendor, who notes what was answered with 200, and handlers that behave as chance has it."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.accepted: set[Event] = set()
        self.answered_after_handling = True
        self.handled: dict[str, list[int]] = defaultdict(list)
        self.done: set[Event] = set()
        self.done_in_time = 0

    def router(self, *, failing: float = 0.0, hanging: float = 0.0) -> Router:
        """Handlers of which so many fail, and so many hang."""
        router = Router()

        @router.on(ContentEvent)
        async def handle(message: Incoming[ContentEvent]) -> None:
            await anyio.sleep(self.chance.choice([0.0, 0.01, 0.3]))
            luck = self.chance.random()
            if luck < failing:
                raise LookupError
            if luck < failing + hanging:
                await anyio.sleep(3600)
            self.handled[message.conversation_id].append(message.sequence or 0)
            self.done.add((message.conversation_id, message.sequence or 0))

        return router

    async def deliver(self, worker: Rig, conversation: str) -> None:
        """All events of one conversation, each as soon as the one before it was answered."""
        for number in range(8):
            await anyio.sleep(self.chance.random() / 5)
            if await worker.deliver(content(conversation, number)) == [200]:
                self.accepted.add((conversation, number))
                self.answered_after_handling &= (conversation, number) in self.done

    async def live(self, worker: Rig, *, drain: float) -> int:
        """Deliver to a worker which ends in the middle of it; how many events it left."""
        async with anyio.create_task_group() as vendor:
            for number in range(6):
                vendor.start_soon(self.deliver, worker, f"c{number}")
            await anyio.sleep(self.chance.random() * 1.5)
            left = await worker.dispatcher.drain(drain)
            self.done_in_time = len(self.done)
        return left


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("ack", ["stored", "handled"])
async def test_what_a_durable_store_has_is_handled_by_the_next_worker(ack: Ack, seed: int) -> None:
    """`stored`, and `handled` with a durable store: nothing that got its 200 is lost, whenever the worker ends."""
    world, store = World(seed), DurableInMemory()
    settings = WebhookSettings(max_handlers=4, retry_pause=0.1, max_attempts=1000, max_retry_pause=0.5)
    async with rig(world.router(failing=0.2, hanging=0.1), store=store, settings=settings, ack=ack) as victim:
        victim.dispatcher._durable.wall_clock = anyio.current_time
        await world.live(victim, drain=world.chance.choice([0.0, 0.2, 2.0]))
    async with rig(world.router(failing=0.2), store=store, settings=settings) as heir:
        heir.dispatcher._durable.wall_clock = anyio.current_time
        heir.dispatcher.start()
        await anyio.sleep(60)
        await heir.quiet()
    assert len(world.accepted) == 48
    assert world.done == world.accepted


@pytest.mark.parametrize("seed", SEEDS)
async def test_what_was_queued_is_handled_in_order_or_counted(seed: int) -> None:
    """`queued` promises memory, and what it loses is told."""
    world = World(seed)
    async with rig(world.router(hanging=0.05), settings=WebhookSettings(max_handlers=4), ack="queued") as worker:
        left = await world.live(worker, drain=world.chance.choice([0.0, 0.2, 2.0]))
    assert len(world.accepted) == world.done_in_time + left
    assert all(numbers == sorted(set(numbers)) for numbers in world.handled.values())


@pytest.mark.parametrize("seed", SEEDS)
async def test_what_was_answered_as_handled_was_handled(seed: int) -> None:
    """`handled` without a durable store: 200 means that the handlers are through, and nothing else does."""
    world = World(seed)
    settings = WebhookSettings(max_handlers=4)
    async with rig(world.router(failing=0.2, hanging=0.05), settings=settings, ack="handled") as worker:
        await world.live(worker, drain=world.chance.choice([0.0, 0.2, 2.0]))
    assert world.accepted <= world.done
    assert world.answered_after_handling
