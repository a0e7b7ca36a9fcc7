"""Validators and converters for what we build ourselves: each error names the class, the field and the limit.

They never run on received data, and they never refuse a word that is new to us: vocabularies are open.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sized
from typing import Any, cast

import attrs

__all__ = [
    "Check",
    "anything",
    "at_most",
    "each",
    "identifier",
    "instance",
    "integers",
    "mapping",
    "mappings",
    "maybe",
    "number",
    "request_id",
    "several_of",
    "text",
    "texts",
    "things",
    "truth",
    "whole",
]

Check = Callable[[Any, "attrs.Attribute[Any]", Any], None]


def _place(instance: object, attribute: attrs.Attribute[Any]) -> str:
    return f"{type(instance).__name__}.{attribute.name}"


def text(*, maximum: int | None = None, minimum: int = 0, if_longer: str = "") -> Check:
    """Text of so many characters that can be written as UTF-8; `if_longer` is what else to say of one with more."""
    most = sys.maxsize if maximum is None else maximum

    def check(owner: object, attribute: attrs.Attribute[Any], value: object) -> None:
        if type(value) is str and value.isascii() and minimum <= len(value) <= most:  # the hot path ends here
            return
        if not isinstance(value, str):
            msg = f"{_place(owner, attribute)} must be a str, not {type(value).__name__}"
            raise TypeError(msg)
        if not minimum <= len(value) <= most:
            upper = "any number of" if maximum is None else f"{maximum}"
            msg = f"{_place(owner, attribute)} must have {minimum} to {upper} characters, not {len(value)}"
            raise ValueError(msg + if_longer if len(value) > most else msg)
        if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
            msg = f"{_place(owner, attribute)} holds half a surrogate pair, which is no character"
            raise ValueError(msg)

    return check


def whole(*, minimum: int | None = None, maximum: int | None = None) -> Check:
    """A whole number in a range."""

    def check(owner: object, attribute: attrs.Attribute[Any], value: object) -> None:
        if not isinstance(value, int) or isinstance(value, bool):
            msg = f"{_place(owner, attribute)} must be an int, not {type(value).__name__}"
            raise TypeError(msg)
        if (minimum is not None and value < minimum) or (maximum is not None and value > maximum):
            limits = [f"at least {minimum}" if minimum is not None else "", f"at most {maximum}" if maximum else ""]
            msg = f"{_place(owner, attribute)} must be {' and '.join(filter(None, limits))}, not {value}"
            raise ValueError(msg)

    return check


def number(owner: object, attribute: attrs.Attribute[Any], value: object) -> None:
    """A finite number."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        msg = f"{_place(owner, attribute)} must be a number, not {type(value).__name__}"
        raise TypeError(msg)
    if not float("-inf") < value < float("inf"):
        msg = f"{_place(owner, attribute)} must be a finite number"
        raise ValueError(msg)


def truth(owner: object, attribute: attrs.Attribute[Any], value: object) -> None:
    """True or False."""
    if not isinstance(value, bool):
        msg = f"{_place(owner, attribute)} must be a bool, not {type(value).__name__}"
        raise TypeError(msg)


def identifier(owner: object, attribute: attrs.Attribute[Any], value: object) -> None:
    """An id that is seen as text and as a number, such as a skill or a campaign."""
    if not isinstance(value, int | str) or isinstance(value, bool):
        msg = f"{_place(owner, attribute)} must be a str or an int, not {type(value).__name__}"
        raise TypeError(msg)


_ID = text(minimum=1, maximum=64)


def request_id(owner: object, attribute: attrs.Attribute[Any], value: object) -> None:
    """An id of 1 to 64 characters, or the number that stands for one."""
    if isinstance(value, int) and not isinstance(value, bool):
        return
    _ID(owner, attribute, value)


def instance(*classes: type) -> Check:
    """One of our classes."""
    names = " or ".join(cls.__name__ for cls in classes)

    def check(owner: object, attribute: attrs.Attribute[Any], value: object) -> None:
        if not isinstance(value, classes):
            msg = f"{_place(owner, attribute)} must be {names}, not {type(value).__name__}"
            raise TypeError(msg)

    return check


def at_most(maximum: int) -> Check:
    """Not more than so many items."""

    def check(owner: object, attribute: attrs.Attribute[Any], value: Sized) -> None:
        if len(value) > maximum:
            msg = f"{_place(owner, attribute)} must be at most {maximum}, not {len(value)}"
            raise ValueError(msg)

    return check


def each(check: Check, *, maximum: int | None = None) -> Check:
    """A tuple, or a list, of not more than so many items of which each passes a check."""
    bounded = None if maximum is None else at_most(maximum)

    def check_all(owner: object, attribute: attrs.Attribute[Any], value: object) -> None:
        if not isinstance(value, tuple):  # what the converter could take for several
            msg = f"{_place(owner, attribute)} must be a tuple or list, not {type(value).__name__}"
            raise TypeError(msg)
        items = cast("tuple[object, ...]", value)
        if bounded is not None:
            bounded(owner, attribute, items)
        for item in items:
            check(owner, attribute, item)

    return check_all


def anything(_owner: object, _attribute: attrs.Attribute[Any], _value: object) -> None:
    """Whatever it is."""


def mapping(owner: object, attribute: attrs.Attribute[Any], value: object) -> None:
    """An object of names and values."""
    if not isinstance(value, Mapping):
        msg = f"{_place(owner, attribute)} must be a mapping, not {type(value).__name__}"
        raise TypeError(msg)


def maybe(check: Check) -> Check:
    """None, or what the check says."""

    def optional(owner: object, attribute: attrs.Attribute[Any], value: object) -> None:
        if value is not None:
            check(owner, attribute, value)

    return optional


# Converters: what cannot be several stays as it is, for the validator to name its field.


def _several(value: Any) -> Any:
    if isinstance(value, str | bytes | Mapping):
        return (value,)
    return tuple(cast("Iterable[object]", value)) if isinstance(value, Iterable) else value


def several_of(cls: type, value: Any) -> Any:
    """One object of a class of ours, or several, as a tuple."""
    return (value,) if isinstance(value, cls) else _several(value)


def integers(value: Iterable[int] | int) -> tuple[int, ...]:
    """One number or several, as a tuple."""
    several: tuple[int, ...] = (value,) if isinstance(value, int) else _several(value)
    return several


def texts(value: Iterable[str] | str) -> tuple[str, ...]:
    """One text or several, as a tuple."""
    several: tuple[str, ...] = _several(value)
    return several


def things(value: Iterable[object]) -> tuple[object, ...]:
    """Whatever it is, as a tuple."""
    several: tuple[object, ...] = _several(value)
    return several


def mappings(value: Iterable[Mapping[str, object]]) -> tuple[Mapping[str, object], ...]:
    """Objects that stay as they are, as a tuple."""
    several: tuple[Mapping[str, object], ...] = _several(value)
    return several
