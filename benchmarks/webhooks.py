"""`webhooks`: a verified, parsed, ordered and handled notification beside an endpoint that only checks the HMAC."""

from __future__ import annotations

import argparse
import asyncio
import time
from statistics import median
from typing import Any

from benchmarks.report import Result, table
from benchmarks.targets import judge
from benchmarks.webhook_endpoints import App, bare_endpoint, delivery, ours
from benchmarks.webhook_sockets import measure_on_sockets

TARGET = 0.7
"""Rate of ours against the bare endpoint's."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `webhooks`."""
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--messages", type=int, default=3_000, help="notifications in each round")
    parser.add_argument("--conversations", type=int, default=200)
    parser.add_argument("--connections", type=int, default=20, help="of the client of the rounds on sockets")


def run(options: argparse.Namespace) -> Result:
    """Measure both in turn, twice: behind uvicorn, as a user has them, and without a server beneath."""
    sizes = options.rounds, options.messages, options.conversations
    rows = asyncio.run(measure_on_sockets(*sizes, options.connections)) + asyncio.run(_measure(*sizes))
    places = ("uvicorn, sockets", "no server")
    lines = []
    targets = []
    for place in places:
        of_place = [row for row in rows if row["place"] == place]
        for name, key in (("Starlette, HMAC only", "bare"), ("webhook_app, handled", "ours")):
            cpu = median(row[key] for row in of_place)
            lines.append((f"{name}; {place}", f"{cpu:.1f}", f"{1e6 / cpu:,.0f}"))
        ratio = median(row["bare"] / row["ours"] for row in of_place)
        targets.append(judge(f"rate of webhook_app / bare endpoint, {place}", ratio, TARGET, at_least=True))
    return {
        "title": "webhooks: one notification, CPU of the serving process",
        "tables": [table(("endpoint", "CPU us", "notifications/s"), lines)],
        "rows": rows,
        "targets": targets,
        "problems": [],
        "settings": {
            "rounds": options.rounds,
            "messages": options.messages,
            "conversations": options.conversations,
            "connections": options.connections,
        },
    }


async def _measure(rounds: int, messages: int, conversations: int) -> list[dict[str, Any]]:
    from starlette.applications import Starlette
    from starlette.routing import Route

    rows: list[dict[str, Any]] = []
    bare = Starlette(routes=[Route("/", bare_endpoint, methods=["POST"])])
    async with ours(conversations) as subject:
        for turn in range(rounds + 1):
            requests = [_request(turn * messages + number, conversations) for number in range(messages)]
            before = time.process_time()
            await _deliver(bare, requests)
            between = time.process_time()
            subject.expect(messages)
            await _deliver(subject.app, requests)
            await subject.all_handled()
            after = time.process_time()
            each = 1e6 / messages
            rows.append({"place": "no server", "bare": (between - before) * each, "ours": (after - between) * each})
    return rows[1:]  # the first round warms up


def _request(number: int, conversations: int) -> tuple[dict[str, Any], bytes]:
    headers, body = delivery(number, conversations)
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "path": "/",
        "raw_path": b"/",
        "query_string": b"",
        "root_path": "",
        "scheme": "http",
        "headers": headers,
    }
    return scope, body


async def _deliver(app: App, requests: list[tuple[dict[str, Any], bytes]]) -> None:
    statuses: list[int] = []
    for scope, body in requests:
        left = [body]

        async def receive(left: list[bytes] = left) -> dict[str, Any]:
            return {"type": "http.request", "body": left.pop(), "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        await app(dict(scope), receive, send)
        await asyncio.sleep(0)  # as under a server, where each comes in a task of its own
    if set(statuses) != {200}:
        raise RuntimeError(f"not every delivery was taken: {sorted(set(statuses))}")
