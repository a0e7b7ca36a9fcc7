"""Consumers and conversations, against the sandbox in process: what a person does with them."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import httpx
import pytest

from connector_async import (
    AcceptStatusEvent,
    BatchRefused,
    ChatState,
    ClientProperties,
    ConnectorSession,
    ConsumerTokenRefused,
    ContentEvent,
    Conversation,
    ConversationAlreadyOpen,
    ConversationClosed,
    DeadlineExceeded,
    Feature,
    MemoryStore,
    NotSent,
    Opening,
    OutcomeStatus,
    OutcomeUnknown,
    Outgoing,
    RawBody,
    RequestError,
    RequestRefused,
    RetryPolicy,
    SetUserProfile,
    TtrType,
)
from connector_async.errors import ResponseTooLarge
from connector_async.sandbox import Reset, Sandbox
from connector_async.wire import (
    ButtonElement,
    Click,
    ConversationCreated,
    ConversationStateField,
    ExternalId,
    GenerateURLForUploadFile,
    PublishEvent,
    PublishTextAction,
    UpdateConversationField,
)
from tests.backends import ASYNCIO
from tests.doubles import Post, answer
from tests.session.rig import FakeCloud, session_over

pytestmark = pytest.mark.anyio

PNG = b"\x89PNG\r\n\x1a\n" + b"0" * 100


@asynccontextmanager
async def connected(**options: Any) -> AsyncIterator[tuple[Sandbox, ConnectorSession]]:
    sandbox_options = {"agent": "silent", "in_process": True} | options.pop("sandbox", {})
    async with Sandbox(**sandbox_options) as cloud, cloud.session(**options) as session:
        yield cloud, session


def sent(cloud: Sandbox, kind: str) -> int:
    return sum(1 for entry in cloud.ledger.entries if entry.type == kind and entry.applied)


@pytest.mark.requirement("conversation:open")
async def test_a_conversation_is_opened_spoken_in_and_closed() -> None:
    """Connector API, `Create conversation`."""
    async with connected() as (cloud, session):
        consumer = session.consumer("customer-42")
        conversation = await consumer.open_conversation(
            profile=SetUserProfile(first_name="Ada"), skill_id="77", ttr=TtrType.URGENT
        )
        assert conversation.dialog_id == conversation.conversation_id
        assert conversation.profile_error is None
        result = await conversation.send_text("Is my order on its way?", metadata=[ExternalId("ref-1")])
        assert (result.sequence, len(result.attempts), result.dialog_id) == (0, 1, conversation.conversation_id)
        assert result.response is not None
        assert result.response.status == 200
        assert b"reqId" in result.response.raw
        assert result.response.headers["content-type"].startswith("application/json")
        assert await conversation.close() is not None
        assert conversation.is_closed
        assert await conversation.close() is None
        with pytest.raises(ConversationClosed, match="open_conversation"):
            await conversation.send_text("too late")
        assert sent(cloud, "ms.PublishEvent") == 1
        assert "closed" in repr(conversation)
        assert "customer-42" not in repr(consumer)


async def test_an_open_conversation_is_used_again_and_a_second_is_refused() -> None:
    """How-to guide: a consumer may have one open conversation."""
    async with connected() as (cloud, session):
        consumer = session.consumer("customer")
        first = await consumer.open_conversation()
        with pytest.raises(ConversationAlreadyOpen) as caught:
            await consumer.open_conversation()
        assert caught.value.conversation_id == first.conversation_id
        assert await consumer.ensure_conversation() is first
        await first.close()
        second = await consumer.ensure_conversation(Opening(skill_id="77"))
        assert second.conversation_id != first.conversation_id
        assert sent(cloud, "cm.ConsumerRequestConversation") == 2


@pytest.mark.requirement("conversation:single-flight")
async def test_however_many_ask_one_conversation_is_opened() -> None:
    """our design, section 2: single flight per consumer."""
    async with connected() as (cloud, session):
        found: list[Conversation] = []

        async def ensure() -> None:
            found.append(await session.consumer("customer").ensure_conversation())

        async with anyio.create_task_group() as tasks:
            for _ in range(50):
                tasks.start_soon(ensure)
        assert len({conversation.conversation_id for conversation in found}) == 1
        assert cloud.ledger.consumer_calls == 1


async def test_a_restarted_worker_finds_the_conversation_in_the_store() -> None:
    """our design, section 2: store."""
    store = MemoryStore()
    async with Sandbox(in_process=True, agent="silent") as cloud:
        async with cloud.session(store=store) as session:
            properties = ClientProperties(features=[Feature.QUICK_REPLIES])
            first = await session.consumer("customer").open_conversation(client_properties=properties)
        async with cloud.session(store=store) as session:
            again = await session.consumer("customer").ensure_conversation()
            assert again.conversation_id == first.conversation_id
            await again.send_text("still here")
            found = await session.find_conversation(first.conversation_id)
            assert found is again
            assert await session.find_conversation("nobody-knows") is None
            await again.close()
        async with cloud.session(store=store) as session:
            closed = await session.find_conversation(first.conversation_id)
            assert closed is not None
            assert closed.is_closed
        assert cloud.ledger.consumer_calls == 1


async def test_a_conversation_that_nobody_here_can_name_is_told_so() -> None:
    """How-to guide: the answer does not name the open conversation."""
    async with Sandbox(in_process=True, agent="silent") as cloud:
        async with cloud.session() as session:
            await session.consumer("customer").open_conversation()
        async with cloud.session() as session:
            with pytest.raises(ConversationAlreadyOpen) as caught:
                await session.consumer("customer").ensure_conversation()
            assert caught.value.conversation_id is None
            # What was just tried is no advice.
            assert "ensure_conversation" not in caught.value.hint
            assert "a durable store" in caught.value.hint


async def test_a_text_to_a_consumer_opens_and_reopens() -> None:
    """our design, section 2: consumer.send_text."""
    async with connected() as (cloud, session):
        consumer = session.consumer("customer")
        first = await consumer.send_text("hello", opening=Opening(skill_id="77"))
        cloud.agent.closes(first.dialog_id)
        second = await consumer.send_text("again")
        assert second.dialog_id != first.dialog_id


async def test_a_refused_profile_is_told_and_costs_no_conversation(caplog: pytest.LogCaptureFixture) -> None:
    """Issue 2, item 5."""

    class Grumpy(httpx.AsyncBaseTransport):
        def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
            self.inner = inner

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            response = await self.inner.handle_async_request(request)
            if not request.url.path.endswith("/conversation"):
                return response
            body = (await response.aread()).replace(b'"code":"OK"', b'"code":"BAD_REQUEST"', 1)
            return httpx.Response(200, content=body)

    async with Sandbox(in_process=True, agent="silent") as cloud:
        async with cloud.session(transport=Grumpy(httpx.ASGITransport(cloud.app))) as session:
            conversation = await session.consumer("customer").open_conversation()
            assert isinstance(conversation.profile_error, RequestRefused)
            await conversation.send_text("hello")
    assert "profile was refused" in caplog.text


async def test_a_foreign_conversation_is_refused_for_that_consumer_alone() -> None:
    """Connector API, authorization: consumer A acting on consumer B's conversation."""
    async with connected() as (cloud, session):
        theirs = await session.consumer("victim").open_conversation()
        mine = session.conversation(theirs.conversation_id, "intruder")
        with pytest.raises(ConsumerTokenRefused, match="belongs to this consumer") as caught:
            await mine.send_text("let me in")
        assert caught.value.error_code == 40103
        await theirs.send_text("still fine")
        assert cloud.ledger.token_calls == 1


@pytest.mark.requirement("batch:order")
async def test_a_batch_answers_in_order_and_says_which_item_failed() -> None:
    """our design, section 2: batch."""
    from connector_async.wire import ConsumerRequestConversation

    async with connected() as (_, session):
        bodies = [SetUserProfile(), ConsumerRequestConversation(brand_id=session.account_id)]
        _, opened = await session.batch(bodies, consumer="customer")
        assert isinstance(opened.body, ConversationCreated)
        with pytest.raises(BatchRefused) as caught:
            await session.batch(bodies, consumer="customer")
        assert isinstance(caught.value.items[1], ConversationAlreadyOpen)
        mixed = await session.batch(bodies, consumer=session.consumer("customer"), return_errors=True)
        assert [isinstance(item, RequestError) for item in mixed] == [False, True]
        with pytest.raises(ValueError, match="at least one"):
            await session.batch([], consumer="customer")


async def test_any_body_can_be_sent_raw_ones_too() -> None:
    """our design, section 2: request, RawBody."""
    async with connected() as (_, session):
        conversation = await session.consumer("customer").open_conversation()
        response = await session.request(
            PublishEvent(conversation.dialog_id, ContentEvent.text_of("hi")), consumer="customer"
        )
        assert response.body.sequence == 0
        raw = {
            "dialogId": conversation.dialog_id,
            "event": {"type": "ContentEvent", "contentType": "text/plain", "message": "x"},
        }
        await session.request(RawBody("ms.PublishEvent", raw), consumer="customer", request_id="mine")
        field = UpdateConversationField(conversation.conversation_id, ConversationStateField())
        assert (await session.request(field, consumer="customer")).code == "OK"


async def test_receipts_and_typing_reach_the_cloud() -> None:
    """Connector API, `Send`."""
    async with connected() as (cloud, session):
        conversation = await session.consumer("customer").open_conversation()
        sequence = cloud.agent.says(conversation.conversation_id, "hello") or 0
        await conversation.mark_accepted(sequence)
        await conversation.mark_read(sequence, sequence)
        with pytest.raises(ValueError, match="at least one"):
            await conversation.mark_read()
        assert await conversation.set_chat_state(ChatState.ACTIVE) is not None
        with pytest.raises(KeyError):
            async with conversation.typing():
                raise KeyError("mine")
        event = await cloud.agent.meets(conversation.conversation_id, "ChatStateEvent")
        assert event is not None


@pytest.mark.requirement("typing:stop")
@pytest.mark.parametrize("how", ["error", "cancel", "refused"])
async def test_typing_always_sends_the_stop(how: str) -> None:
    """Issue 5, item 2."""
    states: list[str] = []
    async with connected() as (cloud, session):
        conversation = await session.consumer("customer").open_conversation()
        cloud.model.listeners.append(lambda happening: states.append(str(happening)))
        if how == "refused":
            cloud.fail_next(status=400, times=2)
        with anyio.move_on_after(1):
            try:
                async with conversation.typing():
                    if how == "error":
                        raise KeyError("mine")
                    await anyio.sleep(0 if how == "refused" else 3)
            except KeyError:
                pass
        if how != "refused":
            assert sum("COMPOSING" in state for state in states) == 1
            assert sum("PAUSE" in state for state in states) == 1


async def test_fields_of_the_conversation_can_be_set() -> None:
    """Connector API, `Send`."""
    async with connected() as (_, session):
        conversation = await session.consumer("customer").open_conversation()
        await conversation.update_profile(SetUserProfile(first_name="Ada"))
        await conversation.set_ttr(TtrType.CUSTOM, value=600)
        await conversation.close_dialog()
        await conversation.close(by="stage")
        await conversation.submit_csat(5, resolved=True)
        await conversation.submit_csat(4)


async def test_closing_what_the_agent_has_closed_is_no_error() -> None:
    """A close is harmless to repeat."""
    async with connected() as (cloud, session):
        conversation = await session.consumer("customer").open_conversation()
        cloud.agent.closes(conversation.conversation_id)
        assert await conversation.close() is None
        assert conversation.is_closed


@pytest.mark.requirement("files:send")
@pytest.mark.parametrize("anyio_backend", [ASYNCIO])  # a file is read in a thread, for which no virtual clock waits
async def test_a_file_goes_through_the_storage_and_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Connector API examples, `File sharing`."""
    path = tmp_path / "logo.png"
    path.write_bytes(PNG)

    async def stream() -> AsyncIterator[bytes]:
        yield PNG[:50]
        yield PNG[50:]

    async with connected(sandbox={"in_process": False}) as (cloud, session):
        conversation = await session.consumer("customer").open_conversation()
        for source in (PNG, path, str(path), stream()):
            await conversation.send_file(source, caption="receipt")
        published = [entry for entry in cloud.ledger.entries if entry.type == "ms.PublishEvent"]
        assert len(published) == 4
        file = _last_file(cloud, conversation)
        async with conversation.download_file(file) as download:
            assert await download.read() == PNG
            assert download.size == len(PNG)
            assert download.content_type
        with pytest.raises(ResponseTooLarge):
            async with conversation.download_file(file, max_bytes=10) as download:
                await download.read()
        for wrong, named in ((b"", "3 MB"), (b"x" * 4_000_000, "3 MB"), (b"text", "PNG")):
            with pytest.raises(ValueError, match=named):
                await conversation.send_file(wrong)
    assert "temp_url_expires" in caplog.text
    assert "temp_url_sig=…" in caplog.text


def _last_file(cloud: Sandbox, conversation: Conversation) -> str:
    held = cloud.agent.conversation(conversation.conversation_id)
    return str(held.main.transcript[-1]["event"]["message"]["relativePath"])


async def test_a_storage_that_refuses_costs_the_publish() -> None:
    """Issue 5, item 2: nothing is published that is not there; a lapsed URL is asked for anew."""
    async with connected() as (cloud, session):
        conversation = await session.consumer("customer").open_conversation()
        cloud.fail_next(status=401, endpoint="upload")
        await conversation.send_file(PNG)
        assert sent(cloud, "ms.GenerateURLForUploadFile") == 2
        cloud.fail_next(status=507, endpoint="upload", times=9)
        with pytest.raises(NotSent, match="507"):
            await conversation.send_file(PNG)
        cloud.faults.replace(type(cloud.faults)())
        cloud.fail_next(status=403, endpoint="upload")
        with pytest.raises(NotSent, match="403"):
            await conversation.send_file(PNG)
        cloud.fail_next(status=401, endpoint="download", times=2)
        with pytest.raises(NotSent, match="401"):
            async with conversation.download_file(_last_file(cloud, conversation)) as download:
                await download.read()


async def test_choosing_sends_the_action_and_then_the_text_with_the_same_metadata() -> None:
    """Rich messaging introduction."""
    async with connected() as (cloud, session):
        conversation = await session.consumer("customer").open_conversation()
        sequence = cloud.agent.says(conversation.conversation_id, "Which size?") or 0
        reply = ButtonElement(
            title="XL", click=Click(metadata=[ExternalId("size-XL")], actions=[PublishTextAction("XL please")])
        )
        result = await conversation.choose(reply, of=sequence)
        assert result.response is not None
        transcript = cloud.agent.conversation(conversation.conversation_id).main.transcript
        action, text = list(transcript)[-2:]
        assert action["event"]["status"] == "ACTION"
        assert action["event"]["sequenceList"] == [sequence]
        assert text["event"]["message"] == "XL please"
        assert action["metadata"] == text["metadata"] == [{"type": "ExternalId", "id": "size-XL"}]
        link = ButtonElement(title="shop", click=Click(metadata=[ExternalId("link")]))
        await conversation.choose(link, of=sequence)
        with pytest.raises(ValueError, match="click"):
            await conversation.choose(ButtonElement(title="nothing"), of=sequence)


@pytest.mark.requirement("client-properties:every-call")
async def test_client_properties_are_on_every_call_of_the_conversation(caplog: pytest.LogCaptureFixture) -> None:
    """Connector API, `Create conversation`."""
    seen: list[str | None] = []

    class Watching(httpx.AsyncBaseTransport):
        def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
            self.inner = inner

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            if "/messaging/" in request.url.path:
                seen.append(request.headers.get("client-properties"))
            return await self.inner.handle_async_request(request)

    properties = ClientProperties(features=[Feature.AUTO_MESSAGES])
    async with Sandbox(in_process=True, agent="silent") as cloud:
        transport = Watching(httpx.ASGITransport(cloud.app))
        async with cloud.session(transport=transport, client_properties=properties) as session:
            conversation = await session.consumer("customer").open_conversation()
            await anyio.sleep(11)
            with caplog.at_level(logging.WARNING):
                await conversation.send_text("late")
            assert "AUTO_MESSAGES" in caplog.text
            await conversation.close()
    assert seen == [properties.to_header()] * 3


async def test_without_webhooks_nothing_can_be_heard_and_that_is_said_at_once() -> None:
    """our design, section 2: at once an error where they are not connected."""
    async with connected() as (_, session):
        conversation = await session.consumer("customer").open_conversation()
        result = await conversation.send_text("hello")
        with pytest.raises(RuntimeError, match="webhook"):
            await result.delivered()
        with pytest.raises(RuntimeError, match="webhook"):
            await result.read()
        with pytest.raises(RuntimeError, match="webhook"):
            await conversation.wait_for(ContentEvent)
        with pytest.raises(RuntimeError, match="webhook"):
            conversation.events()
        with pytest.raises(RuntimeError, match="webhook"):
            await conversation.until_closed()
        await conversation.close()
        await conversation.until_closed()


@pytest.mark.requirement("webhooks:loop")
async def test_receipts_events_and_the_close_come_back_by_webhook() -> None:
    """Issue 6, item 4."""
    async with Sandbox(in_process=True, agent="silent") as cloud, cloud.session() as session:
        cloud.deliver_to(session.webhook_app(), "/")
        conversation = await session.consumer("customer").open_conversation()
        result = await conversation.send_text("hello")
        await cloud.settle()
        cloud.agent.accepts(conversation.conversation_id)
        await result.delivered(timeout=5)
        with pytest.raises(TimeoutError):
            await result.read(timeout=1)
        cloud.agent.reads(conversation.conversation_id)
        await result.read(timeout=5)
        heard: list[str] = []

        async def listen() -> None:
            async for incoming in conversation.events(ContentEvent):
                heard.append(incoming.text)
                if len(heard) == 2:
                    return

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listen)
            await anyio.lowlevel.checkpoint()
            cloud.agent.says(conversation.conversation_id, "one")
            incoming = await conversation.wait_for(ContentEvent, timeout=5)
            assert incoming.text == "one"
            cloud.agent.says(conversation.conversation_id, "two")
        assert heard == ["one", "two"]
        cloud.agent.closes(conversation.conversation_id)
        await conversation.until_closed(timeout=5)
        with pytest.raises(ConversationClosed):
            await conversation.send_text("too late")
        again = await session.consumer("customer").ensure_conversation()
        assert again.conversation_id != conversation.conversation_id
        await cloud.settle()


@pytest.mark.requirement("webhooks:echo")
async def test_an_unknown_send_is_settled_by_its_own_echo() -> None:
    """Issue 6, item 4: settled by an echo, unknown without one."""
    policy = RetryPolicy.vendor(unknown="report")
    async with Sandbox(in_process=True, agent="silent") as cloud, cloud.session(retry=policy) as session:
        conversation = await session.consumer("customer").open_conversation()
        await conversation.send_text("warm")
        cloud.fail_next(Reset(at="before", applied=True))
        with pytest.raises(OutcomeUnknown):
            await conversation.send_text("without webhooks")
        cloud.deliver_to(session.webhook_app(), "/")
        cloud.fail_next(Reset(at="before", applied=True))
        result = await conversation.send_text("with webhooks")
        assert result.response is None
        assert result.sequence is None
        cloud.fail_next(Reset(at="before", applied=False))
        with pytest.raises(OutcomeUnknown):
            await conversation.send_text("never arrived")
        await cloud.settle()
        stats = session.stats()
        assert (stats.accepted, stats.unknown) == (3, 2)


async def test_an_echo_spares_the_second_send() -> None:
    """A message that has landed is not sent again."""
    async with Sandbox(in_process=True, agent="silent") as cloud, cloud.session() as session:
        cloud.deliver_to(session.webhook_app(), "/")
        conversation = await session.consumer("customer").open_conversation()
        for number in range(10):
            cloud.fail_next(Reset(at="before", applied=True))
            await conversation.send_text(f"text {number}")
            await cloud.settle()
        assert len(cloud.ledger.doubled("ms.PublishEvent")) < 10


async def test_a_lost_create_is_recovered_by_webhook() -> None:
    """Issue 6, item 4: "already has open conversation" is recovered where webhooks told us its id."""
    async with Sandbox(in_process=True, agent="silent") as cloud, cloud.session() as session:
        cloud.deliver_to(session.webhook_app(), "/")
        await session.consumer("warm").open_conversation()
        cloud.fail_next(Reset(at="before", applied=True), endpoint="conversation")
        result = await session.consumer("customer").send_text("hello")
        assert result.response is not None
        assert sent(cloud, "cm.ConsumerRequestConversation") == 2
        await cloud.settle()


async def test_opening_has_a_deadline_of_its_own() -> None:
    """our style 5.9."""
    async with connected() as (cloud, session):
        from connector_async.sandbox import Latency

        cloud.fail_next(Latency(seconds=30.0), endpoint="conversation")
        with pytest.raises(DeadlineExceeded, match="being opened"):
            await session.consumer("customer").ensure_conversation(timeout=1)


def test_ids_are_checked_when_handles_are_made() -> None:
    """Bad input gets a clear error."""

    async def check() -> None:
        async with Sandbox(in_process=True) as cloud, cloud.session() as session:
            for wrong in ("", "  ", None, 7):
                with pytest.raises(ValueError, match="ext_consumer_id"):
                    session.consumer(wrong)  # type: ignore[arg-type]  # what a hurried user passes
            for wrong in ("", "x" * 65, None):
                with pytest.raises(ValueError, match="conversation id"):
                    session.conversation(wrong, "customer")  # type: ignore[arg-type]  # likewise

    anyio.run(check)


async def test_a_request_for_a_url_can_be_made_alone() -> None:
    """Connector API examples, `File sharing`."""
    async with connected() as (_, session):
        response = await session.request(GenerateURLForUploadFile(1000, "PNG"), consumer="customer")
        assert response.body.relative_path.startswith("/")
        assert AcceptStatusEvent is not None


async def test_a_block_that_reads_a_file_raises_what_it_raised() -> None:
    """An error of httpx that is the caller's own is not one of the storage."""
    async with connected(sandbox={"in_process": False}) as (cloud, session):
        conversation = await session.consumer("customer").open_conversation()
        await conversation.send_file(PNG)
        with pytest.raises(httpx.ConnectError, match="mine"):
            async with conversation.download_file(_last_file(cloud, conversation)):
                raise httpx.ConnectError("mine")


@pytest.mark.parametrize("conversation_id", ["", "x" * 65])
async def test_a_conversation_under_an_unusable_id_may_have_been_opened(conversation_id: str) -> None:
    """Nobody can speak in it; an error of ours says so."""

    async def odd(post: Post) -> Any:
        profile, opening = post.json
        return answer(
            200,
            [
                {"code": "OK", "body": {"msg": "done"}, "reqId": profile["id"]},
                {"code": "OK", "body": {"conversationId": conversation_id}, "reqId": opening["id"]},
            ],
        )

    cloud = FakeCloud()
    cloud.on_message = odd
    async with session_over(cloud) as session:
        with pytest.raises(OutcomeUnknown, match="an id that cannot be used") as caught:
            await session.consumer("customer").open_conversation()
    assert caught.value.request_id
    assert caught.value.attempts


async def test_a_store_that_does_not_answer_holds_nobody_for_ever() -> None:
    """The session's timeout is the default here too."""

    class Silent(MemoryStore):
        async def get_open_conversation(self, account_id: str, ext_consumer_id: str) -> Any:
            await anyio.sleep_forever()

    with anyio.fail_after(100):
        async with session_over(FakeCloud(), store=Silent(), timeout=2.0, drain=0.0) as session:
            with pytest.raises(DeadlineExceeded, match="while the conversation was being opened"):
                await session.consumer("customer").ensure_conversation()
            outcome = await session.send(Outgoing("customer", "hello"))
            assert outcome.status is OutcomeStatus.NOT_SENT
