"""Which connection carries which exchange: idle ones, limits, those who wait, those being opened.

Owns all connections of one event loop. Every count changes synchronously and in one place (`take`, `release`,
`removed`, `_open`), so that no cancellation can lose a slot. Knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
import random
import select
import sys
from typing import Any

import anyio
import attrs

from connector_async.errors import Phase, TLSError, TransportError
from connector_async.transport._connection import LOOK_AFTER, BufferedConnection, Connection
from connector_async.transport._deadlines import Deadlines, Expiring
from connector_async.transport._dial import Resolver, dial
from connector_async.transport._secured import Secured
from connector_async.transport._tls import TLSSettings, is_refusal, reason_of

__all__ = ["Host", "Limits", "Origin", "Pool"]

Origin = tuple[str, str, int] | tuple[str, str, int, str]
"""Scheme, host, port; and whom the certificate must name, where that is not the host."""

_READ_SIZE = 65_536
# Expired idle connections are closed up to this many seconds late: one look for many.
_SWEEP_INTERVAL = 1.0
# Aborted sockets close within a turn or two of the loop; nothing that goes wrong there may hold up who closes us.
_CLOSE_TIMEOUT = 1.0


@attrs.frozen(kw_only=True)
class Limits:
    """Bounds of a pool: counts, seconds, bytes."""

    max_connections: int
    max_per_host: int
    idle_timeout: float
    max_age: float
    connect_timeout: float
    happy_eyeballs_delay: float
    max_head_bytes: int
    max_body_bytes: int


class Host:
    """Everything that belongs to one origin."""

    __slots__ = ("connections", "idle", "look_after", "openings", "origin", "waiters")

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        self.connections: set[Connection] = set()
        # A dict, for three things at O(1): take the newest, take out any, oldest first when walked.
        self.idle: dict[Connection, None] = {}
        self.openings: set[Opening] = set()
        self.waiters: dict[Waiter, None] = {}
        # Seconds; 0 once this server has closed a connection after an answer without having said so.
        self.look_after = LOOK_AFTER

    def __str__(self) -> str:
        scheme, name, port, *server_name = self.origin
        shown = f"[{name}]" if ":" in name else name
        return f"{scheme}://{shown}:{port}" + "".join(f" as {known}" for known in server_name)

    @property
    def used(self) -> int:
        """Slots in use, connections being opened included."""
        return len(self.connections) + len(self.openings)


class Opening:
    """A connection in the making: it holds a slot, and can be aborted."""

    __slots__ = ("abort_reason", "phase", "target", "timeout")

    def __init__(self, target: object) -> None:
        self.target = target
        self.phase = Phase.CONNECT
        self.timeout: asyncio.Timeout | None = None
        self.abort_reason: str | None = None

    def abort(self, reason: str) -> None:
        """End it: its caller gets an error with this message."""
        self.abort_reason = reason
        if self.timeout is not None and not self.timeout.expired():
            self.timeout.reschedule(0.0)


class Waiter:
    """A caller in the queue; gets a connection, or the permission (and the slot) to open one."""

    __slots__ = ("bucket", "future", "host", "pool", "target", "ticket")

    def __init__(self, pool: Pool, host: Host, target: object, ticket: int) -> None:
        self.pool = pool
        self.host = host
        self.target = target
        self.ticket = ticket
        self.future: asyncio.Future[Connection | Opening] = pool.loop.create_future()
        self.bucket: set[Expiring] = set()

    def expire(self) -> None:
        """The deadline has come."""
        self.fail(TransportError("no connection came free", phase=Phase.POOL, sent=False, timed_out=True))

    def abort(self, reason: str) -> None:
        """End the wait: the caller gets an error with this message."""
        self.fail(TransportError(reason, phase=Phase.POOL, sent=False))

    def fail(self, error: TransportError) -> None:
        """End the wait with this error."""
        self.pool.leave_queue(self)
        if not self.future.done():
            self.future.set_exception(error)
            self.future.exception()  # seen, even if the task is gone

    def give(self, slot: Connection | Opening) -> bool:
        """Hand over; False if the caller was cancelled meanwhile."""
        self.pool.leave_queue(self)
        if self.future.done():
            return False
        self.future.set_result(slot)
        return True


class Pool:
    """The connections of one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, limits: Limits, tls: TLSSettings, resolver: Resolver) -> None:
        self.loop = loop
        self.limits = limits
        self.deadlines = Deadlines(loop)
        self.view = memoryview(bytearray(_READ_SIZE))
        is_uvloop = type(loop).__module__.startswith("uvloop")
        self._connection_class = Connection if is_uvloop else BufferedConnection
        self.hosts: dict[Origin, Host] = {}
        self.opened = 0
        self.served = 0
        self._tls = tls
        self._resolver = resolver
        self._used = 0
        self._waiting = 0
        self._is_serving = False
        self._ticket = 0
        self._alive: set[Connection] = set()
        self._sweep: asyncio.TimerHandle | None = None
        self._quiet: asyncio.Event | None = None

    # -- the hot path ------------------------------------------------------------------------------------------------

    def host(self, origin: Origin) -> Host:
        """The entry of an origin; made at first use, kept while it has anything."""
        host = self.hosts.get(origin)
        if host is None:
            for known in [known for known in self.hosts.values() if not known.used and not known.waiters]:
                del self.hosts[known.origin]
            host = self.hosts[origin] = Host(origin)
        return host

    def take(self, host: Host, now: float, *, look: bool = False) -> Connection | None:
        """The idle connection that was used last, if there is one; `look` at it even if it was used just now."""
        while host.idle:
            connection = host.idle.popitem()[0]
            if (now < connection.look_at and not look) or connection.is_usable(now):
                return connection
            connection.discard()
        return None

    def release(self, connection: Connection) -> None:
        """A connection has finished an exchange and is clean."""
        now = self.loop.time()
        if now >= connection.expires_at:
            connection.discard()
            return
        connection.target = None
        connection.idle_since = now
        host = connection.host
        at, end = now + host.look_after, connection.expires_at
        connection.look_at = at if at < end else end  # noqa: FURB136 - `min` takes three times as long
        host.idle[connection] = None
        if self._waiting:
            self._serve()
        elif self._sweep is None:
            self._sweep = self.loop.call_later(self.limits.idle_timeout, self._close_expired)

    # -- getting a connection ----------------------------------------------------------------------------------------

    async def acquire(
        self,
        host: Host,
        target: object,
        *,
        wait_until: float,
        connect_within: float,
        deadline: float,
        look: bool = False,
    ) -> Connection:
        """An idle connection, or a new one, or one that comes free.

        Args:
            wait_until: When to give up waiting for a slot (seconds on the loop's clock).
            connect_within: Seconds for connecting, TLS handshake included.
            deadline: When to give up altogether.
            look: See `take`.

        Raises:
            TransportError: With phase POOL, CONNECT or TLS; nothing was sent.
        """
        while True:
            slot = self.take(host, self.loop.time(), look=look) or self._reserve(host, target)
            if slot is None:
                slot = await self._queue(host, target, wait_until)
            if isinstance(slot, Opening):
                return await self._open(host, slot, min(deadline, self.loop.time() + connect_within))
            if not slot.is_discarded:  # the server may have closed it just when it was handed over
                return slot
            host = self.host(host.origin)  # with its last connection it may have been forgotten

    def _has_room(self, host: Host) -> bool:
        if host.used >= self.limits.max_per_host:
            return False
        return self._used < self.limits.max_connections or any(other.idle for other in self.hosts.values())

    def _reserve(self, host: Host, target: object) -> Opening | None:
        """A slot for a new connection, if need be that of the connection which nobody used for longest."""
        if not self._has_room(host):
            return None
        if self._used >= self.limits.max_connections:
            oldest = [next(iter(other.idle)) for other in self.hosts.values() if other.idle]
            min(oldest, key=lambda connection: connection.idle_since).discard()
        opening = Opening(target)
        host.openings.add(opening)
        self._used += 1
        return opening

    async def _queue(self, host: Host, target: object, wait_until: float) -> Connection | Opening:
        self._ticket += 1
        waiter = Waiter(self, host, target, self._ticket)
        host.waiters[waiter] = None
        self._waiting += 1
        waiter.bucket = self.deadlines.bucket(wait_until)
        waiter.bucket.add(waiter)
        try:
            return await waiter.future
        except BaseException:
            self.leave_queue(waiter)
            # Cancelled in the same turn in which a slot was handed over: the slot goes to the next one.
            if not waiter.future.cancelled() and waiter.future.exception() is None:
                self._give_back(host, waiter.future.result())
            raise

    def _give_back(self, host: Host, slot: Connection | Opening) -> None:
        if isinstance(slot, Opening):
            self._cancel_opening(host, slot)
        elif not slot.is_discarded:
            self.release(slot)

    def _cancel_opening(self, host: Host, opening: Opening) -> None:
        host.openings.discard(opening)
        self._used -= 1
        self._serve()

    def leave_queue(self, waiter: Waiter) -> None:
        """Take a waiter out; idempotent."""
        if waiter in waiter.host.waiters:
            del waiter.host.waiters[waiter]
            self._waiting -= 1
            waiter.bucket.discard(waiter)

    async def _open(self, host: Host, opening: Opening, until: float) -> Connection:
        try:
            connection = await self._connect(host, opening, until)
            if connection.is_discarded:
                raise TransportError("the server closed the connection at once", phase=opening.phase, sent=False)
        except BaseException:
            self._cancel_opening(host, opening)
            raise
        host.openings.discard(opening)
        host.connections.add(connection)
        self.opened += 1
        # Spread, so that connections opened together do not all end together.
        connection.expires_at = self.loop.time() + self.limits.max_age * random.uniform(0.9, 1.0)  # noqa: S311
        return connection

    async def _connect(self, host: Host, opening: Opening, until: float) -> Connection:
        opening.timeout = timeout = asyncio.timeout_at(0.0 if opening.abort_reason else until)
        try:
            async with timeout:
                return await self._dial(host, opening)
        except (OSError, ValueError) as error:  # TimeoutError, ssl.SSLError; UnicodeError: no host has such a name
            if opening.abort_reason is not None:
                raise TransportError(opening.abort_reason, phase=opening.phase, sent=False) from None
            raise _refusal(error, opening.phase, timed_out=timeout.expired()) from error

    async def _dial(self, host: Host, opening: Opening) -> Connection:
        scheme, name, port, *server_name = host.origin
        connection = self._connection_class(self, host)
        secured = None
        if scheme == "https":
            secured = Secured(connection, self.view, self._tls.context, server_name[0] if server_name else name)
        delay = self.limits.happy_eyeballs_delay
        connected = await dial(name, port, resolver=self._resolver, delay=delay)
        if secured is not None:
            opening.phase = Phase.TLS
        try:
            await self.loop.create_connection(lambda: secured or connection, sock=connected)
            if secured is not None:
                await secured.ready
        except BaseException:
            # Cancelled when it had just been made: uvloop does not even tell that it is lost.
            if secured is not None:
                secured.abort()
            connection.discard()
            self.gone(connection)
            raise
        return connection

    # -- slots that come free ----------------------------------------------------------------------------------------

    def removed(self, connection: Connection) -> None:
        """A connection was discarded: its slot is free."""
        host = connection.host
        if connection in host.connections:
            host.connections.discard(connection)
            host.idle.pop(connection, None)
            self.served += connection.served
            self._used -= 1
            if self._waiting:
                self._serve()

    def made(self, connection: Connection) -> None:
        """The socket of a connection is open, and asyncio has it."""
        self._alive.add(connection)

    def gone(self, connection: Connection) -> None:
        """The socket of a connection is closed."""
        self._alive.discard(connection)
        if self._quiet is not None and not self._alive:
            self._quiet.set()

    def _serve(self) -> None:
        """Hand out what is free, to whoever waits longest among those who can use it."""
        if self._is_serving:  # a connection found dead on the way frees its slot: the loop below sees that
            return
        self._is_serving = True
        try:
            while (waiter := self._next_waiter()) is not None:
                host = waiter.host
                slot = self.take(host, self.loop.time()) or self._reserve(host, waiter.target)
                if slot is not None and not waiter.give(slot):
                    self._give_back(host, slot)
        finally:
            self._is_serving = False

    def _next_waiter(self) -> Waiter | None:
        first = [next(iter(host.waiters)) for host in self.hosts.values() if host.waiters]
        for waiter in sorted(first, key=lambda waiter: waiter.ticket):
            if waiter.host.idle or self._has_room(waiter.host):
                return waiter
        return None

    def _close_expired(self) -> None:
        self._sweep = None
        now = self.loop.time()
        for host in self.hosts.values():
            for connection in list(host.idle):
                if connection.idle_since + self.limits.idle_timeout > now and connection.expires_at > now:
                    break
                connection.discard()
        if any(host.idle for host in self.hosts.values()):
            self._sweep = self.loop.call_later(_SWEEP_INTERVAL, self._close_expired)

    # -- ending ------------------------------------------------------------------------------------------------------

    def abort(self, target: object | None, reason: str) -> None:
        """End what is under way for this target, or everything when it is None."""
        for host in self.hosts.values():
            items: list[Waiter | Opening | Connection] = [*host.waiters, *host.openings, *host.connections]
            for item in items:
                if target is None or item.target is target:
                    item.abort(reason)

    async def aclose(self, reason: str) -> None:
        """End everything and wait until the sockets are closed."""
        self.abort(None, reason)
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        self.deadlines.close()
        if self._alive:
            self._quiet = asyncio.Event()
            with anyio.move_on_after(_CLOSE_TIMEOUT):
                await self._quiet.wait()

    def forget(self) -> bool:
        """The loop is closed: let go of the connections, so that their sockets are freed. False: there were none."""
        had_some = bool(self._alive)
        for connection in self._alive:
            connection.forget()
        self._alive.clear()
        self.hosts.clear()
        return had_some

    @staticmethod
    def is_readable(transport: Any) -> bool:
        """Whether bytes, or an end of stream, wait unread in the kernel."""
        descriptor = transport.get_extra_info("socket").fileno()
        # Not epoll: that is a file of its own, which may not be had just when too many are open. And not through
        # `selectors`, which takes seven times as long: some hosts are looked at before each message.
        if sys.platform == "win32":  # pragma: no cover - has no poll, but its select takes any socket
            return bool(select.select([descriptor], [], [], 0)[0])
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(0))


def _refusal(error: OSError | ValueError, phase: Phase, *, timed_out: bool) -> TransportError:
    """What a failed attempt to connect means; nothing of the request was sent in any case."""
    if timed_out:
        message = "the TLS handshake took too long" if phase is Phase.TLS else "connecting took too long"
        return TransportError(message, phase=phase, sent=False, timed_out=True)
    if is_refusal(error):
        return TLSError(f"TLS failed: {reason_of(error)}", phase=Phase.TLS, sent=False, retryable=False)
    return TransportError(f"cannot connect: {error}", phase=phase, sent=False)
