"""`python -m benchmarks consumers` at tiny counts; how good the numbers are is not a test's business."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.consumers import _drawn, _misses
from tests.benchmarks.test_commands import run
from tests.store.postgres_server import PostgresServer, postgres_server

__all__ = ["postgres_server"]

SMALL = ("--consumers", "300", "--cache", "100", "--seconds", "0.5", "--in-flight", "8")


def test_consumers_are_drawn_from_a_store_that_is_kept(tmp_path: Path) -> None:
    """Nobody is asked for a token or a conversation that the store has; a filled store is used again."""
    place = tmp_path / "store.db"
    first = run("consumers", *SMALL, "--store", str(place))
    again = run("consumers", *SMALL, "--store", str(place))
    for result in (first, again):
        rows = result["rows"]
        assert [row["draw"] for row in rows] == ["uniform", "skewed", None]
        for row in rows[:2]:
            assert row["messages"] > 0
            assert (row["idp_calls"], row["opened"]) == (0, 0)
            assert 0 < sum(row["reads"].values()) <= row["messages"]
        assert rows[2]["bytes_per_consumer"] > 500
        assert len(result["targets"]) == 6
    assert "fill_rate" in first["rows"][2]
    assert "fill_rate" not in again["rows"][2]


def test_consumers_in_postgresql_leave_nothing_there(postgres_server: PostgresServer) -> None:
    """The schema is made for the measurement and goes with it."""
    import psycopg

    asked = ("--draws", "uniform", "--engine", "postgres", "--postgres", postgres_server.dsn)
    sent, kept = run("consumers", *SMALL, *asked)["rows"]
    assert (sent["draw"], sent["idp_calls"]) == ("uniform", 0)
    assert kept["bytes"] > 0
    with psycopg.connect(postgres_server.dsn) as db:
        assert db.execute("SELECT 1 FROM pg_namespace WHERE nspname LIKE 'bench%'").fetchall() == []


def test_wrong_use_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    from benchmarks.__main__ import main

    assert main(["consumers", "--engine", "postgres"]) == 1
    assert "--postgres DSN" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["consumers", "--draws", "by lot"])
    assert "none of uniform, skewed" in capsys.readouterr().err


@pytest.mark.parametrize("draw", ["uniform", "skewed"])
def test_the_same_consumers_are_drawn_each_time(draw: str) -> None:
    """By the process that sends and by the one that counts what a cache of that size must miss."""
    first, again = _drawn(draw, 1000), _drawn(draw, 1000)
    numbers = [next(first) for _ in range(500)]
    assert numbers == [next(again) for _ in range(500)]
    assert all(0 <= number < 1000 for number in numbers)
    assert _misses({"consumers": 1000, "cache": 1000}, draw, 500) == len(set(numbers))
    assert _misses({"consumers": 1000, "cache": 1}, draw, 500) > len(set(numbers))
