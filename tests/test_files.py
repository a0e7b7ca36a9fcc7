"""The storage as foreign transports show it: whatever they raise, the caller sees an error of ours."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import anyio
import httpx
import pytest

from connector_async import Conversation
from connector_async.errors import DeadlineExceeded, NotSent
from connector_async.sandbox import Sandbox
from tests.backends import VIRTUAL

pytestmark = pytest.mark.anyio

PNG = b"\x89PNG\r\n\x1a\n" + b"x" * 100


class _Broken(httpx.AsyncByteStream):
    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield PNG
        raise OSError("the cable")


class _Odd(httpx.AsyncBaseTransport):
    """Raises what is none of httpx's errors, for the storage alone; or answers with a length of many digits."""

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self.inner = inner
        self.failures: list[Exception] = []
        self.answer: httpx.Response | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.startswith("/v1/"):
            if self.failures:
                raise self.failures.pop()
            if self.answer is not None:
                return self.answer
        return await self.inner.handle_async_request(request)


@asynccontextmanager
async def _stored() -> AsyncGenerator[tuple[_Odd, Conversation, str]]:
    """A file that was sent, and its path in the storage."""
    async with Sandbox(in_process=True, agent="silent") as cloud:
        odd = _Odd(httpx.ASGITransport(cloud.app))
        async with cloud.session(transport=odd) as session:
            conversation = await session.consumer("customer").open_conversation()
            await conversation.send_file(PNG)
            said = cloud.agent.conversation(conversation.conversation_id).main.transcript[-1]
            yield odd, conversation, str(said["event"]["message"]["relativePath"])


async def test_an_error_of_somebody_elses_transport_is_told_as_not_sent() -> None:
    """Locks a bug: such an error came out as it was."""
    async with _stored() as (odd, conversation, path):
        odd.failures = [OSError("once"), RuntimeError("twice")]
        await conversation.send_file(PNG)
        odd.failures = [RuntimeError("x")] * 3
        with pytest.raises(NotSent, match=r"does not answer \(RuntimeError\)") as caught:
            await conversation.send_file(PNG)
        assert isinstance(caught.value.__cause__, RuntimeError)
        odd.failures = [OSError("x")]
        with pytest.raises(NotSent, match="OSError"):
            async with conversation.download_file(path):
                raise AssertionError("it must not be entered")
        odd.answer = httpx.Response(200, stream=_Broken())
        with pytest.raises(NotSent, match=r"broke off after 108 bytes \(OSError\)"):
            async with conversation.download_file(path) as download:
                await download.read()


async def test_a_length_of_many_digits_is_no_length() -> None:
    """Python converts 4,300 digits at most, and raises a ValueError beyond."""
    async with _stored() as (odd, conversation, path):
        odd.answer = httpx.Response(200, headers={"Content-Length": "9" * 5000}, content=PNG)
        async with conversation.download_file(path) as download:
            assert download.size is None
            assert await download.read() == PNG


class _Slow(httpx.AsyncByteStream):
    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield PNG
        await anyio.sleep_forever()


@pytest.mark.parametrize("anyio_backend", [VIRTUAL])
async def test_a_storage_that_stops_in_the_middle_is_waited_for_within_bounds() -> None:
    """Found by reading: a download had no time limit of its own. What the caller does with a part is not cut off."""
    async with _stored() as (odd, conversation, path):
        odd.answer = httpx.Response(200, stream=_Slow())
        with pytest.raises(DeadlineExceeded, match="before the whole file had come"), anyio.fail_after(50):
            async with conversation.download_file(path, timeout=2.0) as download:
                async for part in download:
                    await anyio.sleep(3.0)
                    assert part == PNG
        with pytest.raises(DeadlineExceeded):
            async with conversation.download_file(path, timeout=0):
                raise AssertionError("it must not be entered")
