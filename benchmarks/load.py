"""`load`: a cloud that takes its time: rate and p99 beside hand-written aiohttp."""

from __future__ import annotations

import argparse
from statistics import median

from benchmarks.harness import Measurement, Server, alternate
from benchmarks.job import Job
from benchmarks.report import Result, send_table
from benchmarks.targets import SUBJECT, Verdict, judge

RIVALS = ("pooled", SUBJECT, "pyreqwest", "aiohttp")
LEAST_RATE = 0.9
MOST_P99 = 1.5


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `load`."""
    parser.add_argument("--in-flight", type=int, default=1000)
    parser.add_argument("--latency", type=float, default=0.05, help="seconds that the server takes for a message")
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="asyncio")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0)


def run(options: argparse.Namespace) -> Result:
    """Measure and judge."""
    problems: list[str] = []
    with Server(latency=options.latency) as server:
        jobs = [
            Job(
                rival=rival,
                base=server.place.base,
                control=server.place.control,
                in_flight=options.in_flight,
                loop=options.loop,
                seconds=options.seconds,
            )
            for rival in RIVALS
        ]
        taken = alternate(server.place, jobs, rounds=options.rounds, problems=problems)
    return {
        "title": f"load: the server takes {options.latency * 1e3:.0f} ms",
        "tables": [send_table(taken)],
        "rows": [one.as_dict() for one in taken],
        "targets": _judge(taken, options.in_flight),
        "problems": problems,
        "settings": {"latency": options.latency, "rounds": options.rounds, "seconds": options.seconds},
    }


def _judge(taken: list[Measurement], in_flight: int) -> list[Verdict]:
    ours, theirs = (next((one for one in taken if one.rival == rival), None) for rival in (SUBJECT, "aiohttp"))
    rate = p99 = None
    if ours and theirs:
        pairs = list(zip(ours.samples, theirs.samples, strict=False))
        rate = median(mine.rate / other.rate for mine, other in pairs)
        p99 = median(mine.p99 / other.p99 for mine, other in pairs)
    where = f"session / aiohttp at {in_flight:,} in flight"
    return [judge(f"rate, {where}", rate, LEAST_RATE, at_least=True), judge(f"p99, {where}", p99, MOST_P99)]
