"""The inbox of one account in memory: deliveries by key, and the order in which they came."""

from __future__ import annotations

import attrs

from connector_async.store.base import Admission, DeadDelivery, Delivery, DeliveryCounts

__all__ = ["MemoryInbox"]


@attrs.define(eq=False)
class _Entry:
    lane: str
    body: bytes = attrs.field(repr=False)
    part: int
    received_at: float
    due_at: float = 0.0
    owner: str | None = None
    lease_until: float = 0.0
    attempts: int = 0


@attrs.define(eq=False)
class MemoryInbox:
    """What `Store` promises about deliveries, for one account; bounded in every direction."""

    max_waiting: int
    max_settled: int
    max_dead: int
    _open: dict[str, _Entry] = attrs.field(factory=dict[str, _Entry], init=False)
    _claimed: dict[str, _Entry] = attrs.field(factory=dict[str, _Entry], init=False)
    _settled: dict[str, str] = attrs.field(factory=dict[str, str], init=False)
    _dead: dict[str, DeadDelivery] = attrs.field(factory=dict[str, DeadDelivery], init=False)

    def put(self, *, key: str, lane: str, body: bytes, received_at: float, part: int) -> Admission:
        if key in self._open or key in self._settled or key in self._dead:
            return Admission.SEEN
        if len(self._open) >= self.max_waiting:
            return Admission.FULL
        self._open[key] = _Entry(lane=lane, body=body, part=part, received_at=received_at)
        return Admission.NEW

    def claim(self, account_id: str, *, owner: str, now: float, lease_until: float, limit: int) -> list[Delivery]:
        busy = {entry.lane for entry in self._claimed.values() if entry.owner != owner and entry.lease_until > now}
        claimed: list[Delivery] = []
        for key, entry in self._open.items():
            if len(claimed) >= limit:
                break
            is_free = entry.due_at <= now if entry.owner is None else entry.lease_until <= now
            if is_free and entry.lane not in busy:
                entry.owner, entry.lease_until, entry.attempts = owner, lease_until, entry.attempts + 1
                self._claimed[key] = entry
                claimed.append(_delivery(account_id, key, entry))
        return claimed

    def renew(self, *, owner: str, lease_until: float) -> int:
        held = [entry for entry in self._claimed.values() if entry.owner == owner]
        for entry in held:
            entry.lease_until = lease_until
        return len(held)

    def settle(self, key: str, *, owner: str) -> bool:
        entry = self._take(key, owner)
        if entry is None:
            return False
        del self._open[key]
        self._settled[key] = entry.lane
        if len(self._settled) > self.max_settled:
            del self._settled[next(iter(self._settled))]
        return True

    def retry(self, key: str, *, owner: str, due_at: float) -> bool:
        entry = self._take(key, owner)
        if entry is None:
            return False
        entry.owner, entry.lease_until, entry.due_at = None, 0.0, due_at
        return True

    def bury(self, account_id: str, key: str, *, owner: str, reason: str) -> bool:
        entry = self._take(key, owner)
        if entry is None:
            return False
        del self._open[key]
        self._dead[key] = DeadDelivery(
            account_id=account_id,
            key=key,
            lane=entry.lane,
            body=entry.body,
            part=entry.part,
            received_at=entry.received_at,
            attempts=entry.attempts,
            reason=reason,
        )
        if len(self._dead) > self.max_dead:
            del self._dead[next(iter(self._dead))]
        return True

    def release(self, *, owner: str) -> int:
        held = {key: entry for key, entry in self._claimed.items() if entry.owner == owner}
        for key, entry in held.items():
            entry.owner, entry.lease_until, entry.attempts = None, 0.0, entry.attempts - 1
            del self._claimed[key]
        return len(held)

    def counts(self) -> DeliveryCounts:
        return DeliveryCounts(
            waiting=len(self._open) - len(self._claimed),
            claimed=len(self._claimed),
            dead=len(self._dead),
            oldest_received_at=min((entry.received_at for entry in self._open.values()), default=None),
        )

    def dead(self, limit: int) -> list[DeadDelivery]:
        return list(self._dead.values())[:limit]

    def revive(self, key: str) -> bool:
        dead = self._dead.pop(key, None)
        if dead is None:
            return False
        self._open[key] = _Entry(lane=dead.lane, body=dead.body, part=dead.part, received_at=dead.received_at)
        return True

    def forget(self, lane: str) -> None:
        for kept in (self._open, self._claimed, self._dead):
            for key in [key for key, entry in kept.items() if entry.lane == lane]:
                del kept[key]
        for key in [key for key, known in self._settled.items() if known == lane]:
            del self._settled[key]

    def _take(self, key: str, owner: str) -> _Entry | None:
        """The entry, no longer claimed; None when this owner does not hold it."""
        entry = self._claimed.get(key)
        if entry is None or entry.owner != owner:
            return None
        return self._claimed.pop(key)


def _delivery(account_id: str, key: str, entry: _Entry) -> Delivery:
    return Delivery(
        account_id=account_id,
        key=key,
        lane=entry.lane,
        body=entry.body,
        part=entry.part,
        received_at=entry.received_at,
        attempts=entry.attempts,
    )
