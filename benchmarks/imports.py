"""`imports`: how long a program waits for `import connector_async`, beside `import httpx`.

Compiled code is kept in a directory of our own, for all alike: with `PYTHONDONTWRITEBYTECODE` set, as containers have
it, an installed rival would come compiled and a source tree would not.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from statistics import median

from benchmarks.report import Result, table
from benchmarks.targets import judge

TARGET = 1.5
_TIMED = "import time; begin = time.perf_counter(); {statement}; print(time.perf_counter() - begin)"
_STATEMENTS = {
    "connector_async": "import connector_async",
    "ConnectorSession": "from connector_async import ConnectorSession",
    "httpx": "import httpx",
    "aiohttp": "import aiohttp",
}


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `imports`."""
    parser.add_argument("--rounds", type=int, default=11)


def run(options: argparse.Namespace) -> Result:
    """Import each in fresh interpreters, in turn; the first round fills the disk cache and does not count."""
    taken: dict[str, list[float]] = {name: [] for name in _STATEMENTS}
    problems: list[str] = []
    with tempfile.TemporaryDirectory() as compiled:
        for number in range(options.rounds + 1):
            for name in list(taken):
                ran = _import(_STATEMENTS[name], compiled)
                if ran.returncode:
                    problems.append(f"import {name}: {ran.stderr.strip().splitlines()[-1]}")
                    del taken[name]
                elif number:
                    taken[name].append(float(ran.stdout))
    middle = {name: median(seconds) for name, seconds in taken.items()}
    rows = [(name, f"{seconds * 1e3:.1f}", f"{min(taken[name]) * 1e3:.1f}") for name, seconds in middle.items()]
    return {
        "title": "imports: a fresh interpreter each time",
        "tables": [table(("import", "median ms", "best ms"), rows)],
        "rows": [{"import": name, "median_ms": round(seconds * 1e3, 2)} for name, seconds in middle.items()],
        "targets": [
            judge("import connector_async / import httpx", _ratio(taken, "connector_async"), TARGET),
            judge("the same with the session in use", _ratio(taken, "ConnectorSession"), TARGET),
        ],
        "problems": problems,
        "settings": {"rounds": options.rounds},
    }


def _import(statement: str, compiled: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": compiled}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return subprocess.run(
        [sys.executable, "-c", _TIMED.format(statement=statement)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )


def _ratio(taken: dict[str, list[float]], name: str) -> float | None:
    """The median of the ratios of each round, which both measured in the same conditions."""
    if name not in taken or "httpx" not in taken:
        return None
    return median([ours / theirs for ours, theirs in zip(taken[name], taken["httpx"], strict=True)])
