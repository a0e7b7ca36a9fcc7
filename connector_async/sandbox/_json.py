"""JSON at the sandbox's edge: reading, writing, and the type guards that keep `Any` from spreading."""

from __future__ import annotations

from typing import Any, TypeAlias, TypeGuard

import orjson

__all__ = ["Json", "as_objects", "digits", "dumps", "is_array", "is_object", "loads", "text", "word"]

Json: TypeAlias = dict[str, Any]

dumps = orjson.dumps


def loads(raw: bytes) -> object:
    """Read JSON; None stands for "not JSON" as well as for `null`, neither of which any endpoint takes."""
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None


def is_object(value: object) -> TypeGuard[Json]:
    """Whether a decoded value is a JSON object."""
    return isinstance(value, dict)


def is_array(value: object) -> TypeGuard[list[Any]]:
    """Whether a decoded value is a JSON array."""
    return isinstance(value, list)


def as_objects(value: object) -> list[Json] | None:
    """A list of objects, also from a bare one: a one-element array may be sent as its element (MWA overview)."""
    if is_object(value):
        return [value]
    if is_array(value) and value and all(is_object(item) for item in value):
        return value
    return None


def text(value: object) -> str | None:
    """An id as text, whether it came as text or as a number; None where it is neither."""
    if isinstance(value, str):
        return value or None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return None


def digits(value: str) -> int | None:
    """The number that a text of ASCII digits spells; None for every other text, and for more than fits 64 bits."""
    return int(value) if value.isascii() and value.isdecimal() and len(value) <= 18 else None


def word(value: object) -> str:
    """A value that must be one of some words, as text; the empty text where it is none, which is never among them."""
    return value if isinstance(value, str) else ""
