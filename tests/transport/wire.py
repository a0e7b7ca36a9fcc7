"""A pooled transport without sockets: the test plays the network, byte by byte and without a server."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx

from connector_async.transport import Answer, Headers, PooledTransport, Target
from connector_async.transport._connection import Connection

__all__ = ["HEADERS", "TARGET", "Line", "Wire"]

TARGET = Target("http://127.0.0.1:1", "/path")
HEADERS = Headers([("X-Test", "1")])


class Line(asyncio.Transport):
    """What asyncio gives to a protocol, with nothing behind it: remembers what was written."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self.written = b""
        self.is_aborted = False
        self.reads = True
        self._connection = connection

    def write(self, data: Any) -> None:
        self.written += data

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.limits = (high, low)

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True

    def abort(self) -> None:
        if not self.is_aborted:
            self.is_aborted = True
            asyncio.get_running_loop().call_soon(self._connection.connection_lost, None)


class Wire:
    """One connection of a pooled transport; `feed`, `end` and `lose` are what the network does to it."""

    def __init__(self, **settings: Any) -> None:
        self.transport = PooledTransport(**settings)
        self.pool = self.transport._bind(asyncio.get_running_loop())
        self.holds_bytes = False  # that nobody has read yet
        self.pool.is_readable = lambda transport: self.holds_bytes  # type: ignore[method-assign]
        self.host = self.pool.host(TARGET.origin)
        self.connection = self.attach()

    def attach(self) -> Connection:
        """Make a connection and put it among the idle ones."""
        connection = Connection(self.pool, self.host)
        self.line = Line(connection)
        connection.connection_made(self.line)
        connection.expires_at = self.pool.loop.time() + 1_000
        self.host.connections.add(connection)
        self.pool._used += 1
        self.pool.release(connection)
        self.connection = connection
        return connection

    def post(self, body: bytes = b"{}", seconds: float = 5.0) -> asyncio.Task[Answer]:
        """Start a post."""
        loop = asyncio.get_running_loop()
        return loop.create_task(self.transport.post(TARGET, HEADERS, body, loop.time() + seconds))

    def request(self, request: httpx.Request) -> asyncio.Task[httpx.Response]:
        """Start a request of httpx and read its response."""

        async def run() -> httpx.Response:
            response = await self.transport.handle_async_request(request)
            response.request = request
            await response.aread()
            return response

        return asyncio.get_running_loop().create_task(run())

    async def feed(self, *pieces: bytes) -> None:
        """The server's bytes, each piece in a turn of the loop of its own."""
        for piece in pieces:
            await asyncio.sleep(0)
            if not self.line.is_aborted:
                self.connection.data_received(piece)

    async def end(self) -> None:
        """The server's end of stream; asyncio then closes the connection."""
        await asyncio.sleep(0)
        if not self.line.is_aborted:
            self.connection.eof_received()
            await self.lose()

    async def lose(self, error: Exception | None = None) -> None:
        """The connection breaks."""
        await asyncio.sleep(0)
        if not self.line.is_aborted:
            self.line.is_aborted = True
            self.connection.connection_lost(error)

    @property
    def is_kept(self) -> bool:
        """Whether the connection waits for the next request."""
        return self.connection in self.host.idle and not self.line.is_aborted
