"""The progress of `connector-async pump` on standard error: a bar on a terminal with rich, else lines."""

from __future__ import annotations

import importlib.util
import time
from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

import attrs

from connector_async.cli._console import on_terminal, tell

if TYPE_CHECKING:
    from rich.progress import TaskID

__all__ = ["PumpProgress", "Standing", "pump_progress"]

_LINE_INTERVAL = 2.0
_BAR_INTERVAL = 0.2
_WINDOW = 10.0  # seconds over which the rate is taken


@attrs.frozen(kw_only=True)
class Standing:
    """How far it is.

    Attributes:
        done: Messages with an end.
        total: How many there will be: read so far, or reckoned from the bytes; None while nobody can say.
    """

    done: int = 0
    total: int | None = None
    in_flight: int = 0
    retried: int = 0
    unknown: int = 0


class PumpProgress(Protocol):
    """Shows where the pump stands, every `interval` seconds."""

    interval: float

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    def show(self, standing: Standing) -> None:
        """Tell."""
        ...


def pump_progress() -> PumpProgress:
    """The best that standard error can show."""
    if on_terminal() and importlib.util.find_spec("rich") is not None:
        return _Bar()
    return _Lines()


@attrs.define
class _Speed:
    """Messages per second lately, and the seconds left at that."""

    _seen: deque[tuple[float, int]] = attrs.field(factory=lambda: deque([(time.monotonic(), 0)]))

    def of(self, standing: Standing) -> tuple[float, float | None]:
        now = time.monotonic()
        self._seen.append((now, standing.done))
        while now - self._seen[0][0] > _WINDOW and len(self._seen) > 2:
            self._seen.popleft()
        (then, before), (_, done) = self._seen[0], self._seen[-1]
        rate = (done - before) / (now - then) if now > then else 0.0
        if standing.total is None or not rate:
            return rate, None
        return rate, max(0, standing.total - done) / rate


def _clock(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _words(standing: Standing, rate: float) -> str:
    return (
        f"{rate:,.0f}/s, {standing.in_flight:,} in flight, {standing.retried:,} retried, {standing.unknown:,} unknown"
    )


class _Lines:
    interval = _LINE_INTERVAL

    def __init__(self) -> None:
        self._speed = _Speed()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return None

    def show(self, standing: Standing) -> None:
        rate, eta = self._speed.of(standing)
        total = "" if standing.total is None else f"/{standing.total:,}"
        tell(f"pumping: {standing.done:,}{total}, {_words(standing, rate)}, ETA {_clock(eta)}")


class _Bar:
    interval = _BAR_INTERVAL

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self._speed = _Speed()
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[words]}, ETA {task.fields[eta]}"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
        )
        self._task: TaskID = self._progress.add_task("pumping", total=None, words="", eta="-")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._progress.stop()

    def show(self, standing: Standing) -> None:
        rate, eta = self._speed.of(standing)
        self._progress.update(
            self._task,
            completed=standing.done,
            total=standing.total,
            words=_words(standing, rate),
            eta=_clock(eta),
        )
