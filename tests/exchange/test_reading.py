"""What an answer means for the request it answers: correlation, codes, statuses."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector_async.errors import Landed, NotSent, RemoteProtocolError, ReqIdMismatch, RequestRefused
from connector_async.exchange._call import Call
from connector_async.exchange._failing import final_error
from connector_async.exchange._reading import Problem, Reader, is_ok
from connector_async.protocol.correlation import OrphanKind, PendingTable
from connector_async.protocol.lanes import Priority
from connector_async.protocol.retry import Fate, RetryPolicy, Stop
from connector_async.transport.base import Answer
from connector_async.wire import (
    ConsumerRequestConversation,
    ContentEvent,
    PublishEvent,
    Request,
    SetUserProfile,
)
from tests.doubles import answer, unauthorized

Items = list[Any]


def call_of(*ids: int | str, batch: bool = False) -> Call:
    bodies = [PublishEvent("d", ContentEvent.text_of("x"))]
    if batch:
        bodies = [SetUserProfile(), ConsumerRequestConversation(brand_id="1")] * len(ids)  # type: ignore[list-item]
    return Call(
        tuple(Request(id=request_id, body=body) for request_id, body in zip(ids, bodies, strict=False)),
        batch=batch,
        consumer_id="c",
        lane="d",
        priority=Priority.CONTENT,
        policy=RetryPolicy.vendor(),
        repeatable=False,
    )


class Desk:
    """A reader, its table, and the orphans it told of."""

    def __init__(self, *in_flight: Call) -> None:
        self.table: PendingTable[Call] = PendingTable()
        self.orphans: list[tuple[OrphanKind, object]] = []
        self.reader = Reader(self.table, self._orphan, lambda: 1_700_000_000.0)
        for call in in_flight:
            self.table.claim(call.request_ids, call)

    def _orphan(self, kind: OrphanKind, req_id: object, _answer: Answer) -> None:
        self.orphans.append((kind, req_id))

    def read(self, call: Call, reply: Answer) -> Items:
        outcome = self.reader.read(call, reply)
        assert not isinstance(outcome, Problem), outcome
        return outcome

    def problem(self, call: Call, reply: Answer) -> Problem:
        outcome = self.reader.read(call, reply)
        assert isinstance(outcome, Problem)
        return outcome


def good(req_id: object, sequence: int = 0) -> dict[str, object]:
    return {"code": "OK", "body": {"sequence": sequence}, "reqId": req_id}


def bad(req_id: object, msg: str = "no") -> dict[str, object]:
    return {"code": "BAD_REQUEST", "body": {"msg": msg}, "reqId": req_id}


@pytest.mark.parametrize(("request_id", "req_id"), [("m-1", "m-1"), ("5", 5), (5, "5"), (5, 5), ("05", "05")])
@pytest.mark.parametrize("wrap", [False, True])
def test_ids_are_compared_as_text_and_one_answer_may_come_in_a_list(
    request_id: int | str, req_id: object, wrap: bool
) -> None:
    """Connector API overview, `Responses`."""
    call = call_of(request_id)
    desk = Desk(call)
    (item,) = desk.read(call, answer(200, [good(req_id)] if wrap else good(req_id)))
    assert item.body.sequence == 0
    assert desk.orphans == []


@pytest.mark.parametrize(
    ("req_id", "kind"),
    [
        ("other", OrphanKind.FOREIGN),
        ("never", OrphanKind.FOREIGN),
        ("finished", OrphanKind.LATE),
        ("", OrphanKind.MISSING),
        (None, OrphanKind.MISSING),
        (50, OrphanKind.FOREIGN),
        ("m-1 ", OrphanKind.FOREIGN),
        ("M-1", OrphanKind.FOREIGN),
        ("m-1\u0000", OrphanKind.FOREIGN),
    ],
)
def test_c15_an_answer_that_names_another_request_is_given_to_nobody(req_id: object, kind: OrphanKind) -> None:
    """C15: late, foreign, missing; nothing says that ours was done, so the outcome is unknown."""
    call, other, finished = call_of("m-1"), call_of("other"), call_of("finished")
    desk = Desk(call, other, finished)
    desk.table.release(finished.request_ids)
    problem = desk.problem(call, answer(200, good(req_id)))
    assert problem.failure.fate is Fate.UNKNOWN
    assert not problem.failure.final
    assert isinstance(problem.cause, ReqIdMismatch)
    assert [one for one, _ in desk.orphans] == [kind]
    assert kind.value in problem.summary


def test_c15_a_doubled_answer_counts_once() -> None:
    """C15: the first counts."""
    call = call_of("m-1")
    desk = Desk(call)
    (item,) = desk.read(call, answer(200, [good("m-1", 3), good("m-1", 9), good("other")]))
    assert item.body.sequence == 3
    assert [kind for kind, _ in desk.orphans] == [OrphanKind.DOUBLED, OrphanKind.FOREIGN]


def test_c15_an_empty_list_answers_nobody() -> None:
    """httpx hands `[]` left in a buffer to the next request."""
    call = call_of("m-1")
    problem = Desk(call).problem(call, answer(200, []))
    assert "none" in problem.summary
    assert isinstance(problem.cause, ReqIdMismatch)


def profile_ok(req_id: object) -> dict[str, object]:
    return {"code": "OK", "body": {"msg": "done"}, "reqId": req_id}


def created(req_id: object) -> dict[str, object]:
    return {"code": "OK", "body": {"conversationId": "conv"}, "reqId": req_id}


@pytest.mark.parametrize("status", [200, 201, 400])
def test_a_batch_is_matched_by_id_whatever_its_order_and_status(status: int) -> None:
    """Connector API, "Create conversation": parse the array whatever the HTTP status is."""
    call = call_of("p-1", "c-1", batch=True)
    first, second = Desk(call).read(call, answer(status, [created("c-1"), profile_ok("p-1")]))
    assert (first.req_id, second.req_id) == ("p-1", "c-1")
    assert second.body.conversation_id == "conv"


def test_a_batch_answered_in_part_says_for_which_nothing_came() -> None:
    """A bare object is a list of one."""
    call = call_of("p-1", "c-1", batch=True)
    desk = Desk(call)
    assert desk.read(call, answer(200, created("c-1")))[0] is None
    first, second = desk.read(call, answer(400, [profile_ok("p-1"), bad("c-1")]))
    assert first.is_ok
    assert not second.is_ok
    assert desk.orphans == []


@pytest.mark.parametrize("flip", [False, True])
def test_the_one_refusal_without_an_id_belongs_to_the_one_request_that_is_left(flip: bool) -> None:
    """By elimination within the exchange; the conversation that was opened must not be lost for it."""
    call = call_of("p-1", "c-1", batch=True)
    desk = Desk(call)
    items = [created("c-1"), {"code": "BAD_REQUEST", "body": {"msg": "profile"}}]
    first, second = desk.read(call, answer(400, items[::-1] if flip else items))
    assert first.reason == "profile"
    assert second.body.conversation_id == "conv"
    assert desk.orphans == []


def test_refusals_without_ids_that_fit_nobody_are_orphans() -> None:
    """Of two such, nobody can tell whose they are; of one too many neither."""
    call = call_of("p-1", "c-1", batch=True)
    nameless = {"code": "BAD_REQUEST", "body": {"msg": "whose?"}}
    desk = Desk(call)
    assert desk.read(call, answer(400, [created("c-1"), nameless, nameless]))[0] is None
    desk.read(call, answer(400, [created("c-1"), profile_ok("p-1"), nameless]))
    assert [kind for kind, _ in desk.orphans] == [OrphanKind.MISSING] * 3
    assert isinstance(desk.problem(call, answer(400, [nameless, nameless])).cause, ReqIdMismatch)


@pytest.mark.parametrize("batch", [False, True])
def test_an_error_of_the_front_door_names_no_request_and_is_for_the_whole_exchange(batch: bool) -> None:
    """Connector API, authorization: a single object body, also for a batch."""
    call = call_of("p-1", *(["c-1"] if batch else []), batch=batch)
    problem = Desk(call).problem(call, unauthorized(40001, 400))
    assert (problem.status, problem.code, problem.error_code, problem.unauthorized) == (400, 400, 40001, False)
    assert problem.failure.fate is Fate.ANSWERED
    assert "expired or invalid" in problem.summary


@pytest.mark.parametrize("status", [200, 202])
@pytest.mark.parametrize("code", ["OK", 200, "200", 201, "CREATED", None])
def test_good_codes_are_good_as_number_text_and_name(code: object, status: int) -> None:
    """Connector API overview, "Responses": taken from HTTP semantics."""
    call = call_of("m-1")
    payload: dict[str, object] = {"body": {"sequence": 0}, "reqId": "m-1"}
    if code is not None:
        payload["code"] = code
    Desk(call).read(call, answer(status, payload))


@pytest.mark.parametrize(
    ("code", "status", "effective", "unauthorized_"),
    [
        ("BAD_REQUEST", 400, 400, False),
        ("BAD_REQUEST", 200, 400, False),
        (400, 200, 400, False),
        ("401", 200, 401, True),
        (429, 200, 429, False),
        (503, 200, 503, False),
        ("WEIRD", 200, 200, False),
        (302, 200, 200, False),
        (40_001, 200, 200, False),
        (-7, 200, 200, False),
        (None, 404, 404, False),
        (500, 400, 400, False),
    ],
)
def test_other_codes_are_refusals_and_count_where_they_name_an_error_of_http(
    code: object, status: int, effective: int, unauthorized_: bool
) -> None:
    """A code that names no HTTP status must not look like a server error."""
    call = call_of("m-1")
    payload: dict[str, object] = {"body": {"msg": "no"}, "reqId": "m-1"}
    if code is not None:
        payload["code"] = code
    problem = Desk(call).problem(call, answer(status, payload))
    assert (problem.failure.status, problem.failure.fate) == (effective, Fate.ANSWERED)
    assert problem.unauthorized is unauthorized_
    assert problem.status == status


@pytest.mark.parametrize("status", [401, 429, 500, 502, 503, 599])
@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"[]", b"{}", b"null", b"[[]]", b'{"code": 500, "message": "x"}', b'[{"code":401,"body":{}}]'],
)
def test_these_statuses_speak_for_themselves_with_and_without_json(status: int, body: bytes) -> None:
    """C7, C9, C10: whatever the body."""
    call = call_of("m-1")
    problem = Desk(call).problem(call, answer(status, body))
    assert (problem.failure.status, problem.failure.fate) == (status, Fate.ANSWERED)
    assert problem.unauthorized is (status == 401)


def test_a_5xx_that_says_ok_is_no_ok() -> None:
    """Two voices in one answer: the worse one counts."""
    call = call_of("m-1")
    assert Desk(call).problem(call, answer(503, good("m-1"))).failure.status == 503


def test_retry_after_is_read_as_seconds_and_as_a_date() -> None:
    """RFC 9110; the date against the wall clock that was given."""
    call = call_of("m-1")
    desk = Desk(call)
    for value, seconds in (("7", 7.0), ("Tue, 14 Nov 2023 22:13:30 GMT", 10.0), ("-1", None), ("soon", None)):
        assert desk.problem(call, answer(429, b"", {"Retry-After": value})).failure.retry_after == seconds


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b'{"code":"OK"', b"[1]", b"{}", b"NaN", b'{"code":"OK","code":"OK"}']
)
def test_an_ok_that_cannot_be_read_is_an_unknown_outcome_and_is_not_sent_again(body: bytes) -> None:
    """Most likely it was one, but nothing says that it was ours."""
    call = call_of("m-1")
    problem = Desk(call).problem(call, answer(200, body))
    assert (problem.failure.fate, problem.failure.final) == (Fate.UNKNOWN, True)
    assert isinstance(problem.cause, RemoteProtocolError)


@pytest.mark.parametrize("status", [403, 404, 413])
def test_a_refusal_that_cannot_be_read_is_still_one(status: int) -> None:
    """Proxies answer with HTML; but it says nothing of the message, which a pump must not give up for it."""
    call = call_of("m-1")
    problem = Desk(call).problem(call, answer(status, b"<html>forbidden</html>"))
    assert (problem.failure.fate, problem.failure.status) == (Fate.ANSWERED, status)
    assert "unreadable" in problem.summary
    error = final_error(call, problem, Stop("refused"), in_time=True)
    assert error.landed is Landed.NO
    if status == 413:
        assert isinstance(error, RequestRefused), "whoever says so, it is this request that is too large"
    else:
        assert (type(error), error.retryable, error.status) == (NotSent, True, status)
        assert "`domains`" in error.hint


def test_ids_of_consumers_and_long_texts_are_cut_from_the_words_of_a_refusal() -> None:
    """The "already has open conversation" text names the consumer."""
    call = call_of("m-1")
    problem = Desk(call).problem(call, answer(400, bad("m-1", "consumer " + "a1" * 32 + " has " + "x " * 500)))
    assert "a1a1" not in problem.summary
    assert len(problem.summary) < 260
    assert Desk(call).problem(call, answer(400, bad("m-1", ""))).summary == "the cloud refused the request"


def test_no_code_is_ok_by_the_status() -> None:
    """Where there is no code, HTTP speaks."""
    assert is_ok(None, 204)
    assert not is_ok(None, 404)
    assert not is_ok("WHAT", 200)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["code", "body", "reqId", "x"]), inner)
    ),
    max_leaves=12,
)


@given(payload=_json, status=st.sampled_from([200, 201, 400, 401, 404, 429, 500]), batch=st.booleans())
def test_c15_no_answer_breaks_the_reader_or_reaches_another_request(
    payload: object, status: int, batch: bool
) -> None:
    """C15, C17: any JSON; what is taken names us."""
    call = call_of(*(["p-1", "c-1"] if batch else ["p-1"]), batch=batch)
    outcome = Desk(call).reader.read(call, answer(status, payload))
    if not isinstance(outcome, Problem):
        assert len(outcome) == len(call.request_ids)
        assert all(item is None or str(item.req_id) in {*call.request_ids, "None"} for item in outcome)


@given(st.binary(max_size=60))
def test_c17_no_bytes_break_the_reader(raw: bytes) -> None:
    """C17."""
    call = call_of("m-1")
    assert isinstance(Desk(call).reader.read(call, answer(200, raw)), Problem)


def test_c15_of_many_thousand_shuffled_answers_none_reaches_another() -> None:
    """C15: each exchange carries one id; whatever comes back, only that id is ever taken."""
    mine = call_of("m-1")
    desk = Desk(mine, *[call_of(f"o-{number}") for number in range(100)])
    replies = [(f"o-{n}", answer(200, good(f"o-{n}"))) for n in range(100)] + [("m-1", answer(200, good("m-1")))]
    taken = 0
    for turn in range(20_000):
        named, reply = replies[turn % len(replies)]
        outcome = desk.reader.read(mine, reply)
        assert isinstance(outcome, Problem) is (named != "m-1")
        taken += not isinstance(outcome, Problem)
    assert taken + len(desk.orphans) == 20_000
