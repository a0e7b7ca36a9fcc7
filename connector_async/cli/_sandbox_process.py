"""A sandbox in a process of its own, which never outlives ours."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import IO

import attrs

from connector_async.cli._console import CommandFailed

__all__ = ["SandboxAddress", "sandbox_process"]

# A person who pressed Ctrl-C sees the prompt again within a second; the sandbox stops in milliseconds.
_STOP_TIMEOUT = 0.8


@attrs.frozen(kw_only=True)
class SandboxAddress:
    """Where the sandbox is and with what to enter it: its ready line."""

    url: str
    domain_api: str
    account_id: str
    client_id: str
    client_secret: str = attrs.field(repr=False)
    ca_file: str | None = None


@contextmanager
def sandbox_process(*options: str) -> Generator[SandboxAddress]:
    """Run `python -m connector_async sandbox` on a free port for as long as the block lasts.

    Its standard input is a pipe from us, at whose end it stops by itself: it is gone even if we are killed. It has a
    process group of its own, so that Ctrl-C reaches us alone and the session can close while it still answers.

    Raises:
        CommandFailed: It did not start; the message is what it said last.
    """
    command = [sys.executable, "-m", "connector_async", "sandbox", "--port", "0", "--exit-with-parent", *options]
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(  # noqa: S603 - our own command line, no shell
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, text=True, start_new_session=True
        )
        try:
            assert process.stdout is not None  # noqa: S101 - it is a pipe
            yield _address(process.stdout.readline(), said, command)
        finally:
            _stop(process)


def _address(line: str, said: IO[str], command: Sequence[str]) -> SandboxAddress:
    try:
        return SandboxAddress(**json.loads(line))
    except (ValueError, TypeError) as error:
        said.seek(0)
        words = [text.strip() for text in said if text.strip()]
        reason = words[-1] if words else f"`{' '.join(command)}` said nothing"
        raise CommandFailed(f"the sandbox did not start: {reason}") from error


def _stop(process: subprocess.Popen[str]) -> None:
    # While it is still starting it does not listen for the end of its input yet; a signal ends it at any time.
    process.terminate()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    try:
        process.wait(_STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
