"""The sandbox as a process of its own: one JSON line when ready, a clean end within a second, clear sentences."""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest

from connector_async.errors import ConfigurationError
from connector_async.sandbox import __main__ as entry
from connector_async.sandbox import serve


def _parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    serve.add_arguments(parser)
    return parser.parse_args(arguments)


def _start(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "connector_async.sandbox", *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _ready(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    return dict(json.loads(process.stdout.readline()))


@pytest.mark.parametrize("how", ["SIGINT", "SIGTERM", "end of input"])
def test_it_says_where_it_is_and_stops_within_a_second(how: str) -> None:
    """our design, 6 and issue 2. On a busy machine it may take as long as three starts."""
    began = time.monotonic()
    process = _start("--exit-with-parent", "--port", "0")
    ready = _ready(process)
    start = time.monotonic() - began
    assert list(ready) == ["url", "domain_api", "account_id", "client_id", "client_secret", "ca_file"]
    assert ready["ca_file"] is None
    with urllib.request.urlopen(
        f"{ready['domain_api']}/api/account/{ready['account_id']}/service/idp/baseURI"
    ) as found:
        assert json.load(found)["baseURI"] == ready["url"].removeprefix("http://")
    assert process.stdin is not None
    process.stdin.write("not the end\n")
    process.stdin.flush()
    began = time.monotonic()
    if how == "end of input":
        process.stdin.close()
        process.stdin = None
    else:
        process.send_signal(getattr(signal, how))
    out, log = process.communicate(timeout=60)
    assert time.monotonic() - began < max(1.0, 3 * start)
    assert (process.returncode, out) == (0, "")
    assert "stopping" in log
    assert ready["client_secret"] not in log


def test_tls_comes_with_the_file_of_its_ca() -> None:
    """`--tls`."""
    process = _start("--tls", "--host", "127.0.0.1")
    ready = _ready(process)
    context = ssl.create_default_context(cafile=ready["ca_file"])
    with urllib.request.urlopen(f"{ready['url']}/sandbox/", context=context) as index:
        assert json.load(index)["url"] == ready["url"]
    process.terminate()
    process.communicate(timeout=60)
    assert not os.path.exists(ready["ca_file"])  # noqa: PTH110 - one look


def test_a_port_in_use_gives_one_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Issue 2: the port, and what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"port {port}: .*choose another with --port"):
            serve.main(_parse("--port", str(port)))
        monkeypatch.setattr(sys, "argv", ["sandbox", "--port", str(port)])
        assert entry.main() == 1
        assert f"cannot listen on 127.0.0.1 port {port}" in capsys.readouterr().err


def test_an_address_that_is_none_gives_one_sentence() -> None:
    """Issue 2."""
    for host in ("192.0.2.1", "not a host", "::1:1"):
        with pytest.raises(
            ConfigurationError, match=r"cannot listen on .*; name an address of this machine with --host"
        ):
            serve.run(host=host, port=0)


def test_a_wrong_fault_file_is_told_before_anything_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """Issue 3, item 6; a wrong option is wrong use, exit code 2."""
    with pytest.raises(SystemExit) as caught:
        _parse("--faults", "nowhere")
    assert caught.value.code == 2
    assert "faults: cannot read nowhere: no such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--port", "x"), "a port is a number from 0 to 65535, not x"),
        (("--port", "٣"), "a port is a number from 0 to 65535"),
        (("--token-lifetime", "soon"), "must be seconds, more than 0 and at most 1,000,000,000, not soon"),
        (("--token-lifetime", "1e308"), "must be seconds"),
        (("--account-id", ""), "must be letters and digits"),
        (("--account-id", "a/b"), "must be letters and digits, since it stands in the URLs, not 'a/b'"),
        (("--host", ""), "must be a text that is not empty"),
        (("--client-id", " "), "without white space around it"),
        (("--client-secret", "x "), "without white space around it"),
        (("--webhook-url", "http://[::1"), "is no URL: Invalid IPv6 URL"),
        (("--webhook-url", "http://x:99999"), "is no URL: Port out of range"),
        (("--webhook-url", "http://x/é"), "must be a URL that begins with http:// or https://, in plain ASCII"),
        (("--webhook-url", "ftp://x"), "must be a URL that begins with http:// or https://"),
    ],
)
def test_a_wrong_option_is_told_in_one_sentence(
    arguments: tuple[str, str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Locks a bug: some ended in a traceback, and some in "invalid _positive value"."""
    with pytest.raises(SystemExit) as caught:
        _parse(*arguments)
    assert caught.value.code == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [("--port", "65536"), ("--port", "x"), ("--token-lifetime", "0"), ("--sequence", "other")]
)
def test_wrong_use_is_told_by_the_parser(arguments: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2."""
    with pytest.raises(SystemExit) as caught:
        _parse(*arguments)
    assert caught.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def _stop_when_ready(lines: list[str]) -> Callable[[str], None]:
    def ready(line: str) -> None:
        lines.append(line)
        os.kill(os.getpid(), signal.SIGTERM)

    return ready


def test_in_process_of_the_caller_it_runs_until_the_signal() -> None:
    """`run()` as the command line calls it."""
    lines: list[str] = []
    serve.run(ready=_stop_when_ready(lines), token_lifetime=5.0, account_id="7")
    assert json.loads(lines[0])["account_id"] == "7"


def test_the_ready_line_is_the_only_output(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Standard output is for machines."""
    monkeypatch.setattr(serve, "_print", _stop_when_ready([]))
    assert serve.main(_parse()) == 0
    monkeypatch.undo()
    serve._print("{}")
    assert capsys.readouterr().out == "{}\n"


def test_the_parent_is_watched_through_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--exit-with-parent`: a file never comes to an end that could be waited for."""
    read, write = os.pipe()
    saved = os.dup(0)
    try:
        os.dup2(read, 0)
        os.write(write, b"x")
        os.close(write)
        lines: list[str] = []
        serve.run(exit_with_parent=True, ready=lines.append)
        assert len(lines) == 1
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        with pytest.raises(ConfigurationError, match="must be a pipe"):
            serve.run(exit_with_parent=True, ready=lines.append)
        os.close(0)
        with pytest.raises(ConfigurationError, match="must be a pipe"):
            serve.run(exit_with_parent=True, ready=lines.append)
    finally:
        os.dup2(saved, 0)
        os.close(saved)
        os.close(read)
