"""Somebody sets the machine's clock while messages wait and leases run: nothing lasts longer or shorter for it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import time_machine

from connector_async import MemoryStore, SqliteStore
from connector_async.store import _sqlite_clock
from connector_async.store._sqlite_clock import SteadyClock
from connector_async.store.outbox import MessageState, OutboxMessage, Settlement

pytestmark = pytest.mark.anyio

A = "12345678"
HOUR = 3600.0


def _message(number: int, consumer: str) -> OutboxMessage:
    return OutboxMessage(id=f"{consumer}-{number}", consumer=consumer, body=b"{}", request_id=f"{number}")


@pytest.mark.parametrize("jump", [-HOUR, HOUR])
@pytest.mark.parametrize("engine", ["memory", "sqlite"])
async def test_a_clock_that_is_set_changes_neither_leases_nor_what_is_due(
    engine: str, jump: float, tmp_path: Path
) -> None:
    """Once a backlog waited for the hour that the clock was set back, and set ahead it ended every lease."""
    with time_machine.travel(1_800_000_000.0, tick=False) as now:
        made: Any = MemoryStore() if engine == "memory" else SqliteStore(tmp_path / "outbox.db")
        other: Any = made if engine == "memory" else SqliteStore(tmp_path / "outbox.db")
        await made.outbox.put(A, [_message(number, consumer) for consumer in "abc" for number in (1, 2)])
        mine, rests = await made.outbox.claim(A, owner="me", lease=90.0, limit=2)
        retry = Settlement(state=MessageState.WAITING, retry_in=30.0)
        await made.outbox.advance(A, [(rests, retry)], lease=90.0)
        now.shift(jump)
        # What waited is due as before; what is under way, or rests, is nobody else's.
        assert await made.outbox.next_due(A) == 0.0
        claims = await other.outbox.claim(A, owner="other", lease=90.0, limit=9)
        assert [claim.message.id for claim in claims] == ["c-1"]
        assert await made.outbox.renew(A, owner="me", lease=90.0) == {mine.message.consumer}
        assert await other.outbox.next_due(A) == pytest.approx(30.0, abs=5.0)
        assert (await made.outbox.counts(A)).oldest_age == pytest.approx(0.0, abs=5.0)
        await made.aclose()
        await other.aclose()


@pytest.fixture
def file() -> Iterator[sqlite3.Connection]:
    """What a clock needs of an outbox."""
    with closing(sqlite3.connect(":memory:")) as db:
        db.execute("CREATE TABLE outbox_numbers (name TEXT PRIMARY KEY, value INTEGER NOT NULL)")
        db.execute("CREATE TABLE lanes (lane TEXT, owner TEXT, free_at REAL)")
        yield db


def test_all_processes_of_a_boot_go_by_what_the_first_of_them_wrote_down(file: sqlite3.Connection) -> None:
    """Each for itself would know only the jumps that it has seen, and take the leases of others for over."""
    wall, steady = 1_000.0, 5.0
    first, second = (SteadyClock(wall=lambda: wall, steady=lambda: steady, boot="a") for _ in range(2))
    assert first.now(file, writes=False) == 1_000.0
    assert first.now(file, writes=True) == 1_000.0
    wall, steady = 1_000.0 - HOUR, 7.0
    assert [clock.now(file, writes=True) for clock in (first, second, first)] == [1_002.0] * 3


def test_what_was_not_committed_does_not_count(file: sqlite3.Connection) -> None:
    wall, steady = 1_000.0, 5.0
    first, second = (SteadyClock(wall=lambda: wall, steady=lambda: steady, boot="a") for _ in range(2))
    first.now(file, writes=True)
    file.rollback()
    wall = 2_000.0
    assert second.now(file, writes=True) == first.now(file, writes=True) == 2_000.0


def test_after_a_boot_with_a_wrong_clock_nothing_rests_until_the_right_time(file: sqlite3.Connection) -> None:
    """A machine without a battery comes up in 1970, and the pauses of before would last for half a century."""
    wall, steady = 1_800_000_000.0, 90_000.0
    SteadyClock(wall=lambda: wall, steady=lambda: steady, boot="a").now(file, writes=True)
    rows = [("due", None, wall - 5), ("rests", None, wall + 5), ("mine", "me", wall + 90), ("held", None, None)]
    file.executemany("INSERT INTO lanes VALUES (?, ?, ?)", rows)
    wall, steady = 30.0, 20.0
    clock = SteadyClock(wall=lambda: wall, steady=lambda: steady, boot="b")
    assert clock.now(file, writes=True) == 30.0
    assert dict(file.execute("SELECT lane, free_at FROM lanes")) == {
        "due": 30.0,
        "rests": 30.0,
        "mine": 1_800_000_090.0,
        "held": None,
    }
    assert file.execute("SELECT name FROM outbox_numbers").fetchall() == [("clock of b",)]


def test_where_the_kernel_names_no_boot_the_wall_has_to_do(
    file: sqlite3.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_sqlite_clock, "_BOOT", tmp_path / "nothing")
    with time_machine.travel(1_800_000_000.0, tick=False):
        assert SteadyClock.of_this_boot().now(file, writes=True) == 1_800_000_000.0
    assert file.execute("SELECT * FROM outbox_numbers").fetchall() == []
