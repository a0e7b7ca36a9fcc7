"""OpenSSL's own server as the peer: told to, it renews keys and shakes hands once more, which Python's cannot."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
import anyio.abc
import pytest

from tests.transport.certificates import authority

__all__ = ["OpenSSLServer", "openssl_server"]


class OpenSSLServer:
    """`openssl s_server`: what it is told on standard input is a command of one letter, or text for the client."""

    def __init__(self, process: anyio.abc.Process) -> None:
        self._process = process
        self._said = b""
        self.port = 0

    async def tell(self, text: bytes) -> None:
        """A command, or what the client is to get."""
        assert self._process.stdin is not None
        await self._process.stdin.send(text)

    async def command(self, letter: bytes, seen: bytes) -> None:
        """A command; returns when its effect shows in what the server says of its records."""
        await self.tell(letter + b"\n")
        await self.until(seen)

    async def until(self, words: bytes) -> bytes:
        """What the server says, up to and with these words: the client's text, and a line for each record."""
        assert self._process.stdout is not None
        while words not in self._said:
            self._said += await self._process.stdout.receive()
        said, words, self._said = self._said.partition(words)
        return said + words


@asynccontextmanager
async def openssl_server(version: str) -> AsyncGenerator[OpenSSLServer]:
    """One that speaks this version of TLS (`-tls1_3`) on a free port of loopback, and calls itself localhost."""
    _skip_without_openssl()
    both = str(authority().server_file("localhost"))
    command = ["openssl", "s_server", "-accept", "127.0.0.1:0", "-cert", both, "-key", both, "-msg", version]
    async with await anyio.open_process(command, stderr=subprocess.STDOUT) as process:
        try:
            server = OpenSSLServer(process)
            with anyio.fail_after(60):
                await server.until(b"ACCEPT ")
                address = await server.until(b"\n")
            server.port = int(address.strip().rpartition(b":")[2])
            yield server
        finally:
            process.kill()


def _skip_without_openssl() -> None:
    if shutil.which("openssl") is None:
        pytest.skip("there is no `openssl` command, whose server is the peer of this test")
    said = subprocess.run(["openssl", "version"], capture_output=True, text=True, check=False).stdout.split()
    if said[:1] != ["OpenSSL"] or said[1].startswith(("0.", "1.0.", "1.1.0")):
        pytest.skip(f"the `openssl` command is no OpenSSL 1.1.1 or later, but {' '.join(said[:2])}")
