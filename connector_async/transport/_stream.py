"""The httpx side of a pooled connection: one request of httpx, its answer, bodies streamed both ways.

Low in rate and rich in cases: clarity before speed here. Raises httpx's own exceptions, each with the request and
with the facts that decide whether it may be sent again.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

import httptools
import httpx

from connector_async.errors import ConnectorError, Phase, RemoteProtocolError, ResponseTooLarge, TransportError
from connector_async.transport._connection import (
    MAX_INTERIM,
    TAIL,
    Connection,
    ends_with_one_empty_line,
    malformed,
    refused_certificate,
)
from connector_async.transport._pool import Pool
from connector_async.transport._request import head_of, origin_of, timeouts_of

__all__ = ["stream"]

# Reading stops while this much waits for the caller.
_HIGH_WATER = 65_536


async def stream(pool: Pool, request: httpx.Request) -> httpx.Response:
    """Send a request and return the response once its head is there."""
    timeouts = timeouts_of(request)
    origin = origin_of(request)
    head, length = head_of(request)
    trace = request.extensions.get("trace", _no_trace)
    await trace("pool.acquire.started", {"request": request})
    host = pool.host(origin)
    now = pool.loop.time()
    try:
        connection = await pool.acquire(
            host,
            None,
            wait_until=now + timeouts["pool"],
            connect_within=timeouts["connect"],
            deadline=math.inf,
            look=True,  # as httpx does; next to all else here it costs little
        )
    except TransportError as error:
        raise in_httpx_words(error, request) from error
    exchange = _Exchange(pool, connection, request, timeouts)
    try:
        await trace("http11.send_request_headers.started", {"request": request})
        response = await exchange.run(head, length)
        words = response.extensions
        told = (words["http_version"], response.status_code, words["reason_phrase"], response.headers.raw)
        await trace("http11.receive_response_headers.complete", {"return_value": told})  # as httpcore tells it
    except BaseException:
        exchange.close()
        raise
    return response


async def _no_trace(_event: str, _info: dict[str, Any]) -> None:
    """For requests without httpx's `trace` extension."""


class _Exchange:
    """Drives one connection through one request; also the callbacks of a parser of its own."""

    def __init__(
        self, pool: Pool, connection: Connection, request: httpx.Request, timeouts: dict[str, float]
    ) -> None:
        self._pool = pool
        self._connection = connection
        self._request = request
        self._timeouts = timeouts
        self._network = NetworkStream(connection.transport)
        self._parser = httptools.HttpResponseParser(self)
        self._waiter: asyncio.Future[None] | None = None
        self._error: ConnectorError | None = None
        self._is_sent = self._is_all_sent = self._is_reading_paused = False
        self._status = self._interim = self._received = self._body_size = self._buffered = 0
        self._reason = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._has_head = self._is_complete = self._is_surplus = self._keep_alive = False
        self._chunks: deque[bytes] = deque()
        self._last = self._tail = b""
        connection.rider = self

    # -- what the caller does ----------------------------------------------------------------------------------------

    async def run(self, head: bytes, length: int | None) -> httpx.Response:
        """Send everything, then wait for the head of the answer."""
        await self._send(head, length)
        while not self._has_head:
            await self._wait("read")
        return httpx.Response(
            self._status,
            headers=self._headers,
            stream=_Body(self),
            extensions={
                "http_version": f"HTTP/{self._parser.get_http_version()}".encode("ascii"),
                "reason_phrase": self._reason,
                "network_stream": self._network,
            },
        )

    async def _send(self, head: bytes, length: int | None) -> None:
        body = self._request.stream
        if not isinstance(body, httpx.AsyncByteStream):
            raise TypeError("the request's body is not an async stream")
        # A body in memory goes out together with the head; one that is still to come must not hold it back.
        pending = head
        if not isinstance(body, httpx.ByteStream):
            await self._write(pending)
            pending = b""
        sent = 0
        async for chunk in body:
            sent += len(chunk)
            if length is not None and sent > length:
                raise httpx.LocalProtocolError("the body is longer than announced", request=self._request)
            if chunk:
                framed = chunk if length is not None else b"%x\r\n%s\r\n" % (len(chunk), chunk)
                await self._write(pending + framed, is_last=sent == length)
                pending = b""
            if self._is_refused():
                return
        if length is not None and sent < length:
            raise httpx.LocalProtocolError("the body is shorter than announced", request=self._request)
        await self._write(pending + (b"" if length is not None else b"0\r\n\r\n"), is_last=True)
        self._finish_if_done()

    async def _write(self, data: bytes, *, is_last: bool = False) -> None:
        if self._is_refused():
            return
        self._raise_error()
        self._is_all_sent = is_last  # before the write: the answer may come while the last byte waits to leave
        if data:
            self._is_sent = True
            self._connection.transport.write(data)
        # With all of it on its way the answer may be read: the server may wait for that before it reads on itself.
        while not (self._is_all_sent and self._has_head) and self._is_writing():
            await self._wait("write")

    def _is_refused(self) -> bool:
        """Whether the server has no use for the rest of the body (RFC 9112, 9.5).

        An early answer that is no error says nothing of the kind: an echo starts before it has read everything.
        """
        is_over = self._is_complete and not (self._keep_alive and self._connection.rider is self)
        return self._status >= 400 or is_over

    def _is_writing(self) -> bool:
        """Whether bytes that the server wants wait for it."""
        return self._connection.rider is self and self._connection.is_write_paused and not self._is_refused()

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes."""
        while True:
            while self._chunks:
                chunk = self._chunks.popleft()
                self._buffered -= len(chunk)
                yield chunk
            if self._is_complete:
                break
            self._resume_reading()
            await self._wait("read")
        while self._is_writing():
            await self._wait("write")

    def close(self) -> None:
        """The caller is done with it: unless the answer was read to its end, the connection goes too."""
        if self._connection.rider is self:
            self._connection.rider = None
            self._connection.discard()

    async def _wait(self, what: str) -> None:
        """Until something happens on the connection."""
        self._raise_error()
        self._waiter = waiter = self._pool.loop.create_future()
        seconds = self._timeouts[what]
        try:
            async with asyncio.timeout(None if seconds == math.inf else seconds):
                await waiter
        except TimeoutError:
            phase = Phase.WRITE if what == "write" else None
            self._set_error(self._failure(f"the {what} timeout passed", phase, timed_out=True))
        finally:
            self._waiter = None
        # What came in the same moment counts.
        if not (self._has_head or self._chunks):
            self._raise_error()

    def _raise_error(self) -> None:
        if self._error is not None and not self._is_complete:
            self.close()
            raise in_httpx_words(self._error, self._request) from self._error

    # -- what the connection tells -----------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        self._received += len(data)
        was_complete = self._is_complete
        try:
            self._parser.feed_data(data)
            self._check_sizes()
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._is_surplus = True
            if not self._is_complete:
                self._set_error(malformed(error))
        except ResponseTooLarge as error:
            self._has_head = self._is_complete = False  # even if all of it came at once
            self._set_error(error)
        self._tail = (self._tail + data)[-TAIL:]
        if self._is_complete:
            self._is_surplus = self._is_surplus or was_complete or not self._ends_with(data)
            self._finish_if_done()
        elif self._buffered > _HIGH_WATER and not self._is_reading_paused:
            self._is_reading_paused = True
            self._connection.transport.pause_reading()
        self._wake()

    def eof_received(self) -> None:
        """The server will send no more."""
        if self._has_head and not self._is_framed():
            self._is_complete = True
            self._keep_alive = False
            self._finish_if_done()
        else:
            failure = self._failure("the server closed the connection before the answer was complete")
            failure.__cause__ = EOFError("end of stream")
            self._set_error(failure)
        self._wake()

    def connection_lost(self, error: Exception | None) -> None:
        """The connection is gone."""
        refused = None if self._received else refused_certificate(error)
        failure = refused or self._failure("the connection was lost before the answer was complete")
        failure.__cause__ = error
        self._set_error(failure)
        self._wake()

    def writable(self) -> None:
        """All bytes are with the kernel."""
        self._finish_if_done()
        self._wake()

    def abort(self, reason: str) -> None:
        """End it with an error that says so."""
        self._set_error(self._failure(reason))
        self._wake()

    def _set_error(self, error: ConnectorError) -> None:
        if self._connection.rider is self:  # the first one counts, and none after a complete answer
            self._error = error
            self.close()

    def _failure(self, message: str, phase: Phase | None = None, *, timed_out: bool = False) -> TransportError:
        answered = self._received > 0
        if phase is None:
            paused = self._connection.is_write_paused or not self._is_sent
            phase = Phase.READ if answered else Phase.WRITE if paused else Phase.WAIT
        return TransportError(
            message,
            phase=phase,
            sent=self._is_sent,
            reused=self._connection.served > 0,
            answered=answered,
            timed_out=timed_out,
        )

    def _finish_if_done(self) -> None:
        """Part with the connection when the answer is complete, and the request too or not wanted."""
        connection = self._connection
        is_sent = self._is_all_sent and not connection.is_write_paused
        if not self._is_complete or connection.rider is not self or not (is_sent or self._is_refused()):
            return
        connection.rider = None
        connection.served += 1
        if is_sent and self._keep_alive and not self._is_surplus:
            self._resume_reading()
            self._pool.release(connection)
        else:
            connection.discard()

    def _is_framed(self) -> bool:
        """Whether the head says where the body ends; otherwise the end of the connection does (RFC 9112, 6.3)."""
        return any(name.lower() in (b"content-length", b"transfer-encoding") for name, _ in self._headers)

    def _ends_with(self, data: bytes) -> bool:
        """Whether the answer's last byte is the last that came; the parser would skip an empty line silently."""
        is_chunked = any(name.lower() == b"transfer-encoding" for name, _ in self._headers)
        if self._last and not is_chunked:
            return data.endswith(self._last)
        return ends_with_one_empty_line(self._tail)

    def _resume_reading(self) -> None:
        if self._is_reading_paused:
            self._is_reading_paused = False
            if self._connection.transport is not None:
                self._connection.transport.resume_reading()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _check_sizes(self) -> None:
        limit = self._pool.limits.max_head_bytes
        if self._received <= limit:
            return
        head = sum(len(name) + len(value) + 4 for name, value in self._headers)
        if head > limit or (not self._has_head and self._received > limit):
            raise ResponseTooLarge(f"the answer's head exceeds {limit} bytes")
        # As in a lean exchange: padding in extensions or trailers has an end, even where a body has none.
        if self._received > 2 * limit + 8 * self._body_size:
            raise ResponseTooLarge("the answer is mostly framing")

    # -- what httptools calls ----------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """An answer starts."""
        if self._is_complete:
            self._is_surplus = True

    def on_status(self, reason: bytes) -> None:
        """The reason phrase, perhaps in parts."""
        if not self._is_complete:
            self._reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; those of the trailer are dropped."""
        if not self._has_head:
            self._headers.append((name, value.rstrip(b" \t")))  # what stands before it the parser has taken off

    def on_headers_complete(self) -> None:
        """The head is complete, of the answer or of an interim one."""
        status = self._parser.get_status_code()
        if self._has_head or status < 200:
            return
        self._status = status
        self._has_head = True
        asked_to_close = self._request.headers.get("connection", "").lower() == "close"
        self._keep_alive = self._parser.should_keep_alive() and not asked_to_close
        if self._request.method == "HEAD":  # whatever the head announces, no body comes
            self._is_complete = True

    def on_body(self, chunk: bytes) -> None:
        """A part of the body."""
        if self._is_complete:
            self._is_surplus = True
            return
        self._last = chunk
        self._body_size += len(chunk)
        self._buffered += len(chunk)
        self._chunks.append(chunk)

    def on_message_complete(self) -> None:
        """The answer is complete, unless it was an interim one."""
        if self._has_head:
            self._is_complete = True
            return
        self._headers = []
        self._reason = b""
        self._interim += 1
        if self._interim > MAX_INTERIM:
            raise RemoteProtocolError(f"more than {MAX_INTERIM} interim answers came")


class _Body(httpx.AsyncByteStream):
    """The answer's body."""

    def __init__(self, exchange: _Exchange) -> None:
        self._exchange = exchange

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._exchange.chunks():
                yield chunk
        finally:
            self._exchange.close()

    async def aclose(self) -> None:
        self._exchange.close()


class NetworkStream:
    """What httpx users ask a `network_stream` for: facts about the connection. Reading and writing stay ours."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        # Taken down at once: where the server closes, the connection is gone before the caller has the answer.
        names = {"client_addr": "sockname", "server_addr": "peername", "socket": "socket", "ssl_object": "ssl_object"}
        self._facts = {info: transport and transport.get_extra_info(name) for info, name in names.items()}

    async def aclose(self) -> None:
        """Close the connection, whatever is under way on it."""
        if self._transport is not None:
            self._transport.abort()

    def get_extra_info(self, info: str) -> Any:
        """`client_addr`, `server_addr`, `socket` or `ssl_object`; None for anything else."""
        return self._facts.get(info)


def in_httpx_words(error: ConnectorError, request: httpx.Request) -> httpx.TransportError:
    """The exception that httpx's own transport would raise, with `phase`, `sent`, `reused` and `answered`."""
    result: httpx.TransportError
    if isinstance(error, TransportError):
        result = _httpx_class(error)(str(error), request=request)
    else:
        result = httpx.RemoteProtocolError(str(error), request=request)
    for name in ("phase", "sent", "reused", "answered"):
        default = Phase.READ if name == "phase" else True
        setattr(result, name, getattr(error, name, default))
    return result


def _httpx_class(error: TransportError) -> type[httpx.TransportError]:
    if error.phase is Phase.POOL:
        return httpx.PoolTimeout if error.timed_out else httpx.ConnectError
    if error.phase in (Phase.CONNECT, Phase.TLS):
        return httpx.ConnectTimeout if error.timed_out else httpx.ConnectError
    if error.phase is Phase.WRITE:
        return httpx.WriteTimeout if error.timed_out else httpx.WriteError
    if isinstance(error.__cause__, EOFError):
        return httpx.RemoteProtocolError
    return httpx.ReadTimeout if error.timed_out else httpx.ReadError
