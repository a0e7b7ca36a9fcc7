"""The session closes while requests are somewhere: each ends with what is known of it."""

from __future__ import annotations

import anyio
import pytest

from connector_async.domains import DomainSettings
from connector_async.errors import Landed, RequestError, RequestRefused, SessionClosed
from connector_async.exchange import session_owned
from connector_async.hooks import RequestFinished
from connector_async.transport.base import Answer
from tests.doubles import FakeCloud, Post, answer
from tests.exchange.rig import Rig, rig
from tests.exchange.test_deadlines import hang

pytestmark = pytest.mark.anyio


async def close_while(r: Rig, wait: float, *, dialog: str = "d1") -> tuple[RequestError, tuple[int, int]]:
    """Close `wait` seconds into a request; its error, and what the close reported."""
    caught: list[RequestError] = []

    async def run() -> None:
        caught.append(await r.outcome(dialog))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        await anyio.sleep(wait)
        report = r.engine.close()
        r.keeper.close()
        r.consumers.abort()
        started = anyio.current_time()
    assert anyio.current_time() - started < 1.0
    r.assert_quiet()
    assert r.engine.close() == (0, 0)
    return caught[0], report


async def test_in_the_queue() -> None:
    """Nothing was sent."""
    async with rig(width=1) as r:
        await r.send("warm")
        r.cloud.on_message = hang
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(r.outcome, "d0")
            await anyio.sleep(0.1)
            error, report = await close_while(r, 0.5)
        assert isinstance(error, SessionClosed)
        assert (error.landed, error.attempts, report) == (Landed.NO, (), (1, 1))


async def test_while_the_app_token_is_awaited() -> None:
    """Nothing was sent."""
    cloud = FakeCloud()
    cloud.on_token = hang
    async with rig(cloud) as r:
        error, report = await close_while(r, 0.5)
        assert isinstance(error, SessionClosed)
        assert (error.landed, report) == (Landed.NO, (0, 1))


async def test_while_the_consumers_token_is_awaited() -> None:
    """No pause follows, and no second fetch."""
    cloud = FakeCloud()
    cloud.on_consumer = hang
    async with rig(cloud) as r:
        error, report = await close_while(r, 0.5)
        assert isinstance(error, SessionClosed)
        assert (error.landed, report) == (Landed.NO, (0, 1))
        assert len(cloud.consumer_posts) == 1


async def test_while_the_answer_is_awaited() -> None:
    """It may have landed."""
    async with rig() as r:
        await r.send("warm")
        r.cloud.on_message = hang
        error, report = await close_while(r, 0.5)
        assert isinstance(error, SessionClosed)
        assert (error.landed, len(error.attempts), report) == (Landed.UNKNOWN, 1, (1, 0))
        assert error.__cause__ is not None
        assert r.engine.counters.unknown == 1


@pytest.mark.parametrize(("status", "landed", "report"), [(503, Landed.UNKNOWN, (1, 0)), (429, Landed.NO, (0, 1))])
async def test_between_two_attempts(status: int, landed: Landed, report: tuple[int, int]) -> None:
    """What the first attempt left is what is known."""
    async with rig() as r:
        await r.send("warm")
        r.cloud.script = [answer(status)]
        error, reported = await close_while(r, 0.5)
        assert isinstance(error, SessionClosed)
        assert (error.landed, reported) == (landed, report)
        assert len(r.cloud.message_posts) == 2


async def test_an_answer_that_is_already_there_is_not_lost_to_the_close() -> None:
    """A refusal that came with the close stays a refusal."""
    async with rig() as r:
        await r.send("warm")

        async def refuse_and_close(_post: Post) -> Answer:
            r.engine.close()
            return answer(400, {"code": 400, "body": {"msg": "no"}})

        r.cloud.script = [refuse_and_close]
        r.transport.abort = lambda _target: None  # type: ignore[method-assign,assignment]  # it came too late
        assert isinstance(await r.outcome(), RequestRefused)
        assert r.engine.counters.refused == 1
        r.assert_quiet()


async def test_an_answer_that_would_be_tried_again_is_not_after_the_close() -> None:
    """A 503 that came with the close."""
    async with rig() as r:
        await r.send("warm")

        async def fail_and_close(_post: Post) -> Answer:
            r.engine.close()
            return answer(503)

        r.cloud.script = [fail_and_close]
        r.transport.abort = lambda _target: None  # type: ignore[method-assign,assignment]  # it came too late
        error = await r.outcome()
        assert isinstance(error, SessionClosed)
        assert error.landed is Landed.UNKNOWN


async def test_whoever_is_let_on_just_as_the_session_closes_sends_nothing() -> None:
    """Granted and closed in the same turn of the loop."""
    async with rig(width=1) as r:
        await r.send("warm")
        gate = anyio.Event()

        async def until(post: Post) -> Answer:
            await gate.wait()
            return await r.cloud.take_message(post)

        r.cloud.on_message = until
        errors: list[RequestError] = []

        async def second() -> None:
            errors.append(await r.outcome("d2"))

        def close(event: object) -> None:
            if isinstance(event, RequestFinished) and len(r.engine) == 1:
                r.engine.close()

        r.engine._books._hooks = type(r.engine._books._hooks)([close])
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(r.send, "d1")
            await anyio.sleep(0.1)
            tasks.start_soon(second)
            await anyio.sleep(0.1)
            gate.set()
        assert isinstance(errors[0], SessionClosed)
        assert errors[0].landed is Landed.NO
        assert len(r.cloud.message_posts) == 2
        r.assert_quiet()


async def test_a_closing_session_takes_only_its_own_messages() -> None:
    """While it drains, what `send_many` has read may still go."""
    async with rig() as r:
        await r.send("warm")
        r.engine.refuse_new()
        with pytest.raises(SessionClosed) as caught:
            await r.send(request_id="m-1")
        assert (caught.value.request_id, caught.value.type) == ("m-1", "ms.PublishEvent")
        assert r.engine.counters.requests == 1
        mark = session_owned.set(True)
        try:
            await r.send()
            r.engine.close()
            with pytest.raises(SessionClosed):
                await r.send()
        finally:
            session_owned.reset(mark)


async def test_those_who_wait_for_silence_are_let_go_by_the_close() -> None:
    """A drain that is cut short."""
    async with rig() as r:
        await r.send("warm")
        r.cloud.on_message = hang
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(r.outcome, "d1")
            await anyio.sleep(0.1)
            tasks.start_soon(r.engine.wait_idle)
            await anyio.sleep(0.1)
            r.engine.close()


async def test_a_rate_timer_does_not_outlive_the_close() -> None:
    """Whoever leaves after the close must not wind it up again."""
    async with rig(rate=0.5) as r:
        await r.send("warm")
        async with anyio.create_task_group() as tasks:
            for number in range(3):
                tasks.start_soon(r.outcome, f"d{number}")
            await anyio.sleep(0.1)
            assert r.engine.gate._rate_timer is not None
            r.engine.close()
        assert r.engine.gate._rate_timer is None
        r.assert_quiet()


@pytest.mark.parametrize("moment", [step / 100 for step in range(0, 60, 3)])
async def test_c14_at_any_moment_with_many_in_flight(moment: float) -> None:
    """C14: every one ends within a second, and each is counted once."""
    cloud = FakeCloud(latency=0.1)
    async with rig(cloud, width=20) as r:
        ended: list[object] = []

        async def send(number: int) -> None:
            try:
                ended.append(await r.send(f"d{number % 300}", consumer=f"c{number % 7}"))
            except RequestError as error:
                ended.append(error)

        async with anyio.create_task_group() as tasks:
            for number in range(1_000):
                tasks.start_soon(send, number)
            await anyio.sleep(moment)
            r.engine.close()
            r.keeper.close()
            r.consumers.abort()
            closed_at = anyio.current_time()
        assert anyio.current_time() - closed_at < 1.0
        assert len(ended) == 1_000
        assert all(isinstance(one, SessionClosed) for one in ended if isinstance(one, RequestError))
        r.assert_quiet()


async def test_a_look_up_that_is_cut_off_by_the_close_ends_the_request() -> None:
    """The task group of the session is gone."""
    errors: list[RequestError] = []
    async with anyio.create_task_group() as outer:
        async with rig(domains=DomainSettings.of("http://127.0.0.1:9")) as r:

            async def never(_url: str) -> tuple[int, bytes]:
                await anyio.sleep_forever()
                raise AssertionError

            r.domains._get = never  # type: ignore[method-assign,assignment]  # the Domain API hangs

            async def run() -> None:
                errors.append(await r.outcome())

            outer.start_soon(run)
            await anyio.sleep(0.1)
            r.engine.close()
    assert isinstance(errors[0], SessionClosed)
    r.assert_quiet()
