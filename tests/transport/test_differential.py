"""Random answers: valid ones mean the same as to httpx's own transport; random bytes never mean trouble."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import httpcore
import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connector_async.errors import ConnectorError
from connector_async.transport import Answer
from tests.transport.wire import TARGET, Wire

_TOKENS = st.text("abcdefghijklmnopqrstuvwxyzABCDEFXYZ0123456789-_", min_size=1, max_size=12)
_VALUES = st.text("abcXYZ0123456789 ,;=\"/\t'", max_size=20).map(str.strip)
_RESERVED = {"content-length", "transfer-encoding", "connection", "content-encoding", "location", "upgrade"}
_HEADERS = st.lists(st.tuples(_TOKENS.filter(lambda name: name.lower() not in _RESERVED), _VALUES), max_size=5)
_BODIES = st.binary(max_size=300)
_INTERIM = st.sampled_from([b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"])


def _lines(headers: list[tuple[str, str]]) -> bytes:
    return "".join(f"{name}: {value}\r\n" for name, value in headers).encode()


@st.composite
def _chunked(draw: st.DrawFn, body: bytes) -> bytes:
    cuts = sorted(draw(st.lists(st.integers(0, len(body)), max_size=5)))
    pieces = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True) if a < b]
    extension = draw(st.sampled_from([b"", b";a", b";name=value"]))
    chunks = b"".join(b"%x%s\r\n%s\r\n" % (len(piece), extension, piece) for piece in pieces)
    return chunks + b"0\r\n" + draw(st.sampled_from([b"", b"X-Trailer: 1\r\n"])) + b"\r\n"


@st.composite
def valid_answers(draw: st.DrawFn) -> bytes:
    """A complete answer that follows the rules; when it has no length it ends with the stream."""
    status = draw(st.sampled_from([200, 201, 202, 204, 304, 400, 401, 404, 429, 500, 503]))
    head = b"HTTP/1.1 %d %s\r\n" % (status, draw(st.sampled_from([b"OK", b"", b"Not so good"])))
    head += _lines(draw(_HEADERS)) + draw(
        st.sampled_from([b"", b"Connection: close\r\n", b"connection: keep-alive\r\n"])
    )
    body = draw(_BODIES)
    if status in (204, 304):
        return draw(_INTERIM) + head + b"\r\n"
    framing = draw(st.sampled_from(["length", "chunks", "end"]))
    if framing == "length":
        return draw(_INTERIM) + head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    if framing == "chunks":
        return draw(_INTERIM) + head + b"Transfer-Encoding: chunked\r\n\r\n" + draw(_chunked(body))
    return draw(_INTERIM) + head + b"\r\n" + body


@st.composite
def cut(draw: st.DrawFn, answers: st.SearchStrategy[bytes]) -> list[bytes]:
    """The bytes in pieces."""
    raw = draw(answers)
    cuts = sorted(draw(st.lists(st.integers(0, len(raw)), max_size=6)))
    return [raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True) if a < b]


Result = tuple[int, list[tuple[bytes, bytes]], bytes] | str


async def _by_post(pieces: list[bytes]) -> Result:
    wire = Wire()
    task = wire.post()
    await wire.feed(*pieces)
    await wire.end()
    try:
        answer: Answer = await task
    except ConnectorError as error:
        return type(error).__name__
    finally:
        await wire.transport.aclose()
    return answer.status, list(answer.headers), answer.body


async def _by_handle(pieces: list[bytes]) -> Result:
    wire = Wire()
    task = wire.request(httpx.Request("POST", TARGET.url, content=b"{}"))
    await wire.feed(*pieces)
    await wire.end()
    try:
        return _shown(await task)
    except httpx.TransportError as error:
        return f"{type(error).__name__} of {error.request.url}"  # the request is attached
    finally:
        await wire.transport.aclose()


async def _by_httpx(pieces: list[bytes]) -> Result:
    transport: Any = httpx.AsyncHTTPTransport(verify=False, trust_env=False)
    transport._pool = httpcore.AsyncConnectionPool(network_backend=httpcore.AsyncMockBackend(list(pieces)))
    async with transport:
        try:
            response = await transport.handle_async_request(httpx.Request("POST", TARGET.url, content=b"{}"))
            await response.aread()
        except httpx.TransportError as error:
            return type(error).__name__
        return _shown(response)


def _shown(response: httpx.Response) -> Result:
    headers = [(name.lower(), value) for name, value in response.headers.raw]
    return response.status_code, headers, b"".join([response.content])


@pytest.mark.no_cover
@settings(max_examples=300)
@given(cut(valid_answers()))
def test_a_valid_answer_means_the_same_as_to_httpx(pieces: list[bytes]) -> None:
    """Both interfaces of the pooled transport against httpx's own transport."""

    async def compare() -> None:
        with anyio.fail_after(60):
            expected = await _by_httpx(pieces)
            assert not isinstance(expected, str)
            assert await _by_handle(pieces) == expected
            assert await _by_post(pieces) == expected

    asyncio.run(compare())


@st.composite
def _damaged(draw: st.DrawFn) -> bytes:
    raw = bytearray(draw(valid_answers()))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(raw)))
        raw[place : place + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(raw)


_ANY = st.one_of(
    st.binary(max_size=200), _damaged(), st.binary(max_size=60).map(lambda tail: b"HTTP/1.1 200 OK\r\n" + tail)
)


@pytest.mark.no_cover
@settings(max_examples=400)
@given(cut(_ANY))
def test_random_bytes_give_an_answer_or_a_mapped_error(pieces: list[bytes]) -> None:
    """Never anything else, and never a hang: `Wire.end` is the last thing that happens to the connection."""

    async def run() -> None:
        with anyio.fail_after(60):
            await _by_post(pieces)
            await _by_handle(pieces)

    asyncio.run(run())


@pytest.mark.soak
@settings(max_examples=50_000)
@given(cut(_ANY))
def test_random_bytes_give_an_answer_or_a_mapped_error_for_long(pieces: list[bytes]) -> None:
    """The same for a few minutes."""
    short: Any = test_random_bytes_give_an_answer_or_a_mapped_error
    short.hypothesis.inner_test(pieces)
