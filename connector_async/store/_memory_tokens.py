"""One AppJWT for all sessions of a process that are given the same store."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from connector_async.store.tokens import SharedToken

__all__ = ["MemoryTokenShare"]

_Key = tuple[str, str]


@attrs.frozen
class _Token:
    value: str = attrs.field(repr=False)
    ends_at: float
    fence: int


@attrs.frozen
class _Lease:
    owner: str
    ends_at: float
    fence: int


@attrs.define(eq=False)
class MemoryTokenShare:
    """Tokens and leases by account and name."""

    wall: Callable[[], float]
    _tokens: dict[_Key, _Token] = attrs.field(factory=dict[_Key, _Token], init=False, repr=False)
    _leases: dict[_Key, _Lease] = attrs.field(factory=dict[_Key, _Lease], init=False, repr=False)
    _fence: int = attrs.field(default=0, init=False)

    def get(self, key: _Key) -> SharedToken | None:
        """The token, if it has not ended."""
        token = self._tokens.get(key)
        left = 0.0 if token is None else token.ends_at - self.wall()
        return None if token is None or left <= 0 else SharedToken(value=token.value, seconds=left)

    def put(self, key: _Key, value: str, seconds: float, fence: int) -> bool:
        """Keep a token unless one stands there of a later lease."""
        known = self._tokens.get(key)
        if known is not None and known.fence > fence:
            return False
        self._tokens[key] = _Token(value, self.wall() + seconds, fence)
        return True

    def acquire(self, key: _Key, owner: str, seconds: float) -> int | None:
        """Take the lease, or keep it; None while another has it."""
        now = self.wall()
        lease = self._leases.get(key)
        if lease is not None and lease.owner == owner:
            self._leases[key] = attrs.evolve(lease, ends_at=now + seconds)
            return lease.fence
        if lease is not None and lease.ends_at > now:
            return None
        self._fence += 1
        self._leases[key] = _Lease(owner, now + seconds, self._fence)
        return self._fence

    def release(self, key: _Key, owner: str) -> None:
        """Give the lease up."""
        lease = self._leases.get(key)
        if lease is not None and lease.owner == owner:
            del self._leases[key]
