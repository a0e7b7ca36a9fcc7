"""The pooled transport as a transport of httpx: bodies streamed both ways, extensions, exceptions."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from typing import Any

import anyio
import httpx
import pytest

from connector_async.errors import Phase
from connector_async.transport import PooledTransport
from connector_async.transport._stream import NetworkStream
from tests.backends import ASYNCIO, UVLOOP
from tests.faults import BEHAVIOURS, FaultServer, Peer, answer, black_hole, refused_port, well_behaved
from tests.transport.wire import TARGET, Wire

pytestmark = pytest.mark.anyio

OK = answer()


def _client(transport: PooledTransport, **settings: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=transport, trust_env=False, **settings)


async def _parts(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        await asyncio.sleep(0)
        yield part


@pytest.mark.parametrize("anyio_backend", [ASYNCIO, UVLOOP])
async def test_a_client_of_httpx_works_on_it(anyio_backend: Any) -> None:
    """The usual calls, one connection."""

    async def echo(peer: Peer) -> None:
        while True:
            request = await peer.request()
            await peer.send(answer(request, headers=b"X-A: 1\r\nx-a: 2\r\n"))

    async with FaultServer(echo) as server, _client(PooledTransport()) as client:
        got = await client.get(f"{server.base}/a%20b?c=d#fragment")
        assert got.content.startswith(b"GET /a%20b?c=d HTTP/1.1\r\nHost: 127.0.0.1")
        assert got.headers.get_list("x-a") == ["1", "2"]
        assert (got.http_version, got.reason_phrase) == ("HTTP/1.1", "OK")
        posted = await client.post(f"{server.base}/", json={"a": 1})
        assert posted.content.endswith(b'\r\n\r\n{"a":1}')
        streamed = await client.put(f"{server.base}/", content=_parts(b"one", b"", b"two"))
        assert streamed.content.endswith(b"\r\n\r\nonetwo")
        assert b"Transfer-Encoding: chunked" in streamed.content
        assert server.connections == 1


async def test_head_has_no_body_whatever_it_announces() -> None:
    """RFC 9110, 9.3.2; the connection is kept."""
    for head in (b"Content-Length: 10", b"Transfer-Encoding: chunked"):
        wire = Wire()
        task = wire.request(httpx.Request("HEAD", TARGET.url))
        await wire.feed(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n")
        assert (await task).content == b""
        assert wire.is_kept
        again = wire.post()
        await wire.feed(OK)
        assert (await again).body == b"[]"
        await wire.transport.aclose()


async def test_head_with_a_body_costs_the_connection() -> None:
    """The body would be taken for the next answer."""
    wire = Wire()
    task = wire.request(httpx.Request("HEAD", TARGET.url))
    await wire.feed(OK)
    assert (await task).content == b""
    assert not wire.is_kept
    await wire.transport.aclose()


async def test_a_request_that_asks_to_close_is_the_last() -> None:
    """Whatever the server says."""
    wire = Wire()
    task = wire.request(httpx.Request("GET", TARGET.url, headers={"Connection": "close"}))
    await wire.feed(OK)
    await task
    assert not wire.is_kept
    await wire.transport.aclose()


async def test_http_1_0_is_named() -> None:
    """`http_version`."""
    wire = Wire()
    task = wire.request(httpx.Request("GET", TARGET.url))
    await wire.feed(OK.replace(b"1.1", b"1.0"))
    assert (await task).http_version == "HTTP/1.0"


async def test_a_small_body_goes_out_with_the_head() -> None:
    """One segment instead of two."""
    wire = Wire()
    writes: list[bytes] = []
    wire.line.write = writes.append  # type: ignore[method-assign, assignment]  # a list will do
    task = wire.request(httpx.Request("POST", TARGET.url, content=b"{}"))
    await wire.feed(OK)
    await task
    assert len([data for data in writes if data]) == 1


@pytest.mark.parametrize("content_length", [2, 4])
async def test_a_body_of_another_length_than_announced_is_our_error(content_length: int) -> None:
    """The server would wait for the rest, or read a second request in it."""
    wire = Wire()
    headers = {"Content-Length": str(content_length)}
    task = wire.request(httpx.Request("POST", TARGET.url, headers=headers, content=_parts(b"abc")))
    with pytest.raises(httpx.LocalProtocolError):
        await task
    assert wire.transport.statistics().connections == 0
    await wire.transport.aclose()


async def test_a_body_that_fails_ends_the_request_with_its_own_error() -> None:
    """And the connection, on which half a request stands."""

    async def broken() -> AsyncIterator[bytes]:
        yield b"half"
        raise ZeroDivisionError

    wire = Wire()
    task = wire.request(httpx.Request("POST", TARGET.url, content=broken()))
    with pytest.raises(ZeroDivisionError):
        await task
    assert wire.transport.statistics().connections == 0
    await wire.transport.aclose()


async def test_a_body_that_is_no_async_stream_is_refused() -> None:
    """As httpx does."""
    wire = Wire()
    with pytest.raises(TypeError):
        await wire.request(httpx.Request("POST", TARGET.url, content=iter([b"x"])))
    await wire.transport.aclose()


@pytest.mark.parametrize("with_length", [True, False])
async def test_an_early_answer_stops_the_upload(with_length: bool) -> None:
    """413 and the like: the rest is of no interest, and the connection is not used again."""
    wire = Wire()
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 1
            yield b"x"
            await asyncio.sleep(0)
            if sent == 3:
                wire.connection.data_received(answer(b"", status="413 Too Large"))

    headers = {"Content-Length": "1000"} if with_length else {}
    response = await wire.request(httpx.Request("POST", TARGET.url, headers=headers, content=endless()))
    assert response.status_code == 413
    assert sent <= 4
    assert not wire.is_kept
    await wire.transport.aclose()


@pytest.mark.parametrize("end", ["resumed", "too slow", "lost", "refused"])
async def test_an_answer_that_comes_while_the_last_bytes_wait_counts(end: str) -> None:
    """They leave if they can; whatever becomes of them, the answer is there, and the connection clean or closed."""
    wire = Wire()
    timeout = {"write": 0.02} if end == "too slow" else {}
    task = wire.request(httpx.Request("POST", TARGET.url, content=b"{}", extensions={"timeout": timeout}))
    await asyncio.sleep(0)
    wire.connection.pause_writing()
    await asyncio.sleep(0)
    await wire.feed(OK if end != "refused" else answer(b"[]", status="413 Too Large"))
    await asyncio.sleep(0)
    assert end == "too slow" or task.done() == (end == "refused")
    if end == "resumed":
        wire.connection.resume_writing()
    elif end == "lost":
        await wire.lose()
    with anyio.fail_after(60):
        assert (await task).content == b"[]"
    assert wire.is_kept == (end == "resumed")
    await wire.transport.aclose()


@pytest.mark.parametrize("is_complete", [True, False])
async def test_an_early_answer_that_is_no_error_does_not_cut_the_upload(is_complete: bool) -> None:
    """An echo starts before it has read everything. Cut, it waited for the rest, and we for its end; where the answer
    was complete, the server had taken a body for good of which it got a part."""
    wire = Wire()
    early = answer(b"thanks") if is_complete else answer(b"thanks")[:-1]

    async def body() -> AsyncIterator[bytes]:
        yield b"one"
        wire.connection.data_received(early)
        await asyncio.sleep(0)
        yield b"two"

    task = wire.request(httpx.Request("POST", TARGET.url, content=body()))
    for _ in range(20):
        await asyncio.sleep(0)
    assert wire.line.written.endswith(b"\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n")
    if not is_complete:
        await wire.feed(b"s")
    with anyio.fail_after(60):
        assert (await task).content == b"thanks"
    assert wire.is_kept
    await wire.transport.aclose()


@pytest.mark.parametrize("status", ["200 OK", "500 No"])
@pytest.mark.parametrize("at", ["end", "last byte"])
async def test_a_connection_is_kept_only_if_all_of_the_body_was_written(status: str, at: str) -> None:
    """An answer's head that came before its end kept that back, and the next request was read as a part of it."""
    wire = Wire()
    raw = answer(status=status)

    async def body() -> AsyncIterator[bytes]:
        yield b"al"
        if at == "end":
            yield b"l"
        wire.connection.data_received(raw[:-1])
        if at == "last byte":
            yield b"l"

    headers = {"Content-Length": "3"} if at == "last byte" else {}
    task = wire.request(httpx.Request("POST", TARGET.url, content=body(), headers=headers))
    for _ in range(10):
        await asyncio.sleep(0)
    await wire.feed(raw[-1:])
    with anyio.fail_after(60):
        assert (await task).content == b"[]"
    is_whole = wire.line.written.endswith((b"1\r\nl\r\n0\r\n\r\n", b"\r\n\r\nall"))
    assert wire.is_kept == is_whole == (status == "200 OK")
    await wire.transport.aclose()


@pytest.mark.parametrize("surplus", [b"\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"no"])
async def test_what_comes_after_an_early_answer_costs_the_connection(surplus: bytes) -> None:
    """It was not asked for; while the upload goes on the connection is still ours."""
    wire = Wire()

    async def body() -> AsyncIterator[bytes]:
        yield b"one"
        wire.connection.data_received(OK)
        wire.connection.data_received(surplus)
        yield b"two"

    assert (await wire.request(httpx.Request("POST", TARGET.url, content=body()))).content == b"[]"
    assert not wire.is_kept
    await wire.transport.aclose()


async def test_an_upload_ends_when_its_server_has_answered_and_goes() -> None:
    """The answer counts, and nothing is written to what is closed."""
    wire = Wire()

    async def body() -> AsyncIterator[bytes]:
        yield b"one"
        await wire.feed(OK)
        await wire.lose()
        yield b"two"

    assert (await wire.request(httpx.Request("POST", TARGET.url, content=body()))).content == b"[]"
    assert b"two" not in wire.line.written


async def test_a_body_in_memory_leaves_while_its_echo_is_read() -> None:
    """A server that answers as it reads stops reading when nobody reads its answer; httpx's own transport waits here
    until the write timeout passes."""
    wire = Wire()
    task = wire.request(httpx.Request("POST", TARGET.url, content=b"{}"))
    await asyncio.sleep(0)
    wire.connection.pause_writing()
    await wire.feed(answer(b"ab")[:-1])
    wire.connection.resume_writing()
    await wire.feed(b"b")
    with anyio.fail_after(60):
        assert (await task).content == b"ab"
    assert wire.is_kept
    await wire.transport.aclose()


async def test_the_write_timeout_is_one_of_writing_also_after_an_early_answer() -> None:
    """An echo that reads on only when it is read itself."""
    wire = Wire()

    async def body() -> AsyncIterator[bytes]:
        yield b"one"
        wire.connection.data_received(OK[:-1])
        wire.connection.pause_writing()
        yield b"two"

    request = httpx.Request("POST", TARGET.url, content=body(), extensions={"timeout": {"write": 0.02}})
    with anyio.fail_after(60), pytest.raises(httpx.WriteTimeout):
        await wire.request(request)
    await wire.transport.aclose()


async def test_an_upload_waits_until_the_peer_reads() -> None:
    """Backpressure: what does not fit into the kernel is not gathered in memory."""
    wire = Wire()
    produced = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal produced
        for _ in range(5):
            produced += 1
            yield b"x"

    wire.line.write = lambda data: wire.connection.pause_writing()  # type: ignore[method-assign]
    task = wire.request(httpx.Request("POST", TARGET.url, content=body()))
    for _ in range(20):
        await asyncio.sleep(0)
    assert produced == 0
    for expected in range(1, 6):
        wire.connection.resume_writing()
        for _ in range(20):
            await asyncio.sleep(0)
        assert produced == expected
    wire.connection.resume_writing()
    await asyncio.sleep(0)
    wire.connection.resume_writing()
    await wire.feed(OK)
    assert (await task).status_code == 200
    await wire.transport.aclose()


async def _rest(wire: Wire, response: httpx.Response, total: int) -> int:
    """Read everything; more comes only when what is there has been read."""
    received = 0
    async for chunk in response.aiter_raw():
        received += len(chunk)
        if received < total:
            piece = b"x" * min(70_000, total - received)
            asyncio.get_running_loop().call_soon(wire.connection.data_received, piece)
    return received


async def test_a_download_waits_until_the_caller_reads() -> None:
    """Backpressure the other way: reading stops at 64 KiB, and starts again."""
    wire = Wire()
    request = httpx.Request("GET", TARGET.url)
    task = asyncio.get_running_loop().create_task(wire.transport.handle_async_request(request))
    await wire.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n", b"x" * 70_000)
    response = await task
    was_reading = wire.line.reads
    was_reading = wire.line.reads
    received = await _rest(wire, response, 200_000)
    assert received == 200_000
    assert (was_reading, wire.line.reads) == (False, True)
    assert wire.is_kept
    await wire.transport.aclose()


async def test_what_came_before_a_connection_broke_is_read_first() -> None:
    """Also where reading had been stopped for the caller's sake; then the error."""
    wire = Wire()
    request = httpx.Request("GET", TARGET.url)
    task = asyncio.get_running_loop().create_task(wire.transport.handle_async_request(request))
    await wire.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n", b"x" * 70_000)
    response = await task
    await wire.lose(ConnectionResetError())
    received = b""
    with pytest.raises(httpx.ReadError):
        async for chunk in response.aiter_raw():
            received += chunk
    assert len(received) == 70_000


async def test_the_first_error_counts() -> None:
    """What happens to the connection afterwards is its consequence."""
    wire = Wire()
    task = wire.request(httpx.Request("GET", TARGET.url))
    await asyncio.sleep(0)
    rider = wire.connection.rider
    assert rider is not None
    rider.abort("first")
    rider.abort("second")
    with pytest.raises(httpx.ReadError, match="first"):
        await task
    await wire.transport.aclose()


@pytest.mark.parametrize("is_complete", [True, False])
async def test_a_response_that_is_closed_early_costs_the_connection_unless_it_is_complete(is_complete: bool) -> None:
    """What is still to come would meet the next request."""
    wire = Wire()
    task = asyncio.get_running_loop().create_task(
        wire.transport.handle_async_request(httpx.Request("GET", TARGET.url))
    )
    await wire.feed(answer(b"x" * 10) if is_complete else answer(b"x" * 10)[:-5])
    response = await task
    await response.aclose()
    assert wire.is_kept == is_complete
    await wire.transport.aclose()


async def test_breaking_off_in_the_middle_of_a_body_costs_the_connection() -> None:
    """`break` in `async for`."""
    wire = Wire()
    task = asyncio.get_running_loop().create_task(
        wire.transport.handle_async_request(httpx.Request("GET", TARGET.url))
    )
    await wire.feed(answer(b"x" * 10)[:-5])
    response = await task
    chunks: Any = response.aiter_raw()
    assert await anext(chunks) == b"x" * 5
    await chunks.aclose()
    await response.aclose()
    assert not wire.is_kept
    await wire.transport.aclose()


@pytest.mark.parametrize(
    ("timeout", "fault", "expected", "phase"),
    [
        ("connect", "black hole", httpx.ConnectTimeout, Phase.CONNECT),
        ("connect", "tls handshake stall", httpx.ConnectTimeout, Phase.TLS),
        ("read", "no response", httpx.ReadTimeout, Phase.WAIT),
        ("read", "1 GiB content-length", httpx.ReadTimeout, Phase.READ),
        ("write", "zero window", httpx.WriteTimeout, Phase.WRITE),
    ],
)
async def test_each_timeout_of_httpx_covers_its_phase(
    timeout: str, fault: str, expected: type[Exception], phase: Phase
) -> None:
    """And the exception carries the request and how far it had come."""
    # Long enough for the phase before it on a busy machine.
    extensions = {"timeout": {"connect": None, "read": None, "write": None, "pool": None, timeout: 0.3}}
    content = b"x" * 20_000_000 if fault == "zero window" else b"{}"
    behaviour = BEHAVIOURS.get(fault, well_behaved)
    async with black_hole() as hole, FaultServer(behaviour) as server, PooledTransport() as transport:
        port = hole if fault == "black hole" else server.port
        url = f"{'https' if fault.startswith('tls') else 'http'}://127.0.0.1:{port}/"
        request = httpx.Request("POST", url, content=content, extensions=extensions)
        with anyio.fail_after(60), pytest.raises(expected) as caught:
            response = await transport.handle_async_request(request)
            await response.aread()
        facts = vars(caught.value)
        assert facts["phase"] is phase
        assert facts["sent"] == (phase not in (Phase.CONNECT, Phase.TLS))
        assert caught.value.request is request  # type: ignore[attr-defined]


async def test_waiting_for_a_connection_has_a_timeout_of_its_own() -> None:
    """PoolTimeout."""
    async with FaultServer(BEHAVIOURS["no response"]) as server, PooledTransport(max_connections=1) as transport:
        async with (
            _client(transport, timeout=httpx.Timeout(5, pool=0.02)) as client,
            anyio.create_task_group() as group,
        ):
            group.start_soon(client.get, server.base)
            while not server.open:  # noqa: ASYNC110 - nothing tells that it is so
                await asyncio.sleep(0)
            with pytest.raises(httpx.PoolTimeout) as caught:
                await client.get(server.base)
            assert vars(caught.value)["sent"] is False
            group.cancel_scope.cancel()


async def test_a_refused_connection_is_a_connect_error() -> None:
    """Nothing was sent."""
    with refused_port() as port:
        async with _client(PooledTransport()) as client:
            with pytest.raises(httpx.ConnectError) as caught:
                await client.get(f"http://127.0.0.1:{port}/")
            assert (vars(caught.value)["sent"], vars(caught.value)["phase"]) == (False, Phase.CONNECT)


async def test_a_connection_that_breaks_while_we_write_is_a_write_error() -> None:
    """Before anything was read."""
    wire = Wire()

    async def body() -> AsyncIterator[bytes]:
        yield b"x"
        wire.connection.pause_writing()
        wire.line.is_aborted = True
        wire.connection.connection_lost(BrokenPipeError())
        yield b"y"

    with pytest.raises(httpx.WriteError):
        await wire.request(httpx.Request("POST", TARGET.url, content=body()))


async def test_a_request_on_a_closed_transport_is_a_connect_error() -> None:
    """In httpx's words, too."""
    transport = PooledTransport()
    await transport.aclose()
    with pytest.raises(httpx.ConnectError, match="closed"):
        await transport.handle_async_request(httpx.Request("GET", "http://127.0.0.1:1/"))


async def test_a_client_certificate_that_is_missed_after_the_handshake_is_named() -> None:
    """TLS 1.3 tells at the first read only; to a client of httpx it was a connection that was lost."""
    wire = Wire()
    task = wire.request(httpx.Request("GET", TARGET.url))
    await asyncio.sleep(0)
    await wire.lose(ssl.SSLError(1, "tlsv13 alert certificate required"))
    with pytest.raises(httpx.ConnectError, match="certificate required") as caught:
        await task
    assert vars(caught.value)["sent"] is True


async def test_aborting_everything_ends_streams_too() -> None:
    """`aclose` while a body is being read."""
    wire = Wire()
    task = wire.request(httpx.Request("GET", TARGET.url))
    await wire.feed(answer(b"x" * 10)[:-5])
    await asyncio.sleep(0)
    await wire.transport.aclose()
    with pytest.raises(httpx.ReadError, match="closed"):
        await task


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/", "/relative"])
async def test_a_url_that_is_not_http_is_refused(url: str) -> None:
    """UnsupportedProtocol, as everywhere in httpx."""
    async with PooledTransport() as transport:
        with pytest.raises(httpx.UnsupportedProtocol):
            await transport.handle_async_request(httpx.Request("GET", url))


@pytest.mark.parametrize(
    "request_",
    [
        httpx.Request("GET", "http://127.0.0.1/", headers={"X": "a\r\nY: b"}),
        httpx.Request("GET", "http://127.0.0.1/", headers={"X Y": "a"}),
        httpx.Request("GET", "http://127.0.0.1/", headers={"X": "a\0"}),
        httpx.Request("G T", "http://127.0.0.1/"),
        httpx.Request("CONNECT", "http://127.0.0.1/"),
        httpx.Request("GET", "http://127.0.0.1/", extensions={"target": b"/ HTTP/1.1\r\nX: y"}),
        httpx.Request("GET", "http://127.0.0.1/", headers=[("Host", "a"), ("Host", "b")]),
        httpx.Request("PUT", "http://127.0.0.1/", content=b"x", headers={"Transfer-Encoding": "gzip"}),
        httpx.Request("PUT", "http://127.0.0.1/", headers={"Content-Length": "x"}),
        httpx.Request("PUT", "http://127.0.0.1/", headers={"Content-Length": "+1"}),
        httpx.Request("PUT", "http://127.0.0.1/", headers=[("Content-Length", "1"), ("Content-Length", "2")]),
    ],
    ids=lambda request: str(request.headers.raw[-1]),
)
async def test_a_head_that_would_break_the_request_is_refused(request_: httpx.Request) -> None:
    """our fault tables, S3, for the other interface: before any I/O."""
    async with PooledTransport() as transport:
        with pytest.raises(httpx.LocalProtocolError):
            await transport.handle_async_request(request_)


@pytest.mark.parametrize(
    ("headers", "sent"),
    [
        (
            {"Transfer-Encoding": "Chunked", "Content-Length": "1"},
            b"Transfer-Encoding: Chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
        ),
        ({"Content-Length": "1, 1"}, b"Content-Length: 1\r\n\r\nx"),
    ],
)
async def test_the_length_of_a_body_is_told_once(headers: dict[str, str], sent: bytes) -> None:
    """RFC 9112, 6.2 and 6.3: one server of two would read the other, and the rest as the next request."""
    wire = Wire()
    task = wire.request(httpx.Request("PUT", TARGET.url, content=b"x", headers=headers))
    await wire.feed(OK)
    await task
    assert wire.line.written.endswith(b"Host: 127.0.0.1:1\r\n" + sent)
    await wire.transport.aclose()


async def test_the_space_around_a_header_is_no_part_of_it() -> None:
    """RFC 9112, 5.1. The parser leaves what follows the value."""
    wire = Wire()
    task = wire.request(httpx.Request("GET", TARGET.url))
    await wire.feed(answer(headers=b"Location: \t /there \t\r\nX: \r\n"))
    headers = (await task).headers
    assert (headers["location"], headers["x"]) == ("/there", "")
    await wire.transport.aclose()


async def test_switched_protocols_are_told_as_such() -> None:
    """101: what follows is no HTTP, and nobody here reads it."""
    wire = Wire()
    task = wire.request(httpx.Request("GET", TARGET.url, headers={"Upgrade": "websocket", "Connection": "upgrade"}))
    await wire.feed(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n\0")
    with pytest.raises(httpx.RemoteProtocolError, match="101"):
        await task
    await wire.transport.aclose()


@pytest.mark.parametrize("url", ["http://a..b/", f"http://{'a' * 64}.localhost/", "https://.localhost/"])
async def test_a_host_that_cannot_be_is_a_connect_error(url: str) -> None:
    """IDNA and TLS find fault with such a name each in its own words, none of which is an OSError."""
    async with PooledTransport() as transport:
        with pytest.raises(httpx.ConnectError) as caught:
            await transport.handle_async_request(httpx.Request("GET", url))
        assert caught.value.request.url == url


async def test_port_0_is_not_the_usual_port() -> None:
    """Nothing can listen there."""
    async with PooledTransport() as transport:
        with pytest.raises(httpx.ConnectError):
            await transport.handle_async_request(httpx.Request("GET", "http://127.0.0.1:0/"))
        assert list(transport.statistics().hosts) == ["http://127.0.0.1:0"]


async def test_statistics_name_a_host_as_a_url_does() -> None:
    """IPv6 in brackets."""
    wire = Wire()
    wire.pool.host(("https", "::1", 443))
    assert "https://[::1]:443" in wire.transport.statistics().hosts
    await wire.transport.aclose()


async def test_the_target_extension_is_honoured() -> None:
    """For what a URL cannot say."""
    wire = Wire()
    task = wire.request(httpx.Request("OPTIONS", TARGET.url, extensions={"target": b"*"}))
    await wire.feed(OK)
    await task
    assert wire.line.written.startswith(b"OPTIONS * HTTP/1.1\r\n")
    await wire.transport.aclose()


async def test_the_network_stream_tells_about_the_connection() -> None:
    """Addresses, the socket, TLS; nothing else."""
    async with FaultServer(well_behaved) as server, _client(PooledTransport()) as client:
        response = await client.get(server.base)
        stream = response.extensions["network_stream"]
        assert stream.get_extra_info("server_addr") == ("127.0.0.1", server.port)
        assert stream.get_extra_info("client_addr")[0] == "127.0.0.1"
        assert stream.get_extra_info("ssl_object") is None
        assert stream.get_extra_info("is_readable") is None
        await stream.aclose()
        await asyncio.sleep(0)
        assert (await client.get(server.base)).extensions["network_stream"] is not stream
    assert server.connections == 2


@pytest.mark.parametrize("anyio_backend", [ASYNCIO, UVLOOP])
async def test_the_network_stream_tells_also_of_a_connection_that_the_server_closes(anyio_backend: Any) -> None:
    """Whoever checks the address that was connected to got None from such a server."""
    async with FaultServer(well_behaved) as server, _client(PooledTransport()) as client:
        async with client.stream("GET", server.base, headers={"Connection": "close"}) as response:
            stream = response.extensions["network_stream"]
            assert stream.get_extra_info("server_addr") == ("127.0.0.1", server.port)
            assert stream.get_extra_info("client_addr")[0] == "127.0.0.1"


async def test_the_network_stream_of_a_connection_that_is_gone_is_empty() -> None:
    """And may still be asked and closed."""
    wire = Wire()
    await wire.lose()
    gone = NetworkStream(wire.connection.transport)
    assert gone.get_extra_info("socket") is None
    await gone.aclose()


async def test_the_trace_extension_tells_what_happens() -> None:
    """As httpx users know it, in httpcore's words."""
    events: list[str] = []
    told: dict[str, Any] = {}

    async def trace(event: str, info: dict[str, Any]) -> None:
        events.append(event)
        told.update(info)

    wire = Wire()
    task = wire.request(httpx.Request("GET", TARGET.url, extensions={"trace": trace}))
    await wire.feed(OK)
    await task
    assert events == [
        "pool.acquire.started",
        "http11.send_request_headers.started",
        "http11.receive_response_headers.complete",
    ]
    version, status, reason, headers = told["return_value"]
    assert (version, status, reason, headers[-1]) == (b"HTTP/1.1", 200, b"OK", (b"Content-Length", b"2"))
    await wire.transport.aclose()


async def test_the_transports_own_client_does_not_close_it() -> None:
    """It is lent, with `identity` asked for and no redirects followed."""

    async def redirects(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(answer(status="307 Temporary Redirect", headers=b"Location: /elsewhere\r\n"))

    async with FaultServer(redirects) as server, PooledTransport() as transport:
        client = transport.client
        assert client is transport.client
        response = await client.get(server.base)
        assert response.status_code == 307
        assert b"Accept-Encoding: identity\r\n" in server.requests[0]
        await client.aclose()
        assert (await transport.handle_async_request(httpx.Request("GET", server.base))).status_code == 307
