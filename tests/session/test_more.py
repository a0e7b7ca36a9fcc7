"""Corners of the session: vaults, adopted conversations, the small server, storages and stores that fail."""

from __future__ import annotations

import asyncio
import builtins
import importlib
import json
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import anyio
import anyio.lowlevel
import httpx
import pytest

from connector_async import (
    AcceptStatus,
    Accounts,
    AppCredentials,
    ConfigurationError,
    ConnectorSession,
    ContentEvent,
    Conversation,
    ConversationAlreadyOpen,
    ConversationClosed,
    DeadlineExceeded,
    Incoming,
    MemoryStore,
    NotSent,
    OutcomeStatus,
    OutcomeUnknown,
    Outgoing,
    RetryPolicy,
    Router,
    SessionClosed,
)
from connector_async._files import FileDownload
from connector_async._receipts import ReceiptBook
from connector_async.errors import StoreUnavailable
from connector_async.sandbox import Latency, Reset, Sandbox
from connector_async.store import ConversationRecord
from connector_async.testing import signed_headers
from connector_async.transport import PooledTransport
from connector_async.webhooks import Unclaimed
from tests.backends import ASYNCIO
from tests.doubles import ScriptedTransport
from tests.session.rig import DOMAINS, FakeCloud, session_over

pytestmark = pytest.mark.anyio

PNG = b"\x89PNG\r\n\x1a\n" + b"0" * 100


# Credentials and webhooks


async def test_deliveries_are_verified_before_the_first_send_where_a_callable_gives_the_secret() -> None:
    """our design, section 2: credentials may be an async callable."""
    heard: list[str] = []
    router = Router()

    @router.on(ContentEvent)
    async def listen(incoming: Incoming[ContentEvent]) -> None:
        heard.append(incoming.text)

    store = MemoryStore()
    async with Sandbox(in_process=True, agent="silent") as cloud:
        async with cloud.session(store=store) as session:
            conversation = await session.consumer("customer").open_conversation()

        async def vault() -> AppCredentials:
            return cloud.credentials

        transport = httpx.ASGITransport(cloud.app)
        session = ConnectorSession(
            cloud.account_id, vault, domains=cloud.url, transport=transport, store=store, router=router
        )
        app = session.webhook_app()
        async with session:
            await anyio.sleep(1)
            cloud.deliver_to(app)
            cloud.agent.says(conversation.conversation_id, "hello")
            await cloud.settle()
            assert await session.reload_credentials() is False
    assert heard == ["hello"]


async def test_a_vault_that_fails_costs_a_warning_and_no_session(caplog: pytest.LogCaptureFixture) -> None:
    """Webhooks cannot be verified before it has answered once."""

    async def vault() -> AppCredentials:
        raise OSError("sealed")

    session = ConnectorSession("12345678", vault, domains={"sentinel": "http://127.0.0.1:9"})
    app = session.webhook_app()
    async with session:
        await anyio.sleep(1)
        status, _ = await app.handle({}, b"{}")
        assert status >= 400
    assert "cannot be verified yet" in caplog.text


async def test_a_conversation_that_a_handler_claims_is_adopted() -> None:
    """How-to guide: deliveries cover conversations that this connector did not open."""
    heard: list[tuple[str, str]] = []
    router = Router()

    @router.on_unclaimed
    async def whose(unclaimed: Unclaimed) -> str:
        return "walk-in"

    @router.on(ContentEvent)
    async def listen(incoming: Incoming[ContentEvent]) -> None:
        heard.append((incoming.consumer.ext_consumer_id, incoming.text))

    async with Sandbox(in_process=True, agent="silent") as cloud:
        async with cloud.session() as elsewhere:
            conversation = await elsewhere.consumer("walk-in").open_conversation()
        async with cloud.session(router=router) as session:
            cloud.deliver_to(session.webhook_app())
            cloud.agent.says(conversation.conversation_id, "hello")
            await cloud.settle()
            found = await session.find_conversation(conversation.conversation_id)
            assert found is not None
            await found.send_text("here I am")
            assert await session.consumer("walk-in").ensure_conversation() is found
            await cloud.settle()
    assert heard == [("walk-in", "hello")]


async def test_a_handler_that_ends_in_a_cancellation_of_its_own_takes_nobody_with_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It awaited something that had been cancelled; nobody has cancelled the session."""
    heard: list[str] = []
    router = Router()

    @router.on(ContentEvent)
    async def listen(incoming: Incoming[ContentEvent]) -> None:
        heard.append(incoming.text)
        if incoming.text != "fine":
            gone = asyncio.get_running_loop().create_future()
            gone.cancel()
            await gone

    @router.on_error
    async def told(incoming: Incoming[Any], error: Exception) -> None:
        heard.append(type(error).__name__)
        raise asyncio.CancelledError

    @router.on_unclaimed
    async def whose(unclaimed: Unclaimed) -> str:
        raise asyncio.CancelledError

    async with Sandbox(in_process=True, agent="silent") as cloud, cloud.session(router=router) as session:
        cloud.deliver_to(session.webhook_app())
        conversation = await session.consumer("customer").open_conversation()
        cloud.agent.says(conversation.conversation_id, "gone")
        cloud.agent.says(conversation.conversation_id, "fine")
        await cloud.settle()
        async with cloud.session() as elsewhere:
            foreign = await elsewhere.consumer("walk-in").open_conversation()
        cloud.agent.says(foreign.conversation_id, "hello")
        await cloud.settle()
        assert session.health().live
        await conversation.send_text("still here")
    assert heard == ["gone", "RuntimeError", "fine"]
    assert "cannot tell whose conversation" in caplog.text


async def test_a_conversation_found_once_is_found_again_without_the_store() -> None:
    """One handle for all who hold it."""
    store = _Counting()
    await store.put_conversation(
        ConversationRecord(account_id="12345678", conversation_id="c-1", ext_consumer_id="customer", opened_at=1.0)
    )
    async with session_over(FakeCloud(), store=store) as session:
        first = await session.find_conversation("c-1")
        assert first is not None
        assert await session.find_conversation("c-1") is first
        assert store.asked == 1


class _Counting(MemoryStore):
    asked = 0

    async def get_conversation(self, account_id: str, conversation_id: str) -> ConversationRecord | None:
        self.asked += 1
        return await super().get_conversation(account_id, conversation_id)


# The small server


@pytest.mark.parametrize("anyio_backend", [ASYNCIO])
async def test_the_webhook_app_is_served_at_one_exact_path() -> None:
    """our design, section 2: serve. A redirect would count as a failed delivery."""
    async with Sandbox(agent="silent") as cloud, cloud.session() as session:
        async with session.serve(port=0, path="/hook") as url, httpx.AsyncClient() as client:
            cloud.deliver_to_url(url)
            conversation = await session.consumer("customer").open_conversation()
            cloud.agent.closes(conversation.conversation_id)
            await conversation.until_closed(timeout=5)
            assert (await client.post(f"{url}/", content=b"{}")).status_code == 404
            assert (await client.post(url, content=b"{}")).status_code >= 400
            await cloud.settle()
        with pytest.raises(KeyError, match="mine"):
            async with session.serve(port=0):
                raise KeyError("mine")


@pytest.mark.parametrize("port", [-1, 65_536, "80", None, True])
async def test_what_is_no_port_is_told_and_leaves_no_socket(port: Any) -> None:
    """A clear error."""
    async with session_over(FakeCloud()) as session:
        with pytest.raises(ConfigurationError, match="port must be a number from 0 to 65535"):
            async with session.serve(port=port):
                raise AssertionError("it must not be entered")


async def test_a_path_without_its_slash_is_told() -> None:
    """The URL would have been `http://127.0.0.1:8080webhooks`, and each delivery a 404."""
    async with session_over(FakeCloud()) as session:
        with pytest.raises(ConfigurationError, match="path must begin with a slash, got 'webhooks'"):
            async with session.serve(port=0, path="webhooks"):
                raise AssertionError("it must not be entered")


async def test_a_session_that_is_not_entered_serves_nothing_and_finds_nobody() -> None:
    """A forgotten `async with`: deliveries would be refused one by one, and a conversation called unknown."""
    session = session_over(FakeCloud())
    with pytest.raises(RuntimeError, match="not entered yet"):
        async with session.serve(port=0):
            raise AssertionError("it must not be entered")
    with pytest.raises(RuntimeError, match="not entered yet"):
        await session.find_conversation("c-1")


async def test_a_port_in_use_is_told_in_one_sentence() -> None:
    """A clear error."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with session_over(FakeCloud()) as session:
            with pytest.raises(ConfigurationError, match=f"cannot listen on 127.0.0.1:{port}"):
                async with session.serve(port=port):
                    raise AssertionError("it must not be entered")


async def test_a_missing_server_is_told_with_the_command_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Extras are named."""
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    async with session_over(FakeCloud()) as session:
        with pytest.raises(ConfigurationError, match=r"connector-async\[sandbox\]"):
            async with session.serve(port=0):
                raise AssertionError("it must not be entered")


def test_the_testing_plugin_names_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Extras are named."""
    module = importlib.import_module("connector_async.testing")
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "connector_async.sandbox":
            raise ImportError("no starlette", name="starlette")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigurationError, match="needs starlette"):
        importlib.reload(module)
    monkeypatch.undo()
    importlib.reload(module)
    clock = module.ManualClock(5.0)
    with pytest.raises(ValueError, match="backwards"):
        clock.advance(-1)


def test_a_transport_of_ones_own_brings_its_own_proxy() -> None:
    """Two places to say it would be one too many."""
    with pytest.raises(ConfigurationError, match="its own proxy"):
        session_over(FakeCloud(), proxy="http://127.0.0.1:3128")
    with pytest.raises(ConfigurationError, match="its own proxy"):
        ConnectorSession(
            "12345678", AppCredentials("client", "a-secret"), transport=PooledTransport(), proxy="http://127.0.0.1:1"
        )


# The end of the session


async def test_a_stream_ends_with_its_session_and_every_message_has_its_outcome() -> None:
    """Issue 4: exactly one outcome for each message read."""
    cloud = FakeCloud(latency=30.0)
    cloud.latency = 0.0
    outcomes: list[OutcomeStatus] = []

    async def read(session: ConnectorSession) -> None:
        messages = [Outgoing(f"customer-{number}", "hi") for number in range(20)]
        async with session.send_many(messages, concurrency=20) as stream:
            async for outcome in stream:
                outcomes.append(outcome.status)

    session = session_over(cloud, drain=1.0)
    async with anyio.create_task_group() as tasks:
        async with session:
            await session.consumer("warm").open_conversation()
            cloud.latency = 30.0
            tasks.start_soon(read, session)
            await anyio.sleep(1)
        with pytest.raises(SessionClosed):
            await session.send(Outgoing("customer", "too late"))
    assert len(outcomes) == 20
    assert set(outcomes) <= {OutcomeStatus.NOT_SENT, OutcomeStatus.UNKNOWN}


async def test_stats_and_health_are_plain_data() -> None:
    """our design, section 2: .as_dict()."""
    session = session_over(FakeCloud())
    assert session.health().as_dict() == {"live": False, "ready": False, "problems": ("the session is new",)}
    assert session.stats().as_dict()["requests"] == 0
    async with session:
        await session.consumer("customer").open_conversation()
        assert session.stats().as_dict()["accepted"] == 1
        assert "customer" not in repr(session)
    assert session.stats().as_dict()["accepted"] == 1
    with pytest.raises(RuntimeError, match="not entered"):
        _ = session_over(FakeCloud()).dispatcher


async def test_a_store_that_does_not_take_a_conversation_does_not_lose_it(caplog: pytest.LogCaptureFixture) -> None:
    """Its id is known only here."""

    class Full(MemoryStore):
        async def put_conversation(self, record: ConversationRecord) -> None:
            raise OSError("disk full")

    async with session_over(FakeCloud(), store=Full()) as session:
        conversation = await session.consumer("customer").open_conversation()
        await conversation.send_text("hello")
        assert await session.consumer("customer").ensure_conversation() is conversation
    assert "did not take an open conversation" in caplog.text


async def test_a_consumer_whose_conversations_close_at_once_hears_of_it_after_the_second() -> None:
    """No loop: a text opens anew once."""
    cloud = FakeCloud()

    async def closed(post: Any) -> Any:
        from tests.doubles import answer

        if isinstance(post.json, list):
            return await cloud.take_message(post)
        body = {"msg": "Conversation is close"}
        return answer(400, {"code": "BAD_REQUEST", "body": body, "reqId": post.ids[0]})

    cloud.on_message = closed
    async with session_over(cloud) as session:
        with pytest.raises(ConversationClosed):
            await session.consumer("customer").send_text("hello")
    assert sum(isinstance(post.json, list) for post in cloud.message_posts) == 2


# Files


class _Storage(httpx.AsyncBaseTransport):
    """The sandbox, but the storage behaves as the test says."""

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self.inner = inner
        self.fail: list[Exception] = []
        self.rewrite: tuple[bytes, bytes] | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.method in {"PUT", "GET"} and "AUTH" in request.url.path and self.fail:
            raise self.fail.pop(0)
        response = await self.inner.handle_async_request(request)
        if self.rewrite is not None and request.url.path.endswith("/send"):
            return httpx.Response(response.status_code, content=(await response.aread()).replace(*self.rewrite))
        return response


async def test_a_storage_that_breaks_off_is_asked_again_and_then_told() -> None:
    """Connector API examples, "File sharing": the address lives a minute; nothing is published that is not there."""
    async with Sandbox(in_process=True, agent="silent") as cloud:
        storage = _Storage(httpx.ASGITransport(cloud.app))
        async with cloud.session(transport=storage) as session:
            conversation = await session.consumer("customer").open_conversation()
            storage.fail = [httpx.ConnectError("refused")]
            await conversation.send_file(PNG)
            storage.fail = [httpx.ConnectError("refused")] * 3
            with pytest.raises(NotSent, match="ConnectError"):
                await conversation.send_file(PNG)
            storage.fail = [httpx.ReadError("reset")]
            transcript = cloud.agent.conversation(conversation.conversation_id).main.transcript
            path = str(list(transcript)[-1]["event"]["message"]["relativePath"])
            with pytest.raises(NotSent, match="ReadError"):
                async with conversation.download_file(path):
                    raise AssertionError("it must not be entered")
            storage.rewrite = (b'"/v1', b'"//evil/v1')
            with pytest.raises(NotSent, match="address that cannot be used"):
                await conversation.send_file(PNG)


async def test_a_file_that_takes_too_long_was_certainly_not_published() -> None:
    """our style 5.9: a deadline covers everything."""
    async with Sandbox(in_process=True, agent="silent") as cloud, cloud.session() as session:
        conversation = await session.consumer("customer").open_conversation()
        cloud.fail_next(Latency(seconds=30.0), endpoint="upload")
        with pytest.raises(DeadlineExceeded, match="put into the storage") as caught:
            await conversation.send_file(PNG, timeout=2)
        assert caught.value.landed.value == "no"


async def test_a_download_that_breaks_off_says_after_how_many_bytes() -> None:
    """Ask again."""

    async def body() -> AsyncIterator[bytes]:
        yield b"12345"
        raise httpx.ReadError("reset")

    response = httpx.Response(200, headers={"content-length": "many"}, content=body())
    download = FileDownload(response, 100)
    assert download.size is None
    with pytest.raises(NotSent, match="broke off after 5 bytes"):
        await download.read()


# Echoes and receipts


class _Shared(MemoryStore):
    """Stands for a durable store: it is told of echoes that nobody here waited for. Nothing survives the process."""

    @property
    def durable(self) -> bool:
        return True


async def test_an_echo_that_went_to_another_worker_settles_an_unknown_send() -> None:
    """our design, section 4, decision 8: workers that share a durable store."""
    policy = RetryPolicy.vendor(unknown="report")
    store = _Shared()
    async with Sandbox(in_process=True, agent="silent") as cloud:
        async with cloud.session(store=store, retry=policy) as one, cloud.session(store=store) as other:
            one.webhook_app()
            cloud.deliver_to(other.webhook_app())
            conversation = await one.consumer("customer").open_conversation()
            await conversation.send_text("warm")
            await cloud.settle()
            cloud.fail_next(Reset(at="before", applied=True))
            result = await conversation.send_text("did it land?")
            assert result.response is None
            cloud.fail_next(Reset(at="before", applied=False))
            with pytest.raises(OutcomeUnknown):
                await conversation.send_text("it did not")
            await cloud.settle()


async def test_receipts_that_went_to_another_worker_are_found_in_the_store() -> None:
    """Issue of the webhooks, 8: the message goes out here, its echo and its receipts come in there."""
    store = _Shared()
    async with Sandbox(in_process=True, agent="silent") as cloud:
        async with cloud.session(store=store) as one, cloud.session(store=store) as other:
            one.webhook_app()
            cloud.deliver_to(other.webhook_app())
            conversation = await one.consumer("customer").open_conversation()
            result = await conversation.send_text("has anybody seen this?")
            await cloud.settle()
            with pytest.raises(TimeoutError):
                await result.read(timeout=0.6)
            cloud.agent.reads(conversation.conversation_id)
            await cloud.settle()
            await result.delivered(timeout=5)
            await result.read(timeout=5)


async def test_a_store_that_fails_while_a_receipt_is_awaited_costs_only_the_wait(caplog: Any) -> None:
    """The next look may succeed."""

    class Unwell(_Shared):
        async def take_echo(self, account_id: str, conversation_id: str, digest: str) -> tuple[bool, int | None]:
            raise StoreUnavailable("locked")

    book = ReceiptBook("12345678", Unwell())
    with pytest.raises(TimeoutError):
        await book.wait(book.expect("c", "d", "a"), AcceptStatus.READ, 0.7)
    assert "could not be asked for receipts" in caplog.text


async def test_a_book_of_receipts_is_bounded_and_forgets_the_oldest() -> None:
    """Memory stays flat."""
    book = ReceiptBook("12345678", MemoryStore(), max_messages=2)
    first, second, third = (book.expect("c", "d", digest) for digest in ("a", "b", "c"))
    assert not book.echo("d", "a", 1)
    book.forget(first)
    book.forget(second)
    assert not book.echo("d", "b", 2)
    twin = book.expect("c", "d", "c")
    book.forget(third)
    assert book.echo("d", "c", 3)
    assert twin.number == 3
    book.receipt("d", [1, 2, 3], AcceptStatus.ACCEPT)
    await book.wait(twin, AcceptStatus.ACCEPT, 1)
    unnumbered = book.expect("c", "d", "x")
    assert book.echo("d", "x", None)
    with pytest.raises(TimeoutError):
        await book.wait(unnumbered, AcceptStatus.READ, 1)


def test_a_book_of_receipts_is_bounded_where_the_same_words_are_sent_for_ever() -> None:
    """Their echoes may go to another process."""
    book = ReceiptBook("12345678", MemoryStore())
    messages = [book.expect("c", "d", "same") for _ in range(1_001)]
    assert book.echo("d", "same", 7)
    assert [message.number for message in messages[:3]] == [None, 7, None]


def test_a_message_that_cannot_be_built_is_refused_not_raised() -> None:
    """Exactly one outcome, whatever is wrong with the message."""

    async def check() -> None:
        async with session_over(FakeCloud()) as session:
            outcome = await session.send(Outgoing("customer", "x" * 5001, key="long"))
            assert (outcome.status, outcome.key) == (OutcomeStatus.REFUSED, "long")
            assert isinstance(outcome.error, ValueError)
            assert json.dumps(str(outcome.error))

    anyio.run(check)


# Conversations that others know of


@pytest.mark.parametrize("told", [True, False])
async def test_an_open_conversation_that_only_a_webhook_can_name_is_waited_for(told: bool) -> None:
    """Issue 6, item 4: where webhooks are connected they name it in a moment, or the refusal stands."""
    from tests.doubles import Post, answer

    cloud = FakeCloud()

    async def already(post: Post) -> Any:
        items = [{"code": "OK", "body": {"msg": "done"}, "reqId": post.ids[0]}]
        refusal = {"msg": "consumer x already has open conversation"}
        items.append({"code": "BAD_REQUEST", "body": refusal, "reqId": post.ids[1]})
        return answer(200, items)

    cloud.on_message = already
    session = session_over(cloud)
    session.webhook_app()
    async with session, anyio.create_task_group() as tasks:
        consumer = session.consumer("customer")
        known = session.conversation("c-9", consumer)

        async def name_it() -> None:
            await anyio.sleep(2)
            consumer.adopt(known)

        if told:
            tasks.start_soon(name_it)
            assert await consumer.ensure_conversation() is known
        else:
            with pytest.raises(ConversationAlreadyOpen):
                await consumer.ensure_conversation()


async def test_a_task_that_a_handler_starts_may_wait_for_what_comes_next() -> None:
    """The handler itself may not: the next event of its conversation waits until it has returned."""
    answers: list[str] = []

    async def ask(incoming: Incoming[ContentEvent]) -> None:
        answers.append((await incoming.conversation.wait_for(ContentEvent, timeout=10)).text)

    async with Sandbox(in_process=True, agent="silent") as cloud, cloud.session() as session:
        cloud.deliver_to(session.webhook_app())
        conversation = await session.consumer("customer").open_conversation()
        async with anyio.create_task_group() as tasks:

            @session.on(ContentEvent)
            async def begin(incoming: Incoming[ContentEvent]) -> None:
                if incoming.text == "begin":
                    tasks.start_soon(ask, incoming)

            cloud.agent.says(conversation.conversation_id, "begin")
            await anyio.sleep(1)
            cloud.agent.says(conversation.conversation_id, "blue")
        assert answers == ["blue"]


async def test_a_handler_that_waits_for_what_is_handled_after_it_is_told_so_at_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It could only time out: "ask, then wait for the answer" is the first thing that an author of a bot writes."""
    told: list[str] = []
    async with Sandbox(in_process=True, agent="silent") as cloud, cloud.session() as session:
        cloud.deliver_to(session.webhook_app())
        conversation = await session.consumer("customer").open_conversation()
        other = await session.consumer("another").open_conversation()

        @session.on(ContentEvent, when=lambda incoming: incoming.text == "begin")
        async def ask(incoming: Incoming[ContentEvent]) -> None:
            result = await incoming.reply("Which colour?")
            waits: list[Callable[[], Awaitable[object]]] = [
                lambda: incoming.conversation.wait_for(ContentEvent, timeout=10),
                incoming.conversation.events(ContentEvent).__anext__,
                lambda: incoming.conversation.until_closed(timeout=10),
                lambda: result.delivered(timeout=10),
            ]
            for begin in waits:
                with pytest.raises(RuntimeError, match="start a task and wait there"):
                    await begin()
            told.append((await other.wait_for(ContentEvent, timeout=10)).text)

        cloud.agent.says(conversation.conversation_id, "begin")
        await anyio.sleep(1)
        cloud.agent.says(other.conversation_id, "blue")
        await cloud.settle()
        await anyio.sleep(1)
        assert told == ["blue"]
        assert "failed" not in caplog.text


async def test_listeners_choose_by_role_and_class_and_several_wait_for_the_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """our design, section 2: wait_for, until_closed; a store that does not take the close costs a log line."""

    class Stubborn(MemoryStore):
        async def close_conversation(self, account_id: str, conversation_id: str) -> None:
            raise OSError("disk full")

    async with Sandbox(in_process=True, agent="silent") as cloud, cloud.session(store=Stubborn()) as session:
        cloud.deliver_to(session.webhook_app())
        conversation = await session.consumer("customer").open_conversation()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_until_closed, conversation)
            tasks.start_soon(_until_closed, conversation)

            async def talk() -> None:
                await conversation.send_text("mine")
                cloud.agent.says(conversation.conversation_id, "theirs")

            tasks.start_soon(talk)
            echo = await conversation.wait_for(ContentEvent, role="CONSUMER", timeout=10)
            assert echo.text == "mine"
            cloud.agent.closes(conversation.conversation_id)
        await cloud.settle()
        assert conversation.is_closed
    assert "did not take the close" in caplog.text


async def _until_closed(conversation: Conversation) -> None:
    await conversation.until_closed(timeout=30)


async def test_a_store_that_does_not_take_the_close_hides_no_refusal(caplog: pytest.LogCaptureFixture) -> None:
    """The cloud's no was clear: the message is refused, not unknown."""

    class Stubborn(MemoryStore):
        async def close_conversation(self, account_id: str, conversation_id: str) -> None:
            raise OSError("disk full")

    async with Sandbox(in_process=True, agent="silent") as cloud, cloud.session(store=Stubborn()) as session:
        conversation = await session.consumer("customer").open_conversation()
        cloud.agent.closes(conversation.conversation_id)
        outcome = await session.send(Outgoing(conversation, "hello"))
        assert outcome.status is OutcomeStatus.REFUSED
        assert isinstance(outcome.error, ConversationClosed)
        assert conversation.is_closed
        other = await session.consumer("other").open_conversation()
        assert await other.close() is not None
    assert "did not take the close" in caplog.text


async def test_a_store_that_fails_after_the_send_leaves_the_outcome_unknown() -> None:
    """What is not known to be unsent is not called so."""

    class Broken(_Shared):
        async def take_echo(self, account_id: str, conversation_id: str, digest: str) -> tuple[bool, int | None]:
            raise OSError("disk full")

    policy = RetryPolicy.vendor(unknown="report")
    async with Sandbox(in_process=True, agent="silent") as cloud:
        async with cloud.session(store=Broken(), retry=policy) as session:
            session.webhook_app()
            conversation = await session.consumer("customer").open_conversation()
            cloud.fail_next(Reset(at="before", applied=True))
            outcome = await session.send(Outgoing(conversation, "hello"))
    assert (outcome.status, outcome.conversation_id) == (OutcomeStatus.UNKNOWN, conversation.conversation_id)
    assert isinstance(outcome.error, OSError)


# Many accounts


async def test_accounts_pass_on_errors_and_outlive_a_vault_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    """our design, section 2: Accounts."""
    sealed = False

    async def vault(account_id: str) -> AppCredentials | None:
        if sealed:
            raise OSError("sealed")
        return AppCredentials("client", "a-secret")

    cloud = FakeCloud()
    with pytest.raises(KeyError, match="mine"):
        async with Accounts(vault, transport=ScriptedTransport(cloud), domains=DOMAINS) as accounts:
            await accounts.session("1")
            app = accounts.webhook_app()
            sealed = True
            body = b"{}"
            headers = signed_headers(body, account_id="1", client_id="client", secret="another")
            assert (await app.handle(headers, body))[0] >= 400
            raise KeyError("mine")
    assert "could not be reloaded" in caplog.text
