"""The guard against two bots that answer each other counts events, not how often it sees them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from connector_async.hooks import Event, Hooks, LoopSuspected
from connector_async.session._loop_guard import LoopGuard
from connector_async.store import Store
from connector_async.webhooks import Incoming, Router, WebhookSettings
from connector_async.wire import ContentEvent
from tests.webhooks.rig import Json, Rig, StubConversation, content, rig
from tests.webhooks.test_dispatcher import DurableInMemory

pytestmark = pytest.mark.anyio

HANDLERS = 3


class Speaking(StubConversation):
    """One in which we say something between any two looks."""

    said_so_far = 0

    @property
    def published(self) -> int:
        self.said_so_far += 1
        return self.said_so_far


class Guarded:
    """Handlers behind a guard, and what the guard told."""

    def __init__(self, worker: Rig, told: list[Event]) -> None:
        self.worker = worker
        self.told = told
        self.heard: list[Incoming[Any]] = []

    async def hear(self, *changes: Json) -> float:
        """Deliver them; seconds until all are handled."""
        before = anyio.current_time()
        assert set(await self.worker.deliver(*changes)) == {200}
        while self.worker.dispatcher.stats().waiting:  # noqa: ASYNC110 - nobody tells
            await anyio.sleep(0.01)
        return anyio.current_time() - before


@asynccontextmanager
async def guarded(store: Store | None = None, *, fails: int = 0) -> AsyncIterator[Guarded]:
    """Three handlers of texts, the last of which fails so often."""
    router, told = Router(), list[Event]()
    router.middleware(LoopGuard(Hooks([told.append])))
    settings = WebhookSettings(retry_pause=0.01, max_retry_pause=0.01, poll_interval=0.01, max_attempts=100)
    async with rig(router, store=store, settings=settings) as worker:
        worker.port.conversations["c"] = Speaking("c")
        it = Guarded(worker, told)
        for number in range(HANDLERS):

            @router.on(ContentEvent)
            async def handle(message: Incoming[ContentEvent], number: int = number) -> None:
                it.heard.append(message)
                if number == HANDLERS - 1 and message.attempt <= fails:
                    raise LookupError

        yield it


@pytest.mark.parametrize("with_number", [True, False])
@pytest.mark.parametrize("with_time", [True, False])
async def test_an_event_counts_once_however_many_handlers_want_it(with_time: bool, with_number: bool) -> None:
    """Also where it has neither a time nor a number: found by reading, it counted once for each."""
    async with guarded() as it:
        texts = [
            content(
                "c",
                number if with_number else None,
                serverTimestamp=1_700_000_000_000 + number if with_time else None,
            )
            for number in range(30)
        ]
        assert await it.hear(*texts[:-1]) < 5
        assert len(it.heard) == 29 * HANDLERS
        assert it.told == []
        assert 60 <= await it.hear(texts[-1]) < 65
        assert [type(event) for event in it.told] == [LoopSuspected]
        assert len(it.heard) == 30 * HANDLERS


async def test_an_event_that_is_tried_again_does_not_count_again() -> None:
    """Found by reading: it did where another one had come in between."""
    async with guarded(DurableInMemory(), fails=20) as it:
        assert await it.hear(content("c", 0), content("c", 1)) < 5
        await it.worker.quiet()
        assert len(it.heard) >= 2 * 20
        assert it.told == []
