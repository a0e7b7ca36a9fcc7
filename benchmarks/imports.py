"""`imports`: how long a program waits for `import connector_async`, beside `import httpx`."""

from __future__ import annotations

import argparse
import subprocess
import sys
from statistics import median

from benchmarks.report import Result, table
from benchmarks.targets import judge

TARGET = 1.5
_TIMED = "import time; begin = time.perf_counter(); import {name}; print(time.perf_counter() - begin)"


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `imports`."""
    parser.add_argument("--rounds", type=int, default=11)


def run(options: argparse.Namespace) -> Result:
    """Import each in fresh interpreters, in turn; the first round fills the disk cache and does not count."""
    names = ("connector_async", "httpx", "aiohttp")
    taken: dict[str, list[float]] = {name: [] for name in names}
    problems: list[str] = []
    for number in range(options.rounds + 1):
        for name in list(taken):
            ran = subprocess.run(
                [sys.executable, "-c", _TIMED.format(name=name)], capture_output=True, text=True, check=False
            )
            if ran.returncode:
                problems.append(f"import {name}: {ran.stderr.strip().splitlines()[-1]}")
                del taken[name]
            elif number:
                taken[name].append(float(ran.stdout))
    middle = {name: median(seconds) for name, seconds in taken.items()}
    both = "connector_async" in taken and "httpx" in taken
    pairs = zip(taken["connector_async"], taken["httpx"], strict=True) if both else ()
    ratios = [ours / theirs for ours, theirs in pairs]
    rows = [(name, f"{seconds * 1e3:.1f}", f"{min(taken[name]) * 1e3:.1f}") for name, seconds in middle.items()]
    return {
        "title": "imports: a fresh interpreter each time",
        "tables": [table(("import", "median ms", "best ms"), rows)],
        "rows": [{"import": name, "median_ms": round(seconds * 1e3, 2)} for name, seconds in middle.items()],
        "targets": [judge("import connector_async / import httpx", median(ratios) if ratios else None, TARGET)],
        "problems": problems,
        "settings": {"rounds": options.rounds},
    }
