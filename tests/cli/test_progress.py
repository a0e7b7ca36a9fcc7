"""Progress on standard error, as a bar or in lines."""

from __future__ import annotations

import importlib.util

import pytest

from connector_async.cli import _progress
from connector_async.cli._progress import progress_on_stderr


def test_a_pipe_gets_a_line_for_each_phase(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_on_stderr() as progress:
        progress.start("opening", 2)
        progress.step()
        progress.step()
        progress.start("sending", 3)
        progress.step()
    out, err = capsys.readouterr()
    assert out == ""
    assert [line.partition(",")[0] for line in err.splitlines()] == ["opening: 2/2", "sending: 1/3"]


def test_a_long_phase_is_told_in_between(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    monkeypatch.setattr("connector_async.cli._progress.time.monotonic", lambda: now)
    with progress_on_stderr() as progress:
        progress.start("sending", 1_000)
        for _ in range(5):
            now += 1.0
            progress.step()
    assert capsys.readouterr().err.splitlines() == [
        "sending: 2/1,000, 1/s",
        "sending: 4/1,000, 1/s",
        "sending: 5/1,000, 1/s",
    ]


def test_nothing_begun_is_nothing_told(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_on_stderr():
        pass
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(importlib.util.find_spec("rich") is None, reason="rich is not installed")
def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("connector_async.cli._progress.on_terminal", lambda: True)
    progress = progress_on_stderr()
    assert isinstance(progress, _progress._Bar)
    with progress:
        progress.step()  # before any phase: nothing to count
        progress.start("sending", 2)
        progress.step()
        progress.step()
    err = capsys.readouterr().err
    assert "sending" in err
    assert "2/2" in err


def test_a_terminal_without_rich_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("connector_async.cli._progress.on_terminal", lambda: True)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert isinstance(progress_on_stderr(), _progress._Lines)
