"""`python -m benchmarks COMMAND`: measure, compare, judge."""

from __future__ import annotations

import argparse
import importlib
import sys

from benchmarks.harness import RivalFailed
from benchmarks.report import as_json, as_text

COMMANDS = {
    "send": "CPU, rate and latency of a text message beside httpx, aiohttp, pyreqwest and the bare floor",
    "load": "rate and p99 against a server that takes 50 ms",
    "scale": "cost against messages in flight and against idle consumers",
    "tokens": "token calls when thousands of messages wait for a new token",
    "memory": "bytes per message in flight and per idle consumer",
    "wire": "reading and writing typed messages beside plain orjson",
    "webhooks": "notifications verified, ordered and handled beside an endpoint that only checks the HMAC",
    "pump": "messages through an outbox beside the bare session, and commits per second",
    "consumers": "a channel's millions of consumers behind a small cache: memory, IDP calls, store reads",
    "imports": "`import connector_async` beside `import httpx`",
}


def main(argv: list[str] | None = None) -> int:
    """Run one command; 0 when it could measure, 1 when it could not, 2 for wrong use."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    modules = {}
    for name, about in COMMANDS.items():
        modules[name] = importlib.import_module(f"benchmarks.{name}")
        command = commands.add_parser(name, help=about, description=about)
        command.add_argument("--json", action="store_true", help="one JSON object instead of tables")
        modules[name].arguments(command)
    options = parser.parse_args(argv)
    try:
        result = modules[options.command].run(options)
    except RivalFailed as failure:
        print(failure, file=sys.stderr)
        return 1
    print(as_json(result) if options.json else as_text(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
