"""The parser, the choice of the command, and how a command ends: 0 done, 1 failed and said what, 2 wrong use."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import importlib
import os
import re
import sys
from collections.abc import Sequence
from typing import NoReturn, Protocol, cast

from connector_async._version import __version__
from connector_async.cli._console import CommandFailed, OutputLost, WrongUse, emit, tell
from connector_async.errors import ConnectorError

__all__ = ["main"]

_UNRECOGNIZED = re.compile(r"unrecognized arguments: (?P<first>\S+)")


class _Command(Protocol):
    """What a command's module has; it is imported only when the command is meant."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, arguments: argparse.Namespace) -> int: ...


# Each command, which is also its module's name here, and what it does.
_COMMANDS = {
    "chat": "talk as the consumer, with a scripted agent or with the real cloud",
    "demo": "send messages through a sandbox of its own and show how it went",
    "doctor": "see step by step whether the account of the environment works from here",
    "manifest": "print the app manifest that an installation starts from, or check one",
    "pump": "send the messages of a file or a pipe, every one of them accounted for",
    "sandbox": "run the cloud in a box: a server that behaves like the API",
}


def _command(name: str) -> _Command:
    return cast("_Command", importlib.import_module(f"connector_async.cli.{name}"))


class _Parser(argparse.ArgumentParser):
    """An argument parser that guesses what a mistyped option was meant to be."""

    def error(self, message: str) -> NoReturn:
        unknown = _UNRECOGNIZED.match(message)
        if unknown and unknown["first"].startswith("-"):
            message = f"unknown option {unknown['first']}{_meant(unknown['first'], self._options())}"
        # With `--json` too nothing goes to standard output, as gh, docker and aws do: of a command line that is not
        # understood nobody knows what it asks for.
        # Two lines: argparse's usage is a screenful for some commands, and hides the sentence that matters.
        self.exit(2, f"usage: see {self.prog} --help\n{self.prog}: {message}\n")

    def _options(self) -> list[str]:
        return [option for action in self._actions for option in action.option_strings]


def _meant(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word.partition("=")[0], known, n=1)
    return f"; did you mean {close[0]}?" if close else f"; there is {', '.join(known)}"


def _parse(words: Sequence[str]) -> argparse.Namespace:
    parser = _Parser(
        prog="connector-async",
        description="A client for LivePerson's Connector API: try it, and run a sandbox to test against.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"connector-async {__version__}")
    chosen = next((word for word in words if not word.startswith("-")), None)
    _check_command(parser, words, chosen)
    choice = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    commands: dict[str, _Parser] = {}
    for name, purpose in _COMMANDS.items():
        commands[name] = choice.add_parser(name, help=purpose, description=purpose, allow_abbrev=False)
        if name == chosen:
            _command(name).add_arguments(commands[name])
    arguments, rest = parser.parse_known_args(words)
    if rest:
        commands[arguments.command].error(f"unrecognized arguments: {rest[0]}")
    return arguments


def _check_command(parser: _Parser, words: Sequence[str], chosen: str | None) -> None:
    before = words[: len(words) if chosen is None else words.index(chosen)]
    if any(word in ("-h", "--help", "--version") for word in before):
        return
    if chosen is None:
        parser.error(f"COMMAND is missing; there is {', '.join(_COMMANDS)}")
    if chosen not in _COMMANDS:
        parser.error(f"unknown command {chosen!r}{_meant(chosen, list(_COMMANDS))}")
    if before:
        parser.error(f"{before[0]} stands before the command; write {parser.prog} {chosen} {before[0]}")


def main(words: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        words: The command line without the program's name; that of the process if None.

    Returns:
        The exit status: 0 done; 1 something failed; 2 with this command line it cannot work, such as a file that
        cannot be read. A sentence on standard error says what.

    Raises:
        SystemExit: 2, the command line is wrong; 0, help was asked for.
    """
    words = sys.argv[1:] if words is None else list(words)
    try:
        arguments = _parse(words)
        return _command(arguments.command).run(arguments)
    except (BrokenPipeError, OutputLost) as error:
        # Whoever read standard output has gone, or the disk is full; keep the interpreter from complaining when it
        # flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, OutputLost):
            tell(f"connector-async: {error}")
    except WrongUse as error:
        _failed(str(error), words)
        return 2
    except (CommandFailed, ConnectorError) as error:
        _failed(str(error), words)
    except KeyboardInterrupt:
        _failed("interrupted", words)
    return 1


def _failed(sentence: str, words: Sequence[str]) -> None:
    tell(f"connector-async: {sentence}")
    if "--json" in words:
        with contextlib.suppress(OSError, OutputLost):
            emit({"error": sentence})
