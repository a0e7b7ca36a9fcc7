"""Uploads and their answers in any order: pieces, pauses, ends and cancellations at random."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import anyio
import httpx
import pytest

from tests.faults import answer
from tests.transport.wire import TARGET, Wire

pytestmark = pytest.mark.anyio

_RUNS = 500
_CHUNKED = b"HTTP/1.1 %s\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nthanks\r\n0\r\n\r\n"
_ANSWERS = (
    answer(b"thanks"),
    answer(b"thanks", status="413 Too Large"),
    answer(b"thanks", headers=b"Connection: close\r\n"),
    b"HTTP/1.1 103 Early\r\n\r\n" + answer(b"thanks"),
    _CHUNKED % b"200 OK",
    _CHUNKED % b"500 No",
    _CHUNKED % b"404 No",
)
_SURPLUS = (b"", b"", b"", b"\r\n", b"x", answer())


class _Upload:
    """One request whose body comes in parts, and the bytes that it should become."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._parts = [b"p" * chance.randint(0, 5) for _ in range(chance.randint(0, 4))]
        whole = b"".join(self._parts)
        framed = [b"%x\r\n%s\r\n" % (len(part), part) for part in self._parts if part]
        kind = chance.choice(("chunks", "parts", "bytes"))
        self.expected = b"".join((*framed, b"0\r\n\r\n")) if kind == "chunks" else whole
        headers = {"Content-Length": str(len(whole))} if kind == "parts" else {}
        content = whole if kind == "bytes" else self._body()
        self.request = httpx.Request("POST", TARGET.url, headers=headers, content=content)

    async def _body(self) -> AsyncIterator[bytes]:
        for part in (*self._parts, b""):
            await _turns(self._chance.randint(0, 6))
            yield part


async def _turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def _play(wire: Wire, task: asyncio.Task[httpx.Response], raw: bytes, chance: random.Random) -> bool:
    """The network's part: the answer in pieces, and what happens between them. Whether the connection was kept."""
    cuts = sorted(chance.sample(range(len(raw) + 1), chance.randint(0, 3)))
    for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True):
        await _turns(chance.randint(0, 4))
        match chance.randint(0, 30):
            case 0 | 1 | 2 if wire.connection.rider is not None:
                wire.connection.pause_writing()
            case 3 | 4 if wire.connection.is_write_paused:
                wire.connection.resume_writing()
            case 5:
                task.cancel()
            case 6:
                await chance.choice((wire.end, wire.lose))()
        if not wire.connection.is_discarded:
            await wire.feed(raw[start:end])
    await _turns(chance.randint(0, 20))
    if wire.connection.is_write_paused and not wire.line.is_aborted:
        wire.connection.resume_writing()
    await _turns(40)
    is_kept = wire.is_kept
    await wire.end()
    return is_kept


async def test_a_connection_is_kept_only_after_a_whole_request_and_a_whole_answer() -> None:
    """Seed by seed; one of them found that the end of a refused upload was missing on a connection that was kept."""
    kept = answered = 0
    for seed in range(_RUNS):
        chance = random.Random(seed)
        wire, upload, surplus = Wire(), _Upload(chance), chance.choice(_SURPLUS)
        task = wire.request(upload.request)
        is_kept = await _play(wire, task, chance.choice(_ANSWERS) + surplus, chance)
        with anyio.fail_after(60):
            await asyncio.wait([task])
        if not task.cancelled() and task.exception() is None:
            answered += 1
            assert task.result().content == b"thanks", seed
        elif not task.cancelled():
            assert isinstance(task.exception(), httpx.TransportError), seed
        if is_kept:
            kept += 1
            assert wire.line.written.partition(b"\r\n\r\n")[2] == upload.expected, seed
            assert not surplus, seed
            assert wire.connection.rider is None, seed
        await wire.transport.aclose()
    assert answered > _RUNS / 3
    assert kept > _RUNS / 10
