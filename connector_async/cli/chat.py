"""`connector-async chat`: a conversation as the consumer, with a scripted agent or with the real cloud."""

from __future__ import annotations

import argparse
import os
import stat
import sys
from collections.abc import Generator
from contextlib import AsyncExitStack, contextmanager
from typing import Any

import anyio

from connector_async.cli._chat_talk import Chat
from connector_async.cli._chat_view import ChatView
from connector_async.cli._console import WrongUse, quiet_log, require_extra, tell
from connector_async.cli._options import number, whole
from connector_async.errors import ConfigurationError
from connector_async.session import ConnectorSession

__all__ = ["add_arguments", "run"]

_LIVE_OPTIONS = ("skill_id", "port", "host", "path")
_HOUR = 3_600


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `connector-async chat`."""
    parser.epilog = (
        "Each line of standard input is sent as a text. /close closes the conversation and ends; /quit and the end "
        "of the input end and leave it open. A text that begins with a slash is written with two. The agent is told "
        "that what is shown was read. With --live --port, point an installation made for trials here: all its "
        "deliveries are answered with 200, and those of other conversations are shown to nobody, and lost."
    )
    parser.add_argument(
        "--agent", metavar="NAME", help="who answers in the sandbox: echo (default), menu, slow, silent"
    )
    parser.add_argument(
        "--live",
        action="store_true",
        help="talk to the real cloud instead of a sandbox; reads LP_ACCOUNT_ID, LP_CLIENT_ID and so on",
    )
    for option, kind, metavar, what in (
        ("--skill-id", str, "ID", "the skill that gets the conversation"),
        ("--port", whole(0, 65_535), "N", "listen for webhooks here (0: any free port); the installation's go here"),
        ("--host", str, "HOST", "the address to listen on (default: 127.0.0.1)"),
        ("--path", str, "PATH", "the path to listen at (default: /)"),
    ):
        parser.add_argument(option, type=kind, metavar=metavar, help=f"with --live: {what}")
    parser.add_argument(
        "--wait",
        type=number(0, _HOUR),
        metavar="SECONDS",
        default=10.0,
        help="from a pipe or file: most seconds to wait for an answer before the next line (default: %(default)g)",
    )
    parser.add_argument(
        "--json", action="store_true", help="print a JSON object, in a line, for each thing that happens"
    )


def run(arguments: argparse.Namespace) -> int:
    """Talk until the input ends, a command or Ctrl-C ends it, or the conversation is closed.

    Returns:
        0; 1 if a line was not taken or may not have been, or the conversation could not be closed.

    Raises:
        WrongUse: An option does not go with another; there is no input.
        ConfigurationError: An extra is not installed; with `--live`, a variable is missing or the port in use.
        CommandFailed: The conversation could not be opened.
    """
    _check(arguments)
    descriptor = _input()
    is_terminal = os.isatty(descriptor)
    hears = not arguments.live or arguments.port is not None
    view = ChatView(as_json=arguments.json, is_echoed=is_terminal)
    chat = Chat(view, descriptor, wait=arguments.wait if hears and not is_terminal else None)
    with quiet_log(), _end_told(chat):
        anyio.run(_live if arguments.live else _sandboxed, chat, arguments)
    return 1 if chat.failures else 0


@contextmanager
def _end_told(chat: Chat) -> Generator[None]:
    """Tell how it ended; Ctrl-C is as good an end as any, once there is a conversation."""
    try:
        yield
    except KeyboardInterrupt:
        if chat.conversation is None:
            raise
        tell("interrupted")
    finally:
        chat.tell_end()
    chat.show_end()


def _check(arguments: argparse.Namespace) -> None:
    if arguments.live:
        if arguments.agent is not None:
            raise WrongUse("--agent is for the sandbox, and --live goes to the real cloud: leave one of them out")
        for name in ("host", "path"):
            if getattr(arguments, name) is not None and arguments.port is None:
                raise WrongUse(f"--{name} says where to listen for webhooks: add --port")
        if arguments.path is not None and not arguments.path.startswith("/"):
            raise WrongUse(f"--path must begin with a slash, not {arguments.path!r}")
        if arguments.port is not None:
            require_extra("sandbox", "listening for webhooks")
        return
    for name in _LIVE_OPTIONS:
        if getattr(arguments, name) is not None:
            raise WrongUse(f"--{name.replace('_', '-')} is for the real cloud: add --live")
    require_extra("sandbox", "the chat")
    from connector_async.sandbox.scripts import make_agent

    try:
        make_agent(arguments.agent or "echo", 0)
    except ConfigurationError as error:
        raise WrongUse(f"--agent: {error}") from error


def _input() -> int:
    try:
        descriptor = sys.stdin.fileno()
        mode = os.fstat(descriptor).st_mode
    except (AttributeError, OSError, ValueError) as error:  # it was closed before the command began
        raise WrongUse("standard input is closed: it has the lines to say") from error
    if stat.S_ISDIR(mode):
        raise WrongUse("standard input is a directory: it has the lines to say")
    return descriptor


async def _sandboxed(chat: Chat, arguments: argparse.Namespace) -> None:
    from connector_async.sandbox import Sandbox

    tell("talking to a sandbox in this process, nothing goes to the real cloud")
    async with (
        Sandbox(in_process=True, agent=arguments.agent or "echo") as cloud,
        cloud.session(router=chat.router) as session,
    ):
        cloud.deliver_to(session.webhook_app())
        await chat.run(session, None)


async def _live(chat: Chat, arguments: argparse.Namespace) -> None:
    session = ConnectorSession.from_env(router=chat.router)
    async with session, AsyncExitStack() as stack:
        tell(f"opening a conversation of account {session.account_id}")
        if arguments.port is None:
            tell("nothing listens for webhooks, so what the agent says is not shown (--port N listens)")
        else:
            options: dict[str, Any] = {
                name: value for name in ("host", "path") if (value := getattr(arguments, name)) is not None
            }
            url = await stack.enter_async_context(session.serve(port=arguments.port, **options))
            tell(
                f"listening for webhooks at {url}: the endpoint of the app installation has to lead here; what it "
                "brings of other conversations is lost"
            )
        await chat.run(session, arguments.skill_id)
