"""Connections to PostgreSQL that are not what they were: forked with their process, timed out, to a standby now."""

from __future__ import annotations

import sys
from typing import Any

import anyio
import anyio.to_thread
import pytest

from connector_async.errors import StoreUnavailable
from connector_async.store import PostgresStore
from tests.store.postgres_server import PostgresPlace
from tests.store.test_postgres import A, new_store

pytestmark = pytest.mark.anyio

_FORKER = """
import os, sys
import anyio
from connector_async.store import PostgresStore

store = PostgresStore(sys.argv[1], schema=sys.argv[2], max_connections=2)

async def backends():
    seen = set()
    async def work(db):
        seen.add((await (await db.execute("SELECT pg_backend_pid()")).fetchone())[0])
        if len(seen) < 2:
            await both.wait()
        else:
            both.set()
    both = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(store._engine.run, work)
        tasks.start_soon(store._engine.run, work)
    return seen

async def child():
    print("child", not await backends() & parents, flush=True)
    await store.aclose()

parents = anyio.run(backends)
if os.fork() == 0:
    anyio.run(child)
    os._exit(0)
os.wait()
print("parent", anyio.run(backends) == parents)
anyio.run(store.aclose)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
async def test_a_child_that_was_forked_speaks_on_connections_of_its_own(postgres: PostgresPlace) -> None:
    """Both spoke on the parent's: each was told what the other had asked, such as another consumer's token."""
    command = [sys.executable, "-c", _FORKER, postgres.dsn, postgres.schema]
    done = await anyio.run_process(command, check=True, stderr=None)
    assert done.stdout.split() == [b"child", b"True", b"parent", b"True"]


async def test_nobody_waits_for_ever_for_a_process_that_is_paused_while_it_makes_the_tables(
    postgres: PostgresPlace,
) -> None:
    import psycopg

    store = new_store(postgres, patience=0.05)
    async with await psycopg.AsyncConnection.connect(postgres.dsn) as other:
        await other.execute(
            "SELECT pg_advisory_xact_lock(hashtext('connector_async'), hashtext(%s))", (postgres.schema,)
        )
        with anyio.fail_after(60), pytest.raises(StoreUnavailable, match="55P03"):
            await store.first_time(A, "k")
    await store.aclose()


async def test_work_that_was_paused_for_too_long_in_a_transaction_is_done_again(postgres: PostgresPlace) -> None:
    """The server ended it between two statements, and says so."""
    import psycopg

    store = new_store(postgres)
    runs: list[int] = []

    async def work(_db: Any) -> int:
        runs.append(len(runs))
        if len(runs) == 1:
            raise psycopg.errors.IdleInTransactionSessionTimeout
        return len(runs)

    assert await store._engine.transact(work) == 2
    await store.aclose()


async def test_connections_to_a_server_that_is_a_standby_now_are_not_kept(postgres: PostgresPlace) -> None:
    """Behind the same address another server may be the primary."""
    store = new_store(postgres)
    assert await store.first_time(A, "1")
    await store._engine.run(lambda db: db.execute("SET default_transaction_read_only = on"))
    with pytest.raises(StoreUnavailable, match="25006"):
        await store.first_time(A, "2")
    assert await store.first_time(A, "2")
    await store.aclose()


async def test_a_second_event_loop_is_told_so_and_does_not_wait(postgres: PostgresPlace) -> None:
    """Its callers waited for those of the first, which could not wake them."""
    store = new_store(postgres, max_connections=1)

    async def from_a_thread() -> bool:
        return await anyio.to_thread.run_sync(lambda: anyio.run(store.first_time, A, "k"))

    async with store._engine._connection():
        with store._engine._in_this_loop(), pytest.raises(RuntimeError, match="another event loop"):
            await from_a_thread()
    await store.aclose()
    assert store._engine._calls == 0


@pytest.mark.parametrize(
    ("dsn", "libpq", "idle", "whole"),
    [("host=db", 150_000, 7, 28_000), ("host=db keepalives_idle=99", 150_000, None, 28_000), ("", 110_000, 7, None)],
)
async def test_a_server_that_is_gone_without_a_word_is_not_waited_for_as_long_as_the_system_would(
    dsn: str, libpq: int, idle: int | None, whole: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two hours by itself; what the address says is left."""
    import psycopg

    asked: dict[str, Any] = {}

    async def connect(_dsn: str, **options: Any) -> None:
        asked.update(options)
        raise psycopg.OperationalError

    monkeypatch.setattr(psycopg.AsyncConnection, "connect", connect)
    monkeypatch.setattr(psycopg.pq, "version", lambda: libpq)
    store = PostgresStore(dsn, patience=7.0)
    with pytest.raises(StoreUnavailable):
        await store.first_time(A, "k")
    assert (asked["connect_timeout"], asked["keepalives_interval"], asked["keepalives_count"]) == (7, 7, 3)
    assert (asked.get("keepalives_idle"), asked.get("tcp_user_timeout")) == (idle, whole)
    await store.aclose()


async def test_the_isolation_of_transactions_is_not_the_servers_choice(postgres: PostgresPlace) -> None:
    """Where it is stricter, whoever waited for a lock had to begin anew, and was refused after five times."""
    dsn = f"{postgres.dsn} options='-c default_transaction_isolation=serializable'"
    store = PostgresStore(dsn, schema=postgres.schema)

    async def work(db: Any) -> tuple[str]:
        found: tuple[str] = await (await db.execute("SHOW transaction_isolation")).fetchone()
        return found

    assert await store._engine.transact(work) == ("read committed",)
    await store.aclose()
