"""The client that an adapter lends: an httpx client whose requests run in tasks of the adapter.

They use the same connections as the messages, so they too must not be cancelled in any way but ours.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import cast

import anyio
import httpx

__all__ = ["CLOSE_TIMEOUT", "Call", "Guarded", "Run", "content_of", "raw"]

# A response is closed even while its exchange is being cancelled; it gets this many seconds for it.
CLOSE_TIMEOUT = 1.0


class Call:
    """One request of an httpx client, run in a task of ours."""

    def __init__(self) -> None:
        self.scope = anyio.CancelScope()
        self.ready = anyio.Event()
        self.response: httpx.Response | None = None
        self.error: Exception | None = None
        self.send, self.receive = anyio.create_memory_object_stream[bytes](0)


Run = Callable[[httpx.Request, Call], Awaitable[None]]
"""What runs a call, in a task of the adapter and behind its gate."""


class Guarded(httpx.AsyncBaseTransport):
    """For clients that stand on the same inner transport: they too must not cancel it in any other way than ours."""

    def __init__(
        self,
        start: Callable[[Run, httpx.Request], Call],
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
            headers=_headers_for(call.response),
            stream=_Relay(call),
            extensions=call.response.extensions,
        )

    async def _run(self, request: httpx.Request, call: Call) -> None:
        try:
            with call.send:
                response = call.response = await self._send(request)
                call.ready.set()
                try:
                    await self._pass_on(response, call)
                finally:
                    with anyio.move_on_after(CLOSE_TIMEOUT, shield=True):
                        await response.aclose()
        except Exception as error:  # noqa: BLE001 - raised again where the caller waits
            call.error = error
        except anyio.get_cancelled_exc_class():
            if call.scope.cancel_called:
                raise
            # As for a lean exchange: made up by the transport, so nothing but this call must end.

    @staticmethod
    async def _pass_on(response: httpx.Response, call: Call) -> None:
        whole = content_of(response)
        if whole is not None:
            await call.send.send(whole)
            return
        async with aclosing(raw(response)) as chunks:
            async for chunk in chunks:
                await call.send.send(chunk)


class _Relay(httpx.AsyncByteStream):
    """The body of a response that a task of ours reads."""

    def __init__(self, call: Call) -> None:
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


def _headers_for(response: httpx.Response) -> list[tuple[bytes, bytes]]:
    # A body that was read already is passed on as read: decoded.
    stale = (b"content-encoding", b"content-length") if response.is_stream_consumed else ()
    return [(name, value) for name, value in response.headers.raw if name.lower() not in stale]


def content_of(response: httpx.Response) -> bytes | None:
    """The body of a response that was made with it, as `httpx.MockTransport` makes them; None if it is to be read."""
    return response.content if response.is_stream_consumed else None


def raw(response: httpx.Response) -> AsyncGenerator[bytes, None]:
    # It is a generator, though httpx promises less; one left in the middle has to be closed.
    return cast("AsyncGenerator[bytes, None]", response.aiter_raw())
