"""Looks at what callers pass, before anything is done with it: an error here says what to pass instead."""

from __future__ import annotations

import math
from collections.abc import Iterable

__all__ = ["check_classes", "check_kind", "kind_of", "limit_of", "timeout_of"]


def check_kind(name: str, value: object, kind: type | tuple[type, ...], wanted: str) -> None:
    """An object of this kind.

    Raises:
        TypeError: It is something else; the message says what is wanted.
    """
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be {wanted}, not {kind_of(value)}")


def check_classes(name: str, values: Iterable[object]) -> None:
    """Nothing but classes.

    Raises:
        TypeError: One is none; left alone, it would be found out by `isinstance`, far away and for each event anew.
    """
    for value in values:
        if not isinstance(value, type):
            raise TypeError(f"{name} must be classes, such as ContentEvent, not {kind_of(value)}")


def kind_of(value: object) -> str:
    """What a value is, in the words of an error."""
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__


def timeout_of(seconds: object) -> float:
    """Seconds as the caller gave them; 0 and less mean that the time is up.

    Raises:
        TypeError: It is no number.
        ValueError: It is not a number (NaN), or larger than a float can be.
    """
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise TypeError(f"timeout must be a number of seconds, not {kind_of(seconds)}")
    try:
        timeout = float(seconds)
    except OverflowError:
        timeout = math.nan
    if math.isnan(timeout):
        raise ValueError("timeout must be a number of seconds; `math.inf` for no limit")
    return timeout


def limit_of(seconds: object) -> float | None:
    """As `timeout_of`, for what may wait for ever: None stays None."""
    return None if seconds is None else timeout_of(seconds)
