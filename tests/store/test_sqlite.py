"""What is particular to the SQLite file: it lasts, it is shared, it fails like a file."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from connector_async.errors import ConfigurationError, StoreUnavailable
from connector_async.store import Admission, ConsumerRecord, ConversationRecord, PostgresStore, SqliteStore
from connector_async.store._sqlite_schema import MIGRATIONS
from connector_async.store.outbox import OutboxMessage
from connector_async.store.tokens import PlaintextTokens
from tests.backends import ASYNCIO_AND_TRIO
from tests.guards import CANARY

pytestmark = pytest.mark.anyio

A = "12345678"


async def test_what_was_put_survives_the_process(tmp_path: Path) -> None:
    """Conversations survive a restart (issue of the webhooks, 8)."""
    record = ConsumerRecord(account_id=A, ext_consumer_id="anna", lp_consumer_id="lp", token="jws")
    first = SqliteStore(tmp_path / "s.db", tokens=PlaintextTokens())
    await first.put_consumer(record)
    await first.put_conversation(ConversationRecord(account_id=A, conversation_id="c", ext_consumer_id="anna"))
    await first.first_time(A, "k")
    await first.put_delivery(A, key="d", lane="c", body=b"{}", received_at=1.0)
    await first.aclose()
    second = SqliteStore(str(tmp_path / "s.db"), tokens=PlaintextTokens())
    assert second.durable
    assert await second.find_consumer(A, "lp") == record
    assert await second.get_open_conversation(A, "anna") is not None
    assert not await second.first_time(A, "k")
    assert await second.put_delivery(A, key="d", lane="c", body=b"{}", received_at=1.0) is Admission.SEEN
    await second.aclose()


async def test_nothing_happens_before_the_first_use(tmp_path: Path) -> None:
    """Building one needs no loop and no I/O."""
    store = SqliteStore(tmp_path / "s.db")
    await store.aclose()
    assert not (tmp_path / "s.db").exists()


async def test_the_file_is_its_owners_only(tmp_path: Path) -> None:
    """It holds consumer tokens."""
    store = SqliteStore(tmp_path / "s.db")
    await store.first_time(A, "k")
    files = [tmp_path / name for name in ("s.db", "s.db-wal", "s.db-shm")]
    modes = {os.stat(file).st_mode & 0o777 for file in files}  # noqa: PTH116 - no blocking call that matters
    await store.aclose()
    assert modes == {0o600}


@pytest.mark.parametrize("anyio_backend", ASYNCIO_AND_TRIO)
async def test_it_runs_on_asyncio_and_trio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing in it is bound to one event loop."""
    # trio keeps its idle threads for ten seconds, for whoever needs one next.
    monkeypatch.setattr("trio._core._thread_cache.IDLE_TIMEOUT", 0.01)
    store = SqliteStore(tmp_path / "s.db")
    assert await store.first_time(A, "k")
    await store.aclose()


async def test_a_store_in_memory_needs_no_file() -> None:
    """`:memory:` as SQLite knows it."""
    store = SqliteStore(":memory:")
    assert await store.first_time(A, "k")
    assert not await store.first_time(A, "k")
    await store.aclose()


async def test_use_after_close_is_misuse(tmp_path: Path) -> None:
    """RuntimeError, as for all misuse."""
    store = SqliteStore(tmp_path / "s.db")
    await store.aclose()
    with pytest.raises(RuntimeError, match="closed"):
        await store.first_time(A, "k")


async def test_those_in_line_when_it_closes_are_told(tmp_path: Path) -> None:
    """Closing waits for what is under way, not for what has not begun."""
    store = SqliteStore(tmp_path / "s.db")
    await store.first_time(A, "open it")
    errors: list[RuntimeError] = []

    async def use() -> None:
        try:
            await store.first_time(A, "k")
        except RuntimeError as error:
            errors.append(error)

    async with store._engine.line.turn, anyio.create_task_group() as tasks:
        tasks.start_soon(store.aclose)
        await anyio.lowlevel.checkpoint()
        tasks.start_soon(use)
        await anyio.lowlevel.checkpoint()
        store._engine._is_closed = True
        tasks.start_soon(anyio.lowlevel.checkpoint)
        store._engine.line.turn.release()
        await anyio.wait_all_tasks_blocked()
        await store._engine.line.turn.acquire()
    assert len(errors) == 1


def contents(folder: Path) -> bytes:
    """Of all files of a store."""
    return b"".join(file.read_bytes() for file in folder.iterdir())


async def test_what_was_forgotten_is_in_none_of_the_files(tmp_path: Path) -> None:
    """Not in a free page, a freed part of one, or the log: whoever copies the files finds nothing of that person."""
    store = SqliteStore(tmp_path / "s.db", tokens=PlaintextTokens())
    for name in ("anna", "bert"):
        token = f"{name}s-{CANARY}"
        await store.put_consumer(ConsumerRecord(account_id=A, ext_consumer_id=name, lp_consumer_id=None, token=token))
        await store.put_conversation(
            ConversationRecord(account_id=A, conversation_id=f"of-{name}", ext_consumer_id=name)
        )
        body = f"{name}s-{CANARY} ".encode() * 1000
        await store.put_delivery(A, key=name, lane=f"of-{name}", body=body, received_at=1.0)
        await store.put_echo(A, f"of-{name}", f"{name}s-{CANARY}", 1)
        messages = [OutboxMessage(id=f"{name}{n}", consumer=name, body=body, request_id=f"{n}") for n in range(3)]
        await store.outbox.put(A, messages)
    await store.forget(A, "anna")
    written = contents(tmp_path)
    assert f"anna-{CANARY}".encode() not in written
    assert f"annas-{CANARY}".encode() not in written
    assert f"berts-{CANARY}".encode() in written
    await store.outbox.forget(A, "bert")
    await store.forget(A, "bert")
    assert CANARY.encode() not in contents(tmp_path)
    await store.aclose()


async def test_a_log_that_cannot_be_emptied_is_told(tmp_path: Path) -> None:
    """What was to be forgotten may be read in it: the caller has to know."""
    store = SqliteStore(tmp_path / "s.db")
    await store._engine.wipe()
    await store.first_time(A, "open it")
    connection = store._engine._connection
    assert connection is not None
    connection.set_authorizer(lambda *_: sqlite3.SQLITE_DENY)
    with pytest.raises(StoreUnavailable, match="not authorized"):
        await store._engine.wipe()
    connection.set_authorizer(None)
    await store.forget(A, "anna")
    await store.aclose()
    with pytest.raises(RuntimeError, match="closed"):
        await store.forget(A, "anna")


async def test_a_renewal_costs_what_is_owned_and_not_what_waits(tmp_path: Path) -> None:
    """A backlog of a million consumers must not stop all others every half minute: counted in SQLite's own steps."""
    steps: list[int] = []
    for waiting in (10, 5000):
        store = SqliteStore(tmp_path / f"{waiting}.db")
        messages = [OutboxMessage(id=f"m{n}", consumer=f"c{n}", body=b"{}", request_id="r") for n in range(waiting)]
        await store.outbox.put(A, messages)
        await store.outbox.claim(A, owner="me", lease=60.0, limit=5)
        assert store._engine._connection is not None
        steps.append(0)

        def count() -> None:
            steps[-1] += 1

        store._engine._connection.set_progress_handler(count, 10)
        assert len(await store.outbox.renew(A, owner="me", lease=60.0)) == 5
        await store.aclose()
    assert steps[1] <= 2 * steps[0]


async def test_writers_in_line_share_a_commit(tmp_path: Path) -> None:
    """A commit costs a flush of the disk however many rows it holds."""
    store = SqliteStore(tmp_path / "s.db")
    await store.first_time(A, "open it")
    assert store._engine._connection is not None
    statements: list[str] = []
    store._engine._connection.set_trace_callback(statements.append)
    async with anyio.create_task_group() as tasks:
        for number in range(50):
            tasks.start_soon(store.first_time, A, str(number))
    assert statements.count("COMMIT") <= 3
    assert not await store.first_time(A, "49")
    await store.aclose()


async def test_only_the_culprit_of_a_shared_commit_fails(tmp_path: Path) -> None:
    """A number beyond 64 bits is no row; its neighbours are kept."""
    store = SqliteStore(tmp_path / "s.db")
    failures: list[str] = []

    async def put(number: int) -> None:
        try:
            await store.put_echo(A, "c", f"e{number}", 2**70 if number == 3 else number)
        except StoreUnavailable as error:
            failures.append(str(error))

    await store.first_time(A, "open it")
    async with store._engine.line.turn, anyio.create_task_group() as tasks:
        for number in range(6):
            tasks.start_soon(put, number)
        await anyio.wait_all_tasks_blocked()
        store._engine.line.turn.release()
        await anyio.wait_all_tasks_blocked()
        await store._engine.line.turn.acquire()
    assert len(failures) == 1
    assert [(await store.take_echo(A, "c", f"e{number}"))[0] for number in range(6)] == [
        number != 3 for number in range(6)
    ]
    await store.aclose()


async def test_an_error_that_nobody_foresaw_is_no_acknowledgement_for_those_in_line(tmp_path: Path) -> None:
    """Locks a bug: the others behind one shared commit took the failure of another for their own success."""
    store = SqliteStore(tmp_path / "s.db")
    told: list[str] = []

    def fail(_db: sqlite3.Connection) -> None:
        raise LookupError("a bug of ours")

    async def put(number: int) -> None:
        try:
            if number == 3:
                await store._engine.write(fail)
            else:
                await store.put_echo(A, "c", f"e{number}", number)
        except StoreUnavailable as error:
            told.append(str(error))

    await store.first_time(A, "open it")
    async with store._engine.line.turn, anyio.create_task_group() as tasks:
        for number in range(6):
            tasks.start_soon(put, number)
        await anyio.wait_all_tasks_blocked()
        store._engine.line.turn.release()
        await anyio.wait_all_tasks_blocked()
        await store._engine.line.turn.acquire()
    assert len(told) == 1
    assert "a bug of ours" in told[0]
    for number in (0, 1, 2, 4, 5):
        assert await store.take_echo(A, "c", f"e{number}") == (True, number)
    await store.aclose()


@pytest.mark.parametrize("how", ["moved", "replaced"])
async def test_a_file_that_is_taken_away_is_no_acknowledgement(tmp_path: Path, how: str) -> None:
    """Locks a bug: what was put went on into a file that nobody could find again, and was acknowledged."""
    path = tmp_path / "s.db"
    store, other = SqliteStore(path), SqliteStore(tmp_path / "other.db")
    await store.first_time(A, "before")
    await other.first_time(A, "elsewhere")
    await other.aclose()
    (tmp_path / "gone").mkdir()
    for name in ("s.db", "s.db-wal", "s.db-shm"):
        (tmp_path / name).replace(tmp_path / "gone" / name)
    if how == "replaced":
        (tmp_path / "other.db").replace(path)
    with pytest.raises(StoreUnavailable, match="it was moved, replaced or removed while it was in use"):
        await store.first_time(A, "after")
    assert await store.first_time(A, "after")
    again = SqliteStore(path)
    assert not await again.first_time(A, "after")
    assert await again.first_time(A, "elsewhere") is (how != "replaced")
    await again.aclose()
    await store.aclose()
    kept = SqliteStore(tmp_path / "gone" / "s.db")
    assert not await kept.first_time(A, "before")
    assert await kept.first_time(A, "after")
    await kept.aclose()


async def test_a_file_with_the_tables_of_something_else_is_left_alone(tmp_path: Path) -> None:
    """One sentence, and nothing written into it."""
    with sqlite3.connect(tmp_path / "s.db") as db:
        db.execute("CREATE TABLE theirs (x)")
    store = SqliteStore(tmp_path / "s.db")
    with pytest.raises(ConfigurationError, match="holds the tables of something else; use another file"):
        await store.first_time(A, "k")
    await store.aclose()
    assert db.execute("SELECT count(*) FROM sqlite_master").fetchone() == (1,)
    db.close()


@pytest.mark.parametrize("name", ["a?b.db", "a%20b.db", "#.db", "q'u\"o.db", "ü.db", " .db ", "file:x.db", "a\nb.db"])
async def test_the_name_is_taken_as_it_is(tmp_path: Path, name: str) -> None:
    """It is no URL, and nothing in it means anything."""
    store = SqliteStore(tmp_path / name)
    assert await store.first_time(A, "k")
    await store.aclose()
    assert (tmp_path / name).stat().st_size


async def test_a_cancelled_writer_writes_nothing(tmp_path: Path) -> None:
    """It waited in line: nobody is there to hear that its row was written."""
    store = SqliteStore(tmp_path / "s.db")
    await store.first_time(A, "open it")
    async with store._engine.line.turn, anyio.create_task_group() as tasks:
        tasks.start_soon(store.first_time, A, "k")
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert await store.first_time(A, "k")
    await store.aclose()


async def test_a_file_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    """Its tables mean something that this version does not know."""
    with sqlite3.connect(tmp_path / "s.db") as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    store = SqliteStore(tmp_path / "s.db")
    with pytest.raises(ConfigurationError, match="newer version"):
        await store.first_time(A, "k")
    await store.aclose()


async def test_an_older_file_is_migrated_in_one_piece(tmp_path: Path) -> None:
    """Each step once, the version with it; a step that fails leaves the file as it was."""
    path = tmp_path / "s.db"
    store = SqliteStore(path)
    store._engine.migrations = (*MIGRATIONS, "CREATE TABLE later (x);\n\nCREATE TABLE later (x)")
    with pytest.raises(StoreUnavailable, match="later"):
        await store.first_time(A, "k")
    await store.aclose()
    store = SqliteStore(path)
    assert await store.first_time(A, "k")
    await store.aclose()
    store = SqliteStore(path)
    store._engine.migrations = (*MIGRATIONS, "CREATE TABLE later (x)")
    assert not await store.first_time(A, "k")
    await store.aclose()
    db = sqlite3.connect(path)
    assert db.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS) + 1,)
    db.close()


@pytest.mark.parametrize("spoil", [lambda path: path.write_bytes(b"no database" * 999), lambda path: path.mkdir()])
async def test_a_file_that_is_none_is_told(tmp_path: Path, spoil: Callable[[Path], object]) -> None:
    """Damaged, or no file at all: an error of ours with the cause beneath it."""
    spoil(tmp_path / "s.db")
    store = SqliteStore(tmp_path / "s.db")
    with pytest.raises(StoreUnavailable) as caught:
        await store.first_time(A, "k")
    assert isinstance(caught.value.__cause__, sqlite3.Error | OSError)
    await store.aclose()


async def test_another_process_that_writes_for_too_long_is_told(tmp_path: Path) -> None:
    """Locked: nothing was written, and the store goes on afterwards."""
    store = SqliteStore(tmp_path / "s.db", busy_timeout=0.01)
    await store.first_time(A, "open it")
    other = sqlite3.connect(tmp_path / "s.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match="locked"):
        await store.first_time(A, "k")
    assert await store.get_consumer(A, "reading goes on") is None
    other.execute("ROLLBACK")
    other.close()
    assert await store.first_time(A, "k")
    await store.aclose()


async def test_a_full_disk_is_told_and_survived(tmp_path: Path) -> None:
    """Never a false acknowledgement (fault table P3): here SQLite's own limit stands for the disk's."""
    store = SqliteStore(tmp_path / "s.db")
    await store.first_time(A, "open it")
    connection = store._engine._connection
    assert connection is not None
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreUnavailable, match="full"):
        await store.put_delivery(A, key="k", lane="c", body=bytes(100_000), received_at=1.0)
    connection.execute("PRAGMA max_page_count = 1000000")
    assert await store.put_delivery(A, key="k", lane="c", body=bytes(100_000), received_at=1.0) is Admission.NEW
    await store.aclose()


async def test_stores_that_make_one_file_at_once_wait_for_each_other(tmp_path: Path) -> None:
    """Locks a bug: SQLite refuses the switch to its log at once, so each second worker of a first start failed."""
    for number in range(20):
        stores = [SqliteStore(tmp_path / f"{number}.db", busy_timeout=20) for _ in range(4)]
        new: list[bool] = []

        async def use(store: SqliteStore) -> None:
            new.append(await store.first_time(A, "k"))  # noqa: B023 - this round's

        async with anyio.create_task_group() as tasks:
            for store in stores:
                tasks.start_soon(use, store)
        assert sorted(new) == [False, False, False, True]
        for store in stores:
            await store.aclose()


async def test_a_new_file_that_stays_locked_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the time that was set for it, and not before; once it is free, the next use makes the tables."""
    other = sqlite3.connect(tmp_path / "s.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    now = 100.0
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds
        slept.append(seconds)

    monkeypatch.setattr(
        "connector_async.store._sqlite_engine.time", SimpleNamespace(monotonic=lambda: now, sleep=sleep)
    )
    store = SqliteStore(tmp_path / "s.db", busy_timeout=0.5)
    with pytest.raises(StoreUnavailable, match="locked"):
        await store.first_time(A, "k")
    assert sum(slept) == pytest.approx(0.5, abs=0.02)
    other.execute("ROLLBACK")
    other.close()
    assert await store.first_time(A, "k")
    await store.aclose()


_PEER = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
print(db.execute("SELECT count(*) FROM seen").fetchone()[0])
db.close()
"""


async def test_a_second_store_in_this_process_leaves_the_first_ones_locks(tmp_path: Path) -> None:
    """Locks a loss: the next process to close the file took it for unused and removed its log."""

    def rows() -> int:
        command = [sys.executable, "-c", _PEER, str(tmp_path / "s.db")]
        return int(subprocess.run(command, check=True, capture_output=True, timeout=60).stdout)

    first, second = SqliteStore(tmp_path / "s.db"), SqliteStore(tmp_path / "s.db")
    await first.first_time(A, "1")
    await second.first_time(A, "2")
    assert await anyio.to_thread.run_sync(rows) == 2
    await first.first_time(A, "3")
    assert await anyio.to_thread.run_sync(rows) == 3
    await first.aclose()
    await second.aclose()
    assert await anyio.to_thread.run_sync(rows) == 3


_WORKER = """
import sys
import anyio
from connector_async.store import SqliteStore

async def main() -> None:
    store = SqliteStore(sys.argv[1], busy_timeout=30)
    mine = 0
    for number in range(50):
        mine += await store.first_time("1", str(number))
        await store.put_delivery("1", key=str(number), lane=str(number % 7), body=b"{}", received_at=1.0)
    claimed = []
    while batch := await store.claim_deliveries("1", owner=sys.argv[2], now=1.0, lease_until=9.0, limit=5):
        for delivery in batch:
            assert await store.settle_delivery("1", delivery.key, owner=sys.argv[2])
            claimed.append(delivery.key)
    await store.aclose()
    print(mine, *claimed)

anyio.run(main)
"""


def test_processes_share_it(tmp_path: Path) -> None:
    """Three workers: each key is new to one, each delivery is handled by one."""
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", _WORKER, str(tmp_path / "s.db"), f"w{number}"], stdout=subprocess.PIPE, text=True
        )
        for number in range(3)
    ]
    outputs = [worker.communicate(timeout=60)[0].split() for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * 3
    assert sum(int(output[0]) for output in outputs) == 50
    assert sorted(key for output in outputs for key in output[1:]) == sorted(str(number) for number in range(50))


_VICTIM = """
import sys
import anyio
from connector_async.store import SqliteStore

async def main() -> None:
    store = SqliteStore(sys.argv[1])
    for number in range(int(sys.argv[2]), 100_000):
        await store.put_delivery("1", key=str(number), lane="c", body=b"{}", received_at=1.0)
        print(number, flush=True)

anyio.run(main)
"""


async def _count(path: Path) -> int:
    store = SqliteStore(path)
    counts = await store.delivery_counts("1")
    await store.aclose()
    return counts.waiting


def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    """SIGKILL in the middle of writing, again and again: every row that was reported as kept is there."""
    path, kept = tmp_path / "s.db", 0
    for _ in range(3):
        victim = subprocess.Popen(
            [sys.executable, "-c", _VICTIM, str(path), str(kept)], stdout=subprocess.PIPE, text=True
        )
        assert victim.stdout is not None
        for _ in range(20):
            victim.stdout.readline()
        os.kill(victim.pid, signal.SIGKILL)
        reported = [kept + 19, *map(int, victim.stdout.read().split("\n")[:-1])]
        victim.wait()
        victim.stdout.close()
        kept = anyio.run(_count, path)
        assert kept >= max(reported) + 1


def test_a_path_that_names_no_file_is_refused() -> None:
    """One sentence that says what to do."""
    for none in ("", "a\0b"):
        with pytest.raises(ConfigurationError, match="path: expected the name of a file"):
            SqliteStore(none)
    wrong: Any = b"outbox.db"
    with pytest.raises(TypeError, match="path must be the name of a file, not bytes"):
        SqliteStore(wrong)


@pytest.mark.parametrize("kind", [SqliteStore, PostgresStore])
def test_a_seal_that_is_none_is_refused_when_the_store_is_built(kind: Any) -> None:
    """It used to keep no token, and to log it for each."""
    with pytest.raises(TypeError, match=r"tokens must be `SealedTokens\(key\)`.*, not str"):
        kind("postgresql://app@localhost/app", tokens="key")


async def test_a_path_that_can_hold_no_file_is_told_plainly(tmp_path: Path) -> None:
    """Found at first use, since only then the file is looked at; SQLite says "unable to open database file"."""
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="it is a directory; name a file in it"):
            await SqliteStore(tmp_path).get_consumer(A, "anna")
        with pytest.raises(StoreUnavailable, match=r"there is no directory .*elsewhere"):
            await SqliteStore(tmp_path / "elsewhere" / "store.db").get_consumer(A, "anna")
