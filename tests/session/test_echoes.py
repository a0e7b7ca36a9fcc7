"""An echo that went to another worker settles the message it belongs to, and not another one with the same words."""

from __future__ import annotations

import json
from typing import Any

import anyio
import pytest

from connector_async import MemoryStore, OutcomeStatus, Outgoing, RetryPolicy
from connector_async.sandbox import Latency, Reset, Sandbox
from connector_async.wire import Notification, parse_notification

pytestmark = pytest.mark.anyio

POLICY = RetryPolicy.vendor(unknown="report")


class _Shared(MemoryStore):
    @property
    def durable(self) -> bool:
        return True


@pytest.mark.parametrize("has_landed", [True, False])
async def test_the_echo_of_an_earlier_message_with_the_same_words_proves_nothing(has_landed: bool) -> None:
    """An echo names no request. The message would be taken for accepted, and nobody would ever send it again."""
    store = _Shared()
    async with Sandbox(in_process=True, agent="silent") as cloud:
        async with cloud.session(store=store, retry=POLICY) as one, cloud.session(store=store) as other:
            one.webhook_app()
            cloud.deliver_to(other.webhook_app())
            conversation = await one.consumer("customer").open_conversation()
            first = await conversation.send_text("yes")
            await cloud.settle()
            cloud.fail_next(Reset(at="before", applied=has_landed))
            outcome = await one.send(Outgoing(conversation, "yes"))
            assert outcome.status is (OutcomeStatus.ACCEPTED if has_landed else OutcomeStatus.UNKNOWN)
            cloud.agent.reads(conversation.conversation_id)
            await cloud.settle()
            await first.read(timeout=5)


async def test_an_echo_that_comes_late_proves_nothing_of_a_later_message_with_the_same_words() -> None:
    """Who gets no answer says it again: of two in doubt one landed, and the other would be lost in silence."""
    late: list[Notification[Any]] = []

    async def hold(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        notification = parse_notification(json.loads((await receive())["body"]))
        assert isinstance(notification, Notification)
        late.append(notification)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async with Sandbox(in_process=True, agent="silent") as cloud, cloud.session(retry=POLICY) as session:
        session.webhook_app()
        conversation = await session.consumer("customer").open_conversation()
        cloud.deliver_to(hold)
        cloud.fail_next(Reset(at="before", applied=True))
        first = await session.send(Outgoing(conversation, "yes"))
        await cloud.settle()
        (echo,) = late
        cloud.fail_next(Reset(at="before", applied=False))
        second = await session.submit(Outgoing(conversation, "yes"))
        await anyio.sleep(1.0)
        await session.dispatch(echo)
        assert [first.status, (await second.outcome()).status] == [OutcomeStatus.UNKNOWN, OutcomeStatus.UNKNOWN]


async def test_a_message_that_is_refused_here_leaves_no_echo_to_wait_for() -> None:
    """The echo of the next one with the same words would be taken for its own, and that one for lost."""
    async with Sandbox(in_process=True, agent="silent") as cloud, cloud.session() as session:
        cloud.deliver_to(session.webhook_app())
        conversation = await session.consumer("customer").open_conversation()
        with pytest.raises(ValueError, match="timeout"):
            await conversation.send_text("yes", timeout=float("nan"))
        second = await conversation.send_text("yes")
        await cloud.settle()
        cloud.agent.reads(conversation.conversation_id)
        await cloud.settle()
        await second.read(timeout=5)


async def test_a_message_that_is_cancelled_before_it_was_sent_leaves_no_echo_to_wait_for() -> None:
    """It waits for its turn behind another one of its dialog; the echo of a later one is not its own."""
    async with Sandbox(in_process=True, agent="silent") as cloud, cloud.session() as session:
        cloud.deliver_to(session.webhook_app())
        conversation = await session.consumer("customer").open_conversation()
        cloud.fail_next(Latency(seconds=30.0))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(conversation.send_text, "first")
            await anyio.wait_all_tasks_blocked()
            with anyio.move_on_after(1.0) as scope:
                await conversation.send_text("yes")
            assert scope.cancelled_caught
            tasks.cancel_scope.cancel()
        second = await conversation.send_text("yes")
        await cloud.settle()
        cloud.agent.reads(conversation.conversation_id)
        await cloud.settle()
        await second.read(timeout=5)
