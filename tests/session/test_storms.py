"""Bad days of a whole session, row by row; loss, doubling and order are counted, never inferred."""

from __future__ import annotations

import contextlib
import gc
import random
import tracemalloc
from collections import Counter
from typing import Any

import anyio
import pytest

from connector_async import (
    AppTokenRefused,
    ConsumerTokenRefused,
    Landed,
    LocalProtocolError,
    RequestError,
    RetryPolicy,
    SessionLimits,
    TokenSettings,
    TokenUnavailable,
)
from tests.doubles import Post, answer, lost, ok, unauthorized
from tests.session.rig import FakeCloud, session_over

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("in_flight", "storms"),
    [
        (1, 50),
        (10, 50),
        *(pytest.param(*many, marks=pytest.mark.no_cover) for many in ((100, 50), (1_000, 10), (5_000, 3))),
    ],
)
async def test_c5_a_revoked_token_is_renewed_once_however_many_are_in_flight(in_flight: int, storms: int) -> None:
    """C5, replies spread over 2 s (stragglers); the counts of storms for 1,000 and 5,000 are taken smaller."""
    rng = random.Random(5)
    cloud = FakeCloud()

    async def late(post: Post) -> Any:
        # The cloud looks at the token when the request comes, and answers in its own time.
        held = cloud.holds(post)
        await anyio.sleep(2 * rng.random())
        if not held:
            return unauthorized(40102)
        cloud.accepted.update(post.ids)
        return ok(post)

    cloud.on_message = late
    limits = SessionLimits(max_in_flight=in_flight)
    results: list[Any] = []

    async def send(conversation: Any) -> None:
        results.append(await conversation.send_text("hello"))

    async with session_over(cloud, limits=limits) as session:
        conversations = [session.conversation(f"c-{number}", "customer") for number in range(in_flight)]
        await conversations[0].send_text("warm")
        for _ in range(storms):
            await anyio.sleep(31)  # two renewals that answers ask for are at least 30 s apart
            renewals = len(cloud.token_posts)
            cloud.revoke()
            results.clear()
            async with anyio.create_task_group() as tasks:
                for conversation in conversations:
                    tasks.start_soon(send, conversation)
            assert len(cloud.token_posts) == renewals + 1
            assert len(results) == in_flight
            assert {len(result.attempts) for result in results} <= {1, 2}
            assert sum(len(result.attempts) == 2 for result in results) == in_flight
    assert set(cloud.accepted.values()) == {1}


async def test_c5_a_second_revocation_within_half_a_minute_is_waited_for() -> None:
    """At least 30 s between forced renewals; nobody is lost meanwhile."""
    cloud = FakeCloud()
    async with session_over(cloud) as session:
        conversation = session.conversation("c-1", "customer")
        await conversation.send_text("warm")
        cloud.revoke()
        await conversation.send_text("first")
        cloud.revoke()
        started = anyio.current_time()
        await conversation.send_text("second")
        assert anyio.current_time() - started == pytest.approx(30, abs=1)
        assert session.stats().tokens_fetched == 3


@pytest.mark.no_cover
@pytest.mark.parametrize("code", [40103, None])
async def test_c6_a_bad_consumer_token_hurts_that_consumer_alone(code: int | None) -> None:
    """C6: 1,000 bad and 1,000 good mixed; with the right code, and with none at all."""
    cloud = FakeCloud(latency=0.01)

    async def picky(post: Post) -> Any:
        if post.header("X-LP-ON-BEHALF") == "jws.bad":
            return unauthorized(code)
        return await cloud.take_message(post)

    cloud.on_message = picky
    ended: Counter[str] = Counter()

    async def send(conversation: Any, who: str) -> None:
        try:
            await conversation.send_text("hello")
            ended[f"{who} accepted"] += 1
        except ConsumerTokenRefused:
            ended[f"{who} refused"] += 1

    async with session_over(cloud) as session:
        await session.conversation("warm", "good").send_text("warm")
        started = anyio.current_time()
        async with anyio.create_task_group() as tasks:
            for number in range(1_000):
                tasks.start_soon(send, session.conversation(f"g-{number}", "good"), "good")
                tasks.start_soon(send, session.conversation(f"b-{number}", "bad"), "bad")
        took = anyio.current_time() - started
    assert ended == {"good accepted": 1_000, "bad refused": 1_000}
    assert len(cloud.token_posts) - 1 <= 1 + took / 30


async def test_c6_a_request_that_is_refused_with_every_app_token_stops_nobody_else() -> None:
    """40102 blames the AppJWT, but it holds for all others: they wait neither for the next nor for its service."""
    cloud = FakeCloud(latency=0.01)

    async def odd(post: Post) -> Any:
        if post.header("X-LP-ON-BEHALF") == "jws.odd":
            return unauthorized(40102)
        return await cloud.take_message(post)

    async def slow(post: Post) -> Any:
        await anyio.sleep(5.0)
        return await cloud.give_token(post)

    cloud.on_message = odd
    refused: list[float] = []
    slowest = 0.0
    async with session_over(cloud) as session:
        good = session.conversation("good", "good")
        await good.send_text("warm")
        cloud.on_token = slow
        began = anyio.current_time()

        async def keep_asking() -> None:
            while len(refused) < 4:
                with pytest.raises(AppTokenRefused):
                    await session.conversation("odd", "odd").send_text("hello")
                refused.append(anyio.current_time() - began)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(keep_asking)
            while len(refused) < 4:
                started = anyio.current_time()
                await good.send_text("hello")
                slowest = max(slowest, anyio.current_time() - started)
                await anyio.sleep(0.1)
    assert slowest < 0.1
    assert refused == [pytest.approx(5.0 + 35.0 * number, abs=0.5) for number in range(4)]
    assert len(cloud.token_posts) == 5


@pytest.mark.no_cover
async def test_c7_a_token_revoked_while_its_service_is_down_fails_each_request_at_once_and_calls_in_steps() -> None:
    """C7: with the cause, after one 401 each; the token service is asked once for each step of the backoff."""
    cloud = FakeCloud(latency=0.01)
    failures: list[TokenUnavailable] = []

    async def down(_post: Post) -> Any:
        return answer(503)

    async with session_over(cloud) as session:
        conversation = session.conversation("c-1", "customer")
        await conversation.send_text("warm")
        cloud.on_token = down
        cloud.revoke()
        for _ in range(100):
            started = anyio.current_time()
            with pytest.raises(TokenUnavailable) as caught:
                await conversation.send_text("hello")
            assert anyio.current_time() - started < 0.1
            failures.append(caught.value)
            await anyio.sleep(1.0)
        assert {(error.landed, len(error.attempts), error.attempts[0].status) for error in failures} == {
            (Landed.NO, 1, 401)
        }
        assert len(cloud.token_posts) == pytest.approx(1 + 7, abs=1)  # at 0, 1, 3, 7, 15, 31, 63
        cloud.on_token = cloud.give_token
        await anyio.sleep(66.0)
        assert len((await conversation.send_text("hello")).attempts) == 1


async def test_c21_a_stuck_peer_slows_nobody_else() -> None:
    """C21: answers of some conversations never come; the others go on, and these fail at their deadline."""
    cloud = FakeCloud(latency=0.05)

    async def stuck(post: Post) -> Any:
        if post.json["body"]["dialogId"].startswith("stuck"):
            await anyio.sleep_forever()
        return await cloud.take_message(post)

    durations: list[float] = []
    failures: list[RequestError] = []

    async def good(conversation: Any) -> None:
        for _ in range(20):
            started = anyio.current_time()
            await conversation.send_text("hello")
            durations.append(anyio.current_time() - started)

    async def bad(conversation: Any) -> None:
        try:
            await conversation.send_text("hello", timeout=10)
        except RequestError as error:
            failures.append(error)

    async with session_over(cloud, limits=SessionLimits(max_in_flight=100)) as session:
        await session.conversation("warm", "customer").send_text("warm")
        cloud.on_message = stuck
        async with anyio.create_task_group() as tasks:
            for number in range(90):
                for _ in range(3):
                    tasks.start_soon(bad, session.conversation(f"stuck-{number}", "customer"))
            for number in range(10):
                tasks.start_soon(good, session.conversation(f"good-{number}", "customer"))
        assert session.pending() == ()
    durations.sort()
    assert durations[int(len(durations) * 0.99)] <= 2 * 0.05 + 0.01
    assert len(failures) == 270


@pytest.mark.no_cover
@pytest.mark.requirement("C22")
async def test_c22_memory_stays_flat_under_mixed_faults() -> None:
    """C22: at most 1 MiB for 100,000 requests after warm-up; here 20,000 and their share."""
    rng = random.Random(22)
    cloud = FakeCloud(latency=0.01)

    async def moody(post: Post) -> Any:
        dice = rng.random()
        if dice < 0.02:
            raise lost()
        if dice < 0.03:
            return answer(503)
        return ok(post)

    cloud.on_message = moody

    async def rounds(session: Any, count: int) -> None:
        async def worker(number: int) -> None:
            conversation = session.conversation(f"c-{number}", f"customer-{number % 20}")
            for _ in range(count):
                with contextlib.suppress(RequestError):
                    await conversation.send_text("hello", timeout=120)

        async with anyio.create_task_group() as tasks:
            for number in range(100):
                tasks.start_soon(worker, number)
        # The double keeps what it saw; that is not the session's.
        cloud.message_posts.clear()
        session_transport.posts.clear()

    async with session_over(cloud) as session:
        session_transport: Any = session._entered().transport
        # The ids of finished requests are remembered, up to a bound: fill it first.
        await rounds(session, 220)
        gc.collect()
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            await rounds(session, 200)
            gc.collect()
            # What was allocated before `start` and freed since does not show: only growth does.
            grown = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
    # The remembered ids themselves were replaced by traced ones: twice 10,000 of about 90 bytes and their sets.
    assert grown < 4.5 * 2**20


@pytest.mark.parametrize("evil", ["a\r\nX-Evil: 1", "a\nb", "a\x00b", "naïve", "a\x7fb"])
async def test_s3_line_breaks_never_get_into_a_head(evil: str) -> None:
    """S3: refused before any I/O."""
    cloud = FakeCloud()
    async with session_over(cloud) as session:
        await session.conversation("c-1", "customer").send_text("warm")
        posts = len(cloud.message_posts)
        with pytest.raises(LocalProtocolError, match="Client-Properties"):
            session.conversation("c-1", "customer", client_properties=evil)
        assert len(cloud.message_posts) == posts

        async def evil_token(post: Post) -> Any:
            return answer(201, {"token": evil})

        cloud.on_consumer = evil_token
        with pytest.raises(RequestError):
            await session.conversation("c-2", "other").send_text("hello", retry=RetryPolicy.none())


async def test_the_token_is_renewed_in_the_background_before_it_ends() -> None:
    """our design, decision 4: nobody waits at the hour when the token expires."""
    cloud = FakeCloud(lifetime=3600.0)
    slowest = 0.0
    async with session_over(cloud, tokens=TokenSettings()) as session:
        conversation = session.conversation("c-1", "customer")
        for _ in range(200):
            started = anyio.current_time()
            await conversation.send_text("hello")
            slowest = max(slowest, anyio.current_time() - started)
            await anyio.sleep(60)
        assert session.stats().tokens_fetched in (4, 5)
    assert slowest < 0.001
