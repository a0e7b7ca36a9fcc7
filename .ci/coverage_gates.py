"""Hold each part of the package to its branch coverage; reads the data file that the tests left behind."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

WHOLE = {"wire", "protocol", "exchange", "auth", "transport"}  # the parts in which an untried branch loses messages
ELSEWHERE = 95.0


def main() -> int:
    """Print one line for each part, the lines missed in those below their gate, and say whether all hold."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "coverage.json"
        subprocess.run([sys.executable, "-m", "coverage", "json", "-q", "-o", str(target)], check=True)
        files = json.loads(target.read_text(encoding="utf-8"))["files"]
    if not files:
        print("no coverage data")
        return 1
    parts: defaultdict[str, list[tuple[str, dict[str, object]]]] = defaultdict(list)
    for name, data in sorted(files.items()):
        parts[Path(name).relative_to("connector_async").parts[0].removesuffix(".py")].append((name, data))
    verdicts = [_holds(part, members) for part, members in sorted(parts.items())]
    return 0 if all(verdicts) else 1


def _holds(part: str, members: list[tuple[str, dict[str, object]]]) -> bool:
    counted = covered = 0
    for _, data in members:
        summary = data["summary"]
        assert isinstance(summary, dict)
        counted += summary["num_statements"] + summary["num_branches"]
        covered += summary["covered_lines"] + summary["covered_branches"]
    share = 100.0 * covered / counted if counted else 100.0
    gate = 100.0 if part in WHOLE else ELSEWHERE
    holds = share >= gate
    print(f"{'ok ' if holds else 'LOW'} {part:<16} {share:6.2f} %  (gate {gate:g} %)")
    if not holds:
        for name, data in members:
            if data["missing_lines"] or data["missing_branches"]:
                print(f"      {name}: lines {data['missing_lines']}, branches {data['missing_branches']}")
    return holds


if __name__ == "__main__":
    sys.exit(main())
