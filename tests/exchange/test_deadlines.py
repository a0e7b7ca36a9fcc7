"""One total deadline; the error says where the time went."""

from __future__ import annotations

import itertools

import anyio
import pytest

from connector_async.errors import DeadlineExceeded, Landed, OutcomeUnknown
from connector_async.transport.base import Answer
from tests.doubles import Post, answer, lost
from tests.exchange.rig import rig

pytestmark = pytest.mark.anyio


async def hang(_post: Post) -> Answer:
    await anyio.sleep_forever()
    raise AssertionError


async def test_while_it_waits_for_its_turn() -> None:
    """Queued: nothing was sent."""
    async with rig(width=1) as r:
        await r.send("warm")
        r.cloud.on_message = hang
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(r.outcome, "d1")
            await anyio.sleep(0.1)
            started = anyio.current_time()
            error = await r.outcome("d2", timeout=2.0)
            assert anyio.current_time() - started == pytest.approx(2.0)
            assert isinstance(error, DeadlineExceeded)
            assert (error.landed, error.retryable, error.attempts) == (Landed.NO, True, ())
            assert error.stages == {"queued": pytest.approx(2.0), "token": 0.0, "sending": 0, "backing_off": 0.0}
            assert "waited for its turn (queued 2.0 s)" in str(error)
            tasks.cancel_scope.cancel()
        assert error.__cause__ is None


async def test_behind_another_of_its_dialog() -> None:
    """Its lane is its turn too."""
    async with rig() as r:
        await r.send("warm")
        r.cloud.on_message = hang
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(r.outcome, "d1")
            await anyio.sleep(0.1)
            error = await r.outcome("d1", timeout=2.0)
            assert isinstance(error, DeadlineExceeded)
            assert error.landed is Landed.NO
            tasks.cancel_scope.cancel()


async def test_while_the_answer_is_awaited() -> None:
    """Sent: the outcome is unknown; the attempt ends with the request."""
    async with rig() as r:
        await r.send("warm")
        r.cloud.on_message = hang
        error = await r.outcome(timeout=4.0)
        assert isinstance(error, DeadlineExceeded)
        assert (error.landed, error.retryable, len(error.attempts)) == (Landed.UNKNOWN, False, 1)
        assert error.stages["sending"] == pytest.approx(4.0)
        assert "sending 4.0 s" in str(error)
        assert "may have landed" in error.hint
        assert r.engine.counters.unknown == 1


async def test_one_attempt_does_not_take_all_the_time_there_is() -> None:
    """15 s for one answer, then the next attempt."""
    async with rig() as r:
        await r.send("warm")
        r.cloud.script = [hang]
        response = await r.send()
        assert response.attempts[0].duration == pytest.approx(15.0)
        assert response.maybe_duplicate


async def test_a_next_attempt_that_would_come_too_late_is_not_waited_for() -> None:
    """It stops now, with the time that is left unspent."""
    async with rig() as r:
        await r.send("warm")
        r.cloud.script = [answer(503)]
        started = anyio.current_time()
        error = await r.outcome(timeout=3.0)
        assert anyio.current_time() == started
        assert isinstance(error, OutcomeUnknown)
        assert "after the deadline" in str(error)


async def test_while_its_width_is_awaited_for_the_next_attempt() -> None:
    """After the pause others may hold the width."""
    async with rig(width=1) as r:
        await r.send("warm")
        r.cloud.script = [lost(), hang]
        async with anyio.create_task_group() as tasks:

            async def first() -> None:
                error = await r.outcome("d1", timeout=5.0)
                assert isinstance(error, DeadlineExceeded)
                assert error.landed is Landed.UNKNOWN
                assert error.stages["backing_off"] == pytest.approx(0.25)
                assert error.stages["queued"] == pytest.approx(4.75)

            tasks.start_soon(first)
            await anyio.sleep(0.1)
            await r.outcome("d2", timeout=10.0)
        r.assert_quiet()


async def test_a_queue_with_a_rate_lets_one_go_at_a_time_and_the_deadline_holds_there_too() -> None:
    """`SessionLimits(rate=…)`."""
    async with rig(rate=2.0) as r:
        times: list[float] = []

        async def send(number: int) -> None:
            await r.send(f"d{number}")
            times.append(anyio.current_time())

        await r.send("warm")
        async with anyio.create_task_group() as tasks:
            for number in range(5):
                tasks.start_soon(send, number)
        gaps = [second - first for first, second in itertools.pairwise(times)]
        assert all(gap == pytest.approx(0.5, abs=0.06) for gap in gaps)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send, 1)
            tasks.start_soon(send, 2)
            await anyio.sleep(0.01)
            assert isinstance(await r.outcome("d9", timeout=0.3), DeadlineExceeded)
        r.assert_quiet()


async def test_without_a_timeout_nothing_ends_by_itself() -> None:
    """`timeout=None` of a session is infinity."""
    async with rig(timeout=float("inf"), width=1) as r:
        await r.send("warm")

        async def slow(post: Post) -> Answer:
            await anyio.sleep(14.0)
            return await r.cloud.take_message(post)

        r.cloud.on_message = slow
        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(r.send, f"d{number}")
        assert r.engine.counters.accepted == 21
