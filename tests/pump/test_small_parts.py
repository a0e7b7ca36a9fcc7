"""What is kept can be read again, and every outcome has its end."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector_async import (
    AcceptStatusEvent,
    CampaignInfo,
    ClientProperties,
    ContentEvent,
    ConversationContext,
    Opening,
    Outcome,
    OutcomeStatus,
    Outgoing,
    SendResult,
    SetUserProfile,
)
from connector_async.errors import (
    AppTokenRefused,
    ConfigurationError,
    ConversationAlreadyOpen,
    ConversationClosed,
    DeadlineExceeded,
    Landed,
    LocalProtocolError,
    NotSent,
    OutcomeUnknown,
    QueueFull,
    RateLimited,
    RequestRefused,
    SessionClosed,
    StoreUnavailable,
)
from connector_async.exchange import Response
from connector_async.protocol.retry import Attempt
from connector_async.pump import PumpMessage, PumpPolicy
from connector_async.pump._messages import event_of, opening_of, to_outbox
from connector_async.pump._policy import in_doubt, judge, left_behind, prior_attempts
from connector_async.store.outbox import Claim, MessageState, OutboxMessage, Settlement
from connector_async.transport import Answer
from connector_async.wire import EventPublished, UnknownEvent
from tests.guards import CANARY, assert_canary_absent

KEPT = OutboxMessage(id="1", consumer="shopper", body=b"{}", request_id="1")
SENT = (Attempt(1, 0, 200, None, 0.1),)


def _claim(**facts: Any) -> Claim:
    facts = {"attempts": 0, "was_begun": False, "maybe_duplicate": False, **facts}
    return Claim(account_id="12345678", message=KEPT, owner="me", fence=1, put_at=0.0, **facts)


def _outcome(
    status: OutcomeStatus, error: Exception | None = None, *, conversation: str | None = "c", **facts: Any
) -> Outcome[Any]:
    return Outcome(
        message=Outgoing("shopper", "-"), status=status, error=error, conversation_id=conversation, **facts
    )


def _accepted(*, maybe: bool = False) -> Outcome[Any]:
    return _outcome(OutcomeStatus.ACCEPTED, result=SendResult("1", "c", SENT, None, maybe))


REFUSED, NOT_SENT, UNKNOWN = OutcomeStatus.REFUSED, OutcomeStatus.NOT_SENT, OutcomeStatus.UNKNOWN
W, R, N, U = MessageState.WAITING, MessageState.REFUSED, MessageState.NOT_SENT, MessageState.UNKNOWN


@pytest.mark.parametrize(
    ("status", "error", "conversation", "state", "attempts", "maybe"),
    [
        (REFUSED, RequestRefused("no", attempts=SENT), "c", R, 1, False),
        (REFUSED, RequestRefused("no skill", attempts=SENT), None, R, 0, False),
        (REFUSED, RequestRefused("busy", attempts=SENT, retryable=True), "c", W, 1, False),
        (REFUSED, LocalProtocolError("too long"), "c", R, 0, False),
        (REFUSED, ValueError("no"), "c", R, 0, False),
        (REFUSED, ConversationClosed("closed", attempts=SENT), "c", W, 1, False),
        (REFUSED, AppTokenRefused("no", attempts=SENT), "c", W, 1, False),
        (UNKNOWN, StoreUnavailable("full"), "c", W, 1, True),
        (UNKNOWN, TypeError("a bug"), "c", W, 1, True),
        (NOT_SENT, TypeError("a bug"), None, W, 1, False),
        (NOT_SENT, LocalProtocolError("the opening is too long"), None, R, 0, False),
        (NOT_SENT, StoreUnavailable("full"), None, W, 0, False),
        (NOT_SENT, ConversationAlreadyOpen("open", attempts=SENT), None, W, 0, False),
        (NOT_SENT, RateLimited("slow", attempts=SENT), "c", W, 1, False),
        (NOT_SENT, QueueFull("full"), "c", W, 0, False),
        (NOT_SENT, SessionClosed("closed"), "c", W, 0, False),
        (NOT_SENT, DeadlineExceeded("late", landed=Landed.NO), "c", W, 0, False),
        (NOT_SENT, NotSent("nobody listens", attempts=SENT), "c", W, 0, False),
        (UNKNOWN, OutcomeUnknown("lost", attempts=SENT), "c", W, 1, True),
        (UNKNOWN, DeadlineExceeded("late"), "c", W, 1, True),
        (UNKNOWN, LookupError(), "c", W, 1, True),
    ],
)
def test_each_outcome_has_its_end(
    status: OutcomeStatus,
    error: Exception,
    conversation: str | None,
    state: MessageState,
    attempts: int,
    maybe: bool,
) -> None:
    end = judge(_claim(), _outcome(status, error, conversation=conversation), PumpPolicy())
    assert (end.state, end.attempts, end.maybe_duplicate) == (state, attempts, maybe)
    assert (end.retry_in > 0) == (state is W)
    assert type(error).__name__ in (end.reason or "")


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        (7, 7),
        ("7", 7),
        (2**63 - 1, 2**63 - 1),
        (2**63, None),
        (2**64 - 1, None),
        (1e30, None),
        ("seven", None),
        (None, None),
    ],
)
def test_what_the_cloud_says_can_be_kept_by_every_engine(said: Any, kept: int | None) -> None:
    """One number that a database refuses each time kept the ends of all other messages from being written down."""
    response: Any = SimpleNamespace(body=SimpleNamespace(sequence=said))
    result = SendResult("1", "c", SENT, response, False)
    end = judge(_claim(), _outcome(OutcomeStatus.ACCEPTED, result=result, conversation="a\0b\ud800"), PumpPolicy())
    assert (end.state, end.sequence, end.conversation_id) == (MessageState.ACCEPTED, kept, "a\ufffdb?")
    end = judge(_claim(), _outcome(REFUSED, RequestRefused("a\0b")), PumpPolicy())
    assert end.reason is not None
    assert "\0" not in end.reason


def test_a_conversation_that_nobody_can_name_is_given_up_where_nothing_will() -> None:
    """A pump without webhooks would ask for ever after a crash between opening and remembering."""
    outcome = _outcome(NOT_SENT, ConversationAlreadyOpen("open", attempts=SENT), conversation=None)
    policy = PumpPolicy(max_openings=3)
    assert [judge(_claim(), outcome, policy, failures=number).state for number in range(4)] == [W, W, N, N]
    assert judge(_claim(), outcome, PumpPolicy(), failures=1_000).state is W


@pytest.mark.parametrize(
    ("claim", "cause", "state"),
    [
        ({"was_begun": True}, ": a process died when this was its turn, most likely while the conversation", U),
        ({"maybe_duplicate": True}, "a process died when this was its turn", U),
        ({}, ": another program opened it, or a process that died before it could write down the id.", N),
    ],
)
def test_the_reason_says_what_may_have_happened_and_what_helps(
    claim: dict[str, bool], cause: str, state: MessageState
) -> None:
    """The error of the cloud alone would leave the operator without a next step."""
    outcome = _outcome(NOT_SENT, ConversationAlreadyOpen("open", attempts=SENT), conversation=None)
    end = judge(_claim(**claim), outcome, PumpPolicy(max_openings=1))
    assert end.state is state
    assert end.reason is not None
    assert cause in end.reason
    assert "a webhook connected to this store" in end.reason
    assert "an agent who closes it" in end.reason


def test_what_was_accepted_is_settled_with_what_the_cloud_said_of_it() -> None:
    response = Response(
        EventPublished(sequence=7),
        request_id="1",
        code="OK",
        attempts=SENT,
        maybe_duplicate=False,
        answer=Answer(status=200, headers=(), body=b""),
    )
    outcome = _outcome(OutcomeStatus.ACCEPTED, result=SendResult("1", "c", SENT, response, False))
    assert judge(_claim(), outcome, PumpPolicy()) == Settlement(
        state=MessageState.ACCEPTED, attempts=1, sequence=7, conversation_id="c"
    )


def test_what_was_accepted_after_a_doubt_may_be_doubled() -> None:
    assert not judge(_claim(), _accepted(), PumpPolicy()).maybe_duplicate
    assert judge(_claim(), _accepted(maybe=True), PumpPolicy()).maybe_duplicate
    begun = judge(_claim(was_begun=True), _accepted(), PumpPolicy())
    assert (begun.maybe_duplicate, begun.attempts) == (True, 2)
    assert judge(_claim(maybe_duplicate=True, attempts=3), _accepted(), PumpPolicy()).attempts == 4
    # Sends that certainly did not land make no doubt.
    assert not judge(_claim(attempts=3), _accepted(), PumpPolicy()).maybe_duplicate


def test_the_counter_of_sends_goes_on_only_from_what_may_have_landed() -> None:
    assert prior_attempts(_claim(attempts=3)) == 0
    assert prior_attempts(_claim(was_begun=True)) == 1
    assert prior_attempts(_claim(maybe_duplicate=True, attempts=3)) == 3
    assert not in_doubt(_claim(attempts=3))


def test_a_refusal_after_a_doubt_is_final_and_unknown() -> None:
    """It may have landed at the first try, and been refused at the second."""
    error = RequestRefused("no", attempts=SENT, landed=Landed.UNKNOWN)
    end = judge(_claim(maybe_duplicate=True, attempts=1), _outcome(UNKNOWN, error), PumpPolicy(after_refusal="wait"))
    assert (end.state, end.attempts, end.maybe_duplicate, end.holds_lane) == (U, 2, True, True)


def test_a_doubt_after_a_doubt_is_left_where_doubts_are_left() -> None:
    end = judge(
        _claim(maybe_duplicate=True, attempts=1),
        _outcome(UNKNOWN, OutcomeUnknown("lost", attempts=SENT)),
        PumpPolicy(unknown="leave"),
    )
    assert (end.state, end.attempts, end.maybe_duplicate) == (U, 2, True)


def test_being_busy_after_a_doubt_is_no_new_doubt() -> None:
    error = RateLimited("slow", attempts=SENT, landed=Landed.UNKNOWN, retry_after=500.0)
    claim = _claim(maybe_duplicate=True, attempts=1)
    end = judge(claim, _outcome(UNKNOWN, error), PumpPolicy(unknown="leave"))
    assert (end.state, end.retry_in, end.maybe_duplicate) == (W, 500.0, True)


def test_what_is_left_is_not_held_and_what_is_given_up_is() -> None:
    leave = PumpPolicy(unknown="leave", after_refusal="wait")
    end = judge(_claim(), _outcome(UNKNOWN, OutcomeUnknown("lost")), leave)
    assert (end.state, end.holds_lane) == (U, False)
    bounded = PumpPolicy(max_attempts=1, after_refusal="wait")
    end = judge(_claim(), _outcome(NOT_SENT, RateLimited("slow", attempts=SENT)), bounded)
    assert (end.state, end.holds_lane) == (N, True)
    end = judge(_claim(), _outcome(UNKNOWN, OutcomeUnknown("lost")), bounded)
    assert (end.state, end.holds_lane) == (U, False)


def test_pauses_double_up_to_the_longest() -> None:
    failed = _outcome(NOT_SENT, NotSent("nobody listens"))
    pauses = [judge(_claim(), failed, PumpPolicy(), failures=n).retry_in for n in (0, 1, 2, 6, 10_000)]
    assert pauses == [1.0, 2.0, 4.0, 60.0, 60.0]


def test_what_an_owner_left_begun_is_left_by_policy() -> None:
    assert left_behind(_claim(was_begun=True), PumpPolicy()) is None
    assert left_behind(_claim(maybe_duplicate=True), PumpPolicy(unknown="leave")) is None
    end = left_behind(_claim(was_begun=True), PumpPolicy(unknown="leave"))
    assert end is not None
    assert (end.state, end.attempts, end.maybe_duplicate) == (U, 1, True)
    assert end.reason == "a process ended while it was sending this; the policy is to leave it"


def test_foreign_errors_give_their_name_alone() -> None:
    end = judge(_claim(), _outcome(UNKNOWN, LookupError(CANARY)), PumpPolicy())
    assert end.reason == "LookupError"
    assert judge(_claim(), _outcome(NOT_SENT), PumpPolicy()).reason is None
    assert_canary_absent(end)


@pytest.mark.parametrize(
    ("setting", "value"),
    [("unknown", "never"), ("after_refusal", ""), ("max_attempts", 0), ("first_backoff", 0.0), ("timeout", -1.0)],
)
def test_a_policy_that_cannot_work_is_refused(setting: str, value: object) -> None:
    settings: dict[str, Any] = {setting: value}
    with pytest.raises(ConfigurationError, match=setting):
        PumpPolicy(**settings)


# --- what is kept --------------------------------------------------------------------------------------------------


@pytest.mark.no_cover
@given(st.text(min_size=1, max_size=200).filter(str.strip), st.text(min_size=1, max_size=100).filter(str.strip))
def test_a_text_comes_back_as_it_went(text: str, message_id: str) -> None:
    try:
        message = PumpMessage(message_id, "shopper", text)
    except ValueError:
        return  # half a surrogate pair
    kept = to_outbox(message)
    assert event_of(kept) == ContentEvent.text_of(text)
    assert 1 <= len(kept.request_id) <= 64
    assert kept.request_id == to_outbox(message).request_id
    assert opening_of(kept) is None


def test_an_event_and_an_opening_come_back_as_they_went() -> None:
    opening = Opening(
        profile=SetUserProfile(),
        skill_id="77",
        campaign=CampaignInfo(campaign_id=1, engagement_id="2"),
        context=ConversationContext(session_id="s"),
        ttr="URGENT",
    )
    event = AcceptStatusEvent(status="READ", sequence_list=(1, 2))
    kept = to_outbox(PumpMessage("1", "shopper", event, opening=opening, request_id="mine"))
    assert event_of(kept) == event
    assert opening_of(kept) == opening
    assert kept.request_id == "mine"
    properties = ClientProperties(features=("RICH_CONTENT",))
    again = opening_of(to_outbox(PumpMessage("1", "s", "-", opening=Opening(client_properties=properties))))
    assert again == Opening(client_properties=properties.to_header())


def test_ids_that_do_not_fit_the_wire_are_hashed() -> None:
    assert to_outbox(PumpMessage("order-1", "s", "-")).request_id == "order-1"
    for odd in ("x" * 65, "Ü", "a\nb"):
        assert len(to_outbox(PumpMessage(odd, "s", "-")).request_id) == 64


@pytest.mark.parametrize(
    "facts",
    [
        {"id": ""},
        {"id": 5},
        {"consumer": "  "},
        {"body": ""},
        {"body": "x" * 5001},
        {"request_id": ""},
        {"request_id": "x" * 65},
    ],
)
def test_a_message_that_cannot_be_sent_is_refused_before_it_is_put(facts: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        PumpMessage(**{"id": "1", "consumer": "shopper", "body": "text", **facts})


def test_a_body_that_is_neither_text_nor_event_is_refused() -> None:
    with pytest.raises(TypeError, match="int"):
        PumpMessage("1", "shopper", 5)  # type: ignore[arg-type]  # what a caller without types may do


@pytest.mark.parametrize(
    "damage",
    [
        {"body": CANARY.encode()},
        {"body": b"\xff"},
        {"body": b"[]"},
        {"body": b'{"type": "ContentEvent"}', "opening": CANARY.encode()},
        {"opening": b"[]"},
        {"opening": b"{}"},
        {"opening": b'{"conversation": 5}'},
        {"opening": b'{"conversation": {}, "profile": 5}'},
    ],
)
def test_what_was_damaged_is_told_without_being_shown(damage: dict[str, Any]) -> None:
    kept = attrs.evolve(to_outbox(PumpMessage("1", "shopper", CANARY)), **damage)

    def read() -> None:
        event_of(kept)
        opening_of(kept)

    with pytest.raises(ValueError, match="kept message") as caught:
        read()
    assert_canary_absent(caught.value)


def test_what_has_no_json_form_is_refused() -> None:

    event = UnknownEvent(extra={"odd": object()})
    with pytest.raises(LocalProtocolError, match="object"):
        to_outbox(PumpMessage("1", "shopper", event))
