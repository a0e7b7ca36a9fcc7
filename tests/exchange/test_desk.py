"""Bodies in, responses out: ids, lanes, policies, headers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from connector_async._concurrency import SingleFlight
from connector_async._receipts import ReceiptBook
from connector_async.errors import BatchRefused, LocalProtocolError, RequestRefused, SessionClosed
from connector_async.exchange import Response
from connector_async.exchange.desk import ClientPropertiesHeader, Desk, manners_of, refuse_failed
from connector_async.protocol.correlation import RequestIds
from connector_async.protocol.lanes import Priority
from connector_async.protocol.retry import RetryPolicy
from connector_async.store import MemoryStore
from connector_async.transport.base import Answer
from connector_async.wire import (
    AcceptStatusEvent,
    ChatStateEvent,
    ClientProperties,
    ConsumerRequestConversation,
    ContentEvent,
    ConversationStateField,
    Feature,
    GenerateURLForDownloadFile,
    GenerateURLForUploadFile,
    PublishEvent,
    RawBody,
    RequestBody,
    SetUserProfile,
    UnknownEvent,
    UpdateConversationField,
)
from tests.doubles import answer, lost
from tests.exchange.rig import Rig, rig

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def desk_over(r: Rig, properties: ClientPropertiesHeader | None = None) -> AsyncIterator[Desk]:
    yield Desk(
        "12345678",
        engine=r.engine,
        store=MemoryStore(),
        consumers=r.consumers,
        clock=r.clock,
        flights=SingleFlight(r.tasks, r.clock, SessionClosed),
        ids=RequestIds("mark"),
        retry=RetryPolicy.vendor(),
        client_properties=properties,
        client=r.transport.client,
        resolve=r.domains.resolve,
        receipts=ReceiptBook("12345678", MemoryStore()),
        wall=lambda: 1_700_000_000.0,
    )


def text(dialog: str = "d1") -> PublishEvent:
    return PublishEvent(dialog, ContentEvent.text_of("hello"))


async def test_a_request_gets_an_id_unless_it_brings_one() -> None:
    """Unique, at most 64 characters, time-ordered."""
    async with rig() as r, desk_over(r) as desk:
        first = await desk.request(text(), consumer_id="c", properties=None)
        second = await desk.request(text(), consumer_id="c", properties=None)
        call = desk.call(text(), consumer_id="c", properties=None, request_id="mine", prior_attempts=1)
        (own,) = await r.engine.run(call)
        assert isinstance(own, Response)
        assert first.request_id < second.request_id
        assert own.request_id == "mine"
        assert own.attempts[0].sequence == 2
        assert desk.deadline(5.0) == r.clock.time() + 5.0
        assert desk.deadline(None) == r.clock.time() + 60.0


async def test_metadata_and_properties_travel_with_the_request() -> None:
    """Rich messaging introduction."""
    header = ClientPropertiesHeader.of(ClientProperties(features=[Feature.QUICK_REPLIES]))
    assert header is not None
    assert ClientPropertiesHeader.of(header) is header
    assert ClientPropertiesHeader.of(None) is None
    verbatim = ClientPropertiesHeader.of('{"type":".ClientProperties"}')
    assert verbatim is not None
    async with rig() as r, desk_over(r) as desk:
        await desk.request(
            text(),
            consumer_id="c",
            properties=header,
            metadata=[{"type": "ExternalId", "id": "x"}],
            encoded_metadata="eA==",
        )
        await desk.batch([SetUserProfile()], consumer_id="c", properties=verbatim)
        await desk.batch([SetUserProfile()], consumer_id="c", properties=None)
        post, batch, plain = r.cloud.message_posts
        assert "QUICK_REPLIES" in (post.header("Client-Properties") or "")
        assert post.json["metadata"] == [{"type": "ExternalId", "id": "x"}]
        assert post.json["encodedMetadata"] == "eA=="
        assert batch.header("Client-Properties") == '{"type":".ClientProperties"}'
        assert plain.header("Client-Properties") is None


def test_s3_properties_that_would_break_the_header_are_refused_before_any_io() -> None:
    """S3."""
    with pytest.raises(LocalProtocolError):
        ClientPropertiesHeader.of("{}\r\nX-Evil: 1")


async def test_a_policy_for_one_call_wins() -> None:
    """Issue 3, item 2."""
    async with rig() as r, desk_over(r) as desk:
        r.cloud.script = [lost()]
        with pytest.raises(Exception, match="reset"):
            await desk.request(text(), consumer_id="c", properties=None, retry=RetryPolicy.none())
        r.cloud.script = [lost()]
        assert len((await desk.request(text(), consumer_id="c", properties=None)).attempts) == 2


async def test_a_batch_is_harmless_only_if_all_of_it_is() -> None:
    """A raw body may be anything."""
    async with rig() as r, desk_over(r) as desk:
        none = RetryPolicy.vendor(unknown="report")
        r.cloud.script = [lost()]
        harmless = [SetUserProfile(), ConsumerRequestConversation(brand_id="1")]
        assert len(await desk.batch(harmless, consumer_id="c", properties=None, retry=none)) == 2
        r.cloud.script = [lost()]
        with pytest.raises(Exception, match="reset"):
            await desk.batch([SetUserProfile(), RawBody("x.Y", {})], consumer_id="c", properties=None, retry=none)
        with pytest.raises(ValueError, match="at least one"):
            await desk.batch([], consumer_id="c", properties=None)


def test_failed_items_of_a_batch_are_raised_together() -> None:
    """`session.batch`."""
    good = Response(None, request_id="a", code="OK", attempts=(), maybe_duplicate=False, answer=Answer(200, (), b""))
    assert refuse_failed([good, good]) == [good, good]
    bad = RequestRefused("no", request_id="b", type="x.Y", code=400, status=400)
    with pytest.raises(BatchRefused, match="1 of the 2") as caught:
        refuse_failed([good, bad])
    assert caught.value.items == (good, bad)
    assert (caught.value.request_id, caught.value.code, caught.value.__cause__) == ("b", 400, bad)


@pytest.mark.parametrize(
    ("body", "lane", "priority", "repeatable"),
    [
        (text("d"), "d", Priority.CONTENT, False),
        (PublishEvent("d", UnknownEvent(type="NewEvent")), "d", Priority.CONTENT, False),
        (PublishEvent("d", AcceptStatusEvent("READ", [1])), ("receipt", "d"), Priority.RECEIPT, True),
        (PublishEvent("d", ChatStateEvent("ACTIVE")), ("typing", "d"), Priority.TYPING, True),
        (UpdateConversationField("d", ConversationStateField()), "d", Priority.CONTENT, True),
        (GenerateURLForUploadFile("5", "PNG"), ("file", "id"), Priority.CONTENT, True),
        (GenerateURLForDownloadFile("/x"), ("file", "id"), Priority.CONTENT, True),
        (SetUserProfile(), ("consumer", "c"), Priority.CONTENT, True),
        (RawBody("x", {"dialogId": "d", "conversationId": "e"}), "d", Priority.CONTENT, False),
        (RawBody("x", {"conversationId": "e"}), "e", Priority.CONTENT, False),
        (RawBody("x", {"dialogId": 7}), ("consumer", "c"), Priority.CONTENT, False),
        (RawBody("x", {}), ("consumer", "c"), Priority.CONTENT, False),
        (RawBody("x", None), ("consumer", "c"), Priority.CONTENT, False),
    ],
)
def test_what_must_not_overtake_what_and_what_may_be_repeated(
    body: RequestBody[Any], lane: Hashable, priority: Priority, repeatable: bool
) -> None:
    """A close never overtakes a text; receipts and typing wait for nobody's text."""
    assert manners_of(body, "c", "id") == (lane, priority, repeatable)


def test_a_response_shows_what_came_and_no_text_in_its_repr() -> None:
    """`.body .status .headers .raw`."""
    came = answer(202, {"x": "secret words"}, {"X-Trace": "1"})
    response = Response("secret words", request_id="m", code="OK", attempts=(), maybe_duplicate=False, answer=came)
    assert (response.status, response.headers, response.raw) == (202, {"x-trace": "1"}, came.body)
    assert repr(response) == "Response(request_id='m', status=202, attempts=0)"
