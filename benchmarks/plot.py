"""The picture: cost against messages in flight, everybody in one frame."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.harness import Measurement
from benchmarks.machine import describe
from benchmarks.targets import SUBJECT


def draw(measurements: Sequence[Measurement], path: str) -> None:
    """Write the picture in the format that the file's name ends with."""
    from matplotlib.figure import Figure  # pyright: ignore[reportMissingImports] - an extra that the checks do not need

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    lines: dict[str, list[Measurement]] = {}
    several = len({(one.loop, one.tls) for one in measurements}) > 1
    for one in measurements:
        kind = f" ({one.loop}{', TLS' if one.tls else ''})" if several else ""
        lines.setdefault(one.rival + kind, []).append(one)
    for name, points in lines.items():
        points.sort(key=lambda one: one.in_flight)
        costs = [one.middle("cpu_us") for one in points]
        width = 3.0 if points[0].rival == SUBJECT else 1.5
        axes.plot([one.in_flight for one in points], costs, marker="o", linewidth=width, label=name)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("messages in flight")
    axes.set_ylabel("client CPU per message, µs")
    facts = describe()
    axes.set_title(f"Cost of one message, one core of {facts['cpu']}, {facts['python']}, {facts['date']}", fontsize=9)
    axes.grid(visible=True, which="both", alpha=0.25)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=150)
