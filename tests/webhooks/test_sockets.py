"""Real HTTP through uvicorn and FastAPI: doubles and disorder come out once and in order."""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from anyio.abc import SocketStream

from connector_async.webhooks import Incoming, Router, WebhookApp, WebhookSettings
from connector_async.wire import ContentEvent
from tests.webhooks.rig import content, encoded, headers_for, notification, rig, until

pytestmark = pytest.mark.anyio

CONVERSATIONS, NOTIFICATIONS, DOUBLES, WINDOW, CONNECTIONS = 50, 10_000, 2_000, 20, 10


@pytest.mark.no_cover
async def test_w5_ten_thousand_notifications_with_doubles_and_disorder_reach_the_handlers_once_and_in_order() -> None:
    """20 % doubles, random order within a window of 20 (issue of the webhooks, shown by)."""
    router, rng = Router(), random.Random(11)
    got: dict[str, list[int | None]] = {}

    @router.on(ContentEvent)
    async def note(message: Incoming[ContentEvent]) -> None:
        got.setdefault(message.conversation_id, []).append(message.sequence)
        assert not message.after_gap
        assert not message.is_late

    deliveries = _shaken(rng)
    assert len(deliveries) == NOTIFICATIONS + DOUBLES
    # What a busy machine makes of a window of 20 is not what is looked at: nothing is given up for slowness.
    async with rig(router, settings=WebhookSettings(gap_timeout=60.0)) as worker, _served(worker.app) as port:
        with anyio.fail_after(60):
            async with anyio.create_task_group() as senders:
                for number in range(CONNECTIONS):
                    senders.start_soon(_send, port, deliveries[number::CONNECTIONS])
        await worker.quiet()
        stats = worker.dispatcher.stats()
    each = NOTIFICATIONS // CONVERSATIONS
    assert got == {f"c{number}": list(range(each)) for number in range(CONVERSATIONS)}
    assert (stats.handled, stats.duplicates, stats.gaps, stats.late) == (NOTIFICATIONS, DOUBLES, 0, 0)


def _shaken(rng: random.Random) -> list[bytes]:
    """Whole requests: each event once, some twice, none more than a window away from its place in its dialog."""
    each = NOTIFICATIONS // CONVERSATIONS
    chosen = set(rng.sample(range(NOTIFICATIONS), DOUBLES))
    placed: list[tuple[float, bytes]] = []
    for number in range(NOTIFICATIONS):
        conversation, sequence = divmod(number, each)
        request = _request(f"c{conversation}", sequence)
        placed += [(sequence + rng.uniform(0, WINDOW), request) for _ in range(1 + (number in chosen))]
    return [request for _, request in sorted(placed, key=lambda one: one[0])]


def _request(conversation: str, sequence: int) -> bytes:
    body = encoded(notification(content(conversation, sequence)))
    lines = ["POST /webhooks HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers_for(body).items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def _send(port: int, requests: list[bytes]) -> None:
    """One after the other on a connection that stays."""
    async with await anyio.connect_tcp("127.0.0.1", port) as stream:
        for request in requests:
            await stream.send(request)
            await _expect_200(stream)


async def _expect_200(stream: SocketStream) -> None:
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        answer += await stream.receive()
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"content-length: 0\r\n" in answer.lower()


@contextlib.asynccontextmanager
async def _served(app: WebhookApp) -> AsyncIterator[int]:
    """The app in FastAPI on uvicorn; the port."""
    import fastapi
    import uvicorn

    api = fastapi.FastAPI()
    api.add_route("/webhooks", app.endpoint, methods=["POST"])
    server = uvicorn.Server(uvicorn.Config(api, port=0, lifespan="off", log_config=None, access_log=False))
    _leave_signals(server)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.serve)
        await until(lambda: server.started)
        yield server.servers[0].sockets[0].getsockname()[1]
        server.should_exit = True


def _leave_signals(server: Any) -> None:
    """Those of the test run are not the server's."""
    server.capture_signals = contextlib.nullcontext
