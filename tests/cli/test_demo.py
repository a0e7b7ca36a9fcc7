"""The demo against its sandbox, each in a process of its own, as a person runs them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from connector_async.cli import main

_KEYS = {
    "consumers",
    "messages_sent",
    "messages_accepted",
    "errors",
    "tokens_fetched",
    "seconds",
    "messages_per_second",
    "p50_ms",
    "p99_ms",
}
_SMALL = ["--consumers", "3", "--messages", "4", "--concurrency", "2"]


@pytest.mark.requirement("cli:json", "cli:exit-codes")
def test_every_message_of_the_demo_is_accepted(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--json", *_SMALL]) == 0
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert report.keys() >= _KEYS
    assert (report["consumers"], report["messages_sent"], report["messages_accepted"]) == (3, 12, 12)
    assert (report["errors"], report["tokens_fetched"], report["attempts"], report["retried"]) == (0, 1, 12, 0)
    assert 0 < report["p50_ms"] <= report["p99_ms"]
    assert report["messages_per_second"] == pytest.approx(12 / report["seconds"], rel=0.2)
    assert "sending messages: 12/12" in err


def test_the_table_says_the_same_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", *_SMALL]) == 0
    rows = {}
    for line in capsys.readouterr().out.splitlines()[2:]:
        name, _, value = line.strip().partition("  ")
        rows[name] = value.strip()
    assert {name: rows[name] for name in ("messages sent", "accepted", "refused", "retried", "tokens fetched")} == {
        "messages sent": "12",
        "accepted": "12",
        "refused": "0",
        "retried": "0",
        "tokens fetched": "1",
    }
    assert rows.keys() >= {"unknown", "time", "messages per second", "p50", "p99"}


@pytest.mark.requirement("cli:exit-codes", "cli:one-sentence")
@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["--faults", "no-such-file"],
            "cannot read no-such-file: no such file or directory; give a JSON file or one of",
        ),
        (["--faults", "."], "cannot read .: is a directory"),
        (["--faults", __file__], "is not JSON"),
        (["--live", "--faults", "storm"], "leave one of them out"),
        (["--skill-id", "77"], "add --live"),
    ],
    ids=lambda value: value[-1].rpartition("/")[2] if isinstance(value, list) else "",
)
def test_what_cannot_work_is_wrong_use_and_starts_no_sandbox(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert sentence in err


def _children(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(stat.parent.name))
    return found


def _is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="child processes are looked up in /proc")
def test_ctrl_c_ends_the_demo_and_its_sandbox_without_a_traceback() -> None:
    """Within a second; the bound here leaves room for a busy machine."""
    # Tests that a shell runs in the background ignore the signal, and so would the process.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "connector_async", "demo", "--consumers", "50", "--messages", "100000"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    finally:
        signal.signal(signal.SIGINT, before)
    try:
        assert process.stderr is not None
        told = process.stderr.readline()
        while "opening conversations" not in told:  # told when that is over and the sending begins
            assert told, "the demo ended by itself"
            told = process.stderr.readline()
        children = _children(process.pid)
        assert children
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 1
    assert out == ""
    assert err.splitlines()[-1] == "connector-async: interrupted"
    assert "Traceback" not in err
    assert all(_is_gone(child) for child in children)
