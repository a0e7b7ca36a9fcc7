"""429 and 5xx: pauses, width, budget."""

from __future__ import annotations

import itertools
import math

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connector_async.errors import Landed, OutcomeUnknown, RateLimited, RequestError
from connector_async.hooks import Throttled
from connector_async.protocol.retry import RetryPolicy
from connector_async.transport.base import Answer
from tests.doubles import FakeCloud, Post, answer, lost
from tests.exchange.rig import rig

pytestmark = pytest.mark.anyio


@settings(max_examples=100)
@given(
    header=st.sampled_from([None, "0", "1", "3", "30", "1000000000", "-4", "soon", "Tue, 14 Nov 2023 22:13:30 GMT"]),
    jitter=st.floats(0.0, 1.0),
)
async def test_c9_after_a_429_the_pause_is_what_was_asked_for_and_never_less(
    header: str | None, jitter: float
) -> None:
    """C9: within [RA, RA + 25 %], absent at least 1 s, at most 120 s."""
    asked = {"0": 0.0, "1": 1.0, "3": 3.0, "30": 30.0, "1000000000": math.inf, None: None}.get(header)
    if header is not None and header.startswith("Tue"):
        asked = 10.0  # ahead of the rig's wall clock
    cloud = FakeCloud()
    async with rig(cloud, random=lambda: jitter, timeout=600.0) as r:
        await r.send("warm")
        cloud.script = [answer(429, b"", {} if header is None else {"Retry-After": header})]
        await r.send()
        pause = cloud.message_posts[2].at - cloud.message_posts[1].at
        floor = max(1.0, asked or 0.0)
        assert min(floor, 120.0) - 1e-9 <= pause <= min(floor * 1.25, 120.0) + 1e-6


async def test_c9_the_width_falls_to_seven_tenths_at_most_once_a_second_and_recovers() -> None:
    """C9: many 429 of one bad moment are one reason to narrow."""
    cloud = FakeCloud(latency=0.01)
    async with rig(cloud, width=100) as r:
        await r.send("warm")
        cloud.script = [answer(429)] * 50
        async with anyio.create_task_group() as tasks:
            for number in range(100):
                tasks.start_soon(r.send, f"d{number}")
            await anyio.sleep(0.5)
            assert 69 <= r.engine.lanes.width <= 71
        assert r.engine.counters.throttled == 50
        assert {event.width for event in r.told(Throttled)[:1]} == {70}
        for number in range(2_700):
            await r.send(f"d{number % 50}")
        assert r.engine.lanes.width == 100
        r.assert_quiet()


async def test_a_429_that_does_not_end_is_rate_limited_and_safe_to_send_again() -> None:
    """It says what was asked for."""
    cloud = FakeCloud()
    cloud.script = [answer(429, b"", {"Retry-After": "50"})] * 2
    async with rig(cloud) as r:
        error = await r.outcome()
        assert isinstance(error, RateLimited)
        assert (error.retry_after, error.landed, error.retryable, error.status) == (50.0, Landed.NO, True, 429)
        assert "after the deadline" in str(error)
        assert "safe to send it again" in error.hint
        assert r.engine.counters.not_sent == 1


async def test_a_429_after_an_attempt_of_unknown_outcome_is_not_called_safe() -> None:
    """What may have landed stays so."""
    cloud = FakeCloud()
    cloud.script = [lost(), answer(429, b"", {"Retry-After": "500"})]
    async with rig(cloud) as r:
        error = await r.outcome()
        assert isinstance(error, RateLimited)
        assert error.landed is Landed.UNKNOWN
        assert "may have landed" in error.hint
        assert r.engine.counters.unknown == 1


@settings(max_examples=50)
@given(jitter=st.floats(0.0, 1.0))
async def test_c11_the_vendors_pauses_after_a_5xx(jitter: float) -> None:
    """C11: 5, 10, 15 s and at most 10 % more, then 2, 4, 8 minutes."""
    cloud = FakeCloud()
    async with rig(cloud, random=lambda: jitter, timeout=10_000.0) as r:
        await r.send("warm")
        cloud.script = [answer(500)] * 6
        response = await r.send()
        times = [post.at for post in cloud.message_posts[1:]]
        gaps = [second - first for first, second in itertools.pairwise(times)]
        for gap, wanted in zip(gaps, (5, 10, 15, 120, 240, 480), strict=True):
            assert wanted - 1e-6 <= gap <= wanted * 1.1 + 1e-6
        assert [a.sequence for a in response.attempts] == [0, 2, 4, 8, 16, 32, 64]


async def test_a_5xx_to_the_end_is_of_unknown_outcome() -> None:
    """A 5xx does not say whether the event was stored."""
    cloud = FakeCloud()
    cloud.script = [answer(502, b"<html>")] * 12
    async with rig(cloud) as r:
        error = await r.outcome()
        assert isinstance(error, OutcomeUnknown)
        assert (error.status, error.landed) == (502, Landed.UNKNOWN)
        assert [a.status for a in error.attempts] == [502] * 4


async def test_c10_an_outage_makes_few_more_calls_than_there_are_requests_and_recovery_is_quick() -> None:
    """C10: the retry budget; an empty one means fail now, never queue."""
    cloud = FakeCloud(latency=0.05)
    ended: list[tuple[float, bool]] = []
    down = False

    async def judge(post: Post) -> Answer:
        await anyio.sleep(0.05)
        return answer(503) if down else await cloud.take_message(post)

    cloud.on_message = judge
    policy = RetryPolicy.exponential()
    async with rig(cloud, policy=policy, random=lambda: 0.7) as r:
        await r.send("warm")

        async def send(number: int) -> None:
            try:
                await r.send(f"d{number}")
                ended.append((anyio.current_time(), True))
            except RequestError:
                ended.append((anyio.current_time(), False))

        started = anyio.current_time()
        before = len(cloud.message_posts)
        async with anyio.create_task_group() as tasks:
            for number in range(4_500):
                tasks.start_soon(send, number)
                down = 1.0 <= anyio.current_time() - started < 3.5
                await anyio.sleep(0.001)
        attempts = len(cloud.message_posts) - before
        assert attempts <= 1.10 * 4_500
        recovered = min(at for at, accepted in ended if accepted and at - started > 3.5)
        assert recovered - started < 3.5 + 1.0
        retries_of_the_empty_budget = attempts - 4_500
        assert retries_of_the_empty_budget <= 36 + 500 / 14 + 70
        r.assert_quiet()
