"""`python -m benchmarks pump` at tiny counts; how good the numbers are is not a test's business."""

from __future__ import annotations

import pytest

from tests.benchmarks.test_commands import run


def test_pump_measures_the_session_and_each_engine() -> None:
    """Our fault tables, P9: commits of one message and of fifty."""
    result = run(
        "pump", "--messages", "20", "--consumers", "5", "--rounds", "1", "--in-flight", "4", "--seconds", "0.1"
    )
    rates = [row for row in result["rows"] if row["what"] != "commits"]
    assert [(row["what"], row["engine"]) for row in rates] == [
        ("session", ""),
        ("pump", "memory"),
        ("pump", "sqlite"),
    ]
    assert all(row["rate"] > 0 and row["ratio"] > 0 for row in rates)
    commits = [row for row in result["rows"] if row["what"] == "commits"]
    assert [row["engine"] for row in commits] == ["memory", "sqlite"]
    assert all(row[name] > 0 for row in commits for name in ("single", "batched", "grouped"))
    assert [target["what"] for target in result["targets"]] == ["pump on SQLite / session"]


def test_several_pumps_share_an_outbox() -> None:
    asked = ["--engines", "sqlite", "--processes", "1,2"]
    result = run("pump", *asked, "--messages", "20", "--consumers", "5", "--rounds", "1", "--seconds", "0.1")
    pumps = [row["processes"] for row in result["rows"] if row["what"] == "pump"]
    assert pumps == [1, 2]


def test_an_engine_that_is_none_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    from benchmarks.__main__ import main

    with pytest.raises(SystemExit):
        main(["pump", "--engines", "oracle"])
    assert "none of memory, sqlite, postgres" in capsys.readouterr().err
