"""The core flow on every event loop, in process; on asyncio also over sockets and TLS."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import anyio.to_thread
import pytest

from connector_async import (
    Accounts,
    AppCredentials,
    ConnectorSession,
    ContentEvent,
    OutcomeStatus,
    Outgoing,
    SetUserProfile,
)
from connector_async.sandbox import Sandbox
from connector_async.testing import signed_headers
from connector_async.transport import PooledTransport
from tests.backends import ASYNCIO, EVERY_LOOP, TRIO, UVLOOP
from tests.doubles import FakeCloud, ScriptedTransport
from tests.session.rig import DOMAINS

pytestmark = pytest.mark.anyio

_CONSUMERS, _MESSAGES = 5, 40


async def _source() -> AsyncIterator[Outgoing[int]]:
    for number in range(_MESSAGES):
        yield Outgoing(f"customer-{number % _CONSUMERS}", f"text {number}", key=number)


async def _flow(cloud: Sandbox, session: ConnectorSession) -> None:
    """Open, send, send many, send for somebody who leaves, close."""
    with anyio.fail_after(60):
        conversation = await session.consumer("customer-42").open_conversation(skill_id="77")
        result = await conversation.send_text("Is my order on its way?")
        assert (result.sequence, len(result.attempts)) == (0, 1)
        async with conversation.typing():
            await conversation.mark_read(cloud.agent.says(conversation.conversation_id, "It is.") or 0)
        keys: list[int | None] = []
        async with session.send_many(_source(), concurrency=16) as outcomes:
            async for outcome in outcomes:
                assert outcome.status is OutcomeStatus.ACCEPTED
                keys.append(outcome.key)
        assert sorted(key for key in keys if key is not None) == list(range(_MESSAGES))
        for number in range(_CONSUMERS):
            mine = [key for key in keys if key is not None and key % _CONSUMERS == number]
            assert mine == sorted(mine)
        submission = await session.submit(Outgoing(conversation, ContentEvent.text_of("last words"), key="last"))
        assert (await submission.outcome()).status is OutcomeStatus.ACCEPTED
        assert await conversation.close() is not None
    assert session.pending() == ()
    assert not cloud.ledger.doubled("ms.PublishEvent")
    assert cloud.ledger.token_calls == 1


@pytest.mark.requirement("loops:core-flow")
@pytest.mark.parametrize("anyio_backend", EVERY_LOOP)
async def test_the_core_flow_runs_on_every_loop() -> None:
    """our design, section 4, decision 10: trio too wherever a transport for it exists."""
    async with Sandbox(in_process=True, agent="silent") as cloud, cloud.session() as session:
        await _flow(cloud, session)


@pytest.mark.parametrize("anyio_backend", EVERY_LOOP)
async def test_webhooks_come_back_on_every_loop() -> None:
    """Issue 6, item 4."""
    async with Sandbox(in_process=True, agent="silent") as cloud, cloud.session() as session:
        cloud.deliver_to(session.webhook_app())
        conversation = await session.consumer("customer").open_conversation()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_say, cloud, conversation.conversation_id)
            incoming = await conversation.wait_for(ContentEvent, timeout=10)
        assert incoming.text == "hello"
        cloud.agent.closes(conversation.conversation_id)
        await conversation.until_closed(timeout=10)
        await cloud.settle()


async def _say(cloud: Sandbox, conversation_id: str) -> None:
    cloud.agent.says(conversation_id, "hello")


@pytest.mark.requirement("loops:core-flow")
@pytest.mark.parametrize("anyio_backend", [ASYNCIO, UVLOOP])
@pytest.mark.parametrize("tls", [False, True], ids=["http", "tls"])
async def test_the_core_flow_runs_over_sockets(tls: bool) -> None:
    """our design, section 5: the pooled transport is the default on asyncio."""
    async with Sandbox(agent="silent", tls=tls) as cloud:
        async with cloud.session() as session:
            await _flow(cloud, session)


@pytest.mark.parametrize("anyio_backend", [ASYNCIO])
async def test_a_transport_of_ones_own_stays_open_and_serves_two_sessions() -> None:
    """our design, section 2: what you pass you close."""
    async with Sandbox(agent="silent", tls=True) as cloud:
        async with PooledTransport(ssl_context=cloud.ssl_context, max_connections=8) as transport:
            for name in ("first", "second"):
                async with cloud.session(transport=transport, ssl_context=None) as session:
                    conversation = await session.consumer(name).open_conversation()
                    await conversation.send_text("hello")
                    await conversation.close()


_MESSAGE: Any = Outgoing("customer", "hello")
_CALLS: dict[str, Callable[[ConnectorSession], Any]] = {
    "submit": lambda session: session.submit(_MESSAGE),
    "send": lambda session: session.send(_MESSAGE),
    "request": lambda session: session.request(SetUserProfile(), consumer="customer"),
    "batch": lambda session: session.batch([SetUserProfile()], consumer="customer"),
    "send_many": lambda session: session.send_many([_MESSAGE]).__aenter__(),
    "ensure": lambda session: session.consumer("customer").ensure_conversation(),
    "send_text": lambda session: session.consumer("customer").send_text("hello"),
    "dispatch": lambda session: session.dispatch(_MESSAGE),
}


@pytest.mark.parametrize("anyio_backend", [ASYNCIO, TRIO])
@pytest.mark.parametrize("call", _CALLS.values(), ids=_CALLS)
async def test_another_threads_loop_is_sent_away_with_what_to_do_instead(
    call: Callable[[ConnectorSession], Any],
) -> None:
    """A web framework's `def` endpoint with `asyncio.run` inside: what it put into the queue lay there for ever."""
    said: list[str] = []

    async def from_elsewhere() -> None:
        with pytest.raises(RuntimeError) as caught:
            await call(session)
        said.append(str(caught.value))

    async with Sandbox(in_process=True) as cloud, cloud.session() as session:
        thread = threading.Thread(target=lambda: asyncio.run(from_elsewhere()))
        thread.start()
        thread.join(5)
        assert len(said) == 1
        assert "another event loop; from a thread use `asyncio.run_coroutine_threadsafe(session.send(" in said[0]
        assert (await session.send(_MESSAGE)).status is OutcomeStatus.ACCEPTED
        assert cloud.ledger.applied_counts("ms.PublishEvent").total() == 1


async def test_a_submission_from_no_loop_at_all_is_sent_away_too() -> None:
    """Somebody steps a coroutine by hand in a thread."""
    async with Sandbox(in_process=True) as cloud, cloud.session() as session:
        caught: list[BaseException] = []

        def step() -> None:
            try:
                session.submit(_MESSAGE).send(None)
            except RuntimeError as error:
                caught.append(error)

        thread = threading.Thread(target=step)
        thread.start()
        thread.join(5)
        assert "another event loop" in str(caught[0])


_ENDS: dict[str, Callable[[Any], Any]] = {
    "leave": lambda session: session.__aexit__(None, None, None),
    "close": lambda session: session.aclose(),
    "remove": lambda accounts: accounts.remove("1"),
}


@pytest.mark.parametrize("anyio_backend", [ASYNCIO, TRIO])
@pytest.mark.parametrize("end", _ENDS)
async def test_it_cannot_be_ended_from_another_threads_loop(end: str) -> None:
    """Found by trial: both loops waited for ever. It stays open, for its own loop to leave it."""
    said: list[str] = []

    async def from_elsewhere() -> None:
        with pytest.raises(RuntimeError) as caught:
            await asyncio.wait_for(_ENDS[end](lives_here), 5)
        said.append(str(caught.value))

    async with Sandbox(in_process=True) as cloud:
        accounts = Accounts({"1": AppCredentials("client", "a-secret")}, transport=ScriptedTransport(FakeCloud()))
        async with cloud.session() as session, accounts:
            lives_here = accounts if end == "remove" else session
            await anyio.to_thread.run_sync(lambda: asyncio.run(from_elsewhere()))
            assert len(said) == 1
            assert "lives in another event loop: " in said[0]
            assert (await session.send(_MESSAGE)).status is OutcomeStatus.ACCEPTED
        await anyio.to_thread.run_sync(lambda: asyncio.run(session.aclose()))  # closed as it is


@pytest.mark.parametrize("anyio_backend", [ASYNCIO, TRIO])
@pytest.mark.parametrize("made", ["session", "accounts"])
async def test_a_webhook_app_that_another_loop_serves_says_so(made: str, caplog: pytest.LogCaptureFixture) -> None:
    """uvicorn in a thread of its own: events would lie in queues that nothing there wakes. The vendor comes again."""
    body = b'{"kind": "notification", "type": "ms.MessagingEventNotification", "body": {"changes": []}}'
    answers: list[int] = []

    async def serve() -> None:
        headers = signed_headers(body, secret="a-secret", account_id="1", client_id="client")
        answers.append((await app.handle(headers, body))[0])

    credentials, transport = AppCredentials("client", "a-secret"), ScriptedTransport(FakeCloud())
    one = ConnectorSession("1", credentials, transport=transport, domains=DOMAINS)
    many = Accounts({"1": credentials}, transport=transport, domains=DOMAINS)
    async with one, many:
        app = (one if made == "session" else many).webhook_app()
        await anyio.to_thread.run_sync(lambda: asyncio.run(serve()))
        await serve()
    assert answers == [500, 200]
    assert "lives in another event loop: " in caplog.text
