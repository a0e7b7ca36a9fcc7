"""`send`: what one text message costs, the session beside everybody else."""

from __future__ import annotations

import argparse
from itertools import product

import attrs

from benchmarks.harness import Measurement, Place, Server, alternate
from benchmarks.job import Job
from benchmarks.options import names, numbers
from benchmarks.report import Result, send_table
from benchmarks.rivals import RIVALS, SLOW
from benchmarks.targets import Verdict, judge_sends

IN_FLIGHT = (1, 50, 100, 1000, 2000)
SLOW_UP_TO = 100
"""With more connections the slow rivals need minutes for one round: only with `--full`."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `send`."""
    parser.add_argument("--rivals", type=names, default=tuple(RIVALS), help="names with commas between")
    parser.add_argument("--in-flight", type=numbers, default=IN_FLIGHT, help="numbers with commas between")
    parser.add_argument("--loop", choices=("asyncio", "uvloop", "both"), default="asyncio")
    parser.add_argument("--tls", choices=("off", "on", "both"), default="off")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.25, help="how long each rival sends in each round")
    parser.add_argument("--full", action="store_true", help="slow rivals at every number in flight, in every round")
    parser.add_argument("--plot", metavar="FILE", help="draw cost against messages in flight")


def run(options: argparse.Namespace) -> Result:
    """Measure and judge."""
    loops: tuple[str, ...] = ("asyncio", "uvloop") if options.loop == "both" else (options.loop,)
    kinds: tuple[bool, ...] = {"off": (False,), "on": (True,), "both": (False, True)}[options.tls]
    problems: list[str] = []
    measurements: list[Measurement] = []
    tables: list[str] = []
    verdicts: list[Verdict] = []
    for tls, loop in product(kinds, loops):
        with Server(tls=tls) as server:
            taken = _compare(server.place, options, loop, problems)
        name = f"{loop}, {'TLS' if tls else 'plain'}"
        tables.append(f"{name}\n\n{send_table(taken)}")
        judged = judge_sends(taken)
        verdicts += [_named(one, name) for one in judged] if len(kinds) * len(loops) > 1 else judged
        measurements += taken
    if options.plot:
        from benchmarks.plot import draw

        draw(measurements, options.plot)
    return {
        "title": "send: CPU per message, one core",
        "tables": [*tables, "* the server was busy: the rate is not the client's, its CPU per message is"],
        "rows": [one.as_dict() for one in measurements],
        "targets": verdicts,
        "problems": problems,
        "settings": {"rounds": options.rounds, "seconds": options.seconds},
    }


def _compare(place: Place, options: argparse.Namespace, loop: str, problems: list[str]) -> list[Measurement]:
    always: list[Job] = []
    once: list[Job] = []
    for in_flight, rival in product(options.in_flight, options.rivals):
        slow = rival in SLOW and not options.full
        if slow and in_flight > SLOW_UP_TO:
            problems.append(f"{rival}, {in_flight:,} in flight: minutes for one round (--full does it)")
            continue
        job = Job(
            rival=rival,
            base=place.base,
            control=place.control,
            ca_file=place.ca_file,
            in_flight=in_flight,
            loop=loop,
            seconds=options.seconds,
        )
        (once if slow and in_flight >= SLOW_UP_TO else always).append(job)
    return alternate(place, always, rounds=options.rounds, problems=problems, once=once)


def _named(verdict: Verdict, name: str) -> Verdict:
    return attrs.evolve(verdict, what=f"{verdict.what} ({name})")
