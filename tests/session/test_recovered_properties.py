"""A conversation that a webhook names before any answer does still carries the `client_properties` of its opening."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx
import pytest

from connector_async import (
    ClientProperties,
    ConnectorSession,
    Conversation,
    Feature,
    Incoming,
    MemoryStore,
    Opening,
    OutcomeUnknown,
    RetryPolicy,
    Router,
    SessionLimits,
)
from connector_async.exchange.desk import ClientPropertiesHeader
from connector_async.sandbox import Reset, Sandbox
from connector_async.webhooks import WebhookApp
from connector_async.wire import ConversationChange
from tests.doubles import FakeCloud
from tests.session.rig import session_over

pytestmark = [pytest.mark.anyio, pytest.mark.requirement("client-properties:every-call")]

PROPERTIES = ClientProperties(features=[Feature.RICH_CONTENT])
OPENING = Opening(client_properties=PROPERTIES)
HEADER = PROPERTIES.to_header()


class Watching(httpx.AsyncBaseTransport):
    """Notes the `Client-Properties` of each call of a conversation."""

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self.inner = inner
        self.seen: list[str | None] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if "/messaging/" in request.url.path:
            self.seen.append(request.headers.get("client-properties"))
        return await self.inner.handle_async_request(request)


class Late:
    """An endpoint that says 200 and passes the deliveries on when it is told to."""

    def __init__(self) -> None:
        self._held: list[tuple[Any, bytes]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        self._held.append((scope["headers"], message["body"]))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def deliver(self, app: WebhookApp) -> None:
        """Pass on what came, and let it be handled."""
        for headers, body in self._held:
            assert await app.handle(headers, body) == (200, b"")
        await anyio.sleep(1)


@asynccontextmanager
async def hearing(cloud: Sandbox, **options: Any) -> AsyncIterator[tuple[ConnectorSession, Watching]]:
    """A session whose webhooks are connected, and whose calls are watched."""
    transport = Watching(httpx.ASGITransport(cloud.app))
    async with cloud.session(transport=transport, **options) as session:
        cloud.deliver_to(session.webhook_app())
        yield session, transport


def replying() -> Router:
    """A bot that says something as soon as it hears of a conversation."""
    router = Router()

    @router.on(ConversationChange)
    async def say(message: Incoming[ConversationChange]) -> None:
        await message.conversation.send_text("hello")

    return router


async def test_a_create_whose_answer_is_lost_keeps_them_for_all_later_calls() -> None:
    """The first attempt opens it, the second is told that there is one, and a webhook names it."""
    store = MemoryStore()
    async with Sandbox(in_process=True, agent="silent") as cloud, hearing(cloud, store=store) as (session, calls):
        await session.consumer("warm").open_conversation(client_properties=PROPERTIES)
        cloud.fail_next(Reset(at="before", applied=True), endpoint="conversation")
        await session.consumer("customer").send_text("hello", opening=OPENING)
        await cloud.settle()
        assert set(calls.seen) == {HEADER}
        kept = await store.get_open_conversation(cloud.account_id, "customer")
        assert kept is not None
        assert kept.client_properties == HEADER


async def test_a_handler_that_speaks_before_the_opening_is_answered_sends_them() -> None:
    """A notification may overtake the answer."""
    async with Sandbox(in_process=True, agent="silent") as cloud:
        async with hearing(cloud, router=replying()) as (session, calls):
            cloud.fail_next(Reset(at="before", applied=True), endpoint="conversation")
            conversation = await session.consumer("customer").ensure_conversation(OPENING)
            await cloud.settle()
            await conversation.send_text("bye")
            assert set(calls.seen) == {HEADER}
            assert len(calls.seen) >= 4


async def test_an_opening_of_unknown_outcome_has_them_when_it_turns_up() -> None:
    """However long after the failure the webhook comes."""
    late = Late()
    async with Sandbox(in_process=True, agent="silent") as cloud:
        async with hearing(cloud, retry=RetryPolicy.none()) as (session, calls):
            cloud.deliver_to(late)
            cloud.fail_next(Reset(at="before", applied=True), endpoint="conversation")
            with pytest.raises(OutcomeUnknown):
                await session.consumer("customer").open_conversation(client_properties=PROPERTIES)
            await cloud.settle()
            await anyio.sleep(600)
            await late.deliver(session.webhook_app())
            await session.consumer("customer").send_text("hello")
            assert calls.seen == [HEADER, HEADER]


async def test_a_worker_that_knows_only_the_store_takes_them_from_the_opening() -> None:
    """A web process heard of the conversation, and knows nothing of the worker that died while it opened it."""
    store = MemoryStore()
    async with Sandbox(in_process=True, agent="silent") as cloud:
        async with hearing(cloud, store=store):
            async with cloud.session(store=store, retry=RetryPolicy.none()) as dying:
                cloud.fail_next(Reset(at="before", applied=True), endpoint="conversation")
                with pytest.raises(OutcomeUnknown):
                    await dying.consumer("customer").open_conversation(client_properties=PROPERTIES)
            await cloud.settle()
        async with hearing(cloud, store=store) as (heir, calls):
            await heir.consumer("customer").send_text("hello", opening=OPENING)
            assert calls.seen == [HEADER]
            kept = await store.get_open_conversation(cloud.account_id, "customer")
            assert kept is not None
            assert kept.client_properties == HEADER
            await cloud.settle()


async def test_a_handle_that_a_webhook_made_takes_them_from_the_opening() -> None:
    """The heir hears, too, and its handler holds the handle before the message comes."""
    held: list[Conversation] = []
    router, store, late = Router(), MemoryStore(), Late()

    @router.on(ConversationChange)
    async def hold(message: Incoming[ConversationChange]) -> None:
        held.append(message.conversation)

    async with Sandbox(in_process=True, agent="silent") as cloud:
        cloud.deliver_to(late)
        async with cloud.session(store=store, retry=RetryPolicy.none()) as dying:
            cloud.fail_next(Reset(at="before", applied=True), endpoint="conversation")
            with pytest.raises(OutcomeUnknown):
                await dying.consumer("customer").open_conversation(client_properties=PROPERTIES)
        await cloud.settle()
        async with hearing(cloud, store=store, router=router) as (heir, calls):
            await late.deliver(heir.webhook_app())
            conversation = heir.conversation(held[0].conversation_id, "customer", client_properties=PROPERTIES)
            assert conversation is held[0]
            await conversation.send_text("hello")
            other = ClientProperties(features=[Feature.CO_BROWSE])
            assert heir.conversation(held[0].conversation_id, "customer", client_properties=other) is conversation
            await conversation.send_text("as it was opened")
            assert calls.seen == [HEADER, HEADER]
            await cloud.settle()


async def test_a_message_with_its_opening_tells_them_where_only_a_webhook_has_named_the_conversation() -> None:
    """The heir of a pump that died, which hears before it sends."""
    store, late = MemoryStore(), Late()
    async with Sandbox(in_process=True, agent="silent") as cloud:
        cloud.deliver_to(late)
        async with cloud.session(store=store, retry=RetryPolicy.none()) as dying:
            cloud.fail_next(Reset(at="before", applied=True), endpoint="conversation")
            with pytest.raises(OutcomeUnknown):
                await dying.consumer("customer").open_conversation(client_properties=PROPERTIES)
        await cloud.settle()
        async with hearing(cloud, store=store) as (heir, calls):
            await late.deliver(heir.webhook_app())
            await heir.consumer("customer").send_text("hello", opening=OPENING)
            await heir.consumer("customer").send_text("again")
            assert calls.seen == [HEADER, HEADER]
            await cloud.settle()


async def test_openings_that_failed_are_remembered_within_bounds() -> None:
    """Those of the consumers that tried last."""
    async with session_over(FakeCloud(), limits=SessionLimits(max_cached_consumers=2)) as session:
        handles = session._handles
        header = ClientPropertiesHeader(PROPERTIES)
        for name in ("anna", "bert", "anna", "carl"):
            handles.note_opening(name, header)
        assert [handles.opened_with(name) for name in ("anna", "bert", "carl")] == [header, None, header]
        handles.note_opening("carl", None)
        assert handles.opened_with("carl") is None
        await session.consumer("anna").open_conversation(client_properties=PROPERTIES)
        assert handles.opened_with("anna") is None
