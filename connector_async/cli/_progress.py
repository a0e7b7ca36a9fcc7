"""Live progress on standard error: a bar on a terminal where rich is installed, else a line now and then."""

from __future__ import annotations

import importlib.util
import time
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from connector_async.cli._console import on_terminal, tell

if TYPE_CHECKING:
    from rich.progress import TaskID

__all__ = ["Progress", "progress_on_stderr"]

_LINE_INTERVAL = 2.0


class Progress(Protocol):
    """What a long command tells while it works."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    def start(self, what: str, total: int) -> None:
        """Begin a phase of so many steps; it ends the one before."""
        ...

    def step(self) -> None:
        """One step of the phase is done."""
        ...


def progress_on_stderr() -> Progress:
    """The best that standard error can show."""
    if on_terminal() and importlib.util.find_spec("rich") is not None:
        return _Bar()
    return _Lines()


class _Lines:
    def __init__(self) -> None:
        self._what = ""
        self._total = self._done = 0
        self._told_at = self._started_at = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._tell()

    def start(self, what: str, total: int) -> None:
        self._tell()
        self._what, self._total, self._done = what, total, 0
        self._told_at = self._started_at = time.monotonic()

    def step(self) -> None:
        self._done += 1
        if time.monotonic() - self._told_at >= _LINE_INTERVAL:
            self._tell()

    def _tell(self) -> None:
        self._told_at = time.monotonic()
        if self._what:
            seconds = self._told_at - self._started_at
            rate = f", {self._done / seconds:,.0f}/s" if seconds > 0 else ""
            tell(f"{self._what}: {self._done:,}/{self._total:,}{rate}")


class _Bar:
    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self._progress = Progress(
            TextColumn("{task.description:<24}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]:>10}"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
        )
        self._task: TaskID | None = None
        self._started_at = 0.0

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._progress.stop()

    def start(self, what: str, total: int) -> None:
        self._task = self._progress.add_task(what, total=total, rate="")
        self._started_at = time.monotonic()

    def step(self) -> None:
        if self._task is not None:
            task = self._progress.tasks[self._task]
            seconds = time.monotonic() - self._started_at
            rate = f"{(task.completed + 1) / seconds:,.0f}/s" if seconds > 0 else ""
            self._progress.update(self._task, advance=1, rate=rate)
