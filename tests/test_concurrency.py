"""`_concurrency.py`: the same slots, clocks and timers on asyncio, uvloop and trio."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable
from functools import partial
from typing import cast

import anyio
import pytest
import trio
import trio.testing
from anyio import wait_all_tasks_blocked
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from connector_async import _concurrency
from connector_async._concurrency import Clock, Slot, TimerHandle, current_clock
from connector_async.errors import NotSent
from tests.backends import ASYNCIO_AND_TRIO, EVERY_LOOP, VIRTUAL

every_loop = pytest.mark.parametrize("anyio_backend", EVERY_LOOP)
virtual_time = pytest.mark.parametrize(
    "anyio_backend",
    [VIRTUAL, pytest.param(("trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}), id="virtual-trio")],
)

pytestmark = pytest.mark.anyio


async def _outcome(slot: Slot, into: list[object]) -> None:
    try:
        await slot
    except NotSent as error:
        into.append(error)
    else:
        into.append("settled")


# Slots


@every_loop
async def test_a_waiter_goes_on_when_its_slot_is_settled(anyio_backend: object) -> None:
    """our style 5.2."""
    outcomes: list[object] = []
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tg:
            slot = current_clock(tg).slot()
            tg.start_soon(_outcome, slot, outcomes)
            await wait_all_tasks_blocked()
            assert outcomes == []
            slot.settle()
    assert outcomes == ["settled"]


@every_loop
async def test_a_waiter_gets_the_error_that_its_slot_failed_with(anyio_backend: object) -> None:
    """our style 5.3: closing settles every waiter with an error."""
    outcomes: list[object] = []
    error = NotSent("closed")
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tg:
            slot = current_clock(tg).slot()
            tg.start_soon(_outcome, slot, outcomes)
            await wait_all_tasks_blocked()
            slot.fail(error)
    assert outcomes == [error]


@every_loop
@pytest.mark.parametrize("first", ["settle", "fail"])
async def test_the_first_outcome_counts_and_later_ones_are_ignored(anyio_backend: object, first: str) -> None:
    """A timeout and an answer may come in the same tick."""
    error, later = NotSent("first"), NotSent("later")
    outcomes: list[object] = []
    async with anyio.create_task_group() as tg:
        slot = current_clock(tg).slot()
        slot.settle() if first == "settle" else slot.fail(error)
        slot.fail(later)
        slot.settle()
        slot.fail(later)
        with anyio.fail_after(5):
            await _outcome(slot, outcomes)
    assert outcomes == ["settled" if first == "settle" else error]


@every_loop
async def test_many_waiters_parked_at_once_each_get_their_own_outcome(anyio_backend: object) -> None:
    """our style 7: park all, release in reverse, see who got what."""
    order: list[int] = []
    async with anyio.create_task_group() as tg:
        clock = current_clock(tg)
        slots = [clock.slot() for _ in range(50)]

        async def wait(number: int) -> None:
            await slots[number]
            order.append(number)

        for number in range(50):
            tg.start_soon(wait, number)
        await wait_all_tasks_blocked()
        assert order == []
        with anyio.fail_after(5):
            for number in reversed(range(50)):
                slots[number].settle()
                await wait_all_tasks_blocked()
    assert order == list(reversed(range(50)))


@every_loop
async def test_a_waiter_that_is_cancelled_by_scope_leaves_a_slot_that_can_still_be_settled(
    anyio_backend: object,
) -> None:
    """our style 5.4: cancellation surfaces; whoever settles later must not be hurt by it."""
    async with anyio.create_task_group() as tg:
        slot = current_clock(tg).slot()
        with anyio.CancelScope() as scope:
            scope.cancel()
            await slot
        assert scope.cancelled_caught
        slot.settle()
        slot.fail(NotSent())


async def test_a_waiter_that_is_cancelled_natively_leaves_a_slot_that_can_still_be_settled() -> None:
    """C12: `task.cancel()` as well as scopes."""
    async with anyio.create_task_group() as tg:
        slot = current_clock(tg).slot()
        task = asyncio.ensure_future(_outcome(slot, []))
        await wait_all_tasks_blocked()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        slot.settle()
        slot.fail(NotSent())


@every_loop
async def test_failed_slots_that_nobody_awaits_print_nothing(
    anyio_backend: object, caplog: pytest.LogCaptureFixture
) -> None:
    """Rule 14: futures failed in bulk print "exception was never retrieved" by the hundred."""
    async with anyio.create_task_group() as tg:
        clock = current_clock(tg)
        for _ in range(100):
            clock.slot().fail(NotSent())
    gc.collect()
    await checkpoint()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


# Clocks and timers


@pytest.mark.parametrize("anyio_backend", ASYNCIO_AND_TRIO)
async def test_the_clock_is_the_loops_own(anyio_backend: str) -> None:
    """our style 2: seconds on the event loop's clock, as `anyio.current_time()` counts them."""
    async with anyio.create_task_group() as tg:
        clock = current_clock(tg)
        before = anyio.current_time()
        assert before <= clock.time() <= anyio.current_time()
        expected = {"asyncio": _concurrency._AsyncioClock, "trio": _concurrency._PortableClock}[anyio_backend]
        assert type(clock) is expected


def test_outside_of_a_task_the_asyncio_loop_is_not_taken_for_granted() -> None:
    """Trio in guest mode runs in callbacks of an asyncio loop: its clock is trio's."""
    found: list[Clock] = []

    async def main() -> None:
        no_group = cast(TaskGroup, None)
        asyncio.get_running_loop().call_soon(lambda: found.append(current_clock(no_group)))
        found.append(current_clock(no_group))
        await asyncio.sleep(0)

    asyncio.run(main())
    assert [type(clock) for clock in found] == [_concurrency._AsyncioClock, _concurrency._PortableClock]


@virtual_time
async def test_timers_fire_once_each_at_their_time_in_order(anyio_backend: object) -> None:
    """Whatever order they were set in."""
    fired: list[tuple[str, float]] = []
    async with anyio.create_task_group() as tg:
        clock = current_clock(tg)
        start = clock.time()

        def note(name: str) -> Callable[[], None]:
            return lambda: fired.append((name, round(clock.time() - start, 3)))

        clock.call_at(start + 3600.0, note("hour"))
        clock.call_at(start + 2.0, note("second"))
        clock.call_at(start + 1.0, note("first"))
        clock.call_at(start - 5.0, note("overdue"))
        await anyio.sleep(4000)
    assert fired == [("overdue", 0.0), ("first", 1.0), ("second", 2.0), ("hour", 3600.0)]


@virtual_time
async def test_a_cancelled_timer_does_not_fire_and_keeps_nobody_waiting(anyio_backend: object) -> None:
    """The deadline of a request that was answered is cancelled."""
    fired: list[str] = []
    began = anyio.current_time()
    async with anyio.create_task_group() as tg:
        clock = current_clock(tg)
        start = clock.time()
        at_once = clock.call_at(start + 1.0, lambda: fired.append("at once"))
        at_once.cancel()
        at_once.cancel()
        later = clock.call_at(start + 3.0, lambda: fired.append("later"))
        await anyio.sleep(2)
        later.cancel()
    assert anyio.current_time() < began + 3.0
    assert fired == []
    await anyio.sleep(5)
    assert fired == []


@virtual_time
async def test_a_timer_cancelled_after_it_has_fired_is_harmless(anyio_backend: object) -> None:
    """Every path out of a wait cancels its timer."""
    fired: list[str] = []
    async with anyio.create_task_group() as tg:
        clock = current_clock(tg)
        timer = clock.call_at(clock.time() + 1.0, lambda: fired.append("fired"))
        await anyio.sleep(2)
        timer.cancel()
        timer.cancel()
        await anyio.sleep(2)
    assert fired == ["fired"]


@virtual_time
async def test_of_two_timers_due_together_that_cancel_each_other_one_fires(anyio_backend: object) -> None:
    """A timer that is due is not yet one that has fired."""
    fired: list[int] = []
    async with anyio.create_task_group() as tg:
        clock = current_clock(tg)
        for _ in range(20):
            due = clock.time() + 1.0
            timers: list[TimerHandle] = []

            def fire(own: int, timers: list[TimerHandle]) -> None:
                fired.append(own)
                timers[1 - own].cancel()

            timers += [clock.call_at(due, partial(fire, number, timers)) for number in (0, 1)]
            await anyio.sleep(2)
    assert len(fired) == 20


@virtual_time
async def test_a_timer_and_a_settled_slot_make_a_wait_with_a_deadline(anyio_backend: object) -> None:
    """How the gate waits: whichever comes first is the outcome."""
    outcomes: list[object] = []
    late = NotSent("late")
    async with anyio.create_task_group() as tg:
        clock = current_clock(tg)
        for settled_after, deadline in ((1.0, 5.0), (5.0, 1.0)):
            slot = clock.slot()
            timer = clock.call_at(clock.time() + deadline, partial(slot.fail, late))
            settler = clock.call_at(clock.time() + settled_after, slot.settle)
            await _outcome(slot, outcomes)
            timer.cancel()
            settler.cancel()
    assert outcomes == ["settled", late]


async def _closing_with_timers() -> list[str]:
    fired: list[str] = []
    async with anyio.create_task_group() as tg:
        clock = current_clock(tg)
        timers = [clock.call_at(clock.time() + 3600.0, lambda: fired.append("fired")) for _ in range(10)]
        await wait_all_tasks_blocked()
        for timer in timers:
            timer.cancel()
        tg.cancel_scope.cancel()
    return fired


@every_loop
async def test_pending_timers_do_not_hold_up_the_end_of_their_task_group(anyio_backend: object) -> None:
    """our style 5.1: every task lives in a group that some `async with` closes."""
    with anyio.fail_after(5):
        assert await _closing_with_timers() == []
