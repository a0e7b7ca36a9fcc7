"""`connector-async demo`: a crowd of consumers against a sandbox of its own, and a table of how it went."""

from __future__ import annotations

import argparse
import time
from typing import Any

import anyio
import attrs

from connector_async.auth import AppCredentials
from connector_async.cli._audit import Audit, audit, read_ledger
from connector_async.cli._console import WrongUse, emit, print_table, quiet_log, require_extra, say, tell
from connector_async.cli._crowd import Crowd, Tally, percentile
from connector_async.cli._live import run_live
from connector_async.cli._options import check_faults, whole
from connector_async.cli._progress import progress_on_stderr
from connector_async.cli._sandbox_process import SandboxAddress, sandbox_process
from connector_async.session import ConnectorSession, SessionLimits, SessionStats
from connector_async.transport import PooledTransport

__all__ = ["add_arguments", "run"]

_MOST_COMPLAINTS = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `connector-async demo`."""
    for option, default, what in (
        ("--consumers", 50, "how many consumers"),
        ("--messages", 20, "how many messages each"),
        ("--concurrency", 100, "most messages in flight at a time"),
    ):
        words = f"{what} (default: %(default)s)"
        parser.add_argument(option, type=whole(1), metavar="N", default=default, help=words)
    parser.add_argument(
        "--faults",
        metavar="NAME|FILE",
        help="let the sandbox misbehave: storm, slow, flaky, throttle or another of its presets, or a fault file",
    )
    parser.add_argument(
        "--live",
        action="store_true",
        help="hold one polite conversation with the real cloud instead; reads LP_ACCOUNT_ID, LP_CLIENT_ID and so on",
    )
    parser.add_argument("--skill-id", metavar="ID", help="with --live: the skill that gets the conversation")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")


def run(arguments: argparse.Namespace) -> int:
    """Run the demo.

    Returns:
        0 only if every message was accepted; with faults, if each is accounted for and the sandbox's ledger agrees.

    Raises:
        WrongUse: The faults cannot be read, or an option does not go with another.
        ConfigurationError: The extra `sandbox` is not installed; with `--live`, a variable is missing.
        CommandFailed: The sandbox did not start; with `--live`, the cloud refused something.
    """
    if arguments.live:
        if arguments.faults is not None:
            raise WrongUse("--faults is for the sandbox, and --live goes to the real cloud: leave one of them out")
        return run_live(arguments)
    if arguments.skill_id is not None:
        raise WrongUse("--skill-id is for the real cloud: add --live")
    require_extra("sandbox", "the demo")
    check_faults(arguments.faults)
    tell("starting a sandbox in a process of its own")
    options = [] if arguments.faults is None else ["--faults", arguments.faults]
    with quiet_log(), sandbox_process(*options) as address:
        report = anyio.run(_run_crowd, address, arguments)
        if options:
            report = attrs.evolve(report, audit=audit(report.tally, *read_ledger(address.url)))
    if arguments.json:
        emit(report.as_json())
    else:
        report.print()
    complaints = report.complaints()
    for sentence in complaints:
        tell(f"connector-async: {sentence}")
    return 1 if complaints else 0


@attrs.frozen(kw_only=True)
class _Report:
    """What the demo found out.

    Attributes:
        total_seconds: From the first opening to the last close; the sending alone is `tally.seconds`.
        audit: What the sandbox's ledger says, where faults were asked for.
    """

    consumers: int
    messages: int
    tally: Tally
    stats: SessionStats
    total_seconds: float
    audit: Audit | None = None

    @property
    def rate(self) -> float:
        return self.tally.accepted / self.tally.seconds if self.tally.seconds else 0.0

    def milliseconds(self, share: float) -> float | None:
        value = percentile(self.tally.latencies, share)
        return None if value is None else round(value * 1000, 3)

    def as_json(self) -> dict[str, Any]:
        tally = self.tally
        report = {
            "consumers": self.consumers,
            "messages_sent": tally.sent,
            "messages_accepted": tally.accepted,
            "errors": tally.errors,
            "tokens_fetched": self.stats.tokens_fetched,
            "seconds": round(tally.seconds, 3),
            "messages_per_second": round(self.rate, 1),
            "p50_ms": self.milliseconds(0.5),
            "p99_ms": self.milliseconds(0.99),
            "refused": tally.statuses["refused"],
            "unknown": tally.statuses["unknown"],
            "not_sent": tally.statuses["not_sent"],
            "retried": tally.retried,
            "attempts": tally.attempts,
            "causes": dict(tally.causes),
            "total_seconds": round(self.total_seconds, 3),
        }
        if self.audit is not None:
            report |= {"ledger": self.audit.as_json(), "agrees": self.audit.agrees}
        return report

    def print(self) -> None:
        tally, milliseconds = self.tally, {share: self.milliseconds(share) for share in (0.5, 0.99)}
        rows = [
            ("messages sent", f"{tally.sent:,}"),
            ("accepted", f"{tally.accepted:,}"),
            ("refused", f"{tally.statuses['refused']:,}"),
            ("not sent", f"{tally.statuses['not_sent']:,}"),
            ("unknown", f"{tally.statuses['unknown']:,}"),
            ("retried", f"{tally.retried:,}"),
            ("tokens fetched", f"{self.stats.tokens_fetched:,}"),
            ("time", f"{tally.seconds:.2f} s"),
            ("messages per second", f"{self.rate:,.0f}"),
            *(
                (f"p{share:.0%}".rstrip("%"), "-" if ms is None else f"{ms:.1f} ms")
                for share, ms in milliseconds.items()
            ),
        ]
        print_table(f"{self.consumers:,} consumers, one session", rows)
        if self.audit is not None:
            say("")
            print_table("the sandbox's ledger", self._ledger_rows(self.audit))

    @staticmethod
    def _ledger_rows(audit: Audit) -> list[tuple[str, str]]:
        return [
            ("messages that arrived", f"{audit.messages:,}"),
            ("arrivals in all", f"{audit.arrivals:,}"),
            ("messages with effect", f"{audit.applied:,}"),
            ("with effect twice", f"{audit.doubled:,}"),
            ("unknown, landed", f"{audit.unknown_landed:,}"),
            ("unknown, lost", f"{audit.unknown_lost:,}"),
            ("calls for a token", f"{audit.token_calls:,}"),
            *((f"fault: {name}", f"{count:,}") for name, count in sorted(audit.faults.items())),
            ("agrees with the session", "yes" if audit.agrees else "no"),
        ]

    def complaints(self) -> list[str]:
        """Why the demo failed; nothing if it did not."""
        tally, audit = self.tally, self.audit
        if audit is not None:
            wanted = self.consumers * self.messages
            complaints = list(audit.contradictions[:_MOST_COMPLAINTS])
            if tally.sent != wanted:
                complaints.append(f"{tally.sent:,} of {wanted:,} messages are accounted for")
            return complaints
        if not tally.errors:
            return []
        causes = ", ".join(f"{count} x {cause}" for cause, count in tally.causes.most_common(_MOST_COMPLAINTS))
        return [f"{tally.errors:,} of {tally.sent:,} messages were not accepted: {causes}"]


async def _run_crowd(address: SandboxAddress, arguments: argparse.Namespace) -> _Report:
    started = time.perf_counter()
    # The default, but also where the environment names a proxy: the sandbox is on this machine.
    async with PooledTransport(max_connections=arguments.concurrency) as transport:
        session = ConnectorSession(
            address.account_id,
            AppCredentials(address.client_id, address.client_secret),
            domains=address.domain_api,
            transport=transport,
            limits=SessionLimits(max_in_flight=arguments.concurrency),
        )
        with progress_on_stderr() as progress:
            async with session:
                crowd = Crowd(session, progress, arguments.consumers, arguments.messages, arguments.concurrency)
                tally = await crowd.run()
    return _Report(
        consumers=arguments.consumers,
        messages=arguments.messages,
        tally=tally,
        stats=session.stats(),
        total_seconds=time.perf_counter() - started,
    )
