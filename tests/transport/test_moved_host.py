"""A host that moves to another address is followed, without a failure."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Sequence

import anyio
import pytest

from connector_async.transport import Headers, PooledTransport, Target
from connector_async.transport._dial import Address, resolve

pytestmark = pytest.mark.anyio


@pytest.mark.requirement("C20")
async def test_c20_a_moved_host_is_followed_within_the_age_of_a_connection() -> None:
    """Our fault tables, C20, once: the resolver's answer changes under load; no request fails."""
    served: Counter[str] = Counter()
    addresses = ("127.0.0.1", "127.0.0.2")
    current = addresses[0]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(2)
                served[writer.get_extra_info("sockname")[0]] += 1
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def moving(_host: str, port: int) -> Sequence[Address]:
        return await resolve(current, port)

    first = await asyncio.start_server(serve, addresses[0], 0)
    port = first.sockets[0].getsockname()[1]
    second = await asyncio.start_server(serve, addresses[1], port, family=socket.AF_INET)
    target, headers = Target(f"http://moving.example:{port}", "/"), Headers([])
    try:
        async with PooledTransport(max_connections=10, max_age=0.5, resolver=moving) as transport:

            async def load(until: float) -> None:
                while anyio.current_time() < until:
                    answer = await transport.post(target, headers, b"{}", anyio.current_time() + 10)
                    assert answer.status == 200

            async def loads(seconds: float) -> None:
                async with anyio.create_task_group() as tasks:
                    for _ in range(10):
                        tasks.start_soon(load, anyio.current_time() + seconds)

            await loads(0.2)
            assert set(served) == {addresses[0]}
            current = addresses[1]
            await loads(0.7)  # by now every connection has come of age
            served.clear()
            await loads(0.2)
            assert set(served) == {addresses[1]}
    finally:
        for server in (first, second):
            server.close()
            await server.wait_closed()
        await asyncio.sleep(0)
