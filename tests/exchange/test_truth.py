"""The engine against the sandbox: what it believes of itself agrees with what the cloud saw."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import httpx
import pytest

from connector_async.domains import DomainSettings
from connector_async.errors import ConsumerTokenRefused, ConversationAlreadyOpen, ConversationClosed, Landed
from connector_async.exchange import Response
from connector_async.sandbox import Sandbox
from connector_async.transport import as_transport
from connector_async.wire import (
    ConsumerRequestConversation,
    ConversationStateField,
    SetUserProfile,
    UpdateConversationField,
)
from tests.exchange.rig import Rig, rig

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def truth(token_lifetime: float = 3_600.0) -> AsyncIterator[tuple[Sandbox, Rig]]:
    async with Sandbox(
        account_id="12345678",
        client_id="client",
        client_secret="secret",
        in_process=True,
        token_lifetime=token_lifetime,
    ) as cloud:
        transport, _ = as_transport(httpx.ASGITransport(cloud.app))
        domains = DomainSettings.of(cloud.domain_api)
        async with transport, rig(transport=transport, domains=domains, client=transport.client) as r:
            yield cloud, r


async def opened(r: Rig, consumer: str = "c1") -> str:
    call = r.call(SetUserProfile(), ConsumerRequestConversation(brand_id="12345678"), consumer=consumer, batch=True)
    told, conversation = await r.engine.run(call)
    assert isinstance(told, Response)
    assert isinstance(conversation, Response)
    return str(conversation.body.conversation_id)


async def test_a_conversation_is_opened_used_and_closed() -> None:
    """The whole way, with hosts looked up and tokens fetched."""
    async with truth() as (cloud, r):
        conversation = await opened(r)
        assert (await r.send(conversation)).body.sequence == 0
        await r.engine.run(r.call(UpdateConversationField(conversation, ConversationStateField())))
        error = await r.outcome(conversation)
        assert isinstance(error, ConversationClosed)
        assert (error.landed, error.code, error.status) == (Landed.NO, 400, 400)
        assert (cloud.ledger.token_calls, cloud.ledger.consumer_calls) == (1, 1)
        assert r.engine.counters.sequence_agrees == 1
        r.assert_quiet()


async def test_a_second_conversation_of_a_consumer_is_refused_and_the_profile_was_taken() -> None:
    """How-to guide: a partial failure."""
    async with truth() as (_, r):
        await opened(r)
        call = r.call(SetUserProfile(), ConsumerRequestConversation(brand_id="12345678"), batch=True)
        told, refused = await r.engine.run(call)
        assert isinstance(told, Response)
        assert isinstance(refused, ConversationAlreadyOpen)
        assert r.engine.counters.refused == 1


async def test_a_consumer_in_the_conversation_of_another_is_refused_without_a_loop() -> None:
    """Seed: 401 also for consumer A acting on the conversation of B."""
    async with truth() as (cloud, r):
        conversation = await opened(r)
        await r.send(conversation, consumer="c1")
        error = await r.outcome(conversation, consumer="c2")
        assert isinstance(error, ConsumerTokenRefused)
        assert 1 <= len(error.attempts) <= 3
        await r.send(conversation, consumer="c1")
        assert cloud.ledger.token_calls <= 2


async def test_c5_revoked_in_the_middle_of_many_the_ledger_sees_each_message_applied_once() -> None:
    """C5, counted by the cloud: one more token, nobody lost, nobody doubled."""
    async with truth() as (cloud, r):
        conversations = [await opened(r, f"c{number}") for number in range(20)]

        async def send(number: int) -> None:
            await r.send(conversations[number % 20], consumer=f"c{number % 20}", request_id=f"m-{number}")

        async with anyio.create_task_group() as tasks:
            for number in range(300):
                tasks.start_soon(send, number)
                if number == 150:
                    await anyio.sleep(0.001)
                    cloud.revoke_tokens()
        assert cloud.ledger.token_calls == 2
        assert [cloud.ledger.applied(f"m-{number}") for number in range(300)] == [1] * 300
        assert r.engine.counters.accepted == 320
        r.assert_quiet()


async def test_tokens_that_live_two_seconds_are_renewed_without_a_single_401() -> None:
    """The keeper is ahead of the cloud's clock."""
    async with truth(token_lifetime=2.0) as (cloud, r):
        conversation = await opened(r)
        for _ in range(5):
            await r.send(conversation)
        assert all(entry.status == 200 for entry in cloud.ledger.entries)
