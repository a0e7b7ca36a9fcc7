"""Which error ends a request, with which facts; and what a batch's items become."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

from connector_async.errors import (
    AppTokenRefused,
    ConsumerTokenRefused,
    ConversationAlreadyOpen,
    ConversationClosed,
    DeadlineExceeded,
    Landed,
    NotSent,
    OutcomeUnknown,
    RateLimited,
    RemoteProtocolError,
    ReqIdMismatch,
    RequestError,
    RequestRefused,
    ResponseTooLarge,
    SessionClosed,
    TokenUnavailable,
    TransportError,
)
from connector_async.exchange import Response, outcome_of
from connector_async.hooks import Orphan, RequestFinished
from connector_async.transport.base import Answer
from connector_async.wire import ConsumerRequestConversation, SetUserProfile
from tests.doubles import FakeCloud, Post, answer, lost, not_sent, ok, unauthorized
from tests.exchange.rig import rig
from tests.guards import CANARY, assert_canary_absent

pytestmark = pytest.mark.anyio


NO, UNKNOWN = Landed.NO, Landed.UNKNOWN
SAYS_401 = answer(200, {"code": 401, "reqId": "m-1"})


def refusal(msg: str, code: object = "BAD_REQUEST") -> Answer:
    return answer(400, {"code": code, "body": {"msg": msg}, "reqId": "m-1"})


@pytest.mark.parametrize(
    ("script", "kind", "landed", "retryable", "status", "code", "cause", "outcome"),
    [
        ([refusal("bad thing")], RequestRefused, NO, False, 400, 400, None, "refused"),
        ([refusal("Conversation is close")], ConversationClosed, NO, False, 400, 400, None, "refused"),
        ([refusal("already has open conversation")], ConversationAlreadyOpen, NO, False, 400, 400, None, "refused"),
        ([refusal("odd", "WHAT")], RequestRefused, NO, False, 400, "WHAT", None, "refused"),
        ([answer(413, b"<html>")], RequestRefused, NO, False, 413, None, RemoteProtocolError, "refused"),
        ([lost(), refusal("bad thing")], RequestRefused, UNKNOWN, False, 400, 400, None, "unknown"),
        ([answer(200, b"<html>")], OutcomeUnknown, UNKNOWN, False, 200, None, RemoteProtocolError, "unknown"),
        ([answer(200, [])] * 12, OutcomeUnknown, UNKNOWN, False, 200, None, ReqIdMismatch, "unknown"),
        ([ResponseTooLarge("too large")], OutcomeUnknown, UNKNOWN, False, None, None, ResponseTooLarge, "unknown"),
        ([lost()] * 12, OutcomeUnknown, UNKNOWN, False, None, None, TransportError, "unknown"),
        ([not_sent()] * 12, NotSent, NO, True, None, None, TransportError, "not_sent"),
        ([lost(), *[not_sent()] * 11], OutcomeUnknown, UNKNOWN, False, None, None, TransportError, "unknown"),
        ([answer(429, b"", {"Retry-After": "99"})], RateLimited, NO, True, 429, None, None, "not_sent"),
        ([unauthorized(40001, 400)], RequestRefused, NO, False, 400, 400, None, "refused"),
        ([unauthorized(40102)] * 2, AppTokenRefused, NO, False, 401, 401, None, "refused"),
        ([lost(), *[unauthorized(40102)] * 2], AppTokenRefused, UNKNOWN, False, 401, 401, None, "unknown"),
        ([SAYS_401] * 2, ConsumerTokenRefused, NO, False, 200, 401, None, "refused"),
    ],
)  # fmt: skip
async def test_each_end_has_its_class_and_facts(
    script: list[Any],
    kind: type[RequestError],
    landed: Landed,
    retryable: bool,
    status: int | None,
    code: object,
    cause: type[Exception] | None,
    outcome: str,
) -> None:
    """Decision 7."""
    cloud = FakeCloud()
    async with rig(cloud) as r:
        await r.send("warm")
        cloud.script = list(script)
        error = await r.outcome(request_id="m-1", text=f"{CANARY}-words")
        assert type(error) is kind
        assert (error.landed, error.retryable, error.status, error.code) == (landed, retryable, status, code)
        assert (error.request_id, error.type) == ("m-1", "ms.PublishEvent")
        assert [a.number for a in error.attempts] == list(range(1, len(error.attempts) + 1))
        assert (type(error.__cause__) if error.__cause__ else None) is cause
        assert error.hint
        assert str(error)[0].islower()
        assert "\n" not in str(error)
        assert getattr(r.engine.counters, outcome) == 1
        assert r.told(RequestFinished)[-1].outcome == outcome
        assert_canary_absent(error)
        for twin in (copy.copy(error), pickle.loads(pickle.dumps(error))):
            assert (type(twin), str(twin), twin.attempts) == (kind, str(error), error.attempts)
        r.assert_quiet()


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (RequestRefused("x"), "refused"),
        (RequestRefused("x", landed=Landed.UNKNOWN), "unknown"),
        (NotSent("x"), "not_sent"),
        (OutcomeUnknown("x"), "unknown"),
        (DeadlineExceeded("x"), "unknown"),
        (DeadlineExceeded("x", landed=Landed.NO), "not_sent"),
        (RateLimited("x"), "not_sent"),
        (SessionClosed("x"), "not_sent"),
        (AppTokenRefused("x"), "not_sent"),
        (AppTokenRefused("x", attempts=(None,)), "refused"),  # type: ignore[arg-type]  # any attempt will do
        (TokenUnavailable("x", attempts=(None,)), "not_sent"),
    ],
)
def test_an_outcome_is_not_sent_only_where_sending_again_is_safe(error: RequestError, outcome: str) -> None:
    """The four of `OutcomeStatus`."""
    assert outcome_of(error) == outcome


async def batch(reply: Any) -> tuple[Any, Any, Any]:
    """The two results of a batch that is answered so, and the rig's counters."""
    cloud = FakeCloud()

    async def handle(post: Post) -> Answer:
        made = reply(post)
        assert isinstance(made, Answer)
        return made

    async with rig(cloud) as r:
        await r.send("warm")
        cloud.on_message = handle
        call = r.call(SetUserProfile(), ConsumerRequestConversation(brand_id="12345678"), batch=True)
        first, second = await r.engine.run(call)
        r.assert_quiet()
        return first, second, r


def item(post: Post, index: int, code: object, msg: str = "no") -> dict[str, object]:
    return {"code": code, "body": {"msg": msg}, "reqId": post.ids[index]}


def good(post: Post, index: int) -> dict[str, object]:
    body = {"msg": "done"} if index == 0 else {"conversationId": "conv"}
    return {"code": "OK", "body": body, "reqId": post.ids[index]}


async def test_a_refused_profile_in_an_otherwise_good_batch_is_told_and_the_batch_counts_as_accepted() -> None:
    """Issue 2, item 5: told, never dropped."""
    told, opened, r = await batch(lambda post: answer(400, [good(post, 1), item(post, 0, "BAD_REQUEST")]))
    assert isinstance(told, RequestRefused)
    assert (told.landed, told.type, told.code) == (Landed.NO, "userprofile.SetUserProfile", 400)
    assert isinstance(opened, Response)
    assert r.engine.counters.accepted == 2


async def test_a_refused_conversation_counts_as_refused_though_the_profile_was_taken() -> None:
    """The last request is the one that matters."""
    told, opened, r = await batch(
        lambda post: answer(400, [good(post, 0), item(post, 1, 400, "already has open conversation")])
    )
    assert isinstance(told, Response)
    assert isinstance(opened, ConversationAlreadyOpen)
    assert r.engine.counters.refused == 1
    finished = r.told(RequestFinished)[-1]
    assert (finished.outcome, finished.error) == ("refused", opened)


async def test_a_request_that_the_answer_passes_over_is_of_unknown_outcome() -> None:
    """Nothing says what became of it."""
    told, opened, r = await batch(lambda post: answer(200, good(post, 0)))
    assert isinstance(told, Response)
    assert isinstance(opened, OutcomeUnknown)
    assert r.engine.counters.unknown == 1


@pytest.mark.parametrize(
    ("code", "kind", "landed"),
    [
        (429, RateLimited, Landed.NO),
        (503, OutcomeUnknown, Landed.UNKNOWN),
        (401, ConsumerTokenRefused, Landed.NO),
        ("WHAT", RequestRefused, Landed.NO),
    ],
)
async def test_items_of_a_batch_end_like_requests_of_their_own(
    code: object, kind: type[RequestError], landed: Landed
) -> None:
    """A 5xx of one item does not say whether it was done."""
    told, opened, _ = await batch(lambda post: answer(200, [good(post, 0), item(post, 1, code)]))
    assert isinstance(told, Response)
    assert type(opened) is kind
    assert opened.landed is landed
    assert len(opened.attempts) == 1


async def test_c15_a_connection_whose_answer_was_not_for_us_is_not_used_again() -> None:
    """C15: counted, told, and the connection dropped; also where our own answer was among them."""
    cloud = FakeCloud()
    async with rig(cloud) as r:
        await r.send("warm")

        async def crowded(post: Post) -> Answer:
            own = ok(post)
            return answer(200, b"[" + own.body + b',{"code":"OK","reqId":"other"},' + own.body + b"]")

        cloud.script = [crowded]
        await r.send()
        transport: Any = r.transport
        assert transport.discarded
        assert [event.kind.value for event in r.told(Orphan)] == ["foreign", "doubled"]
        assert (r.engine.counters.orphans_foreign, r.engine.counters.orphans_doubled) == (1, 1)
        transport.discarded.clear()
        cloud.script = [answer(200, {"code": "OK", "reqId": "x" * 500}), answer(200, b"<html>")]
        await r.outcome()
        assert len({id(one) for one in transport.discarded}) == 2
        assert len(r.told(Orphan)[-1].req_id) == 64
        cloud.script = [answer(200, {"code": "OK", "body": {"sequence": 1}})]
        await r.send()
        assert r.told(Orphan)[-1].req_id is None
        assert r.engine.counters.orphans_missing == 1


async def test_c15_a_late_answer_is_told_from_a_foreign_one() -> None:
    """C15."""
    cloud = FakeCloud()
    async with rig(cloud) as r:
        await r.send(request_id="first")
        cloud.script = [answer(200, {"code": "OK", "body": {"sequence": 0}, "reqId": "first"})]
        response = await r.send(request_id="second")
        assert len(response.attempts) == 2
        assert r.engine.counters.orphans_late == 1


async def test_proof_that_an_earlier_attempt_landed_ends_the_request_before_the_next() -> None:
    """An echo that came by webhook while it paused."""
    cloud = FakeCloud()
    async with rig(cloud) as r:
        await r.send("warm")
        asked: list[int] = []
        for proven in (False, True):
            cloud.script = [not_sent(), lost()]
            call = r.text("d1")

            def proof(proven: bool = proven) -> bool:
                asked.append(1)
                return proven

            call.proof = proof
            if proven:
                with pytest.raises(OutcomeUnknown) as caught:
                    await r.engine.run(call)
                assert caught.value.landed is Landed.YES
            else:
                await r.engine.run(call)
        assert len(asked) == 2
        assert r.engine.counters.accepted == 3
        r.assert_quiet()


async def test_what_was_unknown_can_be_proven_later() -> None:
    """The books follow."""
    cloud = FakeCloud()
    async with rig(cloud) as r:
        await r.send("warm")
        cloud.script = [answer(200, b"")]
        await r.outcome()
        r.engine.proven()
        assert (r.engine.counters.unknown, r.engine.counters.accepted) == (0, 2)
        r.assert_quiet()


async def test_without_hooks_nothing_is_told_and_all_is_counted() -> None:
    """Events are not even made if nobody listens."""
    cloud = FakeCloud()
    async with rig(cloud, listening=False) as r:
        await r.send("warm")
        cloud.script = [
            answer(429),
            unauthorized(40102),
            answer(200, {"code": "OK", "reqId": "other"}),
            refusal("no"),
        ]
        error = await r.outcome(request_id="m-1")
        assert len(error.attempts) == 4
        c = r.engine.counters
        assert (c.requests, c.accepted, c.unknown, c.throttled, c.orphans_foreign) == (2, 1, 1, 1, 1)
        assert r.events == []
        r.assert_quiet()
