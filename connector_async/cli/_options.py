"""What options take, and the sentences for what they do not take. Wrong use is told before anything is begun."""

from __future__ import annotations

import math
import os
import stat
from argparse import ArgumentTypeError
from collections.abc import Callable
from pathlib import Path

from connector_async.cli._console import WrongUse
from connector_async.errors import ConfigurationError

__all__ = ["check_faults", "check_files", "number", "whole"]


def whole(least: int, most: int | None = None) -> Callable[[str], int]:
    """A reader of whole numbers for argparse."""

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least or (most is not None and value > most):
            raise ArgumentTypeError(f"must be a whole number{_bounds(least, most)}, not {text!r}")
        return value

    return read


def number(least: float, most: float) -> Callable[[str], float]:
    """A reader of numbers for argparse; takes neither NaN nor an infinity."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        # Written so that NaN, which compares with nothing, is refused as well.
        if not least <= value <= most:
            raise ArgumentTypeError(f"must be a number{_bounds(least, most)}, not {text!r}")
        return value

    return read


def _bounds(least: float, most: float | None) -> str:
    return f" of at least {least:,g}" if most is None else f" from {least:,g} to {most:,}"


def check_faults(name: str | None) -> None:
    """See whether a sandbox would take the name of a preset or fault file.

    Raises:
        WrongUse: It would not; the sentence says why, and what it takes.
    """
    if name is None:
        return
    from connector_async.sandbox.faults import load_faults

    try:
        load_faults(name)
    except ConfigurationError as error:
        raise WrongUse(str(error)) from error


def check_files(descriptor: int | None, written: dict[str, str | os.PathLike[str] | None]) -> None:
    """See whether files can be what they are meant to be: to write to, and each for one thing only.

    Args:
        descriptor: Of the input, if there is one: writing results over it would lose what is not read yet.
        written: Options, each with the file that is going to be written.

    Raises:
        WrongUse: A directory, a place that is none, a file that may not be written, or one file for two things.
    """
    used: dict[object, str] = {}
    if descriptor is not None:
        used[_identity(os.fstat(descriptor), "")] = "the input"
    for option, path in written.items():
        if path is None:
            continue
        identity = _identity(_stat_writable(option, path), path)
        if identity in used:
            raise WrongUse(f"{option} names {path}, which is {used[identity]} already: name another file")
        used[identity] = f"the file of {option}"


def _stat_writable(option: str, path: str | os.PathLike[str]) -> os.stat_result | None:
    try:
        found = Path(path).stat()
    except FileNotFoundError:
        found = None
    except OSError as error:
        raise WrongUse(f"{option} names {path}: {error.strerror}; name another file") from error
    if found is not None and stat.S_ISDIR(found.st_mode):
        raise WrongUse(f"{option} names {path}, which is a directory: name a file")
    parent = Path(path).parent
    if found is None and not parent.is_dir():
        raise WrongUse(f"{option} names {path}, but there is no directory {parent}: make it, or name another file")
    if not os.access(parent if found is None else path, os.W_OK):
        raise WrongUse(f"{option} names {path}, which may not be written: name another file")
    return found


def _identity(found: os.stat_result | None, path: str | os.PathLike[str]) -> object:
    """What two names of one regular file have in common; nothing for pipes and devices, which take any number."""
    if found is None:
        return os.path.realpath(path)
    return (found.st_dev, found.st_ino) if stat.S_ISREG(found.st_mode) else object()
