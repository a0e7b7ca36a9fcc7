"""The statements of the durable inbox. Each function runs inside a transaction that the engine opened."""

from __future__ import annotations

import sqlite3

from connector_async.store.base import Admission, DeadDelivery, Delivery, DeliveryCounts

__all__ = ["bury", "claim", "counts", "dead", "put", "release", "renew", "retry", "revive", "settle"]

_PRUNE_EVERY = 64
"""Ids only grow, so the bound on remembered keys is a range of ids; to look at it for each put would cost much."""

# The states of a delivery: 0 waiting, 1 claimed, 2 handled, 3 dead. Below 2 it is still to be handled.


def put(
    db: sqlite3.Connection,
    account_id: str,
    *,
    key: str,
    lane: str,
    body: bytes,
    received_at: float,
    part: int,
    max_waiting: int,
    max_settled: int,
) -> Admission:
    """Keep one event unless its key is known or there is no room."""
    if db.execute("SELECT 1 FROM deliveries WHERE account_id = ? AND key = ?", (account_id, key)).fetchone():
        return Admission.SEEN
    count = db.execute("SELECT open FROM open_counts WHERE account_id = ?", (account_id,)).fetchone()
    if count is not None and count[0] >= max_waiting:
        return Admission.FULL
    row = db.execute(
        "INSERT INTO deliveries (account_id, key, lane, body, part, received_at) VALUES (?, ?, ?, ?, ?, ?)"
        " RETURNING id",
        (account_id, key, lane, body, part, received_at),
    ).fetchone()
    newest = int(row[0])
    if newest % _PRUNE_EVERY == 0:
        db.execute("DELETE FROM deliveries WHERE id <= ? AND state = 2", (newest - max_settled,))
    return Admission.NEW


def claim(
    db: sqlite3.Connection, account_id: str, *, owner: str, now: float, lease_until: float, limit: int
) -> list[Delivery]:
    """Take up to `limit` that are due, leaving alone the lanes in which another owner has a live lease."""
    rows = db.execute(
        """
        UPDATE deliveries SET state = 1, owner = :owner, lease_until = :lease_until, attempts = attempts + 1
        WHERE id IN (
            SELECT id FROM deliveries AS d
            WHERE account_id = :account_id AND state < 2
            AND ((state = 0 AND due_at <= :now) OR (state = 1 AND lease_until <= :now))
            AND NOT EXISTS (
                SELECT 1 FROM deliveries AS busy WHERE busy.account_id = d.account_id AND busy.lane = d.lane
                AND busy.state = 1 AND busy.owner <> :owner AND busy.lease_until > :now
            )
            ORDER BY id LIMIT :limit
        )
        RETURNING id, key, lane, body, part, received_at, attempts
        """,
        {"account_id": account_id, "owner": owner, "now": now, "lease_until": lease_until, "limit": limit},
    ).fetchall()
    return [
        Delivery(
            account_id=account_id,
            key=key,
            lane=lane,
            body=bytes(body),
            part=part,
            received_at=received_at,
            attempts=attempts,
        )
        for _, key, lane, body, part, received_at, attempts in sorted(rows, key=lambda row: int(row[0]))
    ]


def renew(db: sqlite3.Connection, account_id: str, *, owner: str, lease_until: float) -> int:
    """Extend all leases of an owner."""
    return db.execute(
        "UPDATE deliveries SET lease_until = ? WHERE account_id = ? AND state = 1 AND owner = ?",
        (lease_until, account_id, owner),
    ).rowcount


def settle(db: sqlite3.Connection, account_id: str, key: str, *, owner: str) -> bool:
    """Mark it handled and drop the body; the key stays."""
    return _leave(db, account_id, key, owner, "state = 2, body = x'', owner = NULL")


def retry(db: sqlite3.Connection, account_id: str, key: str, *, owner: str, due_at: float) -> bool:
    """Give it back until `due_at`."""
    return _leave(db, account_id, key, owner, "state = 0, owner = NULL, lease_until = 0, due_at = ?", due_at)


def bury(db: sqlite3.Connection, account_id: str, key: str, *, owner: str, reason: str, max_dead: int) -> bool:
    """Give it up; beyond the bound the oldest dead ones go."""
    is_mine = _leave(db, account_id, key, owner, "state = 3, owner = NULL, reason = ?", reason)
    db.execute(
        """
        DELETE FROM deliveries WHERE id IN (
            SELECT id FROM deliveries WHERE account_id = ? AND state = 3 ORDER BY id DESC LIMIT -1 OFFSET ?
        )
        """,
        (account_id, max_dead),
    )
    return is_mine


def release(db: sqlite3.Connection, account_id: str, *, owner: str) -> int:
    """Give back all claims of an owner as if they had never been."""
    return db.execute(
        """
        UPDATE deliveries SET state = 0, owner = NULL, lease_until = 0, attempts = attempts - 1
        WHERE account_id = ? AND state = 1 AND owner = ?
        """,
        (account_id, owner),
    ).rowcount


def counts(db: sqlite3.Connection, account_id: str) -> DeliveryCounts:
    """How much is not handled."""
    waiting, claimed, oldest = db.execute(
        "SELECT count(*) - sum(state), sum(state), min(received_at) FROM deliveries"
        " WHERE account_id = ? AND state < 2",
        (account_id,),
    ).fetchone()
    (dead_count,) = db.execute(
        "SELECT count(*) FROM deliveries WHERE account_id = ? AND state = 3", (account_id,)
    ).fetchone()
    return DeliveryCounts(waiting=waiting or 0, claimed=claimed or 0, dead=dead_count, oldest_received_at=oldest)


def dead(db: sqlite3.Connection, account_id: str, limit: int) -> list[DeadDelivery]:
    """Those that were given up, oldest first."""
    rows = db.execute(
        """
        SELECT key, lane, body, part, received_at, attempts, reason FROM deliveries
        WHERE account_id = ? AND state = 3 ORDER BY id LIMIT ?
        """,
        (account_id, limit),
    )
    return [
        DeadDelivery(
            account_id=account_id,
            key=key,
            lane=lane,
            body=bytes(body),
            part=part,
            received_at=received_at,
            attempts=attempts,
            reason=reason,
        )
        for key, lane, body, part, received_at, attempts, reason in rows
    ]


def revive(db: sqlite3.Connection, account_id: str, key: str) -> bool:
    """Let a dead one be claimed again."""
    revived = db.execute(
        """
        UPDATE deliveries SET state = 0, due_at = 0, lease_until = 0, attempts = 0, reason = NULL
        WHERE account_id = ? AND key = ? AND state = 3
        """,
        (account_id, key),
    )
    return revived.rowcount == 1


def _leave(db: sqlite3.Connection, account_id: str, key: str, owner: str, changes: str, *values: object) -> bool:
    """Change a delivery that this owner holds; False when it does not hold it."""
    changed = db.execute(
        f"UPDATE deliveries SET {changes} WHERE account_id = ? AND key = ? AND state = 1 AND owner = ?",  # noqa: S608 - fixed texts from above
        (*values, account_id, key, owner),
    )
    return changed.rowcount == 1
