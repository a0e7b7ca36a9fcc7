"""Looks at what callers pass, before anything is done with it: an error here says what to pass instead."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from functools import partial
from types import FunctionType, MethodType
from typing import Any

__all__ = ["check_async", "check_kind", "kind_of", "limit_of", "offers", "timeout_of"]


def offers(value: object, kind: type) -> bool:
    """Whether a value is of a kind; for a protocol, whether it is an object that has all that is named there.

    `isinstance` alone says no, since Python 3.12, of what passes on to another object what it is asked for
    (`__getattr__`): the usual way to count, trace or delay the calls of a store.
    """
    from typing_extensions import get_protocol_members, is_protocol  # here, for most programs never ask

    if not is_protocol(kind):
        return isinstance(value, kind)
    # A class has the methods, too.
    return not isinstance(value, type) and all(hasattr(value, name) for name in get_protocol_members(kind))


def check_kind(name: str, value: object, kind: type | tuple[type, ...], wanted: str) -> None:
    """An object of this kind.

    Raises:
        TypeError: It is something else; the message says what is wanted.
    """
    if isinstance(value, kind) and not isinstance(value, type):
        return  # nearly always, and for each message
    if not any(offers(value, one) for one in (kind if isinstance(kind, tuple) else (kind,))):
        raise TypeError(f"{name} must be {wanted}, not {kind_of(value)}")


def check_async(name: str, value: object) -> None:
    """Something that gives what can be awaited when it is called, as far as that can be told without a call.

    A plain function passes when it is a lambda, wraps an `async def`, or is annotated to return anything but None.

    Raises:
        TypeError: It cannot be called, or is a plain `def`: that would do its work, and then count as failed.
    """
    if not callable(value):
        raise TypeError(f"{name} must be an `async def`, not {kind_of(value)}")
    if not any(_may_be_awaited(layer) for layer in _layers(value)):
        raise TypeError(f"{name} must be an `async def` without `yield`, which {_name_of(value)} is not")


def _name_of(value: object) -> str:
    return getattr(value, "__qualname__", None) or kind_of(value)


def _layers(value: Any) -> Iterator[Any]:
    """A callable, and what it stands around."""
    while value is not None:
        yield value
        value = value.func if isinstance(value, partial) else getattr(value, "__wrapped__", None)


def _may_be_awaited(value: Any) -> bool:
    if isinstance(value, partial):
        return False  # that depends on the function
    function = value if isinstance(value, (FunctionType, MethodType)) else type(value).__call__
    if not isinstance(function, (FunctionType, MethodType)):
        return True  # who knows
    return not inspect.isasyncgenfunction(function) and (
        inspect.iscoroutinefunction(value)
        or inspect.iscoroutinefunction(function)
        or function.__name__ == "<lambda>"
        or function.__annotations__.get("return") not in (None, "None")
    )


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
