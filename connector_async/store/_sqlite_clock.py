"""The clock of leases and pauses in a file: one for all processes of a machine, and nobody sets it.

The wall's clock is set now and then, by hand or after a machine came up with a wrong one. An hour back, and all that
waits in the file would wait for an hour; an hour ahead, and every lease would have ended. The kernel's monotonic
clock is the same for all processes and only goes on, but begins anew with each boot. So the first to need it in a
boot writes down what the wall showed when that clock began, and all add to this, whatever the wall shows later.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

__all__ = ["SteadyClock"]

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_CLOCKS = Path("/proc/self/ns/time")  # containers may have clocks of their own (Linux, time_namespaces(7))


class SteadyClock:
    """Wall-clock seconds as they would be had nobody set the clock since the machine came up.

    Where the kernel names no boot (all but Linux), they are the wall's.

    Args:
        boot: Which clock of which boot `steady` shows; None if nobody can tell.
    """

    def __init__(
        self,
        *,
        wall: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
        boot: str | None = None,
    ) -> None:
        self._wall = wall
        self._steady = steady
        self._boot = boot
        self._name = f"clock of {boot}"
        self._began: float | None = None

    @classmethod
    def of_this_boot(cls) -> SteadyClock:
        """The one of the running kernel."""
        try:
            boot = f"{_BOOT.read_text(encoding='ascii').strip()} {_CLOCKS.readlink()}"
        except (OSError, ValueError):
            boot = None
        return cls(boot=boot)

    def now(self, db: sqlite3.Connection, *, writes: bool) -> float:
        """Seconds.

        Args:
            writes: It is a transaction that may write down when the clock began.
        """
        if self._boot is None:
            return self._wall()
        if self._began is None:
            self._began = self._agreed(db)
        if self._began is not None:
            return self._began + self._steady()
        if writes:
            self._agree(db)
        return self._wall()

    def _agreed(self, db: sqlite3.Connection) -> float | None:
        found = db.execute("SELECT value FROM outbox_numbers WHERE name = ?", (self._name,)).fetchone()
        return None if found is None else float(found[0]) / 1e6

    def _agree(self, db: sqlite3.Connection) -> None:
        """Write it down; it counts once it is committed. What rested in another boot is due in this one.

        For the clock may be wrong by years at first, and would be for as long as this boot lasts. The lanes of owners
        who died with that boot are no matter of time; see `Presence`.
        """
        now = self._wall()
        db.execute("DELETE FROM outbox_numbers WHERE name LIKE 'clock of %'")
        db.execute("INSERT INTO outbox_numbers VALUES (?, ?)", (self._name, round((now - self._steady()) * 1e6)))
        db.execute("UPDATE lanes SET free_at = ? WHERE owner IS NULL AND free_at > ?", (now, now))
