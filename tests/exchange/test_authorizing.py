"""401 triage: who is blamed, what is renewed, and that it ends."""

from __future__ import annotations

import itertools
from functools import partial

import anyio
import pytest

from connector_async.domains import DomainSettings
from connector_async.errors import (
    AppTokenRefused,
    ConsumerTokenRefused,
    DeadlineExceeded,
    Landed,
    NotSent,
    RequestError,
    StoreUnavailable,
    TokenUnavailable,
)
from connector_async.exchange import Response
from connector_async.hooks import AttemptFailed, RequestFinished
from connector_async.protocol.retry import RetryPolicy
from connector_async.transport.base import Answer
from tests.auth.test_consumer_tokens import BrokenStore
from tests.doubles import FakeCloud, Post, answer, lost, not_sent, ok, unauthorized
from tests.exchange.rig import rig

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("code", [40102, 40105, None, 49999])
async def test_a_401_that_blames_the_app_token_or_nobody_renews_it_and_sends_again(code: int | None) -> None:
    """Decision 4."""
    cloud = FakeCloud()
    async with rig(cloud) as r:
        await r.send("warm")
        cloud.script = [unauthorized(code)]
        response = await r.send()
        assert [(a.status, a.sequence) for a in response.attempts] == [(401, 0), (200, 2)]
        assert [post.header("Authorization") for post in cloud.message_posts] == ["app.1", "app.1", "app.2"]
        assert len({post.body for post in cloud.message_posts[1:]}) == 1
        assert not response.maybe_duplicate
        assert r.engine.budget.tokens == 500
        (told,) = r.told(AttemptFailed)
        assert (told.attempt.status, told.wait) == (401, 0.0)


@pytest.mark.parametrize("code", [40103, 40104])
async def test_a_401_that_blames_the_consumer_renews_its_token_alone(code: int) -> None:
    """A bad ConsumerJWS hurts that consumer alone."""
    cloud = FakeCloud()
    numbers = iter(range(10))

    async def give(_post: Post) -> Answer:
        return answer(201, {"token": f"jws.{next(numbers)}"})

    cloud.on_consumer = give
    async with rig(cloud) as r:
        await r.send("warm")
        cloud.script = [unauthorized(code)]
        assert len((await r.send()).attempts) == 2
        assert [post.header("X-LP-ON-BEHALF") for post in cloud.message_posts] == ["jws.0", "jws.0", "jws.1"]
        assert len(cloud.token_posts) == 1


@pytest.mark.parametrize(
    ("codes", "kind"),
    [
        ([40102, 40102], AppTokenRefused),
        ([40105, 40105], AppTokenRefused),
        ([None, None], ConsumerTokenRefused),
        ([40102, None], ConsumerTokenRefused),
        ([40103], ConsumerTokenRefused),
        ([40102, 40103], ConsumerTokenRefused),
        ([49999, 49999], ConsumerTokenRefused),
    ],
)
async def test_a_second_401_is_an_error_and_never_a_loop(codes: list[int | None], kind: type[RequestError]) -> None:
    """Seed: also consumer A acting on the conversation of B is a 401."""
    cloud = FakeCloud()
    async with rig(cloud) as r:
        await r.send("warm")
        cloud.script = [unauthorized(code) for code in codes]
        error = await r.outcome()
        assert type(error) is kind
        assert (error.status, error.error_code, error.landed) == (401, codes[-1], Landed.NO)
        assert len(error.attempts) == len(codes)
        assert cloud.script == []
        assert r.engine.counters.refused == 1
        r.assert_quiet()


async def test_both_tokens_may_be_renewed_once_for_one_request() -> None:
    """First the one, then the other."""
    cloud = FakeCloud()
    numbers = iter(range(10))

    async def give(_post: Post) -> Answer:
        return answer(201, {"token": f"jws.{next(numbers)}"})

    cloud.on_consumer = give
    async with rig(cloud) as r:
        await r.send("warm")
        cloud.script = [unauthorized(40102), unauthorized(40103)]
        assert [a.status for a in (await r.send()).attempts] == [401, 401, 200]
        await anyio.sleep(31.0)
        cloud.script = [unauthorized(40103)] * 5
        await r.outcome()
        assert len(cloud.script) == 3


@pytest.mark.parametrize("n", [1, 10, 100, pytest.param(1_000, marks=pytest.mark.no_cover)])
async def test_c5_a_revocation_with_many_in_flight_costs_one_renewal_and_loses_nobody(n: int) -> None:
    """C5: each is sent again once, and accepted once."""
    cloud = FakeCloud(latency=0.5)
    async with rig(cloud, width=1_000) as r:
        await r.send("warm")

        async def straggle(post: Post) -> Answer:
            await anyio.sleep(2.0 * (len(cloud.message_posts) % 100) / 100)
            return await cloud.take_message(post)

        for storm in range(2):
            cloud.on_message = straggle
            before = len(cloud.message_posts)
            async with anyio.create_task_group() as tasks:
                for number in range(n):
                    tasks.start_soon(r.send, f"d{number}")
                await anyio.sleep(0.1)
                cloud.revoke()
            assert len(cloud.token_posts) == storm + 2
            assert len(cloud.message_posts) - before == 2 * n
            await anyio.sleep(31.0)
        assert set(cloud.accepted.values()) == {1}
        assert r.engine.counters.accepted == 2 * n + 1
        r.assert_quiet()


@pytest.mark.no_cover
async def test_c6_bad_consumers_fail_alone_and_good_ones_do_not_notice() -> None:
    """C6: at most one forced renewal in 30 s; the good ones are all accepted."""
    cloud = FakeCloud(latency=0.05)

    async def judge(post: Post) -> Answer:
        if (post.header("X-LP-ON-BEHALF") or "").startswith("jws.bad"):
            await anyio.sleep(0.05)
            return unauthorized(None)
        return await cloud.take_message(post)

    cloud.on_message = judge
    async with rig(cloud, width=500) as r:
        failed: list[RequestError] = []

        async def send(number: int) -> None:
            if number % 2:
                await r.send(f"d{number}", consumer=f"good-{number}")
            else:
                failed.append(await r.outcome(f"d{number}", consumer=f"bad-{number}"))

        async with anyio.create_task_group() as tasks:
            for number in range(1_000):
                tasks.start_soon(send, number)
        assert len(failed) == 500
        assert {type(error) for error in failed} == {ConsumerTokenRefused}
        assert len(cloud.token_posts) <= 2
        assert r.engine.counters.accepted == 500
        r.assert_quiet()


async def test_a_token_service_that_refuses_after_a_401_is_the_better_reason() -> None:
    """The credentials were withdrawn: that is what the caller must hear."""
    cloud = FakeCloud()
    async with rig(cloud) as r:
        await r.send("warm")

        async def refuse(_post: Post) -> Answer:
            return answer(401)

        cloud.on_token = refuse
        cloud.script = [unauthorized(None)]
        error = await r.outcome()
        assert isinstance(error, AppTokenRefused)
        assert "refused the app credentials" in str(error)
        assert len(error.attempts) == 1
        assert r.engine.counters.refused == 1
        r.assert_quiet()


async def test_an_identity_service_that_refuses_after_a_401_is_the_better_reason() -> None:
    """The consumer was erased."""
    cloud = FakeCloud()
    async with rig(cloud) as r:
        await r.send("warm")

        async def refuse(_post: Post) -> Answer:
            return answer(400)

        cloud.on_consumer = refuse
        cloud.script = [unauthorized(40103)]
        error = await r.outcome()
        assert isinstance(error, ConsumerTokenRefused)
        assert "refused consumer" in str(error)


async def test_c7_without_a_token_a_failing_token_service_is_known_at_once() -> None:
    """C7: fail fast, with the cause; nothing was sent."""
    cloud = FakeCloud()

    async def down(_post: Post) -> Answer:
        return answer(503)

    cloud.on_token = down
    async with rig(cloud) as r:
        first = await r.outcome()
        assert isinstance(first, TokenUnavailable)
        assert (first.landed, first.retryable, first.attempts) == (Landed.NO, True, ())
        started = anyio.current_time()
        for number in range(100):
            await r.outcome(f"d{number}")
        assert anyio.current_time() == started
        assert len(cloud.token_posts) == 1
        assert r.engine.counters.not_sent == 101
        r.assert_quiet()


async def test_a_token_service_that_fails_after_a_401_leaves_the_message_unsent() -> None:
    """The 401 says that it did not land: it is safe to send again."""
    cloud = FakeCloud()
    async with rig(cloud) as r:
        await r.send("warm")

        async def down(_post: Post) -> Answer:
            return answer(503)

        cloud.on_token = down
        cloud.script = [unauthorized(40102)]
        error = await r.outcome()
        assert isinstance(error, TokenUnavailable)
        assert (error.landed, len(error.attempts)) == (Landed.NO, 1)
        assert r.engine.counters.not_sent == 1


async def test_a_message_that_may_have_landed_stays_so_when_its_token_cannot_be_renewed() -> None:
    """The error of the token service knows nothing of the first attempt."""
    cloud = FakeCloud()
    async with rig(cloud) as r:
        await r.send("warm")

        async def down(_post: Post) -> Answer:
            return answer(503)

        cloud.on_token = down
        cloud.script = [lost(), unauthorized(40102)]
        error = await r.outcome()
        assert isinstance(error, TokenUnavailable)
        assert error.landed is Landed.UNKNOWN
        assert r.engine.counters.unknown == 1


async def test_a_bad_moment_of_the_identity_service_is_a_matter_of_the_policy() -> None:
    """Reading tokens is harmless to repeat; the pauses are those of the vendor's table."""
    cloud = FakeCloud()
    replies: list[Answer | Exception] = [answer(503), not_sent(), answer(429, b"", {"Retry-After": "3"})]

    async def moody(post: Post) -> Answer:
        if not replies:
            return await cloud.give_consumer(post)
        reply = replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return reply

    cloud.on_consumer = moody
    async with rig(cloud) as r:
        response = await r.send()
        assert len(response.attempts) == 1
        times = [post.at for post in cloud.consumer_posts]
        assert [round(b - a, 3) for a, b in itertools.pairwise(times)] == [5.25, 0.2, 3.375]


async def test_a_pause_of_0_for_the_identity_service_is_no_pause() -> None:
    """The jitter may draw nothing."""
    cloud = FakeCloud()
    replies: list[Exception] = [not_sent()]

    async def moody(post: Post) -> Answer:
        if replies:
            raise replies.pop()
        return await cloud.give_consumer(post)

    cloud.on_consumer = moody
    async with rig(cloud, random=lambda: 0.0) as r:
        await r.send()
        assert cloud.consumer_posts[0].at == cloud.consumer_posts[1].at


@pytest.mark.parametrize("reply", [answer(503), answer(201, b"{}")])
async def test_a_policy_without_retries_does_not_ask_the_identity_service_again(reply: Answer) -> None:
    """`RetryPolicy.none()`, and answers that no policy repeats."""
    cloud = FakeCloud()

    async def down(_post: Post) -> Answer:
        return reply

    cloud.on_consumer = down
    async with rig(cloud) as r:
        error = await r.outcome(policy=RetryPolicy.none())
        assert isinstance(error, TokenUnavailable)
        assert len(cloud.consumer_posts) == 1


async def test_more_consumers_at_once_than_memory_holds_are_each_fetched_once() -> None:
    """What was fetched for a request serves it even if others have pushed it out meanwhile."""
    async with rig(FakeCloud(latency=0.1), max_cached=1, store=BrokenStore(), width=4) as r:
        async with anyio.create_task_group() as tasks:
            for number in range(100):
                tasks.start_soon(partial(r.send, f"d{number}", consumer=f"c{number}"))
        assert r.consumers.fetched == 100
        assert r.engine.counters.accepted == 100


async def test_others_use_the_width_while_a_token_is_awaited() -> None:
    """A consumer whose token is slow must not block those who have theirs."""
    cloud = FakeCloud()
    async with rig(cloud, width=1) as r:
        await r.send("warm", consumer="quick")

        async def slow(post: Post) -> Answer:
            await anyio.sleep(10.0)
            return await cloud.give_consumer(post)

        cloud.on_consumer = slow
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: r.send("d1", consumer="slow"))
            await anyio.sleep(1.0)
            await r.send("d2", consumer="quick")
            assert anyio.current_time() < 2.0


async def test_the_headers_are_made_once_for_each_token() -> None:
    """Design 5: prepared once per token and not once per message."""
    async with rig() as r:
        await r.send()
        await r.send()
        await r.keeper.renew(1, certain=True)
        await r.send()
        assert [post.header("Authorization") for post in r.cloud.message_posts] == ["app.1", "app.1", "app.2"]


async def test_a_host_that_cannot_be_connected_to_is_looked_up_again() -> None:
    """Domain API page: refresh on connect failure."""
    async with rig() as r:
        suspected: list[str] = []
        r.domains.suspect = suspected.append  # type: ignore[method-assign,assignment]  # a spy
        r.cloud.script = [not_sent(), lost()]
        await r.send()
        assert suspected == ["asyncMessagingEnt"]


async def test_the_deadline_holds_while_a_token_or_a_host_is_awaited() -> None:
    """Decision 6; others' fetch goes on."""
    cloud = FakeCloud()

    async def slow(post: Post) -> Answer:
        await anyio.sleep(10.0)
        return await cloud.give_token(post)

    cloud.on_token = slow
    async with rig(cloud) as r:
        error = await r.outcome(timeout=3.0)
        assert isinstance(error, DeadlineExceeded)
        assert anyio.current_time() == pytest.approx(3.0, abs=0.05)
        assert (error.landed, error.retryable, error.attempts) == (Landed.NO, True, ())
        assert error.stages["token"] == pytest.approx(3.0, abs=0.05)
        assert "waited for a token" in str(error)
        await r.send()
        assert len(cloud.token_posts) == 1


async def test_hosts_that_cannot_be_found_end_the_request_unsent() -> None:
    """Nothing is known of where to send to, for as long as the policy goes on."""
    async with rig(domains=DomainSettings.of("http://127.0.0.1:9")) as r:
        error = await r.outcome()
        assert isinstance(error, NotSent)
        assert (error.status, error.attempts) == (503, ())
        assert r.engine.counters.not_sent == 1
        assert anyio.current_time() > 20.0


async def test_a_domain_api_that_fails_at_the_start_is_a_matter_of_the_retry_policy() -> None:
    """Issue 3: what comes in the first seconds waits like anything that was not sent."""
    async with rig(domains=DomainSettings.of("http://127.0.0.1:9")) as r:
        replies = [(503, b""), (200, b'{"baseURI": "127.0.0.1:9"}')]

        async def get(_url: str) -> tuple[int, bytes]:
            return replies.pop(0) if len(replies) > 1 else replies[0]

        r.domains._get = get  # type: ignore[method-assign,assignment]  # a Domain API
        response = await r.send()
        assert [attempt.number for attempt in response.attempts] == [1]
        assert not response.maybe_duplicate
        assert 5.0 <= anyio.current_time() < 6.0


@pytest.mark.parametrize("status", [404, 302])
async def test_a_domain_api_that_says_no_is_believed_at_once(status: int) -> None:
    """An account that it does not know; a redirect."""
    async with rig(domains=DomainSettings.of("http://127.0.0.1:9")) as r:

        async def get(_url: str) -> tuple[int, bytes]:
            return status, b""

        r.domains._get = get  # type: ignore[method-assign,assignment]  # a Domain API
        error = await r.outcome()
        assert (type(error), error.status, error.retryable) == (NotSent, status, False)
        assert anyio.current_time() < 1.0


async def test_an_error_that_is_none_of_a_request_is_counted_as_not_sent() -> None:
    """A store of the user's may raise anything while nothing has been sent."""
    async with rig() as r:

        async def fails(_id: str) -> object:
            raise StoreUnavailable("gone")

        r.consumers.get = fails  # type: ignore[method-assign,assignment]  # a stub
        with pytest.raises(StoreUnavailable):
            await r.send()
        (told,) = r.told(RequestFinished)
        assert (told.outcome, told.landed) == ("not_sent", Landed.NO)
        r.assert_quiet()


async def test_a_token_that_ends_between_two_waits_is_waited_for_again() -> None:
    """It lived shorter than the queue."""
    cloud = FakeCloud(lifetime=2.0)

    async def slow(post: Post) -> Answer:
        await anyio.sleep(3.0)
        return await cloud.give_consumer(post)

    cloud.on_consumer = slow

    async def hold(post: Post) -> Answer:
        await anyio.sleep(0.1)
        return ok(post)

    cloud.on_message = hold
    async with rig(cloud, width=1) as r:
        (response,) = await r.engine.run(r.text())
        assert isinstance(response, Response)
