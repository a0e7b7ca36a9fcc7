"""The sandbox from the command line: its ready line, its end, and what keeps it from starting."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from connector_async.cli import main
from connector_async.cli._console import CommandFailed
from connector_async.cli._sandbox_process import _stop, sandbox_process


@pytest.mark.requirement("cli:sandbox-ready")
def test_the_sandbox_says_where_it_is_when_it_can_be_reached() -> None:
    with sandbox_process("--account-id", "87654321") as address:
        assert address.account_id == "87654321"
        assert "sandbox-secret" not in repr(address)
        url = f"{address.domain_api}/api/account/87654321/service/sentinel/baseURI.json?version=1.0"
        with urllib.request.urlopen(url, timeout=60) as answer:
            assert json.load(answer)["service"] == "sentinel"
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(url, timeout=60)


@pytest.mark.requirement("cli:one-sentence")
def test_a_port_in_use_is_told_in_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["sandbox", "--port", str(port)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert str(port) in err
    assert "in use" in err


@pytest.mark.requirement("cli:one-sentence", "cli:exit-codes")
@pytest.mark.parametrize(
    "words",
    [["--faults", "no-such-file"], ["--webhook-url", "nonsense"], ["--token-lifetime", "nan"], ["--port", "-1"]],
)
def test_a_sandbox_that_cannot_work_is_wrong_use(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["sandbox", *words])
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 2
    assert err.splitlines()[-1].startswith(f"connector-async sandbox: argument {words[0]}: ")


@pytest.mark.requirement("cli:one-sentence")
def test_why_the_sandbox_did_not_start_is_passed_on() -> None:
    told = pytest.raises(CommandFailed, match=r"the sandbox did not start: .*invalid choice: 'sideways'")
    with told, sandbox_process("--sequence", "sideways"):
        pytest.fail("it started")


def test_a_sandbox_that_says_nothing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mute = tmp_path / "mute"
    mute.write_text("#!/bin/sh\nexit 0\n")
    mute.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(mute))
    with pytest.raises(CommandFailed, match="said nothing"), sandbox_process():
        pytest.fail("it started")


def test_a_sandbox_that_does_not_stop_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("connector_async.cli._sandbox_process._STOP_TIMEOUT", 0.01)
    code = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); signal.pause()"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "deaf\n"
    _stop(process)
    assert process.returncode == -9
