"""The choice of the command, wrong use, and how commands end."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from connector_async import __version__
from connector_async.cli import main
from connector_async.cli._console import CommandFailed, WrongUse, on_terminal
from connector_async.errors import ConfigurationError


def _usage_error(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 2
    return err.splitlines()[-1]


@pytest.mark.requirement("cli:exit-codes")
def test_without_a_command_the_use_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        _usage_error([], capsys)
        == "connector-async: COMMAND is missing; there is chat, demo, doctor, manifest, pump, sandbox"
    )
    assert "COMMAND is missing" in _usage_error(["--json"], capsys)


@pytest.mark.requirement("cli:exit-codes")
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["dmeo"], "unknown command 'dmeo'; did you mean demo?"),
        (["xyzzy"], "unknown command 'xyzzy'; there is chat, demo, doctor, manifest, pump, sandbox"),
        (["demo", "--consumer", "5"], "unknown option --consumer; did you mean --consumers?"),
        (["demo", "--cnsumers=5"], "did you mean --consumers?"),
        (["demo", "--xyzzy"], "unknown option --xyzzy; there is -h, --help, --consumers"),
        (["demo", "more"], "unrecognized arguments: more"),
        (["demo", "--consumers", "0"], "argument --consumers: must be a whole number of at least 1, not '0'"),
        (["demo", "--messages", "many"], "argument --messages: must be a whole number of at least 1, not 'many'"),
        (["--json", "demo"], "--json stands before the command; write connector-async demo --json"),
        (["doctor", "--json", "--verbos"], "unknown option --verbos"),
        (["sandbox", "--prot", "80"], "unknown option --prot; did you mean --port?"),
    ],
)
def test_wrong_use_is_told_with_what_was_meant(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert told in _usage_error(words, capsys)


@pytest.mark.parametrize("words", [["--help"], ["-h", "demo"], ["demo", "--help"], ["sandbox", "--help"]])
def test_help_is_no_failure(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("usage: connector-async")


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"connector-async {__version__}\n"


class _Ends:
    """A command that ends with an error."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true")

    def run(self, arguments: argparse.Namespace) -> int:
        raise self._error


def _let_demo_end_with(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("connector_async.cli._main._command", lambda name: _Ends(error))


@pytest.mark.requirement("cli:one-sentence", "cli:exit-codes")
@pytest.mark.parametrize("error", [ConfigurationError("port 80 is in use"), CommandFailed("port 80 is in use")])
def test_an_expected_failure_is_one_sentence_on_stderr(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _let_demo_end_with(error, monkeypatch)
    assert main(["demo"]) == 1
    assert capsys.readouterr() == ("", "connector-async: port 80 is in use\n")


@pytest.mark.requirement("cli:one-sentence", "cli:exit-codes")
def test_wrong_use_that_only_the_command_can_see_is_one_sentence_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _let_demo_end_with(WrongUse("x is a directory"), monkeypatch)
    assert main(["demo", "--json"]) == 2
    assert capsys.readouterr() == ('{"error": "x is a directory"}\n', "connector-async: x is a directory\n")


@pytest.mark.requirement("cli:json")
def test_a_failure_is_an_object_too_where_json_was_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _let_demo_end_with(ConfigurationError("port 80 is in use"), monkeypatch)
    assert main(["demo", "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == {"error": "port 80 is in use"}


def test_an_interrupt_ends_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _let_demo_end_with(KeyboardInterrupt(), monkeypatch)
    assert main(["demo"]) == 1
    assert capsys.readouterr() == ("", "connector-async: interrupted\n")
    assert main(["demo", "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == {"error": "interrupted"}


def test_an_unexpected_error_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug of ours must be seen with its traceback."""
    _let_demo_end_with(ZeroDivisionError(), monkeypatch)
    with pytest.raises(ZeroDivisionError):
        main(["demo"])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no device that is always full")
def test_a_full_disk_is_no_traceback() -> None:
    """`connector-async manifest > file`: one sentence, and not the interpreter's complaint when it flushes."""
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "connector_async", "manifest", "--json"],
            stdout=full,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            check=False,
        )
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[1:] == [
        "connector-async: cannot write to standard output: No space left on device"
    ]


def test_streams_that_are_closed_are_written_to_by_nobody(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`connector-async manifest >&-`: Python then has no stream at all."""
    monkeypatch.setattr(sys, "stdout", None)
    assert main(["manifest"]) == 0
    monkeypatch.setattr(sys, "stderr", None)
    assert main(["manifest"]) == 0
    assert main(["manifest", "--check", "/nowhere"]) == 2
    assert not on_terminal()


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    """`connector-async … | head -0`: found when the summary was piped."""
    code = (
        "import sys, connector_async.cli._main as m\n"
        "class C:\n"
        "    def add_arguments(self, parser): pass\n"
        "    def run(self, arguments):\n"
        "        from connector_async.cli._console import emit\n"
        "        emit('x' * 1_000_000)\n"
        "m._command = lambda name: C()\n"
        "sys.exit(m.main(['demo']))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(10) == 1


@pytest.mark.requirement("cli:one-sentence")
@pytest.mark.parametrize("words", [["sandbox"], ["demo"]])
def test_a_missing_extra_is_told_with_the_command_that_brings_it(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = importlib.util.find_spec

    def without_trustme(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name == "trustme" else real(name, package)

    monkeypatch.setattr("importlib.util.find_spec", without_trustme)
    assert main(words) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "needs trustme" in err
    assert "pip install 'connector-async[sandbox]'" in err


def test_the_module_is_the_command() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "connector_async", "--version"],
        capture_output=True,
        text=True,
        check=True,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONWARNINGS": "error"},
    )
    assert ended.stdout == f"connector-async {__version__}\n"
