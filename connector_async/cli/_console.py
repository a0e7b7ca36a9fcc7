"""What the commands say, and where: results on standard output, everything else on standard error."""

from __future__ import annotations

import importlib.util
import json
import logging
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import TextIO, cast

from connector_async.errors import ConfigurationError

__all__ = [
    "CommandFailed",
    "OutputLost",
    "WrongUse",
    "emit",
    "on_terminal",
    "print_table",
    "quiet_log",
    "require_extra",
    "say",
    "tell",
]

# What each extra brings, by import name: enough to see whether it is installed without importing it.
_EXTRAS = {"sandbox": ("starlette", "uvicorn", "cryptography", "trustme")}


class CommandFailed(Exception):
    """Ends a command with status 1; the message is the one sentence that a person reads."""


class WrongUse(CommandFailed):
    """Ends a command with status 2: with this command line it cannot work, and nothing was begun."""


class OutputLost(CommandFailed):
    """Standard output takes no more, such as on a full disk."""


def require_extra(extra: str, purpose: str) -> None:
    """Raise ConfigurationError, naming the pip command, if an extra is not installed."""
    missing = [module for module in _EXTRAS[extra] if importlib.util.find_spec(module) is None]
    if missing:
        raise ConfigurationError(
            f"{purpose} needs {', '.join(missing)}, which the extra {extra!r} brings: "
            f"{sys.executable} -m pip install 'connector-async[{extra}]' (in a clone: -e '.[{extra}]')"
        )


@contextmanager
def quiet_log() -> Generator[None]:
    """Keep what the session logs from standard error: the command itself tells what failed, once and in order."""
    logger = logging.getLogger("connector_async")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def emit(result: object) -> None:
    """Print one JSON value on standard output."""
    say(json.dumps(result))


def say(text: str) -> None:
    """Print a result on standard output; nowhere if that is closed.

    Raises:
        OutputLost: It cannot be written.
        BrokenPipeError: Whoever read it has gone.
    """
    stream = cast("TextIO | None", sys.stdout)
    if stream is None:
        return
    try:
        stream.write(text + "\n")
        stream.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputLost(f"cannot write to standard output: {error.strerror}") from error


def tell(line: str) -> None:
    """Print a line of progress, or what went wrong, on standard error; nowhere if that is closed."""
    stream = cast("TextIO | None", sys.stderr)
    if stream is not None:
        stream.write(line + "\n")
        stream.flush()


def on_terminal() -> bool:
    """Whether a person watches standard error."""
    stream = cast("TextIO | None", sys.stderr)
    return stream is not None and stream.isatty()


def print_table(title: str, rows: Sequence[tuple[str, str]] | Mapping[str, str]) -> None:
    """Print names and values in two columns on standard output, values to the right."""
    pairs = list(rows.items()) if isinstance(rows, Mapping) else list(rows)
    left = max(len(name) for name, _ in pairs)
    right = max(len(value) for _, value in pairs)
    lines = [title, "-" * max(len(title), left + right + 2)]
    lines += [f"{name:<{left}}  {value:>{right}}" for name, value in pairs]
    say("\n".join(lines))
