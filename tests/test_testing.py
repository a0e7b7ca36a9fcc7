"""What `connector_async.testing` gives to the tests of those who use us."""

from __future__ import annotations

import anyio
import pytest

from connector_async import ContentEvent, Incoming, Router, hooks
from connector_async.testing import ManualClock, Sandbox, clock, cloud, sign, signed_headers
from connector_async.webhooks import WebhookReceiver
from tests.backends import VIRTUAL

__all__ = ["clock", "cloud"]

pytestmark = pytest.mark.anyio

router = Router()


@router.on(ContentEvent)
async def answer(message: Incoming[ContentEvent]) -> None:
    await message.reply(f"You said {message.text}")


@pytest.mark.requirement("testing:plugin")
async def test_a_bot_is_tested_without_a_socket(cloud: Sandbox) -> None:
    """Issue 6, item 6."""
    async with cloud.session(router=router) as session:
        cloud.deliver_to(session.webhook_app())
        conversation = await session.consumer("shopper").ensure_conversation()
        cloud.agent.says(conversation.conversation_id, "hello")
        assert await cloud.agent.hears(conversation.conversation_id) == "You said hello"
        await cloud.settle()


async def test_handlers_are_tested_by_dispatching(cloud: Sandbox) -> None:
    """our design, section 2: dispatch returns when the handlers are done."""
    from connector_async.wire import parse_notification

    async with cloud.session(router=router) as session:
        conversation = await session.consumer("shopper").ensure_conversation()
        change = {
            "sequence": 0,
            "originatorId": "agent",
            "originatorMetadata": {"id": "agent", "role": "ASSIGNED_AGENT"},
            "event": {"type": "ContentEvent", "contentType": "text/plain", "message": "hi"},
            "conversationId": conversation.conversation_id,
            "dialogId": conversation.dialog_id,
        }
        notification = parse_notification(
            {"kind": "notification", "type": "ms.MessagingEventNotification", "body": {"changes": [change]}}
        )
        assert not isinstance(notification, list)
        dispatched = await session.dispatch(notification)
        assert (dispatched.events, dispatched.errors) == (1, ())
        assert session.stats().accepted == 2


async def test_an_old_feed_without_roles_still_reaches_the_handlers(cloud: Sandbox) -> None:
    """What live systems do: older feeds lack `originatorMetadata` and `conversationId`."""
    from connector_async.wire import parse_notification

    async with cloud.session(router=router) as session:
        conversation = await session.consumer("shopper").ensure_conversation()
        change = {
            "sequence": 0,
            "originatorId": "agent",
            "event": {"type": "ContentEvent", "contentType": "text/plain", "message": "hi"},
            "dialogId": conversation.dialog_id,
        }
        notification = parse_notification(
            {"kind": "notification", "type": "ms.MessagingEventNotification", "body": {"changes": [change]}}
        )
        assert not isinstance(notification, list)
        await session.dispatch(notification)
        assert session.stats().accepted == 2  # the opening, and the handler's reply


async def test_the_clock_moves_by_hand(cloud: Sandbox, clock: ManualClock) -> None:
    """Issue 6, item 6."""
    async with cloud.session() as session:
        conversation = await session.consumer("shopper").ensure_conversation()
        clock.advance(7200)  # the cloud's clock: the token is refused as expired, and renewed
        await conversation.send_text("two hours later")
        assert session.stats().tokens_fetched == 2
    with pytest.raises(ValueError, match="backwards"):
        clock.advance(-1)


@pytest.mark.parametrize("algorithm", ["sha1", "sha256"])
def test_what_is_signed_is_believed(algorithm: str) -> None:
    """Webhooks notification protocol."""
    body = '{"kind":"notification","type":"x","body":{"text":"naïve 😀"}}'.encode()
    headers = signed_headers(body, account_id="1", client_id="c", secret="s", algorithm=algorithm)
    assert WebhookReceiver("s").verify(headers, body).account_id == "1"
    assert headers["x-liveperson-signature"] == sign(body, "s", algorithm)


@pytest.mark.requirement("bots:loop-guard")
@pytest.mark.parametrize("anyio_backend", [VIRTUAL])
async def test_two_bots_that_answer_each_other_are_slowed_down() -> None:
    """Issue 6, item 6."""
    events: list[hooks.Event] = []
    async with Sandbox(in_process=True, agent="echo", moment=0.01) as echo:
        async with echo.session(router=router, hooks=[events.append], drain=0.0) as session:
            echo.deliver_to(session.webhook_app())
            conversation = await session.consumer("shopper").ensure_conversation()
            await conversation.send_text("hello")
            await anyio.sleep(30)
            told = [event for event in events if isinstance(event, hooks.LoopSuspected)]
            assert len(told) == 1
            assert session.stats().accepted < 100
