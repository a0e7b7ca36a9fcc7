"""One connection: writes a request, reads its answer, and knows whether it may be used again.

Owns the framing of HTTP/1.1 as far as `httptools` leaves it open: the end of stream, interim answers, sizes, bytes
that nobody asked for. Knows nothing of waiting or choosing: that is the pool's. The way of a message runs through
`exchange`, `data_received`, the parser's callbacks and `_finish`, once each; every line in them counts.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Any, Protocol

import httptools

from connector_async.errors import (
    ConnectorError,
    Phase,
    RedirectRefused,
    RemoteProtocolError,
    ResponseTooLarge,
    TLSError,
    TransportError,
)
from connector_async.transport._encoding import decoded
from connector_async.transport.base import Answer, Headers, Target

if TYPE_CHECKING:
    from connector_async.transport._pool import Host, Pool

__all__ = ["MAX_INTERIM", "Connection", "Rider"]

# A server may send a few 1xx answers before the real one; a flood of them is an attack.
MAX_INTERIM = 16
# A connection that was idle for this long is looked at before it is used: a loop that was blocked has not yet
# noticed that the server closed it. Below that the event loop has just looked.
_LOOK_AFTER = 1.0


class Rider(Protocol):
    """Someone who drives a connection himself: the httpx side, which streams bodies both ways."""

    def data_received(self, data: bytes) -> None: ...
    def eof_received(self) -> None: ...
    def connection_lost(self, error: Exception | None) -> None: ...
    def writable(self) -> None: ...
    def abort(self, reason: str) -> None: ...


class Connection(asyncio.Protocol):
    """A protocol for asyncio, a set of callbacks for httptools, and one exchange at a time.

    At any time it is idle (in `host.idle`), in use (`_future` or `rider` set), or discarded.
    """

    __slots__ = (
        "_body",
        "_bucket",
        "_complete",
        "_fields",
        "_future",
        "_headers",
        "_interim",
        "_keep_alive",
        "_last",
        "_look_at",
        "_loop",
        "_parser",
        "_pool",
        "_received",
        "_status",
        "_surplus",
        "_too_much",
        "_transport",
        "expires_at",
        "host",
        "is_discarded",
        "is_write_paused",
        "rider",
        "served",
        "target",
    )

    def __init__(self, pool: Pool, host: Host) -> None:
        self._pool = pool
        self._loop = pool.loop
        self.host = host
        self._transport: Any = None  # asyncio.Transport; the TLS one is not a subclass of it
        self._parser = httptools.HttpResponseParser(self)
        self._future: asyncio.Future[Answer] | None = None
        self._bucket: set[Any] = set()
        self._look_at = 0.0
        # From here on an answer is worth a closer look at its sizes.
        self._too_much = min(pool.limits.max_head_bytes, pool.limits.max_body_bytes)
        self.expires_at = 0.0
        self.rider: Rider | None = None
        self.target: object = None
        self.served = 0
        self.is_discarded = False
        self.is_write_paused = False

    # -- what the pool asks ------------------------------------------------------------------------------------------

    def is_usable(self, now: float) -> bool:
        """Whether a connection taken from the idle ones can carry a request."""
        if now < self._look_at:
            return True
        return now < self.expires_at and not self._pool.is_readable(self._transport)

    def mark_idle(self, now: float) -> None:
        """Remember since when nobody uses it."""
        self.target = None
        self._look_at = min(now + _LOOK_AFTER, self.expires_at)

    @property
    def idle_since(self) -> float:
        """Seconds on the loop's clock; meaningful while idle, and at least that late."""
        return self._look_at - _LOOK_AFTER

    def discard(self) -> None:
        """Close the socket now, whatever is under way; idempotent. The slot is free at once."""
        if not self.is_discarded:
            self.is_discarded = True
            self._pool.removed(self)
            if self._transport is not None:
                self._transport.abort()

    def retire(self) -> None:
        """Not to be used again; an exchange that is under way may end."""
        if self in self.host.idle:
            self.discard()
        else:
            self.expires_at = 0.0

    def forget(self) -> None:
        """The loop is closed: nothing can be closed properly any more."""
        self.is_discarded = True
        self._transport = None

    def abort(self, reason: str) -> None:
        """End what is under way with an error that says so, and the connection with it."""
        if self.rider is not None:
            self.rider.abort(reason)
        if self._future is not None:
            self._fail(self._error(reason))
        self.discard()

    # -- one lean exchange -------------------------------------------------------------------------------------------

    def exchange(self, target: Target, headers: Headers, body: bytes, deadline: float) -> asyncio.Future[Answer]:
        """Write a request; the future gets its answer, or the error."""
        future = self._future = self._loop.create_future()
        self.target = target
        self._headers: list[tuple[bytes, bytes]] = []
        self._fields: list[tuple[bytes, bytes]] | None = None
        self._body: bytes | bytearray = b""
        self._last = b""
        self._received = self._status = self._interim = 0
        self._complete = self._surplus = False
        self._bucket = self._pool.deadlines.add(self, deadline)
        self._transport.write(
            b"".join((target.head, headers.block, b"Content-Length: %d\r\n\r\n" % len(body), body)),
        )
        return future

    def leave(self, future: asyncio.Future[Answer]) -> None:
        """The caller goes. If the answer is still to come the connection is closed: nobody must get it later."""
        if self._future is future:
            self._future = None
            self._bucket.discard(self)
            self.discard()

    def expire(self) -> None:
        """The deadline has come."""
        self._fail(self._error("the deadline passed", timed_out=True))

    def _finish(self, data: bytes) -> None:
        future, self._future = self._future, None
        self._bucket.discard(self)
        self.served += 1
        # The connection first: whatever becomes of the answer, its slot is settled.
        if self._keep_alive and not self._surplus and not self.is_write_paused and ends_cleanly(data, self._last):
            self._pool.release(self)
        else:
            self.discard()
        if future is None or future.done():  # cancelled a moment ago
            return
        try:
            future.set_result(self._answer())
        except ConnectorError as error:
            _settle(future, error)

    def _answer(self) -> Answer:
        body, fields, limits = self._body, self._fields or [], self._pool.limits
        if self._received > self._too_much:
            self._check_sizes()
        for name, value in fields:
            if name == b"content-encoding":
                body = decoded(bytes(body), value, limits.max_body_bytes)
            elif name == b"location" and 300 <= self._status < 400:
                raise RedirectRefused(f"the answer is a redirect ({self._status}), which is not followed")
        return Answer(self._status, tuple(fields), body if type(body) is bytes else bytes(body), self)

    def _fail(self, error: ConnectorError) -> None:
        future, self._future = self._future, None
        self._bucket.discard(self)
        self.discard()
        if future is not None and not future.done():
            _settle(future, error)

    def _error(self, message: str, *, timed_out: bool = False) -> TransportError:
        answered = self._received > 0
        phase = Phase.READ if answered else Phase.WRITE if self.is_write_paused else Phase.WAIT
        return TransportError(
            message,
            phase=phase,
            reused=self.served > 0,
            answered=answered,
            timed_out=timed_out,
        )

    def _check_sizes(self) -> None:
        limits, size = self._pool.limits, len(self._body)
        if size > limits.max_body_bytes:
            raise ResponseTooLarge(f"the answer's body exceeds {limits.max_body_bytes} bytes")
        head = sum(len(name) + len(value) + 4 for name, value in (*(self._fields or ()), *self._headers))
        # While no body has come, everything that came is head (or interim answers, or the framing of a chunk).
        is_all_head = not size and not self._complete
        if head > limits.max_head_bytes or (is_all_head and self._received > limits.max_head_bytes):
            raise ResponseTooLarge(f"the answer's head exceeds {limits.max_head_bytes} bytes")
        # Chunks of one byte cost five more each; beyond that it is padding: extensions or trailers without end.
        if self._received > 2 * limits.max_head_bytes + 8 * size:
            raise ResponseTooLarge("the answer is mostly framing")

    def _check_length(self) -> None:
        """Refuse a body that is announced as too large before it is read."""
        for name, value in self._fields or ():
            if name == b"content-length" and int(value) > self._pool.limits.max_body_bytes:
                raise ResponseTooLarge(f"the answer announces {int(value)} bytes")

    # -- what asyncio calls ------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection stands, TLS included."""
        self._transport = transport
        self._pool.made(self)
        # Any byte that the kernel does not take pauses us, so that "all was written" costs no call per message.
        # TLS compares differently: zero would never resume.
        high = 0 if transport.get_extra_info("ssl_object") is None else 1
        self._transport.set_write_buffer_limits(high=high, low=0)

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        if self._future is None:
            if self.rider is not None:
                self.rider.data_received(data)
            else:  # an answer that nobody asked for
                self.discard()
            return
        self._received += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            # Garbage after a complete answer costs the connection, not the answer.
            if not self._complete:
                self._fail(malformed(error))
                return
            self._surplus = True
        if self._complete:
            self._finish(data)
        elif self._fields is not None or self._received > self._too_much:
            self._look_at_part()

    def _look_at_part(self) -> None:
        try:
            if self._received > self._too_much:
                self._check_sizes()
            self._check_length()
        except RemoteProtocolError as error:
            self._fail(error)

    def eof_received(self) -> None:
        """The server will send no more. Asyncio closes the connection after this."""
        if self.rider is not None:
            self.rider.eof_received()
        elif self._future is not None and self._fields is not None and ends_at_eof(self._status, self._fields):
            self._keep_alive = False
            self._finish(b"")
        else:
            self._fail(self._error("the server closed the connection before the answer was complete"))

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        if self.rider is not None:
            self.rider.connection_lost(exc)
        if self._future is not None:
            self._fail(self._loss(exc))
        self.discard()
        self._pool.gone(self)
        self._transport = None

    def _loss(self, cause: Exception | None) -> TransportError:
        refused = refused_certificate(cause) if not self._received else None
        if refused is not None:
            return refused
        error = self._error("the connection was lost before the answer was complete")
        error.__cause__ = cause
        return error

    def pause_writing(self) -> None:
        """Some bytes wait in memory for the peer to read."""
        self.is_write_paused = True

    def resume_writing(self) -> None:
        """All bytes are with the kernel."""
        self.is_write_paused = False
        if self.rider is not None:
            self.rider.writable()

    # -- what httptools calls ----------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """An answer starts; after the one that was asked for there must be none."""
        if self._complete:
            self._surplus = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header of the answer, or of its trailer."""
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """The head is complete, of the answer or of an interim one."""
        if self._complete:
            return
        self._status = self._parser.get_status_code()
        self._keep_alive = self._parser.should_keep_alive()
        self._fields = self._headers
        # What follows is the trailer: it must not add to the head.
        self._headers = []

    def on_body(self, chunk: bytes) -> None:
        """A part of the body."""
        if self._complete:
            return
        self._last = chunk
        if not self._body:
            self._body = chunk
        elif type(self._body) is bytearray:
            self._body += chunk
        else:
            self._body = bytearray(self._body + chunk)

    def on_message_complete(self) -> None:
        """The answer is complete, unless it was an interim one."""
        if self._status >= 200:
            self._complete = True
            return
        self._fields = None
        self._interim += 1
        if self._interim > MAX_INTERIM:
            raise RemoteProtocolError(f"more than {MAX_INTERIM} interim answers came")

    # -- for the rider -----------------------------------------------------------------------------------------------

    @property
    def transport(self) -> Any:
        """The asyncio transport beneath, or None when it is gone."""
        return self._transport


def ends_at_eof(status: int, fields: list[tuple[bytes, bytes]]) -> bool:
    """Whether the end of the connection is the regular end of the body (RFC 9112, 6.3, last rule)."""
    return status >= 200 and not any(name in (b"content-length", b"transfer-encoding") for name, _ in fields)


def ends_cleanly(data: bytes, last_of_body: bytes) -> bool:
    """Whether the last byte that came is the answer's last: an empty line after it is surplus too.

    The parser skips empty lines between answers silently; that is its only leniency here.
    """
    if last_of_body and data.endswith(last_of_body):
        return True
    return data.endswith(b"\n") and not data.endswith((b"\n\r\n\r\n", b"\n\n"))


def malformed(error: Exception) -> RemoteProtocolError:
    """What the parser found, or what one of our callbacks raised inside it."""
    if isinstance(error.__context__, RemoteProtocolError):
        return error.__context__
    # The parser's words say what was wrong and never quote the answer.
    result = RemoteProtocolError(f"the answer is not valid HTTP: {error}")
    result.__cause__ = error
    return result


def refused_certificate(error: BaseException | None) -> TLSError | None:
    """TLS 1.3 tells that our certificate was refused only after the handshake, at the first read."""
    if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        refused = TLSError(f"TLS failed: {error.reason}", phase=Phase.TLS, sent=True, retryable=False)
        refused.__cause__ = error
        return refused
    return None


def _settle(future: asyncio.Future[Answer], error: ConnectorError) -> None:
    future.set_exception(error)
    # Marks it as seen: many futures fail at once when a host goes down, and some of their tasks are gone already.
    future.exception()
