"""TLS between a pooled connection and its socket.

asyncio's own layer for it keeps a buffer of 256 KiB for each connection, raises and drops an exception for each
message, and takes the end of the socket for the end of the stream. This one reads into the pool's one buffer, asks
OpenSSL once per message, and knows a cut from an end. Owns the handshake and the records; knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from connector_async.transport._connection import Connection

__all__ = ["Secured"]

# The most that one record holds (RFC 8446, 5.1): so each read takes a record whole, and nothing stays in OpenSSL.
_RECORD = 16_384


class Secured(asyncio.BufferedProtocol):
    """To the loop a protocol, to the connection a transport.

    Says no goodbye when it is aborted: a request has a length, so the server can tell a whole one from a part.

    Args:
        connection: Told when the handshake is done, and then whatever a protocol is told.
        view: Where to read to; one for all, for it is emptied in the same turn.
        name: Whom the certificate must name.
    """

    __slots__ = (
        "_connection",
        "_incoming",
        "_is_over",
        "_is_up",
        "_object",
        "_open",
        "_outgoing",
        "_put",
        "_seal",
        "_sealed",
        "_transport",
        "_unsent",
        "_view",
        "ready",
    )

    def __init__(self, connection: Connection, view: memoryview, context: ssl.SSLContext, name: str) -> None:
        self._connection = connection
        self._view = view
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name)
        self._put, self._open = self._incoming.write, self._object.read
        self._seal, self._sealed = self._object.write, self._outgoing.read
        self._transport: Any = None  # asyncio.Transport; uvloop's is not a subclass of it
        self._unsent = b""
        self._is_up = self._is_over = False
        # Done when the handshake is, one way or the other.
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    # -- the handshake -----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is open."""
        self._transport = transport
        if self._is_over:  # uvloop may tell after the attempt to connect was cancelled
            self._transport.abort()
            return
        self._handshake()

    def _handshake(self) -> None:
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            self._transport.write(self._sealed())
            return
        except ssl.SSLError as error:
            self._transport.write(self._sealed())  # the alert says why
            self._refuse(error)
            return
        self._transport.write(self._sealed())
        chosen = self._object.selected_alpn_protocol()
        if chosen not in (None, "http/1.1"):  # httpx leaves "h2" in the context that it was given for HTTP/2
            self._refuse(ssl.SSLError(1, f"the server chose {chosen}, which the ssl_context offered it"))
            return
        self._is_up = True
        self._connection.connection_made(self)
        if not self.ready.done():
            self.ready.set_result(None)
        self._receive()  # what came with the last bytes of the handshake

    def _refuse(self, error: Exception) -> None:
        if not self.ready.done():
            self.ready.set_exception(error)
            self.ready.exception()  # seen, even if the task is gone
        self.abort()

    # -- what the loop calls -----------------------------------------------------------------------------------------

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's signature
        """Where to read to."""
        return self._view

    def buffer_updated(self, nbytes: int) -> None:
        """So many bytes were read."""
        self._put(self._view[:nbytes])
        if self._is_up:
            self._receive()
        else:
            self._handshake()

    def _receive(self) -> None:
        """Pass on what the complete records hold."""
        data = b""
        is_end, error = False, None
        try:
            while True:
                part = self._open(_RECORD)
                if not part:  # the server's goodbye
                    is_end = True
                    break
                data = data + part if data else part
                if not self._incoming.pending:  # spares the exception that says the same
                    break
        except ssl.SSLWantReadError:  # the rest of a record is to come, or it was one of TLS's own: a ticket
            pass
        except ssl.SSLError as failure:
            error = failure
        if self._outgoing.pending or self._unsent:
            self._answer()
        if data:
            self._connection.data_received(data)
        if is_end:
            self._connection.eof_received()
            self.abort()
        elif error is not None:
            self._connection.break_off(error)

    def _answer(self) -> None:
        """TLS itself had something to say, or the server something to hear before we could go on writing."""
        unsent, self._unsent = self._unsent, b""
        self.write(unsent)
        if unsent and not self._unsent and not self._transport.get_write_buffer_size():
            self._connection.resume_writing()

    def eof_received(self) -> None:
        """The socket ended without the server's goodbye: somebody may have cut the stream (RFC 8446, 6.1)."""
        if self._is_up:
            self._connection.break_off(EOFError("the stream was cut: TLS did not end before the socket did"))
        else:
            self._refuse(ConnectionResetError("the server closed the connection during the TLS handshake"))

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is closed."""
        if self._is_up:
            self._connection.connection_lost(exc)
        else:
            self._refuse(exc or ConnectionResetError("the connection was lost during the TLS handshake"))

    def pause_writing(self) -> None:
        """Some bytes wait in memory for the peer to read."""
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        """All bytes are with the kernel."""
        if not self._unsent:
            self._connection.resume_writing()

    # -- what the connection calls -----------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Seal it and send it."""
        if self._unsent:
            self._unsent += data
            return
        try:
            while data:
                data = data[self._seal(data) :]
        except ssl.SSLWantReadError:  # TLS 1.2: the server wants to shake hands once more before it reads on
            self._unsent = data
            self._connection.pause_writing()
        except ssl.SSLError as error:
            self._connection.break_off(error)
            return
        self._transport.write(self._sealed())

    def abort(self) -> None:
        """Close the socket now; idempotent, also before it is open."""
        self._is_over = True
        if self._transport is not None:
            self._transport.abort()

    def pause_reading(self) -> None:
        """Read no more for now; what was read already is passed on."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read on."""
        self._transport.resume_reading()

    def set_write_buffer_limits(self, high: int, low: int) -> None:
        """When to call `pause_writing` and `resume_writing`; nothing is held back here."""
        self._transport.set_write_buffer_limits(high=high, low=low)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Facts about the connection, as asyncio names them."""
        return self._object if name == "ssl_object" else self._transport.get_extra_info(name, default)
