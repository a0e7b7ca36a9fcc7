"""What a message holds that this version does not know: the sandbox asks, to notice our own mistakes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs

from connector_async.wire._base import Family, Message
from connector_async.wire._converter import fields_of
from connector_async.wire._reading import is_array
from connector_async.wire.requests import RawBody

__all__ = ["unknown_fields"]


def unknown_fields(message: Message) -> list[str]:
    """The paths of all that is not typed, in wire names: unknown fields, unreadable values, unknown kinds.

    An unknown kind is reported as the path of the field that names it, such as `body.event.type`.
    """
    return list(_walk(message, ""))


def _walk(message: Message, path: str) -> Iterator[str]:
    if isinstance(message, RawBody):
        yield "type"  # it stands on the envelope
        return
    if isinstance(message, Family) and not message.TYPE and not message.KINDS:
        yield f"{path}{message.KEY}"
    yield from (f"{path}{name}" for name in message.extra)
    wire_names = {field.name: field.wire for field in fields_of(type(message))}
    for attribute in attrs.fields(type(message)):
        if attribute.name in wire_names:
            yield from _walk_value(getattr(message, attribute.name), f"{path}{wire_names[attribute.name]}")


def _walk_value(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, Message):
        yield from _walk(value, f"{path}.")
    elif is_array(value):
        for index, item in enumerate(value):
            yield from _walk_value(item, f"{path}[{index}]")
