"""Bytes in and out."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import orjson
import pytest

from connector_async.errors import LocalProtocolError, RemoteProtocolError
from connector_async.wire import (
    ChatState,
    ChatStateEvent,
    Confirmation,
    ConsumerRequestConversation,
    ContentEvent,
    ConversationCreated,
    EventPublished,
    GenerateURLForUploadFile,
    PublishEvent,
    RawBody,
    Refusal,
    Request,
    Response,
    SetUserProfile,
    TransferUrl,
    decode_notification,
    decode_request,
    decode_response,
    encode,
    encode_request,
    parse_request,
    parse_response,
    to_wire,
)

PROFILE = Request(id="1", body=SetUserProfile())
OPENING = Request(id="2", body=ConsumerRequestConversation(brand_id="12345678"))


def text_request(words: str, **extra: object) -> Request[PublishEvent]:
    """A request that publishes a text."""
    return Request(id="m-1", body=PublishEvent("d", ContentEvent.text_of(words)), extra=extra)


def test_request_is_written_compactly_in_utf8() -> None:
    """Letters beyond ASCII stand for themselves: each counts as one character of the limit."""
    raw = encode_request(text_request("Grüße 😀"))
    assert (
        raw
        == (
            '{"id":"m-1","body":{"dialogId":"d","event":{"type":"ContentEvent","message":"Grüße 😀",'
            '"contentType":"text/plain"}},"type":"ms.PublishEvent","kind":"req"}'
        ).encode()
    )
    assert decode_request(raw) == text_request("Grüße 😀")


def test_batch_is_written_as_an_array() -> None:
    """Documentation: CONVERSATION takes an array, the profile first."""
    assert orjson.loads(encode_request([PROFILE, OPENING])) == [to_wire(PROFILE), to_wire(OPENING)]
    assert decode_request(encode_request([PROFILE, OPENING])) == [PROFILE, OPENING]
    assert to_wire([PROFILE, OPENING]) == [to_wire(PROFILE), to_wire(OPENING)]


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        ([OPENING, PROFILE], "must begin with userprofile.SetUserProfile"),
        ([OPENING], "must begin with userprofile.SetUserProfile"),
        ([PROFILE, Request(id=1, body=OPENING.body)], "an id of its own"),
        ([], "at least one request"),
    ],
)
def test_batch_that_the_api_would_refuse_is_not_written(batch: list[Request[Any]], words: str) -> None:
    """Documentation: the profile is mandatory and first; equal ids make answers indistinguishable."""
    with pytest.raises(LocalProtocolError, match=words):
        encode_request(batch)


def test_request_with_a_text_is_limited_in_characters_not_bytes() -> None:
    """How-to guide: a request of more than 5,000 characters is refused."""
    room = 5000 - len(encode_request(text_request("x"))) + 1
    assert len(encode_request(text_request("ü" * room))) > 5000
    too_long = "has 5007 characters as JSON, and the API takes at most 5000: make it shorter by 7, or split the text"
    with pytest.raises(LocalProtocolError, match=too_long):
        encode_request(text_request("ü" * (room + 7)))


def test_who_is_told_that_a_text_is_too_long_is_told_what_fits() -> None:
    """Found by trial: who made it 5,000 characters long was refused again, by the limit on the whole request."""
    with pytest.raises(ValueError, match=r"not 5001; the whole request .* some 4700 are left for the text"):
        ContentEvent.text_of("x" * 5001)
    dialog_id = "11111111-2222-4333-8444-555555555555"
    body = PublishEvent(dialog_id, ContentEvent.text_of("x" * 4700), conversation_id=dialog_id)
    assert len(encode_request(Request(id="x" * 36, body=body))) <= 5000


def test_request_with_a_preview_is_not_limited() -> None:
    """A preview of 30 KB is documented and could not fit."""
    event = ContentEvent.file("/a", "PNG", preview="data:image/png;base64," + "A" * 20_000)
    assert len(encode_request(Request(id="1", body=PublishEvent("d", event)))) > 20_000


@pytest.mark.parametrize(
    "value",
    [2**70, {1: 2}, object(), "\ud800", MappingProxyType({"a": {1, 2}})],
    ids=lambda value: type(value).__name__,
)
def test_value_without_a_json_form_is_refused_before_anything_is_sent(value: object) -> None:
    """LocalProtocolError: we broke a rule, nothing was sent."""
    with pytest.raises(LocalProtocolError, match="the message cannot be written as JSON"):
        encode_request(Request(id="1", body=RawBody("x", {"value": value})))


def test_messages_and_mappings_may_stand_in_a_raw_body() -> None:
    """The escape hatch takes what people have at hand."""
    event = ChatStateEvent(ChatState.ACTIVE)
    raw = encode(Request(id="1", body=RawBody("x", {"event": event, "more": MappingProxyType({"a": (1, 2)})})))
    assert orjson.loads(raw)["body"] == {
        "event": {"type": "ChatStateEvent", "chatState": "ACTIVE"},
        "more": {"a": [1, 2]},
    }
    assert orjson.loads(encode([PROFILE])) == [to_wire(PROFILE)]


NO_JSON = [
    b"",
    b"\x00",
    b"\xff",
    b'{"a":NaN}',
    b'{"a":1e999}',
    b'{"a":"\\ud800"}',
    b'\xef\xbb\xbf{"code":"OK"}',
    b'{"code":"OK"',
    b'{"code":"O',
    b'{"code":"\xc3"}',
    b"9" * 5000,
    b"[" * 5000,
    b"[" * 2000 + b"]" * 2000,
    b'{"code":200}{"code":200}',
]


@pytest.mark.parametrize("raw", NO_JSON, ids=range(len(NO_JSON)))
@pytest.mark.parametrize("decode", [decode_request, decode_response, decode_notification])
def test_bytes_that_are_no_json_are_refused(decode: Any, raw: bytes) -> None:
    """Reliability row C17: NaN, half surrogates, a byte order mark, huge numbers, depth."""
    with pytest.raises(RemoteProtocolError, match=r"is no JSON: .* at byte \d+"):
        decode(raw)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b'{"code":"OK","reqId":"1","reqId":"2"}', "an object has a name twice"),
        (b'{"code":"OK","body":{"sequence":0,"sequence":1},"reqId":"1"}', "an object has a name twice"),
        (b'[{"code":"OK","reqId":"1","reqId":"1"}]', "an object has a name twice"),
        (b'{"code":"OK","reqId":123456789012345678901}', "a number does not fit 64 bits"),
        (b'{"code":"OK","reqId":"1","x":' + b"9" * 300 + b"}", "a number does not fit 64 bits"),
    ],
)
def test_answer_that_parsers_would_read_differently_is_refused(raw: bytes, words: str) -> None:
    """Our decision: a credible answer decides whether a message is sent again."""
    with pytest.raises(RemoteProtocolError, match=f"cannot read the response: {words}"):
        decode_response(raw, PublishEvent)


def test_answer_that_is_too_deep_for_the_exact_parser_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where that is depends on the interpreter: 3.11 reads fewer levels than orjson lets through, 3.12 reads all."""

    def overflow(*_args: object, **_options: object) -> object:
        raise RecursionError

    monkeypatch.setattr("json.loads", overflow)
    with pytest.raises(RemoteProtocolError, match="cannot read the response: nested too deeply"):
        decode_response(b'{"code":"OK","reqId":"1","x:y":[[]]}', PublishEvent)


@pytest.mark.parametrize(
    "raw",
    [
        b'{"code":"OK","body":{"msg":"a: b"},"reqId":"1:2"}',
        b'{"code":"OK","body":{"sequence":18446744073709551615},"reqId":"1"}',
        b'{"code":"OK","body":{"sequence":-9223372036854775808},"reqId":"12345678901234567890123"}',
        b'{"code":"OK","body":{"sequence":0},"reqId":"1","deep":' + b"[" * 900 + b"]" * 900 + b"}",
    ],
)
def test_answer_with_colons_and_long_numbers_is_read(raw: bytes) -> None:
    """The closer look only refuses what is wrong."""
    assert to_wire(decode_response(raw)) == orjson.loads(raw)


@pytest.mark.parametrize("obj", [{}, {"kind": "resp"}, {"body": {}}, {"access_token": "x"}])
def test_answer_without_a_code_and_an_id_is_refused(obj: dict[str, Any]) -> None:
    """Such an answer says nothing about any request."""
    with pytest.raises(RemoteProtocolError, match="neither a code nor the id of a request"):
        parse_response(obj)


def test_answers_are_typed_by_what_was_asked_in_three_ways() -> None:
    """One class, one for each place, or one for each id: answers are matched by id, so the last is exact."""
    raw = b'[{"code":"OK","body":{"conversationId":"c"},"reqId":2},{"code":"OK","body":{"msg":"ok"},"reqId":"1"}]'
    created, done = ConversationCreated("c"), Confirmation("ok")  # type: ignore[arg-type]  # a plain id
    by_id = decode_response(raw, {"1": SetUserProfile, "2": ConsumerRequestConversation})
    assert isinstance(by_id, list)
    assert [item.body for item in by_id] == [created, done]
    in_order = decode_response(raw, [ConsumerRequestConversation, SetUserProfile])
    assert in_order == by_id
    fewer = decode_response(raw, [ConsumerRequestConversation])
    assert fewer == by_id
    one = decode_response(b'{"code":"OK","body":{"conversationId":"c"},"reqId":"2"}', ConsumerRequestConversation)
    assert isinstance(one, Response)
    assert one.body == created


def test_answers_in_another_order_than_asked_are_typed_by_their_shape() -> None:
    """Connector API: correlate by id, not by position."""
    raw = b'[{"code":"OK","body":{"conversationId":"c"},"reqId":"2"},{"code":"OK","body":{"msg":"ok"},"reqId":"1"}]'
    answers = decode_response(raw, [SetUserProfile, ConsumerRequestConversation])
    assert isinstance(answers, list)
    assert [type(item.body) for item in answers] == [ConversationCreated, Confirmation]


def test_one_answer_to_a_batch_is_read() -> None:
    """A refusal of who we are answers a batch with one object."""
    raw = b'{"code":401,"type":".ReqBody$ErrorResp","body":{"errorCode":40102}}'
    answer = decode_response(raw, [SetUserProfile, ConsumerRequestConversation])
    assert isinstance(answer, Response)
    assert answer.body == Refusal(error_code=40102)
    assert decode_response(b'{"code":"OK","reqId":"9"}', {"1": SetUserProfile}) == Response(code="OK", req_id="9")


def test_empty_batch_of_answers_is_read() -> None:
    """httpx hands a surplus `[]` to the next request (reliability rule 3): it is readable, and answers nothing."""
    assert decode_response(b"[]", PublishEvent) == []


BODIES: list[tuple[Any, type[Any], Any]] = [
    ({"sequence": 3}, PublishEvent, EventPublished(3)),
    ({}, PublishEvent, EventPublished()),
    (None, PublishEvent, EventPublished()),
    ("OK", PublishEvent, EventPublished()),
    ([5], PublishEvent, EventPublished()),
    ("OK done", SetUserProfile, Confirmation("OK done")),
    ({"msg": "ok"}, SetUserProfile, Confirmation("ok")),
    (
        {"relativePath": "/a", "queryParams": {"temp_url_sig": "s"}},
        GenerateURLForUploadFile,
        TransferUrl(relative_path="/a", query_params={"temp_url_sig": "s"}),
    ),
]


@pytest.mark.parametrize(("body", "asked", "typed"), BODIES)
def test_good_answer_has_the_promised_body(body: Any, asked: Any, typed: Any) -> None:
    """Documented bodies, and the text and missing bodies of the WebSocket form."""
    obj = {"code": "OK", "body": body, "reqId": "1"}
    answer = parse_response(obj, asked)
    assert isinstance(answer, Response)
    assert answer.body == typed
    assert to_wire(answer) == obj
    general = decode_response(orjson.dumps(obj), asked)
    assert general == answer


@pytest.mark.parametrize("body", [None, {}, "OK", {"conversationId": None}])
def test_good_answer_that_lacks_what_was_asked_for_is_refused(body: Any) -> None:
    """An opened conversation without an id is of no use to anybody."""
    with pytest.raises(RemoteProtocolError, match=r"@ \$\.body"):
        parse_response({"code": "OK", "body": body, "reqId": "1"}, ConsumerRequestConversation)


def test_raw_request_keeps_the_answer_as_it_came() -> None:
    """The escape hatch promises an object, whatever it is."""
    answer = parse_response({"code": "OK", "body": {"anything": 1}, "reqId": "1"}, RawBody)
    assert isinstance(answer, Response)
    assert answer.body == {"anything": 1}


@pytest.mark.parametrize(
    "obj",
    [
        {"code": "OK", "body": {"sequence": 4}, "reqId": "1"},
        {"code": "OK", "body": {"sequence": "4"}, "reqId": "1"},
        {"code": "OK", "body": {"sequence": 4, "more": 1}, "reqId": "1"},
        {"code": "OK", "body": {"sequence": 4}, "reqId": 1},
        {"code": "OK", "body": {"sequence": 4}, "reqId": "a:b"},
        {"code": "OK", "body": {"sequence": True}, "reqId": "1"},
        {"code": 200, "body": {"sequence": 4}, "reqId": "1"},
        {"code": "OK", "body": "x", "reqId": "1"},
        {"code": "OK", "body": {"other": 4}, "reqId": "1"},
        {"code": "OK", "body": {"sequence": 4}, "reqId": "1", "kind": "resp"},
    ],
)
def test_shortest_way_and_general_way_agree(obj: dict[str, Any]) -> None:
    """The fast path answers for its own shape only, and there as the general way does."""
    raw = orjson.dumps(obj)
    for expected in (PublishEvent, None):
        assert decode_response(raw, expected) == parse_response(obj, expected)
        assert to_wire(decode_response(raw, expected)) == obj


def test_what_is_nested_too_deeply_is_not_written() -> None:
    """C17, on the way out: a body that nobody knows is kept as it came, however deep that is."""
    deep: Any = 1
    for _ in range(100_000):
        deep = [deep]
    parsed: list[Any] = [
        parse_response({"code": "OK", "body": deep}),
        parse_request({"id": "1", "type": "x", "body": deep}),
    ]
    for message in parsed:
        with pytest.raises(LocalProtocolError, match="nested too deeply"):
            to_wire(message)
        with pytest.raises(LocalProtocolError, match="nested too deeply"):
            to_wire([message])


def test_what_is_no_message_is_not_written() -> None:
    items: Any = [{"kind": "req"}]
    with pytest.raises(TypeError, match=r"a message of `connector_async\.wire`, not dict"):
        to_wire(items)
