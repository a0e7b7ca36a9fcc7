"""A NATS server with JetStream of the test's own, from Debian's `nats-server`."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

__all__ = ["nats_server"]


@contextmanager
def nats_server(folder: Path) -> Iterator[str]:
    """Its URL, once it can be reached; the test is skipped where the program is missing."""
    program = shutil.which("nats-server", path="/usr/local/bin:/usr/bin:/usr/sbin")
    if program is None:
        pytest.skip("needs a NATS server: apt-get install nats-server")
    command = [program, "--jetstream", "--store_dir", str(folder), "--addr", "127.0.0.1", "--port", "-1"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as server:
        try:
            yield _url_of(server)
        finally:
            server.kill()


def _url_of(server: subprocess.Popen[str]) -> str:
    assert server.stderr is not None
    said = []
    for line in server.stderr:
        said.append(line)
        if "Listening for client connections on " in line:
            address = line.split()[-1]
        if "Server is ready" in line:
            return f"nats://{address}"
    pytest.fail("nats-server did not start: " + "".join(said))
