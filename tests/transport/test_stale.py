"""Connections that the server closed while they were idle, or in the moment after an answer."""

from __future__ import annotations

import asyncio
import errno
import selectors

import anyio
import httpx
import pytest

from connector_async.errors import TransportError
from connector_async.transport import PooledTransport, Target
from connector_async.transport._dial import Address
from tests.faults import FaultServer, answer, well_behaved
from tests.transport.wire import HEADERS, TARGET, Wire

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("end", ["says so", "breaks"])
async def test_a_server_that_closes_after_an_answer_without_a_word_is_found_out(end: str) -> None:
    """Half of all requests met such a connection. Once one did, each is looked at before it is used; and nothing was
    found out about a server that ends a first request, or one in the middle of an answer."""
    wire = Wire()

    async def lose(*before: bytes) -> float:
        task = wire.post()
        await wire.feed(*before)
        await (wire.end() if end == "says so" else wire.lose())
        with pytest.raises(TransportError):
            await task
        return wire.host.look_after

    assert await lose() == 1.0  # the first request on it
    wire.attach().served = 1
    assert await lose(answer()[:5]) == 1.0
    wire.attach().served = 1
    assert await lose() == 0.0
    usable, closed = wire.attach(), wire.attach()
    wire.holds_bytes = closed in wire.host.idle
    assert wire.pool.take(wire.host, wire.pool.loop.time()) is None
    assert usable.is_discarded
    assert closed.is_discarded
    await wire.transport.aclose()


async def test_a_client_of_httpx_meets_no_connection_that_was_closed_just_now() -> None:
    """As with httpx's own transport; there is time for a look."""
    wire = Wire()
    first, wire.holds_bytes = wire.connection, True
    with pytest.raises(httpx.ConnectError):  # the new connection: nobody listens there
        await wire.request(httpx.Request("GET", TARGET.url))
    assert first.is_discarded
    await wire.transport.aclose()


async def test_a_look_needs_no_file_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """epoll is one: where too many were open, OSError came out of a request whose connection was there."""

    def too_many() -> None:
        raise OSError(errno.EMFILE, "too many open files")

    async with FaultServer(well_behaved) as server, PooledTransport() as transport:
        target = Target(server.base, "/")
        await transport.post(target, HEADERS, b"", anyio.current_time() + 60)
        for connection in transport._pool.host(target.origin).connections:  # type: ignore[union-attr]
            connection.look_at = 0.0
        monkeypatch.setattr(selectors, "DefaultSelector", too_many)
        assert (await transport.post(target, HEADERS, b"", anyio.current_time() + 60)).status == 200
        assert server.connections == 1


async def test_a_host_that_was_forgotten_when_its_connection_closed_is_known_again() -> None:
    """The connection was handed over, the server closed it, and another host came, all before the next turn: what was
    opened then belonged to nobody, and was not closed with the pool."""
    asked = asyncio.Event()

    async def resolver(host: str, port: int) -> list[Address]:
        asked.set()
        await asyncio.Event().wait()
        return []

    wire = Wire(max_per_host=1, resolver=resolver)
    first, second = wire.post(), wire.post()
    await wire.feed(answer())
    wire.connection.discard()
    wire.pool.host(("http", "other.example", 80))
    await first
    await asked.wait()
    assert wire.transport.statistics().opening == 1
    await wire.transport.aclose()
    with pytest.raises(TransportError, match="closed"):
        await second
