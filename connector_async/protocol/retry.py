"""Whether to send again, and after how long.

A pure function of what happened: attempt, failure, budget, deadline and one random number go in, `Wait` or `Stop`
comes out. Three things can have happened to a send:

- *not sent*: no byte left; repeating it is safe and free.
- *answered*: the cloud said no. A 429 or 5xx may be tried again, nothing else.
- *unknown*: bytes were sent and no usable answer came; repeating it may double it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from datetime import UTC
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Any, Literal

import attrs

__all__ = ["Attempt", "Failure", "Fate", "RetryBudget", "RetryPolicy", "Stop", "Wait", "parse_retry_after"]

RETRY_AFTER_CAP = 120.0
"""Longest pause in seconds taken from a `Retry-After`, jitter included; a longer one is taken for a mistake."""

_LATER = 0.25  # share by which such a pause may be lengthened, so that not all come back at once
_SECONDS = re.compile(r"[0-9]+(?:\.[0-9]*)?", re.ASCII)


class Fate(Enum):
    """What is known of one send."""

    NOT_SENT = "not_sent"
    ANSWERED = "answered"
    UNKNOWN = "unknown"


@attrs.frozen
class Attempt:
    """One send of a request.

    Attributes:
        number: 1 for the first send.
        sequence: Our counter for it: 0, 2, 4, 8 …
        status: The HTTP status of its answer, or None.
        cause: Why it did not end the request; None when it did.
        duration: Seconds from the first byte to the answer or the failure.
    """

    number: int
    sequence: int
    status: int | None
    cause: str | None
    duration: float


@attrs.frozen(kw_only=True)
class Failure:
    """How one attempt failed.

    Attributes:
        status: The HTTP status, if an answer came.
        retry_after: Seconds asked for by the answer.
        stale: The connection had been used before and closed without a byte of an answer: most likely the peer had
            dropped it while it was idle.
        final: Trying again cannot help, whatever the policy says (an untrusted certificate).
    """

    fate: Fate
    status: int | None = None
    retry_after: float | None = None
    stale: bool = False
    final: bool = False


@attrs.frozen
class Wait:
    """Send again after so many seconds."""

    seconds: float


@attrs.frozen
class Stop:
    """Do not send again."""

    reason: Literal["final", "refused", "unknown", "attempts", "budget", "deadline"]


class RetryBudget:
    """Keeps a bad day from being made worse: retries spend from it, first-time successes pay back.

    The figures are those of the AWS SDKs' standard retry mode. An empty budget means fail now, never queue.
    """

    __slots__ = ("_capacity", "tokens")

    RETRY_COST = 14
    THROTTLE_COST = 5

    def __init__(self, capacity: int = 500) -> None:
        self._capacity = capacity
        self.tokens = capacity

    def take(self, cost: int) -> bool:
        """Spend `cost`; False, and nothing spent, if there is not so much."""
        if self.tokens < cost:
            return False
        self.tokens -= cost
        return True

    def repay(self) -> None:
        """A request succeeded at its first attempt."""
        if self.tokens < self._capacity:
            self.tokens += 1


def _positive(_instance: object, attribute: attrs.Attribute[Any], value: float) -> None:
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(f"{attribute.name} must be a number above 0, got {value}")


def _pauses(_instance: object, attribute: attrs.Attribute[Any], value: tuple[float, ...]) -> None:
    if not all(pause >= 0 and math.isfinite(pause) for pause in value):
        raise ValueError(f"{attribute.name} must be seconds, none below 0, got {value}")


def _share(_instance: object, attribute: attrs.Attribute[Any], value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{attribute.name} must be from 0 to 1, got {value}")


def _resend_or_report(_instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if value not in ("resend", "report"):
        raise ValueError(f"{attribute.name} must be 'resend' or 'report', got {value!r}")


def _tuple(values: Iterable[float]) -> tuple[float, ...]:
    return tuple(values)


@attrs.frozen(kw_only=True)
class RetryPolicy:
    """When a failed attempt is repeated. Take a preset; `attrs.evolve` it for more.

    Attributes:
        name: Of the preset, for logs.
        max_attempts: Sends in all, the first included; re-sends after a renewed token do not count.
        unknown: What becomes of content whose outcome is unknown: sent again under the same id (and the result
            marked `maybe_duplicate`), or reported. Requests that are harmless to repeat are always sent again.
        server_pauses: Seconds before the 2nd, 3rd … attempt after a 5xx; the last is doubled from there on.
        longest_server_pause: Seconds; cap of that doubling.
        connect_base: Seconds; attempt n after a *not sent* waits up to `connect_base * 2**(n-1)`.
        unknown_base: Seconds; the same after an unknown outcome.
        longest_pause: Seconds; cap of `connect_base` and `unknown_base` as they double.
        spread: 0 to 1: pauses of `server_pauses` are lengthened by up to this share.
        full_jitter: Draw server pauses between 0 and their value instead.
    """

    name: str
    max_attempts: int = attrs.field(default=4, validator=_positive)
    unknown: Literal["resend", "report"] = attrs.field(default="resend", validator=_resend_or_report)
    server_pauses: tuple[float, ...] = attrs.field(default=(5.0, 10.0, 15.0), converter=_tuple, validator=_pauses)
    longest_server_pause: float = attrs.field(default=3600.0, validator=_positive)
    connect_base: float = attrs.field(default=0.2, validator=_positive)
    unknown_base: float = attrs.field(default=0.5, validator=_positive)
    longest_pause: float = attrs.field(default=5.0, validator=_positive)
    spread: float = attrs.field(default=0.1, validator=_share)
    full_jitter: bool = False

    @classmethod
    def vendor(cls, *, unknown: Literal["resend", "report"] = "resend") -> RetryPolicy:
        """The vendor's table: after a 5xx 5, 10 and 15 seconds, then 2, 4, 8 minutes; after a 429 at least 1 second.

        How far it gets is the deadline's decision: the minutes are reached only with a `timeout` that allows them.

        Source: Retry policy recommendations.
        """
        return cls(
            name="vendor", max_attempts=12, unknown=unknown, server_pauses=(5.0, 10.0, 15.0, 120.0, 240.0, 480.0)
        )

    @classmethod
    def exponential(
        cls,
        *,
        base: float = 0.5,
        longest: float = 20.0,
        max_attempts: int = 5,
        unknown: Literal["resend", "report"] = "resend",
    ) -> RetryPolicy:
        """Full jitter between 0 and `base`, 2 `base`, 4 `base` … at most `longest` seconds."""
        if not 0 < base <= longest:
            raise ValueError(f"base must be above 0 and at most {longest}, got {base}")
        return cls(
            name="exponential",
            max_attempts=max_attempts,
            unknown=unknown,
            server_pauses=(base,),
            longest_server_pause=longest,
            connect_base=base,
            unknown_base=base,
            longest_pause=longest,
            full_jitter=True,
        )

    @classmethod
    def none(cls) -> RetryPolicy:
        """Never send again, except once after a renewed token."""
        return cls(name="none", max_attempts=1, unknown="report")

    def decide(
        self,
        failure: Failure,
        *,
        attempt: int,
        repeatable: bool,
        budget: RetryBudget,
        now: float,
        deadline: float,
        random: float,
    ) -> Wait | Stop:
        """Say what to do after an attempt failed.

        Args:
            attempt: The number of sends so far that count.
            repeatable: Sending it twice does no harm, whatever became of the first.
            budget: Spent from if the answer is `Wait`.
            now, deadline: Seconds on the same clock.
            random: 0 to 1.
        """
        stop = self._must_stop(failure, attempt=attempt, repeatable=repeatable)
        if stop is not None:
            return stop
        pause = self._pause(failure, attempt, random)
        # A pause that ends at the deadline or after it would only be waited for nothing.
        if now + pause >= deadline:
            return Stop("deadline")
        if failure.fate is not Fate.NOT_SENT:
            cost = budget.THROTTLE_COST if failure.status == 429 else budget.RETRY_COST
            if not budget.take(cost):
                return Stop("budget")
        return Wait(pause)

    def _must_stop(self, failure: Failure, *, attempt: int, repeatable: bool) -> Stop | None:
        if failure.final:
            return Stop("final")
        status = failure.status
        if failure.fate is Fate.ANSWERED and status != 429 and (status is None or status < 500):
            return Stop("refused")
        # A 5xx is an answer, but not one that says whether the event was stored.
        may_have_landed = failure.fate is Fate.UNKNOWN or (status is not None and status >= 500)
        if may_have_landed and not repeatable and self.unknown == "report":
            return Stop("unknown")
        return Stop("attempts") if attempt >= self.max_attempts else None

    def _pause(self, failure: Failure, attempt: int, random: float) -> float:
        if failure.status == 429:
            # "Wait at least 1 s" (vendor); later than asked for, never earlier, and not all at once.
            if failure.retry_after is None:
                return min(2.0 ** min(attempt - 1, 30), 30.0) * (1 + _LATER * random)
            return max(1.0 + _LATER * random, _asked(failure.retry_after, random))
        if failure.fate is Fate.ANSWERED:
            pause = self._server_pause(attempt) * (random if self.full_jitter else 1 + self.spread * random)
            return pause if failure.retry_after is None else max(pause, _asked(failure.retry_after, random))
        if failure.stale and attempt == 1:
            return 0.0
        base = self.connect_base if failure.fate is Fate.NOT_SENT else self.unknown_base
        return random * min(self.longest_pause, base * 2.0 ** min(attempt - 1, 30))

    def _server_pause(self, attempt: int) -> float:
        pauses = self.server_pauses
        if attempt <= len(pauses):
            return pauses[attempt - 1]
        if not pauses:
            return 0.0
        return max(pauses[-1], min(self.longest_server_pause, pauses[-1] * 2.0 ** min(attempt - len(pauses), 30)))


def _asked(seconds: float, random: float) -> float:
    """The pause for a `Retry-After`: up to a quarter longer than asked, never shorter unless the cap makes it so."""
    return min(seconds * (1 + _LATER * random), RETRY_AFTER_CAP)


def parse_retry_after(value: str | None, wall: float) -> float | None:
    """Seconds that a `Retry-After` header asks to wait; None if it is absent, negative or not understood.

    Args:
        value: Seconds, or an HTTP date.
        wall: Wall-clock seconds now, to which a date is compared.

    Source: RFC 9110 10.2.3; not documented for this API, honoured where it comes.
    """
    if value is None:
        return None
    text = value.strip()
    if _SECONDS.fullmatch(text):
        # Cut, since a number of thousands of digits reads as infinity; the cap makes the same of both.
        return float(text.lstrip("0")[:15] or "0")
    try:
        when = parsedate_to_datetime(text)
        # The form without a zone (asctime) means UTC; Python would take it for local time.
        seconds = when.replace(tzinfo=when.tzinfo or UTC).timestamp() - wall
    except (TypeError, ValueError, OverflowError, IndexError):
        return None
    return max(0.0, seconds)
