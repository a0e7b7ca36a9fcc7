"""How long a token lives, and what its age means.

All times are seconds on a clock that never steps (the event loop's), counted from the moment the token was received.
A token's own `exp` is wall-clock time of another machine: only its distance from `iat` is read, so that a wrong clock
on either side cannot make a good token look expired.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import Enum

import attrs

__all__ = ["DEFAULT_LIFETIME", "Freshness", "Lifetime", "lifetime_of"]

DEFAULT_LIFETIME = 3600.0
"""Seconds an AppJWT lives unless it says otherwise (Connector API, authorization: 60 minutes)."""

_LONGEST = 7 * 86_400.0  # longer claims are taken for nonsense, not for trust


class Freshness(Enum):
    """What may be done with a token."""

    FRESH = "fresh"
    STALE = "stale"
    """Usable, but due for refresh."""
    EXPIRED = "expired"
    """Past its end, or refused by the cloud."""


@attrs.frozen(kw_only=True)
class Lifetime:
    """When a token turns stale and when it ends."""

    refresh_at: float
    expires_at: float

    @classmethod
    def starting(cls, now: float, seconds: float, *, fraction: float, early: float, jitter: float) -> Lifetime:
        """The lifetime of a token received at `now` that lives `seconds`.

        It turns stale after `fraction` of its life, or `early` seconds before its end if that comes first, and up to
        a tenth of that time sooner by `jitter` (0 to 1), so that a fleet does not refresh in step. A token that lives
        less than twice `early` serves its fraction: one of 301 seconds must not be renewed after one.
        """
        stale_after = seconds * fraction
        if seconds >= 2 * early:
            stale_after = min(stale_after, seconds - early)
        return cls(refresh_at=now + stale_after * (1 - 0.1 * jitter), expires_at=now + seconds)

    def at(self, now: float) -> Freshness:
        """What the token is worth at `now`."""
        if now >= self.expires_at:
            return Freshness.EXPIRED
        return Freshness.STALE if now >= self.refresh_at else Freshness.FRESH


def lifetime_of(claims: Mapping[str, object], expires_in: object, wall: float) -> float:
    """Seconds that a token lives: the shorter of what it says and what came with it.

    Args:
        claims: The token's claims, unverified; of any type, since they come from outside.
        expires_in: The field of the token answer; undocumented, so it may be absent or odd.
        wall: Wall-clock seconds now; only used when the token has `exp` but no `iat`, and then never to make it live
            longer than `DEFAULT_LIFETIME`: our clock may be behind.

    Source: Connector API, authorization (60 minutes); how-to guide (renew before `exp`).
    """
    candidates: list[float] = []
    expires = _seconds(claims.get("exp"))
    if expires is not None:
        issued = _seconds(claims.get("iat"))
        candidates.append(min(expires - wall, DEFAULT_LIFETIME) if issued is None else expires - issued)
    stated = _seconds(expires_in)
    if stated is not None:
        candidates.append(stated)
    sensible = [seconds for seconds in candidates if 0 < seconds <= _LONGEST]
    return min(sensible, default=DEFAULT_LIFETIME)


def _seconds(value: object) -> float | None:
    """A finite number, also as text; anything else is None."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
