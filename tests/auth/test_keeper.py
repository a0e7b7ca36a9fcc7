"""One AppJWT for everybody, on a bad day too."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio
import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connector_async._concurrency import current_clock
from connector_async.auth import AppToken, TokenKeeper, TokenSettings
from connector_async.auth.keeper import FetchedToken, Unwanted
from connector_async.errors import AppTokenRefused, AuthError, SessionClosed, TokenUnavailable
from connector_async.hooks import Event, Hooks, TokenRefreshed, TokenRefreshFailed
from connector_async.protocol.lifetime import Freshness
from tests.guards import assert_canary_absent

pytestmark = pytest.mark.anyio


@attrs.define(eq=False)
class Service:
    """The token service of one keeper: tokens of `lifetime` seconds after `latency`, or `failure`."""

    lifetime: float = 3600.0
    latency: float = 0.0
    failure: Exception | None = None
    calls: list[float] = attrs.field(factory=list)
    unwanted: list[Unwanted | None] = attrs.field(factory=list)
    gives: FetchedToken | None = None
    cancelled: int = 0

    async def fetch(self, instead_of: Unwanted | None) -> FetchedToken:
        self.calls.append(anyio.current_time())
        self.unwanted.append(instead_of)
        try:
            await anyio.sleep(self.latency)
        except BaseException:
            self.cancelled += 1
            raise
        if self.failure is not None:
            raise self.failure
        if self.gives is not None:
            return self.gives
        return FetchedToken(value=f"token-{len(self.calls)}", seconds=self.lifetime)


@attrs.define(eq=False)
class Kept:
    keeper: TokenKeeper
    service: Service
    events: list[Event]


@asynccontextmanager
async def kept(
    service: Service | None = None,
    *,
    options: TokenSettings | None = None,
    random: Callable[[], float] = lambda: 0.0,
) -> AsyncIterator[Kept]:
    service = service or Service()
    events: list[Event] = []
    async with anyio.create_task_group() as tasks:
        keeper = TokenKeeper(
            service.fetch,
            clock=current_clock(tasks),
            random=random,
            settings=options or TokenSettings(),
            hooks=Hooks([events.append]),
        )
        tasks.start_soon(keeper.run)
        yield Kept(keeper, service, events)
        keeper.close()
        tasks.cancel_scope.cancel()


def down(status: int | None = 503, **facts: float) -> TokenUnavailable:
    return TokenUnavailable("the token service is down", status=status, **facts)


async def failing(keeper: TokenKeeper) -> AuthError:
    """The error that a request gets now, within 100 ms."""
    started = anyio.current_time()
    with pytest.raises(AuthError) as caught:
        await keeper.get()
    assert anyio.current_time() - started < 0.1
    return caught.value


async def test_nothing_is_fetched_before_somebody_asks() -> None:
    """Entering a session does no I/O (issue 2, item 5)."""
    async with kept() as k:
        await anyio.sleep(10_000)
        assert k.service.calls == []
        assert k.keeper.current() is None
        assert k.keeper.failure is None
        assert k.keeper.freshness is Freshness.EXPIRED


async def test_however_many_wait_there_is_one_call() -> None:
    """Decision 4."""
    async with kept(Service(latency=1.0)) as k:
        tokens: list[AppToken] = []

        async def ask() -> None:
            tokens.append(await k.keeper.get())

        async with anyio.create_task_group() as tasks:
            for _ in range(1_000):
                tasks.start_soon(ask)
        assert len(k.service.calls) == 1
        assert {token.generation for token in tokens} == {1}
        assert k.keeper.fetched == 1


@pytest.mark.parametrize(("jitter", "when"), [(0.0, 3240.0), (1.0, 2916.0)])
async def test_a_token_is_renewed_in_the_background_before_it_ends(
    jitter: float, when: float, caplog: pytest.LogCaptureFixture
) -> None:
    """At 90 % of its life, up to a tenth sooner by jitter; the vendor advises 5 minutes before the end."""
    async with kept(random=lambda: jitter) as k:
        first = await k.keeper.get()
        assert k.keeper.freshness is Freshness.FRESH
        await anyio.sleep(when + 1)
        assert k.service.calls == [0.0, pytest.approx(when)]
        second = k.keeper.current()
        assert second is not None
        assert (first.generation, second.generation) == (1, 2)
        assert k.keeper.fetched == 2
        assert k.events == [
            TokenRefreshed(generation=1, lifetime=3600.0),
            TokenRefreshed(generation=2, lifetime=3600.0),
        ]
        told = [record for record in caplog.records if record.name == "connector_async.auth"]
        assert [record.getMessage() for record in told] == ["AppJWT renewed, it lives 3600 s"] * 2
        assert [record.__dict__["generation"] for record in told] == [1, 2]


async def test_the_old_token_serves_while_a_renewal_is_slow() -> None:
    """Stale is usable."""
    async with kept(Service(latency=10.0)) as k:
        await k.keeper.get()
        await anyio.sleep(3245.0)
        assert k.keeper.freshness is Freshness.STALE
        assert (await k.keeper.get()).generation == 1
        await anyio.sleep(10.0)
        assert (await k.keeper.get()).generation == 2


async def test_the_fetch_is_told_which_token_is_no_longer_wanted_and_why() -> None:
    """So that a token that another process fetched can be told from the one that was refused."""
    async with kept() as k:
        await k.keeper.get()
        await anyio.sleep(3_241.0)
        await k.keeper.renew(2, certain=True)
        assert k.service.unwanted == [
            None,
            Unwanted(value="token-1", refused=False),
            Unwanted(value="token-2", refused=True),
        ]


async def test_a_token_that_was_found_is_renewed_by_its_age_and_is_not_counted_as_fetched() -> None:
    """Another process got it 3,000 s ago."""
    async with kept() as k:
        k.service.gives = FetchedToken(value="found", seconds=600.0, age=3_000.0, found=True)
        assert (await k.keeper.get()).value == "found"
        assert k.keeper.fetched == 0
        k.service.gives = None
        await anyio.sleep(241.0)
        assert k.service.calls == [0.0, pytest.approx(240.0)]
        assert k.keeper.fetched == 1


async def test_a_close_ends_the_renewal_under_way() -> None:
    """Nothing is fetched, or waited for, on behalf of a session that is closed."""
    async with kept(Service(latency=10.0)) as k:
        with anyio.move_on_after(1.0):
            await k.keeper.get()
        k.keeper.close()
        await anyio.sleep(0.1)
        assert k.service.cancelled == 1


async def test_a_waiter_that_is_cancelled_does_not_cancel_the_renewal() -> None:
    """Issue 3, item 3."""
    async with kept(Service(latency=1.0)) as k:
        with anyio.move_on_after(0.5):
            await k.keeper.get()
        assert not k.keeper._waiters
        assert (await k.keeper.get()).generation == 1
        assert (len(k.service.calls), k.service.cancelled) == (1, 0)


@pytest.mark.parametrize("n", [1, 10, 100, *(pytest.param(n, marks=pytest.mark.no_cover) for n in (1_000, 5_000))])
async def test_c5_a_revocation_costs_one_renewal_however_late_its_stragglers_come(n: int) -> None:
    """C5: exactly one refresh per revocation; nobody is lost."""
    async with kept(Service(latency=0.3)) as k:
        for storm in range(5):
            token = await k.keeper.get()
            got: list[AppToken] = []

            async def refused(after: float, token: AppToken, got: list[AppToken]) -> None:
                await anyio.sleep(after)
                got.append(await k.keeper.renew(token.generation, certain=True))

            async with anyio.create_task_group() as tasks:
                for number in range(n):
                    tasks.start_soon(refused, 2.0 * number / n, token, got)
            assert len(k.service.calls) == storm + 2
            assert {one.generation for one in got} == {storm + 2}
            assert len(got) == n
            await anyio.sleep(31.0)


async def test_between_two_forced_renewals_lie_30_seconds_and_only_who_was_refused_waits_for_it() -> None:
    """Reliability 1, rule 8: all 401s of one token wait for one renewal; everybody else goes on with it."""
    async with kept() as k:
        await k.keeper.get()
        await k.keeper.renew(1, certain=True)
        assert len(k.service.calls) == 2
        await anyio.sleep(5.0)
        renewed: list[tuple[float, int]] = []

        async def refused(*, certain: bool) -> None:
            token = await k.keeper.renew(2, certain=certain)
            renewed.append((anyio.current_time(), token.generation))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: refused(certain=True))
            await anyio.sleep(1.0)
            tasks.start_soon(lambda: refused(certain=True))
            tasks.start_soon(lambda: refused(certain=False))
            while anyio.current_time() < 29.9:
                assert (await k.keeper.get()).generation == 2
                assert renewed == []
                await anyio.sleep(0.7)
        assert [at for at, _ in renewed] == [pytest.approx(30.0, abs=0.2)] * 3
        assert {generation for _, generation in renewed} == {3}
        assert len(k.service.calls) == 3


async def test_who_was_not_refused_goes_on_while_a_forced_renewal_is_slow() -> None:
    """A token that one request is refused with may hold for all others; they must not stand still with it."""
    async with kept(Service(latency=10.0)) as k:
        await k.keeper.get()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: k.keeper.renew(1, certain=True))
            await anyio.sleep(9.9)
            assert (await k.keeper.get()).generation == 1
            assert anyio.current_time() == pytest.approx(19.9)
        assert (await k.keeper.get()).generation == 2
        assert len(k.service.calls) == 2


@pytest.mark.parametrize("certain", [True, False])
async def test_c7_a_401_while_the_token_service_is_down_costs_nobody_else_the_token(certain: bool) -> None:
    """C7: while the old token holds 0 requests fail. Who was refused learns at once that no other can be had."""
    async with kept() as k:
        await k.keeper.get()
        await anyio.sleep(100.0)
        k.service.failure = down()
        for _ in range(200):
            started = anyio.current_time()
            with pytest.raises(TokenUnavailable):
                await k.keeper.renew(1, certain=certain)
            assert anyio.current_time() - started < 0.1
            assert (await k.keeper.get()).generation == 1
            await anyio.sleep(0.5)
        assert k.service.calls[1:] == [
            pytest.approx(100.0 + after) for after in (0.0, 1.0, 3.0, 7.0, 15.0, 31.0, 63.0)
        ]
        assert {one.refused for one in k.service.unwanted if one is not None} == {True}
        k.service.failure = None
        await anyio.sleep(60.0)
        assert (await k.keeper.renew(1, certain=certain)).generation == 2
        assert len(k.service.calls) == 9


@pytest.mark.parametrize("n", [1, 100, 1_000])
async def test_c5_a_second_revocation_within_half_a_minute_costs_one_renewal_as_soon_as_it_is_allowed(n: int) -> None:
    """Everybody is refused, each at its own time, and each with the token that the others doubt already."""
    async with kept(Service(latency=0.3)) as k:
        await k.keeper.get()
        await k.keeper.renew(1, certain=True)
        renewed_at = anyio.current_time()
        got: list[tuple[float, int]] = []

        async def send(after: float) -> None:
            await anyio.sleep(after)
            token = await k.keeper.get()
            if token.generation == 2:
                token = await k.keeper.renew(2, certain=True)
            got.append((anyio.current_time() - renewed_at, token.generation))

        async with anyio.create_task_group() as tasks:
            for number in range(n):
                tasks.start_soon(send, 31.0 * number / n)
        assert len(got) == n
        assert {generation for _, generation in got} == {3}
        assert min(at for at, _ in got) == pytest.approx(30.3)
        assert len(k.service.calls) == 3


async def test_a_renewal_that_the_clock_makes_serves_those_who_wait_for_a_later_one() -> None:
    """Nobody waits longer than for the next token; and what replaced a doubted one has its 30 seconds, too."""
    async with kept(Service(lifetime=20.0), options=TokenSettings(early=0.0)) as k:
        await k.keeper.get()
        await anyio.sleep(10.0)
        await k.keeper.renew(1, certain=True)
        await anyio.sleep(2.0)
        assert (await k.keeper.renew(2, certain=True)).generation == 3
        assert k.service.calls == [0.0, pytest.approx(10.0), pytest.approx(28.0)]
        assert [one.refused for one in k.service.unwanted if one is not None] == [True, True]
        with pytest.raises(AppTokenRefused):
            await k.keeper.renew(3, certain=False)
        # Nobody doubted the third: the clock replaces it, in its time and for its own reason.
        await anyio.sleep(18.5)
        assert [one.refused for one in k.service.unwanted if one is not None] == [True, True, False]
        assert len(k.service.calls) == 4


async def test_a_401_of_a_token_that_has_ended_meanwhile_waits_for_the_next_one_like_everybody() -> None:
    """No code, and a token that is not 30 seconds old: but that it was refused has a reason now."""
    options = TokenSettings(fraction=1.0, early=0.0)
    async with kept(Service(lifetime=20.0, latency=3.0), options=options) as k:
        await k.keeper.get()
        assert (await k.keeper.renew(1, certain=False)).generation == 2
        await anyio.sleep(21.0)
        assert k.keeper.current() is None
        assert (await k.keeper.renew(2, certain=False)).generation == 3
        assert len(k.service.calls) == 3


async def test_a_renewal_for_later_is_made_once_although_nobody_waits_for_it_any_more() -> None:
    """The token was refused all the same; and the next 401 of it is not the first."""
    async with kept() as k:
        await k.keeper.get()
        await k.keeper.renew(1, certain=True)
        for _ in range(10):
            with anyio.move_on_after(1.0) as gave_up:
                await k.keeper.renew(2, certain=True)
            assert gave_up.cancelled_caught
        assert not k.keeper._waiters
        assert len(k.service.calls) == 2
        await anyio.sleep(1_000.0)
        assert len(k.service.calls) == 3


async def test_a_close_lets_those_go_who_wait_for_a_later_renewal() -> None:
    """Issue 3, item 5; the token that they were refused with is still at hand."""
    async with kept() as k:
        await k.keeper.get()
        await k.keeper.renew(1, certain=True)

        async def refused() -> None:
            with pytest.raises(SessionClosed):
                await k.keeper.renew(2, certain=True)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(refused)
            await anyio.sleep(5.0)
            k.keeper.close()
        assert anyio.current_time() < 5.5
        assert len(k.service.calls) == 2


async def test_c6_without_a_code_a_freshly_renewed_token_is_not_renewed_again() -> None:
    """C6: the consumer may be the cause; the good ones keep their token."""
    async with kept() as k:
        await k.keeper.get()
        assert (await k.keeper.renew(1, certain=False)).generation == 2
        for _ in range(1_000):
            with pytest.raises(AppTokenRefused, match=r"^a freshly renewed AppJWT was refused again"):
                await k.keeper.renew(2, certain=False)
        assert k.keeper.current() is not None
        assert len(k.service.calls) == 2
        await anyio.sleep_until(k.service.calls[1] + 30.0)
        assert (await k.keeper.renew(2, certain=False)).generation == 3


async def test_a_straggler_of_an_old_generation_gets_the_newer_token_without_asking() -> None:
    """A 401 renews only if the generation it was answered to is still the current one."""
    async with kept() as k:
        await k.keeper.get()
        await k.keeper.renew(1, certain=True)
        assert (await k.keeper.renew(1, certain=True)).generation == 2
        assert len(k.service.calls) == 2


async def test_a_straggler_of_a_token_that_ran_its_course_gets_the_newer_one_without_asking() -> None:
    """Nobody refused the old one: the clock renewed it, and its 401 is late."""
    async with kept() as k:
        await k.keeper.get()
        await anyio.sleep(3_241.0)
        assert (await k.keeper.renew(1, certain=True)).generation == 2
        assert len(k.service.calls) == 2


async def test_c7_while_the_old_token_holds_an_outage_is_not_noticed_and_then_known_at_once() -> None:
    """C7: 0 failed requests; then under 100 ms with the cause, also while the next try is under way."""
    async with kept(Service(latency=1.0)) as k:
        await k.keeper.get()
        k.service.failure = down()
        while anyio.current_time() < 3_600.0:
            assert (await k.keeper.get()).generation == 1
            await anyio.sleep(7.0)
        await anyio.sleep(2.0)
        assert k.keeper.failure is not None
        for _ in range(200):
            error = await failing(k.keeper)
            assert (error.status, error.retryable) == (503, True)
            await anyio.sleep(0.61)
        k.service.failure = None
        await anyio.sleep(66.0 + 1.0)
        assert (await k.keeper.get()).generation == 2
        failed = [event for event in k.events if isinstance(event, TokenRefreshFailed)]
        assert [event.wait for event in failed[:8]] == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]


async def test_a_failed_renewal_is_told_with_its_cause_and_a_pause_that_is_up_to_a_tenth_longer(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A fleet does not come back in step, and never earlier than it was asked to."""
    async with kept(Service(failure=down()), random=lambda: 1.0) as k:
        await failing(k.keeper)
        await anyio.sleep(10.0)
        failed = [event for event in k.events if isinstance(event, TokenRefreshFailed)]
        assert [event.wait for event in failed] == [pytest.approx(wait) for wait in (1.1, 2.2, 4.4, 8.8)]
        assert k.service.calls == [pytest.approx(at) for at in (0.0, 1.1, 3.3, 7.7)]
        assert {event.cause for event in failed} == {str(k.keeper.failure)}
        told = [record for record in caplog.records if record.name == "connector_async.auth"]
        assert [record.getMessage() for record in told] == [f"AppJWT renewal failed: {k.keeper.failure}"] * 4
        assert [record.__dict__["wait"] for record in told] == [event.wait for event in failed]


async def test_c7_after_a_429_at_least_five_seconds_pass_even_if_a_401_comes() -> None:
    """C7: the vendor's floor for logins; `Retry-After` is kept, and capped."""
    async with kept() as k:
        await k.keeper.get()
        k.service.failure = down(429)
        for asked, pause in ((None, 5.0), (20.0, 20.0), (10.0**9, 120.0)):
            k.service.failure = TokenUnavailable("slow down", status=429, retry_after=asked)
            before = len(k.service.calls)
            while len(k.service.calls) == before:  # noqa: ASYNC110 - the clock is the thing under test
                await anyio.sleep(0.5)
            at = k.service.calls[-1]
            with pytest.raises(TokenUnavailable):
                await k.keeper.renew(1, certain=True)
            assert (await k.keeper.get()).generation == 1
            await anyio.sleep(pause - 1.0)
            assert k.service.calls[-1] == at


@pytest.mark.no_cover
@settings(max_examples=200)
@given(
    outages=st.lists(
        st.tuples(
            st.floats(0.0, 5_000.0),
            st.floats(0.5, 600.0),
            st.sampled_from([None, 429, 500, 503]),
            st.floats(0.0, 14.0),
        ),
        max_size=4,
    ),
    revocations=st.lists(st.floats(0.0, 9_000.0), max_size=3),
    jitter=st.floats(0.0, 1.0),
)
async def test_c7_any_schedule_of_outages_keeps_the_bounds(
    outages: list[tuple[float, float, int | None, float]], revocations: list[float], jitter: float
) -> None:
    """C7: while a token holds nothing fails; after that, at once; at most one call for each step of the backoff."""
    origin = anyio.current_time()
    async with kept(random=lambda: jitter) as k:
        await k.keeper.get()

        async def outage(start: float, length: float, status: int | None, latency: float) -> None:
            await anyio.sleep(start)
            k.service.failure, k.service.latency = down(status), latency
            await anyio.sleep(length)
            k.service.failure, k.service.latency = None, 0.0

        async def revoke(at: float) -> None:
            await anyio.sleep(at)
            token = k.keeper.current()
            if token is not None:
                with anyio.move_on_after(60.0):
                    try:
                        await k.keeper.renew(token.generation, certain=True)
                    except TokenUnavailable:
                        assert k.keeper.failure is not None

        async with anyio.create_task_group() as tasks:
            for one in outages:
                tasks.start_soon(outage, *one)
            for at in revocations:
                tasks.start_soon(revoke, at)
            last: AppToken | None = None
            while anyio.current_time() - origin < 10_000.0:
                held, failure = k.keeper.current(), k.keeper.failure
                # Whoever was refused with it: for the others a token holds until it ends.
                assert held is not None or last is None or anyio.current_time() >= last.lifetime.expires_at
                last = held
                if held is not None:
                    assert await k.keeper.get() is held
                elif failure is not None:
                    await failing(k.keeper)
                await anyio.sleep(37.3)
        # Whatever happened: one backoff step (66 s at most) after the last outage there is a token.
        k.service.failure, k.service.latency = None, 0.0
        await anyio.sleep(66.1 + 15.0)
        if k.keeper.current() is None:
            await k.keeper.get()
        calls = k.service.calls
        floor = [second - first for first, second in itertools.pairwise(calls)]
        assert all(gap >= 0.1 for gap in floor)


async def test_refused_credentials_are_asked_for_again_by_the_next_request_only() -> None:
    """Asking again does not heal them; a request after the pause may find them mended."""
    async with kept() as k:
        k.service.failure = AppTokenRefused("refused", status=401)
        with pytest.raises(AppTokenRefused):
            await k.keeper.get()
        assert isinstance(await failing(k.keeper), AppTokenRefused)
        assert [event.wait for event in k.events if isinstance(event, TokenRefreshFailed)] == [None]
        await anyio.sleep(10_000.0)
        assert len(k.service.calls) == 1
        k.service.failure = None
        assert (await k.keeper.get()).generation == 1


async def test_refused_credentials_are_tried_on_while_an_older_token_holds() -> None:
    """A vault that rotates."""
    async with kept() as k:
        await k.keeper.get()
        k.service.failure = AppTokenRefused("refused", status=401)
        await anyio.sleep(3_250.0)
        assert len(k.service.calls) > 2
        assert (await k.keeper.get()).generation == 1
        k.service.failure = None
        await anyio.sleep(61.0)
        assert (await k.keeper.get()).generation == 2


async def test_an_error_of_an_unknown_kind_is_a_failed_renewal_whose_words_are_not_logged(
    caplog: pytest.LogCaptureFixture, canary: str
) -> None:
    """A foreign transport may quote the form, and with it the secret."""
    async with kept() as k:
        k.service.failure = ZeroDivisionError(f"{canary}-secret")
        with pytest.raises(TokenUnavailable, match="ZeroDivisionError") as caught:
            await k.keeper.get()
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
        told = next(record for record in caplog.records if record.name == "connector_async.auth")
        assert told.levelno == logging.ERROR
        assert told.getMessage() == "the token renewal failed in an unexpected way (ZeroDivisionError)"


async def test_each_waiter_gets_an_error_of_its_own() -> None:
    """Tracebacks must not pile up on one object."""
    async with kept(Service(latency=1.0, failure=down())) as k:
        errors: list[AuthError] = []

        async def ask() -> None:
            try:
                await k.keeper.get()
            except AuthError as error:
                errors.append(error)

        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(ask)
        assert len({id(error) for error in errors}) == 3


async def test_a_close_lets_all_waiters_go_and_later_ones_too() -> None:
    """Issue 3, item 5."""
    async with kept(Service(latency=1.0)) as k:
        ended: list[SessionClosed] = []

        async def ask() -> None:
            try:
                await k.keeper.get()
            except SessionClosed as error:
                ended.append(error)

        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(ask)
            await anyio.sleep(0.5)
            k.keeper.close()
        assert [error.args for error in ended] == [("the session closed while a token was awaited",)] * 10
        k.keeper.close()
        with pytest.raises(SessionClosed) as caught:
            await k.keeper.get()
        assert caught.value.args == ("the session is closed",)
        with pytest.raises(SessionClosed):
            await k.keeper.renew(7, certain=True)


async def test_a_close_ends_the_task_that_sleeps_and_nobody_needs_to_listen() -> None:
    """Nothing is left to cancel; without hooks no events are made."""
    service = Service(failure=down())
    async with anyio.create_task_group() as tasks:
        keeper = TokenKeeper(
            service.fetch,
            clock=current_clock(tasks),
            random=lambda: 0.0,
            settings=TokenSettings(),
            hooks=Hooks(),
        )
        tasks.start_soon(keeper.run)
        with pytest.raises(TokenUnavailable):
            await keeper.get()
        service.failure = None
        await anyio.sleep(2.0)
        await keeper.get()
        keeper.close()


async def test_a_service_whose_tokens_do_not_live_is_not_asked_without_pause() -> None:
    """C7, malformed: `expires_in` of a millisecond must not become a thousand calls a second."""
    async with kept(Service(lifetime=0.001, latency=0.002)) as k:
        for _ in range(20):
            try:
                await k.keeper.get()
            except TokenUnavailable as error:
                assert "ended as soon as" in str(error)
            await anyio.sleep(0.05)
        calls = k.service.calls
        assert all(second - first >= 0.1 for first, second in itertools.pairwise(calls))


async def test_a_renewal_late_enough_for_the_token_to_have_ended_says_so() -> None:
    """The loop was blocked for longer than the token lives."""
    async with kept(Service(lifetime=0.0)) as k:
        with pytest.raises(TokenUnavailable) as caught:
            await k.keeper.get()
    assert caught.value.args == ("the AppJWT ended as soon as it was renewed",)
    assert caught.value.hint == "check the clock and lifetime"


async def test_a_demand_during_a_renewal_is_served_by_it() -> None:
    """A 401 that comes while the background renewal is under way."""
    async with kept(Service(latency=1.0)) as k:
        await k.keeper.get()
        await anyio.sleep(3_240.5)
        assert (await k.keeper.renew(1, certain=True)).generation == 2
        await anyio.sleep(100.0)
        assert len(k.service.calls) == 2


async def test_no_secret_shows_in_reprs(canary: str) -> None:
    """S1."""
    fetched = FetchedToken(value=f"{canary}-token", seconds=1.0)
    async with kept() as k:
        token = attrs.evolve(await k.keeper.get(), value=f"{canary}-token")
    assert_canary_absent(fetched, token, Unwanted(value=f"{canary}-token", refused=True))


@pytest.mark.parametrize(
    "odd",
    [
        {"fraction": 0.0},
        {"fraction": 1.1},
        {"fraction": math.nan},
        {"early": -1.0},
        {"forced_interval": -1.0},
        {"throttled_backoff": -1.0},
        {"backoff": 0.0},
        {"backoff": math.nan},
        {"backoff": 2.0, "longest_backoff": 1.0},
        {"longest_backoff": math.nan},
    ],
)
def test_settings_that_cannot_work_are_refused(odd: dict[str, float]) -> None:
    """Validators check what we promise."""
    with pytest.raises(ValueError, match=r"fraction|times|longest_backoff"):
        TokenSettings(**odd)
