"""What a message holds that this version does not know: the sandbox asks, to notice our own mistakes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from connector_async.wire._base import Family, Message
from connector_async.wire._converter import fields_of
from connector_async.wire._reading import is_array
from connector_async.wire.requests import RawBody

__all__ = ["unknown_fields"]


def unknown_fields(message: Message) -> list[str]:
    """The paths of all that is not typed, in wire names: unknown fields, unreadable values, unknown kinds.

    An unknown kind is reported as the path of the field that names it, such as `body.event.type`.
    """
    found: list[str] = []
    waiting: list[tuple[str, Message]] = [("", message)]
    while waiting:
        path, holder = waiting.pop()
        found += _unknown_here(path, holder)
        waiting += reversed(list(_parts(path, holder)))
    return found


def _unknown_here(path: str, message: Message) -> Iterator[str]:
    if isinstance(message, RawBody):
        yield "type"  # it stands on the envelope
    if isinstance(message, Family) and not message.TYPE and not message.KINDS:
        yield f"{path}{message.KEY}"
    yield from (f"{path}{name}" for name in message.extra)


def _parts(path: str, message: Message) -> Iterator[tuple[str, Message]]:
    """Yield the messages right within this one, each with the beginning of the paths in it."""
    for field in fields_of(type(message)):
        value: Any = getattr(message, field.name)
        if isinstance(value, Message):
            yield f"{path}{field.wire}.", value
        elif is_array(value):
            for index, item in enumerate(value):
                if isinstance(item, Message):
                    yield f"{path}{field.wire}[{index}].", item
