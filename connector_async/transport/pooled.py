"""The default transport on asyncio: many small requests to few hosts, at little cost each.

`PooledTransport.post` is the way of a message; `handle_async_request` serves any `httpx.AsyncClient` on the same
connections. Owns its settings and the pool of the loop it runs in.
"""

from __future__ import annotations

import asyncio
import gc
import ssl
import warnings
from pathlib import Path
from types import TracebackType
from typing import Self

import attrs
import httpx

from connector_async.errors import ConfigurationError, Phase, TransportError
from connector_async.transport._connection import Connection
from connector_async.transport._dial import Resolver, resolve
from connector_async.transport._pool import Limits, Pool
from connector_async.transport._stream import in_httpx_words, stream
from connector_async.transport._tls import Certificate, TLSSettings
from connector_async.transport.base import Answer, Target

__all__ = ["HostStatistics", "PoolStatistics", "PooledTransport"]


_STATUS = slice(len("HTTP/1.1 "), len("HTTP/1.1 200"))


@attrs.frozen(kw_only=True)
class HostStatistics:
    """Connections of one origin at this moment."""

    connections: int
    idle: int
    opening: int
    waiting: int


@attrs.frozen(kw_only=True)
class PoolStatistics:
    """Connections at this moment, and totals since the loop's first request.

    `exchanges` counts the requests that were answered, `opened` the connections that were made for them.
    """

    connections: int
    idle: int
    opening: int
    waiting: int
    opened: int
    exchanges: int
    hosts: dict[str, HostStatistics]


class PooledTransport(httpx.AsyncBaseTransport):
    """HTTP/1.1 over pooled connections, for one event loop at a time.

    Building one needs no loop and does no I/O. Use it as a context manager, or call `aclose`. It may be entered again
    after that, also in another loop, and used in one loop after the other if each is closed before the next.

    Of httpx's extensions a request may have `timeout`, `sni_hostname`, `target` and `trace` (when its head goes out,
    and when the answer's has come); an answer has `http_version`, `reason_phrase` and `network_stream` (facts and
    `aclose` only, so no WebSockets). It is stricter than httpx's own transport: folded headers, lines without CR, a
    Content-Length twice, and a TLS stream that is cut where only its end tells the body's are refused.

    Args:
        max_connections: Connections in total; who finds none free waits in turn, up to his deadline.
        max_per_host: Connections to one scheme, host and port; `max_connections` when None.
        idle_timeout: Seconds after which an unused connection is closed.
        max_age: Seconds after which a connection is not used again, so that changes of DNS are followed.
        connect_timeout: Seconds for connecting, TLS included; the deadline of the request if that is earlier. A
            request of httpx brings its own timeouts.
        happy_eyeballs_delay: Seconds after which the next address of a host is tried as well.
        ssl_context: Used for https as it is; the shared default when None.
        ca_file: Trust these certificates (PEM) instead of the usual ones.
        cert: Client certificate: PEM file, (certificate, key) or (certificate, key, password).
        max_head_bytes: Largest head of an answer.
        max_body_bytes: Largest body of an answer to `post`; streamed answers have no limit.
        resolver: `async (host, port)` to addresses, instead of the system's.

    Raises:
        ConfigurationError: A limit is no number or leaves nothing, or an argument is of another kind.
    """

    def __init__(
        self,
        *,
        max_connections: int = 256,
        max_per_host: int | None = None,
        idle_timeout: float = 15.0,
        max_age: float = 300.0,
        connect_timeout: float = 10.0,
        happy_eyeballs_delay: float = 0.25,
        ssl_context: ssl.SSLContext | None = None,
        ca_file: str | Path | None = None,
        cert: Certificate | None = None,
        max_head_bytes: int = 65_536,
        max_body_bytes: int = 1_048_576,
        resolver: Resolver = resolve,
    ) -> None:
        per_host = max_connections if max_per_host is None else max_per_host
        self._limits = Limits(
            max_connections=max_connections,
            max_per_host=per_host,
            idle_timeout=idle_timeout,
            max_age=max_age,
            connect_timeout=connect_timeout,
            happy_eyeballs_delay=happy_eyeballs_delay,
            max_head_bytes=max_head_bytes,
            max_body_bytes=max_body_bytes,
        )
        _check(self._limits)
        self._tls = TLSSettings(ssl_context, ca_file, cert)
        self._resolver = resolver
        self._pool: Pool | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client: httpx.AsyncClient | None = None
        self._is_closed = False

    # -- the way of a message ----------------------------------------------------------------------------------------

    async def post(self, target: Target, headers: bytes, body: bytes, deadline: float) -> Answer:
        """Send one POST and read the whole answer; see `Transport.post`.

        Raises:
            TransportError: No answer; `phase`, `sent`, `reused`, `answered`, `timed_out` say how far it had come.
            TLSError: The server is not who it should be, or refused our certificate.
            RemoteProtocolError: What came is not a usable HTTP answer.
        """
        loop = asyncio.get_running_loop()
        pool = self._pool if loop is self._loop else None
        if pool is None:
            pool = self._bind(loop)
        host = pool.hosts.get(target.origin) or pool.host(target.origin)
        now = loop.time()
        if now >= deadline:
            raise TransportError("the deadline passed", phase=Phase.POOL, sent=False, timed_out=True)
        connection = host.idle.popitem()[0] if host.idle else None
        if connection is None or now >= connection.look_at:
            if connection is not None:
                host.idle[connection] = None
            within = self._limits.connect_timeout
            connection = await pool.acquire(
                host, target, wait_until=deadline, connect_within=within, deadline=deadline
            )
        future = connection.exchange(target, headers, body, deadline)
        try:
            raw = await future
        finally:
            if connection.future is future:
                connection.leave()
            del future  # it may hold an error, whose traceback holds this frame
        # Made here and not in the callbacks: when many answers come at once, one object more for each of them, before
        # its request is done with, is one more that the garbage collector visits.
        head, _, content = raw.partition(b"\r\n\r\n")
        return Answer(int(head[_STATUS]), head, content, connection)

    def _bind(self, loop: asyncio.AbstractEventLoop) -> Pool:
        """The pool for this loop: made at the first request, and again when its loop has ended."""
        if self._is_closed:
            raise TransportError("the transport is closed", phase=Phase.POOL, sent=False, retryable=False)
        if self._loop is not None and not self._loop.is_closed():
            raise RuntimeError("this PooledTransport is in use in another event loop; make one for each loop")
        self._drop()
        self._loop = loop
        self._pool = Pool(loop, self._limits, self._tls, self._resolver)
        return self._pool

    def _drop(self) -> None:
        """Forget the connections of a loop that is closed: their sockets go with them."""
        pool, self._pool, self._loop = self._pool, None, None
        if pool is not None and pool.forget():
            del pool
            with warnings.catch_warnings():
                # A closed loop can close nothing properly: its transports refer to themselves, and complain when the
                # collector finds them. This happens once for each loop that was closed on open connections.
                warnings.simplefilter("ignore", ResourceWarning)
                gc.collect()

    # -- the rest of the seam ----------------------------------------------------------------------------------------

    def discard(self, answer: Answer) -> None:
        """Do not use the connection of this answer again: what came on it was not what was asked for."""
        if isinstance(answer.connection, Connection):
            answer.connection.retire()

    def abort(self, target: Target) -> None:
        """End every exchange with this target at once: each raises TransportError."""
        if self._pool is not None:
            self._pool.abort(target, "the exchange was aborted")

    @property
    def client(self) -> httpx.AsyncClient:
        """An httpx client over the same connections, for look-ups and file transfer. Not to be closed by users."""
        if self._client is None:
            self._client = httpx.AsyncClient(
                transport=_Borrowed(self),
                headers={"Accept-Encoding": "identity"},
                trust_env=False,
            )
        return self._client

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request of httpx; bodies are streamed both ways.

        Raises:
            httpx.TransportError: As httpx's own transport does; `request` is attached, and `phase` says how far it
                had come and `sent` whether anything had been written.
        """
        loop = asyncio.get_running_loop()
        try:
            pool = self._pool if loop is self._loop and self._pool is not None else self._bind(loop)
        except TransportError as error:
            raise in_httpx_words(error, request) from error
        return await stream(pool, request)

    def statistics(self) -> PoolStatistics:
        """How many connections there are, and what they did."""
        hosts = self._pool.hosts.values() if self._pool is not None else ()
        by_host = {
            str(host): HostStatistics(
                connections=len(host.connections),
                idle=len(host.idle),
                opening=len(host.openings),
                waiting=len(host.waiters),
            )
            for host in hosts
        }
        live = sum(connection.served for host in hosts for connection in host.connections)
        return PoolStatistics(
            connections=sum(host.connections for host in by_host.values()),
            idle=sum(host.idle for host in by_host.values()),
            opening=sum(host.opening for host in by_host.values()),
            waiting=sum(host.waiting for host in by_host.values()),
            opened=self._pool.opened if self._pool is not None else 0,
            exchanges=live + (self._pool.served if self._pool is not None else 0),
            hosts=by_host,
        )

    async def aclose(self) -> None:
        """End all exchanges, close all connections and wait until the sockets are closed; idempotent."""
        self._is_closed = True
        pool, loop = self._pool, self._loop
        if pool is not None and loop is asyncio.get_running_loop():
            self._pool = self._loop = None
            await pool.aclose("the transport was closed")
        elif loop is not None and loop.is_closed():
            self._drop()
        elif loop is not None:
            raise RuntimeError("this PooledTransport is in use in another event loop; close it there")

    async def __aenter__(self) -> Self:
        self._is_closed = False
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        now = self.statistics()
        return f"PooledTransport({now.connections} connections, {now.idle} idle)"


def _check(limits: Limits) -> None:
    for name, value in attrs.asdict(limits).items():
        if name.startswith("max_") and name != "max_age":
            if not isinstance(value, int) or value < 1:
                raise ConfigurationError(f"{name} must be a whole number of at least 1, got {value!r}")
        elif not isinstance(value, int | float) or not value > 0:  # so that NaN is none
            raise ConfigurationError(f"{name} must be a number of seconds above 0, got {value!r}")


class _Borrowed(httpx.AsyncBaseTransport):
    """The same connections for a client of ours, which must not close them when it is closed."""

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await self._inner.handle_async_request(request)
