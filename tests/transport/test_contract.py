"""What every transport must do, ours and the foreign ones: framing, resets at every offset, floods, cancellation.

The shortcomings of the foreign ones stand in `kinds.py`, as data.
"""

from __future__ import annotations

import asyncio
import contextlib
import tracemalloc

import anyio
import httpx
import pytest

from connector_async.errors import ConnectorError, RemoteProtocolError
from connector_async.transport import Answer, Headers, HttpxTransport, Target, Transport
from tests.faults import BEHAVIOURS, FaultServer, Peer, answer, well_behaved
from tests.faults.catalogue import OK
from tests.transport.kinds import EVERY_KIND, OWN_KINDS, Kind, outcome_of
from tests.transport.test_connection import ANSWERS

pytestmark = pytest.mark.anyio

_HEADERS = Headers([("X-Test", "1")])


async def _post(transport: Transport, target: Target, body: bytes = b"{}", seconds: float = 120.0) -> Answer:
    return await transport.post(target, _HEADERS, body, anyio.current_time() + seconds)


@pytest.mark.parametrize("kind", EVERY_KIND)
async def test_every_valid_answer_is_read_and_the_connection_kept_or_closed(kind: Kind) -> None:
    """RFC 9112: the framings of `test_connection.py`, over sockets; three of each in a row."""
    for name, (raw, status, body, is_kept) in ANSWERS.items():

        async def serve(peer: Peer, raw: bytes = raw, is_kept: bool = is_kept) -> None:
            while True:
                await peer.request()
                await peer.send(raw)
                if not is_kept:
                    return

        async with FaultServer(serve) as server, kind() as transport:
            for _ in range(3):
                result = await _post(transport, Target(server.base, "/"))
                assert (result.status, result.body) == (status, body), name
            known = kind.shortcomings.get(f"keeps after {name}")
            assert server.connections == (int(known) if known else 1 if is_kept else 3), name


@pytest.mark.parametrize("kind", EVERY_KIND)
async def test_head_gets_no_body(kind: Kind) -> None:
    """Through the transport's client; twice on one connection."""

    async def serve(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")

    async with FaultServer(serve) as server, kind() as transport:
        for _ in range(2):
            assert (await transport.client.head(server.base)).content == b""
        assert server.connections == 1


@pytest.mark.parametrize("kind", EVERY_KIND)
async def test_the_request_arrives_as_it_was_given(kind: Kind) -> None:
    """One Host, one length, `identity`, the headers and the body."""
    async with FaultServer(well_behaved) as server, kind() as transport:
        await _post(transport, Target(server.base, "/a/b?c=d"), b'{"a":"\xc3\xa4"}')
        head, _, body = server.requests[0].partition(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        assert lines[0] == b"post /a/b?c=d http/1.1"
        for line in (
            b"host: 127.0.0.1:%d" % server.port,
            b"content-length: 10",
            b"x-test: 1",
            b"accept-encoding: identity",
        ):
            assert lines.count(line) == 1, line
        assert body == b'{"a":"\xc3\xa4"}'


@pytest.mark.requirement("C1")
@pytest.mark.parametrize("kind", OWN_KINDS)
async def test_a_reset_after_every_byte_of_the_answer_has_an_unknown_outcome(kind: Kind) -> None:
    """our fault tables, C1: 0 wrong results. Every offset of an answer of about 150 bytes."""
    raw = answer(
        b'{"code":"OK","reqId":"1"}', headers=b"Content-Type: application/json\r\nServer: ws\r\nDate: Tue, 24 Nov\r\n"
    )

    async def serve(peer: Peer) -> None:
        request = await peer.request()
        await peer.send(raw[: int(request.rpartition(b"\r\n")[2])])
        await asyncio.sleep(0.01)
        peer.reset()

    async with FaultServer(serve) as server, kind() as transport:
        target = Target(server.base, "/")
        outcomes: dict[int, str] = {}

        async def one(offset: int) -> None:
            try:
                outcomes[offset] = outcome_of(await _post(transport, target, b"%d" % offset))
            except ConnectorError as error:
                outcomes[offset] = outcome_of(error)

        for start in range(0, len(raw) + 1, 50):
            async with anyio.create_task_group() as group:
                for offset in range(start, min(start + 50, len(raw) + 1)):
                    group.start_soon(one, offset)
        whole = outcomes.pop(len(raw))
        assert whole.startswith('ok {"code":"OK"')
        assert set(outcomes.values()) == {"unknown"}
        assert len(outcomes) == len(raw)


@pytest.mark.parametrize(
    "fault",
    [
        "gzip bomb",
        "1 GiB content-length",
        "endless chunks",
        "endless chunk extension",
        "endless trailer",
        "10,000 interim answers",
    ],
)
@pytest.mark.parametrize("kind", OWN_KINDS[:2])
async def test_a_flood_costs_little_memory(kind: Kind, fault: str) -> None:
    """our fault tables, C19: stop at the cap (1 MiB) and grow by twice that at most, plus the server's own part."""
    async with FaultServer(BEHAVIOURS[fault]) as server, kind() as transport:
        target = Target(server.base, "/")
        tracemalloc.start()
        try:
            for _ in range(5):
                with pytest.raises(RemoteProtocolError):
                    await _post(transport, target)
                await anyio.sleep(0.01)  # the server closes after it; that must have been noticed
                tracemalloc.reset_peak()
                before, _ = tracemalloc.get_traced_memory()
                with pytest.raises(RemoteProtocolError):
                    await _post(transport, target)
                _, peak = tracemalloc.get_traced_memory()
                # Twice the cap, twice more for what the server has queued, and the read buffers of asyncio.
                assert peak - before < 4 * 2**20 + 2**19
                await anyio.sleep(0.01)
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize("kind", EVERY_KIND)
async def test_answers_go_to_those_who_asked(kind: Kind) -> None:
    """Many at once, answered in the order of a coin."""

    async def serve(peer: Peer) -> None:
        while True:
            body = (await peer.request()).partition(b"\r\n\r\n")[2]
            await asyncio.sleep(int(body) % 3 / 1000)
            await peer.send(answer(body))

    async with FaultServer(serve) as server, kind() as transport:
        target = Target(server.base, "/")
        results: dict[int, bytes] = {}

        async def one(number: int) -> None:
            results[number] = (await _post(transport, target, b"%d" % number)).body

        with anyio.fail_after(60):
            async with anyio.create_task_group() as group:
                for number in range(100):
                    group.start_soon(one, number)
        assert results == {number: b"%d" % number for number in range(100)}


@pytest.mark.parametrize("kind", EVERY_KIND)
async def test_a_cancelled_exchange_does_not_meet_the_next_one(kind: Kind) -> None:
    """Its answer comes late, on a connection that nobody uses any more."""

    async def serve(peer: Peer) -> None:
        while True:
            body = (await peer.request()).partition(b"\r\n\r\n")[2]
            await asyncio.sleep(0.02 if body == b"slow" else 0)
            await peer.send(answer(body))

    async with FaultServer(serve) as server, kind() as transport:
        target = Target(server.base, "/")
        for _ in range(5):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.01):
                    await _post(transport, target, b"slow")
            assert (await _post(transport, target, b"fast")).body == b"fast"


@pytest.mark.parametrize("kind", EVERY_KIND)
async def test_abort_and_close_end_what_is_under_way(kind: Kind) -> None:
    """At once, as an error of ours."""

    async def hang(peer: Peer) -> None:
        await peer.request()
        arrived.release()
        await asyncio.sleep(3_600)

    arrived = asyncio.Semaphore(0)
    async with FaultServer(hang) as server, kind() as transport:
        target, errors = Target(server.base, "/"), []

        async def one() -> None:
            try:
                await _post(transport, target)
            except ConnectorError as error:
                errors.append(outcome_of(error))

        with anyio.fail_after(60):
            for end in ("abort", "aclose"):
                async with anyio.create_task_group() as group:
                    group.start_soon(one)
                    await arrived.acquire()
                    if end == "abort":
                        transport.abort(target)
                    else:
                        await transport.aclose()
        assert errors == ["unknown", "unknown"]


async def test_httpx_clients_of_the_adapter_share_its_connections() -> None:
    """Look-ups and messages on the same pool."""
    inner = httpx.AsyncHTTPTransport(trust_env=False, verify=False)
    async with FaultServer(well_behaved) as server, HttpxTransport(inner, close_inner=True) as transport:
        await _post(transport, Target(server.base, "/"))
        assert (await transport.client.get(server.base)).status_code == 200
        assert server.connections == 1
        assert OK.endswith(b"[]")
