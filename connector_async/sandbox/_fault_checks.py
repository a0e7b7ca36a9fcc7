"""Validators for what people write into a fault file; a message is a clause of the one sentence that is shown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeGuard, cast

import attrs

__all__ = ["a_flag", "at_least", "is_whole", "one_of", "some_text", "whole", "whole_numbers"]

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


def whole_numbers(_instance: object, field: attrs.Attribute[Any], value: object) -> None:
    """A list of integers from 1 on."""
    numbers = cast("tuple[object, ...]", value) if isinstance(value, tuple) else (None,)
    if not all(is_whole(one) and one >= 1 for one in numbers):
        raise ValueError(f"{field.name} must be a list of whole numbers from 1 on")
