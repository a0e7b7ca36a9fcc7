"""Stopping, leases and a store that fails: nothing is lost, and nothing that may be doubled goes unsaid."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from copy import copy
from functools import partial

import anyio
import pytest

from connector_async import MemoryStore, SessionLimits
from connector_async.errors import StoreUnavailable
from connector_async.pump import Pump, PumpMessage, PumpPolicy, run_until_signalled
from connector_async.store.outbox import Advance, Claim, MessageState, PutResult, Settlement
from connector_async.transport.base import Answer
from tests.backends import ASYNCIO, ASYNCIO_AND_TRIO
from tests.cancel_driver import MODES, Mode, cancelled_at, count
from tests.doubles import FakeCloud, Post
from tests.pump.rig import (
    ACCOUNT,
    BrittleOutbox,
    OrderCloud,
    entry_of,
    message,
    new_store,
    pumping,
    session_of,
    texts,
)
from tests.session.rig import session_over

pytestmark = pytest.mark.anyio


class ParkedCloud(FakeCloud):
    """Holds texts until `open` is set; conversations are opened at once."""

    def __init__(self) -> None:
        super().__init__()
        self.open = anyio.Event()
        self.on_message = self.park

    async def park(self, post: Post) -> Answer:
        if isinstance(post.json, dict):
            await self.open.wait()
        return await self.take_message(post)


async def _settled(pump: Pump, accepted: int) -> None:
    while pump.stats.accepted < accepted:  # noqa: ASYNC110 - what is looked at is not the test's
        await anyio.sleep(0.01)


async def _arrived(cloud: FakeCloud, posts: int) -> None:
    while len([post for post in cloud.message_posts if isinstance(post.json, dict)]) < posts:  # noqa: ASYNC110 - what is looked at is not the test's
        await anyio.sleep(0.01)


# --- stopping ------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("P6")
async def test_p6_a_stop_lets_what_is_under_way_end_and_keeps_the_rest() -> None:
    store, cloud = new_store(), ParkedCloud()
    with anyio.fail_after(60):
        async with pumping(cloud, store) as pump, anyio.create_task_group() as tasks:
            await pump.put(*[message(n, consumer) for consumer in "ab" for n in range(3)])
            await _arrived(cloud, 2)
            tasks.start_soon(pump.stop, 30.0)
            await anyio.sleep(10)
            assert pump.is_stopping
            cloud.open.set()
        assert pump.stats.in_flight == pump.stats.unwritten == 0
    counts = await store.outbox.counts(ACCOUNT)
    assert (counts.accepted, counts.waiting, counts.begun, counts.maybe_duplicate) == (2, 4, 0, 0)
    with anyio.fail_after(60):
        async with pumping(cloud, store) as pump:
            await pump.drained()
    assert (await store.outbox.counts(ACCOUNT)).accepted == 6
    assert set(cloud.accepted.values()) == {1}


@pytest.mark.requirement("P6")
async def test_p6_a_second_stop_ends_at_once_and_what_may_have_landed_says_so() -> None:
    store, cloud = new_store(), ParkedCloud()
    with anyio.fail_after(60):
        async with pumping(cloud, store) as pump, anyio.create_task_group() as tasks:
            await pump.put(*[message(n, consumer) for consumer in "ab" for n in range(3)])
            await _arrived(cloud, 2)
            tasks.start_soon(pump.stop, 1000.0)
            await anyio.sleep(1)
            before = anyio.current_time()
            await pump.stop(0)
            assert anyio.current_time() - before < 1
    counts = await store.outbox.counts(ACCOUNT)
    assert (counts.accepted, counts.waiting, counts.begun) == (0, 6, 0)
    assert (await entry_of(store, 0, "a")).maybe_duplicate
    assert not (await entry_of(store, 1, "a")).maybe_duplicate
    cloud.open.set()
    with anyio.fail_after(60):
        async with pumping(cloud, store) as pump:
            await pump.drained()
    assert (await store.outbox.counts(ACCOUNT)).maybe_duplicate == 2


async def test_what_was_not_sent_when_time_ran_out_is_no_duplicate() -> None:
    """Two may be in flight; the third waits in the session's queue, as if it had never been claimed."""
    store, cloud = new_store(), ParkedCloud()
    session = session_over(cloud, store=store, limits=SessionLimits(max_in_flight=2))
    with anyio.fail_after(60):
        async with session, Pump(session, store) as pump:
            await pump.put(*[message(0, consumer) for consumer in "abc"])
            await _arrived(cloud, 2)
            await anyio.sleep(1)
            await pump.stop(0)
            assert pump.stats.released == 1
    entries = [await entry_of(store, 0, consumer) for consumer in "abc"]
    assert sorted((entry.maybe_duplicate, entry.attempts) for entry in entries) == [(False, 0), (True, 1), (True, 1)]


async def test_a_block_left_by_an_error_leaves_as_itself_within_a_short_time() -> None:
    store, cloud = new_store(), ParkedCloud()
    begun = anyio.current_time()
    with anyio.fail_after(60), pytest.raises(LookupError):
        async with pumping(cloud, store) as pump:
            await pump.put(message(1), message(2))
            await _arrived(cloud, 1)
            raise LookupError
    assert anyio.current_time() - begun < 10
    counts = await store.outbox.counts(ACCOUNT)
    assert (counts.waiting, counts.begun) == (2, 0)


async def test_a_block_that_is_cancelled_writes_down_what_it_knows() -> None:
    store, cloud = new_store(), ParkedCloud()
    with anyio.fail_after(60):
        with anyio.move_on_after(5):
            async with pumping(cloud, store) as pump:
                await pump.put(message(1), message(2), message(1, "other"))
                await anyio.sleep_forever()
    counts = await store.outbox.counts(ACCOUNT)
    assert (counts.waiting, counts.begun) == (3, 0)
    assert (await entry_of(store, 1)).maybe_duplicate
    assert not (await entry_of(store, 2)).maybe_duplicate


async def test_a_session_that_closes_under_the_pump_loses_nothing() -> None:
    store, cloud = new_store(), ParkedCloud()
    session = session_of(cloud, store)
    with anyio.fail_after(600):
        async with session, Pump(session, store) as pump:
            await pump.put(message(1), message(2))
            await _arrived(cloud, 1)
            await session.aclose()
            await anyio.sleep(20)
            assert pump.stats.accepted == 0
    counts = await store.outbox.counts(ACCOUNT)
    assert (counts.waiting, counts.begun) == (2, 0)


@pytest.mark.parametrize("mode", MODES)
async def test_a_pump_cancelled_at_any_await_leaves_no_task_and_loses_nothing(mode: Mode) -> None:
    """`left_no_task` watches over every test."""

    async def flow(store: MemoryStore, cloud: OrderCloud) -> None:
        async with pumping(cloud, store, outbox=BrittleOutbox(store.outbox)) as pump:
            await pump.put(message(1), message(2), message(1, "other"))
            await pump.feed([message(3)])
            for _ in range(40):
                await anyio.lowlevel.checkpoint()  # the tasks of the pump are elsewhere each time
            await pump.drained()

    total = await count(lambda: flow(new_store(), OrderCloud()))
    assert total > 40
    for at in range(1, total + 1, max(1, total // 50)):
        store, cloud = new_store(), OrderCloud()
        with anyio.fail_after(100):
            await cancelled_at(partial(flow, store, cloud), at, mode)
            async with pumping(cloud, store) as pump:
                await pump.put(message(1), message(2), message(1, "other"), message(3))
                await pump.drained()
                counts = (await pump.report()).counts
        assert (counts.accepted, counts.unsettled) == (4, 0)
        landed = cloud.landed["shopper"]
        assert landed == sorted(landed)
        assert len(landed) + len(cloud.landed["other"]) - 4 <= counts.maybe_duplicate


# --- signals -------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("P6")
@pytest.mark.parametrize("anyio_backend", ASYNCIO_AND_TRIO)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_p6_a_signal_drains_the_pump(number: signal.Signals) -> None:
    store, cloud = MemoryStore(), ParkedCloud()
    with anyio.fail_after(5):
        async with pumping(cloud, store) as pump, anyio.create_task_group() as tasks:
            await pump.put(message(1), message(2))

            async def kill() -> None:
                await _arrived(cloud, 1)
                os.kill(os.getpid(), number)
                while not pump.is_stopping:  # noqa: ASYNC110 - what is looked at is not the test's
                    await anyio.sleep(0.001)
                cloud.open.set()

            tasks.start_soon(kill)
            assert await run_until_signalled(pump) is number
    counts = await store.outbox.counts(ACCOUNT)
    assert (counts.accepted, counts.waiting, counts.begun) == (1, 1, 0)


@pytest.mark.requirement("P6")
@pytest.mark.parametrize("anyio_backend", [ASYNCIO])
async def test_p6_a_second_signal_stops_at_once() -> None:
    store, cloud = MemoryStore(), ParkedCloud()
    with anyio.fail_after(5):
        async with pumping(cloud, store) as pump, anyio.create_task_group() as tasks:
            await pump.put(message(1), message(2))

            async def kill() -> None:
                await _arrived(cloud, 1)
                os.kill(os.getpid(), signal.SIGTERM)
                while not pump.is_stopping:  # noqa: ASYNC110 - what is looked at is not the test's
                    await anyio.sleep(0.001)
                os.kill(os.getpid(), signal.SIGINT)

            tasks.start_soon(kill)
            assert await run_until_signalled(pump) is signal.SIGTERM
    counts = await store.outbox.counts(ACCOUNT)
    assert (counts.accepted, counts.waiting, counts.begun) == (0, 2, 0)


@pytest.mark.parametrize("anyio_backend", [ASYNCIO])
async def test_work_that_is_done_or_fails_ends_the_waiting_for_signals() -> None:
    async def fail() -> None:
        raise LookupError

    with anyio.fail_after(5):
        async with pumping(FakeCloud(), MemoryStore()) as pump:
            await pump.put(message(1))
            assert await run_until_signalled(pump, pump.drained) is None
            assert pump.stats.accepted == 1
            with pytest.raises(LookupError):
                await run_until_signalled(pump, fail)


# --- leases --------------------------------------------------------------------------------------------------------


async def test_leases_are_renewed_while_a_message_is_under_way() -> None:
    store, cloud = new_store(), ParkedCloud()
    with anyio.fail_after(600):
        async with pumping(cloud, store, lease=3.0) as pump:
            await pump.put(message(1))
            await _arrived(cloud, 1)
            await anyio.sleep(12)
            assert await store.outbox.claim(ACCOUNT, owner="rival", lease=9.0, limit=1) == []
            cloud.open.set()
            await pump.drained()
            assert pump.stats.lease_lost == 0
    assert not (await entry_of(store, 1)).maybe_duplicate


async def test_nothing_is_sent_past_a_lease_that_cannot_be_renewed() -> None:
    """The other pump may send it by then."""
    store, cloud = new_store(), ParkedCloud()
    outbox = BrittleOutbox(store.outbox)
    with anyio.fail_after(600):
        async with pumping(cloud, store, outbox=outbox, lease=9.0) as pump:
            await pump.put(message(1), message(2))
            await _arrived(cloud, 1)
            outbox.down = {"renew", "advance", "claim"}
            await anyio.sleep(9.5)
            assert pump.stats.unwritten == 1
            [rival] = await store.outbox.claim(ACCOUNT, owner="rival", lease=90.0, limit=1)
            assert rival.was_begun
            outbox.down = set()
            await anyio.sleep(10)
            assert pump.stats.lease_lost == 1
            assert pump.stats.retried == pump.stats.accepted == 0
    assert (await entry_of(store, 1)).state is MessageState.BEGUN
    assert not cloud.accepted["shopper-1"]


async def test_a_lane_that_another_pump_has_taken_is_not_sent_on() -> None:
    store, cloud = new_store(), ParkedCloud()
    with anyio.fail_after(600):
        async with pumping(cloud, store, lease=9.0) as pump:
            await pump.put(message(1), message(2), message(1, "other"))
            await _arrived(cloud, 2)
            # As if this process had been paused beyond its lease.
            store.outbox._lanes[ACCOUNT, "shopper"].free_at = 0.0
            await store.outbox.claim(ACCOUNT, owner="rival", lease=90.0, limit=1)
            await anyio.sleep(4)
            cloud.open.set()
            await anyio.sleep(4)
            assert pump.stats.lease_lost == 1
            assert pump.stats.accepted == 1
            assert (await pump.report()).lease_lost == 1
    assert (await entry_of(store, 1)).state is MessageState.BEGUN


async def test_a_lane_whose_lease_ran_out_unnoticed_is_not_sent_twice_at_once() -> None:
    """A process that was paused may be the first to claim its own lane again."""
    store, cloud = new_store(), ParkedCloud()
    with anyio.fail_after(600):
        async with pumping(cloud, store) as pump:
            await pump.put(message(1))
            await _arrived(cloud, 1)
            store.outbox._lanes[ACCOUNT, "shopper"].free_at = 0.0
            await anyio.sleep(5)
            assert pump.stats.lease_lost >= 1
            cloud.open.set()
            await pump.drained()
    entry = await entry_of(store, 1)
    assert (entry.state, entry.maybe_duplicate) == (MessageState.ACCEPTED, True)
    assert cloud.accepted["shopper-1"] == 1


async def test_an_end_that_comes_after_the_lane_was_lost_is_refused_and_counted() -> None:
    store, cloud = new_store(), ParkedCloud()
    with anyio.fail_after(600):
        async with pumping(cloud, store, lease=90.0) as pump:
            await pump.put(message(1))
            await _arrived(cloud, 1)
            for lane in store.outbox._lanes.values():
                lane.free_at = 0.0
            [rival] = await store.outbox.claim(ACCOUNT, owner="rival", lease=1000.0, limit=1)
            cloud.open.set()
            await anyio.sleep(1)
            assert (pump.stats.accepted, pump.stats.lease_lost) == (0, 1)
            assert await store.outbox.release(ACCOUNT, [rival]) == 1
            await pump.drained()
    entry = await entry_of(store, 1)
    assert (entry.state, entry.maybe_duplicate) == (MessageState.ACCEPTED, True)


async def test_a_claim_that_came_too_late_is_given_back() -> None:
    """The outbox took longer than the lease."""
    store, cloud = new_store(), FakeCloud()
    outbox = BrittleOutbox(store.outbox)
    outbox.delay = 3.0
    with anyio.fail_after(600):
        async with pumping(cloud, store, outbox=outbox, lease=2.0) as pump:
            await pump.put(message(1))
            await anyio.sleep(20)
            outbox.delay = 0.0
            await pump.drained()
            assert pump.stats.accepted == 1
            assert pump.stats.released + pump.stats.lease_lost >= 1
    assert cloud.accepted["shopper-1"] == 1


# --- a store that fails --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [StoreUnavailable("the disk is full"), LookupError("c4nary")], ids=["ours", "other"]
)
async def test_a_store_that_fails_for_a_while_loses_and_doubles_nothing(error: Exception) -> None:
    store, cloud = new_store(), ParkedCloud()
    outbox = BrittleOutbox(store.outbox)
    outbox.error = error
    with anyio.fail_after(600):
        async with pumping(cloud, store, outbox=outbox) as pump:
            await pump.put(*[message(n, consumer) for consumer in "ab" for n in range(3)])
            await _arrived(cloud, 2)
            outbox.down = {"*"}
            cloud.open.set()
            await anyio.sleep(30)
            report = await pump.report()
            assert report.store_failure is not None
            assert "c4nary" not in report.store_failure
            assert report.stats.unwritten == 2
            with pytest.raises(type(error)):
                await pump.put(message(9))
            outbox.down = set()
            await pump.drained()
            report = await pump.report()
    assert report.store_failure is None
    assert report.stats.store_failures > 0
    assert (report.counts.accepted, report.counts.maybe_duplicate) == (6, 0)
    assert set(cloud.accepted.values()) == {1}


async def test_a_store_that_never_comes_back_does_not_hold_the_exit(caplog: pytest.LogCaptureFixture) -> None:
    store, cloud = new_store(), ParkedCloud()
    outbox = BrittleOutbox(store.outbox)
    begun = anyio.current_time()
    with anyio.fail_after(600):
        async with pumping(cloud, store, outbox=outbox) as pump:
            await pump.put(message(1))
            await _arrived(cloud, 1)
            outbox.down = {"*"}
            cloud.open.set()
            await pump.stop(1.0)
    assert anyio.current_time() - begun < 60
    assert "could not be written down" in caplog.text
    assert (await entry_of(store, 1)).state is MessageState.BEGUN


async def test_a_store_that_hangs_is_taken_for_one_that_fails() -> None:
    store, cloud = new_store(), FakeCloud()
    outbox = BrittleOutbox(store.outbox)
    with anyio.fail_after(600):
        async with pumping(cloud, store, outbox=outbox) as pump:
            await anyio.sleep(1)
            outbox.delay = 10_000.0
            await anyio.sleep(30)
            assert pump.stats.store_failures > 0
            outbox.delay = 0.0
            await pump.put(message(1))
            await anyio.sleep(30)
            assert pump.stats.accepted == 1


async def test_what_cannot_be_given_back_at_first_is_given_back_later() -> None:
    store, cloud = new_store(), FakeCloud()
    outbox = BrittleOutbox(store.outbox)
    outbox.delay = 3.0
    with anyio.fail_after(600):
        async with pumping(cloud, store, outbox=outbox, lease=2.0) as pump:
            await pump.put(message(1))
            outbox.down = {"release"}
            await anyio.sleep(10)
            assert pump.stats.unwritten
            outbox.down, outbox.delay = set(), 0.0
            await pump.drained()
    assert (await entry_of(store, 1)).state is MessageState.ACCEPTED


# --- backpressure --------------------------------------------------------------------------------------------------


@pytest.mark.no_cover
@pytest.mark.requirement("P7")
@pytest.mark.parametrize("hours", [4, pytest.param(24, marks=pytest.mark.soak)])
async def test_p7_a_fast_source_is_read_no_faster_than_the_outbox_has_room(hours: int) -> None:
    """A day of a source that is ten times faster than the cloud: what is in memory stays bounded."""
    until = hours * 3600.0
    store = new_store(max_entries=100)
    cloud = OrderCloud(latency=10.0)
    read, most, ages = 0, 0, list[float]()

    async def source() -> AsyncIterator[PumpMessage]:
        nonlocal read, most
        while anyio.current_time() < until:
            read += 1
            most = max(most, read - pump.stats.accepted)
            yield message(read, f"consumer-{read % 10}")
            await anyio.sleep(1.0)

    async def watch() -> None:
        while True:
            age = (await pump.report()).oldest_age
            assert age is None or age <= anyio.current_time()
            ages.append(age or 0.0)
            await anyio.sleep(600)

    async with pumping(cloud, store, concurrency=1) as pump, anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        assert await pump.feed(source()) == read
        await pump.drained()
        tasks.cancel_scope.cancel()
    # The outbox, one batch of the reader, and what is under way.
    assert most <= 100 + 500 + 1 + 1
    assert pump.stats.accepted == read >= until / 10 * 0.9
    # With 100 of them waiting and one let go every ten seconds, the oldest has waited about 1,000 s, not a day.
    assert 500 < max(ages) < 2_000


async def test_an_iterable_is_fed_in_batches_and_waits_while_the_outbox_is_full() -> None:
    store, cloud = new_store(max_entries=100), FakeCloud()
    read: list[int] = []

    def source() -> Iterator[PumpMessage]:
        for number in range(2_000):
            read.append(number)
            assert number - pump.stats.accepted <= 100 + 500 + 1
            yield message(number)

    with anyio.fail_after(600):
        async with pumping(cloud, store) as pump:
            assert await pump.feed(source()) == 2_000
            await pump.drained()
    assert texts(cloud.message_posts) == [f"text {number}" for number in range(2_000)]


async def test_what_was_put_before_counts_as_known_when_it_is_fed_again() -> None:
    with anyio.fail_after(60):
        async with pumping(FakeCloud()) as pump:
            await pump.put(message(1))
            assert await pump.feed([message(1), message(2)]) == 1


async def test_what_has_come_is_put_while_the_source_lets_us_wait() -> None:
    cloud = FakeCloud()

    async def source() -> AsyncIterator[PumpMessage]:
        yield message(1)
        await anyio.sleep(1000)
        yield message(2)

    with anyio.fail_after(2000):
        async with pumping(cloud) as pump, anyio.create_task_group() as tasks:
            tasks.start_soon(pump.feed, source())
            await anyio.sleep(500)
            assert pump.stats.accepted == 1


async def test_the_error_of_a_source_is_raised_when_what_was_read_is_put() -> None:
    async def source() -> AsyncIterator[PumpMessage]:
        yield message(1)
        yield message(2)
        raise LookupError

    with anyio.fail_after(60):
        async with pumping(FakeCloud()) as pump:
            with pytest.raises(LookupError):
                await pump.feed(source())
            assert pump.stats.put == 2


async def test_feeding_ends_when_the_pump_stops() -> None:
    async def source() -> AsyncIterator[PumpMessage]:
        yield message(1)
        await anyio.sleep_forever()

    with anyio.fail_after(60):
        async with pumping(FakeCloud()) as pump, anyio.create_task_group() as tasks:
            tasks.start_soon(pump.feed, source())
            await _settled(pump, 1)
            await pump.stop()


async def test_feeding_waits_for_a_store_that_fails() -> None:
    store, cloud = new_store(), FakeCloud()
    outbox = BrittleOutbox(store.outbox)
    with anyio.fail_after(60):
        async with pumping(cloud, store, outbox=outbox) as pump, anyio.create_task_group() as tasks:
            outbox.down = {"put"}
            tasks.start_soon(pump.feed, [message(1)])
            await anyio.sleep(5)
            assert pump.stats.put == 0
            outbox.down = set()
            await _settled(pump, 1)


async def test_no_more_lanes_are_claimed_than_workers_are_free() -> None:
    store, cloud = new_store(), ParkedCloud()
    with anyio.fail_after(60):
        async with pumping(cloud, store, concurrency=3) as pump:
            await pump.put(*[message(0, f"consumer-{n}") for n in range(10)])
            await _arrived(cloud, 3)
            await anyio.sleep(5)
            counts = await store.outbox.counts(ACCOUNT)
            assert (counts.begun, counts.waiting, pump.stats.in_flight) == (3, 7, 3)
            cloud.open.set()
            await pump.drained()
            assert pump.stats.accepted == 10


# --- other loops ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("anyio_backend", ASYNCIO_AND_TRIO)
async def test_the_pump_runs_on_trio_too() -> None:
    store, cloud = MemoryStore(), OrderCloud(faults=0.2)
    policy = PumpPolicy(first_backoff=0.01)
    with anyio.fail_after(5):
        async with pumping(cloud, store, policy=policy) as pump:
            assert await pump.put(message(1), message(2)) == [PutResult.ADDED] * 2
            await pump.drained()
            assert pump.stats.accepted == 2


async def test_the_children_that_enter_a_pump_of_before_the_fork_are_two_owners(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As one they were dead with the first of them: what the other had under way was taken from it and sent twice."""
    store, cloud = new_store(), FakeCloud()
    async with session_of(cloud, store) as session:
        pump = Pump(session, store)
        owners: set[str] = set()
        for child, number in ((copy(pump), 7), (copy(pump), 8)):
            monkeypatch.setattr("os.getpid", lambda number=number: number)
            child._keeper = copy(pump._keeper)
            async with child:
                owners.add(child._keeper.owner)
    assert {owner.split("/")[1] for owner in owners} == {"7", "8"}


async def test_an_end_whose_answer_got_lost_is_told_as_written_down() -> None:
    """A connection that breaks at the COMMIT: told again, the end seemed to be another pump's business."""

    class LosesAnswers(BrittleOutbox):
        async def advance(
            self, account_id: str, settlements: Sequence[tuple[Claim, Settlement]], *, lease: float
        ) -> list[Advance]:
            answers = await super().advance(account_id, settlements, lease=lease)
            if self.calls["advance"] == 1:
                raise StoreUnavailable("the connection broke")
            return answers

    def tell(claim: Claim, end: Settlement) -> None:
        told.append((claim.message.id, end.state))

    store, cloud, told = new_store(), OrderCloud(), list[tuple[str, MessageState]]()
    outbox = LosesAnswers(store.outbox)
    with anyio.fail_after(600):
        async with pumping(cloud, store, outbox=outbox, lease=9.0, on_settled=tell) as pump:
            await pump.put(message(1), message(2))
            await pump.drained()
            assert (pump.stats.accepted, pump.stats.lease_lost, pump.stats.store_failures) == (2, 0, 1)
    assert told == [("shopper-1", MessageState.ACCEPTED), ("shopper-2", MessageState.ACCEPTED)]
    assert cloud.landed["shopper"] == ["text 1", "text 2"]
