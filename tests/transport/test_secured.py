"""TLS beneath a pooled connection, record by record: against a server in memory, and against one that is scripted."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import Any, cast

import anyio
import httpx
import pytest

from connector_async.errors import Phase, TLSError, TransportError
from connector_async.transport import Answer, PooledTransport, Target
from connector_async.transport._connection import Connection
from connector_async.transport._secured import Secured
from tests.backends import ASYNCIO, UVLOOP
from tests.faults import FaultServer, Peer, answer
from tests.transport.certificates import authority
from tests.transport.wire import HEADERS

pytestmark = pytest.mark.anyio

_TARGET = Target("https://localhost:1", "/path")
_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]"
_UNTIL_END = b"HTTP/1.1 200 OK\r\n\r\nhalf of it"
_VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


class _Socket:
    """What asyncio gives to a protocol, with nothing behind it: remembers what was written."""

    def __init__(self) -> None:
        self.written = b""
        self.waiting = 0
        self.is_aborted = False

    def write(self, data: bytes) -> None:
        self.written += data

    def take(self) -> bytes:
        """What was written since the last look."""
        data, self.written = self.written, b""
        return data

    def abort(self) -> None:
        self.is_aborted = True

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def set_write_buffer_limits(self, high: int, low: int) -> None:
        self.limits = (high, low)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"socket": self}.get(name, default)


class _Server:
    """The other side, in memory."""

    def __init__(self, version: ssl.TLSVersion) -> None:
        context = authority().server_context("localhost")
        context.maximum_version = version
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.object = context.wrap_bio(self.incoming, self.outgoing, server_side=True)
        self.is_up = False

    def hear(self, data: bytes) -> bytes:
        """Take the client's bytes; returns the request in them, if the handshake was done before."""
        self.incoming.write(data)
        with contextlib.suppress(ssl.SSLWantReadError):
            if not self.is_up:
                self.object.do_handshake()
                self.is_up = True
        with contextlib.suppress(ssl.SSLWantReadError):
            return self.object.read(65_536) if self.is_up else b""
        return b""

    def say(self, *texts: bytes, goodbye: bool = False) -> bytes:
        """The bytes that carry this, each text a record of its own, and perhaps the end."""
        for text in texts:
            self.object.write(text)
        if goodbye:
            with contextlib.suppress(ssl.SSLWantReadError):
                self.object.unwrap()
        return self.outgoing.read()


class _Wire:
    """A pooled connection with TLS beneath it, whose socket is the test's."""

    def __init__(self, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3, context: Any = None) -> None:
        self.transport = PooledTransport(ssl_context=authority().client_context())
        self.loop = asyncio.get_running_loop()
        self.pool = self.transport._bind(self.loop)
        self.host = self.pool.host(_TARGET.origin)
        self.connection = Connection(self.pool, self.host)
        self.socket = _Socket()
        self.server = _Server(version)
        own = context or authority().client_context()
        self.secured = Secured(self.connection, self.pool.view, own, "localhost")
        self.secured.connection_made(cast(asyncio.Transport, self.socket))

    def feed(self, data: bytes, step: int = 65_536) -> None:
        """The server's bytes, so many at a time."""
        for start in range(0, len(data), step):
            piece = data[start : start + step]
            self.secured.get_buffer(-1)[: len(piece)] = piece
            self.secured.buffer_updated(len(piece))

    def shake_hands(self, step: int = 65_536) -> None:
        """Until both are done; then the connection waits for its first request."""
        while not (self.server.is_up and self.secured.ready.done()):
            self.server.hear(self.socket.take())
            self.feed(self.server.outgoing.read(), step)
        self.connection.expires_at = self.loop.time() + 1_000
        self.host.connections.add(self.connection)
        self.pool._used += 1
        self.pool.release(self.connection)

    async def post(self, body: bytes = b"{}") -> asyncio.Task[Answer]:
        """Start a post, as far as the first byte."""
        post = self.transport.post(_TARGET, HEADERS, body, self.loop.time() + 5)
        task = self.loop.create_task(post)
        await asyncio.sleep(0)
        return task

    @property
    def is_kept(self) -> bool:
        return self.connection in self.host.idle and not self.socket.is_aborted


@pytest.mark.parametrize("step", [1, 7, 65_536])
@pytest.mark.parametrize("version", _VERSIONS)
async def test_messages_pass_however_the_socket_cuts_them(version: ssl.TLSVersion, step: int) -> None:
    """TLS 1.2 and 1.3; tickets come after the handshake and are no answer."""
    wire = _Wire(version)
    wire.shake_hands(step)
    for body in (b"{}", b"[]"):
        task = await wire.post(body)
        assert wire.server.hear(wire.socket.take()).endswith(b"\r\n\r\n" + body)
        wire.feed(wire.server.say(_OK), step)
        assert (await task).body == b"[]"
        assert wire.is_kept
    assert wire.socket.limits == (0, 0)


@pytest.mark.parametrize("step", [11, 65_536])
async def test_an_answer_in_many_records_is_one_answer(step: int) -> None:
    """Read together or apart; and the last record may be a part."""
    wire = _Wire()
    wire.shake_hands()
    task = await wire.post()
    data = wire.server.say(*(bytes([byte]) for byte in _OK))
    wire.feed(data[:-3], step)
    assert not task.done()
    wire.feed(data[-3:], step)
    assert (await task).body == b"[]"
    assert wire.is_kept


@pytest.mark.parametrize("version", _VERSIONS)
async def test_a_surplus_record_costs_the_connection(version: ssl.TLSVersion) -> None:
    """As without TLS: what nobody asked for is not for the next one."""
    wire = _Wire(version)
    wire.shake_hands()
    task = await wire.post()
    wire.feed(wire.server.say(_OK, b"HTTP/1.1"))
    assert (await task).status == 200
    assert wire.socket.is_aborted


async def test_a_body_without_length_ends_with_the_servers_goodbye() -> None:
    """RFC 9112, 6.3, last rule, and RFC 8446, 6.1."""
    wire = _Wire()
    wire.shake_hands()
    task = await wire.post()
    wire.feed(wire.server.say(_UNTIL_END, goodbye=True))
    assert (await task).body == b"half of it"
    assert wire.socket.is_aborted


async def test_a_goodbye_between_requests_closes_the_connection() -> None:
    """With the last answer or after it."""
    for together in (True, False):
        wire = _Wire()
        wire.shake_hands()
        task = await wire.post()
        if together:
            wire.feed(wire.server.say(_OK, goodbye=True))
        else:
            wire.feed(wire.server.say(_OK))
            wire.feed(wire.server.say(goodbye=True))
        assert (await task).status == 200
        assert wire.socket.is_aborted
        assert wire.transport.statistics().connections == 0


@pytest.mark.parametrize("sent", [_UNTIL_END, _OK[:-1], b""])
async def test_a_stream_that_is_cut_is_no_answer(sent: bytes) -> None:
    """Without the goodbye nobody knows whether it was all (RFC 8446, 6.1): unknown outcome."""
    wire = _Wire()
    wire.shake_hands()
    task = await wire.post()
    wire.feed(wire.server.say(*filter(None, [sent])))
    wire.secured.eof_received()
    wire.secured.connection_lost(None)
    with pytest.raises(TransportError) as caught:
        await task
    assert not isinstance(caught.value, TLSError)
    assert (caught.value.sent, caught.value.answered) == (True, bool(sent))
    assert isinstance(caught.value.__cause__, EOFError)
    assert wire.transport.statistics().connections == 0


@pytest.mark.parametrize("anyio_backend", [ASYNCIO, UVLOOP])
async def test_httpx_is_told_of_a_cut(anyio_backend: Any) -> None:
    """In its own words, and on real sockets: the server closes the socket beneath its TLS."""

    async def cut(peer: Peer) -> None:
        await peer.request()
        await peer.send(_UNTIL_END)
        peer.writer.transport.abort()

    async with FaultServer(cut, tls=authority().server_context("localhost")) as server:
        async with PooledTransport(ssl_context=authority().client_context()) as transport:
            request = httpx.Request("GET", server.base.replace("http:", "https:").replace("127.0.0.1", "localhost"))
            with anyio.fail_after(60), pytest.raises(httpx.RemoteProtocolError):
                await (await transport.handle_async_request(request)).aread()


async def test_a_cut_between_requests_closes_the_connection() -> None:
    """Nobody waits, so nobody is told."""
    wire = _Wire()
    wire.shake_hands()
    wire.secured.eof_received()
    assert wire.socket.is_aborted
    wire.secured.connection_lost(None)
    assert wire.transport.statistics().connections == 0


async def test_an_answer_counts_though_garbage_follows_it() -> None:
    """The connection does not."""
    wire = _Wire()
    wire.shake_hands()
    task = await wire.post()
    wire.feed(wire.server.say(_OK) + b"\x17\x03\x03\x00\x05wrong")
    assert (await task).body == b"[]"
    assert wire.socket.is_aborted


async def test_a_record_that_was_tampered_with_is_a_tls_error() -> None:
    """And ends the connection."""
    wire = _Wire()
    wire.shake_hands()
    task = await wire.post()
    sealed = bytearray(wire.server.say(_OK))
    sealed[-1] ^= 1
    wire.feed(bytes(sealed))
    with pytest.raises(TLSError) as caught:
        await task
    assert (caught.value.sent, caught.value.phase) == (True, Phase.TLS)
    assert wire.socket.is_aborted


async def test_large_bodies_pass_both_ways() -> None:
    """Over many records."""
    wire = _Wire()
    wire.shake_hands()
    task = await wire.post(b"x" * 1_000_000)
    heard = wire.server.hear(wire.socket.take())
    while part := wire.server.hear(b""):
        heard += part
    assert heard.endswith(b"x" * 1_000_000)
    assert len(heard) > 1_000_000
    wire.feed(wire.server.say(answer(b"y" * 900_000)), 60_001)
    assert (await task).body == b"y" * 900_000
    assert wire.is_kept


async def test_what_the_kernel_does_not_take_pauses_the_connection() -> None:
    """So that an answer that comes too early does not put half a request before the next one."""
    wire = _Wire()
    wire.shake_hands()
    wire.secured.pause_writing()
    assert wire.connection.is_write_paused
    wire.secured.resume_writing()
    assert not wire.connection.is_write_paused


# -- handshakes that fail ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["fin", "lost", "reset"])
async def test_a_socket_that_closes_in_the_handshake_is_no_tls_error(end: str) -> None:
    """It says nothing about certificates; nothing was sent."""
    wire = _Wire()
    reset = ConnectionResetError("reset")
    if end == "fin":
        wire.secured.eof_received()
    wire.secured.connection_lost(reset if end == "reset" else None)
    with pytest.raises(ConnectionResetError) as caught:
        await wire.secured.ready
    assert (caught.value is reset) == (end == "reset")
    assert wire.socket.is_aborted


async def test_a_server_that_is_refused_is_told_why() -> None:
    """By an alert: "unknown CA"."""
    wire = _Wire(context=ssl.create_default_context())
    wire.server.hear(wire.socket.take())
    wire.feed(wire.server.outgoing.read())
    with pytest.raises(ssl.SSLCertVerificationError):
        await wire.secured.ready
    assert wire.socket.is_aborted
    with pytest.raises(ssl.SSLError, match="UNKNOWN_CA"):
        wire.server.hear(wire.socket.take())


async def test_a_handshake_that_nobody_waits_for_any_more_is_dropped() -> None:
    """Cancelled before the socket was there, in the middle, or when it had just ended."""
    wire = _Wire()
    early = Secured(wire.connection, wire.pool.view, authority().client_context(), "localhost")
    early.abort()
    late = _Socket()
    early.connection_made(cast(asyncio.Transport, late))
    assert (late.is_aborted, late.written) == (True, b"")

    wire.secured.ready.cancel()
    wire.secured.connection_lost(None)
    assert wire.socket.is_aborted

    wire = _Wire()
    wire.server.hear(wire.socket.take())
    wire.secured.ready.cancel()
    wire.connection.is_discarded = True
    wire.feed(wire.server.outgoing.read())
    assert wire.socket.is_aborted


# -- what no server of Python's can be made to do ------------------------------------------------------------------


class _Scripted:
    """OpenSSL's part, played: `asks` makes it want to read before it writes, `fails` makes it fail."""

    asks = False
    fails = False

    def wrap_bio(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, server_hostname: str) -> _Scripted:
        self.incoming, self.outgoing = incoming, outgoing
        return self

    def do_handshake(self) -> None:
        """It is done at once."""

    def selected_alpn_protocol(self) -> None:
        """None was offered."""

    def read(self, size: int) -> bytes:
        data = self.incoming.read(size)
        if data.startswith(b"again"):  # the server's wish, or its answer to our part of it
            self.asks = data == b"again?"
            self.outgoing.write(b"hello again " if self.asks else b"finished ")
        if data and not data.startswith(b"again"):
            return data
        raise ssl.SSLWantReadError

    def write(self, data: bytes) -> int:
        if self.asks:
            raise ssl.SSLWantReadError
        if self.fails:
            raise ssl.SSLError("no")
        return self.outgoing.write(data[:1_000])


def _scripted() -> tuple[_Wire, _Scripted]:
    script = _Scripted()
    wire = _Wire(context=script)
    wire.server.is_up = True
    wire.shake_hands()
    return wire, script


@pytest.mark.parametrize("kernel_is_full", [False, True])
async def test_a_request_waits_while_the_server_shakes_hands_once_more(kernel_is_full: bool) -> None:
    """TLS 1.2 allows it (RFC 5246, 7.4.1.1); meanwhile nothing can be written."""
    wire, _ = _scripted()
    wire.feed(b"again?")
    assert wire.socket.take() == b"hello again "
    task = await wire.post(b"x" * 2_500)
    wire.secured.write(b"more")
    wire.secured.resume_writing()  # the kernel is not what we wait for
    assert wire.connection.is_write_paused
    assert wire.socket.take() == b""
    wire.socket.waiting = 5 if kernel_is_full else 0
    wire.feed(b"again!")
    written = wire.socket.take()
    assert written.startswith(b"finished POST /path")
    assert written.endswith(b"x" * 2_500 + b"more")
    assert wire.connection.is_write_paused == kernel_is_full
    wire.feed(_OK)
    assert (await task).status == 200
    assert wire.is_kept != kernel_is_full


async def test_a_wish_that_is_still_open_keeps_the_request_back() -> None:
    """Every byte that comes is a new try."""
    wire, _ = _scripted()
    wire.feed(b"again?")
    task = await wire.post()
    wire.feed(b"again?")
    assert b"POST" not in wire.socket.take()
    assert wire.connection.is_write_paused
    wire.feed(b"again!")
    assert b"POST" in wire.socket.take()
    wire.feed(_OK)
    assert (await task).status == 200


async def test_a_failure_to_seal_ends_the_exchange_and_not_the_caller() -> None:
    """It comes out where all errors do."""
    wire, script = _scripted()
    script.fails = True
    task = await wire.post()
    with pytest.raises(TLSError):
        await task
    assert wire.socket.is_aborted


async def test_facts_about_the_connection_pass_through() -> None:
    """What the httpx side asks a transport for."""
    wire, script = _scripted()
    assert wire.secured.get_extra_info("ssl_object") is script
    assert wire.secured.get_extra_info("socket") is wire.socket
    assert wire.secured.get_extra_info("other", 5) == 5


@pytest.mark.parametrize("anyio_backend", [ASYNCIO, UVLOOP])
async def test_a_slow_reader_holds_the_server_back(anyio_backend: Any) -> None:
    """A download of 20 MB, read only when the server has begun to wait."""
    waited = asyncio.Event()

    async def download(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 20000000\r\n\r\n")
        peer.writer.write(b"x" * 20_000_000)
        waited.set()
        await peer.writer.drain()
        await peer.client_gone()

    async with FaultServer(download, tls=authority().server_context("localhost")) as server:
        async with PooledTransport(ssl_context=authority().client_context()) as transport:
            request = httpx.Request("GET", server.base.replace("http:", "https:").replace("127.0.0.1", "localhost"))
            with anyio.fail_after(60):
                response = await transport.handle_async_request(request)
                await waited.wait()
                size = 0
                async for chunk in response.aiter_raw():
                    size += len(chunk)
                assert response.extensions["network_stream"].get_extra_info("ssl_object").version() == "TLSv1.3"
                assert size == 20_000_000
            await response.aclose()
