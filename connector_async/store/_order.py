"""The order in which things were used last, kept in the things themselves.

An `OrderedDict` takes three times as much memory for it, which counts where there may be a million of them.
"""

from __future__ import annotations

from typing import Generic, TypeVar, cast

__all__ = ["Entry", "Order"]


class Entry:
    """What can stand in one order; it has the places for its neighbours."""

    __slots__ = ("newer", "older")

    newer: Entry
    older: Entry


E = TypeVar("E", bound=Entry)


class Order(Generic[E]):
    """Entries by their last use, in a ring."""

    __slots__ = ("_end", "count")

    def __init__(self) -> None:
        self.count = 0
        end = self._end = Entry()
        end.newer = end.older = end

    @property
    def oldest(self) -> E:
        """The one not used for the longest time, if there is any."""
        return cast("E", self._end.newer)

    def add(self, entry: E) -> None:
        """Put it in as the one used last."""
        end, newest = self._end, self._end.older
        entry.older, entry.newer = newest, end
        newest.newer = end.older = entry
        self.count += 1

    def remove(self, entry: E) -> None:
        """Take it out."""
        entry.older.newer, entry.newer.older = entry.newer, entry.older
        del entry.older, entry.newer
        self.count -= 1

    def touch(self, entry: E) -> None:
        """It is used now."""
        self.remove(entry)
        self.add(entry)
