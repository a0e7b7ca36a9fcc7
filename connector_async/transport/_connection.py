"""One connection: writes a request, reads its answer, and knows whether it may be used again.

Owns the framing of HTTP/1.1 as far as `httptools` leaves it open: the end of stream, interim answers, sizes, bytes
that nobody asked for. Knows nothing of waiting or choosing: that is the pool's. The way of a message runs through
`exchange`, `data_received`, the parser's callbacks and `_finish`, once each; every line in them counts.
"""

from __future__ import annotations

import asyncio
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
from connector_async.transport._deadlines import TICKS
from connector_async.transport._encoding import decoded
from connector_async.transport._tls import is_refusal, reason_of
from connector_async.transport.base import Target

if TYPE_CHECKING:
    from connector_async.transport._pool import Host, Pool

__all__ = ["LOOK_AFTER", "MAX_INTERIM", "TAIL", "BufferedConnection", "Connection", "Rider"]

# A server may send a few 1xx answers before the real one; a flood of them is an attack.
MAX_INTERIM = 16
# A connection that was idle for this long is looked at before it is used: a loop that was blocked has not yet
# noticed that the server closed it. Before, only where the server is known to close without a word.
LOOK_AFTER = 1.0
# So many bytes tell one empty line from two.
TAIL = 5
_H = ord("H")


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
        "_buckets",
        "_complete",
        "_has_head",
        "_interim",
        "_keep_alive",
        "_loop",
        "_parser",
        "_pool",
        "_raw",
        "_received",
        "_status",
        "_tail",
        "_too_much",
        "_transport",
        "expires_at",
        "future",
        "host",
        "idle_since",
        "is_discarded",
        "is_write_paused",
        "look_at",
        "rider",
        "served",
        "target",
    )

    def __init__(self, pool: Pool, host: Host) -> None:
        self._pool = pool
        self._loop = pool.loop
        self._buckets = pool.deadlines.buckets
        self.host = host
        self._transport: Any = None  # asyncio.Transport, or the `Secured` before it
        self._parser = httptools.HttpResponseParser(self)
        self.future: asyncio.Future[bytes] | None = None
        self._bucket: set[Any] = set()
        self.look_at = self.idle_since = 0.0
        # From here on an answer is worth a closer look at its sizes.
        self._too_much = min(pool.limits.max_head_bytes, pool.limits.max_body_bytes)
        self.expires_at = 0.0
        self.rider: Rider | None = None
        self.target: object = None
        self.served = 0
        self.is_discarded = self.is_write_paused = False

    # -- what the pool asks ------------------------------------------------------------------------------------------

    def is_usable(self, now: float) -> bool:
        """Whether a connection that has been idle for a while can carry a request."""
        return now < self.expires_at and not self._pool.is_readable(self._transport)

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
        if self.future is not None:
            self._fail(self._error(reason))
        self.discard()

    # -- one lean exchange -------------------------------------------------------------------------------------------

    def exchange(self, target: Target, headers: bytes, body: bytes, deadline: float) -> asyncio.Future[bytes]:
        """Write a request; the future gets the answer's head, an empty line and its body, or the error."""
        future = self.future = self._loop.create_future()
        self.target = target
        self._raw = b""
        self._body: bytes | bytearray = b""
        self._received = self._interim = 0
        self._tail = b""
        self._has_head = self._complete = False
        try:
            self._bucket = bucket = self._buckets[int(deadline * TICKS)]
        except (KeyError, OverflowError):  # the first with this deadline
            self._bucket = bucket = self._pool.deadlines.bucket(deadline)
        bucket.add(self)
        self._transport.write(
            b"".join((target.head, headers, b"Content-Length: %d\r\n\r\n" % len(body), body)),
        )
        return future

    def leave(self) -> None:
        """The caller goes before the answer came: the connection is closed, so that nobody gets the answer later."""
        self.future = None
        self._bucket.discard(self)
        self.discard()

    def expire(self) -> None:
        """The deadline has come."""
        self._fail(self._error("the deadline passed", timed_out=True))

    def _finish(self, future: asyncio.Future[bytes], data: bytes) -> None:
        self.future = None
        self._bucket.discard(self)
        self.served += 1
        raw, body = self._raw, self._body
        self._raw = self._body = b""
        start = _end_of_heads(raw, self._interim) if self._interim else 0
        end = raw.find(b"\r\n\r\n", start)
        head = raw[start:end]
        lowered = head.lower()
        # The connection first: whatever becomes of the answer, its slot is settled. It is clean when the last byte of
        # the answer is the last that came.
        is_plain = self._received == end + 4 + len(body)
        is_clean = is_plain or (b"\ntransfer-encoding:" in lowered and ends_with_one_empty_line(self._tail + data))
        if is_clean and self._keep_alive and not self.is_write_paused:
            self._pool.release(self)
        else:
            self.discard()
        if future.done():  # cancelled a moment ago
            return
        try:
            if self._status >= 300 or self._received > self._too_much or lowered.find(b"\ncontent-encoding:") > 0:
                body = self._checked(lowered, body)
                is_plain = False
            if raw[start] != _H:  # the parser skips empty lines before an answer
                raise RemoteProtocolError("the answer does not start with a status line")
            if not is_plain or start or len(raw) != self._received:
                raw = b"".join((head, b"\r\n\r\n", body))
            future.set_result(raw)
        except ConnectorError as error:
            _settle(future, error)

    def _checked(self, lowered: bytes, body: bytes | bytearray) -> bytes | bytearray:
        """The body of an answer that needs a closer look."""
        if self._received > self._too_much:
            self._check_sizes(len(lowered), len(body))
        if self._status < 400 and b"\nlocation:" in lowered and self._status >= 300:
            raise RedirectRefused(f"the answer is a redirect ({self._status}), which is not followed")
        coding = _value(lowered, b"content-encoding")
        return decoded(bytes(body), coding, self._pool.limits.max_body_bytes) if coding else body

    def _fail(self, error: ConnectorError) -> None:
        future, self.future = self.future, None
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

    def _check_sizes(self, head: int, size: int) -> None:
        limits = self._pool.limits
        if size > limits.max_body_bytes:
            raise ResponseTooLarge(f"the answer's body exceeds {limits.max_body_bytes} bytes")
        if head > limits.max_head_bytes:
            raise ResponseTooLarge(f"the answer's head exceeds {limits.max_head_bytes} bytes")
        # Chunks of one byte cost five more each; beyond that it is padding: extensions or trailers without end.
        if self._received > 2 * limits.max_head_bytes + 8 * size:
            raise ResponseTooLarge("the answer is mostly framing")

    # -- what asyncio calls ------------------------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        """The connection stands, TLS included."""
        self._transport = transport
        if self.is_discarded:  # uvloop may tell after the attempt to connect was cancelled
            self._transport.abort()
            return
        self._pool.made(self)
        # Any byte that the kernel does not take pauses us, so that "all was written" costs no call per message.
        self._transport.set_write_buffer_limits(high=0, low=0)

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        future = self.future
        if future is None:
            if self.rider is not None:
                self.rider.data_received(data)
            else:  # an answer that nobody asked for
                self.discard()
            return
        self._received += len(data)
        if not self._has_head:
            self._raw = self._raw + data if self._raw else data
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            # Garbage after a complete answer costs the connection, not the answer.
            if not self._complete:
                self._fail(malformed(error))
                return
        if self._complete:
            self._finish(future, data)
        else:
            self._look_at_part(data)

    def _look_at_part(self, data: bytes) -> None:
        """Refuse what is, or is announced to be, too large, before more of it is read."""
        self._tail = (self._tail + data)[-TAIL:]
        try:
            if self._received > self._too_much:
                self._check_sizes(0 if self._has_head else self._received, len(self._body))
            if self._has_head and self._received == len(self._raw):  # the head was completed just now
                announced = _value(self._raw.lower(), b"content-length")
                if int(announced or b"0") > self._pool.limits.max_body_bytes:
                    raise ResponseTooLarge(f"the answer announces {int(announced)} bytes")
        except RemoteProtocolError as error:
            self._fail(error)

    def eof_received(self) -> None:
        """The server will send no more. Asyncio closes the connection after this."""
        if self.rider is not None:
            self.rider.eof_received()
        elif self.future is None:
            self.discard()
        elif self._has_head and _ends_at_eof(self._raw):
            self._keep_alive = False
            self._finish(self.future, b"")
        else:
            self._note_if_stale()
            self._fail(self._error("the server closed the connection before the answer was complete"))

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self.break_off(exc)
        self._pool.gone(self)
        self._transport = None

    def break_off(self, cause: Exception | None) -> None:
        """Nothing that comes can be used any more: end what is under way, and close the socket."""
        if self.rider is not None:
            self.rider.connection_lost(cause)
        if self.future is not None:
            self._note_if_stale()
            self._fail(self._loss(cause))
        self.discard()

    def _note_if_stale(self) -> None:
        """The server closed it, perhaps, in the moment after the last answer: from now on look before each use."""
        if self.served and not self._received:
            self.host.look_after = 0.0

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

    def on_headers_complete(self) -> None:
        """The head is complete, of the answer or of an interim one."""
        if self._complete:  # of one that nobody asked for
            self._keep_alive = False
            return
        self._status = status = self._parser.get_status_code()
        if status >= 200:
            self._has_head = True
            self._keep_alive = self._parser.should_keep_alive()

    def on_body(self, chunk: bytes) -> None:
        """A part of the body."""
        if self._complete:
            return
        if not self._body:
            self._body = chunk
        elif type(self._body) is bytearray:
            self._body += chunk
        else:
            self._body = bytearray(self._body + chunk)

    def on_message_complete(self) -> None:
        """The answer is complete, unless it was an interim one."""
        if self._has_head:
            self._complete = True
            return
        self._interim += 1
        if self._interim > MAX_INTERIM:
            raise RemoteProtocolError(f"more than {MAX_INTERIM} interim answers came")

    # -- for the rider -----------------------------------------------------------------------------------------------

    @property
    def transport(self) -> Any:
        """The asyncio transport beneath, or None when it is gone."""
        return self._transport


class BufferedConnection(Connection, asyncio.BufferedProtocol):
    """For asyncio's own loop, which otherwise takes 256 KB from the system for every read and gives most of it back.

    That costs up to 20 us per message, depending on the state of the heap. uvloop does not do so.
    """

    __slots__ = ()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's signature
        """Where to read to: one buffer for all, for it is emptied in the same turn."""
        return self._pool.view

    def buffer_updated(self, nbytes: int) -> None:
        """So many bytes were read."""
        self.data_received(self._pool.view[:nbytes].tobytes())


def _end_of_heads(raw: bytes, count: int) -> int:
    """Where the head starts that follows so many interim ones."""
    end = 0
    for _ in range(count):
        end = raw.find(b"\r\n\r\n", end) + 4
    return end


def _value(lowered_head: bytes, name: bytes) -> bytes:
    """The first value of a header, as it stands in a head in lower case."""
    _, _, rest = lowered_head.partition(b"\n" + name + b":")
    return bytes(rest.partition(b"\r")[0]).strip(b" \t")


def _ends_at_eof(raw: bytes) -> bool:
    """Whether the end of the connection is the regular end of the body (RFC 9112, 6.3, last rule)."""
    lowered = raw.lower()
    return b"\ncontent-length:" not in lowered and b"\ntransfer-encoding:" not in lowered


def ends_with_one_empty_line(data: bytes) -> bool:
    """Whether an answer in chunks, or without a body, ends where these bytes end; a second empty line is surplus.

    The parser skips empty lines between answers silently, so it has to be looked for.
    """
    return data.endswith(b"\r\n\r\n") and not data.endswith(b"\n\r\n\r\n")


def malformed(error: Exception) -> RemoteProtocolError:
    """What the parser found, or what one of our callbacks raised inside it."""
    if isinstance(error.__context__, RemoteProtocolError):
        return error.__context__
    if isinstance(error, httptools.HttpParserUpgrade):
        result = RemoteProtocolError("the server switches protocols (101), which this transport does not follow")
    else:  # the parser's words say what was wrong and never quote the answer
        result = RemoteProtocolError(f"the answer is not valid HTTP: {error}")
    result.__cause__ = error
    return result


def refused_certificate(error: BaseException | None) -> TLSError | None:
    """TLS 1.3 tells that our certificate was refused only after the handshake, at the first read."""
    if is_refusal(error):
        refused = TLSError(f"TLS failed: {reason_of(error)}", phase=Phase.TLS, sent=True, retryable=False)
        refused.__cause__ = error
        return refused
    return None


def _settle(future: asyncio.Future[bytes], error: ConnectorError) -> None:
    future.set_exception(error)
    # Marks it as seen: many futures fail at once when a host goes down, and some of their tasks are gone already.
    future.exception()
