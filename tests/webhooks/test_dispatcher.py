"""Events in memory: once, in order per conversation, bounded; and what a full queue sheds first."""

from __future__ import annotations

import random
from typing import Any

import anyio
import pytest

from connector_async.errors import StoreUnavailable
from connector_async.protocol.inbox import event_digest
from connector_async.store import MemoryStore
from connector_async.webhooks import Incoming, Router, WebhookSettings
from connector_async.webhooks.events import DeliveryShed, HandlerFailed, OrderGap
from connector_async.wire import ContentEvent, ConversationChange, parse_notification
from tests.backends import ASYNCIO_AND_TRIO, VIRTUAL
from tests.webhooks.rig import change, chat_state, content, notification, receipt, rig, until

pytestmark = pytest.mark.anyio


class DurableInMemory(MemoryStore):
    """A memory store that says it is durable: the same rules without the disk. It can be told to fail."""

    is_down = False

    @property
    def durable(self) -> bool:
        return True

    async def first_time(self, account_id: str, key: str) -> bool:
        self._check()
        return await MemoryStore.first_time(self, account_id, key)

    async def put_delivery(self, account_id: str, **facts: Any) -> Any:
        self._check()
        return await MemoryStore.put_delivery(self, account_id, **facts)

    def _check(self) -> None:
        if self.is_down:
            raise StoreUnavailable("the disk is full")


def recording(router: Router, *kinds: type[Any]) -> list[Incoming[Any]]:
    """A handler that remembers, for these kinds of event."""
    got: list[Incoming[Any]] = []

    @router.on(*kinds)
    async def record(incoming: Incoming[Any]) -> None:
        got.append(incoming)

    return got


def order_of(got: list[Incoming[Any]], conversation: str) -> list[int | None]:
    return [one.sequence for one in got if one.conversation_id == conversation]


@pytest.mark.parametrize("anyio_backend", ASYNCIO_AND_TRIO)
async def test_doubles_are_handled_once_and_answered_with_200(monkeypatch: pytest.MonkeyPatch) -> None:
    """Duplicates happen: processed but answered late (webhooks disclaimers)."""
    # trio keeps its idle threads for ten seconds, for whoever needs one next.
    monkeypatch.setattr("trio._core._thread_cache.IDLE_TIMEOUT", 0.01)
    router = Router()
    got = recording(router)
    async with rig(router) as worker:
        for message in (notification(content("c", 0)), change("c", 5), notification(content("c", 1))):
            assert [await worker.post(message) for _ in range(3)] == [200, 200, 200]
        assert await worker.post(change("c", 4)) == 200
        await worker.quiet()
        stats = worker.dispatcher.stats()
    assert len(got) == 3
    assert (stats.received, stats.handled, stats.duplicates, stats.outdated) == (10, 3, 6, 1)


async def test_the_same_chat_state_may_come_twice() -> None:
    """Chat states need no dedupe: typing, pausing, typing again."""
    router = Router()
    got = recording(router)
    async with rig(router) as worker:
        await worker.deliver(*[chat_state("c", state) for state in ("COMPOSING", "PAUSE", "COMPOSING")])
        await worker.quiet()
    assert [one.event.chat_state for one in got] == ["COMPOSING", "PAUSE", "COMPOSING"]


async def test_a_notification_of_several_changes_is_taken_apart() -> None:
    """`changes[]`: one or more; iterate all (webhooks events)."""
    router = Router()
    got = recording(router)
    async with rig(router) as worker:
        await worker.post(notification(content("a", 0), content("b", 0), content("a", 1)))
        await worker.post(notification(content("a", 1), content("a", 2)))
        await worker.quiet()
    assert order_of(got, "a") == [0, 1, 2]
    assert order_of(got, "b") == [0]


async def test_notifications_of_new_types_are_accepted_and_counted() -> None:
    """An unknown type is no failure: a failure would make the vendor deliver it again."""
    async with rig() as worker:
        assert await worker.post(notification(kind="new.Kind")) == 200
        assert await worker.post(notification()) == 200
        assert worker.dispatcher.stats().unroutable == 2


async def test_conversations_overlap_and_each_is_in_order() -> None:
    """All handlers of different conversations run at once; none of the same does."""
    router, parked, release = Router(), list[str](), anyio.Event()

    @router.on(ContentEvent)
    async def park(message: Incoming[ContentEvent]) -> None:
        parked.append(f"{message.conversation_id}{message.sequence}")
        await release.wait()

    async with rig(router) as worker:
        for name in "abc":
            await worker.deliver(content(name, 0), content(name, 1))
        await anyio.wait_all_tasks_blocked()
        assert sorted(parked) == ["a0", "b0", "c0"]
        release.set()
        await worker.quiet()
    assert sorted(parked) == ["a0", "a1", "b0", "b1", "c0", "c1"]


async def test_no_more_handlers_run_at_once_than_allowed() -> None:
    """`max_handlers` bounds what a burst can do to us."""
    router, running, most = Router(), 0, 0

    @router.on(ContentEvent)
    async def count(message: Incoming[ContentEvent]) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await anyio.lowlevel.checkpoint()
        running -= 1

    async with rig(router, settings=WebhookSettings(max_handlers=4)) as worker:
        await worker.deliver(*[content(f"c{number}", 0) for number in range(40)])
        await worker.quiet()
    assert most == 4


@pytest.mark.parametrize("anyio_backend", [VIRTUAL])
async def test_a_gap_is_released_after_its_timeout_with_a_mark() -> None:
    """Fault table W5: released with a flag, 0 lost; the late one comes late."""
    router = Router()
    got = recording(router)
    async with rig(router, settings=WebhookSettings(gap_timeout=2.0)) as worker:
        await worker.deliver(content("c", 0), content("c", 2), content("c", 3))
        await anyio.sleep(1.9)
        assert order_of(got, "c") == [0]
        assert worker.dispatcher.stats().held == 2
        await anyio.sleep(0.2)
        assert order_of(got, "c") == [0, 2, 3]
        await worker.deliver(content("c", 1))
        await worker.quiet()
        stats = worker.dispatcher.stats()
        assert worker.port.emitted_of(OrderGap) == [OrderGap(conversation_id="c", dialog_id="c", sequence=2)]
    assert [(one.sequence, one.after_gap, one.is_late) for one in got] == [
        (0, False, False),
        (2, True, False),
        (3, False, False),
        (1, False, True),
    ]
    assert (stats.gaps, stats.late) == (1, 1)


@pytest.mark.parametrize("anyio_backend", [VIRTUAL])
async def test_w5_random_order_and_doubles_reach_handlers_once_and_in_order() -> None:
    """10,000 notifications, 20 % doubles, random order within a window of 20 (fault table W5)."""
    router = Router()
    got: dict[str, list[int | None]] = {}

    @router.on(ContentEvent)
    async def record(message: Incoming[ContentEvent]) -> None:
        got.setdefault(message.conversation_id, []).append(message.sequence)

    rng = random.Random(5)
    events = [(f"c{number % 40}", number // 40) for number in range(8_000)]
    arriving = shuffled(with_doubles(events, 2_000, rng), 20, rng)
    async with rig(router) as worker:
        for conversation, sequence in arriving:
            assert await worker.post(notification(content(conversation, sequence))) == 200
        await anyio.sleep(2)
        await worker.quiet()
        stats = worker.dispatcher.stats()
    assert got == {f"c{number}": list(range(200)) for number in range(40)}
    assert (stats.received, stats.handled, stats.duplicates, stats.held) == (10_000, 8_000, 2_000, 0)


def with_doubles(events: list[Any], count: int, rng: random.Random) -> list[Any]:
    """Each double somewhere after its first."""
    doubled = list(events)
    for event in rng.sample(events, count):
        doubled.insert(rng.randint(doubled.index(event), len(doubled)), event)
    return doubled


def shuffled(events: list[Any], window: int, rng: random.Random) -> list[Any]:
    """Each event up to `window` places from where it was."""
    keyed = sorted(range(len(events)), key=lambda place: place + rng.uniform(0, window))
    return [events[place] for place in keyed]


async def test_a_failing_handler_is_reported_and_costs_nobody_else(caplog: pytest.LogCaptureFixture) -> None:
    """Logged, told to the hooks; the task group and the conversation live on."""
    router = Router()

    @router.on(ContentEvent)
    async def fail(message: Incoming[ContentEvent]) -> None:
        raise ValueError("no")

    got = recording(router, ContentEvent)
    async with rig(router) as worker:
        await worker.deliver(content("c", 0), content("c", 1))
        await worker.quiet()
        failed = worker.port.emitted_of(HandlerFailed)
    assert order_of(got, "c") == [0, 1]
    assert [(one.conversation_id, one.attempt, one.wait) for one in failed] == [("c", 1, None)] * 2
    assert "fail" in failed[0].handler
    assert isinstance(failed[0].error, ValueError)
    assert "failed" in caplog.text


@pytest.mark.parametrize("anyio_backend", [VIRTUAL])
async def test_a_handler_that_hangs_is_cancelled_at_last() -> None:
    """`handler_timeout`: it counts as failed, and its conversation goes on."""
    router, began = Router(), list[int | None]()

    @router.on(ContentEvent)
    async def hang(message: Incoming[ContentEvent]) -> None:
        began.append(message.sequence)
        await anyio.sleep(80_000)

    async with rig(router, settings=WebhookSettings(handler_timeout=30.0)) as worker:
        await worker.deliver(content("c", 0), content("c", 1))
        await anyio.sleep(61)
        assert [type(one.error) for one in worker.port.emitted_of(HandlerFailed)] == [TimeoutError] * 2
    assert began == [0, 1]


async def test_a_handler_may_run_as_long_as_it_likes_if_so_set() -> None:
    """`handler_timeout=None`."""
    router = Router()
    got = recording(router)
    async with rig(router, settings=WebhookSettings(handler_timeout=None)) as worker:
        await worker.deliver(content("c", 0))
        await worker.quiet()
    assert len(got) == 1


async def test_a_full_queue_sheds_chat_states_first_and_says_503_last() -> None:
    """Without a durable store the vendor has to deliver again (issue of the webhooks, 2)."""
    router, release = Router(), anyio.Event()

    @router.on()
    async def park(incoming: Incoming[Any]) -> None:
        await release.wait()

    async with rig(router, settings=WebhookSettings(max_queue=8)) as worker:
        assert await worker.deliver(*[content("c", number) for number in range(6)]) == [200] * 6
        assert await worker.deliver(chat_state("c")) == [200]
        assert await worker.deliver(*[content("c", number) for number in range(6, 9)]) == [200, 200, 503]
        assert worker.port.emitted_of(DeliveryShed) == [
            DeliveryShed(conversation_id="c", is_lost=True),
            DeliveryShed(conversation_id="c", is_lost=False),
        ]
        release.set()
        await worker.quiet()
        stats = worker.dispatcher.stats()
        assert (stats.shed, stats.busy, stats.handled) == (1, 1, 8)
        assert await worker.deliver(content("c", 8)) == [200], "what was refused is no double"
        await worker.quiet()
        assert worker.dispatcher.stats().handled == 9


async def test_a_full_queue_leaves_the_rest_to_a_durable_store() -> None:
    """The store takes the rest; it is handled once there is room."""
    router, release = Router(), anyio.Event()
    handled: list[int | None] = []

    @router.on(ContentEvent)
    async def park(message: Incoming[ContentEvent]) -> None:
        await release.wait()
        handled.append(message.sequence)

    settings = WebhookSettings(max_queue=4, max_handlers=1, poll_interval=0.01)
    async with rig(router, settings=settings, store=DurableInMemory(), ack="queued") as worker:
        assert await worker.deliver(*[content("c", number) for number in range(10)]) == [200] * 10
        assert await worker.deliver(content("c", 9)) == [200]
        release.set()
        await worker.quiet()
        counts = await worker.port.store.delivery_counts("12345678")
    assert sorted(handled, key=lambda number: number or 0) == list(range(10))
    assert (counts.waiting, counts.claimed) == (0, 0)


async def test_doubles_are_dropped_across_workers_that_share_a_store() -> None:
    """Deliveries of one event may reach two workers (design, decision 8)."""
    store, routers = MemoryStore(), [Router(), Router()]
    got = [recording(router) for router in routers]
    async with rig(routers[0], store=store) as first, rig(routers[1], store=store) as second:
        for worker in (first, second, first):
            await worker.deliver(content("c", 0), content("c", 1))
            await worker.quiet()
        assert second.dispatcher.stats().duplicates == 2
    assert order_of(got[0], "c") == [0, 1]
    assert got[1] == []


async def test_a_store_that_cannot_tell_costs_a_double_not_a_loss(caplog: pytest.LogCaptureFixture) -> None:
    """Twice is better than never."""
    router, store = Router(), DurableInMemory()
    got = recording(router)
    async with rig(router, store=store, ack="queued") as worker:
        store.is_down = True
        await worker.deliver(content("c", 0))
        await worker.quiet()
    assert len(got) == 1
    assert "double" in caplog.text


async def test_a_failed_event_goes_to_the_durable_store_and_comes_again() -> None:
    """A failing handler with a durable store: delivered again (issue of the webhooks, 3)."""
    router, attempts = Router(), list[int]()

    @router.on(ContentEvent)
    async def second_time_lucky(message: Incoming[ContentEvent]) -> None:
        attempts.append(message.attempt)
        if len(attempts) == 1:
            raise ValueError("no")

    async with rig(router, store=DurableInMemory(), ack="queued") as worker:
        await worker.deliver(content("c", 0))
        await until(lambda: len(attempts) == 2)
        await worker.quiet()
        assert [one.wait for one in worker.port.emitted_of(HandlerFailed)] == [0.0]
    assert attempts == [1, 2]


async def test_a_failed_event_that_no_store_takes_is_only_reported() -> None:
    """The store is down as well: nothing will try again, and the hook says so."""
    router, store = Router(), DurableInMemory()

    @router.on(ContentEvent)
    async def fail(message: Incoming[ContentEvent]) -> None:
        store.is_down = True
        raise ValueError("no")

    async with rig(router, store=store, ack="queued") as worker:
        await worker.deliver(content("c", 0))
        await worker.quiet()
        assert [one.wait for one in worker.port.emitted_of(HandlerFailed)] == [None]


async def test_the_session_hears_of_everything_before_the_handlers() -> None:
    """Echoes, receipts and changes go to the session (design, decision 8)."""
    router = Router()
    got = recording(router)
    async with rig(router) as worker:
        await worker.deliver(content("c", 0, role="CONSUMER"), receipt("c", 1, 0), content("c", 2))
        await worker.post(change("c", 9, stage="CLOSE"))
        await worker.quiet()
        observed = worker.port.observed
    assert [one.is_echo for one in observed] == [True, False, False, False]
    assert [one.sequence for one in observed] == [0, 1, 2, None]
    assert isinstance(observed[3].event, ConversationChange)
    assert observed[3].event.is_closed
    assert len(got) == 3


async def test_an_echo_that_nobody_waited_for_is_left_in_a_durable_store() -> None:
    """Echoes settle across workers that share it (issue of the webhooks, 8)."""
    store = DurableInMemory()
    async with rig(store=store) as worker:
        await worker.deliver(content("c", 0, "mine", role="CONSUMER"))
        await worker.quiet()
        worker.port.awaited = True
        await worker.deliver(content("c", 1, "awaited", role="CONSUMER"))
        await worker.quiet()
    for text, expected in (("mine", (True, 0)), ("awaited", (False, None))):
        digest = event_digest({"type": "ContentEvent", "contentType": "text/plain", "message": text})
        assert await store.take_echo("12345678", "c", digest) == expected


async def test_a_session_that_fails_to_look_up_or_to_note_is_a_failure_of_the_event() -> None:
    """Never a lost task; reported like a failing handler."""
    router = Router()
    got = recording(router)
    async with rig(router) as worker:
        port: Any = worker.port
        find = port.find_conversation

        async def broken(*args: object, **kwargs: object) -> None:
            raise StoreUnavailable("no disk")

        port.find_conversation = broken
        await worker.deliver(content("c", 0))
        await worker.quiet()
        port.find_conversation = find
        port.observe = None
        await worker.deliver(content("c", 1))
        await worker.quiet()
        assert [one.handler for one in worker.port.emitted_of(HandlerFailed)] == ["find_conversation", "observe"]
    assert order_of(got, "c") == [1]


async def test_dispatch_runs_the_handlers_and_returns_when_they_are_done() -> None:
    """For teams with a queue of their own, and for tests: doubles are theirs to judge."""
    router = Router()
    got = recording(router, ContentEvent)

    @router.on(ContentEvent)
    async def fail(message: Incoming[ContentEvent]) -> None:
        if message.text == "fail":
            raise ValueError("no")

    async with rig(router) as worker:
        message: Any = parse_notification(notification(content("c", 3), content("d", 9, "fail")))
        for _ in range(2):
            dispatched = await worker.dispatcher.dispatch(message)
            assert dispatched.events == 2
            assert [type(error) for error in dispatched.errors] == [ValueError]
    assert sorted((one.conversation_id, one.sequence) for one in got) == [("c", 3), ("c", 3), ("d", 9), ("d", 9)]


@pytest.mark.parametrize("anyio_backend", [VIRTUAL])
async def test_draining_lets_handlers_finish_and_refuses_new_work() -> None:
    """What is in memory is worked off; new deliveries are the vendor's to bring again."""
    router, done = Router(), list[int | None]()

    @router.on(ContentEvent)
    async def slow(message: Incoming[ContentEvent]) -> None:
        await anyio.sleep(1)
        done.append(message.sequence)

    left: list[int] = []
    async with rig(router) as worker, anyio.create_task_group() as tasks:
        await worker.deliver(content("c", 0), content("c", 1), content("c", 3))

        async def drain() -> None:
            left.append(await worker.dispatcher.drain(10.0))

        tasks.start_soon(drain)
        await anyio.sleep(0.5)
        assert await worker.deliver(content("c", 4), chat_state("c")) == [503, 200]
        assert worker.dispatcher.stats().shed == 1
    assert done == [0, 1, 3], "what was held for a gap is not forgotten"
    assert left == [0]


@pytest.mark.parametrize("anyio_backend", [VIRTUAL])
async def test_what_draining_cannot_finish_is_reported() -> None:
    """A clean exit reports what was left."""
    router = Router()

    @router.on(ContentEvent)
    async def hang(message: Incoming[ContentEvent]) -> None:
        await anyio.sleep(1_000)

    async with rig(router, drain=0.1) as worker:
        await worker.deliver(content("c", 0), content("c", 1), content("d", 0))
        await anyio.sleep(0.1)
        assert await worker.dispatcher.drain(1.0) == 3
        worker.dispatcher.start()
