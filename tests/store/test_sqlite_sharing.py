"""One SQLite file where processes, threads, tasks and names meet: nothing is lost, and nobody waits in vain."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from connector_async.errors import StoreUnavailable
from connector_async.store import SqliteStore, _sqlite_engine

pytestmark = pytest.mark.anyio

A = "12345678"


async def test_a_cancellation_that_heeds_no_shield_lets_nobody_at_the_connection_meanwhile(tmp_path: Path) -> None:
    """asyncio.timeout and TaskGroup cancel like that: the next in line came into the transaction under way."""
    store = SqliteStore(tmp_path / "s.db")
    await store.first_time(A, "open it")
    begun, go_on = threading.Event(), threading.Event()

    def write(db: sqlite3.Connection) -> None:
        begun.set()
        go_on.wait(20)
        db.execute("INSERT INTO seen (account_id, key) VALUES (?, 'a')", (A,))

    first = asyncio.create_task(store._engine.write(write))
    await anyio.to_thread.run_sync(begun.wait)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    with anyio.fail_after(20):
        second = asyncio.create_task(store.first_time(A, "b"))
        while not store._engine.line.limiter.borrowed_tokens:
            await anyio.lowlevel.checkpoint()
        closed = asyncio.create_task(store.aclose())
        await anyio.lowlevel.checkpoint()
        go_on.set()
        assert await second
        await closed
    again = SqliteStore(tmp_path / "s.db")
    assert not await again.first_time(A, "a")
    await again.aclose()


def test_the_event_loops_of_several_threads_share_a_store(tmp_path: Path) -> None:
    """A web framework's threads put what a pump sends: they waited for each other for ever."""
    store, first = SqliteStore(tmp_path / "s.db"), list[bool]()

    async def put_all() -> None:
        async def put(task: int) -> None:
            for number in range(10):
                first.append(await store.first_time(A, f"{task} {number}"))

        async with anyio.create_task_group() as tasks:
            for task in range(8):
                tasks.start_soon(put, task)

    threads = [threading.Thread(target=anyio.run, args=(put_all,), daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    anyio.run(store.aclose)
    assert (len(first), sum(first)) == (160, 80)


async def test_what_another_loop_closes_acknowledges_nothing(tmp_path: Path) -> None:
    """Its thread comes to the connection when there is none any more."""
    store = SqliteStore(tmp_path / "s.db")
    await store.first_time(A, "open it")
    with store._engine._using:
        waiting = asyncio.create_task(store.first_time(A, "k"))
        while not store._engine.line.limiter.borrowed_tokens:
            await anyio.lowlevel.checkpoint()
        store._engine._is_closed = True
    with pytest.raises(RuntimeError, match="closed"):
        await waiting
    await store.aclose()


async def test_what_is_begun_for_nobody_any_more_does_not_open_a_closed_store(tmp_path: Path) -> None:
    """A thread that was asked for before the cancellation may come to its turn after the end."""
    store = SqliteStore(tmp_path / "s.db")
    await store.aclose()
    store._engine._run_waiting()
    assert not (tmp_path / "s.db").exists()


async def test_those_who_wait_for_one_lock_wait_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred callers waited a hundred times as long as one, and nobody was told before the last had."""
    store = SqliteStore(tmp_path / "s.db", busy_timeout=0.01)
    await store.first_time(A, "open it")
    tries: list[int] = []
    together = _sqlite_engine._run_together

    def run(connection: sqlite3.Connection, operations: Sequence[Any]) -> None:
        tries.append(len(operations))
        together(connection, operations)

    async def write(key: str) -> None:
        with pytest.raises(StoreUnavailable, match="locked"):
            await store.first_time(A, key)

    monkeypatch.setattr(_sqlite_engine, "_run_together", run)
    with closing(sqlite3.connect(tmp_path / "s.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        async with anyio.create_task_group() as tasks:
            async with store._engine.line.turn:
                for number in range(100):
                    tasks.start_soon(write, str(number))
                await anyio.wait_all_tasks_blocked()
    assert tries == [100]
    await store.aclose()


async def test_a_relative_name_stays_what_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon goes to another folder: what it wrote afterwards was in another file, or nowhere."""
    monkeypatch.chdir(tmp_path)
    store = SqliteStore("s.db")
    assert await store.first_time(A, "1")
    monkeypatch.chdir(tmp_path.parent)
    assert not await store.first_time(A, "1")
    await store.aclose()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no modes")
async def test_a_file_made_through_a_link_is_its_owners_only(tmp_path: Path) -> None:
    """It is made where the link leads, before SQLite would make it for all to read."""
    (tmp_path / "s.db").symlink_to(tmp_path / "elsewhere.db")
    store = SqliteStore(tmp_path / "s.db")
    await store.first_time(A, "1")
    assert (tmp_path / "elsewhere.db").stat().st_mode & 0o077 == 0
    await store.aclose()


_FORKER = """
import os, sys
import anyio
from connector_async.errors import ConfigurationError
from connector_async.store import SqliteStore

async def tell(store, name):
    await store.outbox.claim("1", owner=name, lease=9.0, limit=1)
    print(name, await store.first_time("1", name), flush=True)

async def try_to(store, name):
    try:
        await tell(store, name)
    except ConfigurationError as error:
        print(name, "forked" in str(error), flush=True)
    await store.aclose()

store = SqliteStore(sys.argv[1])
anyio.run(tell, store, "parent")
if os.fork() == 0:
    anyio.run(try_to, store, "inherited")
    anyio.run(try_to, SqliteStore(sys.argv[1]), "new")
    os._exit(0)
os.wait()
print("files", sum("-pump-" in name for name in os.listdir(os.path.dirname(sys.argv[1]))), flush=True)
anyio.run(store.aclose)
if os.fork() == 0:
    anyio.run(tell, SqliteStore(sys.argv[1]), "after")
    os._exit(0)
os.wait()
"""


@pytest.mark.parametrize("name", ["new.db", ":memory:"])
async def test_what_has_no_file_yet_is_nobodys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Locks a bug: a store in memory from before a fork had each new file of the child refused as open already."""
    monkeypatch.chdir(tmp_path)
    parents = SqliteStore(":memory:")
    await parents.first_time(A, "open it")
    with monkeypatch.context() as child:
        child.setattr("connector_async.store._sqlite_engine.os.getpid", lambda: 0)
        store = SqliteStore(name)
        assert await store.first_time(A, "k")
        await store.aclose()
    await parents.aclose()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
def test_a_child_that_was_forked_while_the_file_was_open_is_refused(tmp_path: Path) -> None:
    """It had none of the locks, and took the parent's for its own, with a store of its own too: what it wrote went
    into a log that was removed when the parent closed the file."""
    command = [sys.executable, "-c", _FORKER, str(tmp_path / "s.db")]
    told = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.splitlines()
    assert told == ["parent True", "inherited True", "new True", "files 1", "after True"]
