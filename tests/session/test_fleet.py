"""Several sessions on one store, as several processes are: one AppJWT for all."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from connector_async import ConnectorSession, MemoryStore
from connector_async.store import PostgresStore, SqliteStore, Store
from connector_async.store.tokens import PlaintextTokens
from tests.auth.shares import SharingStore
from tests.backends import ASYNCIO
from tests.session.rig import FakeCloud, session_over
from tests.store.postgres_server import PostgresPlace, postgres, postgres_server

__all__ = ["postgres", "postgres_server"]

pytestmark = pytest.mark.anyio

KEY = ("12345678", "client")


@asynccontextmanager
async def fleet(cloud: FakeCloud, store: MemoryStore | None, size: int = 4) -> AsyncIterator[list[ConnectorSession]]:
    with anyio.fail_after(20_000):
        async with AsyncExitStack() as stack:
            options: dict[str, Any] = {} if store is None else {"store": store}
            yield [await stack.enter_async_context(session_over(cloud, **options)) for _ in range(size)]


async def send_all(sessions: list[ConnectorSession], text: str = "hello") -> None:
    """Each session sends one message, all at once."""
    async with anyio.create_task_group() as tasks:
        for number, session in enumerate(sessions):
            tasks.start_soon(session.conversation("c-1", f"customer-{number}").send_text, text)


async def test_four_sessions_start_with_one_token_call() -> None:
    """Issue 7, item 4."""
    cloud = FakeCloud(latency=0.3)
    async with fleet(cloud, SharingStore()) as sessions:
        await send_all(sessions)
        assert len(cloud.token_posts) == 1
        assert sorted(session.stats().tokens_fetched for session in sessions) == [0, 0, 0, 1]


async def test_sessions_with_a_store_of_their_own_do_not_know_of_each_other() -> None:
    """Nothing changes for who passes no store."""
    cloud = FakeCloud(latency=0.3)
    async with fleet(cloud, None) as sessions:
        await send_all(sessions)
        assert len(cloud.token_posts) == 4


async def test_a_store_that_keeps_no_tokens_shares_none() -> None:
    """A durable store without a seal."""

    class Unsealed(SharingStore):
        @property
        def shares_tokens(self) -> bool:
            return False

    cloud = FakeCloud()
    store = Unsealed()
    async with fleet(cloud, store) as sessions:
        await send_all(sessions)
        assert len(cloud.token_posts) == 4
        assert not store.calls


async def test_the_end_of_a_token_costs_the_fleet_one_call_and_no_message() -> None:
    """Sent through three renewals."""
    cloud = FakeCloud(latency=0.3)
    async with fleet(cloud, SharingStore()) as sessions:
        while anyio.current_time() < 3 * 3_600:
            await send_all(sessions)
            await anyio.sleep(120.0)
        assert len(cloud.token_posts) == 4
        assert len(cloud.accepted) == len(cloud.message_posts)


async def test_a_revoked_token_costs_the_fleet_one_call_and_each_message_one_more_attempt() -> None:
    """C5, of a fleet; every time."""
    cloud = FakeCloud(latency=0.3)
    async with fleet(cloud, SharingStore()) as sessions:
        await send_all(sessions)
        for revocation in range(1, 6):
            await anyio.sleep(600.0)
            cloud.revoke()
            await send_all(sessions)
            assert len(cloud.token_posts) == 1 + revocation
        assert len(cloud.message_posts) == 4 * 6 + 4 * 5
        assert set(cloud.accepted.values()) == {1}


async def test_a_process_killed_while_it_renews_is_followed_by_another_before_the_token_ends() -> None:
    """Between lease and put; no message notices, and there is one call more."""

    class Killing(SharingStore):
        killed_at = 0.0

        async def acquire_lease(self, account_id: str, name: str, *, owner: str, seconds: float) -> int | None:
            if self.tokens and not self.killed_at:
                # A fifth process was a little quicker, and is no more.
                self.killed_at = anyio.current_time()
                await super().acquire_lease(account_id, name, owner="killed", seconds=seconds)
            return await super().acquire_lease(account_id, name, owner=owner, seconds=seconds)

    cloud = FakeCloud(latency=0.3)
    store = Killing()
    async with fleet(cloud, store) as sessions:
        while anyio.current_time() < 3_700.0:
            await send_all(sessions)
            await anyio.sleep(5.0)
        assert [post.at for post in cloud.token_posts] == [0.0, pytest.approx(store.killed_at + 20.0, abs=0.5)]
        assert len(cloud.accepted) == len(cloud.message_posts)


async def test_a_session_that_closes_while_it_renews_lets_the_next_one() -> None:
    """The lease is given back at the close."""
    cloud = FakeCloud(latency=10.0)
    store = SharingStore()
    async with fleet(cloud, store, 1):
        with anyio.move_on_after(1.0):
            async with session_over(cloud, store=store, drain=0.0) as session:
                await session.conversation("c-1", "customer").send_text("hello")
        assert store.leases == {}


async def test_without_its_store_each_session_has_a_token_of_its_own() -> None:
    """The store must never cost a token."""
    cloud = FakeCloud(latency=0.3)
    store = SharingStore()
    store.failing.update({"get", "put", "acquire", "release"})
    async with fleet(cloud, store) as sessions:
        await send_all(sessions)
        assert len(cloud.token_posts) == 4
        assert len(cloud.accepted) == 4


async def test_a_token_in_a_restarted_session_is_the_one_its_predecessor_left() -> None:
    """No call of the token service at a restart."""
    cloud = FakeCloud()
    store = SharingStore()
    for _ in range(3):
        async with fleet(cloud, store, 1) as sessions:
            await send_all(sessions)
    assert len(cloud.token_posts) == 1


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def another_store(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Store]:
    """One more look at the same data, with connections of its own, as each process has them."""
    if request.param == "memory":
        memory = MemoryStore()
        return lambda: memory
    if request.param == "sqlite":
        return lambda: SqliteStore(tmp_path / "store.db", tokens=PlaintextTokens())
    place: PostgresPlace = request.getfixturevalue("postgres")
    return lambda: PostgresStore(place.dsn, schema=place.schema, tokens=PlaintextTokens())


@pytest.mark.parametrize("anyio_backend", [ASYNCIO])
async def test_on_every_engine_sessions_share_a_token_its_renewal_and_their_consumers(
    another_store: Callable[[], Store],
) -> None:
    """In real time, for the half second that it takes to wait for the one that renews."""
    cloud = FakeCloud()
    with anyio.fail_after(30):
        async with AsyncExitStack() as stack:
            sessions: list[ConnectorSession] = []
            for _ in range(4):
                store = another_store()
                stack.push_async_callback(store.aclose)
                sessions.append(await stack.enter_async_context(session_over(cloud, store=store)))
            await send_all(sessions)
            assert (len(cloud.token_posts), len(cloud.consumer_posts)) == (1, 4)
            cloud.revoke()
            await send_all(sessions)
            assert len(cloud.token_posts) == 2
            # A consumer that another session has sent for is known here too.
            await send_all(sessions[::-1])
            assert (len(cloud.token_posts), len(cloud.consumer_posts)) == (2, 4)
            assert set(cloud.accepted.values()) == {1}
