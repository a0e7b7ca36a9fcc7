"""The retry law "by time to live" of the webhook service, without I/O and without a clock of its own.

The whole app install goes UP -> FAILED -> IN TRANSITION -> RECOVERED: after a failure everything is
kept; the oldest is tried after 2, 4, 8 … seconds, at most every 5 minutes; when that succeeds the rest follows, in
order within each conversation, while conversations that have nothing waiting are delivered at once.
"""

from __future__ import annotations

from collections import deque
from typing import Final, Generic, Literal, TypeVar

__all__ = ["RetentionLaw"]

T = TypeVar("T")

_FIRST_PAUSE: Final = 2.0
_LONGEST_PAUSE: Final = 300.0
_TRANSITION: Final = 4.0  # seconds between the first success and the draining of what was kept


class RetentionLaw(Generic[T]):
    """What is kept, and what may go out.

    Args:
        retention_time: Seconds after which something that is kept is dropped.
    """

    def __init__(self, retention_time: float) -> None:
        self.retention_time = retention_time
        self.state: Literal["UP", "FAILED", "IN TRANSITION"] = "UP"
        self._kept: dict[str, deque[tuple[float, int, T]]] = {}
        self._numbers = 0
        self._pause = 0.0
        self.outages = 0  # so far: whoever goes on after waiting sees whether a new one has begun meanwhile

    def must_hold(self, conversation_id: str) -> bool:
        """Whether a new event of this conversation has to wait with the others."""
        return self.state == "FAILED" or conversation_id in self._kept

    def hold(self, conversation_id: str, item: T, at: float) -> None:
        """Keep an event that was made at that time."""
        self._numbers += 1
        self._kept.setdefault(conversation_id, deque()).append((at, self._numbers, item))

    def fail(self) -> bool:
        """Note a failure; True if it begins an outage, and somebody has to try again after `next_pause()`."""
        if self.state == "FAILED":
            return False
        self.state, self._pause = "FAILED", 0.0
        self.outages += 1
        return True

    def next_pause(self) -> float:
        """Seconds to wait before the next try: 2, 4, 8 … up to 5 minutes."""
        self._pause = min(max(2 * self._pause, _FIRST_PAUSE), _LONGEST_PAUSE)
        return self._pause

    def begin_transition(self) -> float:
        """Note the first success; seconds to wait until the rest may follow."""
        self.state = "IN TRANSITION"
        return _TRANSITION

    def recover(self) -> None:
        """Everything kept has gone: back to normal."""
        self.state = "UP"

    def oldest(self) -> tuple[str, T] | None:
        """The oldest event that is kept, with its conversation."""
        if not self._kept:
            return None
        conversation_id = min(self._kept, key=lambda one: self._kept[one][0][1])
        return conversation_id, self._kept[conversation_id][0][2]

    def take(self, conversation_id: str) -> T:
        """Take out the oldest of one conversation."""
        kept = self._kept[conversation_id]
        item = kept.popleft()[2]
        if not kept:
            del self._kept[conversation_id]
        return item

    def drop_expired(self, now: float) -> list[T]:
        """Drop what was kept for longer than the retention time."""
        dropped: list[T] = []
        for conversation_id, kept in list(self._kept.items()):
            while kept and now - kept[0][0] > self.retention_time:
                dropped.append(kept.popleft()[2])
            if not kept:
                del self._kept[conversation_id]
        return dropped
