"""The rules of tolerance: which other spellings are understood, what is kept as it came, what is refused."""

from __future__ import annotations

import copy
import pickle
from http import HTTPStatus
from types import MappingProxyType
from typing import Any

import attrs
import pytest

from connector_async.errors import RemoteProtocolError
from connector_async.wire import (
    AcceptStatusEvent,
    ConnectorPaymentResponse,
    ContainerElement,
    ContentEvent,
    ConversationChanges,
    ConversationDetails,
    EscalationSummary,
    EventPublished,
    Message,
    MessagingEvents,
    Notification,
    PublishEvent,
    RawBody,
    Request,
    Role,
    SetUserProfile,
    SocialMessagingEventData,
    UnknownEvent,
    UnknownField,
    UnknownSde,
    UpdateConversationField,
    parse_notification,
    parse_request,
    parse_response,
    to_wire,
    unknown_fields,
)
from connector_async.wire._converter import readers
from connector_async.wire._reading import Malformed, read_scalar

EVENT = {"type": "ContentEvent", "contentType": "text/plain", "message": "hi"}


def request(**changes: Any) -> dict[str, Any]:
    """A plain request with some members changed."""
    return {"kind": "req", "id": "1", "type": "ms.PublishEvent", "body": {"dialogId": "d", "event": EVENT}} | changes


def events(**changes: Any) -> dict[str, Any]:
    """A plain notification whose one change has some members changed."""
    change = {"dialogId": "d", "event": EVENT} | changes
    return {"kind": "notification", "type": "ms.MessagingEventNotification", "body": {"changes": [change]}}


def parsed(obj: dict[str, Any]) -> Request[Any]:
    """The one request that this is."""
    message = parse_request(obj)
    assert isinstance(message, Request)
    assert to_wire(message) == obj
    return message


def one_change(obj: dict[str, Any]) -> Any:
    """The one change that this notification brings."""
    message = parse_notification(obj)
    assert isinstance(message, Notification)
    assert to_wire(message) == obj
    return message.body.changes[0]


def test_absent_null_and_empty_are_the_same_but_come_out_as_they_came() -> None:
    """Documentation: `metadata` may be null; gotcha 18."""
    absent, null, empty = parsed(request()), parsed(request(metadata=None)), parsed(request(metadata=[]))
    assert absent.metadata is None
    assert null.metadata is None
    assert empty.metadata == ()
    assert absent == null


def test_bare_element_stands_for_an_array_of_one() -> None:
    """Messaging Window API: one-element arrays may arrive as the bare element."""
    change = {"dialogId": "d", "event": {"type": "AcceptStatusEvent", "status": "READ", "sequenceList": 4}}
    obj = {"type": "ms.MessagingEventNotification", "body": {"changes": change}}
    message = parse_notification(obj)
    assert isinstance(message, Notification)
    assert message.body.changes[0].event == AcceptStatusEvent("READ", [4])
    assert to_wire(message) == obj


def test_conversation_field_may_be_an_object_or_an_array() -> None:
    """Gotcha 9: samples show the object, the schema the array."""
    field = {"field": "CSATRate", "csatRate": 5, "status": "FILLED"}
    one = parsed(request(type="cm.UpdateConversationField", body={"conversationId": "c", "conversationField": field}))
    many = parsed(
        request(type="cm.UpdateConversationField", body={"conversationId": "c", "conversationField": [field]})
    )
    assert isinstance(one.body, UpdateConversationField)
    assert one.body.fields == many.body.fields
    assert many.body.conversation_field == many.body.fields


def test_digits_are_understood_where_a_number_stands() -> None:
    """Connector API overview, on `sequence`: accept digit strings."""
    response = parse_response({"code": "OK", "body": {"sequence": "7"}, "reqId": "1"}, PublishEvent)
    assert not isinstance(response, list)
    assert response.body == EventPublished(7)
    assert to_wire(response)["body"] == {"sequence": "7"}
    assert one_change(events(sequence="6")).sequence == 6


def test_number_is_understood_where_an_id_stands() -> None:
    """Gotcha 10: ids come as text or as numbers."""
    body = parsed(request(body={"dialogId": 12, "event": EVENT})).body
    assert body.dialog_id == "12"


def test_digits_in_an_array_come_out_as_they_came() -> None:
    """The form of each element is kept with the array."""
    event = {"type": "AcceptStatusEvent", "status": "READ", "sequenceList": ["4", 6]}
    assert parsed(request(body={"dialogId": "d", "event": event})).body.event.sequence_list == (4, 6)


@pytest.mark.parametrize("value", ["many", "1.5", 1.5, True, [], {}, "1" * 30, "٣"])
def test_optional_value_that_cannot_be_read_is_kept_untyped(value: Any) -> None:
    """Our decision: one strange detail must not cost a whole notification."""
    change = one_change(events(sequence=value))
    assert change.sequence is None
    assert change.extra == {"sequence": value}


@pytest.mark.parametrize("value", ["x", 5, [], {}])
def test_optional_truth_value_that_is_none_is_kept_untyped(value: Any) -> None:
    """The same for truth values."""
    change = {"type": "UPSERT", "result": {"convId": "c", "conversationDetails": {"firstConversation": value}}}
    obj = {"type": "cqm.ExConversationChangeNotification", "body": {"changes": [change]}}
    message = parse_notification(obj)
    assert not isinstance(message, list)
    assert to_wire(message) == obj
    assert unknown_fields(message) == ["body.changes[0].result.conversationDetails.firstConversation"]


@pytest.mark.parametrize(
    "member",
    [
        {"originatorMetadata": "me"},
        {"originatorMetadata": []},
        {"originatorClientProperties": {"features": [5.5]}},
        {"metadata": ["x"]},
        {"metadata": [{"type": "ExternalId"}]},
        {"messageAudience": {"of": "whom"}},
        {"serverTimestamp": 17.5},
    ],
)
def test_optional_part_that_cannot_be_read_is_kept_untyped(member: dict[str, Any]) -> None:
    """The same for messages within messages, and for arrays of them."""
    assert unknown_fields(parse_one(events(**member)))


def parse_one(obj: dict[str, Any]) -> Notification[Any]:
    """The one notification that this is."""
    message = parse_notification(obj)
    assert isinstance(message, Notification)
    assert to_wire(message) == obj
    return message


def test_kind_that_cannot_be_read_comes_out_as_it_came() -> None:
    """A field that has a default of its own is kept like any other."""
    message = parsed(request(kind=[5]))
    assert message.kind == "req"
    assert message.extra == {"kind": [5]}


def test_unknown_event_keeps_everything() -> None:
    """Design decision 9."""
    event = {"type": "Wave", "strength": 3, "nested": {"a": [1]}}
    assert parsed(request(body={"dialogId": "d", "event": event})).body.event == UnknownEvent(
        "Wave", extra={"strength": 3, "nested": {"a": [1]}}
    )


@pytest.mark.parametrize("event", [{"a": 1}, {"type": None}, {"type": 5}, {"type": ["ContentEvent"]}, {}])
def test_event_without_a_readable_type_is_unknown(event: dict[str, Any]) -> None:
    """What says nothing about itself is kept as it came."""
    assert isinstance(parsed(request(body={"dialogId": "d", "event": event})).body.event, UnknownEvent)


def test_unknown_request_type_becomes_raw() -> None:
    """The escape hatch reads as well as it writes."""
    message = parsed(request(type="cqm.SubscribeExConversations", body={"stage": ["OPEN"]}))
    assert message.body == RawBody("cqm.SubscribeExConversations", {"stage": ["OPEN"]})
    assert parsed({"id": "0", "type": ".GetClock"}).body == RawBody(".GetClock", None)


def test_other_mappings_are_read_like_dicts() -> None:
    """Whoever hands over JSON may have wrapped it."""
    message = parse_request(MappingProxyType(request(body=MappingProxyType({"dialogId": "d", "event": EVENT}))))
    assert isinstance(message, Request)
    assert to_wire(message) == request()


REFUSED: list[tuple[Any, str]] = [
    (5, r"must be an object, not a number @ \$$"),
    ("x", r"must be an object, not text @ \$$"),
    (None, r"must be an object, not null @ \$$"),
    (object(), r"must be an object, not no JSON value @ \$$"),
    ([[]], r"must be an object, not an array @ \$$"),
    ({}, r"required field missing @ \$\.id; required field missing @ \$\.type"),
    (request(id=None), r"must be text or a whole number, not null @ \$\.id"),
    (request(id=True), r"must be text or a whole number, not a truth value @ \$\.id"),
    (request(body=None), r"must be an object, not null @ \$\.body"),
    (request(type=None), r"must be text, not null @ \$\.type"),
    ({"id": "1", "type": "ms.PublishEvent"}, r"required field missing @ \$\.body$"),
    (request(body={}), r"required field missing @ \$\.body\.dialogId; required field missing @ \$\.body\.event"),
    (request(body={"dialogId": "d", "event": 5}), r"must be an object, not a number @ \$\.body\.event"),
    (
        request(body={"dialogId": "d", "event": {"type": "ContentEvent"}}),
        r"required field missing @ \$\.body\.event\.message",
    ),
    (
        request(
            body={"dialogId": "d", "event": {"type": "AcceptStatusEvent", "status": "READ", "sequenceList": [1, "x"]}}
        ),
        r"must be a whole number, not text @ \$\.body\.event\.sequenceList\[1\]",
    ),
    (
        request(
            body={"dialogId": "d", "event": {"type": "AcceptStatusEvent", "status": "READ", "sequenceList": "x"}}
        ),
        r"must be a whole number, not text @ \$\.body\.event\.sequenceList",
    ),
]


@pytest.mark.parametrize(("obj", "words"), REFUSED)
def test_malformed_request_is_refused_with_the_places_that_are_wrong(obj: Any, words: str) -> None:
    """Style: `ClassValidationError` becomes RemoteProtocolError carrying readable lines."""
    with pytest.raises(RemoteProtocolError, match=f"cannot read the request: {words}"):
        parse_request(obj)


def test_refusal_names_the_change_that_is_wrong() -> None:
    """The path leads into arrays."""
    obj = events()
    obj["body"]["changes"].append({"dialogId": "d", "event": {"type": "RichContentEvent", "content": "{"}})
    with pytest.raises(RemoteProtocolError, match=r"written as JSON text @ \$\.body\.changes\[1\]\.event\.content"):
        parse_notification(obj)


def test_refusal_shows_no_value() -> None:
    """Design decision 7: message text appears in no error."""
    with pytest.raises(RemoteProtocolError) as refused:
        parse_request(
            request(body={"dialogId": ["secret"], "event": {"type": "RichContentEvent", "content": "secret"}})
        )
    assert "secret" not in str(refused.value)


def test_refusal_of_many_places_is_cut_short() -> None:
    """An error is for a log line."""
    changes = [{"dialogId": 1.5} for _ in range(20)]
    with pytest.raises(RemoteProtocolError, match=r"and 32 more$"):
        parse_notification({"type": "ms.MessagingEventNotification", "body": {"changes": changes}})


def test_json_that_is_nested_too_deeply_is_refused() -> None:
    """Reliability row C17: never a RecursionError."""
    card: dict[str, Any] = {"type": "text", "text": "x"}
    for _ in range(5000):
        card = {"type": "vertical", "elements": [card]}
    with pytest.raises(RemoteProtocolError, match="nested too deeply"):
        parse_notification(events(event={"type": "RichContentEvent", "content": card}))


def test_depth_that_is_only_passed_through_does_no_harm() -> None:
    """What is kept untyped is never walked."""
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    message = parse_request(request(surprise=deep))
    assert isinstance(message, Request)
    assert to_wire(message)["surprise"] is deep


def test_evolved_message_is_written_in_the_plain_form() -> None:
    """The form belongs to the message that came, not to what is made of it."""
    message = parsed(request(metadata=None, kind="req"))
    changed = attrs.evolve(message, id="2")
    assert to_wire(changed) == {key: value for key, value in request(id="2").items() if key != "metadata"}


def test_messages_that_differ_in_form_only_are_equal_and_hash_alike() -> None:
    """Absent and null say the same."""
    one, two = parsed(request(metadata=None)), parsed(request())
    assert one == two
    assert hash(one) == hash(two)
    assert one != parsed(request(id="2"))
    assert one != "a request"


def test_repr_shows_no_text_and_nothing_that_is_not_set() -> None:
    """Design decision 7: message text appears in no repr."""
    message = parsed(request(secret="secret"))
    assert repr(message) == (
        "Request(id='1', body=PublishEvent(dialog_id='d', event=ContentEvent(content_type='text/plain')), "
        "type='ms.PublishEvent', kind='req')"
    )


def test_empty_extra_is_an_empty_mapping() -> None:
    """All messages without surprises share one."""
    extra = ContentEvent.text_of("x").extra
    assert extra == {}
    assert len(extra) == 0
    assert list(extra) == []
    assert repr(extra) == "{}"
    with pytest.raises(KeyError):
        extra["x"]


def test_notification_bodies_are_told_by_type() -> None:
    """Both types, and the empty stream that is recorded."""
    assert isinstance(parse_one(events()).body, MessagingEvents)
    empty = {"type": "cqm.ExConversationChangeNotification", "body": {"changes": []}}
    assert parse_one(empty).body == ConversationChanges([])


def test_profile_may_be_empty() -> None:
    """Documentation: the profile is mandatory, its body may be {}."""
    assert parsed(request(type="userprofile.SetUserProfile", body={})).body == SetUserProfile()


@pytest.mark.parametrize(
    ("cls", "known", "strange"),
    [
        (EscalationSummary, {"conversationDuration": 2.5}, {"conversationDuration": "long"}),
        (EscalationSummary, {"conversationDuration": 2}, {"conversationDuration": True}),
        (ConnectorPaymentResponse, {"status": True}, {"status": 1}),
        (ConversationDetails, {"skillId": 77}, {"skillId": 7.5}),
        (ConversationDetails, {"participantsPId": {"CONSUMER": ["c"]}}, {"participantsPId": ["c"]}),
        (ConversationDetails, {"ttr": {"value": 5}}, {"ttr": 5}),
        (ContainerElement, {"type": "vertical", "border": [1]}, {"type": "vertical", "percentages": ["half"]}),
    ],
)
def test_value_of_each_kind_is_read_or_kept(
    cls: type[Message], known: dict[str, Any], strange: dict[str, Any]
) -> None:
    """Numbers, truth values, ids, objects: what cannot be read is refused where it is needed, else kept."""
    assert unknown_fields(readers[cls](known)) == []
    assert to_wire(readers[cls](known)).items() >= known.items()
    try:
        message = readers[cls](strange)
    except Malformed:
        assert cls is ConnectorPaymentResponse
    else:
        assert to_wire(message).items() >= strange.items()
        assert len(unknown_fields(message)) == 1


@pytest.mark.parametrize(
    ("kind", "value"),
    [("str", Role.CONSUMER), ("int", HTTPStatus.OK), ("float", HTTPStatus.OK), ("bool", True), ("id", Role.CONSUMER)],
)
def test_value_of_a_class_of_its_own_is_read_as_what_it_is(kind: str, value: object) -> None:
    """Objects that people write by hand hold enumerations."""
    assert read_scalar(kind)(value) is value


def test_wrapped_and_null_values_are_read_where_anything_may_stand() -> None:
    """A mapping of another class is an object like any other; null is a value where any value may stand."""
    details = readers[ConversationDetails]({"participantsPId": MappingProxyType({"CONSUMER": ["c"]})})
    assert details.consumer is not None
    actions = readers[SocialMessagingEventData](
        {"type": "SocialMessagingEventData", "actions": [None, 1], "event": None}
    )
    assert actions.actions == (None, 1)
    assert to_wire(actions) == {"type": "SocialMessagingEventData", "actions": [None, 1], "event": None}


def test_messages_survive_pickle_and_copy_with_their_form() -> None:
    """The property tests try all classes; this one is always the same."""
    message = parsed(request(metadata=None))
    for twin in (pickle.loads(pickle.dumps(message)), copy.deepcopy(message)):
        assert twin == message
        assert to_wire(twin) == request(metadata=None)
        assert twin.extra is message.extra


def test_unknown_kinds_tell_their_names() -> None:
    """For logs and counters."""
    assert [UnknownEvent("Wave").wire_type, UnknownEvent().wire_type] == ["Wave", ""]
    assert [UnknownField("New").wire_type, UnknownField().wire_type] == ["New", ""]
    assert [UnknownSde("cart").wire_type, UnknownSde().wire_type] == ["cart", ""]
    assert ContentEvent.text_of("x").wire_type == "ContentEvent"
