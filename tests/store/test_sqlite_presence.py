"""Lanes of a process that died are taken over at once, as the kernel tells; those of any other only by the lease."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from connector_async.store import MessageState, OutboxMessage, Settlement, SqliteStore
from connector_async.store import _sqlite_presence as presence

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform == "win32", reason="there is no flock on Windows: the lease is waited for"),
]

A = "12345678"
ROOT = Path(__file__).parents[2]
UNIQUE = "0123456789abcdef" * 2
_OWNER = """
import os, signal, sys
import anyio
from connector_async.store import SqliteStore

async def main():
    store = SqliteStore(sys.argv[1])
    claims = await store.outbox.claim("12345678", owner="host/1/" + sys.argv[2], lease=3600.0, limit=int(sys.argv[3]))
    if sys.argv[4] == "fork" and os.fork() == 0:
        os.read(0, 1)
        os._exit(0)
    print(len(claims), flush=True)
    if sys.argv[4] == "fork":
        os.kill(os.getpid(), signal.SIGKILL)
    await anyio.to_thread.run_sync(sys.stdin.read)
    if sys.argv[4] == "close":
        await store.aclose()

anyio.run(main)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox.db"


@pytest.fixture
async def store(path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SqliteStore]:
    monkeypatch.setattr(presence, "_LOOK_EVERY", 0.0)
    store = SqliteStore(path)
    messages = [OutboxMessage(id=name, consumer=name, body=b"{}", request_id=name) for name in ("a", "b", "c")]
    await store.outbox.put(A, messages)
    yield store
    await store.aclose()


@contextmanager
def owner_of(path: Path, lanes: int, *, name: str = "x", then: str = "stay") -> Iterator[subprocess.Popen[str]]:
    """A process that has claimed so many lanes, for an hour."""
    process = subprocess.Popen(
        [sys.executable, "-c", _OWNER, str(path), name, str(lanes), then],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None
    with process:
        try:
            assert process.stdout.readline() == f"{lanes}\n"
            yield process
        finally:
            process.kill()


async def claimed(store: SqliteStore) -> list[tuple[str, bool]]:
    claims = await store.outbox.claim(A, owner="me", lease=3600.0, limit=10)
    return sorted((one.message.id, one.was_begun) for one in claims)


def beside(path: Path) -> list[str]:
    return [file.name for file in path.parent.iterdir() if "-pump-" in file.name]


async def test_what_a_killed_process_had_begun_is_taken_over_at_once(path: Path, store: SqliteStore) -> None:
    """Its lease would run for an hour."""
    with owner_of(path, 2) as process:
        assert await claimed(store) == [("c", False)]
        assert await claimed(store) == []
        process.kill()
        process.wait()
        assert await claimed(store) == [("a", True), ("b", True)]
    assert await claimed(store) == []
    assert len(beside(path)) == 1
    await store.aclose()
    assert beside(path) == []


async def test_nothing_is_taken_from_a_process_that_is_paused(path: Path, store: SqliteStore) -> None:
    """Nor can it settle anything once the lease, and not its death, has ended its turn."""
    with owner_of(path, 3) as process:
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)  # noqa: ASYNC222 - it stops at once
        for _ in range(20):
            assert await claimed(store) == []
        process.send_signal(signal.SIGCONT)
        assert await claimed(store) == []


async def test_nothing_is_taken_while_a_child_of_the_dead_process_has_its_files_open(
    path: Path, store: SqliteStore
) -> None:
    """It may be the child that sends."""
    with owner_of(path, 3, then="fork") as process:
        process.wait()
        for _ in range(20):
            assert await claimed(store) == []
        assert process.stdin is not None
        process.stdin.close()
        with anyio.fail_after(60):
            while await claimed(store) != [("a", True), ("b", True), ("c", True)]:  # noqa: ASYNC110 - of another process
                await anyio.sleep(0.001)


async def test_of_two_owners_only_the_dead_ones_lanes_are_taken(path: Path, store: SqliteStore) -> None:
    with owner_of(path, 1, name="x") as one, owner_of(path, 1, name="y"):
        one.kill()
        one.wait()
        assert await claimed(store) == [("a", True), ("c", False)]


async def test_a_process_that_closes_its_store_leaves_no_file(path: Path, store: SqliteStore) -> None:
    """What it did not give back waits for the lease, as in any other engine."""
    with owner_of(path, 1, then="close") as process:
        assert len(beside(path)) == 1
        assert process.stdin is not None
        process.stdin.close()
        process.wait()
        assert beside(path) == []
        assert await claimed(store) == [("b", False), ("c", False)]


async def test_an_owner_of_the_same_process_is_not_dead(path: Path, store: SqliteStore) -> None:
    other = SqliteStore(path)
    assert len(await other.outbox.claim(A, owner="other", lease=3600.0, limit=1)) == 1
    assert await claimed(store) == [("b", False), ("c", False)]
    await other.aclose()


async def test_many_owners_of_one_process_cost_one_file(path: Path, store: SqliteStore) -> None:
    """A pump that is made anew has another name."""
    for number in range(50):
        await store.outbox.claim(A, owner=f"pump {number}", lease=3600.0, limit=1)
    assert len(beside(path)) == 1


async def test_a_dead_owner_whose_lanes_were_taken_can_settle_nothing(path: Path, store: SqliteStore) -> None:
    """However it came back: the fencing number is another."""
    [late] = await store.outbox.claim(A, owner="late", lease=3600.0, limit=1)
    await store._engine.write(lambda db: db.execute("UPDATE lanes SET owner = NULL, free_at = 0 WHERE lane = 'a'"))
    assert ("a", True) in await claimed(store)
    [answer] = await store.outbox.advance(A, [(late, Settlement(state=MessageState.ACCEPTED))], lease=3600.0)
    assert not answer.is_settled


async def test_where_nothing_can_be_locked_the_lease_is_waited_for(
    path: Path, store: SqliteStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A file system without such locks."""

    def fail(_descriptor: int) -> None:
        raise OSError

    monkeypatch.setattr(presence, "_lock", fail)
    assert len(await claimed(store)) == 3
    assert "its lease is waited for" in caplog.text


async def test_a_folder_that_cannot_be_listed_stops_nobody(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_path: Path, _pattern: str) -> list[Path]:
        raise OSError

    monkeypatch.setattr(Path, "glob", fail)
    assert len(await claimed(store)) == 3


async def test_a_file_that_is_gone_before_it_is_looked_at_is_of_nobody(path: Path, store: SqliteStore) -> None:
    path.with_name(f"{path.name}-pump-{UNIQUE}").symlink_to(path.with_name("nowhere"))
    assert len(await claimed(store)) == 3


@pytest.mark.parametrize("content", ["", "my notes\n", "c3a4", "ff\n"])
async def test_a_file_that_only_looks_like_one_of_ours_is_left_alone(
    content: str, path: Path, store: SqliteStore
) -> None:
    other = path.with_name(f"{path.name}-pump-{UNIQUE}")
    other.write_text(content)
    assert len(await claimed(store)) == 3
    assert await claimed(store) == []
    assert other.read_text() == content


async def test_a_store_in_memory_has_no_file_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = SqliteStore(":memory:")
    assert await claimed(store) == []
    await store.aclose()
    assert beside(tmp_path / ":memory:") == []


async def test_nobody_looks_at_a_file_before_its_process_has_locked_it(
    path: Path, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who looks holds the lock for a moment: the other took it for one that cannot be had, and went without."""
    other, lock, looked_at = presence.Presence(path), presence._lock, list[Path]()

    def look_and_lock(descriptor: int) -> None:
        monkeypatch.setattr(presence, "_lock", lock)
        monkeypatch.setattr(presence, "_owners_if_dead", looked_at.append)
        assert other.dead() == {}
        lock(descriptor)

    monkeypatch.setattr(presence, "_lock", look_and_lock)
    assert len(await claimed(store)) == 3
    assert looked_at == []
    assert len(beside(path)) == 1


async def test_the_file_of_another_store_is_not_taken_for_one_of_ours(
    path: Path, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To open and close it would take this process's locks from it, and with them what it writes."""
    looked_at = list[Path]()
    monkeypatch.setattr(presence, "_owners_if_dead", looked_at.append)
    other = SqliteStore(path.with_name(f"{path.name}-pump-2"))
    await other.first_time(A, "k")
    assert len(await claimed(store)) == 3
    assert looked_at == []
    await other.aclose()
