"""JSON out: exact, or refused with the place of what cannot be written; a value is never shown."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Final

import orjson

from connector_async.errors import LocalProtocolError
from connector_async.wire._base import Message
from connector_async.wire._converter import writers
from connector_async.wire._reading import is_array, is_mapping

__all__ = ["dump"]

_DEEPEST: Final = 256  # levels; the writer beneath takes 254


def dump(value: object, options: int | None = None) -> bytes:
    """Write a JSON value, with messages in it, as compact UTF-8.

    Args:
        value: The value.
        options: Those of orjson, such as for indenting.

    Raises:
        LocalProtocolError: Something in it has no JSON form; the message says where.
    """
    try:
        raw = orjson.dumps(value, _as_json, options)
    except TypeError as error:  # orjson's own error is one
        # Its text names the reason only, never a value.
        reason = next(_unwritable(value, "$", 0), str(error))
        raise LocalProtocolError(f"the message cannot be written as JSON: {reason}") from None
    # NaN and infinity come out as `null`, which says something else.
    if b"null" in raw and (reason := next(_unwritable(value, "$", 0), "")):
        raise LocalProtocolError(f"the message cannot be written as JSON: {reason}")
    return raw


def _as_json(value: object) -> object:
    if isinstance(value, Message):
        return writers[value.__class__](value)
    if is_mapping(value):
        return dict(value)
    msg = f"no JSON form for {type(value).__name__}"
    raise TypeError(msg)


def _unwritable(value: Any, place: str, level: int) -> Iterator[str]:
    """What has no JSON form, each with its place, as far down as the writer goes."""
    if isinstance(value, Message):
        value = writers[value.__class__](value)
    if level > _DEEPEST:
        yield "nested too deeply"
    elif is_mapping(value):
        for name, item in value.items():
            if isinstance(name, str) and not _is_broken(name):
                yield from _unwritable(item, f"{place}.{name}", level + 1)
            else:
                yield f"a name that is no text @ {place}"
    elif is_array(value):
        for index, item in enumerate(value):
            yield from _unwritable(item, f"{place}[{index}]", level + 1)
    elif reason := _reason(value):
        yield f"{reason} @ {place}"


def _reason(value: object) -> str | None:
    """Why a value that holds no others cannot be written, or None."""
    if isinstance(value, float):
        return None if math.isfinite(value) else "no finite number"
    if isinstance(value, str):
        return "half a surrogate pair" if _is_broken(value) else None
    try:
        orjson.dumps(value)
    except TypeError:  # it knows some kinds that are none of JSON's, such as dates
        is_long = isinstance(value, int)
        return "an integer of more than 64 bits" if is_long else f"no JSON form for {type(value).__name__}"
    return None


def _is_broken(text: str) -> bool:
    return not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text)
