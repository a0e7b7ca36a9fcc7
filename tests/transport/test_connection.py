"""The framing of answers on one pooled connection, byte by byte: what comes out, and whether it is used again."""

from __future__ import annotations

import asyncio
import gzip
import math
import ssl
import zlib

import httpx
import pytest

from connector_async.errors import (
    Phase,
    RedirectRefused,
    RemoteProtocolError,
    ResponseTooLarge,
    TLSError,
    TransportError,
)
from tests.transport.wire import HEADERS, TARGET, Wire

pytestmark = pytest.mark.anyio

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

# The answer, what is to come out, and whether the connection is kept.
ANSWERS = {
    "length": (OK, 200, b"[]", True),
    "length of zero": (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, b"", True),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", True),
    "not modified, with a length": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", 304, b"", True),
    "keep-alive said": (OK.replace(b"\r\n\r\n", b"\r\nConnection: keep-alive\r\n\r\n"), 200, b"[]", True),
    "close said": (OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), 200, b"[]", False),
    "close said in capitals": (OK.replace(b"\r\n\r\n", b"\r\nCONNECTION: CLOSE\r\n\r\n"), 200, b"[]", False),
    "HTTP/1.0": (OK.replace(b"1.1", b"1.0"), 200, b"[]", False),
    "no reason": (OK.replace(b" OK", b" "), 200, b"[]", True),
    "interim": (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\n" + OK, 200, b"[]", True),
    "chunks": (CHUNKED + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", 200, b"abcde", True),
    "chunk extension": (CHUNKED + b'3;a=b;c="d"\r\nabc\r\n0;last\r\n\r\n', 200, b"abc", True),
    "chunk of line ends": (CHUNKED + b"4\r\n\r\n\r\n\r\n0\r\n\r\n", 200, b"\r\n\r\n", True),
    "trailer": (CHUNKED + b"1\r\nx\r\n0\r\nX-T: 1\r\nLocation: /\r\n\r\n", 200, b"x", True),
    "no chunks": (CHUNKED + b"0\r\n\r\n", 200, b"", True),
    "an error": (b"HTTP/1.1 500 Oops\r\nContent-Length: 1\r\n\r\n!", 500, b"!", True),
}
ENDS = {  # cut by the end of the stream
    "until the end": (b"HTTP/1.1 200 OK\r\n\r\nabc", b"abc"),
    "until the end, HTTP/1.0": (b"HTTP/1.0 200 OK\r\nX: y\r\n\r\n", b""),
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_an_answer_comes_out_the_same_however_it_is_cut(name: str) -> None:
    """RFC 9112: at every single cut, and byte by byte."""
    raw, status, body, is_kept = ANSWERS[name]
    for cuts in [(raw,), tuple(bytes([byte]) for byte in raw), *((raw[:k], raw[k:]) for k in range(1, len(raw)))]:
        wire = Wire()
        task = wire.post()
        await wire.feed(*cuts)
        result = await task
        assert (result.status, result.body) == (status, body)
        assert wire.is_kept == is_kept
        await wire.transport.aclose()


@pytest.mark.parametrize("name", ANSWERS)
async def test_httpx_gets_the_same_answer_however_it_is_cut(name: str) -> None:
    """The other interface of the same connection."""
    raw, status, body, is_kept = ANSWERS[name]
    for cuts in [(raw,), tuple(bytes([byte]) for byte in raw), *((raw[:k], raw[k:]) for k in range(1, len(raw), 3))]:
        wire = Wire()
        task = wire.request(httpx.Request("POST", TARGET.url, content=b"{}"))
        await wire.feed(*cuts)
        result = await task
        assert (result.status_code, result.content) == (status, body)
        assert wire.is_kept == is_kept
        await wire.transport.aclose()


@pytest.mark.parametrize("name", ENDS)
async def test_a_body_without_length_ends_with_the_stream(name: str) -> None:
    """RFC 9112, 6.3, last rule."""
    raw, body = ENDS[name]
    wire = Wire()
    task = wire.post()
    await wire.feed(raw)
    await wire.end()
    assert (await task).body == body
    assert not wire.is_kept


@pytest.mark.parametrize("name", ENDS)
async def test_httpx_gets_a_body_that_ends_with_the_stream(name: str) -> None:
    """The same for the other interface."""
    raw, body = ENDS[name]
    wire = Wire()
    task = wire.request(httpx.Request("GET", TARGET.url))
    await wire.feed(raw)
    await wire.end()
    assert (await task).content == body
    assert not wire.is_kept


SURPLUS = {
    "a second answer": OK + OK,
    "the start of one": OK + b"HTTP/1.1 2",
    "an empty line": OK + b"\r\n",
    "garbage": OK + b"garbage",
    "an empty line after chunks": CHUNKED + b"1\r\nx\r\n0\r\n\r\n\r\n",
    "an answer after chunks": CHUNKED + b"1\r\nx\r\n0\r\n\r\n" + OK,
    "a line after chunks": CHUNKED + b"1\r\nx\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n",
    "a chunked answer after chunks": (CHUNKED + b"1\r\nx\r\n0\r\n\r\n") * 2,
    "an empty line after no content": b"HTTP/1.1 204 No Content\r\n\r\n\r\n",
    "a body after no content": b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n[]",
    "bytes after the last answer": OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") + OK,
}


@pytest.mark.parametrize("name", SURPLUS)
async def test_a_connection_with_surplus_bytes_is_never_used_again(name: str) -> None:
    """our fault tables, rule 3: the answer itself is good, the connection is not."""
    for cuts in [
        (SURPLUS[name],),
        (SURPLUS[name][:-1], SURPLUS[name][-1:]),
        (SURPLUS[name][:60], SURPLUS[name][60:]),
    ]:
        wire = Wire()
        task = wire.post()
        await wire.feed(*cuts)
        assert (await task).status in (200, 204)
        assert not wire.is_kept
        await wire.transport.aclose()


@pytest.mark.parametrize("name", SURPLUS)
async def test_httpx_never_gets_a_connection_with_surplus_bytes(name: str) -> None:
    """The same for the other interface."""
    wire = Wire()
    task = wire.request(httpx.Request("GET", TARGET.url))
    await wire.feed(SURPLUS[name])
    assert (await task).status_code in (200, 204)
    assert not wire.is_kept
    await wire.transport.aclose()


@pytest.mark.parametrize("what", ["data", "end", "lost"])
async def test_an_idle_connection_on_which_anything_happens_is_discarded(what: str) -> None:
    """An answer that nobody asked for must not meet the next request."""
    wire = Wire()
    await {"data": lambda: wire.feed(OK), "end": wire.end, "lost": wire.lose}[what]()
    assert not wire.is_kept
    assert wire.transport.statistics().connections == 0


BROKEN = {
    "not HTTP": b"SMTP ready\r\n",
    "no version": b"HTTP/one 200 OK\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n[]",
    "length and chunks": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "length that is no number": b"HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\n[]",
    "negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\n[]",
    "space before the colon": b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\n[]",
    "line feed alone": b"HTTP/1.1 200 OK\nContent-Length: 2\n\n[]",
    "chunk size that is no number": CHUNKED + b"xyz\r\n",
    "an empty line first": b"\r\n" + OK,
    "two empty lines first": b"\r\n\r\n" + OK,
    "a switch of protocols": b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    "a flood of interim answers": b"HTTP/1.1 102 Processing\r\n\r\n" * 17 + OK,
}


@pytest.mark.parametrize("name", BROKEN)
async def test_an_answer_that_breaks_the_rules_is_a_protocol_error(name: str) -> None:
    """And it ends the connection."""
    wire = Wire()
    task = wire.post()
    await wire.feed(BROKEN[name])
    with pytest.raises(RemoteProtocolError) as caught:
        await task
    assert type(caught.value) is RemoteProtocolError
    assert wire.transport.statistics().exchanges <= 1
    await wire.transport.aclose()


@pytest.mark.parametrize("name", [name for name in BROKEN if "first" not in name])
async def test_httpx_gets_its_own_protocol_error(name: str) -> None:
    """The same for the other interface."""
    wire = Wire()
    request = httpx.Request("GET", TARGET.url)
    task = wire.request(request)
    await wire.feed(BROKEN[name])
    with pytest.raises(httpx.RemoteProtocolError) as caught:
        await task
    assert caught.value.request is request
    assert vars(caught.value)["sent"] is True
    assert not wire.is_kept
    await wire.transport.aclose()


@pytest.mark.parametrize(
    ("raw", "phase", "answered"),
    [(b"", Phase.WAIT, False), (OK[:20], Phase.READ, True), (OK[:-1], Phase.READ, True), (CHUNKED, Phase.READ, True)],
)
@pytest.mark.parametrize("how", ["end", "lose"])
async def test_an_answer_that_is_cut_short_has_an_unknown_outcome(
    raw: bytes, phase: Phase, answered: bool, how: str
) -> None:
    """our fault tables, section 2: by policy, for bytes had been sent."""
    wire = Wire()
    task = wire.post()
    await wire.feed(raw) if raw else None
    await (wire.end() if how == "end" else wire.lose(ConnectionResetError()))
    with pytest.raises(TransportError) as caught:
        await task
    error = caught.value
    assert (error.phase, error.answered, error.sent, error.reused, error.timed_out) == (
        phase,
        answered,
        True,
        False,
        False,
    )


@pytest.mark.parametrize(
    ("how", "raw", "expected"),
    [
        ("end", b"", httpx.RemoteProtocolError),
        ("end", OK[:-1], httpx.RemoteProtocolError),
        ("lose", b"", httpx.ReadError),
        ("lose", OK[:20], httpx.ReadError),
        ("lose", OK[:-1], httpx.ReadError),
    ],
)
async def test_httpx_gets_the_error_that_its_own_transport_raises(
    how: str, raw: bytes, expected: type[Exception]
) -> None:
    """An end of stream is a RemoteProtocolError there, a broken connection a ReadError."""
    wire = Wire()
    task = wire.request(httpx.Request("GET", TARGET.url))
    await wire.feed(raw) if raw else await asyncio.sleep(0)
    await (wire.end() if how == "end" else wire.lose(ConnectionResetError()))
    with pytest.raises(expected):
        await task


async def test_the_second_exchange_of_a_connection_knows_that_it_is() -> None:
    """`reused` is what makes a stale keep-alive connection suspected."""
    wire = Wire()
    first = wire.post()
    await wire.feed(OK)
    await first
    second = wire.post()
    await asyncio.sleep(0)
    await wire.end()
    with pytest.raises(TransportError) as caught:
        await second
    assert caught.value.reused


async def test_a_request_goes_out_in_one_piece() -> None:
    """Head, prepared headers, length and body."""
    wire = Wire()
    task = wire.post(b'{"a":1}')
    await wire.feed(OK)
    await task
    assert wire.line.written == (
        b"POST /path HTTP/1.1\r\nHost: 127.0.0.1:1\r\nAccept-Encoding: identity\r\nX-Test: 1\r\n"
        b'Content-Length: 7\r\n\r\n{"a":1}'
    )


async def test_headers_are_taken_apart_when_asked_for() -> None:
    """Names in lower case, folded values joined, the trailer left out."""
    wire = Wire()
    task = wire.post()
    head = b"HTTP/1.1 200 OK\r\nX-A:  one \r\nx-a: two\r\nEmpty:\r\nTransfer-Encoding: chunked\r\n\r\n"
    await wire.feed(head + b"0\r\nX-A: three\r\n\r\n")
    result = await task
    assert result.headers == (
        (b"x-a", b"one"),
        (b"x-a", b"two"),
        (b"empty", b""),
        (b"transfer-encoding", b"chunked"),
    )
    assert result.header(b"x-a") == "one"
    assert result.header(b"x-b") is None


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_refused(status: int) -> None:
    """Tokens are not carried to another place."""
    wire = Wire()
    task = wire.post()
    await wire.feed(b"HTTP/1.1 %d Moved\r\nLocation: http://other\r\nContent-Length: 0\r\n\r\n" % status)
    with pytest.raises(RedirectRefused):
        await task
    assert wire.is_kept


async def test_a_redirect_is_httpx_business_there() -> None:
    """The client decides whether it follows."""
    wire = Wire()
    task = wire.request(httpx.Request("GET", TARGET.url))
    await wire.feed(b"HTTP/1.1 302 Moved\r\nLocation: http://other\r\nContent-Length: 0\r\n\r\n")
    assert (await task).headers["location"] == "http://other"


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        (b"gzip", gzip.compress(b"hello", mtime=0)),
        (b"GZIP", gzip.compress(b"hello", mtime=0)),
        (b"deflate", zlib.compress(b"hello")),
        (b"identity", b"hello"),
    ],
)
async def test_a_compressed_answer_is_read_although_not_asked_for(coding: bytes, body: bytes) -> None:
    """Some gateways compress regardless."""
    wire = Wire()
    task = wire.post()
    await wire.feed(
        b"HTTP/1.1 200 OK\r\nContent-Encoding: %s\r\nContent-Length: %d\r\n\r\n%s" % (coding, len(body), body)
    )
    assert (await task).body == b"hello"


@pytest.mark.parametrize(
    ("coding", "body", "expected"),
    [
        (b"gzip", gzip.compress(bytes(2_000_000), mtime=0), ResponseTooLarge),
        (b"gzip", b"garbage", RemoteProtocolError),
        (b"gzip", gzip.compress(b"hello", mtime=0)[:-3], RemoteProtocolError),
        (b"br", b"hello", RemoteProtocolError),
    ],
)
async def test_a_compressed_answer_is_bounded_and_checked(
    coding: bytes, body: bytes, expected: type[Exception]
) -> None:
    """our fault tables, rule 5."""
    wire = Wire()
    task = wire.post()
    await wire.feed(
        b"HTTP/1.1 200 OK\r\nContent-Encoding: %s\r\nContent-Length: %d\r\n\r\n%s" % (coding, len(body), body)
    )
    with pytest.raises(expected) as caught:
        await task
    assert type(caught.value) is expected


async def test_an_empty_body_is_not_decompressed() -> None:
    """A 204 may carry the header without a body."""
    wire = Wire()
    task = wire.post()
    await wire.feed(b"HTTP/1.1 204 No Content\r\nContent-Encoding: gzip\r\n\r\n")
    assert (await task).body == b""


TOO_LARGE = {
    "body at once": (b"HTTP/1.1 200 OK\r\nContent-Length: 101\r\n\r\n" + b"x" * 101,),
    "body announced": (b"HTTP/1.1 200 OK\r\nContent-Length: 101\r\n\r\n",),
    "body in chunks": (CHUNKED, *[b"32\r\n" + b"x" * 50 + b"\r\n"] * 3),
    "body until the end": (b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 101),
    "head at once": (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 300 + b"\r\nContent-Length: 0\r\n\r\n",),
    "head in pieces": (b"HTTP/1.1 200 OK\r\nX: ", *[b"x" * 50] * 7),
    "chunk extension": (CHUNKED, b"1;", *[b"x" * 50] * 20),
    "trailer": (CHUNKED, b"1\r\nx\r\n0\r\n", *[b"X: " + b"x" * 50 + b"\r\n"] * 20),
}


@pytest.mark.parametrize("name", TOO_LARGE)
async def test_an_answer_that_is_too_large_is_refused_before_it_is_read(name: str) -> None:
    """`max_head_bytes` and `max_body_bytes`."""
    wire = Wire(max_head_bytes=300, max_body_bytes=100)
    task = wire.post()
    await wire.feed(*TOO_LARGE[name])
    with pytest.raises(ResponseTooLarge):
        await task
    await wire.transport.aclose()


@pytest.mark.parametrize("name", ["head at once", "head in pieces", "chunk extension", "trailer"])
async def test_httpx_gets_no_head_or_framing_without_end(name: str) -> None:
    """A streamed body has no bound there, everything else has."""
    wire = Wire(max_head_bytes=300, max_body_bytes=100)
    task = wire.request(httpx.Request("GET", TARGET.url))
    await wire.feed(*TOO_LARGE[name])
    with pytest.raises(httpx.RemoteProtocolError):
        await task
    await wire.transport.aclose()


async def test_an_answer_at_the_limit_is_read() -> None:
    """The limit itself is allowed."""
    wire = Wire(max_head_bytes=300, max_body_bytes=100)
    task = wire.post()
    await wire.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n", b"x" * 60, b"x" * 40)
    assert (await task).body == b"x" * 100
    assert wire.is_kept


async def test_an_early_answer_counts_but_costs_the_connection() -> None:
    """The server answered before it had read everything: the rest would meet its next request."""
    wire = Wire()
    task = wire.post()
    await asyncio.sleep(0)
    wire.connection.pause_writing()
    await wire.feed(OK)
    assert (await task).body == b"[]"
    assert not wire.is_kept
    await wire.transport.aclose()


async def test_a_peer_that_reads_nothing_fails_in_the_write_phase() -> None:
    """The deadline covers sending, too."""
    wire = Wire()
    task = wire.post(seconds=0.02)
    await asyncio.sleep(0)
    wire.connection.pause_writing()
    with pytest.raises(TransportError) as caught:
        await task
    assert (caught.value.phase, caught.value.timed_out) == (Phase.WRITE, True)
    await wire.transport.aclose()


async def test_writing_that_resumes_is_noticed() -> None:
    """Then the connection is as good as before."""
    wire = Wire()
    task = wire.post()
    await asyncio.sleep(0)
    wire.connection.pause_writing()
    wire.connection.resume_writing()
    await wire.feed(OK)
    await task
    assert wire.is_kept


async def test_an_answer_to_a_caller_who_left_in_the_same_moment_is_dropped() -> None:
    """Cancelled, then answered, before the caller has run: the answer was complete, so the connection is good."""
    wire = Wire()
    task = wire.post()
    await asyncio.sleep(0)
    task.cancel()
    wire.connection.data_received(OK)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert wire.is_kept


async def test_a_failure_for_a_caller_who_left_in_the_same_moment_is_dropped() -> None:
    """Nothing is raised that nobody retrieves."""
    wire = Wire()
    task = wire.post()
    await asyncio.sleep(0)
    task.cancel()
    wire.connection.data_received(b"garbage\r\n")
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not wire.is_kept


async def test_cancelling_closes_the_connection() -> None:
    """our design, decision 6: never returned dirty to the pool."""
    wire = Wire()
    task = wire.post()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert wire.line.is_aborted
    assert wire.transport.statistics().connections == 0


async def test_a_refused_client_certificate_is_told_at_the_first_read() -> None:
    """TLS 1.3: the handshake was over for us when the server looked at our certificate."""
    wire = Wire()
    task = wire.post()
    await asyncio.sleep(0)
    await wire.lose(ssl.SSLError(1, "[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] alert"))
    with pytest.raises(TLSError) as caught:
        await task
    assert (caught.value.sent, caught.value.retryable) == (True, False)


async def test_tls_that_ends_roughly_is_an_end_like_any_other() -> None:
    """An EOF without TLS's own goodbye says nothing about certificates."""
    wire = Wire()
    task = wire.post()
    await asyncio.sleep(0)
    await wire.lose(ssl.SSLEOFError(8, "EOF occurred in violation of protocol"))
    with pytest.raises(TransportError) as caught:
        await task
    assert not isinstance(caught.value, TLSError)


async def test_an_answer_can_be_disowned() -> None:
    """The session does it when the answer names another request: `discard`."""
    wire = Wire()
    task = wire.post()
    await wire.feed(OK)
    wire.transport.discard(await task)
    assert wire.line.is_aborted


async def test_an_answer_disowned_while_its_connection_is_in_use_ends_with_that_use() -> None:
    """The exchange under way may end, the next one goes elsewhere."""
    wire = Wire()
    task = wire.post()
    await wire.feed(OK)
    answer = await task
    second = wire.post()
    await asyncio.sleep(0)
    wire.transport.discard(answer)
    assert not wire.line.is_aborted
    await wire.feed(OK)
    await second
    assert wire.line.is_aborted


async def test_a_deadline_without_end_is_none() -> None:
    """`math.inf` is a deadline like any other."""
    wire = Wire()
    loop = asyncio.get_running_loop()
    task = loop.create_task(wire.transport.post(TARGET, HEADERS, b"", math.inf))
    await wire.feed(OK)
    assert (await task).status == 200
    await wire.transport.aclose()


async def test_a_deadline_in_the_past_sends_nothing() -> None:
    """Not even on a connection that is there."""
    wire = Wire()
    with pytest.raises(TransportError) as caught:
        await wire.transport.post(TARGET, HEADERS, b"", asyncio.get_running_loop().time())
    assert (caught.value.sent, caught.value.timed_out) == (False, True)
    assert wire.line.written == b""


async def test_aborting_a_target_ends_its_exchange_and_its_connection() -> None:
    """`abort` is for a consumer whose token was revoked: at once."""
    wire = Wire()
    task = wire.post()
    await asyncio.sleep(0)
    wire.transport.abort(TARGET)
    with pytest.raises(TransportError, match="aborted"):
        await task
    assert wire.line.is_aborted
