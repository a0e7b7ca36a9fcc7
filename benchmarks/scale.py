"""`scale`: whether a message costs the same among many in flight and among many consumers."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from benchmarks.harness import Measurement, Place, RivalFailed, Server, alternate, play, progress
from benchmarks.job import Job
from benchmarks.options import numbers
from benchmarks.report import Result, send_table, table
from benchmarks.targets import GROWTH, SUBJECT, Verdict, judge

IN_FLIGHT = (50, 100, 500, 1000, 2000)
CONSUMERS = (1, 10_000, 1_000_000)
ACTIVE = 100
"""Messages in flight beside the silent consumers."""
PER_CONSUMER = 1024.0
"""Bytes of an idle consumer beyond its token."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `scale`."""
    parser.add_argument("--in-flight", type=numbers, default=IN_FLIGHT, help="numbers with commas between")
    parser.add_argument("--consumers", type=numbers, default=CONSUMERS, help="idle consumers: numbers with commas")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.5)


def run(options: argparse.Namespace) -> Result:
    """Measure and judge."""
    problems: list[str] = []
    with Server() as server:
        jobs = [_job(server.place, count, options.seconds) for count in options.in_flight]
        taken = alternate(server.place, jobs, rounds=options.rounds, problems=problems)
        rows = _beside_idle(server.place, options, problems)
    head = "idle consumers", "made by", "CPU us/msg", "p99 ms", "bytes each", "token bytes", "beyond the token"
    lines = [
        (
            f"{row['consumers']:,}",
            row["made_by"],
            f"{row['cpu_us']:.1f}",
            f"{row['p99_ms']:.2f}",
            f"{row['bytes_per_consumer']:,.0f}",
            f"{row['token_bytes']:,.0f}",
            f"{row['beyond_token']:,.0f}",
        )
        for row in rows
    ]
    return {
        "title": "scale: what a message costs in a crowd",
        "tables": [send_table(taken), table(head, lines)],
        "rows": [*(one.as_dict() for one in taken), *rows],
        "targets": _judge(taken, rows),
        "problems": problems,
        "settings": {"rounds": options.rounds, "seconds": options.seconds},
    }


def _job(place: Place, in_flight: int, seconds: float) -> Job:
    return Job(rival=SUBJECT, base=place.base, control=place.control, in_flight=in_flight, seconds=seconds)


def _beside_idle(place: Place, options: argparse.Namespace, problems: list[str]) -> list[dict[str, float]]:
    rows: list[dict[str, float]] = []
    job = _job(place, ACTIVE, options.seconds)
    conditions = [(count, "") for count in options.consumers]
    # Through the whole path, tokens fetched and messages sent, as many as the time allows.
    conditions += [(min(10_000, max(options.consumers)), "conversation")]
    for consumers, held in conditions:
        made_by = "sending" if held else "the store"
        progress(f"{consumers:,} idle consumers, made by {made_by}")
        try:
            facts = play("idle", job, consumers=consumers, held=held)
        except RivalFailed as failure:
            problems.append(f"{consumers:,} idle consumers: {failure}")
            continue
        rows.append(
            {
                "consumers": consumers,
                "made_by": made_by,  # type: ignore[dict-item]
                "cpu_us": facts["cpu"] / facts["messages"] * 1e6,
                "p99_ms": facts["p99"] * 1e3,
                "bytes_per_consumer": facts["bytes_per_consumer"],
                "token_bytes": facts["token_bytes"],
                "beyond_token": facts["bytes_per_consumer"] - facts["token_bytes"],
            }
        )
    return rows


def _judge(taken: Sequence[Measurement], rows: Sequence[dict[str, float]]) -> list[Verdict]:
    by_count = {one.in_flight: one for one in taken}
    verdicts = []
    if len(by_count) > 1:
        few, many = by_count[min(by_count)], by_count[max(by_count)]
        what = f"session at {many.in_flight:,} in flight / at {few.in_flight:,}"
        verdicts.append(judge(what, many.ratio(few), GROWTH))
    else:
        verdicts.append(judge("session among many in flight / among few", None, GROWTH))
    for row in rows:
        # One consumer is smaller than what the system gives a process at a time.
        if row["consumers"] >= 1000:
            what = f"idle consumer beyond its token, {row['consumers']:,} by {row['made_by']}"
            verdicts.append(judge(what, row["beyond_token"], PER_CONSUMER, unit="bytes"))
    return verdicts
