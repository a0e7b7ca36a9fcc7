"""Our seam over anything that speaks httpx: its own transports, a whole client, other people's transports.

Every exchange runs in a task of ours that is ended by its cancel scope. httpx's own pool loses a slot for good when
it is cancelled in any other way (encode/httpcore#1093). The deadline and the size of an answer are ours too: httpx
bounds neither.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self, cast

import anyio
import httpx
from anyio.abc import TaskGroup

from connector_async.errors import (
    ConnectorError,
    Phase,
    RedirectRefused,
    RemoteProtocolError,
    ResponseTooLarge,
    TLSError,
    TransportError,
)
from connector_async.transport._encoding import decoded
from connector_async.transport.base import Answer, Headers, Target

__all__ = ["HttpxTransport"]

# A response is closed even while its exchange is being cancelled; it gets this many seconds for it.
_CLOSE_TIMEOUT = 1.0
_NO_TIMEOUT = httpx.Timeout(None).as_dict()

_PHASES: tuple[tuple[type[Exception], Phase], ...] = (
    (httpx.PoolTimeout, Phase.POOL),
    (httpx.ConnectTimeout, Phase.CONNECT),
    (httpx.ConnectError, Phase.CONNECT),
    (httpx.ProxyError, Phase.CONNECT),
    (httpx.UnsupportedProtocol, Phase.CONNECT),
    (httpx.WriteTimeout, Phase.WRITE),
    (httpx.WriteError, Phase.WRITE),
)


class _Exchange:
    """One exchange: the task's scope, what became of it, and how far it had come."""

    __slots__ = ("answer", "answered", "connected", "done", "error", "scope", "target", "trusted", "wrote")

    def __init__(self, target: Target, *, trusted: bool) -> None:
        self.target = target
        self.scope = anyio.CancelScope()
        self.done = anyio.Event()
        self.answer: Answer | None = None
        self.error: ConnectorError | None = None
        # Whether what the transport says about "not sent" can be believed.
        self.trusted = trusted
        self.connected = self.wrote = self.answered = False

    async def trace(self, event: str, _info: dict[str, Any]) -> None:
        """httpcore's own account of what it does: the only one that tells for certain whether a byte was written."""
        self.trusted = True
        if event.endswith("connect_tcp.started"):
            self.connected = True
        elif event.endswith("send_request_headers.started"):
            self.wrote = True
        elif event.endswith("receive_response_headers.complete"):
            self.answered = True

    def failure(self, message: str, phase: Phase | None = None, *, timed_out: bool = False) -> TransportError:
        """A TransportError with what is known."""
        sent = self.wrote or not self.trusted
        if phase is None:
            phase = Phase.READ if self.answered else Phase.WAIT if sent else Phase.CONNECT
        return TransportError(
            message,
            phase=phase,
            sent=sent,
            reused=self.wrote and not self.connected,
            answered=self.answered,
            timed_out=timed_out,
        )


class HttpxTransport:
    """Any `httpx.AsyncBaseTransport` or `httpx.AsyncClient` as a `Transport`; on asyncio and trio.

    Use it as a context manager. What is passed in stays the caller's to close, unless `close_inner` is set.

    Args:
        inner: The transport or client; a client keeps its proxies, hooks, default headers and so on, but redirects
            are not followed and its timeouts are replaced by the deadline of each exchange.
        max_body_bytes: Largest body of an answer.
        close_inner: Enter and close `inner` together with this transport.
    """

    def __init__(
        self,
        inner: httpx.AsyncBaseTransport | httpx.AsyncClient,
        *,
        max_body_bytes: int = 1_048_576,
        close_inner: bool = False,
    ) -> None:
        self._inner = inner
        self._max_body_bytes = max_body_bytes
        self._close_inner = close_inner
        self._trusted = isinstance(inner, httpx.AsyncHTTPTransport)
        self._tasks: TaskGroup | None = None
        self._exchanges: set[_Exchange] = set()
        self._calls: set[_Call] = set()
        self._client: httpx.AsyncClient | None = None
        self._is_closed = False

    async def post(self, target: Target, headers: Headers, body: bytes, deadline: float) -> Answer:
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
        exchange = _Exchange(target, trusted=self._trusted)
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

    async def _run(self, exchange: _Exchange, headers: Headers, body: bytes) -> None:
        try:
            with exchange.scope:
                exchange.answer = await self._answer(exchange, headers, body)
        except ConnectorError as error:
            exchange.error = error
        except Exception as error:  # noqa: BLE001 - whatever a foreign transport raises becomes a TransportError
            exchange.error = _translated(error, exchange)
        except anyio.get_cancelled_exc_class():
            # The task ends here in any case. Some transports raise a cancellation of their own, which our scope does
            # not know; let out, it would take the whole task group with it.
            if not exchange.scope.cancel_called:
                exchange.error = exchange.failure("the transport gave up")
        finally:
            self._exchanges.discard(exchange)
            exchange.done.set()

    async def _answer(self, exchange: _Exchange, headers: Headers, body: bytes) -> Answer:
        response = await self._send(_request(exchange, headers, body))
        exchange.answered = True
        try:
            if 300 <= response.status_code < 400 and "location" in response.headers:
                raise RedirectRefused(f"the answer is a redirect ({response.status_code}), which is not followed")
            whole = _content_of(response)
            content = await self._read(response) if whole is None else self._checked(whole)
        finally:
            with anyio.move_on_after(_CLOSE_TIMEOUT, shield=True):
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
        async with aclosing(_raw(response)) as chunks:
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
        if isinstance(self._inner, httpx.AsyncClient):
            return await self._inner.send(request, stream=True, follow_redirects=False)
        return await self._inner.handle_async_request(request)

    def discard(self, answer: Answer) -> None:
        """Close the connection of this answer, where the transport beneath lets us reach it."""
        close = getattr(answer.connection, "aclose", None)
        if close is not None:
            self._entered().start_soon(close)

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
                transport=_Guarded(self._start, self._send),
                headers={"Accept-Encoding": "identity"},
                trust_env=False,
            )
        return self._client

    def _start(self, run: Callable[[httpx.Request, _Call], Awaitable[None]], request: httpx.Request) -> _Call:
        tasks = self._entered()
        call = _Call()
        self._calls.add(call)
        tasks.start_soon(self._finish, run, request, call)
        return call

    async def _finish(
        self, run: Callable[[httpx.Request, _Call], Awaitable[None]], request: httpx.Request, call: _Call
    ) -> None:
        try:
            await run(request, call)
        finally:
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
                with anyio.move_on_after(_CLOSE_TIMEOUT, shield=True):
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


def _request(exchange: _Exchange, headers: Headers, body: bytes) -> httpx.Request:
    return httpx.Request(
        "POST",
        exchange.target.url,
        headers=[*headers.items, ("Accept-Encoding", "identity")],
        content=body,
        extensions={"timeout": _NO_TIMEOUT, "trace": exchange.trace},
    )


def _raw(response: httpx.Response) -> AsyncGenerator[bytes, None]:
    # It is a generator, though httpx promises less; one left in the middle has to be closed.
    return cast("AsyncGenerator[bytes, None]", response.aiter_raw())


def _translated(error: Exception, exchange: _Exchange) -> ConnectorError:
    result = _as_ours(error, exchange)
    result.__cause__ = error
    return result


def _as_ours(error: Exception, exchange: _Exchange) -> ConnectorError:
    # Neither type names nor messages of foreign errors are shown beyond the type: they may quote a header.
    name = type(error).__name__
    known = getattr(error, "phase", None)
    if isinstance(known, Phase):  # our own pooled transport beneath: it knows for certain
        exchange.trusted = True
        exchange.wrote = exchange.wrote or bool(getattr(error, "sent", True))
        exchange.answered = exchange.answered or bool(getattr(error, "answered", False))
    tls = _tls_reason(error)
    if tls is not None and not exchange.answered:
        sent = exchange.wrote or not (exchange.trusted or isinstance(error, httpx.ConnectError))
        return TLSError(f"TLS failed: {tls}", phase=Phase.TLS, sent=sent, retryable=False)
    refused = next((cause for cause in _causes(error) if isinstance(cause, RemoteProtocolError)), None)
    if refused is not None:
        return type(refused)(str(refused))
    if isinstance(error, httpx.RemoteProtocolError) and not _is_early_end(error):
        return RemoteProtocolError(f"the answer is not valid HTTP ({name})")
    phase = known if isinstance(known, Phase) else None
    if phase is None and exchange.trusted:
        phase = next((phase for kind, phase in _PHASES if isinstance(error, kind)), None)
    # Never `timed_out`: the deadline is ours, and some transports call everything a timeout.
    return exchange.failure(f"the exchange failed ({name})", phase)


def _is_early_end(error: Exception) -> bool:
    """httpx tells an answer that is cut short only by its words from one that breaks the rules."""
    if isinstance(error.__cause__, TransportError):
        return True
    text = str(error)
    return "disconnected" in text or "without sending complete message body" in text or "peer closed" in text


def _tls_reason(error: BaseException) -> str | None:
    for cause in _causes(error):
        if isinstance(cause, TLSError):
            return str(cause)
        if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError | ssl.SSLZeroReturnError):
            return getattr(cause, "verify_message", None) or getattr(cause, "reason", None) or "handshake failed"
        # What is not built on OpenSSL has only words for it.
        if isinstance(error, httpx.ConnectError) and "certificate" in repr(cause):
            return "certificate refused"
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


class _Call:
    """One request of an httpx client, run in a task of ours."""

    def __init__(self) -> None:
        self.scope = anyio.CancelScope()
        self.ready = anyio.Event()
        self.response: httpx.Response | None = None
        self.error: Exception | None = None
        self.send, self.receive = anyio.create_memory_object_stream[bytes](0)


class _Guarded(httpx.AsyncBaseTransport):
    """For clients that stand on the same inner transport: they too must not cancel it in any other way than ours."""

    def __init__(
        self,
        start: Callable[[Callable[[httpx.Request, _Call], Awaitable[None]], httpx.Request], _Call],
        send: Callable[[httpx.Request], Awaitable[httpx.Response]],
    ) -> None:
        self._start = start
        self._send = send

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        call = self._start(self._run, request)
        try:
            await call.ready.wait()
        except BaseException:
            call.scope.cancel()
            call.receive.close()
            raise
        if call.response is None:
            call.receive.close()
            raise call.error or httpx.ReadError("the transport gave up", request=request)
        return httpx.Response(
            call.response.status_code,
            headers=call.response.headers.raw,
            stream=_Relay(call),
            extensions=call.response.extensions,
        )

    async def _run(self, request: httpx.Request, call: _Call) -> None:
        try:
            with call.scope, call.send:
                response = call.response = await self._send(request)
                call.ready.set()
                try:
                    async with aclosing(_raw(response)) as chunks:
                        async for chunk in chunks:
                            await call.send.send(chunk)
                finally:
                    with anyio.move_on_after(_CLOSE_TIMEOUT, shield=True):
                        await response.aclose()
        except anyio.BrokenResourceError:
            return  # the caller has closed the response: nobody wants the rest
        except Exception as error:  # noqa: BLE001 - raised again where the caller waits
            call.error = error
        except anyio.get_cancelled_exc_class():
            return  # as for a lean exchange: the task ends here, and nothing else must
        finally:
            call.ready.set()


class _Relay(httpx.AsyncByteStream):
    """The body of a response that a task of ours reads."""

    def __init__(self, call: _Call) -> None:
        self._call = call

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self  # not a generator: trio would complain of one that is left in the middle

    async def __anext__(self) -> bytes:
        try:
            return await self._call.receive.receive()
        except anyio.EndOfStream:
            if self._call.error is not None:
                raise self._call.error from None
            raise StopAsyncIteration from None

    async def aclose(self) -> None:
        self._call.scope.cancel()
        self._call.receive.close()


def _content_of(response: httpx.Response) -> bytes | None:
    """The body of a response that was made with it, as `httpx.MockTransport` makes them; None if it is to be read."""
    return response.content if response.is_stream_consumed else None
