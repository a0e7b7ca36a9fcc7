"""One AppJWT for many keepers on one store."""

from __future__ import annotations

import base64
import json
import traceback
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
import attrs
import pytest
from trio.testing import MockClock

from connector_async._concurrency import Clock, current_clock
from connector_async.auth import AppCredentials, AppTokenSource, TokenKeeper, TokenSettings
from connector_async.auth._shared import SharedAppToken
from connector_async.errors import TokenUnavailable
from connector_async.hooks import Hooks
from connector_async.store.tokens import SharedToken
from tests.auth.shares import SharingStore
from tests.doubles import BASE, FakeCloud, ScriptedTransport, answer
from tests.guards import CANARY

pytestmark = pytest.mark.anyio

KEY = ("12345678", "client")


@attrs.define(eq=False)
class Fleet:
    """Keepers that share a store and a token service."""

    cloud: FakeCloud
    store: SharingStore
    keepers: list[TokenKeeper]
    scopes: list[anyio.CancelScope]

    async def values(self) -> list[str]:
        """What each of them uses, all asking at once."""
        found: list[str] = [""] * len(self.keepers)

        async def ask(number: int, keeper: TokenKeeper) -> None:
            found[number] = (await keeper.get()).value

        async with anyio.create_task_group() as tasks:
            for number, keeper in enumerate(self.keepers):
                tasks.start_soon(ask, number, keeper)
        return found

    async def all_refused(self) -> list[str]:
        """What each of them uses after all their tokens were answered with 401."""
        found: list[str] = []

        async def ask(keeper: TokenKeeper) -> None:
            token = keeper.current()
            assert token is not None
            found.append((await keeper.renew(token.generation, certain=True)).value)

        async with anyio.create_task_group() as tasks:
            for keeper in self.keepers:
                tasks.start_soon(ask, keeper)
        return found

    @property
    def calls(self) -> int:
        return len(self.cloud.token_posts)


@asynccontextmanager
async def fleet(
    size: int = 4, *, cloud: FakeCloud | None = None, store: SharingStore | None = None, **options: Any
) -> AsyncIterator[Fleet]:
    cloud = cloud or FakeCloud(latency=0.3)
    store = store or SharingStore()
    whole = Fleet(cloud, store, [], [])
    async with AsyncExitStack() as stack:
        stack.enter_context(anyio.fail_after(50_000))
        transport = await stack.enter_async_context(ScriptedTransport(cloud))
        tasks = await stack.enter_async_context(anyio.create_task_group())
        for number in range(size):
            clock = current_clock(tasks)
            keeper = _keeper(number, clock, transport, store, **options)
            scope = anyio.CancelScope()
            whole.keepers.append(keeper)
            whole.scopes.append(scope)
            tasks.start_soon(_run, scope, keeper)
        yield whole
        tasks.cancel_scope.cancel()


def _keeper(
    number: int,
    clock: Clock,
    transport: ScriptedTransport,
    store: SharingStore,
    *,
    credentials: Any = None,
    settings: TokenSettings | None = None,
) -> TokenKeeper:
    async def at_home(_service: str) -> str:
        return BASE

    source = AppTokenSource(
        "12345678",
        credentials or AppCredentials("client", f"{CANARY}-secret"),
        transport=transport,
        resolve=at_home,
        now=clock.time,
    )
    settings = settings or TokenSettings()
    shared = SharedAppToken(
        "12345678", source, share=store, owner=f"session-{number}", clock=clock, settings=settings
    )
    jitter = number / 10
    return TokenKeeper(shared.fetch, clock=clock, random=lambda: jitter, settings=settings, hooks=Hooks())


async def _run(scope: anyio.CancelScope, keeper: TokenKeeper) -> None:
    with scope:
        await keeper.run()


async def test_many_start_with_one_call() -> None:
    """Issue 7, item 4: one AppJWT for all processes."""
    async with fleet() as f:
        assert await f.values() == ["app.1"] * 4
        assert f.calls == 1
        assert sum(keeper.fetched for keeper in f.keepers) == 1
        assert f.store.leases == {}


def test_trio_shares_as_well() -> None:
    """The slots and timers of the other loop, on its own clock that jumps."""

    async def run() -> None:
        async with fleet() as f:
            assert await f.values() == ["app.1"] * 4
            await f.all_refused()
            assert f.calls == 2

    anyio.run(run, backend="trio", backend_options={"clock": MockClock(autojump_threshold=0)})


async def test_each_renewal_costs_one_call_and_nobody_is_ever_without_a_token() -> None:
    """Six hours, each with its own jitter."""
    async with fleet() as f:
        await f.values()
        while anyio.current_time() < 6 * 3_600:
            await anyio.sleep(60.0)
            assert all(keeper.current() is not None for keeper in f.keepers)
        # The first of four is due after 87.3 % of its life (its jitter), and renews for all: 6.9 times in 6 h.
        assert f.calls == 7
        assert sum(keeper.fetched for keeper in f.keepers) == 7


async def test_tokens_that_live_briefly_are_shared_as_well() -> None:
    """Near its end is meant by its life, not in minutes."""
    async with fleet(cloud=FakeCloud(lifetime=20.0)) as f:
        await f.values()
        while anyio.current_time() < 200.0:
            await anyio.sleep(1.0)
            assert all(keeper.current() is not None for keeper in f.keepers)
        assert f.calls <= 12


async def test_a_revocation_costs_one_call_for_all() -> None:
    """C5, of a fleet."""
    async with fleet() as f:
        await f.values()
        await anyio.sleep(100.0)
        f.cloud.revoke()
        assert await f.all_refused() == ["app.2"] * 4
        assert f.calls == 2


async def test_after_a_revocation_an_older_token_of_another_is_not_tried() -> None:
    """It is most likely revoked too; a request is sent again only once."""
    async with fleet(2) as f:
        await f.values()
        # The second is due earlier by its jitter; the first still uses its own.
        await anyio.sleep(3_239.0)
        assert await f.values() == ["app.1", "app.2"]
        f.cloud.revoke()
        assert await f.all_refused() == ["app.3"] * 2
        assert f.calls == 3


async def test_a_holder_that_died_is_followed_when_its_lease_ends_and_before_the_token_does() -> None:
    """Issue 7, item 4: lease lost, the next takes over before expiry."""
    async with fleet() as f:
        await f.values()
        await anyio.sleep(3_130.0)
        # Killed between lease and put.
        assert await f.store.acquire_lease(*KEY, owner="killed", seconds=20.0) is not None
        await anyio.sleep(19.0)
        assert f.calls == 1
        await anyio.sleep(5.0)
        assert f.calls == 2
        assert f.keepers[3].current() is not None
        await anyio.sleep(3_600.0 - anyio.current_time())
        assert await f.values() == ["app.2"] * 4
        assert f.calls == 2


async def test_a_holder_that_never_ends_is_not_waited_for_longer_than_half_a_minute() -> None:
    """Whatever the store says, there is a token."""
    async with fleet(1) as f:
        await f.store.acquire_lease(*KEY, owner="stuck", seconds=10_000.0)
        assert await f.values() == ["app.1"]
        assert anyio.current_time() == pytest.approx(30.5, abs=0.5)
        assert f.store.tokens == {}
        assert f.store.leases[KEY].owner == "stuck"


async def test_a_renewal_that_is_cancelled_gives_the_lease_back() -> None:
    """The next does not wait for its end."""
    async with fleet(2) as f:
        f.cloud.latency = 10.0
        with anyio.move_on_after(1.0):
            await f.keepers[0].get()
        assert f.store.leases[KEY].owner == "session-0"
        f.scopes[0].cancel()
        await anyio.sleep(0.1)
        assert f.store.leases == {}
        f.cloud.latency = 0.0
        assert (await f.keepers[1].get()).value == "app.1"


async def test_a_renewal_cancelled_while_the_lease_is_being_given_gives_it_back() -> None:
    """The store may have given it although the answer never came."""
    async with fleet(1) as f:
        f.store.hanging.add("acquire")
        with anyio.move_on_after(1.0):
            await f.keepers[0].get()
        assert f.store.leases[KEY].owner == "session-0"
        f.scopes[0].cancel()
        await anyio.sleep(0.1)
        assert f.store.leases == {}


async def test_giving_the_lease_back_is_not_waited_for_for_ever() -> None:
    """A close must not hang on a store that does."""
    async with fleet(1) as f:
        f.store.hanging.add("release")
        f.cloud.latency = 10.0
        with anyio.move_on_after(1.0):
            await f.keepers[0].get()
        f.scopes[0].cancel()
        await anyio.sleep(3.1)
        assert f.store.calls["release"] == 1


@pytest.mark.parametrize("where", ["get", "acquire", "put", "release"])
@pytest.mark.parametrize("how", ["failing", "hanging"])
async def test_a_store_that_fails_costs_no_token_and_is_logged_once(
    where: str, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Each fetches its own then, within seconds; once the store works again, they share again."""
    async with fleet(2) as f:
        getattr(f.store, how).add(where)
        values = await f.values()
        assert all(value.startswith("app.") for value in values)
        assert anyio.current_time() < 10.0
        await anyio.sleep(3_500.0)
        warned = [record for record in caplog.records if "shares no AppJWT" in record.message]
        assert 1 <= len(warned) <= 8
        assert "row" not in caplog.text
        getattr(f.store, how).clear()
        await anyio.sleep(30.0)
        await f.all_refused()
        assert len({keeper.current().value for keeper in f.keepers}) == 1  # type: ignore[union-attr]  # they have one


async def test_a_store_that_is_down_is_logged_once_however_often_it_is_asked(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """And again only after it has worked in between."""
    async with fleet(1) as f:
        f.store.failing.add("get")
        await f.values()
        await anyio.sleep(20_000.0)
        assert f.calls == 7
        assert len([record for record in caplog.records if "shares no AppJWT" in record.message]) == 1


async def test_no_error_of_the_token_service_has_the_stores_words_behind_it() -> None:
    """A database may quote the row, and with it the token."""
    async with fleet(1) as f:
        f.store.failing.add("get")
        f.cloud.on_token = down
        with pytest.raises(TokenUnavailable) as caught:
            await f.keepers[0].get()
        failure = f.keepers[0].failure
        assert failure is not None
        assert "row" not in "".join(traceback.format_exception(caught.value) + traceback.format_exception(failure))
        assert failure.__context__ is None


async def test_a_new_session_takes_what_it_finds_and_renews_it_by_its_age() -> None:
    """No call at a restart; the life is known from the token itself."""
    store = SharingStore()
    await store.put_app_token(*KEY, value=jwt(3_600), seconds=1_000.0, fence=1)
    async with fleet(1, store=store) as f:
        assert await f.values() == [jwt(3_600)]
        await anyio.sleep(639.0)
        assert f.calls == 0
        await anyio.sleep(2.0)
        assert f.calls == 1


@pytest.mark.parametrize("seconds", [300.0, 1.0])
async def test_a_token_near_its_end_is_not_taken_but_renewed(seconds: float) -> None:
    """Who holds the lease renews; what is past the point of renewal does not count as new."""
    store = SharingStore()
    await store.put_app_token(*KEY, value=jwt(3_600), seconds=seconds, fence=0)
    async with fleet(store=store) as f:
        assert await f.values() == ["app.1"] * 4
        assert f.calls == 1


async def test_who_starts_while_the_token_service_is_down_takes_what_is_near_its_end() -> None:
    """The sessions that run have it too; each goes on asking for a new one."""
    store, cloud = SharingStore(), FakeCloud()
    cloud.on_token = down
    await store.put_app_token(*KEY, value=jwt(3_600), seconds=300.0, fence=0)
    async with fleet(cloud=cloud, store=store) as f:
        assert await f.values() == [jwt(3_600)] * 4
        await anyio.sleep(200.0)
        cloud.on_token = cloud.give_token
        await anyio.sleep(70.0)
        assert set(await f.values()) == {"app.1"}


async def test_a_token_that_ends_while_the_token_service_is_asked_is_not_taken() -> None:
    """It was near its end."""

    async def slow(_post: Any) -> Any:
        await anyio.sleep(10.0)
        return answer(503)

    store, cloud = SharingStore(), FakeCloud()
    cloud.on_token = slow
    await store.put_app_token(*KEY, value=jwt(3_600), seconds=5.0, fence=0)
    async with fleet(1, cloud=cloud, store=store) as f:
        with pytest.raises(TokenUnavailable):
            await f.keepers[0].get()


async def test_no_old_token_stands_in_for_a_refused_one() -> None:
    """What revoked the one has most likely revoked the other."""
    async with fleet(1) as f:
        await f.values()
        await f.store.put_app_token(*KEY, value=jwt(3_600), seconds=1_000.0, fence=9)
        f.cloud.on_token = down
        with pytest.raises(TokenUnavailable):
            await f.keepers[0].renew(1, certain=True)


async def test_a_token_of_unknown_life_is_taken_as_long_as_it_lives() -> None:
    """An opaque one, at a cold start."""
    store = SharingStore()
    await store.put_app_token(*KEY, value="opaque", seconds=10.0, fence=0)
    async with fleet(store=store) as f:
        assert await f.values() == ["opaque"] * 4
        await anyio.sleep(9.5)
        assert await f.values() == ["app.1"] * 4
        assert f.calls == 1


@pytest.mark.parametrize(
    "odd",
    [
        SharedToken(value="ended", seconds=-1.0),
        SharedToken(value="endless", seconds=float("nan")),
        SharedToken(value="", seconds=1_000.0),
        SharedToken(value="two\r\nlines", seconds=1_000.0),
    ],
)
async def test_what_cannot_be_a_living_token_is_none(odd: SharedToken) -> None:
    """A store may be damaged, and its seal may have another key: no call fails for that, and no header is odd."""

    class Odd(SharingStore):
        async def get_app_token(self, account_id: str, name: str) -> SharedToken | None:
            return await super().get_app_token(account_id, name) or odd

    async with fleet(store=Odd()) as f:
        assert await f.values() == ["app.1"] * 4
        assert f.calls == 1


async def test_a_token_put_between_the_look_and_the_lease_is_taken() -> None:
    """The holder before us was quick."""

    class Quick(SharingStore):
        async def acquire_lease(self, account_id: str, name: str, *, owner: str, seconds: float) -> int | None:
            self.tokens[account_id, name] = ("quick", anyio.current_time() + 3_600.0, 0)
            return await super().acquire_lease(account_id, name, owner=owner, seconds=seconds)

    async with fleet(1, store=Quick()) as f:
        assert await f.values() == ["quick"]
        assert f.calls == 0
        assert f.store.leases == {}


async def test_a_holder_that_wakes_late_keeps_its_token_to_itself() -> None:
    """Fencing: a later holder has put another."""
    async with fleet(1) as f:
        f.cloud.latency = 10.0
        f.store.tokens[KEY] = ("later", 0.0, 100)
        assert await f.values() == ["app.1"]
        assert f.store.tokens[KEY][0] == "later"


async def test_a_token_service_that_fails_lets_the_next_try_at_once() -> None:
    """The lease is not kept through the back-off."""

    cloud = FakeCloud()
    cloud.on_token = down
    async with fleet(cloud=cloud) as f:
        for keeper in f.keepers:
            with pytest.raises(TokenUnavailable):
                await keeper.get()
        assert anyio.current_time() < 1.0
        assert f.store.leases == {}
        cloud.on_token = cloud.give_token
        await anyio.sleep(3.0)
        assert len(set(await f.values())) == 1


async def test_a_callable_is_asked_once_for_each_renewal_and_its_client_id_is_the_name() -> None:
    """Two app installations of one account do not mix."""
    asked = 0

    async def vault() -> AppCredentials:
        nonlocal asked
        asked += 1
        return AppCredentials("client", f"{CANARY}-secret")

    async with fleet(1, credentials=vault) as f:
        await f.values()
        assert asked == 1
        assert list(f.store.tokens) == [KEY]


async def test_a_token_that_was_given_up_is_not_taken_again() -> None:
    """Not even when the store, once it is back, still has it."""
    async with fleet(1) as f:
        await f.values()
        f.store.failing.add("put")
        await f.all_refused()
        await anyio.sleep(31.0)
        assert f.store.tokens[KEY][0] == "app.1"
        assert await f.all_refused() == ["app.3"]


async def test_a_failure_is_retried_without_noting_the_same_token_twice() -> None:
    """The keeper names the same unwanted token at each try."""

    async with fleet(1) as f:
        await f.values()
        f.cloud.on_token = down
        with pytest.raises(TokenUnavailable):
            await f.keepers[0].renew(1, certain=True)
        f.cloud.on_token = f.cloud.give_token
        await anyio.sleep(100.0)
        assert await f.values() == ["app.2"]


async def down(_post: Any) -> Any:
    return answer(503)


def jwt(life: int) -> str:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    return f"{part({'alg': 'RS256'})}.{part({'iat': 1_000, 'exp': 1_000 + life})}.c2ln"
