"""A connected socket for a host name: resolving, racing the addresses, socket options.

asyncio races addresses itself (Happy Eyeballs, RFC 8305), uvloop does not; so it is done here, once for both.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Sequence
from itertools import chain, zip_longest

import anyio

__all__ = ["Address", "Resolver", "dial", "resolve"]

Address = tuple[int, tuple[object, ...]]
"""Address family and the socket address that goes with it."""

Resolver = Callable[[str, int], Awaitable[Sequence[Address]]]
"""`(host, port)` to addresses, best first."""

# Seconds: a peer that went away without a word is noticed after 30 + 3 x 10, also where no request is under way.
_KEEP_ALIVE = (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))


async def resolve(host: str, port: int) -> Sequence[Address]:
    """The system's resolver; addresses are taken as they are, without a thread."""
    try:
        family = socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else socket.AF_INET
    except ValueError:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return [(family, address) for family, _, _, _, address in found]
    return [(family, (host, port))]


async def dial(host: str, port: int, *, resolver: Resolver, delay: float) -> socket.socket:
    """Connect to the first address that answers; each next one gets its chance after `delay` seconds.

    Raises:
        OSError: No address answers; the error of the first one.
    """
    addresses = _interleaved(await resolver(host, port))
    if not addresses:
        raise OSError(f"no address found for {host}")
    if len(addresses) == 1:
        return await _connect(*addresses[0])
    return await _race(addresses, delay)


def _interleaved(addresses: Sequence[Address]) -> list[Address]:
    """Take turns between the families, starting with the one that the resolver put first (RFC 8305, 4)."""
    first = [item for item in addresses if item[0] == addresses[0][0]]
    other = [item for item in addresses if item[0] != addresses[0][0]]
    return [item for item in chain.from_iterable(zip_longest(first, other)) if item is not None]


async def _race(addresses: list[Address], delay: float) -> socket.socket:
    winner: list[socket.socket] = []
    errors: list[OSError] = []

    async def attempt(address: Address, failed: anyio.Event) -> None:
        try:
            connected = await _connect(*address)
        except OSError as error:
            errors.append(error)
            failed.set()
            return
        if winner:  # both came in the same turn of the loop
            connected.close()
            return
        winner.append(connected)
        group.cancel_scope.cancel()

    try:
        async with anyio.create_task_group() as group:
            for address in addresses:
                failed = anyio.Event()
                group.start_soon(attempt, address, failed)
                with anyio.move_on_after(delay):
                    await failed.wait()
    except BaseException:
        for connected in winner:  # the caller was cancelled just when one had won
            connected.close()
        raise
    if not winner:
        raise errors[0]
    return winner[0]


async def _connect(family: int, address: tuple[object, ...]) -> socket.socket:
    connecting = socket.socket(family, socket.SOCK_STREAM)
    try:
        connecting.setblocking(False)  # noqa: FBT003 - the name says it
        connecting.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connecting.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEP_ALIVE:
            if hasattr(socket, name):
                connecting.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        await asyncio.get_running_loop().sock_connect(connecting, address)
    except BaseException:
        connecting.close()
        raise
    return connecting
