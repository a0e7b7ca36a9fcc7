"""`HttpxTransport`: httpx's transports and clients behind our seam, on asyncio and trio."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any

import anyio
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
from connector_async.transport import Answer, Headers, HttpxTransport, PooledTransport, Target
from tests.backends import ASYNCIO, ASYNCIO_AND_TRIO
from tests.faults import FaultServer, Peer, answer, well_behaved
from tests.guards import CANARY, assert_canary_absent

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module", params=ASYNCIO_AND_TRIO)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """Both loops, but where a test says otherwise."""
    return request.param


_TARGET = Target("http://127.0.0.1:1", "/path")
_HEADERS = Headers([("Authorization", f"Bearer {CANARY}-token"), ("Content-Type", "application/json")])

Handler = Callable[[httpx.Request], Awaitable[httpx.Response]]


class Scripted(httpx.AsyncBaseTransport):
    """A transport that does what a function says."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self.requests: list[httpx.Request] = []
        self.is_closed = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return await self._handler(request)

    async def aclose(self) -> None:
        self.is_closed = True


class Body(httpx.AsyncByteStream):
    """A body that ends in an error, or never, or remembers that it was closed."""

    def __init__(self, *parts: bytes | Exception, then_waits: bool = False) -> None:
        self._parts = list(parts)
        self._then_waits = then_waits
        self.is_closed = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        await anyio.lowlevel.checkpoint()
        if not self._parts:
            if self._then_waits:
                await anyio.sleep_forever()
            raise StopAsyncIteration
        part, *self._parts = self._parts
        if isinstance(part, Exception):
            raise part
        return part

    async def aclose(self) -> None:
        self.is_closed = True


def _answers(response: Callable[[], httpx.Response]) -> Scripted:
    async def handler(request: httpx.Request) -> httpx.Response:
        await anyio.lowlevel.checkpoint()
        return response()

    return Scripted(handler)


def _raises(error: BaseException) -> Scripted:
    async def handler(request: httpx.Request) -> httpx.Response:
        await anyio.lowlevel.checkpoint()
        raise error

    return Scripted(handler)


async def _sleep_forever(request: httpx.Request) -> httpx.Response:
    await anyio.sleep_forever()
    raise AssertionError


async def _post(transport: HttpxTransport, target: Target = _TARGET, seconds: float = 120.0) -> Answer:
    return await transport.post(target, _HEADERS, b"{}", anyio.current_time() + seconds)


async def test_a_post_and_its_answer_pass_through(anyio_backend: Any) -> None:
    """Headers as given and `identity` asked for; no timeouts but ours."""
    inner = _answers(lambda: httpx.Response(201, headers=[("X-A", "1"), ("x-a", "2")], stream=Body(b"he", b"llo")))
    async with HttpxTransport(inner) as transport:
        result = await _post(transport)
    assert (result.status, result.body) == (201, b"hello")
    assert result.headers == ((b"x-a", b"1"), (b"x-a", b"2"))
    (request,) = inner.requests
    assert (request.method, str(request.url), request.content) == ("POST", _TARGET.url, b"{}")
    assert request.headers["accept-encoding"] == "identity"
    assert request.headers["host"] == "127.0.0.1:1"
    assert set(request.extensions["timeout"].values()) == {None}
    assert not inner.is_closed


async def test_a_client_keeps_what_hangs_on_it_but_follows_no_redirects(anyio_backend: Any) -> None:
    """Hooks, default headers, mounts; never closed by us."""
    seen: list[str] = []

    async def hook(request: httpx.Request) -> None:
        seen.append(request.headers["x-company"])

    def handler(request: httpx.Request) -> httpx.Response:
        return httpx.Response(302, headers={"Location": "http://127.0.0.1/other"})

    client = httpx.AsyncClient(
        transport=httpx.MockTransport(handler),
        event_hooks={"request": [hook]},
        follow_redirects=True,
        trust_env=False,
    )
    async with client, HttpxTransport(client) as transport:
        with pytest.raises(RedirectRefused):
            await _post_with(transport, Headers([("X-Company", "yes")]))
        assert seen == ["yes"]
        assert not client.is_closed
        assert repr(transport) == "HttpxTransport(AsyncClient)"


async def _post_with(transport: HttpxTransport, headers: Headers) -> Answer:
    return await transport.post(_TARGET, headers, b"", anyio.current_time() + 5)


async def test_what_was_handed_over_is_closed_with_it(anyio_backend: Any) -> None:
    """`close_inner`; what comes afterwards is told so, and it may be entered again."""
    inner = _answers(lambda: httpx.Response(200, stream=Body()))
    transport = HttpxTransport(inner, close_inner=True)
    async with transport:
        await transport.aclose()
        await transport.aclose()
        with pytest.raises(TransportError) as caught:
            await _post(transport)
        assert (caught.value.sent, caught.value.retryable) == (False, False)
    assert inner.is_closed
    async with transport:
        assert (await _post(transport)).status == 200


async def test_it_must_be_entered(anyio_backend: Any) -> None:
    """Its task group needs an owner."""
    transport = HttpxTransport(_answers(lambda: httpx.Response(200)))
    with pytest.raises(RuntimeError, match="async with"):
        await _post(transport)
    await transport.aclose()


async def test_an_error_of_the_body_leaves_as_itself(anyio_backend: Any) -> None:
    """Not inside a group of one."""
    with pytest.raises(ZeroDivisionError):
        async with HttpxTransport(_raises(AssertionError())):
            raise ZeroDivisionError


@pytest.mark.parametrize("where", ["head", "body"])
async def test_the_deadline_is_ours_and_total(anyio_backend: Any, where: str) -> None:
    """our fault tables, rule 2: whatever the transport does or does not do about time."""
    body = Body(b"x", then_waits=True)
    inner = Scripted(_sleep_forever) if where == "head" else _answers(lambda: httpx.Response(200, stream=body))
    async with HttpxTransport(inner) as transport:
        with anyio.fail_after(60), pytest.raises(TransportError) as caught:
            await _post(transport, seconds=0.3)
        error = caught.value
        assert (error.timed_out, error.sent, error.answered) == (True, True, where == "body")
        await anyio.wait_all_tasks_blocked()
        assert body.is_closed == (where == "body")
        with pytest.raises(TransportError) as late:
            await transport.post(_TARGET, _HEADERS, b"", anyio.current_time())
        assert not late.value.sent


async def test_a_transport_that_ignores_cancellation_does_not_hold_the_caller(anyio_backend: Any) -> None:
    """The caller goes at the deadline; the exchange ends when it ends."""
    release = anyio.Event()

    async def stubborn(request: httpx.Request) -> httpx.Response:
        with anyio.CancelScope(shield=True):
            await release.wait()
        return httpx.Response(200, stream=Body())

    async with HttpxTransport(Scripted(stubborn)) as transport:
        with anyio.fail_after(60), pytest.raises(TransportError):
            await _post(transport, seconds=0.03)
        release.set()


async def test_a_client_adds_its_default_headers_and_never_says_who_we_are(anyio_backend: Any) -> None:
    """A company's client carries what its gateways ask for."""
    scripted = _answers(lambda: httpx.Response(200, content=b"{}"))
    headers = {"X-Corp": "1", "Content-Type": "text/plain", "Authorization": "Bearer of-the-company"}
    auth = httpx.BasicAuth("the", "company")
    async with (
        httpx.AsyncClient(transport=scripted, headers=headers, auth=auth) as client,
        HttpxTransport(client) as transport,
    ):
        await _post(transport)
        await transport.client.get("http://127.0.0.1:1/look-up")
    sent, looked_up = scripted.requests
    assert sent.headers["x-corp"] == looked_up.headers["x-corp"] == "1"
    assert sent.headers["content-type"] == "application/json"
    assert sent.headers["authorization"] == f"Bearer {CANARY}-token"
    assert "authorization" not in looked_up.headers


async def test_with_a_client_that_its_owner_has_closed_nothing_is_sent(anyio_backend: Any) -> None:
    """Certainly not: what it would have raised itself says nothing of that, and called for the outcome 'unknown'."""
    client = httpx.AsyncClient(transport=_answers(lambda: httpx.Response(200)))
    async with HttpxTransport(client) as transport:
        await client.aclose()
        with pytest.raises(TransportError, match="passed as transport is closed") as caught:
            await _post(transport)
        assert (caught.value.sent, caught.value.retryable) == (False, False)
        with pytest.raises(TransportError, match="passed as transport is closed"):
            await transport.client.get("http://127.0.0.1:1/look-up")


async def test_a_cancellation_leaves_no_half_read_generator_behind(anyio_backend: Any) -> None:
    """trio complains of those when the garbage collector comes; httpx's own body is one."""
    left: list[AsyncIterator[bytes]] = []

    async def stuck(request: httpx.Request) -> httpx.Response:
        assert isinstance(request.stream, httpx.AsyncByteStream)
        left.append(aiter(request.stream))
        assert [part async for part in request.stream] == [b"the body"]
        assert request.content == b"the body"
        async for _ in left[0]:
            await anyio.sleep_forever()
        raise AssertionError

    async with HttpxTransport(Scripted(stuck)) as transport, anyio.create_task_group() as tasks:
        tasks.start_soon(transport.post, _TARGET, _HEADERS, b"the body", anyio.current_time() + 60)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert not isinstance(left[0], AsyncGenerator)


async def test_cancelling_the_caller_ends_the_exchange(anyio_backend: Any) -> None:
    """By its scope."""
    body = Body(b"x", then_waits=True)
    async with HttpxTransport(_answers(lambda: httpx.Response(200, stream=body))) as transport:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_post, transport)
            await anyio.wait_all_tasks_blocked()
            assert not body.is_closed
            tasks.cancel_scope.cancel()
        await anyio.wait_all_tasks_blocked()
        assert body.is_closed


async def test_abort_ends_the_exchanges_of_one_target(anyio_backend: Any) -> None:
    """And closing ends the rest."""
    other, errors = Target("http://127.0.0.1:1", "/path"), []
    async with anyio.create_task_group() as group:
        async with HttpxTransport(Scripted(_sleep_forever)) as transport:

            async def post(target: Target) -> None:
                try:
                    await _post(transport, target)
                except TransportError as error:
                    errors.append(str(error))

            group.start_soon(post, _TARGET)
            group.start_soon(post, other)
            await anyio.wait_all_tasks_blocked()
            transport.abort(_TARGET)
            await anyio.wait_all_tasks_blocked()
            assert errors == ["the exchange was aborted"]
    assert errors == ["the exchange was aborted", "the transport was closed"]


def _tls(verify_message: str = "") -> Exception:
    cause = ssl.SSLCertVerificationError(1, "certificate verify failed")
    if verify_message:
        cause.verify_message = verify_message
    error = httpx.ReadError("wrapped twice")
    error.__cause__ = OSError("in between")
    error.__cause__.__context__ = cause
    return error


def _loop_of_causes() -> Exception:
    error, other = httpx.ReadError(f"{CANARY}-x"), OSError()
    error.__cause__, other.__cause__ = other, error
    return error


def _with_cause(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (httpx.ConnectError("x"), TransportError),
        (httpx.ReadError("x"), TransportError),
        (httpx.PoolTimeout("x"), TransportError),
        (httpx.DecodingError("x"), TransportError),
        (ValueError(f"{CANARY}-value"), TransportError),
        (_loop_of_causes(), TransportError),
        (httpx.RemoteProtocolError("Server disconnected without sending a response."), TransportError),
        (httpx.RemoteProtocolError("illegal status line"), RemoteProtocolError),
        (_tls("self-signed"), TLSError),
        (_tls(), TLSError),
        (httpx.ConnectError("invalid peer certificate: UnknownIssuer"), TLSError),
        (_with_cause(httpx.ReadError("x"), ssl.SSLEOFError(8, "EOF")), TransportError),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else type(value).__name__,
)
async def test_foreign_errors_are_told_apart_and_not_believed(
    anyio_backend: Any, error: Exception, expected: type[Exception]
) -> None:
    """our fault tables, rule 4: a foreign error class does not prove that nothing was sent."""
    async with HttpxTransport(_raises(error)) as transport:
        with pytest.raises(expected) as caught:
            await _post(transport)
    assert type(caught.value) is expected
    assert caught.value.__cause__ is error
    if isinstance(caught.value, TransportError):
        assert not caught.value.timed_out
        if not isinstance(caught.value, TLSError):
            assert caught.value.sent
    assert CANARY not in f"{caught.value!r} {caught.value}"


@pytest.mark.parametrize("error", [httpx.ConnectError("x"), httpx.PoolTimeout("x"), httpx.WriteError("x")])
async def test_httpx_own_transport_is_believed(anyio_backend: Any, error: Exception, monkeypatch: Any) -> None:
    """Its trace tells whether the first byte had been written."""
    inner = httpx.AsyncHTTPTransport(verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), trust_env=False)

    async def handle(request: httpx.Request) -> httpx.Response:
        if isinstance(error, httpx.WriteError):
            await request.extensions["trace"]("connection.connect_tcp.started", {})
            await request.extensions["trace"]("http11.send_request_headers.started", {})
            await request.extensions["trace"]("http11.receive_response_headers.complete", {})
        raise error

    monkeypatch.setattr(inner, "handle_async_request", handle)
    async with HttpxTransport(inner, close_inner=True) as transport:
        with pytest.raises(TransportError) as caught:
            await _post(transport)
    facts = caught.value
    if isinstance(error, httpx.WriteError):
        assert (facts.sent, facts.phase, facts.reused, facts.answered) == (True, Phase.WRITE, False, True)
    else:
        phase = Phase.POOL if isinstance(error, httpx.PoolTimeout) else Phase.CONNECT
        assert (facts.sent, facts.phase) == (False, phase)


async def test_a_cancellation_that_the_transport_makes_up_ends_only_its_exchange(anyio_backend: Any) -> None:
    """pyreqwest does so; let out, it would cancel the whole group."""
    if anyio_backend == "trio":
        pytest.skip("trio has no cancellation that could be made up")
    async with HttpxTransport(_raises(asyncio.CancelledError())) as transport:
        with pytest.raises(TransportError, match="gave up"):
            await _post(transport)
        with pytest.raises(httpx.ReadError, match="gave up"):
            await transport.client.get("http://127.0.0.1:1/")


@pytest.mark.parametrize(
    "response",
    [
        lambda: httpx.Response(200, stream=Body(b"x" * 60, b"x" * 60)),
        lambda: httpx.Response(200, headers={"Content-Length": "101"}, stream=Body(then_waits=True)),
    ],
    ids=["counted", "announced"],
)
async def test_the_size_of_an_answer_is_bounded(anyio_backend: Any, response: Callable[[], httpx.Response]) -> None:
    """While it is being read, or before."""
    async with HttpxTransport(_answers(response), max_body_bytes=100) as transport:
        with anyio.fail_after(60), pytest.raises(ResponseTooLarge):
            await _post(transport)


async def test_codings_are_undone_in_turn(anyio_backend: Any) -> None:
    """Bounded like everything else."""
    twice = gzip.compress(gzip.compress(b"hello"))
    response = httpx.Response(200, headers={"Content-Encoding": "gzip, gzip"}, stream=Body(twice))
    async with HttpxTransport(_answers(lambda: response)) as transport:
        assert (await _post(transport)).body == b"hello"


async def test_discard_closes_the_connection_where_it_can_be_reached(anyio_backend: Any) -> None:
    """`network_stream`; without one there is nothing to do."""
    closed = anyio.Event()

    class Stream:
        async def aclose(self) -> None:
            closed.set()

    with_stream = lambda: httpx.Response(200, stream=Body(), extensions={"network_stream": Stream()})  # noqa: E731
    async with HttpxTransport(_answers(with_stream)) as transport:
        transport.discard(await _post(transport))
        with anyio.fail_after(60):
            await closed.wait()
    async with HttpxTransport(_answers(lambda: httpx.Response(200, stream=Body()))) as transport:
        transport.discard(await _post(transport))


@pytest.mark.parametrize("trouble", [OSError("gone"), None])
async def test_a_connection_that_does_not_let_itself_be_closed_ends_nothing_else(
    anyio_backend: Any, trouble: Exception | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ended every exchange, and the session with them; one that hung kept the session from ending."""
    monkeypatch.setattr("connector_async.transport._httpx.CLOSE_TIMEOUT", 0.01)

    class Stream:
        async def aclose(self) -> None:
            if trouble is not None:
                raise trouble
            await anyio.sleep_forever()

    inner = _answers(lambda: httpx.Response(200, stream=Body(b"[]"), extensions={"network_stream": Stream()}))
    with anyio.fail_after(60):
        async with HttpxTransport(inner) as transport:
            transport.discard(await _post(transport))
            await anyio.wait_all_tasks_blocked()
            assert (await _post(transport)).status == 200


@pytest.mark.parametrize("anyio_backend", [ASYNCIO])
async def test_discard_keeps_a_surplus_answer_from_the_next_request(anyio_backend: Any) -> None:
    """With httpx's own transport, which would hand it over."""

    async def surplus(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer(b"own") + answer(b"surplus"))
        await well_behaved(peer)

    inner = httpx.AsyncHTTPTransport(verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), trust_env=False)
    async with FaultServer(surplus) as server, HttpxTransport(inner, close_inner=True) as transport:
        target = Target(server.base, "/")
        first = await _post(transport, target)
        transport.discard(first)
        await anyio.sleep(0.01)
        assert (await _post(transport, target)).body == b"own"  # of another connection
        assert server.connections == 2


# --- its client ----------------------------------------------------------------------------------------------------


async def test_the_client_streams_over_the_same_transport(anyio_backend: Any) -> None:
    """Requests run in tasks of ours, so that no cancellation of the caller reaches the pool."""
    inner = _answers(lambda: httpx.Response(200, headers={"X-A": "1"}, stream=Body(b"a", b"b", b"c")))
    async with HttpxTransport(inner) as transport:
        assert transport.client is transport.client
        response = await transport.client.get("http://127.0.0.1:1/")
        assert (response.content, response.headers["x-a"]) == (b"abc", "1")
        assert inner.requests[0].headers["accept-encoding"] == "identity"
        async with transport.client.stream("GET", "http://127.0.0.1:1/") as streamed:
            assert [chunk async for chunk in streamed.aiter_raw()] == [b"a", b"b", b"c"]


async def test_a_response_closed_early_ends_its_task(anyio_backend: Any) -> None:
    """And closes the one beneath."""
    body = Body(b"a", b"b", then_waits=True)
    async with HttpxTransport(_answers(lambda: httpx.Response(200, stream=body))) as transport:
        async with transport.client.stream("GET", "http://127.0.0.1:1/") as response:
            await anyio.wait_all_tasks_blocked()
            assert response.status_code == 200
        await anyio.wait_all_tasks_blocked()
        assert body.is_closed


async def test_errors_reach_the_client_as_they_are(anyio_backend: Any) -> None:
    """Before the head, and in the body."""
    async with HttpxTransport(_raises(httpx.ConnectError("x"))) as transport:
        with pytest.raises(httpx.ConnectError):
            await transport.client.get("http://127.0.0.1:1/")
    body = Body(b"a", httpx.ReadError("x"))
    async with HttpxTransport(_answers(lambda: httpx.Response(200, stream=body))) as transport:
        with pytest.raises(httpx.ReadError):
            await transport.client.get("http://127.0.0.1:1/")


async def test_a_response_that_was_made_with_its_body_is_passed_on(anyio_backend: Any) -> None:
    """As `httpx.MockTransport` makes them, and what a client's hook has read already: decoded once, bounded too."""
    coded = httpx.Response(200, content=gzip.compress(b"hello"), headers={"Content-Encoding": "gzip"})
    async with HttpxTransport(httpx.MockTransport(lambda _: coded), max_body_bytes=30) as transport:
        assert (await _post(transport)).body == b"hello"
        assert (await transport.client.get("http://127.0.0.1:1/")).content == b"hello"
    large = httpx.Response(200, content=b"x" * 31)
    async with HttpxTransport(httpx.MockTransport(lambda _: large), max_body_bytes=30) as transport:
        with pytest.raises(ResponseTooLarge):
            await _post(transport)


async def test_never_more_exchanges_than_connections_beneath(anyio_backend: Any) -> None:
    """What waits in httpx's queue and is cancelled there costs a slot for good; so nothing waits there."""
    running, most = 0, 0
    release = anyio.Event()

    async def handler(request: httpx.Request) -> httpx.Response:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await release.wait()
        running -= 1
        return httpx.Response(200, stream=Body())

    async with HttpxTransport(Scripted(handler), max_exchanges=3) as transport, anyio.create_task_group() as group:
        for _ in range(4):
            group.start_soon(_post, transport)
            group.start_soon(transport.client.get, "http://127.0.0.1:1/")
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(TransportError) as caught:
            await _post(transport, seconds=0.02)
        assert (caught.value.phase, caught.value.sent, caught.value.timed_out) == (Phase.POOL, False, True)
        assert most == 3
        release.set()
    assert most == 3


@pytest.mark.parametrize("how", ["cancelled", "closed"])
async def test_a_clients_request_ends_with_its_caller_or_the_transport(anyio_backend: Any, how: str) -> None:
    """Without a word from the task."""
    async with HttpxTransport(Scripted(_sleep_forever)) as transport:
        if how == "cancelled":
            with anyio.move_on_after(0.02):
                await transport.client.get("http://127.0.0.1:1/")
        else:
            async with anyio.create_task_group() as group:

                async def get() -> None:
                    with pytest.raises(httpx.ReadError):
                        await transport.client.get("http://127.0.0.1:1/")

                group.start_soon(get)
                await anyio.wait_all_tasks_blocked()
                await transport.aclose()


@pytest.mark.parametrize("anyio_backend", [ASYNCIO])
async def test_natively_cancelled_client_requests_lose_no_slot_of_httpx(anyio_backend: Any) -> None:
    """our fault tables, rule 1: raw stock httpx ends up with none."""

    async def slow(peer: Peer) -> None:
        while True:
            await peer.request()
            await asyncio.sleep(0.005)
            await peer.send(answer())

    limits = httpx.Limits(max_connections=3)
    inner = httpx.AsyncHTTPTransport(verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), limits=limits, trust_env=False)
    async with FaultServer(slow) as server, HttpxTransport(inner, close_inner=True) as transport:
        for number in range(60):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(number % 12 / 1000):
                    await transport.client.get(server.base)
        with anyio.fail_after(60):
            for _ in range(10):
                assert (await transport.client.get(server.base)).status_code == 200


@pytest.mark.parametrize("anyio_backend", [ASYNCIO])
async def test_the_pooled_transport_beneath_a_client_is_believed(anyio_backend: Any) -> None:
    """Its errors say how far they had come."""
    async with httpx.AsyncClient(transport=PooledTransport(), trust_env=False) as client:
        async with HttpxTransport(client) as transport:
            with pytest.raises(TransportError) as caught:
                await _post(transport)
            assert (caught.value.sent, caught.value.phase) == (False, Phase.CONNECT)
            assert_canary_absent(caught.value)


async def test_an_app_in_this_process_can_stand_in_for_the_cloud(anyio_backend: Any) -> None:
    """`httpx.ASGITransport`, for tests of users."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-a", b"1")]})
        await send({"type": "http.response.body", "body": b"hello"})

    async with HttpxTransport(httpx.ASGITransport(app)) as transport:
        assert (await _post(transport)).body == b"hello"
