"""Validators for what people write into a fault file; a message is a clause of the one sentence that is shown."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeGuard, cast

import attrs

__all__ = [
    "a_flag",
    "a_share",
    "at_least",
    "header_value",
    "header_values",
    "is_whole",
    "one_of",
    "some_text",
    "whole",
    "whole_numbers",
]

Validator = Callable[[Any, "attrs.Attribute[Any]", Any], None]


def is_whole(value: object) -> TypeGuard[int]:
    """Whether a value is an integer and not a boolean."""
    return isinstance(value, int) and not isinstance(value, bool)


def at_least(lowest: float) -> Validator:
    """A number that is not below `lowest`."""

    def check(_instance: object, field: attrs.Attribute[Any], value: object) -> None:
        if not (is_whole(value) or isinstance(value, float)) or not value >= lowest:
            raise ValueError(f"{field.name} must be a number of {lowest:g} or more, not {value!r}")

    return check


def a_share(_instance: object, field: attrs.Attribute[Any], value: object) -> None:
    """A number from 0 to 1."""
    if not (is_whole(value) or isinstance(value, float)) or not 0 <= value <= 1:
        raise ValueError(f"{field.name} must be a number from 0 to 1, not {value!r}")


def whole(lowest: int, highest: int) -> Validator:
    """An integer between two others, both included."""

    def check(_instance: object, field: attrs.Attribute[Any], value: object) -> None:
        if not is_whole(value) or not lowest <= value <= highest:
            raise ValueError(f"{field.name} must be a whole number from {lowest} to {highest}, not {value!r}")

    return check


def one_of(*words: str) -> Validator:
    """One of a few words."""

    def check(_instance: object, field: attrs.Attribute[Any], value: object) -> None:
        if value not in words:
            raise ValueError(f"{field.name} must be one of {', '.join(words)}, not {value!r}")

    return check


def a_flag(_instance: object, field: attrs.Attribute[Any], value: object) -> None:
    """True or false."""
    if not isinstance(value, bool):
        raise ValueError(f"{field.name} must be true or false, not {value!r}")  # noqa: TRY004 - one kind is caught


def some_text(_instance: object, field: attrs.Attribute[Any], value: object) -> None:
    """Text."""
    if not isinstance(value, str):
        raise ValueError(f"{field.name} must be text, not {value!r}")  # noqa: TRY004 - one kind is caught


_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)  # "token" of RFC 9110
_HEADER_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


def _is_header_value(value: object) -> bool:
    return isinstance(value, str) and _HEADER_VALUE.fullmatch(value) is not None


def header_value(_instance: object, field: attrs.Attribute[Any], value: object) -> None:
    """What may stand in a header: text without line breaks, or a number."""
    if not (_is_header_value(value) or is_whole(value) or isinstance(value, float)):
        raise ValueError(f"{field.name} must be text that fits into a header, or a number, not {value!r}")


def header_values(_instance: object, field: attrs.Attribute[Any], value: object) -> None:
    """Names of headers with their values."""
    headers = cast("Mapping[object, object]", value) if isinstance(value, Mapping) else {"": ""}
    for name, said in headers.items():
        if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name) or not _is_header_value(said):
            raise ValueError(f"{field.name} must be an object of header names and their texts, not {value!r}")


def whole_numbers(_instance: object, field: attrs.Attribute[Any], value: object) -> None:
    """A list of integers from 1 on."""
    numbers = cast("tuple[object, ...]", value) if isinstance(value, tuple) else (None,)
    if not all(is_whole(one) and one >= 1 for one in numbers):
        raise ValueError(f"{field.name} must be a list of whole numbers from 1 on")
