"""Which owners of lanes in a file live: their process holds a lock on a file of its own beside it, until it ends.

The kernel drops such a lock with the last process that has it open, and not before: not of a process that is paused,
swapped out or hung, and no process id is looked at that may belong to another by now. Who can write to the file in
WAL mode shares its memory, hence the kernel that keeps the locks. Where there are none, the lease is waited for.
"""

from __future__ import annotations

import glob
import logging
import os
import sys
import time
import uuid
from contextlib import suppress
from pathlib import Path

if sys.platform != "win32":
    import fcntl

__all__ = ["Presence"]

logger = logging.getLogger("connector_async.store")

_LOOK_EVERY = 1.0  # seconds
_UNIQUE = "[0-9a-f]" * 32
"""Nothing else is to be opened, least of all another store's file: closing it takes this process's locks from it."""


class Presence:
    """The owners in this process, held alive; and those of others, looked after. For one thread at a time."""

    def __init__(self, path: Path | str) -> None:
        self._path = Path(path)
        self._works = sys.platform != "win32" and str(path) != ":memory:"
        self._file = self._path.with_name(f"{self._path.name}-pump-{uuid.uuid4().hex}")
        self._descriptor: int | None = None
        self._owners: set[str] = set()
        self._looked_at = -_LOOK_EVERY

    def hold(self, owner: str) -> None:
        """Say that an owner lives, before it has any lane."""
        if not self._works or owner in self._owners:
            return
        try:
            if self._descriptor is None:
                self._descriptor = _locked(self._file)
            os.write(self._descriptor, f"{owner.encode().hex()}\n".encode())
            self._owners.add(owner)
        except OSError:
            logger.warning("no lock can be held beside %s: after a crash its lease is waited for", self._path)
            self._works = False

    def dead(self) -> dict[Path, list[str]]:
        """The files of processes that have ended, with their owners; looked for now and then only."""
        now = time.monotonic()
        if not self._works or now < self._looked_at + _LOOK_EVERY:
            return {}
        self._looked_at = now
        try:
            files = list(self._path.parent.glob(f"{glob.escape(self._path.name)}-pump-{_UNIQUE}"))
        except OSError:
            return {}  # a folder that may not be listed
        found = {file: _owners_if_dead(file) for file in files if file != self._file}
        return {file: owners for file, owners in found.items() if owners is not None}

    def bury(self, file: Path) -> None:
        """Nothing is left of a dead process."""
        with suppress(OSError):  # another one was quicker, or will do it
            file.unlink()

    def leave(self) -> None:
        """The store is closed: nobody here owns anything any more."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            self.bury(self._file)
            os.close(descriptor)


def _locked(file: Path) -> int:
    """Make a file; what others see of it is locked, or its process is dead."""
    # Of a name that nobody looks for: who looks holds the lock for a moment, and it could not be taken here.
    unseen = file.with_name(f"new-{file.name}")
    descriptor = os.open(unseen, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        _lock(descriptor)
        unseen.rename(file)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _lock(descriptor: int) -> None:
    if sys.platform != "win32":
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _owners_if_dead(file: Path) -> list[str] | None:
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None  # it has just been closed, or is another user's
    try:
        _lock(descriptor)
        lines = file.read_text(encoding="ascii").splitlines(keepends=True)
        # A line that was cut off names nobody: its owner had no lane yet.
        return [bytes.fromhex(line).decode() for line in lines if line.endswith("\n")] or None
    except OSError:
        return None  # locked: it lives
    except ValueError:
        return None  # no file of ours
    finally:
        os.close(descriptor)
