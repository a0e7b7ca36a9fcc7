"""How users' code is understood by type checkers; nothing here is run. Checked by mypy and pyright."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Literal, assert_type

from connector_async import (
    AcceptStatusEvent,
    Accounts,
    ChatStateEvent,
    ConnectorSession,
    Consumer,
    ContentEvent,
    Conversation,
    ConversationContext,
    Incoming,
    Opening,
    Outcome,
    OutcomeStatus,
    OutcomeStream,
    Outgoing,
    RawBody,
    RequestError,
    Response,
    Router,
    SendResult,
    SetUserProfile,
    Submission,
)
from connector_async.wire import (
    Confirmation,
    ConsumerRequestConversation,
    ConversationChange,
    ConversationCreated,
    ConversationStateField,
    EventPublished,
    GenerateURLForDownloadFile,
    GenerateURLForUploadFile,
    PublishEvent,
    TransferUrl,
    UpdateConversationField,
)

router = Router()


async def requests(session: ConnectorSession, consumer: Consumer) -> None:
    """The body decides what the answer holds."""
    published = await session.request(PublishEvent("dialog", ContentEvent.text_of("hi")), consumer=consumer)
    assert_type(published, Response[EventPublished])
    assert_type(published.body, EventPublished)
    assert_type(published.body.sequence, int | None)
    assert_type(published.status, int)
    assert_type(published.raw, bytes)
    opened = await session.request(ConsumerRequestConversation(brand_id="1"), consumer="customer")
    assert_type(opened.body, ConversationCreated)
    assert_type((await session.request(SetUserProfile(), consumer="customer")).body, Confirmation)
    field = UpdateConversationField("conversation", ConversationStateField())
    assert_type((await session.request(field, consumer="customer")).body, Confirmation)
    assert_type((await session.request(GenerateURLForUploadFile(1, "PNG"), consumer="customer")).body, TransferUrl)
    assert_type((await session.request(GenerateURLForDownloadFile("/f"), consumer="customer")).body, TransferUrl)
    assert_type((await session.request(RawBody("new.Type", {}), consumer="customer")).body, object)


async def batches(session: ConnectorSession, *, mixed: bool) -> None:
    """`return_errors=True` puts errors into the list; otherwise they are raised."""
    bodies = [SetUserProfile(), ConsumerRequestConversation(brand_id="1")]
    assert_type(await session.batch(bodies, consumer="customer"), list[Response[Any]])
    told: Literal[True] = True
    answers = await session.batch(bodies, consumer="customer", return_errors=told)
    assert_type(answers, list[Response[Any] | RequestError])


async def handles(session: ConnectorSession) -> None:
    """Handles and what they send."""
    consumer = session.consumer("customer")
    assert_type(consumer, Consumer)
    conversation = await consumer.open_conversation(skill_id="77", context=ConversationContext(lang="en-US"))
    assert_type(conversation, Conversation)
    assert_type(await consumer.ensure_conversation(Opening(skill_id=77)), Conversation)
    assert_type(session.conversation("conversation", consumer), Conversation)
    assert_type(await session.find_conversation("conversation"), Conversation | None)
    result = await conversation.send_text("hi")
    assert_type(result, SendResult)
    assert_type(result.sequence, int | None)
    assert_type(result.request_id, str)
    assert_type(result.attempts[0].sequence, int)
    assert_type(result.response, Response[EventPublished] | None)
    assert_type(await conversation.set_chat_state("ACTIVE"), SendResult | None)
    assert_type(await conversation.close(), Response[Confirmation] | None)


async def listening(conversation: Conversation) -> None:
    """What is waited for is what comes."""
    message = await conversation.wait_for(ContentEvent)
    assert_type(message, Incoming[ContentEvent])
    assert_type(message.event, ContentEvent)
    assert_type(message.event.text, str | None)
    assert_type(message.text, str)
    either = await conversation.wait_for(AcceptStatusEvent, ChatStateEvent, timeout=1)
    assert_type(either.event, AcceptStatusEvent | ChatStateEvent)
    changes = conversation.events(ConversationChange)
    assert_type(changes, AsyncIterator[Incoming[ConversationChange]])
    async for change in changes:
        assert_type(change.event.is_closed, bool)
    assert_type(await conversation.wait_for(), Incoming[Any])
    assert_type(conversation.events(), AsyncIterator[Incoming[Any]])


@router.on(ContentEvent)
async def one(message: Incoming[ContentEvent]) -> None:
    """A handler of one class."""
    assert_type(message.event, ContentEvent)
    assert_type(message.conversation, Conversation)
    assert_type(message.consumer, Consumer)
    assert_type(message.session, ConnectorSession)
    assert_type(await message.reply("hi"), SendResult)


@router.on(ContentEvent, AcceptStatusEvent, when=lambda incoming: incoming.sequence is not None)
async def several(incoming: Incoming[ContentEvent | AcceptStatusEvent]) -> None:
    """A handler of two classes."""
    assert_type(incoming.event, ContentEvent | AcceptStatusEvent)


@router.on()
async def every(incoming: Incoming[Any]) -> None:
    """A handler of everything."""
    assert_type(incoming.dialog_id, str | None)


# The next one must not pass: it asks for another class than it takes.
@router.on(ContentEvent)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
async def wrong(incoming: Incoming[AcceptStatusEvent]) -> None:
    """A handler of another class than it asks for is refused."""


def on_a_session(session: ConnectorSession) -> None:
    """`session.on` is the router's."""

    @session.on(ConversationChange)
    async def follow(incoming: Incoming[ConversationChange]) -> None:
        assert_type(incoming.event, ConversationChange)


async def outgoing(session: ConnectorSession) -> None:
    """The caller's key comes back in its own type."""
    keyed = Outgoing("customer", "hi", key=7)
    assert_type(keyed, Outgoing[int])
    assert_type(await session.send(keyed), Outcome[int])
    assert_type(await session.submit(keyed), Submission[int])
    outcome = await session.send(Outgoing("customer", "hi", key="row-1"))
    assert_type(outcome.key, str | None)
    assert_type(outcome.status, OutcomeStatus)
    assert_type(outcome.result, SendResult | None)

    async def rows() -> AsyncIterator[Outgoing[tuple[str, int]]]:
        yield Outgoing("customer", ContentEvent.text_of("hi"), key=("table", 1))

    stream = session.send_many(rows(), concurrency=10)
    assert_type(stream, OutcomeStream[tuple[str, int]])
    async with stream as outcomes:
        async for one_of_them in outcomes:
            assert_type(one_of_them, Outcome[tuple[str, int]])
            assert_type(one_of_them.key, tuple[str, int] | None)
    assert_type(session.send_many([keyed]), OutcomeStream[int])


def from_the_environment() -> None:
    """The constructor's keywords are known where they are passed on."""
    assert_type(ConnectorSession.from_env(timeout=5.0, router=router), ConnectorSession)
    ConnectorSession.from_env(timeout="5")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Accounts({}, timeot=5.0)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
