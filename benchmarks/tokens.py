"""`tokens`: how often the token endpoint is asked when thousands of messages need a new token at once."""

from __future__ import annotations

import argparse

from benchmarks.harness import RivalFailed, Server, play, progress
from benchmarks.job import Job
from benchmarks.report import Result, table
from benchmarks.targets import SUBJECT, judge

CASES = {
    "cold": "no token yet",
    "expired": "the token's time is over and the next one is slow to come",
    "refused": "the cloud refuses the token that all of them use",
}


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `tokens`."""
    parser.add_argument("--waiting", type=int, default=10_000, help="messages that wait at the same moment")
    parser.add_argument("--lifetime", type=float, default=2.0, help="seconds that the token which expires lives")


def run(options: argparse.Namespace) -> Result:
    """Play the three cases, each with a server and a session of its own."""
    problems: list[str] = []
    rows: list[dict[str, object]] = []
    verdicts = []
    for case, about in CASES.items():
        progress(f"{options.waiting:,} waiting: {about}")
        what = f"token calls for {options.waiting:,} messages: {case}"
        try:
            with Server() as server:
                job = Job(rival=SUBJECT, base=server.place.base, control=server.place.control, in_flight=256)
                facts = play("tokens", job, case=case, waiting=options.waiting, lifetime=options.lifetime)
        except RivalFailed as failure:
            problems.append(f"{case}: {failure}")
            verdicts.append(judge(what, None, 1))
            continue
        rows.append({"case": case, "about": about, **facts})
        verdicts.append(judge(what, facts["token_calls"], 1))
    keys = "token_calls", "refused", "answered"
    lines = [(row["about"], *(f"{row[key]:,.0f}" for key in keys), f"{row['seconds']:.2f}") for row in rows]
    return {
        "title": "tokens: thousands wait, one asks",
        "tables": [table(("case", "token calls", "answers 401", "messages accepted", "seconds"), lines)],
        "rows": rows,
        "targets": verdicts,
        "problems": problems,
        "settings": {"waiting": options.waiting, "lifetime": options.lifetime},
    }
