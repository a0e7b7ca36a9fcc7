"""`connector-async pump`: a file or a pipe of messages in, every one of them accounted for."""

from __future__ import annotations

import argparse
import os
import stat
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import anyio
import attrs

from connector_async.auth import AppCredentials
from connector_async.cli._console import WrongUse, quiet_log, require_extra, tell
from connector_async.cli._options import check_faults, check_files, number, whole
from connector_async.cli._pump_report import Summary, write_dead_letters
from connector_async.cli._pump_run import PumpRun, Settings, StoppedAtOnce
from connector_async.cli._sandbox_process import SandboxAddress, sandbox_process
from connector_async.session import ConnectorSession, SessionLimits
from connector_async.store import MemoryStore, SqliteStore
from connector_async.store.outbox import OutboxCounts
from connector_async.transport import PooledTransport

if TYPE_CHECKING:
    from connector_async.store.postgres import PostgresStore

__all__ = ["add_arguments", "run"]

_SQLITE = "sqlite:///"
_POSTGRES = ("postgresql://", "postgres://")
_DAY = 86_400
# Enough to know every line of a large input again when it is read a second time.
_REMEMBERED = 100_000_000
_REMEMBERED_IN_MEMORY = 1_000_000

_Store: TypeAlias = "MemoryStore | SqliteStore | PostgresStore"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `connector-async pump`."""
    parser.add_argument(
        "input",
        metavar="INPUT",
        nargs="?",
        help='JSON lines, {"consumer", "text" | "body", "id"?, "skill_id"?, "profile"?, "campaign"?, "context"?, '
        '"ttr"?}: a file, or - for standard input; may be left out with --resume',
    )
    parser.add_argument(
        "--outbox",
        type=_outbox,
        metavar="URL",
        help="sqlite:///FILE (sqlite:////FILE from the root) or postgresql://...; in memory if not given",
    )
    for option, kind, metavar, default, what in (
        ("--concurrency", whole(1), "N", 256, "most messages in flight at a time (default: %(default)s)"),
        ("--rate", number(0.001, 1_000_000), "N", None, "most requests started per second (default: no limit)"),
        ("--drain", number(0, _DAY), "SECONDS", 30.0, "how long a stop waits for what is in flight (default: 30)"),
        (
            "--lease",
            number(1, _DAY),
            "SECONDS",
            30.0,
            "after so long others go on where this was killed, with sqlite at once (default: 30)",
        ),
    ):
        parser.add_argument(option, type=kind, metavar=metavar, default=default, help=what)
    parser.add_argument(
        "--unknown",
        choices=("resend", "leave"),
        default="resend",
        help="what may have landed is sent again with the same id, or left (default: %(default)s)",
    )
    parser.add_argument("--resume", action="store_true", help="go on with what an earlier run left in the outbox")
    parser.add_argument("--results", type=Path, metavar="FILE", help="a JSON line for each message with an end")
    parser.add_argument(
        "--dead-letters", type=Path, metavar="FILE", help="what was given up; as INPUT it is sent again"
    )
    parser.add_argument(
        "--sandbox",
        action="store_true",
        help="a sandbox of its own instead of the real cloud; the default where LP_ACCOUNT_ID is not set",
    )
    parser.add_argument("--faults", metavar="NAME|FILE", help="let the sandbox misbehave, as for the demo")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")


def _outbox(text: str) -> str:
    if text.startswith(_POSTGRES) or (text.startswith(_SQLITE) and len(text) > len(_SQLITE)):
        return text
    raise argparse.ArgumentTypeError("must be sqlite:///FILE or postgresql://...")


def run(arguments: argparse.Namespace) -> int:
    """Pump until the input is at its end and the outbox empty, or until a signal says to stop.

    Returns:
        0 only if every message was accepted; 1 if not.

    Raises:
        WrongUse: A file cannot be what it is meant to be; the outbox holds messages of an earlier run, and `--resume`
            is missing.
        ConfigurationError: An extra is not installed; a variable is missing.
        CommandFailed: The sandbox did not start; a file cannot be read or written.
        StoreUnavailable: The outbox cannot be used.
    """
    is_sandbox = _is_sandbox(arguments)
    with _input(arguments) as descriptor, quiet_log():
        _check_files(arguments, descriptor)
        if is_sandbox:
            require_extra("sandbox", "the sandbox")
            check_faults(arguments.faults)
            why = "" if arguments.sandbox else "LP_ACCOUNT_ID is not set: "
            tell(f"{why}sending to a sandbox in a process of its own, nothing goes to the real cloud")
        if arguments.outbox is None:
            tell("the outbox is in memory: a crash would lose what was not sent (--outbox sqlite:///FILE keeps it)")
        if not is_sandbox:
            summary = anyio.run(_pump, arguments, descriptor, None)
        else:
            options = [] if arguments.faults is None else ["--faults", arguments.faults]
            with sandbox_process(*options) as address:
                summary = anyio.run(_pump, arguments, descriptor, address)
    summary.print(as_json=arguments.json)
    for sentence in summary.complaints():
        tell(f"connector-async: {sentence}")
    return 0 if summary.is_success else 1


def _check_files(arguments: argparse.Namespace, descriptor: int | None) -> None:
    outbox = arguments.outbox or ""
    written = {
        "--outbox": outbox.removeprefix(_SQLITE) if outbox.startswith(_SQLITE) else None,
        "--results": arguments.results,
        "--dead-letters": arguments.dead_letters,
    }
    check_files(descriptor, written)


def _is_sandbox(arguments: argparse.Namespace) -> bool:
    is_configured = bool(os.environ.get("LP_ACCOUNT_ID", "").strip())
    if arguments.faults is not None and is_configured and not arguments.sandbox:
        raise WrongUse("--faults is for the sandbox, and LP_ACCOUNT_ID names an account: add --sandbox")
    if arguments.input is None and not arguments.resume:
        raise WrongUse("INPUT is missing: a file, or - for standard input")
    return arguments.sandbox or not is_configured


@contextmanager
def _input(arguments: argparse.Namespace) -> Generator[int | None]:
    """The input's file descriptor; None if there is no input."""
    if arguments.input is None:
        yield None
    elif arguments.input == "-":
        yield sys.stdin.fileno()
    else:
        try:
            descriptor = os.open(arguments.input, os.O_RDONLY)
        except OSError as error:
            raise WrongUse(f"cannot read {arguments.input or 'INPUT'}: {error.strerror}") from error
        try:
            if stat.S_ISDIR(os.fstat(descriptor).st_mode):
                raise WrongUse(
                    f"cannot read {arguments.input}: it is a directory; name a file, or - for standard input"
                )
            yield descriptor
        finally:
            os.close(descriptor)


def _store(url: str | None) -> _Store:
    if url is None:
        return MemoryStore(max_entries=_REMEMBERED_IN_MEMORY, max_dead=_REMEMBERED_IN_MEMORY)
    if url.startswith(_SQLITE):
        return SqliteStore(url.removeprefix(_SQLITE), max_entries=_REMEMBERED, max_dead=_REMEMBERED)
    from connector_async.store.postgres import PostgresStore

    return PostgresStore(url, max_entries=_REMEMBERED, max_dead=_REMEMBERED)


async def _pump(arguments: argparse.Namespace, descriptor: int | None, address: SandboxAddress | None) -> Summary:
    store = _store(arguments.outbox)
    limits = SessionLimits(max_in_flight=arguments.concurrency, rate=arguments.rate)
    try:
        if address is None:
            return await _work(arguments, descriptor, store, ConnectorSession.from_env(store=store, limits=limits))
        # The default transport, but also where the environment names a proxy: the sandbox is on this machine.
        async with PooledTransport(max_connections=arguments.concurrency) as transport:
            session = ConnectorSession(
                address.account_id,
                AppCredentials(address.client_id, address.client_secret),
                domains=address.domain_api,
                transport=transport,
                limits=limits,
                # Not in the outbox's file: the next run's sandbox knows nothing of these conversations.
                store=MemoryStore(),
            )
            return await _work(arguments, descriptor, store, session)
    finally:
        if not isinstance(store, MemoryStore):
            await store.aclose()


async def _work(
    arguments: argparse.Namespace, descriptor: int | None, store: _Store, session: ConnectorSession
) -> Summary:
    account_id = session.account_id
    before = await store.outbox.counts(account_id)
    if before.unsettled and not arguments.resume:
        raise WrongUse(
            f"the outbox holds {before.unsettled:,} messages of an earlier run that have no end yet: "
            "add --resume to go on with them, or name another outbox"
        )
    work = PumpRun(
        session,
        store.outbox,
        Settings(
            concurrency=arguments.concurrency,
            lease=arguments.lease,
            drain=arguments.drain,
            unknown=arguments.unknown,
            resume=arguments.resume,
            results=arguments.results,
            name="standard input" if arguments.input == "-" else str(arguments.input),
            earlier=before.unsettled,
        ),
    )
    try:
        await work.run(descriptor)
    except StoppedAtOnce:
        tell("stopped at once")
    if arguments.dead_letters is not None:
        await write_dead_letters(arguments.dead_letters, store.outbox, account_id)
    after = await store.outbox.counts(account_id)
    whole = arguments.resume or work.known > 0
    return work.summary(after if whole else _difference(after, before), durable=store.outbox.durable)


def _difference(after: OutboxCounts, before: OutboxCounts) -> OutboxCounts:
    """What a run added to the ends; what waits has no other run."""
    names = ("accepted", "refused", "not_sent", "unknown", "maybe_duplicate")
    return attrs.evolve(after, **{name: getattr(after, name) - getattr(before, name) for name in names})
