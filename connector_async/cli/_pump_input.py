"""The input of `connector-async pump`: JSON lines, each of them a message or a bad line, read as fast as wanted."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any, Final, cast

import anyio
import anyio.lowlevel
import anyio.to_thread
import attrs
import orjson

from connector_async.consumer import Opening
from connector_async.errors import ProtocolError
from connector_async.pump import PumpMessage
from connector_async.wire import ConsumerRequestConversation, ContentEvent, Event, parse_request

__all__ = ["MAX_LINE", "BadLine", "DeadLetter", "Line", "read_line", "read_lines"]

MAX_LINE: Final = 1 << 20
"""Bytes of one line; no message of the API is as long."""
_CHUNK: Final = 1 << 16
_BOM: Final = b"\xef\xbb\xbf"
_OPENING: Final = {"skill_id", "profile", "campaign", "context", "ttr"}
_OUTCOME: Final = "outcome"
"""What a file of dead letters adds: it is an input again without being edited."""
_KNOWN: Final = {"consumer", "text", "body", "id", _OUTCOME} | _OPENING


@attrs.frozen
class Line:
    """One line that is not blank; `raw` is None where it was longer than `MAX_LINE`."""

    number: int
    raw: bytes | None = attrs.field(repr=False)


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


async def read_lines(descriptor: int) -> AsyncGenerator[list[Line]]:
    """The lines of a file, in lists: all that one reading gave. Waiting for a pipe can be cancelled.

    Raises:
        OSError: It cannot be read.
    """
    cutter = _Cutter()
    wait = _waiter(descriptor)
    while True:
        await wait()
        chunk = await anyio.to_thread.run_sync(os.read, descriptor, _CHUNK)
        lines = cutter.cut(chunk)
        if lines:
            yield lines
        if not chunk:
            return


def _waiter(descriptor: int) -> Callable[[], Any]:
    """What to await before a reading: that of a pipe or a terminal may take for ever, and a thread in it with it."""
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(descriptor):
        return lambda: anyio.wait_readable(descriptor)
    return anyio.lowlevel.checkpoint


@attrs.define
class _Cutter:
    """Cuts chunks into numbered lines."""

    number: int = 0
    rest: bytes = b""
    is_too_long: bool = False

    def cut(self, chunk: bytes) -> list[Line]:
        """The lines that end in this chunk; an empty one ends the last."""
        *whole, self.rest = (self.rest + chunk).split(b"\n")
        if not chunk and (self.rest or self.is_too_long):
            whole, self.rest = [*whole, self.rest], b""
        lines: list[Line] = []
        for raw in whole:
            self.number += 1
            if self.is_too_long or len(raw) > MAX_LINE:
                lines.append(Line(self.number, None))
                self.is_too_long = False
            elif raw.strip():
                lines.append(Line(self.number, raw))
        if len(self.rest) > MAX_LINE:
            self.rest, self.is_too_long = b"", True
        return lines


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
