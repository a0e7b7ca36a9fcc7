"""The input of `connector-async pump`: JSON lines, each of them a message or a bad line."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final, cast

import attrs
import orjson

from connector_async.cli._lines import MAX_LINE, Line
from connector_async.consumer import Opening
from connector_async.errors import ProtocolError
from connector_async.pump import PumpMessage
from connector_async.wire import ConsumerRequestConversation, ContentEvent, Event, parse_request

__all__ = ["BadLine", "DeadLetter", "read_line"]

_BOM: Final = b"\xef\xbb\xbf"
_OPENING: Final = {"skill_id", "profile", "campaign", "context", "ttr"}
_OUTCOME: Final = "outcome"
"""What a file of dead letters adds: it is an input again without being edited."""
_KNOWN: Final = {"consumer", "text", "body", "id", _OUTCOME} | _OPENING


@attrs.frozen
class BadLine:
    """A line that is no message, and why; the reason has nothing of its text."""

    number: int
    reason: str


@attrs.frozen
class DeadLetter(PumpMessage):
    """One that was given up, and is to be sent again: also by the outbox that gave it up."""


class _Bad(Exception):
    """The reason."""


def read_line(line: Line) -> PumpMessage | BadLine:
    """The message of a line, or why it is none."""
    try:
        return _message(line)
    except _Bad as error:
        return BadLine(line.number, str(error))


def _message(line: Line) -> PumpMessage:
    fields = _fields(line)
    unknown = sorted(fields.keys() - _KNOWN)
    if unknown:
        raise _Bad(f"unknown field {unknown[0][:40]!r}; there is {', '.join(sorted(_KNOWN - {_OUTCOME}))}")
    try:
        return (DeadLetter if _OUTCOME in fields else PumpMessage)(
            id=_id(line, fields),
            consumer=_text(fields, "consumer"),
            body=_body(fields),
            opening=_opening(fields),
        )
    except (ValueError, TypeError, ProtocolError) as error:
        raise _Bad(str(error)) from error


def _fields(line: Line) -> dict[str, Any]:
    if line.raw is None:
        raise _Bad(f"longer than {MAX_LINE:,} bytes")
    raw = line.raw.removeprefix(_BOM) if line.number == 1 else line.raw
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        raise _Bad(f"invalid UTF-8 at byte {error.start + 1}") from error
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise _Bad(f"no JSON: {error.msg}, column {error.colno}") from error
    if not isinstance(value, dict):
        raise _Bad("no JSON object")
    return cast("dict[str, Any]", value)


def _text(fields: Mapping[str, Any], name: str) -> str:
    if name not in fields:
        raise _Bad(f"no {name}")
    value = fields[name]
    if not isinstance(value, str) or not value:
        raise _Bad(f"{name} must be a text that is not empty")
    return value


def _id(line: Line, fields: Mapping[str, Any]) -> str:
    if "id" in fields:
        return _text(fields, "id")
    # The same line of the same file gets the same id again: reading it twice sends it once.
    digest = hashlib.sha256((line.raw or b"").strip()).hexdigest()
    return f"line-{line.number}-{digest[:24]}"


def _body(fields: Mapping[str, Any]) -> str | Event:
    if ("text" in fields) == ("body" in fields):
        raise _Bad("both text and body" if "text" in fields else "neither text nor body")
    if "text" in fields:
        text = _text(fields, "text")
        ContentEvent.text_of(text)  # its limits, in its words
        return text
    body: Any = fields["body"]
    if not isinstance(body, dict) or not isinstance(cast("dict[str, Any]", body).get("type"), str):
        raise _Bad("body must be an event: an object with a type")
    event: Event = _parsed("ms.PublishEvent", {"dialogId": "-", "event": fields["body"]}).event
    if isinstance(event, ContentEvent) and event.text is not None:
        ContentEvent.text_of(event.text)  # what is read may be longer than what may be sent
    return event


def _opening(fields: Mapping[str, Any]) -> Opening | None:
    given = {name: fields[name] for name in _OPENING if fields.get(name) is not None}
    if not given:
        return None
    asked: dict[str, Any] = {"brandId": "-"}
    names = {"skill_id": "skillId", "campaign": "campaignInfo", "context": "conversationContext", "ttr": "ttrDefName"}
    asked |= {names[name]: value for name, value in given.items() if name in names}
    conversation: ConsumerRequestConversation = _parsed("cm.ConsumerRequestConversation", asked)
    return Opening(
        profile=_parsed("userprofile.SetUserProfile", given["profile"]) if "profile" in given else None,
        skill_id=conversation.skill_id,
        campaign=conversation.campaign_info,
        context=conversation.conversation_context,
        ttr=fields.get("ttr"),
    )


def _parsed(kind: str, body: object) -> Any:
    """A body of this type, read as the API's own reader does it."""
    request = parse_request({"kind": "req", "id": "-", "type": kind, "body": body})
    return None if isinstance(request, list) else request.body
