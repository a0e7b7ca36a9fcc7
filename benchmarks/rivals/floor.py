"""The floor: nothing but asyncio's transport, a prebuilt head and the C parser; one connection per worker.

Two of them. asyncio reads into a new buffer of 256 KiB and shrinks it, each time; whether the allocator then returns
that memory to the system and fetches it again depends on what happens to lie behind it on the heap, and costs as much
as all the rest (10 to 13 us). `connect` is the plain protocol that anybody would write and takes that as it comes;
`connect_lean` reads 4 KiB at a time and cannot be hit.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from itertools import count
from typing import Any, cast
from urllib.parse import urlsplit

import httptools

from benchmarks.job import Job
from benchmarks.rivals import Send, payload

_numbers = count()


class _Connection(asyncio.Protocol):
    def __init__(self, head: bytes, before: bytes, after: bytes, read_size: int) -> None:
        self._read_size = read_size
        self._parser = httptools.HttpResponseParser(self)
        self._head, self._before, self._after = head, before, after
        self._body = b""
        self._waiter: asyncio.Future[bytes]
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self._read_size and hasattr(transport, "max_size"):  # asyncio's own; uvloop keeps its buffer
            cast(Any, transport).max_size = self._read_size
        self._transport = transport  # type: ignore[assignment]  # asyncio gives stream protocols a Transport

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, data: bytes) -> None:
        self._body += data

    def on_message_complete(self) -> None:
        self._waiter.set_result(self._body)
        self._body = b""

    def post(self) -> asyncio.Future[bytes]:
        self._waiter = self._loop.create_future()
        self._transport.write(b"%b%b%010d%b" % (self._head, self._before, next(_numbers), self._after))
        return self._waiter

    def close(self) -> None:
        self._transport.abort()


def connect(job: Job) -> AbstractAsyncContextManager[Send]:
    """One connection per worker, as asyncio gives it."""
    return _connect(job, read_size=0)


def connect_lean(job: Job) -> AbstractAsyncContextManager[Send]:
    """One connection per worker, reading little at a time."""
    return _connect(job, read_size=4096)


@asynccontextmanager
async def _connect(job: Job, read_size: int) -> AsyncIterator[Send]:
    loop = asyncio.get_running_loop()
    where = urlsplit(job.base)
    host, port = str(where.hostname), where.port or 80
    tls = payload.client_tls(job)
    connections: list[_Connection] = []
    for worker in range(job.in_flight):
        _, connection = await loop.create_connection(
            partial(_Connection, *_message(worker, where.netloc), read_size), host, port, ssl=tls
        )
        connections.append(connection)
    try:
        yield lambda worker: connections[worker].post()
    finally:
        for connection in connections:
            connection.close()


def _message(worker: int, host: str) -> tuple[bytes, bytes, bytes]:
    before, middle, after = payload.body(payload.conversation_id(worker)).partition(b'"id":"')
    after = after[after.index(b'"') :]
    length = len(before) + len(middle) + 10 + len(after)
    lines = [f"POST {payload.PATH} HTTP/1.1", f"Host: {host}", f"Content-Length: {length}"]
    lines += [f"{name}: {value}" for name, value in payload.headers(worker).items()]
    return "\r\n".join([*lines, "", ""]).encode(), before + middle, after
