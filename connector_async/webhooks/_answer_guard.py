"""Watches how long answers to the vendor take: an app whose endpoint is slow for too long gets disabled unannounced.

The vendor's rule: slower than 2.5 s over 2 minutes. We raise the alarm earlier in both directions.

Source: Connector API, "Webhooks: disclaimers".
"""

from __future__ import annotations

from collections import deque

import attrs

__all__ = ["AnswerGuard"]


@attrs.define
class _Second:
    at: int
    count: int = 0
    total: float = 0.0


@attrs.define(eq=False)
class AnswerGuard:
    """The mean answer time of the last while, in buckets of a second.

    Args:
        limit: Seconds; a mean above it is an alarm. Well below the vendor's 2.5.
        window: Seconds over which the mean is taken; well below the vendor's 120.
        pause: Seconds between two alarms.
    """

    limit: float = 1.0
    window: int = 30
    pause: float = 30.0
    _seconds: deque[_Second] = attrs.field(factory=deque[_Second], init=False)
    _quiet_until: float = attrs.field(default=float("-inf"), init=False)

    def record(self, duration: float, now: float) -> float | None:
        """Take note of one answer; the mean, if it is time for an alarm.

        Args:
            duration: Seconds from the request to the answer.
            now: Seconds on any clock that does not go back.
        """
        second = int(now)
        if not self._seconds or self._seconds[-1].at != second:
            self._seconds.append(_Second(second))
        self._seconds[-1].count += 1
        self._seconds[-1].total += duration
        while self._seconds[0].at <= second - self.window:
            self._seconds.popleft()
        if duration <= self.limit or now < self._quiet_until:
            return None
        mean = sum(one.total for one in self._seconds) / sum(one.count for one in self._seconds)
        if mean <= self.limit:
            return None
        self._quiet_until = now + self.pause
        return mean
