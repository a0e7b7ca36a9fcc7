"""What a second try of an event repeats, and what it must not."""

from __future__ import annotations

from typing import Any

import pytest

from connector_async.errors import StoreUnavailable
from connector_async.protocol.inbox import event_digest
from connector_async.webhooks import Ack, Incoming, Router, WebhookSettings
from connector_async.wire import ContentEvent, ConversationChange
from tests.webhooks.rig import ACCOUNT, Json, change, content, notification, rig
from tests.webhooks.test_dispatcher import DurableInMemory

pytestmark = pytest.mark.anyio

FAST = WebhookSettings(poll_interval=0.01, retry_pause=0.0)


@pytest.mark.parametrize("ack", ["queued", "stored", "handled"])
@pytest.mark.parametrize(
    "message", [notification(content("c", 0)), change("c", 1_700_000_000_000)], ids=["event", "change"]
)
async def test_only_the_handler_that_failed_is_called_again(ack: Ack, message: Json) -> None:
    """With `queued`, found by reading: all were, and a conversation change was dropped as a double instead."""
    calls: list[tuple[str, int]] = []
    router = Router()

    @router.on(ContentEvent, ConversationChange)
    async def succeed(incoming: Incoming[Any]) -> None:
        calls.append(("succeed", incoming.attempt))

    @router.on(ContentEvent, ConversationChange)
    async def fail_at_first(incoming: Incoming[Any]) -> None:
        calls.append(("fail", incoming.attempt))
        if incoming.attempt == 1:
            raise LookupError

    async with rig(router, store=DurableInMemory(), settings=FAST, ack=ack) as worker:
        assert await worker.post(message) == 200
        await worker.quiet()
        assert calls == [("succeed", 1), ("fail", 1), ("fail", 2)]
        assert len(worker.port.observed) == 1, "who listens to the conversation is not told again"


async def test_the_session_takes_note_again_if_that_was_what_failed() -> None:
    """A session that could not take note of an event is to do so at the next attempt."""
    router = Router()
    async with rig(router, store=DurableInMemory(), settings=FAST) as worker:
        take_note = worker.port.observe

        def fail(incoming: Incoming[Any]) -> bool:
            take_note(incoming)
            worker.port.observe = take_note  # type: ignore[method-assign]
            raise LookupError

        worker.port.observe = fail  # type: ignore[method-assign]
        assert await worker.deliver(content("c", 0)) == [200]
        await worker.quiet()
        assert [incoming.attempt for incoming in worker.port.observed] == [1, 2]


async def test_what_could_not_be_left_for_others_is_left_at_the_next_attempt() -> None:
    """An echo that another worker may be waiting for."""

    class Failing(DurableInMemory):
        failures = 1

        async def put_echo(self, *facts: Any, **named: Any) -> None:
            self.failures -= 1
            if self.failures >= 0:
                raise StoreUnavailable("the disk is full")
            await super().put_echo(*facts, **named)

    store = Failing()
    async with rig(store=store, settings=FAST) as worker:
        assert await worker.deliver(content("c", 0, "mine", role="CONSUMER")) == [200]
        await worker.quiet()
        digest = event_digest({"type": "ContentEvent", "contentType": "text/plain", "message": "mine"})
        assert await store.take_echo(ACCOUNT, "c", digest) == (True, 0)
