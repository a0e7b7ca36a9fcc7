"""A bounded mapping that keeps what was used last.

An `OrderedDict` takes twice the memory and a move at every use. Here nothing moves until the mapping is half full;
and so that the one not used for longest is at hand, all entries become old together and go in their order, except
those that are used meanwhile.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

__all__ = ["Recent"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Recent(Generic[K, V]):
    """At most so many entries; the one not used for longest goes first. What was used before it was half full counts
    as used when it came.

    Args:
        most: How many entries are kept, at least 1. No value is None.
    """

    __slots__ = ("_half", "_leaving", "_most", "_old", "_young")

    def __init__(self, most: int) -> None:
        self._most = most
        self._half = most // 2
        self._young: dict[K, V] = {}  # by their last use
        self._old: dict[K, V] = {}
        # The keys of the old ones, and of some that are so no more; the next to go is last.
        self._leaving: list[K] = []

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def __contains__(self, key: K) -> bool:
        """Whether there is such an entry; this is no use of it."""
        return key in self._young or key in self._old

    def get(self, key: K) -> V | None:
        """The value, or None."""
        if not self._old and len(self._young) <= self._half:
            return self._young.get(key)
        value = self.pop(key)
        if value is not None:
            self._young[key] = value
        return value

    def put(self, key: K, value: V) -> V | None:
        """Enter a value, in the place of the one with this key; the value that was dropped for it, if one was."""
        dropped = None
        if self.pop(key) is None and len(self) >= self._most:
            dropped = self._drop()
        self._young[key] = value
        return dropped

    def pop(self, key: K) -> V | None:
        """Take an entry out; its value, or None."""
        value = self._young.pop(key, None)
        return self._old.pop(key, None) if value is None else value

    def _drop(self) -> V:
        if not self._old:
            self._old, self._young = self._young, {}
            self._leaving = list(reversed(self._old))
        while (value := self._old.pop(self._leaving.pop(), None)) is None:
            pass  # it was used, or taken out
        return value
