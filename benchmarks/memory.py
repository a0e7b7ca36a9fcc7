"""`memory`: bytes of a message in flight, and of a consumer who is silent."""

from __future__ import annotations

import argparse
from typing import Any

from benchmarks import idle
from benchmarks.harness import Place, RivalFailed, Server, play, progress
from benchmarks.job import Job
from benchmarks.report import Result, table
from benchmarks.scale import ACTIVE, PER_CONSUMER
from benchmarks.targets import SUBJECT, Verdict, judge

RIVALS = ("floor", "pooled", SUBJECT, "aiohttp")
PER_REQUEST = 10 * 1024.0
_HOLDS = {"nothing": "nothing", "conversation": "the conversation", "both": "the conversation and the consumer"}


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `memory`."""
    parser.add_argument("--in-flight", type=int, default=2000)
    # So many that a megabyte more or less, which is the allocator's own, is little beside them.
    parser.add_argument("--consumers", type=int, default=30_000)


def run(options: argparse.Namespace) -> Result:
    """Hold messages at the server and look; then let consumers open conversations and fall silent, and look."""
    problems: list[str] = []
    with Server() as server:
        held = _held(server.place, options.in_flight, problems)
        consumers = _consumers(server.place, options.consumers, problems)
    weights = [(row["rival"], f"{row['traced_per_request']:,.0f}", f"{row['rss_per_request']:,.0f}") for row in held]
    tables = [table(("one more message in flight", "Python bytes", "RSS bytes, connection included"), weights)]
    head = "one more idle consumer, of whom the application holds", "RSS bytes", "of them token", "beyond the token"
    numbers = "bytes_per_consumer", "token_bytes", "beyond_token"
    tables.append(
        table(head, [(_HOLDS[row["held"]], *(f"{row[name]:,.0f}" for name in numbers)) for row in consumers])
    )
    return {
        "title": f"memory: {options.in_flight:,} in flight, {options.consumers:,} idle consumers",
        "tables": tables,
        "rows": [*held, *consumers],
        "targets": _judge(held, consumers),
        "problems": problems,
        "settings": {"in_flight": options.in_flight, "consumers": options.consumers},
    }


def _held(place: Place, in_flight: int, problems: list[str]) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for rival in RIVALS:
        progress(f"{rival}: {in_flight:,} messages in flight")
        job = Job(rival=rival, base=place.base, control=place.control, in_flight=in_flight)
        try:
            # Counting every allocation changes the size of the process: two runs.
            resident, traced = (play("held", job, traced=traced) for traced in (False, True))
        except RivalFailed as failure:
            problems.append(f"{rival}: {failure}")
            continue
        rows.append(
            {
                "rival": rival,
                "rss_per_request": round(resident["rss_per_request"]),
                "traced_per_request": round(traced["traced_per_request"]),
            }
        )
    return rows


def _consumers(place: Place, consumers: int, problems: list[str]) -> list[dict[str, Any]]:
    job = Job(rival=SUBJECT, base=place.base, control=place.control, in_flight=ACTIVE, seconds=0.1)
    rows: list[dict[str, Any]] = []
    for held in idle.HELD:
        progress(f"{consumers:,} idle consumers: the application holds {_HOLDS[held]}")
        try:
            facts = play("idle", job, consumers=consumers, held=held)
        except RivalFailed as failure:
            problems.append(f"idle consumers: {failure}")
            continue
        row = {name: float(facts[name]) for name in ("bytes_per_consumer", "token_bytes")}
        rows.append({"held": held, **row, "beyond_token": row["bytes_per_consumer"] - row["token_bytes"]})
    return rows


def _judge(held: list[dict[str, object]], consumers: list[dict[str, Any]]) -> list[Verdict]:
    mine = next((float(str(row["traced_per_request"])) for row in held if row["rival"] == SUBJECT), None)
    beyond = {row["held"]: row["beyond_token"] for row in consumers}
    return [
        judge("one request in flight, the transport's share included", mine, PER_REQUEST, unit="bytes"),
        *(
            judge(
                f"one idle consumer beyond its token, {_HOLDS[held]} held",
                beyond.get(held),
                PER_CONSUMER,
                unit="bytes",
            )
            for held in ("nothing", "conversation")
        ),
    ]
