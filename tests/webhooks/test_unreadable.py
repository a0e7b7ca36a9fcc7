"""Deliveries that are genuine and yet no notification: with a durable store they are kept aside, not refused.

The vendor repeats what is answered with an error (webhooks disclaimers), and it would be as unreadable each time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from connector_async.errors import RemoteProtocolError
from connector_async.store import Admission, ConversationRecord, SqliteStore
from connector_async.webhooks import AppRecord, Router, WebhookSettings
from connector_async.webhooks import receiver as receiver_module
from connector_async.webhooks.events import DeliveryDead, DeliveryRefused
from connector_async.wire import ContentEvent
from tests.webhooks.rig import ACCOUNT, APP, chat_state, content, encoded, headers_for, notification, post, rig
from tests.webhooks.test_dispatcher import DurableInMemory, order_of, recording

pytestmark = pytest.mark.anyio

FAST = WebhookSettings(poll_interval=0.01, gap_timeout=0.05, retry_pause=0.0)


async def test_what_is_signed_but_no_notification_is_kept_aside_once_and_answered_with_200(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Counted, logged, told to the hooks, and there for a person to look at."""
    store = SqliteStore(tmp_path / "store.db")
    async with rig(store=store, settings=FAST) as worker:
        for _ in range(3):
            assert await post(worker.app, b'["new"]') == 200
            await worker.quiet()
        (dead,) = await store.dead_deliveries(ACCOUNT)
        assert (dead.body, dead.reason) == (b'["new"]', "unreadable")
        assert len(worker.port.emitted_of(DeliveryDead)) == 1
        assert worker.port.emitted_of(DeliveryRefused) == []
        stats = worker.dispatcher.stats()
        assert (stats.unreadable, stats.dead, stats.duplicates, stats.refused) == (3, 1, 2, 0)
        assert "given up after 1 attempts: unreadable" in caplog.text
        assert await post(worker.app, b'["new"]', headers_for(b'["new"]', "forged")) == 401
    await store.aclose()


async def test_it_is_kept_aside_too_when_the_secrets_had_to_be_read_again_first() -> None:
    """A rotation must not turn it into a 400."""
    store = DurableInMemory()

    async def reload(account_id: str) -> bool:
        worker.port.records = [AppRecord(account_id=ACCOUNT, client_id=APP, secret="rotated")]
        return True

    async with rig(store=store, settings=FAST, reload_secrets=reload) as worker:
        assert await post(worker.app, b"[]", headers_for(b"[]", "rotated")) == 200
        await worker.quiet()
        assert worker.dispatcher.stats().dead == 1


async def test_what_cannot_be_kept_is_left_to_the_vendor() -> None:
    """503 while the store is down or full: the event is not lost by us."""
    store = DurableInMemory()
    async with rig(store=store, settings=FAST) as worker:
        store.is_down = True
        assert await post(worker.app, b"[]") == 503
    full = DurableInMemory(max_entries=1)
    await full.put_delivery(ACCOUNT, key="k", lane="c", body=b"", received_at=1.0)
    async with rig(store=full) as worker:
        worker.dispatcher._durable.stop()
        assert await post(worker.app, b"[]") == 503


async def test_revived_it_is_read_once_more_and_all_of_its_events_are_handled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As after an update of the library that can read it."""
    router, store = Router(), DurableInMemory()
    got = recording(router, ContentEvent)
    body = encoded(notification(content("c", 0), chat_state("c"), content("c", 1)))
    async with rig(router, store=store, settings=FAST) as worker:
        with monkeypatch.context() as old_version:
            old_version.setattr(receiver_module, "decode_notification", _cannot_read)
            assert await post(worker.app, body) == 200
            await worker.quiet()
        assert got == []
        (dead,) = await store.dead_deliveries(ACCOUNT)
        answers = iter([Admission.FULL])
        put = store.put_delivery

        async def full_at_first(account_id: str, **facts: Any) -> Any:
            return next(answers, None) or await put(account_id, **facts)

        monkeypatch.setattr(DurableInMemory, "put_delivery", staticmethod(full_at_first))
        assert await store.revive_delivery(ACCOUNT, dead.key)
        worker.dispatcher._durable.wake()
        await worker.quiet()
    assert order_of(got, "c") == [0, 1]
    assert next(answers, None) is None, "it was tried again"


@pytest.mark.parametrize(
    ("body", "conversation"),
    [
        (b'{"new": [{"convId" : "c-1", "text": "secret"}, {"convId": "c-2"}]}', "c-1"),
        (b'{"conversationId":"c-1"', "c-1"),
        (b'{"conversationId":"", "text":"c-1"}', ""),
    ],
)
async def test_it_is_forgotten_with_the_consumer_whose_conversation_it_names(
    tmp_path: Path, body: bytes, conversation: str
) -> None:
    """Although nobody could read it; what names none stays until others push it out."""
    store = SqliteStore(tmp_path / "store.db")
    await store.put_conversation(
        ConversationRecord(account_id=ACCOUNT, conversation_id="c-1", ext_consumer_id="anna")
    )
    async with rig(store=store, settings=FAST) as worker:
        assert await post(worker.app, body) == 200
        await worker.quiet()
        assert [dead.conversation_id for dead in worker.port.emitted_of(DeliveryDead)] == [conversation]
        await store.forget(ACCOUNT, "anna")
        assert len(await store.dead_deliveries(ACCOUNT)) == (not conversation)
    await store.aclose()


def _cannot_read(raw: bytes) -> Any:
    raise RemoteProtocolError("no notification of this version")
