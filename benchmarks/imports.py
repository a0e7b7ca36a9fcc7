"""`imports`: how long a program waits for us before its first message is out, beside `import httpx`.

Compiled code is kept in a directory of our own, for all alike: with `PYTHONDONTWRITEBYTECODE` set, as containers have
it, an installed rival would come compiled and a source tree would not. The first message goes to the benchmark's own
server, with all that a session does before it: both tokens, the conversation, and whatever is made at first use.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from statistics import median

from benchmarks.harness import Server
from benchmarks.report import Result, table
from benchmarks.targets import judge

TARGET = 1.5
_TIMED = """
import time
begin = time.perf_counter()
{script}
print(time.perf_counter() - begin)
"""
_FIRST_MESSAGE = """
import asyncio
from connector_async import AppCredentials, ConnectorSession

async def main():
    domains = dict.fromkeys(("sentinel", "idp", "asyncMessagingEnt"), "{base}")
    async with ConnectorSession("12345678", AppCredentials("bench", "bench-secret"), domains=domains) as session:
        conversation = await session.consumer("consumer-1").open_conversation()
        await conversation.send_text("Hello")

asyncio.run(main())
"""
_FIRST_POST = """
import asyncio
import httpx

async def main():
    async with httpx.AsyncClient() as client:
        (await client.post("{base}/api/messaging", json={{"message": "Hello"}})).read()

asyncio.run(main())
"""
BARE, SESSION, MESSAGE = "connector_async", "ConnectorSession", "ConnectorSession and a first message"
HTTPX, POST = "httpx", "httpx and a first POST"
_SCRIPTS = {
    BARE: "import connector_async",
    SESSION: "from connector_async import AppCredentials, ConnectorSession",
    MESSAGE: _FIRST_MESSAGE,
    HTTPX: "import httpx",
    POST: _FIRST_POST,
    "aiohttp": "import aiohttp",
}


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `imports`."""
    parser.add_argument("--rounds", type=int, default=11)


def run(options: argparse.Namespace) -> Result:
    """Run each in fresh interpreters, in turn; the first round fills the disk cache and does not count."""
    taken: dict[str, list[float]] = {name: [] for name in _SCRIPTS}
    problems: list[str] = []
    with tempfile.TemporaryDirectory() as compiled, Server() as server:
        for number in range(options.rounds + 1):
            for name in list(taken):
                ran = _run(_SCRIPTS[name].format(base=server.place.base), compiled)
                if ran.returncode:
                    problems.append(f"{name}: {ran.stderr.strip().splitlines()[-1]}")
                    del taken[name]
                elif number:
                    taken[name].append(float(ran.stdout))
    ratios = {name: _ratio(taken, name, HTTPX) for name in taken}
    return {
        "title": "imports: a fresh interpreter each time",
        "tables": [
            table(
                ("what is imported", "median ms", "best ms", "x httpx"),
                [
                    (name, f"{median(seconds) * 1e3:.1f}", f"{min(seconds) * 1e3:.1f}", _shown(ratios[name]))
                    for name, seconds in taken.items()
                ],
            )
        ],
        "rows": [
            {"import": name, "median_ms": round(median(seconds) * 1e3, 2), "ratio": ratios[name]}
            for name, seconds in taken.items()
        ],
        "targets": [
            judge("import connector_async / import httpx", ratios.get(BARE), TARGET),
            judge("import of the session / import httpx", ratios.get(SESSION), TARGET),
            judge("the session's first message / httpx's first POST", _ratio(taken, MESSAGE, POST), TARGET),
        ],
        "problems": problems,
        "settings": {"rounds": options.rounds},
    }


def _run(script: str, compiled: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": compiled}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return subprocess.run(
        [sys.executable, "-c", _TIMED.format(script=script)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )


def _ratio(taken: dict[str, list[float]], name: str, unit: str) -> float | None:
    """The median of the ratios of each round, which both measured in the same conditions."""
    if name not in taken or unit not in taken:
        return None
    return round(median([ours / theirs for ours, theirs in zip(taken[name], taken[unit], strict=True)]), 3)


def _shown(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.2f}"
