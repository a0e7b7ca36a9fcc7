"""Our seam over anything that speaks httpx: its own transports, a whole client, other people's transports.

Every exchange runs in a task of ours that is ended by its cancel scope, and never more of them than the pool beneath
has connections. httpx's own pool loses a slot for good when a request is cancelled in any other way, and also when
one is cancelled that waits in its queue (encode/httpcore#1093). The deadline and the size of an answer are ours too:
httpx bounds neither.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing
from types import TracebackType
from typing import Self

import anyio
import httpx
from anyio.abc import TaskGroup

from connector_async.errors import (
    ConnectorError,
    Phase,
    RedirectRefused,
    ResponseTooLarge,
    TransportError,
)
from connector_async.transport._encoding import decoded
from connector_async.transport._foreign import Exchange, translated
from connector_async.transport._lent import CLOSE_TIMEOUT, Call, Guarded, Run, content_of, raw
from connector_async.transport.base import Answer, Target, header_pairs

__all__ = ["HttpxTransport"]

# What httpx and aiohttp allow when nobody says otherwise; and httpcore's word for "no limit" is larger than this.
_USUAL_CONNECTIONS = 100
_MANY = 1_000_000
_NO_TIMEOUT = httpx.Timeout(None).as_dict()


class HttpxTransport:
    """Any `httpx.AsyncBaseTransport` or `httpx.AsyncClient` as a `Transport`; on asyncio and trio.

    Use it as a context manager. What is passed in stays the caller's to close, unless `close_inner` is set.

    Args:
        inner: The transport or client; a client keeps its proxies, hooks, default headers (but `Authorization`) and
            so on, but its `auth` is not used, redirects are not followed, and its timeouts are replaced by the
            deadline of each exchange.
        max_body_bytes: Largest body of an answer.
        max_exchanges: How many run at once; the others wait in turn. By default as many as `inner` has connections.
        close_inner: Close `inner` together with this transport.
    """

    def __init__(
        self,
        inner: httpx.AsyncBaseTransport | httpx.AsyncClient,
        *,
        max_body_bytes: int = 1_048_576,
        max_exchanges: int | None = None,
        close_inner: bool = False,
    ) -> None:
        self._inner = inner
        self._max_body_bytes = max_body_bytes
        self._close_inner = close_inner
        self._trusted = isinstance(inner, httpx.AsyncHTTPTransport)
        self._gate = anyio.Semaphore(max_exchanges or _connections_of(inner))
        self._tasks: TaskGroup | None = None
        self._exchanges: set[Exchange] = set()
        self._calls: set[Call] = set()
        self._client: httpx.AsyncClient | None = None
        self._is_closed = False

    async def post(self, target: Target, headers: bytes, body: bytes, deadline: float) -> Answer:
        """Send one POST and read the whole answer; see `Transport.post`.

        Raises:
            TransportError: No answer. `sent` is False only where that is certain: httpx's own transports tell, others
                are not believed.
            TLSError: The server is not who it should be, or refused our certificate.
            RemoteProtocolError: What came is not a usable HTTP answer.
        """
        tasks = self._entered()
        if self._is_closed:
            raise TransportError("the transport is closed", phase=Phase.POOL, sent=False, retryable=False)
        if anyio.current_time() >= deadline:
            raise TransportError("the deadline passed", phase=Phase.POOL, sent=False, timed_out=True)
        exchange = Exchange(target, trusted=self._trusted)
        self._exchanges.add(exchange)
        tasks.start_soon(self._run, exchange, headers, body)
        try:
            with anyio.CancelScope(deadline=deadline):
                await exchange.done.wait()
        finally:
            exchange.scope.cancel()
        if exchange.answer is not None:
            return exchange.answer
        if exchange.error is not None:
            raise exchange.error
        raise exchange.failure("the deadline passed", timed_out=True)

    async def _run(self, exchange: Exchange, headers: bytes, body: bytes) -> None:
        try:
            with exchange.scope:
                async with self._gate:
                    exchange.queued = False
                    exchange.answer = await self._answer(exchange, headers, body)
        except ConnectorError as error:
            exchange.error = error
        except Exception as error:  # noqa: BLE001 - whatever a foreign transport raises becomes a TransportError
            exchange.error = translated(error, exchange)
        except anyio.get_cancelled_exc_class():
            # The task ends here in any case. Some transports raise a cancellation of their own, which our scope does
            # not know; let out, it would take the whole task group with it.
            if not exchange.scope.cancel_called:
                exchange.error = exchange.failure("the transport gave up")
        finally:
            self._exchanges.discard(exchange)
            exchange.done.set()

    async def _answer(self, exchange: Exchange, headers: bytes, body: bytes) -> Answer:
        response = await self._send(_request(exchange, headers, body))
        exchange.answered = True
        try:
            if 300 <= response.status_code < 400 and "location" in response.headers:
                raise RedirectRefused(f"the answer is a redirect ({response.status_code}), which is not followed")
            whole = content_of(response)
            content = await self._read(response) if whole is None else self._checked(whole)
        finally:
            with anyio.move_on_after(CLOSE_TIMEOUT, shield=True):
                await response.aclose()
        codings = "" if whole is not None else response.headers.get("content-encoding", "")
        for coding in reversed(codings.split(",")):
            content = decoded(content, coding.encode("ascii", "replace"), self._max_body_bytes)
        fields = tuple((name.lower(), value) for name, value in response.headers.raw)
        return Answer(response.status_code, fields, content, response.extensions.get("network_stream"))

    async def _read(self, response: httpx.Response) -> bytes:
        content = bytearray()
        # A length that is not a number is the transport's to judge; it counts what comes either way.
        announced = response.headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > self._max_body_bytes:
            raise ResponseTooLarge(f"the answer announces {int(announced)} bytes")
        async with aclosing(raw(response)) as chunks:
            async for chunk in chunks:
                content += chunk
                if len(content) > self._max_body_bytes:
                    raise ResponseTooLarge(f"the answer's body exceeds {self._max_body_bytes} bytes")
        return bytes(content)

    def _checked(self, content: bytes) -> bytes:
        if len(content) > self._max_body_bytes:
            raise ResponseTooLarge(f"the answer's body exceeds {self._max_body_bytes} bytes")
        return content

    async def _send(self, request: httpx.Request) -> httpx.Response:
        if not isinstance(self._inner, httpx.AsyncClient):
            return await self._inner.handle_async_request(request)
        if self._inner.is_closed:
            # It would say so itself, but by an error that any hook of it might raise after the request has left.
            raise TransportError(
                "the httpx.AsyncClient that was passed as transport is closed",
                phase=Phase.POOL,
                sent=False,
                retryable=False,
            )
        for name, value in self._inner.headers.items():
            # httpx adds them to requests that the client itself builds. Of who we are the request alone speaks.
            if name not in request.headers and name != "authorization":
                request.headers[name] = value
        return await self._inner.send(request, auth=None, stream=True, follow_redirects=False)

    def discard(self, answer: Answer) -> None:
        """Close the connection of this answer, where the transport beneath lets us reach it."""
        close = getattr(answer.connection, "aclose", None)
        if close is not None:
            self._entered().start_soon(_close, close)

    def abort(self, target: Target) -> None:
        """End every exchange with this target at once: each raises TransportError."""
        self._end(target, "the exchange was aborted")

    def _end(self, target: Target | None, reason: str) -> None:
        for exchange in self._exchanges:
            if target is None or exchange.target is target:
                exchange.error = exchange.failure(reason)
                exchange.scope.cancel()
                exchange.done.set()

    @property
    def client(self) -> httpx.AsyncClient:
        """An httpx client over the same connections, for look-ups and file transfer. Not to be closed by users."""
        if self._client is None:
            self._client = httpx.AsyncClient(
                transport=Guarded(self._start, self._send),
                headers={"Accept-Encoding": "identity"},
                trust_env=False,
            )
        return self._client

    def _start(self, run: Run, request: httpx.Request) -> Call:
        tasks = self._entered()
        call = Call()
        self._calls.add(call)
        tasks.start_soon(self._finish, run, request, call)
        return call

    async def _finish(self, run: Run, request: httpx.Request, call: Call) -> None:
        try:
            with call.scope:
                async with self._gate:
                    await run(request, call)
        finally:
            call.send.close()
            call.ready.set()
            self._calls.discard(call)

    def _entered(self) -> TaskGroup:
        if self._tasks is None:
            raise RuntimeError(
                "use HttpxTransport as a context manager: `async with HttpxTransport(...) as transport`"
            )
        return self._tasks

    async def aclose(self) -> None:
        """End all exchanges; close `inner` if it was handed over; idempotent."""
        self._end(None, "the transport was closed")
        # Each on its own: the scope of the task group is also that of whoever entered it.
        for call in self._calls:
            call.scope.cancel()
        if not self._is_closed:
            self._is_closed = True
            if self._close_inner:
                with anyio.move_on_after(CLOSE_TIMEOUT, shield=True):
                    await self._inner.aclose()

    async def __aenter__(self) -> Self:
        self._is_closed = False
        self._tasks = await anyio.create_task_group().__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        tasks = self._entered()
        try:
            await self.aclose()
        finally:
            self._tasks = None
            # Without the exception of the body: it leaves as itself, not inside a group.
            await tasks.__aexit__(None, None, None)

    def __repr__(self) -> str:
        return f"HttpxTransport({type(self._inner).__name__})"


class _Body(httpx.AsyncByteStream):
    """A body in one piece.

    httpx's own is an async generator; where a cancellation leaves one suspended, trio complains of it when the
    garbage collector comes.
    """

    def __init__(self, content: bytes) -> None:
        self._content = content

    def __aiter__(self) -> AsyncIterator[bytes]:
        return _Pieces(iter((self._content,)))


class _Pieces:
    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        for piece in self._pieces:
            return piece
        raise StopAsyncIteration


async def _close(close: Callable[[], Awaitable[object]]) -> None:
    # Whatever a foreign connection makes of this, it is not used again, and the other exchanges go on.
    with contextlib.suppress(Exception), anyio.move_on_after(CLOSE_TIMEOUT):
        await close()


def _request(exchange: Exchange, headers: bytes, body: bytes) -> httpx.Request:
    request = httpx.Request(
        "POST",
        exchange.target.url,
        headers=[*header_pairs(headers), ("Accept-Encoding", "identity")],
        content=body,
        extensions={"timeout": _NO_TIMEOUT, "trace": exchange.trace},
    )
    request.stream = _Body(body)
    return request


def _connections_of(inner: httpx.AsyncBaseTransport | httpx.AsyncClient) -> int:
    """How many connections httpx's pool may have; nothing public tells."""
    transport = getattr(inner, "_transport", inner)
    known = getattr(getattr(transport, "_pool", None), "_max_connections", None)
    return known if isinstance(known, int) and known < _MANY else _USUAL_CONNECTIONS
