"""What the SQLite outbox keeps when the process dies at the worst moment, and when the file cannot be written."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from connector_async.errors import StoreUnavailable
from connector_async.store import (
    Claim,
    MessageState,
    Outbox,
    OutboxMessage,
    PlaintextTokens,
    PutResult,
    Settlement,
    SqliteStore,
)
from connector_async.store._sqlite_schema import MIGRATIONS

pytestmark = pytest.mark.anyio

A = "12345678"
ACCEPTED = Settlement(state=MessageState.ACCEPTED, attempts=1)
REPEATED = [0, *(pytest.param(number, marks=pytest.mark.soak) for number in range(1, 20))]


def message(message_id: str, size: int = 2) -> OutboxMessage:
    return OutboxMessage(id=message_id, consumer="anna", body=b"x" * size, request_id=message_id)


async def put(outbox: Outbox, *ids: str, size: int = 2) -> list[PutResult]:
    return await outbox.put(A, [message(one, size) for one in ids])


async def drain(outbox: Outbox) -> list[Claim]:
    """What the next pump sends, in its order."""
    sent: list[Claim] = []
    for claimed in await outbox.claim(A, owner="next", lease=60.0, limit=10):
        head: Claim | None = claimed
        while head is not None:
            sent.append(head)
            head = (await outbox.advance(A, [(head, ACCEPTED)], lease=60.0))[0].next
    return sent


def check_file(path: Path) -> None:
    db = sqlite3.connect(path)
    assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert db.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
    db.close()


# The child kills itself before or after a statement that begins with certain words: the connection is told by the
# environment, so that nothing in the package knows of it.
_VICTIM = """
import os, resource, signal, sqlite3, sys
import anyio
from connector_async.store import MessageState, OutboxMessage, Settlement, SqliteStore

class Doomed(sqlite3.Connection):
    is_armed = False

    def execute(self, statement, *values):
        when, _, words = os.environ["CRASH_AT"].partition(" ")
        is_fatal = Doomed.is_armed and statement.strip().startswith(words)
        if is_fatal and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = super().execute(statement, *values)
        if is_fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

connect = sqlite3.connect
sqlite3.connect = lambda *args, **options: connect(*args, factory=Doomed, **options)

def message(number, size=2):
    return OutboxMessage(id=f"m{number}", consumer="anna", body=b"x" * size, request_id="r")

async def put(outbox):
    await outbox.put("12345678", [message(1), message(2)])
    print("kept", flush=True)
    Doomed.is_armed = True
    await outbox.put("12345678", [message(3), message(4)])

async def claim(outbox):
    await outbox.put("12345678", [message(1), message(2)])
    Doomed.is_armed = True
    await outbox.claim("12345678", owner="victim", lease=0.0, limit=1)

async def settle(outbox):
    await outbox.put("12345678", [message(1), message(2), message(3)])
    claims = await outbox.claim("12345678", owner="victim", lease=0.0, limit=1)
    print("sent", flush=True)
    Doomed.is_armed = True
    await outbox.advance("12345678", [(claims[0], Settlement(state=MessageState.ACCEPTED))], lease=0.0)

async def migrate(outbox):
    Doomed.is_armed = True
    await outbox.counts("12345678")

async def checkpoint(outbox):
    # Whoever writes beyond the limit is killed, which a checkpoint does where it makes the file grow.
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    await outbox.put("12345678", [message(0)])
    store._engine._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for number in range(1, 9):
        await outbox.put("12345678", [message(number, 20_000)])
        print("kept", flush=True)
    size = os.path.getsize(sys.argv[1] + "-wal")
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, resource.RLIM_INFINITY))
    store._engine._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    print("outlived it", flush=True)

async def full(outbox):
    for number in range(int(sys.argv[3])):
        await outbox.put("12345678", [message(f"small{number}")])
        limit = os.path.getsize(sys.argv[1] + "-wal")
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        try:
            await outbox.put("12345678", [message(number, 20_000)])
        except Exception as error:
            print(type(error).__name__, flush=True)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        print((await outbox.put("12345678", [message(number, 20_000)]))[0].name, flush=True)

store = SqliteStore(sys.argv[1])
anyio.run(globals()[sys.argv[2]], store.outbox)
"""


def run_victim(path: Path, action: str, crash_at: str, *arguments: str) -> tuple[int, list[str]]:
    """How it ended, and what it had told until then."""
    done = subprocess.run(
        [sys.executable, "-c", _VICTIM, str(path), action, *arguments],
        env={**os.environ, "CRASH_AT": crash_at},
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout.split()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    """Opened at first use, so after the victim."""
    store = SqliteStore(path, busy_timeout=0.01)
    yield store
    await store.aclose()


@pytest.mark.parametrize("repetition", REPEATED)
@pytest.mark.parametrize(
    ("crash_at", "result"), [("before COMMIT", PutResult.ADDED), ("after COMMIT", PutResult.KNOWN)]
)
@pytest.mark.requirement("P2")
async def test_a_producer_that_heard_nothing_puts_again_and_nothing_is_doubled(
    path: Path, store: SqliteStore, crash_at: str, result: PutResult, repetition: int
) -> None:
    """Killed at the commit: the batch is there as a whole or not at all, and its ids say which."""
    assert run_victim(path, "put", crash_at) == (-signal.SIGKILL, ["kept"])
    assert await put(store.outbox, "m1", "m2", "m3", "m4") == [PutResult.KNOWN] * 2 + [result] * 2
    sent = await drain(store.outbox)
    assert [one.message.id for one in sent] == ["m1", "m2", "m3", "m4"]
    assert not any(one.maybe_duplicate for one in sent)
    check_file(path)


@pytest.mark.parametrize("repetition", REPEATED)
@pytest.mark.parametrize(("crash_at", "doubtful"), [("before COMMIT", []), ("after COMMIT", ["m1"])])
@pytest.mark.requirement("P2")
async def test_a_claim_that_was_written_makes_its_message_doubtful(
    path: Path, store: SqliteStore, crash_at: str, doubtful: list[str], repetition: int
) -> None:
    """Killed before it could send: nobody can know that it did not."""
    assert run_victim(path, "claim", crash_at) == (-signal.SIGKILL, [])
    sent = await drain(store.outbox)
    assert [one.message.id for one in sent] == ["m1", "m2"]
    assert [one.message.id for one in sent if one.was_begun] == doubtful
    check_file(path)


@pytest.mark.parametrize("repetition", REPEATED)
@pytest.mark.parametrize(
    ("crash_at", "left"), [("before COMMIT", ["m1", "m2", "m3"]), ("after COMMIT", ["m2", "m3"])]
)
@pytest.mark.requirement("P2")
async def test_after_a_kill_at_a_settlement_exactly_the_head_is_doubtful(
    path: Path, store: SqliteStore, crash_at: str, left: list[str], repetition: int
) -> None:
    """Sent and not written down, or written down with the next one begun: one of each lane, and it says so."""
    assert run_victim(path, "settle", crash_at) == (-signal.SIGKILL, ["sent"])
    sent = await drain(store.outbox)
    assert [one.message.id for one in sent] == left
    assert [one.message.id for one in sent if one.was_begun and one.maybe_duplicate] == left[:1]
    counts = await store.outbox.counts(A)
    assert (counts.accepted, counts.maybe_duplicate, counts.unsettled) == (3, 1, 0)
    check_file(path)


@pytest.mark.parametrize("repetition", REPEATED)
@pytest.mark.requirement("P2")
async def test_a_kill_in_a_checkpoint_loses_nothing(path: Path, store: SqliteStore, repetition: int) -> None:
    """While pages are copied from the log into the file: the log is whole until they all are."""
    assert run_victim(path, "checkpoint", "never") == (-signal.SIGXFSZ, ["kept"] * 8)
    assert [one.message.id for one in await drain(store.outbox)] == [f"m{number}" for number in range(9)]
    check_file(path)


@pytest.mark.parametrize("repetition", REPEATED)
@pytest.mark.parametrize(
    "crash_at",
    ["after CREATE TABLE messages", "before UPDATE consumers", "before PRAGMA user_version = ", "after COMMIT"],
)
@pytest.mark.requirement("P2")
async def test_a_kill_in_a_migration_leaves_the_old_file_or_the_new_one(
    path: Path, store: SqliteStore, crash_at: str, repetition: int
) -> None:
    """Whoever opens it next ends the work; tokens that stood there in the clear are gone then."""
    old = sqlite3.connect(path)
    for statement in MIGRATIONS[0].split(";\n\n"):
        old.execute(statement)
    old.execute("PRAGMA user_version = 1")
    old.execute(
        "INSERT INTO consumers (account_id, ext_consumer_id, lp_consumer_id, token) VALUES (?, 'anna', 'lp', 'jws')",
        (A,),
    )
    old.commit()
    old.close()
    assert run_victim(path, "migrate", crash_at) == (-signal.SIGKILL, [])
    assert await put(store.outbox, "m1") == [PutResult.ADDED]
    store.tokens = PlaintextTokens()
    found = await store.find_consumer(A, "lp")
    assert found is not None
    assert (found.ext_consumer_id, found.token) == ("anna", "")
    check_file(path)


@pytest.mark.requirement("P3")
async def test_a_full_disk_is_an_error_and_no_acknowledgement(path: Path, store: SqliteStore) -> None:
    """Nothing of the batch is there; with room again all goes on. SQLite's own limit stands for the disk's."""
    await put(store.outbox, "m0")
    connection = store._engine._connection
    assert connection is not None
    for number in range(1, 21):
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(StoreUnavailable, match="full"):
            await put(store.outbox, f"a{number}", f"b{number}", size=50_000)
        assert await store.outbox.find(A, f"a{number}") is None
        assert (await store.outbox.counts(A)).waiting == 2 * number - 1
        connection.execute("PRAGMA max_page_count = 1000000")
        assert await put(store.outbox, f"a{number}", f"b{number}", size=50_000) == [PutResult.ADDED] * 2
    assert len(await drain(store.outbox)) == 41
    check_file(path)


@pytest.mark.requirement("P3")
async def test_a_disk_that_fails_is_an_error_and_no_acknowledgement(path: Path, store: SqliteStore) -> None:
    """EFBIG from the operating system in the middle of a write, as EIO or ENOSPC would come."""
    status, told = run_victim(path, "full", "never", "20")
    assert (status, told) == (0, ["StoreUnavailable", "ADDED"] * 20)
    assert len(await drain(store.outbox)) == 40
    check_file(path)


@pytest.mark.requirement("P3")
async def test_a_file_that_may_only_be_read_is_told(path: Path, store: SqliteStore) -> None:
    """Putting and settling fail, looking does not; afterwards the pump goes on where it was."""
    await put(store.outbox, "m1", "m2")
    (claimed,) = await store.outbox.claim(A, owner="me", lease=60.0, limit=1)
    connection = store._engine._connection
    assert connection is not None
    for _ in range(20):
        connection.execute("PRAGMA query_only = 1")
        with pytest.raises(StoreUnavailable, match="readonly"):
            await put(store.outbox, "m3")
        with pytest.raises(StoreUnavailable, match="readonly"):
            await store.outbox.advance(A, [(claimed, ACCEPTED)], lease=60.0)
        assert (await store.outbox.counts(A)).unsettled == 2
        connection.execute("PRAGMA query_only = 0")
    (answer,) = await store.outbox.advance(A, [(claimed, ACCEPTED)], lease=60.0)
    assert answer.next is not None
    check_file(path)


@pytest.mark.requirement("P3")
async def test_a_file_that_another_process_locks_is_told(path: Path, store: SqliteStore) -> None:
    """For longer than `busy_timeout`: nothing was put, and looking goes on."""
    await put(store.outbox, "m0")
    other = sqlite3.connect(path, isolation_level=None)
    for number in range(1, 21):
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="locked"):
            await put(store.outbox, f"m{number}")
        assert await store.outbox.find(A, f"m{number}") is None
        other.execute("ROLLBACK")
        assert await put(store.outbox, f"m{number}") == [PutResult.ADDED]
    other.close()
    assert len(await drain(store.outbox)) == 21


@pytest.mark.requirement("P3")
async def test_of_a_log_that_lost_its_end_what_is_whole_is_kept(
    tmp_path: Path, store: SqliteStore, path: Path
) -> None:
    """Cut anywhere: what is left is what was put first, nothing of it is damaged, and more can be put."""
    for number in range(20):
        await put(store.outbox, f"m{number:02}")
    log = path.with_name("s.db-wal").read_bytes()
    left: list[int] = []
    for part in range(20):
        copy = tmp_path / f"{part}.db"
        shutil.copy(path, copy)
        copy.with_name(f"{part}.db-wal").write_bytes(log[: len(log) - len(log) * part // 40 - 7])
        cut = SqliteStore(copy)
        await put(cut.outbox, "later")
        ids = [one.message.id for one in await drain(cut.outbox)]
        await cut.aclose()
        left.append(len(ids) - 1)
        assert ids == [*(f"m{number:02}" for number in range(left[-1])), "later"]
        check_file(copy)
    assert left == sorted(left, reverse=True)
    assert left[0] == 19


@pytest.mark.requirement("P3")
async def test_what_a_dying_writer_left_behind_the_log_is_ignored(
    tmp_path: Path, store: SqliteStore, path: Path
) -> None:
    """Half of a transaction, or noise: all that was acknowledged is there."""
    for number in range(5):
        await put(store.outbox, f"m{number}")
    log = path.with_name("s.db-wal").read_bytes()
    for number in range(20):
        copy = tmp_path / f"{number}.db"
        shutil.copy(path, copy)
        copy.with_name(f"{number}.db-wal").write_bytes(
            log + log[-4120 : -4100 + 200 * number] + b"\xa5" * 100 * number
        )
        torn = SqliteStore(copy)
        assert [one.message.id for one in await drain(torn.outbox)] == [f"m{place}" for place in range(5)]
        await torn.aclose()
        check_file(copy)


@pytest.mark.requirement("P9")
async def test_what_is_acknowledged_was_flushed_to_the_disk(store: SqliteStore) -> None:
    """`synchronous = FULL`: NORMAL would survive the death of the process, but not a loss of power."""
    await put(store.outbox, "m1")
    connection = store._engine._connection
    assert connection is not None
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
