"""What holds for every message: nothing is lost, and nothing but the documented error comes out."""

from __future__ import annotations

import contextlib
import copy
import pickle
from collections.abc import Callable
from typing import Any

import attrs
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connector_async.errors import RemoteProtocolError
from connector_async.wire import (
    Message,
    MessagingEvents,
    Notification,
    Request,
    Response,
    decode_notification,
    decode_request,
    decode_response,
    parse_manifest,
    parse_notification,
    parse_request,
    parse_response,
    to_wire,
    unknown_fields,
)
from connector_async.wire._converter import readers
from connector_async.wire.notifications import BODIES as NEWS_BODIES
from connector_async.wire.requests import BODIES, PublishEvent
from tests.wire.strategies import MESSAGES, json_objects, json_values, objects_of, strange_names, words

pytestmark = pytest.mark.no_cover

common = settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)


@pytest.mark.parametrize("cls", MESSAGES, ids=lambda cls: cls.__name__)
@common
@given(data=st.data())
def test_every_message_class_comes_out_as_it_came(cls: type[Message], data: st.DataObject) -> None:
    """Design decision 9: the open world survives a round trip."""
    obj = data.draw(objects_of(cls))
    message = readers[cls](obj)
    assert isinstance(message, cls)
    assert to_wire(message) == obj
    assert readers[cls](to_wire(message)) == message


@pytest.mark.parametrize("cls", MESSAGES, ids=lambda cls: cls.__name__)
@settings(common, max_examples=5)
@given(data=st.data())
def test_every_message_survives_copy_pickle_and_repr(cls: type[Message], data: st.DataObject) -> None:
    """Messages travel between processes; their form goes with them."""
    message = readers[cls](data.draw(objects_of(cls)))
    for twin in (copy.copy(message), copy.deepcopy(message), pickle.loads(pickle.dumps(message))):
        assert twin == message
        assert to_wire(twin) == to_wire(message)
    assert repr(message).startswith(f"{cls.__name__}(")


@pytest.mark.requirement("C18")
@pytest.mark.parametrize("cls", MESSAGES, ids=lambda cls: cls.__name__)
@settings(common, max_examples=5)
@given(data=st.data())
def test_unknown_fields_are_kept_and_reported(cls: type[Message], data: st.DataObject) -> None:
    """Design decision 9, and what the sandbox asks for."""
    obj = data.draw(objects_of(cls))
    name, value = data.draw(strange_names), data.draw(json_values)
    message = readers[cls]({**obj, name: value})
    assert message.extra[name] == value
    assert name in unknown_fields(message)
    assert to_wire(message) == {**obj, name: value}


requests = st.sampled_from(sorted(BODIES)).flatmap(
    lambda kind: st.fixed_dictionaries(
        {
            "id": st.one_of(words, st.integers(0, 99)),
            "type": st.just(kind),
            "body": objects_of(BODIES[kind]),
        },
        optional={"kind": st.just("req"), "metadata": st.one_of(st.none(), st.lists(json_objects, max_size=2))},
    )
)
new_requests = st.fixed_dictionaries(
    {"id": words, "type": words.map(lambda word: f"new.{word}")}, optional={"body": json_values}
)


@common
@given(obj=st.one_of(requests, new_requests, st.lists(requests, max_size=2)))
def test_every_request_comes_out_as_it_came(obj: Any) -> None:
    """Known and unknown types, single and in batches, as objects and as bytes."""
    assert to_wire(parse_request(obj)) == obj
    assert to_wire(decode_request(orjson.dumps(obj))) == obj


notifications = st.sampled_from(sorted(NEWS_BODIES)).flatmap(
    lambda kind: st.fixed_dictionaries(
        {"type": st.just(kind), "body": objects_of(NEWS_BODIES[kind])}, optional={"kind": st.just("notification")}
    )
)
new_notifications = st.fixed_dictionaries({"type": words}, optional={"body": json_values, "kind": words})


@common
@given(obj=st.one_of(notifications, new_notifications, st.lists(notifications, max_size=2)))
def test_every_notification_comes_out_as_it_came(obj: Any) -> None:
    """Known and unknown types, as objects and as bytes."""
    assert to_wire(parse_notification(obj)) == obj
    if not isinstance(obj, list):
        assert to_wire(decode_notification(orjson.dumps(obj))) == obj


codes = st.one_of(st.sampled_from(["OK", "BAD_REQUEST", "200", "NEW"]), st.sampled_from([200, 201, 400, 401]))
bodies = st.one_of(
    json_values,
    st.fixed_dictionaries({"msg": words}),
    st.fixed_dictionaries({"sequence": st.one_of(st.integers(0, 9), st.sampled_from(["0", "7"]))}),
    st.fixed_dictionaries({"conversationId": words}),
    st.fixed_dictionaries({"relativePath": words, "queryParams": json_objects}),
    st.fixed_dictionaries({"title": words, "details": words, "errorCode": st.integers(40000, 50000)}),
)
responses = st.fixed_dictionaries(
    {"code": codes},
    optional={"body": bodies, "reqId": st.one_of(words, st.integers(0, 9)), "kind": words, "type": words},
)
EXPECTED = st.one_of(st.none(), st.sampled_from(sorted(BODIES.values(), key=lambda cls: cls.TYPE)))


@common
@given(obj=st.one_of(responses, st.lists(responses, max_size=2)))
def test_every_response_comes_out_as_it_came(obj: Any) -> None:
    """Whatever the body is, it stays."""
    assert to_wire(parse_response(obj)) == obj
    assert to_wire(decode_response(orjson.dumps(obj))) == obj


@settings(common, max_examples=200)
@given(obj=responses, expected=EXPECTED)
def test_response_to_a_known_request_is_lossless_or_refused(obj: Any, expected: Any) -> None:
    """The documented error is the only one."""
    try:
        response = parse_response(obj, expected)
    except RemoteProtocolError:
        return
    assert to_wire(response) == obj


@common
@given(sequence=st.integers(-(2**63), 2**63 - 1), req_id=words, spaced=st.booleans())
def test_shortest_way_reads_the_same_as_the_general_way(sequence: int, req_id: str, *, spaced: bool) -> None:
    """The fast path for nearly all answers is proved equal to the general one."""
    obj = {"code": "OK", "body": {"sequence": sequence}, "reqId": req_id}
    raw = orjson.dumps(obj, option=orjson.OPT_INDENT_2 if spaced else None)
    quick, general = decode_response(raw, PublishEvent), parse_response(obj, PublishEvent)
    assert quick == general
    assert to_wire(quick) == to_wire(general) == obj


PARSERS: list[Callable[[Any], object]] = [parse_request, parse_response, parse_notification, parse_manifest]
DECODERS: list[Callable[[bytes], object]] = [decode_request, decode_response, decode_notification, parse_manifest]


def _fuzz(parse: Callable[[Any], object], value: Any) -> None:
    """Parse; whatever else than the documented error comes out fails the test."""
    with contextlib.suppress(RemoteProtocolError):
        parse(value)


seeds = st.one_of(requests, responses, notifications)


@st.composite
def damaged(draw: st.DrawFn) -> Any:
    """A message in which one value is replaced by another, anywhere."""
    obj = draw(seeds)
    place: Any = obj
    while isinstance(place, dict) and place:
        key = draw(st.sampled_from(sorted(place)))
        if not isinstance(place[key], dict) or draw(st.booleans()):
            place[key] = draw(json_values)
            break
        place = place[key]
    return obj


@settings(common, max_examples=150)
@given(value=st.one_of(json_values, damaged()), parse=st.sampled_from(PARSERS))
def test_random_json_raises_nothing_but_the_documented_error(value: Any, parse: Callable[[Any], object]) -> None:
    """Issue 5: random JSON never raises anything else; reliability row C17."""
    _fuzz(parse, value)


@settings(common, max_examples=150)
@given(raw=st.one_of(st.binary(max_size=64), damaged().map(orjson.dumps)), decode=st.sampled_from(DECODERS))
def test_random_bytes_raise_nothing_but_the_documented_error(raw: bytes, decode: Callable[[Any], object]) -> None:
    """Issue 5: random JSON never raises anything else; reliability row C17."""
    _fuzz(decode, raw)


@settings(common, max_examples=100)
@given(obj=seeds, cut=st.integers(0, 400))
def test_truncated_bytes_raise_nothing_but_the_documented_error(obj: Any, cut: int) -> None:
    """Reliability row C17: malformed JSON."""
    raw = orjson.dumps(obj)[:cut]
    for decode in DECODERS:
        _fuzz(decode, raw)


@common
@given(obj=notifications)
def test_parsed_message_written_plainly_means_the_same(obj: Any) -> None:
    """`attrs.evolve` drops the form in which a message came, never what it says."""
    parsed = parse_notification(obj)
    assert isinstance(parsed, Notification)
    plain = attrs.evolve(parsed)
    assert plain == parsed
    assert parse_notification(to_wire(plain)) == parsed


def test_the_property_tests_cover_every_class() -> None:
    """A class that is added is tested without anybody thinking of it."""
    names = {cls.__name__ for cls in MESSAGES}
    assert {"ContentEvent", "ConversationDetails", "AppManifest", "UnknownElement", "Refusal"} <= names
    assert len(names) > 80
    assert {Request, Response, MessagingEvents}.isdisjoint({Message})
