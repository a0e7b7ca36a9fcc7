"""Lines of a file, a pipe or a terminal: numbered, bounded, and read as fast as they are wanted."""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncGenerator, Callable
from typing import Any, Final

import anyio
import anyio.lowlevel
import anyio.to_thread
import attrs

__all__ = ["MAX_LINE", "Line", "read_lines"]

MAX_LINE: Final = 1 << 20
"""Bytes of one line; no message of the API is as long."""
_CHUNK: Final = 1 << 16


@attrs.frozen
class Line:
    """One line that is not blank; `raw` is None where it was longer than `MAX_LINE`."""

    number: int
    raw: bytes | None = attrs.field(repr=False)


async def read_lines(descriptor: int) -> AsyncGenerator[list[Line]]:
    """The lines of a file, in lists: all that one reading gave. Waiting for a pipe can be cancelled.

    Raises:
        OSError: It cannot be read.
    """
    cutter = _Cutter()
    wait = _waiter(descriptor)
    while True:
        await wait()
        chunk = await anyio.to_thread.run_sync(os.read, descriptor, _CHUNK)
        lines = cutter.cut(chunk)
        if lines:
            yield lines
        if not chunk:
            return


def _waiter(descriptor: int) -> Callable[[], Any]:
    """What to await before a reading: that of a pipe or a terminal may take for ever, and a thread in it with it."""
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(descriptor):
        return lambda: anyio.wait_readable(descriptor)
    return anyio.lowlevel.checkpoint


@attrs.define
class _Cutter:
    """Cuts chunks into numbered lines."""

    number: int = 0
    rest: bytes = b""
    is_too_long: bool = False

    def cut(self, chunk: bytes) -> list[Line]:
        """The lines that end in this chunk; an empty one ends the last."""
        *whole, self.rest = (self.rest + chunk).split(b"\n")
        if not chunk and (self.rest or self.is_too_long):
            whole, self.rest = [*whole, self.rest], b""
        lines: list[Line] = []
        for raw in whole:
            self.number += 1
            if self.is_too_long or len(raw) > MAX_LINE:
                lines.append(Line(self.number, None))
                self.is_too_long = False
            elif raw.strip():
                lines.append(Line(self.number, raw))
        if len(self.rest) > MAX_LINE:
            self.rest, self.is_too_long = b"", True
        return lines
