"""`connector-async demo`: a crowd of consumers against a sandbox of its own, and a table of how it went."""

from __future__ import annotations

import argparse
import logging
import time
from typing import Any

import anyio
import attrs

from connector_async.auth import AppCredentials
from connector_async.cli._console import emit, print_table, require_extra, tell
from connector_async.cli._crowd import Crowd, Tally, percentile
from connector_async.cli._progress import progress_on_stderr
from connector_async.cli._sandbox_process import SandboxAddress, sandbox_process
from connector_async.session import ConnectorSession, SessionLimits, SessionStats

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `connector-async demo`."""
    for option, default, what in (
        ("--consumers", 50, "how many consumers"),
        ("--messages", 20, "how many messages each"),
        ("--concurrency", 100, "most messages in flight at a time"),
    ):
        words = f"{what} (default: %(default)s)"
        parser.add_argument(option, type=_at_least_one, metavar="N", default=default, help=words)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


_at_least_one.__name__ = "number"  # argparse says "invalid number value"


def run(arguments: argparse.Namespace) -> int:
    """Run the demo; 0 only if every message was accepted.

    Raises:
        ConfigurationError: The extra `sandbox` is not installed.
        CommandFailed: The sandbox did not start.
    """
    # What the session logs is told by the table; a warning for each lost message would drown the progress.
    logging.getLogger("connector_async").setLevel(logging.CRITICAL)
    require_extra("sandbox", "the demo")
    tell("starting a sandbox in a process of its own")
    with sandbox_process() as address:
        report = anyio.run(_run_crowd, address, arguments)
    if arguments.json:
        emit(report.as_json())
    else:
        report.print()
    for sentence in report.complaints():
        tell(f"connector-async: {sentence}")
    return 1 if report.tally.errors else 0


@attrs.frozen(kw_only=True)
class _Report:
    """What the demo found out.

    Attributes:
        total_seconds: From the first opening to the last close; the sending alone is `tally.seconds`.
    """

    consumers: int
    tally: Tally
    stats: SessionStats
    total_seconds: float

    @property
    def rate(self) -> float:
        return self.tally.accepted / self.tally.seconds if self.tally.seconds else 0.0

    def milliseconds(self, share: float) -> float | None:
        value = percentile(self.tally.latencies, share)
        return None if value is None else round(value * 1000, 3)

    def as_json(self) -> dict[str, Any]:
        tally = self.tally
        return {
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

    def complaints(self) -> list[str]:
        if not self.tally.errors:
            return []
        causes = ", ".join(f"{count} x {cause}" for cause, count in self.tally.causes.most_common(5))
        return [f"{self.tally.errors:,} of {self.tally.sent:,} messages were not accepted: {causes}"]


async def _run_crowd(address: SandboxAddress, arguments: argparse.Namespace) -> _Report:
    session = ConnectorSession(
        address.account_id,
        AppCredentials(address.client_id, address.client_secret),
        domains=address.domain_api,
        limits=SessionLimits(max_in_flight=arguments.concurrency),
    )
    started = time.perf_counter()
    with progress_on_stderr() as progress:
        async with session:
            crowd = Crowd(session, progress, arguments.consumers, arguments.messages, arguments.concurrency)
            tally = await crowd.run()
    return _Report(
        consumers=arguments.consumers,
        tally=tally,
        stats=session.stats(),
        total_seconds=time.perf_counter() - started,
    )
