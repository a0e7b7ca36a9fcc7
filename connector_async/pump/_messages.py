"""What a pump is given, and the form in which an outbox keeps it: JSON in the API's own words."""

from __future__ import annotations

import hashlib
import json
from typing import Any, TypeVar, cast

import attrs
import orjson

from connector_async._arguments import check_kind
from connector_async._redact import mask
from connector_async.consumer import Opening
from connector_async.errors import LocalProtocolError, RemoteProtocolError
from connector_async.store.outbox import OutboxMessage
from connector_async.wire import (
    ClientProperties,
    ConsumerRequestConversation,
    ContentEvent,
    Event,
    PublishEvent,
    Request,
    RequestBody,
    SetUserProfile,
    parse_request,
    to_wire,
)

__all__ = ["PumpMessage", "event_of", "opening_of", "to_outbox"]

B = TypeVar("B", bound=RequestBody[Any])

_MAX_REQUEST_ID = 64  # characters (Connector API, "Send")


def _check_id(_message: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"PumpMessage.{attribute.name} must be a text that is not empty")
    _check_writable(attribute.name, value)


def _check_writable(name: str, value: str) -> None:
    # Refused by some database or other each time it is put: whoever feeds would wait for it for ever.
    if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
        raise ValueError(f"PumpMessage.{name} holds half a surrogate pair, which is no character")
    if "\0" in value:
        raise ValueError(f"PumpMessage.{name} holds a NUL, which databases do not take")


def _check_request_id(_message: object, _attribute: attrs.Attribute[Any], value: object) -> None:
    if value is not None and not (isinstance(value, str) and 1 <= len(value) <= _MAX_REQUEST_ID):
        raise ValueError(f"PumpMessage.request_id must be a text of 1 to {_MAX_REQUEST_ID} characters")
    if isinstance(value, str):
        _check_writable("request_id", value)


def _check_body(_message: object, _attribute: attrs.Attribute[Any], value: object) -> None:
    if isinstance(value, str):
        ContentEvent.text_of(value)
    elif not isinstance(value, Event):
        raise TypeError(f"PumpMessage.body must be a text or an event, not {type(value).__name__}")


@attrs.frozen
class PumpMessage:
    """One message to put into the outbox.

    Attributes:
        id: Yours, unique in the account: putting it again changes nothing.
        consumer: The `ext_consumer_id`. Messages of one consumer are sent in the order they were put.
        body: A text of 1 to some 4,700 characters, or any event.
        opening: How to open a conversation, if need be.
        request_id: The id it is sent under, every time, and no other message; made of `id` if None.

    Raises:
        ValueError: An id is empty or too long, or the text cannot be sent.
    """

    id: str = attrs.field(validator=_check_id)
    consumer: str = attrs.field(validator=_check_id, repr=lambda consumer: repr(mask(consumer)))
    body: str | Event = attrs.field(repr=False, validator=_check_body)
    opening: Opening | None = attrs.field(default=None, kw_only=True, repr=False)
    request_id: str | None = attrs.field(default=None, kw_only=True, validator=_check_request_id)


def to_outbox(message: PumpMessage) -> OutboxMessage:
    """The form that is kept.

    Raises:
        LocalProtocolError: A value in it has no JSON form.
        TypeError: It is no `PumpMessage`.
    """
    check_kind("a message", message, PumpMessage, "a `PumpMessage(id, consumer, body)`")
    event = ContentEvent.text_of(message.body) if isinstance(message.body, str) else message.body
    return OutboxMessage(
        id=message.id,
        consumer=message.consumer,
        body=_dump(to_wire(event)),
        request_id=message.request_id or _request_id(message.id),
        opening=None if message.opening is None else _dump(_opening_to_json(message.opening)),
    )


def event_of(message: OutboxMessage) -> Event:
    """What is to be published.

    Raises:
        ValueError: It cannot be read; the error shows nothing of it.
    """
    published = _read(PublishEvent.TYPE, {"dialogId": "", "event": _load(message.body)}, PublishEvent)
    return published.event


def opening_of(message: OutboxMessage) -> Opening | None:
    """How to open its conversation; errors as `event_of`."""
    if message.opening is None:
        return None
    kept = _load(message.opening)
    if not isinstance(kept, dict):
        raise ValueError("the opening of a kept message cannot be read")  # noqa: TRY004 - as for all that is kept
    facts = cast("dict[str, Any]", kept)
    asked = _read(ConsumerRequestConversation.TYPE, facts.get("conversation"), ConsumerRequestConversation)
    profile = facts.get("profile")
    return Opening(
        profile=None if profile is None else _read(SetUserProfile.TYPE, profile, SetUserProfile),
        skill_id=asked.skill_id,
        campaign=asked.campaign_info,
        context=asked.conversation_context,
        ttr=asked.ttr_def_name,
        client_properties=facts.get("client_properties"),
    )


def _opening_to_json(opening: Opening) -> dict[str, Any]:
    properties = opening.client_properties
    return {
        "profile": None if opening.profile is None else to_wire(opening.profile),
        "conversation": to_wire(
            ConsumerRequestConversation(
                skill_id=opening.skill_id,
                campaign_info=opening.campaign,
                conversation_context=opening.context,
                ttr_def_name=opening.ttr,
            )
        ),
        "client_properties": properties.to_header() if isinstance(properties, ClientProperties) else properties,
    }


def _request_id(message_id: str) -> str:
    """The same for the same message in any process: what the caller said, or where that does not fit, its hash."""
    if len(message_id) <= _MAX_REQUEST_ID and message_id.isascii() and message_id.isprintable():
        return message_id
    return hashlib.sha256(message_id.encode("utf-8", "surrogatepass")).hexdigest()


def _read(kind: str, body: object, cls: type[B]) -> B:
    try:
        request = parse_request({"kind": "req", "id": "0", "type": kind, "body": body})
    except RemoteProtocolError as error:
        raise ValueError(f"a kept message cannot be read: {error}") from None
    found = cast("Request[Any]", request).body
    if not isinstance(found, cls):
        raise ValueError("a kept message cannot be read")  # noqa: TRY004 - as for all that is kept
    return found


def _load(raw: bytes) -> object:
    try:
        value: object = orjson.loads(raw)
    except ValueError as error:
        where = f" at byte {error.pos}" if isinstance(error, json.JSONDecodeError) else ""
        raise ValueError(f"a kept message is no JSON{where}") from None
    return value


def _dump(value: object) -> bytes:
    try:
        return orjson.dumps(value, default=_as_dict)
    except TypeError as error:
        raise LocalProtocolError(f"the message cannot be written as JSON: {error}") from None


def _as_dict(value: Any) -> object:
    try:
        return dict(value)
    except (TypeError, ValueError):
        raise TypeError(f"no JSON form for {type(value).__name__}") from None
