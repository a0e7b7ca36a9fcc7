"""The server beneath the faults: raw sockets on loopback, one coroutine per connection, nothing left at the end."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from types import TracebackType
from typing import Self

__all__ = ["Behaviour", "FaultServer", "Peer", "black_hole", "refused_port"]

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)


class Peer:
    """One connection, seen from the server.

    Attributes:
        server: The server, for counting across connections.
        number: 1 for the first connection, and so on.
    """

    def __init__(self, server: FaultServer, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self.server = server
        self.number = number
        self.reader = reader
        self.writer = writer

    async def request(self) -> bytes:
        """The next whole request, head and body.

        Raises:
            EOFError: The client has closed the connection.
            ConnectionError: It broke the connection.
        """
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = _LENGTH.search(head)
        body = await self.reader.readexactly(int(length[1])) if length else b""
        if _CHUNKED.search(head):
            body = await self._chunks()
        self.server.requests.append(head + body)
        return head + body

    async def _chunks(self) -> bytes:
        body = b""
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            body += await self.reader.readexactly(size)
            await self.reader.readexactly(2)
        await self.reader.readexactly(2)
        return body

    async def send(self, data: bytes) -> None:
        """Write and wait until the kernel has taken it."""
        self.writer.write(data)
        self.server.sends += 1
        await self.writer.drain()

    async def client_gone(self) -> None:
        """Wait until the client closes or breaks the connection; what it still sends is dropped."""
        with contextlib.suppress(ConnectionError):
            while await self.reader.read(65_536):
                pass

    def reset(self) -> None:
        """RST: the connection ends at once, and what was not read on the other side is lost."""
        connection = self.writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    def finish(self) -> None:
        """FIN, after everything that was sent."""
        self.writer.close()


Behaviour = Callable[[Peer], Awaitable[None]]


class FaultServer:
    """Serves one behaviour on a free port of loopback.

    Attributes:
        port: Where it listens, while it is entered.
        connections: How many it has accepted so far.
        open: How many are open now.
        sends: How often `Peer.send` has written something.
        requests: Every whole request that `Peer.request` has read, in order.
    """

    def __init__(self, behaviour: Behaviour, *, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> None:
        self.behaviour = behaviour
        self.connections = 0
        self.open = 0
        self.sends = 0
        self.requests: list[bytes] = []
        self.port = 0
        self._tls = tls
        self._host = host
        self._tasks: set[asyncio.Task[None]] = set()
        self._transports: list[asyncio.WriteTransport] = []
        self._server: asyncio.Server

    @property
    def base(self) -> str:
        """The base URL."""
        return f"{'https' if self._tls else 'http'}://{self._host}:{self.port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        peer = Peer(self, self.connections, reader, writer)
        try:
            # The client may go at any time; that is its business.
            with contextlib.suppress(EOFError, ConnectionError, asyncio.LimitOverrunError, ssl.SSLError):
                await self.behaviour(peer)
        finally:
            self.open -= 1

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        self._transports.append(writer.transport)

        def done(_: object) -> None:  # also of a task that was cancelled before it began
            self._tasks.discard(task)
            writer.transport.abort() if self._tls else writer.close()

        task.add_done_callback(done)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, self._host, 0, ssl=self._tls, backlog=1_000)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.close()
        for _ in range(3):  # what was accepted just now gets as far as having a task
            await asyncio.sleep(0)
        while tasks := list(self._tasks):
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        for transport in self._transports:  # one that is being closed may still wait for its client to read
            transport.abort()
        for _ in range(3):  # closed transports let go of their sockets in the next turns
            await asyncio.sleep(0)


@contextlib.contextmanager
def refused_port() -> Iterator[int]:
    """A port on which nobody listens: bound, so that nobody else gets it meanwhile."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@contextlib.asynccontextmanager
async def black_hole() -> AsyncIterator[int]:
    """A port whose queue is full: the kernel answers a SYN to it with nothing at all."""
    with socket.socket() as listener, contextlib.ExitStack() as fillers:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = fillers.enter_context(socket.socket())
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect(listener.getsockname())
        await asyncio.sleep(0)
        yield listener.getsockname()[1]
