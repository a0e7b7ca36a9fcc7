"""TLS that renews its keys in the middle of a connection, at the wish of a real peer: OpenSSL's own server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
import anyio.abc
import httpx
import pytest

from connector_async.transport import Answer, PooledTransport, Target
from tests.backends import ASYNCIO, UVLOOP
from tests.transport.certificates import authority
from tests.transport.openssl import OpenSSLServer, openssl_server
from tests.transport.wire import HEADERS

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", [ASYNCIO, UVLOOP])]

_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]"
_SENT, _HEARD = b">>> TLS 1.3, Handshake [length 0005], KeyUpdate", b"<<< TLS 1.3, Handshake [length 0005], KeyUpdate"
_FINISHED = b"Handshake [length 0010], Finished"

# The server's new keys; those and a wish for ours (RFC 8446, 4.6.3); a second handshake (RFC 5246, 7.4.1.1).
_WISHES = [
    pytest.param("-tls1_3", b"k", id="keys"),
    pytest.param("-tls1_3", b"K", id="keys both ways"),
    pytest.param("-tls1_2", b"r", id="handshake"),
]


async def _renew(server: OpenSSLServer, wish: bytes) -> None:
    await server.tell(wish + b"\n")
    if wish == b"r":  # the one's, and the other's
        await server.until(_FINISHED)
        await server.until(_FINISHED)
    else:
        await server.until(_SENT)


class _Client:
    """A pooled transport with one server, whose first connection must do for everything."""

    def __init__(self, server: OpenSSLServer, transport: PooledTransport, port: int) -> None:
        self.server = server
        self.transport = transport
        self.base = f"https://localhost:{port}"

    def start(self, body: bytes) -> asyncio.Task[Answer]:
        """Begin a post."""
        loop = asyncio.get_running_loop()
        return loop.create_task(self.transport.post(Target(self.base, "/path"), HEADERS, body, loop.time() + 60))

    async def exchange(self, number: int, *, renewing: bytes | None = None) -> bytes:
        """A post and its answer, before which the server may renew keys; returns what the server said of the post."""
        task = self.start(b'{"number": %d}' % number)
        said = await self.server.until(b'{"number": %d}' % number)
        if renewing is not None:
            await _renew(self.server, renewing)
        await self.server.tell(_OK)
        await self.check(task)
        return said

    async def check(self, task: asyncio.Task[Answer]) -> None:
        """The answer came, and the connection is the one that there was from the beginning."""
        assert (await task).body == b"[]"
        statistics = self.transport.statistics()
        assert (statistics.opened, statistics.idle) == (1, 1)


@asynccontextmanager
async def _client(version: str) -> AsyncGenerator[_Client]:
    async with openssl_server(version) as server:
        async with PooledTransport(ssl_context=authority().client_context()) as transport:
            with anyio.fail_after(60):
                yield _Client(server, transport, server.port)


@pytest.mark.parametrize(("version", "wish"), _WISHES)
async def test_a_server_may_renew_keys_between_requests_and_before_an_answer(version: str, wish: bytes) -> None:
    """Neither is an answer that nobody asked for, and none costs the connection."""
    async with _client(version) as client:
        await client.exchange(1)
        for number in (2, 3, 4):
            await _renew(client.server, wish)
            await client.exchange(number, renewing=wish)
        await client.exchange(5)


@pytest.mark.parametrize(("version", "wish"), _WISHES)
async def test_a_server_may_renew_keys_within_an_answer(version: str, wish: bytes) -> None:
    """Between any two of its records; here httpx's side reads it."""
    async with _client(version) as client:
        server = client.server
        request = client.transport.handle_async_request(httpx.Request("GET", client.base))
        task = asyncio.get_running_loop().create_task(request)
        await server.until(b"GET /")
        await server.tell(b"HTTP/1.1 200 OK\r\nContent-Length: 50000\r\n\r\n")
        response = await task
        stream, size = response.aiter_raw(), 0
        for part in range(1, 6):
            await _renew(server, wish)
            await server.tell(b"x" * 10_000)
            while size < part * 10_000:
                size += len(await anext(stream))
        await response.aclose()
        await client.exchange(1)


class _Relay:
    """Between the two: hands everything on, or holds back what the server says to the client's next bytes."""

    def __init__(self, port: int) -> None:
        self._server_port = port
        self.port = 0
        self.passes = asyncio.Event()
        self.passes.set()
        self.is_to_hold = False
        self.received = 0
        """Bytes that the client has sent."""
        self.handed = 0
        """Bytes that lie before the client."""

    async def serve(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
            self.port = listener.extra(anyio.abc.SocketAttribute.local_port)
            task_status.started()
            await listener.serve(self._relay)

    async def _relay(self, client: anyio.abc.SocketStream) -> None:
        async with client, await anyio.connect_tcp("127.0.0.1", self._server_port) as server:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._down, server, client)
                async for data in client:
                    if self.is_to_hold:
                        self.passes.clear()
                    self.received += len(data)
                    await server.send(data)
                tasks.cancel_scope.cancel()

    async def _down(self, server: anyio.abc.SocketStream, client: anyio.abc.SocketStream) -> None:
        async for data in server:
            await self.passes.wait()
            await client.send(data)
            self.handed += len(data)


@asynccontextmanager
async def _relayed_client(version: str) -> AsyncGenerator[tuple[_Client, _Relay]]:
    async with openssl_server(version) as server, anyio.create_task_group() as tasks:
        relay = _Relay(server.port)
        await tasks.start(relay.serve)
        async with PooledTransport(ssl_context=authority().client_context()) as transport:
            with anyio.fail_after(60):
                yield _Client(server, transport, relay.port), relay
        tasks.cancel_scope.cancel()


async def _some_turns() -> None:
    for _ in range(20):
        await anyio.lowlevel.checkpoint()


async def test_a_server_that_asks_for_new_keys_gets_them_before_the_next_request() -> None:
    """RFC 8446, 4.6.3: a server may end a connection on which it does not."""
    async with _relayed_client("-tls1_3") as (client, relay):
        await client.exchange(1)
        for number in (2, 3):
            handed = relay.handed
            await _renew(client.server, b"K")
            while relay.handed == handed:  # what the server says that it sends may be still on its way
                await anyio.lowlevel.checkpoint()
            await _some_turns()
            said = await client.exchange(number)
            assert said.count(_HEARD) == 1
            assert said.index(_HEARD) < said.index(b"POST /path")
        assert _HEARD not in await client.exchange(4)


async def test_a_request_waits_for_the_end_of_a_second_handshake_that_is_under_way() -> None:
    """OpenSSL seals nothing meanwhile: the request must not be lost, go out twice, or hold up the loop."""
    async with _relayed_client("-tls1_2") as (client, relay):
        server = client.server
        await client.exchange(1)
        relay.is_to_hold = True
        await server.tell(b"r\n")
        await server.until(_FINISHED)  # its part, of which the client hears nothing yet
        received = relay.received
        task = client.start(b"y" * 40_000 + b"the end")
        await _some_turns()
        assert relay.received == received
        relay.is_to_hold = False
        relay.passes.set()
        said = await server.until(b"the end")
        assert said.count(b"POST /path") == 1
        assert said.count(b"y" * 1_000) >= 30  # lines about records stand in between
        await server.tell(_OK)
        await client.check(task)
        await client.exchange(2)
