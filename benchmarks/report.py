"""Tables for people and one JSON object for machines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import orjson

from benchmarks.harness import Measurement
from benchmarks.machine import describe
from benchmarks.targets import SUBJECT, Verdict

__all__ = ["Result", "as_json", "as_text", "send_table", "table"]

Result = Mapping[str, object]
"""`title`, `tables` (text), `rows`, `targets`, `problems`, `settings`."""
SERVER_LIMIT = 0.95
"""From here on the server is too busy for the rate to be the client's."""


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Columns as wide as they need to be; numbers to the right, the first column to the left."""
    lines = [tuple(head), *(tuple(map(str, row)) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    shown = []
    for line in lines:
        cells = [
            cell.ljust(width) if not i else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        shown.append("  ".join(cells).rstrip())
    return "\n".join([shown[0], "  ".join("-" * width for width in widths), *shown[1:]])


def send_table(measurements: Sequence[Measurement]) -> str:
    """One line per rival and number in flight, with the session's cost as a multiple of the rival's."""
    mine = {one.in_flight: one for one in measurements if one.rival == SUBJECT}
    rows = []
    for one in sorted(measurements, key=lambda one: one.in_flight):
        subject = mine.get(one.in_flight)
        low, high = one.cpu_range()
        busy = one.server_busy()
        rows.append(
            (
                one.rival,
                f"{one.in_flight:,}",
                f"{one.middle('cpu_us'):.1f}",
                f"{low:.1f}-{high:.1f}",
                "-" if subject is None else f"{subject.ratio(one):.3g}",
                f"{one.middle('rate'):,.0f}{'*' if busy >= SERVER_LIMIT else ''}",
                f"{one.middle('p50') * 1e3:.2f}",
                f"{one.middle('p99') * 1e3:.2f}",
                f"{one.middle('memory') / 2**20:.1f}",
                f"{one.middle('server_us'):.1f}",
                f"{busy:.0%}",
            )
        )
    head = "rival", "in flight", "CPU us/msg", "range", "session/it", "msg/s", "p50 ms", "p99 ms"
    return table([*head, "RSS + MiB", "server us", "server busy"], rows)


def as_text(result: Result) -> str:
    """What a person reads: the tables, the promises, the machine."""
    parts = [f"# {result['title']}", *_strings(result["tables"])]
    verdicts = _verdicts(result)
    if verdicts:
        rows = [
            (
                one.what,
                _number(one.measured, one.unit),
                _bound(one),
                "-" if one.then is None else _number(one.then, ""),
                one.word,
            )
            for one in verdicts
        ]
        parts.append(table(("promise", "measured", "target", "then", "verdict"), rows))
    parts += [f"not measured: {problem}" for problem in _strings(result["problems"])]
    parts.append(_machine())
    return "\n\n".join(parts)


def as_json(result: Result) -> str:
    """What a machine reads."""
    shown = {key: value for key, value in result.items() if key != "tables"}
    shown["targets"] = [one.as_dict() for one in _verdicts(result)]
    return orjson.dumps({**shown, "machine": describe()}, option=orjson.OPT_INDENT_2).decode()


def _verdicts(result: Result) -> list[Verdict]:
    targets = result["targets"]
    assert isinstance(targets, list)
    return targets


def _strings(values: object) -> list[str]:
    assert isinstance(values, list)
    return values


def _bound(verdict: Verdict) -> str:
    return f"{'>=' if verdict.at_least else '<='} {_number(verdict.target, verdict.unit)}"


def _number(value: float | None, unit: str) -> str:
    return "-" if value is None else f"{value:,.4g}{f' {unit}' if unit else ''}"


def _machine() -> str:
    facts = describe()
    versions = facts["versions"]
    assert isinstance(versions, dict)
    shown = ", ".join(f"{name} {version}" for name, version in versions.items())
    return (
        f"{facts['date']}, {facts['cpu']}, {facts['cores']} cores, {facts['system']}, load {facts['load']}, "
        f"{facts['python']}\n{shown}"
    )


Report = Callable[[], Result]
