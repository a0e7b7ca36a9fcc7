"""`_concurrency.py`, `SingleFlight` and `twin`: one run for however many wait."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, cast

import anyio
import pytest
from anyio import wait_all_tasks_blocked
from anyio.abc import TaskGroup

from connector_async._concurrency import SingleFlight, current_clock, twin
from connector_async.errors import NotSent, SessionClosed, TokenUnavailable
from tests.backends import EVERY_LOOP

every_loop = pytest.mark.parametrize("anyio_backend", EVERY_LOOP)

pytestmark = pytest.mark.anyio


class _Work:
    """Counts its runs and waits until told to end."""

    def __init__(self, error: Exception | None = None) -> None:
        self.runs = 0
        self.may_end = anyio.Event()
        self.error = error

    async def __call__(self) -> int:
        self.runs += 1
        run = self.runs
        await self.may_end.wait()
        if self.error is not None:
            raise self.error
        return run


class _Made(list[SingleFlight]):
    """Keeps what was made within a task group, to be looked at after it."""

    def make(self, tg: TaskGroup) -> SingleFlight:
        self.append(SingleFlight(tg, current_clock(tg), lambda: SessionClosed("the session closed")))
        return self[-1]

    def is_empty(self) -> bool:
        return [len(flights) for flights in self] == [0]


async def _ask(flights: SingleFlight, key: str, work: Callable[[], Awaitable[int]], into: list[object]) -> None:
    try:
        into.append(await flights.run(key, work))
    except (TokenUnavailable, SessionClosed, ValueError) as error:
        into.append(error)


@every_loop
async def test_however_many_wait_there_is_one_run(anyio_backend: object) -> None:
    """our style 5.6: one refresh for all."""
    made = _Made()
    outcomes: list[object] = []
    work = _Work()
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tg:
            flights = made.make(tg)
            for _ in range(100):
                tg.start_soon(_ask, flights, "key", work, outcomes)
            await wait_all_tasks_blocked()
            assert (work.runs, outcomes, len(flights)) == (1, [], 1)
            work.may_end.set()
    assert outcomes == [1] * 100
    assert made.is_empty()


async def test_who_comes_when_the_work_has_just_ended_goes_on_behind_those_who_waited() -> None:
    """They have been told, but have not had their turn; what failed is tried anew."""
    for error in (None, TokenUnavailable("no token")):
        made = _Made()
        order: list[str] = []

        async def ask(flights: SingleFlight, name: str, work: _Work, order: list[str] = order) -> None:
            with contextlib.suppress(TokenUnavailable):
                await flights.run("key", work)
            order.append(name)

        work = _Work(error)
        with anyio.fail_after(5):
            async with anyio.create_task_group() as tg:
                flights = made.make(tg)
                for number in range(3):
                    tg.start_soon(ask, flights, f"waited {number}", work)
                await wait_all_tasks_blocked()
                work.may_end.set()  # wakes the work, and behind it in the same turn starts the one who comes late
                tg.start_soon(ask, flights, "late", work)
        assert order == ["waited 0", "waited 1", "waited 2", "late"]
        assert work.runs == (1 if error is None else 2)
        assert made.is_empty()


async def test_work_for_nobody_starts_anew_when_that_before_it_has_just_ended() -> None:
    """It may have been asked for because of how the other ended."""
    made = _Made()
    work = _Work()
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tg:
            flights = made.make(tg)
            tg.start_soon(_ask, flights, "key", work, [])
            await wait_all_tasks_blocked()
            assert flights.is_under_way("key")
            work.may_end.set()
            tg.start_soon(_start, flights, work)
    assert work.runs == 2
    assert made.is_empty()


async def _start(flights: SingleFlight, work: _Work) -> None:
    flights.start("key", work)


@every_loop
async def test_each_key_has_a_flight_of_its_own_and_a_later_call_starts_anew(anyio_backend: object) -> None:
    """A consumer's token is not another consumer's."""
    made = _Made()
    outcomes: list[object] = []
    work, other = _Work(), _Work()
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tg:
            flights = made.make(tg)
            tg.start_soon(_ask, flights, "a", work, outcomes)
            tg.start_soon(_ask, flights, "b", other, outcomes)
            await wait_all_tasks_blocked()
            assert len(flights) == 2
            work.may_end.set()
            other.may_end.set()
            await wait_all_tasks_blocked()
            await _ask(flights, "a", work, outcomes)
    assert outcomes == [1, 1, 2]


@every_loop
async def test_a_waiter_that_is_cancelled_does_not_cancel_the_others_work(anyio_backend: object) -> None:
    """Issue 3.3: a cancelled waiter never cancels the refresh."""
    made = _Made()
    outcomes: list[object] = []
    work = _Work()
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tg:
            flights = made.make(tg)
            async with anyio.create_task_group() as first:
                first.start_soon(_ask, flights, "key", work, outcomes)
                await wait_all_tasks_blocked()
                first.cancel_scope.cancel()
            assert (work.runs, len(flights)) == (1, 1)
            tg.start_soon(_ask, flights, "key", work, outcomes)
            await wait_all_tasks_blocked()
            work.may_end.set()
    assert outcomes == [1]
    assert work.runs == 1
    assert made.is_empty()


@every_loop
async def test_when_the_work_fails_each_waiter_gets_a_copy_of_its_own(anyio_backend: object) -> None:
    """Ours: one object raised to a thousand waiters collects a thousand tracebacks."""
    made = _Made()
    outcomes: list[Any] = []
    cause = OSError("refused")
    error = TokenUnavailable("no token", retry_after=3.0)
    error.__cause__ = cause
    work = _Work(error)
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tg:
            flights = made.make(tg)
            for _ in range(10):
                tg.start_soon(_ask, flights, "key", work, outcomes)
            await wait_all_tasks_blocked()
            work.may_end.set()
    assert len({id(outcome) for outcome in [*outcomes, error]}) == 11
    assert {(type(outcome), outcome.retry_after, outcome.__cause__) for outcome in outcomes} == {
        (TokenUnavailable, 3.0, cause)
    }
    assert made.is_empty()


@every_loop
async def test_waiters_elsewhere_learn_of_the_close_when_the_task_group_is_cancelled(anyio_backend: object) -> None:
    """our style 5.3: nobody waits for a flight that was cut off."""
    made = _Made()
    outcomes: list[object] = []
    work = _Work()
    with anyio.fail_after(5):
        async with anyio.create_task_group() as callers, anyio.create_task_group() as tg:
            flights = made.make(tg)
            for _ in range(3):
                callers.start_soon(_ask, flights, "key", work, outcomes)
            await wait_all_tasks_blocked()
            tg.cancel_scope.cancel()
    assert [type(outcome) for outcome in outcomes] == [SessionClosed] * 3
    assert made.is_empty()


@every_loop
async def test_a_flight_that_starts_as_the_group_is_cancelled_is_cut_off_too(anyio_backend: object) -> None:
    """A race at the close: the task exists, but has not run yet."""
    made = _Made()
    outcomes: list[object] = []
    work = _Work()
    with anyio.fail_after(5):
        async with anyio.create_task_group() as callers, anyio.create_task_group() as tg:
            flights = made.make(tg)
            tg.cancel_scope.cancel()
            callers.start_soon(_ask, flights, "key", work, outcomes)
            with anyio.CancelScope(shield=True):
                await wait_all_tasks_blocked()
    assert [type(outcome) for outcome in outcomes] == [SessionClosed]
    assert made.is_empty()


@every_loop
async def test_a_flight_cannot_be_started_once_the_group_is_closed_and_nothing_stays_behind(
    anyio_backend: object,
) -> None:
    """Locks a bug: the flight stayed in the table, and whoever asked next waited for ever."""
    made = _Made()
    async with anyio.create_task_group() as tg:
        made.make(tg)
    with anyio.fail_after(5):
        for _ in range(2):
            with pytest.raises(SessionClosed):
                await made[0].run("key", _Work())
            with pytest.raises(SessionClosed):
                made[0].start("key", _Work())
    assert made.is_empty()


@every_loop
@pytest.mark.parametrize("error", [None, ValueError("broken")], ids=["works", "fails"])
async def test_work_started_for_nobody_is_done_once_and_whoever_asks_meanwhile_joins_it(
    anyio_backend: object, error: Exception | None
) -> None:
    """A refresh ahead of time: its failure hurts nobody who did not ask."""
    made = _Made()
    outcomes: list[object] = []
    alone, work = _Work(error), _Work(error)
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tg:
            flights = made.make(tg)
            flights.start("alone", alone)
            alone.may_end.set()
            for _ in range(3):
                flights.start("key", work)
            await wait_all_tasks_blocked()
            assert (alone.runs, work.runs, len(flights)) == (1, 1, 1)
            tg.start_soon(_ask, flights, "key", work, outcomes)
            await wait_all_tasks_blocked()
            work.may_end.set()
    assert work.runs == 1
    assert [repr(outcome) for outcome in outcomes] == [repr(error or 1)]
    assert made.is_empty()


class _EagerGroup:
    """Runs a task up to its end at once, as an eager task factory (Python 3.12) does with one that never waits."""

    def start_soon(self, function: Callable[..., Any], *args: object) -> None:
        with pytest.raises(StopIteration):
            function(*args).send(None)


async def test_a_flight_that_is_over_before_it_was_waited_for_still_has_a_result() -> None:
    """Locks a bug: with an eager task factory the waiter came too late and waited for ever."""

    async def work() -> int:
        return 7

    async with anyio.create_task_group() as tg:
        flights = SingleFlight(cast(TaskGroup, _EagerGroup()), current_clock(tg), SessionClosed)
        with anyio.fail_after(5):
            assert await flights.run("key", work) == 7
        assert len(flights) == 0


# Twins


def test_a_twin_is_the_same_error_with_the_same_cause_and_no_traceback() -> None:
    """Ours."""
    error = NotSent("it failed", request_id="id-1")
    error.__cause__ = OSError("refused")
    other = twin(error)
    assert other is not error
    assert (type(other), str(other), other.__cause__) == (NotSent, str(error), error.__cause__)
    assert other.__suppress_context__
    assert other.__traceback__ is None


class _Foreign(Exception):
    """Cannot be copied: its initializer wants a keyword, as httpx.HTTPStatusError does."""

    def __init__(self, message: str, *, response: object) -> None:
        super().__init__(message)
        self.response = response


def test_an_error_that_cannot_be_copied_is_its_own_twin() -> None:
    """Locks a bug: TypeError in the flight's `finally` left all waiters waiting."""
    error = _Foreign("refused", response=None)
    assert twin(error) is error


async def test_waiters_go_on_in_the_order_in_which_they_came() -> None:
    """Texts that wait for one conversation to be opened are sent in the order of the calls."""
    went: list[int] = []
    async with anyio.create_task_group() as tasks:
        flights = SingleFlight(tasks, current_clock(tasks), lambda: RuntimeError("closed"))

        async def wait(number: int) -> None:
            await flights.run("key", lambda: anyio.sleep(0.01))
            went.append(number)

        for number in range(200):
            tasks.start_soon(wait, number)
    assert went == list(range(200))
