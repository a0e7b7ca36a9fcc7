"""JSON in, messages out, and back: for objects, and for the bytes of the hot path.

Whatever comes from outside is either read or refused with `RemoteProtocolError`; whatever is to go out and does not
fit the API is refused with `LocalProtocolError`, before anything is sent.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar, cast, overload

import orjson

from connector_async._arguments import check_kind, kind_of
from connector_async.errors import LocalProtocolError, RemoteProtocolError
from connector_async.wire._base import Message
from connector_async.wire._converter import makers, read_as, readers, writers
from connector_async.wire._reading import Malformed, is_array, is_object
from connector_async.wire._writing import dump
from connector_async.wire.envelope import Request, Response, class_by_shape
from connector_async.wire.events import ContentEvent, Event
from connector_async.wire.requests import ConsumerRequestConversation, PublishEvent, RequestBody, SetUserProfile
from connector_async.wire.responses import EventPublished

__all__ = [
    "MAX_REQUEST_CHARACTERS",
    "Expected",
    "decode_request",
    "decode_response",
    "encode",
    "encode_request",
    "load",
    "main_event",
    "one_or_many",
    "parse_request",
    "parse_response",
    "request_of",
    "to_wire",
]

MAX_REQUEST_CHARACTERS: Final = 5_000  # of a request with a text (how-to guide, "message too large")

R = TypeVar("R")
Bodies = type[RequestBody[Any]]
Expected = Bodies | Sequence[Bodies] | Mapping[str, Bodies] | None
"""The request, or requests, that an answer belongs to: one class; for a batch one for each in its order, or by id."""


# Objects


def parse_request(obj: Any) -> Request[Any] | list[Request[Any]]:
    """Read one request, or a batch, from a JSON value.

    Raises:
        RemoteProtocolError: It is no request; the message says where and why, and shows no value.
    """
    requests: Request[Any] | list[Request[Any]] = read_as("request", one_or_many, obj, Request)
    return requests


def parse_response(obj: Any, expected: Expected = None) -> Response[Any] | list[Response[Any]]:
    """Read one answer, or those of a batch, from a JSON value.

    Args:
        obj: The JSON value.
        expected: What was asked; without it the shape of each body decides its class.

    Raises:
        RemoteProtocolError: It is no answer, or not one to what was asked.
        TypeError: `expected` is something else.
    """
    _check_expected(expected)
    if is_array(obj):
        return [_parse_answer(item, _expected_at(index, item, expected)) for index, item in enumerate(obj)]
    return _parse_answer(obj, _expected_at(0, obj, expected))


@overload
def to_wire(message: Message) -> dict[str, Any]: ...
@overload
def to_wire(message: Iterable[Message]) -> list[dict[str, Any]]: ...
def to_wire(message: Message | Iterable[Message]) -> Any:
    """Write a message, or a batch, as a JSON value; what was parsed comes out exactly as it came in.

    Raises:
        LocalProtocolError: It holds a value that is nested too deeply to be written.
        TypeError: It is no message.
    """
    try:
        if isinstance(message, Message):
            return writers[message.__class__](message)
        return [_written(item) for item in message]
    except RecursionError:
        raise LocalProtocolError("the message is nested too deeply to be written") from None


def _written(item: Message) -> dict[str, Any]:
    check_kind("each item of a batch", item, Message, "a message of `connector_async.wire`")
    written: dict[str, Any] = writers[item.__class__](item)
    return written


def one_or_many(obj: Any, cls: type[Message]) -> Any:
    """Read one message of a class, or a list of them."""
    read = readers[cls]
    if obj.__class__ is dict:  # nearly always, and the quickest to tell
        return read(obj)
    return [read(item) for item in obj] if is_array(obj) else read(obj)


def _check_expected(expected: Expected) -> None:
    several: list[object] = []
    if isinstance(expected, Mapping):
        several += expected.values()
    elif isinstance(expected, Sequence):
        several += expected
    elif expected is not None:
        several.append(expected)
    for body in several:
        if not _is_class_of_requests(body):
            raise TypeError(
                "expected must be a class of requests, such as PublishEvent, or for a batch several of them, in its "
                f"order or by id, not {kind_of(body)}"
            )


def _is_class_of_requests(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, RequestBody)


def _expected_at(index: int, item: Any, expected: Expected) -> Bodies | None:
    if expected is None or isinstance(expected, type):
        return expected
    if isinstance(expected, Mapping):
        req_id = item.get("reqId") if is_object(item) else None
        return expected.get(str(req_id))
    shape = class_by_shape(item.get("body")) if is_object(item) else None
    asked = expected[index] if index < len(expected) else None
    # Answers come in the order of the requests, says the documentation; where a body clearly says otherwise, it wins.
    return next((body for body in (asked, *expected) if body and body.ANSWER is shape), asked)


def _parse_answer(obj: Any, body: Bodies | None) -> Response[Any]:
    response: Response[Any] = read_as("response", _read_answer, obj, body.ANSWER if body is not None else None)
    return response


def _read_answer(obj: Any, answer: object) -> Response[Any]:
    response: Response[Any] = readers[Response](obj, answer)
    if response.code is None and response.req_id is None:
        msg = "has neither a code nor the id of a request"
        raise Malformed(msg)
    return response


def request_of(request_id: str, body: object) -> Request[Any]:
    """A request with an id of our own making: unlike `Request(...)`, nothing is checked twice.

    Raises:
        TypeError: The body is none of our classes.
    """
    if not isinstance(body, RequestBody):
        msg = f"Request.body must be RequestBody, not {type(body).__name__}"
        raise TypeError(msg)
    known: RequestBody[Any] = cast("Any", body)
    request: Request[Any] = makers[Request](request_id, known, known.wire_type, "req", None, None)
    return request


def main_event(dialog_id: str, event: object) -> PublishEvent:
    """What publishes an event to a MAIN dialog whose id has been checked before.

    Raises:
        TypeError: It is no event of ours.
    """
    if not isinstance(event, Event):
        msg = f"PublishEvent.event must be Event, not {type(event).__name__}"
        raise TypeError(msg)
    published: PublishEvent = makers[PublishEvent](dialog_id, event, dialog_id)
    return published


# Bytes


def encode(message: Message | Iterable[Message]) -> bytes:
    """Write a message, or a batch, as compact UTF-8 JSON.

    Raises:
        LocalProtocolError: A value in it has no JSON form.
    """
    return dump(to_wire(message))


def encode_request(request: Request[Any] | Sequence[Request[Any]]) -> bytes:
    """Write a request, or a batch, as the body of a POST.

    Raises:
        LocalProtocolError: A value in it has no JSON form; a request with a text is longer than the API takes; the
            requests of a batch share an id, or a profile does not come before the conversation.
    """
    try:
        if isinstance(request, Request):
            raw = dump(writers[Request](request))
            if len(raw) > MAX_REQUEST_CHARACTERS and _is_limited(request):
                _check_length(raw)
            return raw
        _check_batch(request)
        return dump([writers[Request](item) for item in request])
    except RecursionError:
        raise LocalProtocolError("the message is nested too deeply to be written") from None


def _check_batch(batch: Sequence[Request[Any]]) -> None:
    """Refuse what CONVERSATION would refuse, or could not answer so that the answers are told apart.

    Source: Connector API, "Create conversation": the profile is mandatory and comes first.
    """
    for item in batch:
        check_kind("each item of a batch", item, Request, "a `Request`")
    if len({str(item.id) for item in batch}) != len(batch):
        raise LocalProtocolError("each request of a batch needs an id of its own")
    kinds = [item.type for item in batch]
    if not kinds:
        raise LocalProtocolError("a batch needs at least one request")
    if ConsumerRequestConversation.TYPE in kinds and kinds[0] != SetUserProfile.TYPE:
        raise LocalProtocolError(f"a batch that opens a conversation must begin with {SetUserProfile.TYPE}")


def _is_limited(request: Request[Any]) -> bool:
    """Whether the limit on characters is known to hold: for texts, not for files with a preview.

    Source: how-to guide; a preview of up to 30 KB is documented and could not fit.
    """
    body = request.body
    return isinstance(body, PublishEvent) and isinstance(body.event, ContentEvent) and body.event.text is not None


def _check_length(raw: bytes) -> None:
    characters = len(raw.decode())
    if characters > MAX_REQUEST_CHARACTERS:
        raise LocalProtocolError(
            f"the request has {characters} characters as JSON, and the API takes at most {MAX_REQUEST_CHARACTERS}: "
            f"make it shorter by {characters - MAX_REQUEST_CHARACTERS}, or split the text"
        )


def load(what: str, raw: bytes | bytearray | memoryview) -> Any:
    """Read strict JSON: UTF-8 without a mark, no NaN, no half surrogates, at most 1,024 levels."""
    try:
        return orjson.loads(raw)
    except ValueError as error:
        raise RemoteProtocolError(f"the {what} is no JSON: {_reason(error)}") from None


def _reason(error: ValueError) -> str:
    """Say what is wrong and where, without the document that the error holds."""
    return f"{error.msg} at byte {error.pos}" if isinstance(error, json.JSONDecodeError) else "not readable"


def decode_request(raw: bytes) -> Request[Any] | list[Request[Any]]:
    """Read the body of a POST to CONVERSATION or SEND: what `encode_request` writes.

    Raises:
        RemoteProtocolError: It is no JSON, or no request.
    """
    return parse_request(load("request", raw))


def decode_response(raw: bytes, expected: Expected = None) -> Response[Any] | list[Response[Any]]:
    """Read an answer, or those of a batch.

    Stricter than the reading of other JSON, because a credible answer decides whether a message is sent again: an
    object that has a name twice, and an integer that does not fit 64 bits, are refused, since parsers disagree about
    what they mean.

    Args:
        raw: The body of the HTTP response.
        expected: What was asked, as for `parse_response`.

    Raises:
        RemoteProtocolError: It is no JSON, no answer, or not one to what was asked.
        TypeError: `expected` is something else.
    """
    obj = load("response", raw)
    if (expected is PublishEvent or expected is None) and (published := _read_published(obj, raw)) is not None:
        return published
    if raw.count(b":") != _members(obj) or _LONG_NUMBER.search(raw):
        _check_exact(raw)
    return parse_response(obj, expected)


def _read_published(obj: Any, raw: bytes) -> Response[Any] | None:
    """Read the one answer that nearly all are, `{"code":"OK","body":{"sequence":0},"reqId":"…"}`, without detours.

    Returns:
        The same as the general way, or None for every other answer.
    """
    if obj.__class__ is not dict or len(obj) != 3 or obj.get("code") != "OK":
        return None
    body, req_id = obj.get("body"), obj.get("reqId")
    if body.__class__ is not dict or len(body) != 1 or req_id.__class__ is not str or raw.count(b":") != 4:
        return None
    sequence = body.get("sequence")
    if sequence.__class__ is not int:
        return None
    response: Response[Any] = makers[Response]("OK", makers[EventPublished](sequence), req_id, None, None)
    return response


_LONG_NUMBER: Final = re.compile(rb"[0-9]{19}")


def _members(value: Any) -> int:
    """How many members all objects have together: as many as there are colons, unless a name or text holds one.

    A doubled name leaves more colons than members.
    """
    members = 0
    waiting = [value]
    while waiting:
        holder = waiting.pop()
        if is_object(holder):
            members += len(holder)
            waiting += [item for item in holder.values() if item.__class__ is dict or item.__class__ is list]
        elif is_array(holder):
            waiting += holder
    return members


def _check_exact(raw: bytes) -> None:
    """Read again with the slow parser, which tells doubled names and the digits of numbers."""
    try:
        json.loads(raw, object_pairs_hook=_without_doubles, parse_int=_within_64_bits)
    except RecursionError:
        raise RemoteProtocolError("cannot read the response: nested too deeply") from None
    except ValueError as error:
        raise RemoteProtocolError(f"cannot read the response: {error}") from None


def _without_doubles(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        msg = "an object has a name twice"
        raise ValueError(msg)
    return members


def _within_64_bits(digits: str) -> int:
    if len(digits) > 20 or not -(2**63) <= int(digits) < 2**64:
        msg = "a number does not fit 64 bits"
        raise ValueError(msg)
    return int(digits)
