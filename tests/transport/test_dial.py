"""Connecting: literals, names, several addresses raced, and every way in which it fails."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from typing import Any

import anyio
import pytest

from connector_async.errors import Phase, TransportError
from connector_async.transport import Headers, PooledTransport, Target
from connector_async.transport import _dial as dialling
from connector_async.transport._dial import Address, Resolver, dial, resolve
from tests.backends import ASYNCIO, UVLOOP
from tests.faults import FaultServer, black_hole, refused_port, well_behaved

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", [ASYNCIO, UVLOOP])]


def _resolver(*ports: int) -> Resolver:
    async def resolver(host: str, port: int) -> Sequence[Address]:
        return [(socket.AF_INET, ("127.0.0.1", port)) for port in ports]

    return resolver


async def test_a_literal_is_not_looked_up(anyio_backend: Any) -> None:
    """No thread for what needs none."""
    assert await resolve("127.0.0.1", 80) == [(socket.AF_INET, ("127.0.0.1", 80))]
    assert await resolve("::1", 80) == [(socket.AF_INET6, ("::1", 80))]


async def test_a_name_is_looked_up(anyio_backend: Any) -> None:
    """By the system."""
    assert (socket.AF_INET, ("127.0.0.1", 80)) in [
        (family, address[:2]) for family, address in await resolve("localhost", 80)
    ]


async def test_families_take_turns(anyio_backend: Any) -> None:
    """RFC 8305, 4."""
    six, four = (socket.AF_INET6, ("::1", 1)), (socket.AF_INET, ("127.0.0.1", 1))
    assert dialling._interleaved([six, six, four]) == [six, four, six]
    assert dialling._interleaved([four, six, six]) == [four, six, six]
    assert dialling._interleaved([]) == []


async def test_an_address_that_refuses_is_followed_by_the_next_at_once(anyio_backend: Any) -> None:
    """Not only after the delay."""
    with refused_port() as refused:
        async with FaultServer(well_behaved) as server:
            with anyio.fail_after(30):
                connected = await dial("x", 1, resolver=_resolver(refused, server.port), delay=60)
            assert connected.getpeername()[1] == server.port
            connected.close()


async def test_an_address_that_does_not_answer_is_followed_by_the_next_after_the_delay(anyio_backend: Any) -> None:
    """Happy Eyeballs."""
    async with black_hole() as silent, FaultServer(well_behaved) as server:
        with anyio.fail_after(30):
            connected = await dial("x", 1, resolver=_resolver(silent, server.port), delay=0.02)
        assert connected.getpeername()[1] == server.port
        connected.close()


async def test_when_all_addresses_refuse_the_first_error_is_told(anyio_backend: Any) -> None:
    """Of one address, of several, and of none."""
    with refused_port() as port:
        for ports in ((port,), (port, port)):
            with pytest.raises(ConnectionRefusedError):
                await dial("x", 1, resolver=_resolver(*ports), delay=0.01)
    with pytest.raises(OSError, match="no address"):
        await dial("x", 1, resolver=_resolver(), delay=0.01)


async def test_of_two_that_win_in_the_same_turn_one_is_closed(anyio_backend: Any, monkeypatch: Any) -> None:
    """The other would be left open."""
    made: list[socket.socket] = []
    both = asyncio.Event()

    async def connect(family: int, address: tuple[object, ...]) -> socket.socket:
        with anyio.CancelScope(shield=True):
            await both.wait()
        made.append(socket.socket())
        return made[-1]

    monkeypatch.setattr(dialling, "_connect", connect)
    asyncio.get_running_loop().call_later(0.02, both.set)
    winner = await dial("x", 1, resolver=_resolver(1, 2), delay=0.001)
    assert winner is made[0]
    assert made[1].fileno() == -1
    winner.close()


async def test_a_caller_cancelled_when_one_has_won_leaves_no_socket(anyio_backend: Any, monkeypatch: Any) -> None:
    """In the same turn of the loop."""
    made: list[socket.socket] = []
    task: asyncio.Task[socket.socket]

    async def connect(family: int, address: tuple[object, ...]) -> socket.socket:
        made.append(socket.socket())
        task.cancel()
        return made[-1]

    monkeypatch.setattr(dialling, "_connect", connect)
    task = asyncio.get_running_loop().create_task(dial("x", 1, resolver=_resolver(1, 2), delay=0.001))
    await asyncio.wait([task])
    assert task.cancelled()
    assert made[0].fileno() == -1


async def test_options_that_a_system_lacks_are_left_out(anyio_backend: Any, monkeypatch: Any) -> None:
    """The names differ between systems."""
    monkeypatch.setattr(dialling, "_KEEP_ALIVE", (("TCP_DOES_NOT_EXIST", 1),))
    async with FaultServer(well_behaved) as server:
        (await dial("127.0.0.1", server.port, resolver=resolve, delay=1)).close()


async def test_a_name_that_does_not_exist_was_sent_nothing(anyio_backend: Any) -> None:
    """A look-up that fails is a failure to connect."""

    async def unknown(host: str, port: int) -> Sequence[Address]:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    async with PooledTransport(resolver=unknown) as transport:
        with pytest.raises(TransportError) as caught:
            await transport.post(Target("http://x", "/"), Headers([]), b"", anyio.current_time() + 5)
        assert (caught.value.phase, caught.value.sent, caught.value.timed_out) == (Phase.CONNECT, False, False)


async def test_new_connections_follow_a_change_of_address(anyio_backend: Any) -> None:
    """our fault tables, C20: with `max_age`, all traffic has moved after that time."""
    async with FaultServer(well_behaved) as before, FaultServer(well_behaved) as after:
        ports = [before.port]

        async def resolver(host: str, port: int) -> Sequence[Address]:
            return [(socket.AF_INET, ("127.0.0.1", ports[0]))]

        async with PooledTransport(resolver=resolver, max_age=0.05) as transport:
            target = Target("http://x", "/")
            await transport.post(target, Headers([]), b"", anyio.current_time() + 5)
            ports[0] = after.port
            await anyio.sleep(0.06)
            await transport.post(target, Headers([]), b"", anyio.current_time() + 5)
            assert (len(before.requests), len(after.requests)) == (1, 1)
