"""The wire-fault catalogue as behaviours of `FaultServer`, by name in `BEHAVIOURS`."""

from __future__ import annotations

import asyncio
import gzip
import zlib

from tests.faults.server import Behaviour, Peer

__all__ = ["BEHAVIOURS", "OK", "answer", "dripping", "endless_chunks", "once", "well_behaved"]


def answer(body: bytes = b"[]", *, status: str = "200 OK", headers: bytes = b"") -> bytes:
    """A complete answer with a length."""
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n%s\r\n%s" % (status.encode(), len(body), headers, body)


OK = answer()
_HALF_HEAD = OK[:30]
_HALF_BODY = answer(b"x" * 100)[:-50]
_CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


async def well_behaved(peer: Peer) -> None:
    """Answers everything, keeps the connection."""
    while True:
        await peer.request()
        await peer.send(OK)


def once(data: bytes, *, then: str = "fin") -> Behaviour:
    """Reads a request, sends these bytes, then ends with `fin`, `rst`, or does nothing (`wait`)."""

    async def behaviour(peer: Peer) -> None:
        await peer.request()
        await peer.send(data)
        await _end(peer, then)

    return behaviour


async def _end(peer: Peer, then: str) -> None:
    if then == "rst":
        # What was sent must arrive before the reset does, which would sweep it away.
        await asyncio.sleep(0.005)
        peer.reset()
    elif then == "wait":
        await peer.client_gone()


def second(end: str) -> Behaviour:
    """Answers one request; the second one on the same connection ends in `rst` or `fin`. Other connections work."""

    async def behaviour(peer: Peer) -> None:
        if peer.number > 1:
            await well_behaved(peer)
        await peer.request()
        await peer.send(OK)
        await peer.request()
        await _end(peer, end)

    return behaviour


def dripping(data: bytes, *, interval: float, head: bytes = b"") -> Behaviour:
    """Sends `head` at once, then one byte of `data` per interval (seconds)."""

    async def behaviour(peer: Peer) -> None:
        await peer.request()
        await peer.send(head)
        for byte in data:
            await peer.send(bytes([byte]))
            await asyncio.sleep(interval)

    return behaviour


def endless_chunks(chunk: bytes) -> Behaviour:
    """A body in chunks that never ends."""

    async def behaviour(peer: Peer) -> None:
        await peer.request()
        await peer.send(_CHUNKED)
        while True:
            await peer.send(b"%x\r\n%s\r\n" % (len(chunk), chunk))

    return behaviour


def repeated(data: bytes, times: int) -> Behaviour:
    """These bytes over and over, then a complete answer."""

    async def behaviour(peer: Peer) -> None:
        await peer.request()
        for _ in range(times):
            await peer.send(data)
        await peer.send(OK)
        await peer.client_gone()

    return behaviour


async def silent(peer: Peer) -> None:
    """Accepts and does nothing: no TLS handshake, no answer; reads nothing either."""
    await asyncio.Event().wait()


async def no_response(peer: Peer) -> None:
    """Reads everything, answers nothing."""
    await peer.client_gone()


async def rst_on_accept(peer: Peer) -> None:
    peer.reset()


async def fin_on_accept(peer: Peer) -> None:
    peer.finish()


async def rst_after_request(peer: Peer) -> None:
    await peer.request()
    peer.reset()


async def surplus(peer: Peer) -> None:
    """The first answer is followed at once by one that nobody asked for."""
    if peer.number > 1:
        await well_behaved(peer)
    await peer.request()
    await peer.send(answer(b'["first"]') + answer(b'["surplus"]'))
    await peer.request()
    await peer.send(answer(b'["late"]'))


async def unasked(peer: Peer) -> None:
    """An answer that nobody asked for comes a moment after the first one."""
    if peer.number > 1:
        await well_behaved(peer)
    await peer.request()
    await peer.send(OK)
    await asyncio.sleep(0.005)
    await peer.send(answer(b'["unasked"]'))
    await peer.client_gone()


async def close_after_response(peer: Peer) -> None:
    await peer.request()
    await peer.send(OK)
    peer.finish()


async def unread_request(peer: Peer) -> None:
    """A zero window: the kernel's buffers fill and nobody empties them."""
    peer.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a transport that reads, too
    await asyncio.Event().wait()


def _zeros(size: int) -> bytes:
    """gzip of so many zeros; 200 MB become 195 KB."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    block = bytes(1_000_000)
    return b"".join(compressor.compress(block) for _ in range(size // len(block))) + compressor.flush()


_GZIP = b"Content-Encoding: gzip\r\n"
_BOMB = answer(_zeros(200_000_000), headers=_GZIP)
_CORRUPT = answer(gzip.compress(b"[]" * 50)[:12] + b"garbage" * 5, headers=_GZIP)
# A whole answer from who then goes says so: on a busy machine another request took the connection meanwhile.
_LAST = b"Connection: close\r\n"
_REDIRECT = answer(b"", status="307 Temporary Redirect", headers=b"Location: http://169.254.169.254/\r\n" + _LAST)

BEHAVIOURS: dict[str, Behaviour] = {
    "tls handshake stall": silent,
    "rst on accept": rst_on_accept,
    "fin, no bytes": fin_on_accept,
    "rst after request": rst_after_request,
    "partial headers, fin": once(_HALF_HEAD),
    "partial headers, rst": once(_HALF_HEAD, then="rst"),
    "short body, fin": once(_HALF_BODY),
    "short body, rst": once(_HALF_BODY, then="rst"),
    "truncated chunk": once(_CHUNKED + b"10\r\nabc"),
    "bad status line": once(b"HTTP/one 2OO fine\r\n\r\n"),
    "200 KB header": once(answer(headers=_LAST + b"X: " + b"x" * 200_000 + b"\r\n")),
    "no response": no_response,
    "body dripped": dripping(b"x" * 50, interval=0.03, head=answer(b"x" * 50)[:-50]),
    "headers dripped": dripping(answer(headers=b"X-Padding: " + b"x" * 50 + b"\r\n"), interval=0.03),
    "gzip bomb": once(_BOMB),
    "corrupt gzip": once(_CORRUPT),
    "307 to a metadata address": once(_REDIRECT),
    "surplus response": surplus,
    "close after response": close_after_response,
    "rst on reuse": second("rst"),
    "fin on reuse": second("fin"),
    "1 GiB content-length": once(b"HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\nx", then="wait"),
    "endless chunks": endless_chunks(b"x" * 10_000),
    "endless chunk extension": once(_CHUNKED + b"1;x=" + b"x" * 1_000_000, then="wait"),
    "endless trailer": once(_CHUNKED + b"1\r\nx\r\n0\r\nX: " + b"x" * 1_000_000, then="wait"),
    "10,000 interim answers": repeated(b"HTTP/1.1 102 Processing\r\n\r\n" * 100, 100),
    "zero window": unread_request,
    "answer unasked": unasked,
}
