"""What is passed by mistake is refused where it is passed, with words that say what to pass instead."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from connector_async import (
    AppCredentials,
    ChatState,
    ChatStateEvent,
    ConfigurationError,
    ConnectorSession,
    ContentEvent,
    DeadlineExceeded,
    MemoryStore,
    NotSent,
    Opening,
    OutcomeStatus,
    Outgoing,
    RetryPolicy,
    SessionLimits,
    SetUserProfile,
    TokenUnavailable,
)
from connector_async.sandbox import Latency, Sandbox
from connector_async.wire import MessagingEvent, PublishEvent
from tests.doubles import ScriptedTransport
from tests.session.rig import DOMAINS, FakeCloud, session_over

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"retry": "resend"}, "retry must be a RetryPolicy"),
        ({"retry": RetryPolicy}, "the class RetryPolicy"),
        ({"limits": {"max_in_flight": 5}}, "limits must be `SessionLimits"),
        ({"tokens": 5}, "tokens must be `TokenSettings"),
        ({"router": 5}, "router must be a Router"),
        ({"store": "file.db"}, r"store must be a store, such as `SqliteStore\(path\)`, got str"),
        ({"store": MemoryStore}, "got the class MemoryStore"),
        ({"ssl_context": "/etc/ssl/ca.pem"}, r"ssl_context must be an ssl\.SSLContext"),
        ({"proxy": "ftp://127.0.0.1"}, "proxy: a proxy is a URL that begins with http://"),
        ({"hooks": print}, r"hooks=\[callable\]"),
        ({"hooks": "print"}, r"hooks=\[callable\]"),
        ({"hooks": [5]}, "callables that take an event, got int"),
        ({"domains": ["idp"]}, "domains must be a mapping"),
        ({"domains": {**DOMAINS, "asyncmessagingent": "https://example.com"}}, "is called 'asyncMessagingEnt'"),
        ({"transport": "pooled"}, "transport must be a Transport"),
        ({"transport": httpx.AsyncClient}, "the class AsyncClient"),
        ({"transport": httpx.Client()}, "AsyncClient of httpx, got Client"),
        ({"client_properties": {"type": "x"}}, "client_properties must be ClientProperties"),
        ({"client_properties": "a\r\nX-Evil: 1"}, "characters that HTTP does not allow"),
        ({"timeout": 10**400}, "timeout is too large"),
        ({"drain": -1}, "drain must be a number of seconds of at least 0"),
    ],
)
async def test_a_setting_of_the_wrong_kind_is_refused_when_the_session_is_built(
    options: dict[str, Any], words: str
) -> None:
    """our design, section 2: building says what cannot work; later would be in the middle of a failure."""
    options = {"domains": DOMAINS, **options}
    with pytest.raises(ConfigurationError, match=words):
        ConnectorSession("12345678", AppCredentials("client", "a-secret"), **options)


@pytest.mark.parametrize("rate", ["5", True, 0, math.nan])
async def test_a_rate_is_a_number(rate: Any) -> None:
    with pytest.raises(ConfigurationError, match="rate must be above 0"):
        SessionLimits(rate=rate)


async def test_old_secrets_are_several() -> None:
    secrets: Any = None
    with pytest.raises(TypeError, match="previous_secrets must be several texts"):
        AppCredentials("client", "a-secret", previous_secrets=secrets)


@pytest.mark.parametrize(
    ("timeout", "error"),
    [("5", TypeError), (True, TypeError), (math.nan, ValueError), (10**400, ValueError)],
)
async def test_a_timeout_that_is_no_number_of_seconds_is_refused_before_anything_is_counted(
    timeout: Any, error: type[Exception]
) -> None:
    """Nothing was sent, so nothing may count as unknown."""
    async with session_over(FakeCloud()) as session:
        consumer = session.consumer("customer")
        conversation = await consumer.open_conversation()
        before = session.stats()
        for send in (conversation.send_text, consumer.send_text):
            with pytest.raises(error, match="timeout must be a number of seconds"):
                await send("hello", timeout=timeout)
        with pytest.raises(error, match="timeout must be a number of seconds"):
            await session.consumer("other").ensure_conversation(timeout=timeout)
        assert session.stats() == before


@pytest.mark.parametrize("consumer", ["", " ", None, 5])
async def test_a_request_is_for_somebody(consumer: Any) -> None:
    """An empty id would be sent to the identity service."""
    async with session_over(FakeCloud()) as session:
        for ask in (
            lambda: session.request(SetUserProfile(), consumer=consumer),
            lambda: session.batch([SetUserProfile()], consumer=consumer),
        ):
            with pytest.raises((TypeError, ValueError), match="ext_consumer_id"):
                await ask()
        with pytest.raises((TypeError, ValueError), match="ext_consumer_id"):
            session.conversation("a-conversation", consumer)
        conversation: Any = session.conversation("a-conversation", "somebody")
        with pytest.raises(TypeError, match="not Conversation"):
            await session.request(SetUserProfile(), consumer=conversation)


async def test_arguments_of_the_wrong_kind_say_what_is_wanted() -> None:
    """Each would otherwise fail somewhere inside, or only when a request has failed, or be sent as it is."""
    cloud = FakeCloud()
    async with session_over(cloud) as session:
        conversation = await session.consumer("customer").open_conversation()
        posts = len(cloud.message_posts)
        wrong: Any = "resend"
        with pytest.raises(TypeError, match="retry must be a RetryPolicy"):
            await conversation.send_text("hello", retry=wrong)
        numbers: Any = [4, 6]
        with pytest.raises(TypeError, match="one by one"):
            await conversation.mark_read(numbers)
        with pytest.raises(ValueError, match="at least one field"):
            await conversation.update_field([])
        with pytest.raises(ValueError, match="by must be 'state' or 'stage'"):
            await conversation.close(by=wrong)
        raw: Any = {"type": "x"}
        with pytest.raises(TypeError, match=r"Request.body must be RequestBody"):
            await session.batch([raw], consumer="customer")
        with pytest.raises(TypeError, match="opening must be an `Opening"):
            await session.consumer("other").ensure_conversation(raw)
        with pytest.raises(TypeError, match="profile must be a SetUserProfile, not dict"):
            await session.consumer("other").open_conversation(profile=raw)
        with pytest.raises(TypeError, match="parse_notification"):
            await session.dispatch(raw)
        with pytest.raises(TypeError, match="client_properties must be"):
            await session.consumer("other").open_conversation(client_properties=raw)
        assert len(cloud.message_posts) == posts
        assert isinstance(await session.consumer("other").ensure_conversation(Opening()), object)


async def test_who_waits_for_what_is_no_class_or_so_many_words_hears_of_it_at_once() -> None:
    """Else it is the time that runs out, and the one who brings the event who fails."""
    no_classes: list[Any] = ["ContentEvent", ContentEvent.text_of("hello"), MessagingEvent]
    number: Any = "3"
    async with Sandbox(in_process=True, agent="silent") as cloud, cloud.session() as session:
        cloud.deliver_to(session.webhook_app())
        conversation = await session.consumer("customer").open_conversation()
        result = await conversation.send_text("hello")
        for event_type in no_classes:
            with pytest.raises(TypeError, match="event_types must be classes of events, such as ContentEvent, not "):
                await conversation.wait_for(event_type, timeout=5)
            with pytest.raises(TypeError, match="event_types must be classes"):
                conversation.events(event_type)
        with pytest.raises(TypeError, match="timeout must be a number of seconds, not str"):
            await conversation.wait_for(timeout=number)
        with pytest.raises(TypeError, match="timeout must be a number of seconds, not str"):
            await conversation.until_closed(timeout=number)
        with pytest.raises(TypeError, match="timeout must be a number of seconds, not str"):
            await result.delivered(timeout=number)
        with pytest.raises(TypeError, match="timeout must be a number of seconds, not str"):
            await result.read(timeout=number)


@pytest.mark.parametrize("secret", [b"a-secret", 5])
def test_a_secret_that_is_no_text_is_not_called_empty(secret: Any) -> None:
    """Vaults hand out bytes."""
    with pytest.raises(ConfigurationError, match=r"client_secret must be a text, got (bytes|int)"):
        AppCredentials("client", secret)


def test_what_is_none_in_the_environment_is_not_set() -> None:
    """Libraries for settings make such mappings."""
    environ: Any = {"LP_ACCOUNT_ID": "12345678", "LP_CLIENT_ID": None, "LP_CLIENT_SECRET": "a-secret"}
    with pytest.raises(ConfigurationError, match="not set in the environment: LP_CLIENT_ID"):
        ConnectorSession.from_env(environ=environ)


def test_a_policy_names_what_it_knows() -> None:
    wrong: Any = "resnd"
    with pytest.raises(ValueError, match=r"^unknown must be 'resend' or 'report', got 'resnd'$"):
        RetryPolicy.vendor(unknown=wrong)


async def test_a_chat_state_that_was_replaced_ends_as_not_sent() -> None:
    """Where no method hides it: an error of ours that has its facts, not one of the inside."""
    cloud = FakeCloud(latency=0.1)
    errors: list[NotSent] = []
    async with session_over(cloud, limits=SessionLimits(max_in_flight=1)) as session:
        conversation = await session.consumer("customer").open_conversation()

        async def show(state: ChatState) -> None:
            body = PublishEvent(
                dialog_id=conversation.conversation_id,
                conversation_id=conversation.conversation_id,
                event=ChatStateEvent(chat_state=state),
            )
            try:
                await session.request(body, consumer="customer")
            except NotSent as error:
                errors.append(error)

        async with anyio.create_task_group() as tasks:
            for state in (ChatState.ACTIVE, ChatState.COMPOSING, ChatState.PAUSE, ChatState.ACTIVE):
                tasks.start_soon(show, state)
    assert errors
    assert all(error.request_id and not error.retryable for error in errors)


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "is empty"), (b" \n", "is empty"), (b"\xff\xfe", r"cannot be read \(UnicodeDecodeError\)")],
)
def test_a_secret_file_without_a_secret_is_named(content: bytes, words: str, tmp_path: Path) -> None:
    """Not "not set": it is."""
    file = tmp_path / "secret"
    file.write_bytes(content)
    environ = {"LP_ACCOUNT_ID": "1", "LP_CLIENT_ID": "c", "LP_CLIENT_SECRET_FILE": str(file)}
    with pytest.raises(ConfigurationError, match=f"LP_CLIENT_SECRET_FILE: .*{words}"):
        ConnectorSession.from_env(environ=environ)
    with pytest.raises(ConfigurationError, match=r"cannot be read \(ValueError\)"):
        ConnectorSession.from_env(environ=environ | {"LP_CLIENT_SECRET_FILE": "a\0b"})


async def test_the_mark_that_some_editors_put_before_a_text_is_no_part_of_a_secret(tmp_path: Path) -> None:
    """The token service would refuse it, and nobody would see why."""
    file = tmp_path / "secret"
    file.write_bytes(b"\xef\xbb\xbfa-secret\r\n")
    environ = {"LP_ACCOUNT_ID": "12345678", "LP_CLIENT_ID": "client", "LP_CLIENT_SECRET_FILE": str(file)}
    transport = ScriptedTransport(FakeCloud())
    async with ConnectorSession.from_env(environ=environ, domains=DOMAINS, transport=transport) as session:
        assert (await session.check()).ready
        assert [post.body for post in transport.posts if b"client_secret=a-secret" in post.body]


async def test_a_hook_is_no_coroutine_function() -> None:
    """It would be called, and its coroutine never awaited."""

    async def hook(event: object) -> None: ...

    with pytest.raises(ConfigurationError, match="called and not awaited"):
        session_over(FakeCloud(), hooks=[hook])


async def test_a_credentials_callable_that_is_not_async_is_named() -> None:
    cloud = FakeCloud()
    credentials = AppCredentials("client", "a-secret")
    callable_: Any = lambda: credentials  # noqa: E731 - as somebody would write it
    async with ConnectorSession(
        "12345678", callable_, domains=DOMAINS, transport=ScriptedTransport(cloud)
    ) as session:
        with pytest.raises(TokenUnavailable, match=r"is not async .*; look at what `credentials` does") as caught:
            await session.consumer("customer").open_conversation()
    assert not caught.value.retryable


async def test_a_handle_of_another_session_is_refused_and_not_sent_in_the_wrong_name() -> None:
    """With `Accounts` the other session is another account's."""
    async with session_over(FakeCloud()) as one, session_over(FakeCloud()) as other:
        consumer = other.consumer("anna")
        conversation = await consumer.open_conversation()
        for to in (consumer, conversation):
            outcome = await one.send(Outgoing(to, "hello"))
            assert outcome.status is OutcomeStatus.REFUSED
            assert "another session" in str(outcome.error)
            assert (await other.send(Outgoing(to, "hello"))).status is OutcomeStatus.ACCEPTED


async def test_a_result_and_its_response_can_be_copied_as_values() -> None:
    """They go into queues and other processes; what needs the session stays behind."""
    async with session_over(FakeCloud()) as session:
        conversation = await session.consumer("anna").open_conversation()
        result = await conversation.send_text("hello")
        twin = pickle.loads(pickle.dumps(result))
        assert (twin.request_id, twin.attempts, twin.sequence) == (
            result.request_id,
            result.attempts,
            result.sequence,
        )
        assert result.response is not None
        other = copy.deepcopy(result.response)
        assert (other.body, other.status, other.raw) == (
            result.response.body,
            result.response.status,
            result.response.raw,
        )
        with pytest.raises(RuntimeError, match="webhook"):
            await twin.delivered(timeout=1)


@pytest.mark.parametrize("text", ["{bad", "[]", '"x"', ""])
def test_client_properties_that_are_no_object_are_refused_at_once(text: str) -> None:
    """The cloud would refuse each request, and say that the request is wrong."""
    with pytest.raises(ConfigurationError, match=r"^client_properties is no JSON object"):
        ConnectorSession("12345678", AppCredentials("a", "b"), client_properties=text)


async def test_client_properties_of_one_conversation_are_looked_at_too() -> None:
    """Before anything is sent."""
    async with session_over(FakeCloud()) as session:
        with pytest.raises(ValueError, match="client_properties is no JSON object"):
            await session.consumer("anna").open_conversation(client_properties="{bad")


async def test_the_time_for_a_file_counts_while_its_source_is_read() -> None:
    """A source may stall."""

    async def source() -> AsyncIterator[bytes]:
        yield b"\xff\xd8\xff"
        await anyio.sleep_forever()

    async with session_over(FakeCloud()) as session:
        conversation = await session.consumer("anna").open_conversation()
        with pytest.raises(DeadlineExceeded):
            await conversation.send_file(source(), timeout=5)


async def test_a_message_under_an_id_that_is_in_flight_is_refused_and_told_what_to_do() -> None:
    """A queue may give one job out twice. Told as not sent, it would be sent again, after the first has landed."""
    async with Sandbox(in_process=True) as cloud, cloud.session() as session:
        one = await session.consumer("customer").open_conversation()
        another = await session.consumer("another").open_conversation()
        cloud.fail_next(Latency(seconds=1.0))
        first = await session.submit(Outgoing(one, "hello", request_id="job-7"))
        second = await session.submit(Outgoing(another, "hello", request_id="job-7"))
        outcomes = [await first.outcome(), await second.outcome()]
        assert [outcome.status for outcome in outcomes] == [OutcomeStatus.ACCEPTED, OutcomeStatus.REFUSED]
        assert "'job-7' is in flight already: nothing was sent a second time; wait for" in str(outcomes[1].error)
        assert cloud.ledger.applied_counts("ms.PublishEvent").total() == 1
