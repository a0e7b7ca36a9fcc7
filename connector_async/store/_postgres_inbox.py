"""The durable inbox of the webhooks in PostgreSQL. Each function runs inside a transaction that the engine opened."""

from __future__ import annotations

from typing import Any, Final, LiteralString

from connector_async.store._postgres_engine import Database
from connector_async.store.base import Admission, DeadDelivery, Delivery, DeliveryCounts

__all__ = ["bury", "claim", "counts", "dead", "put", "release", "renew", "retry", "revive", "settle"]

_PRUNE_EVERY: Final = 64
"""Ids only grow, so the bound on remembered keys is a range of ids; to look at it for each put would cost much."""


async def put(
    db: Database,
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
    rows = await db.execute("SELECT 1 FROM deliveries WHERE account_id = %s AND key = %s", (account_id, key))
    if await rows.fetchone() is not None:
        return Admission.SEEN
    if not await _has_room(db, account_id, max_waiting):
        return Admission.FULL
    rows = await db.execute(
        """
        INSERT INTO deliveries (account_id, key, lane, body, part, received_at) VALUES (%s, %s, %s, %s, %s, %s)
        ON CONFLICT (account_id, key) DO NOTHING RETURNING id
        """,
        (account_id, key, lane, body, part, received_at),
    )
    row = await rows.fetchone()
    if row is None:
        return Admission.SEEN
    if row[0] % _PRUNE_EVERY == 0:
        await db.execute(
            """
            DELETE FROM deliveries WHERE id = ANY(ARRAY(
                SELECT id FROM deliveries WHERE id <= %s AND state = 2 ORDER BY id FOR UPDATE SKIP LOCKED
            ))
            """,
            (row[0] - max_settled,),
        )
    return Admission.NEW


async def _has_room(db: Database, account_id: str, max_waiting: int) -> bool:
    """Counted only where ids, which only grow, leave it open."""
    rows = await db.execute(
        """
        SELECT 1 + (SELECT max(id) FROM deliveries)
            - (SELECT id FROM deliveries WHERE account_id = %s AND state < 2 ORDER BY id LIMIT 1)
        """,
        (account_id,),
    )
    (at_most,) = await rows.fetchone() or (None,)
    if at_most is None or at_most < max_waiting:
        return True
    rows = await db.execute("SELECT count(*) FROM deliveries WHERE account_id = %s AND state < 2", (account_id,))
    (waiting,) = await rows.fetchone() or (0,)
    return bool(waiting < max_waiting)


async def claim(
    db: Database, account_id: str, *, owner: str, now: float, lease_until: float, limit: int
) -> list[Delivery]:
    """Take up to `limit` that are due, leaving alone the lanes in which another owner has a live lease.

    Whoever claims does so alone in its account: a lane is busy by a row other than the one that is taken, which a
    lock on rows cannot see to.
    """
    await db.execute("SELECT pg_advisory_xact_lock(hashtext('connector_async inbox'), hashtext(%s))", (account_id,))
    rows = await db.execute(
        """
        WITH taken AS (
            UPDATE deliveries SET state = 1, owner = %(owner)s, lease_until = %(lease_until)s, attempts = attempts + 1
            WHERE id = ANY(ARRAY(
                SELECT id FROM deliveries AS d
                WHERE account_id = %(account_id)s AND state < 2
                AND ((state = 0 AND due_at <= %(now)s) OR (state = 1 AND lease_until <= %(now)s))
                AND NOT EXISTS (
                    SELECT 1 FROM deliveries AS busy WHERE busy.account_id = d.account_id AND busy.lane = d.lane
                    AND busy.state = 1 AND busy.owner <> %(owner)s AND busy.lease_until > %(now)s
                )
                ORDER BY id LIMIT %(limit)s FOR UPDATE SKIP LOCKED
            ))
            RETURNING id, key, lane, body, part, received_at, attempts
        )
        SELECT * FROM taken ORDER BY id
        """,
        {"account_id": account_id, "owner": owner, "now": now, "lease_until": lease_until, "limit": limit},
        binary=True,
    )
    return [
        Delivery(
            account_id=account_id,
            key=key,
            lane=lane,
            body=body,
            part=part,
            received_at=received_at,
            attempts=attempts,
        )
        for _, key, lane, body, part, received_at, attempts in await rows.fetchall()
    ]


async def renew(db: Database, account_id: str, *, owner: str, lease_until: float) -> int:
    """Extend all leases of an owner."""
    done = await db.execute(
        "UPDATE deliveries SET lease_until = %s WHERE account_id = %s AND state = 1 AND owner = %s",
        (lease_until, account_id, owner),
    )
    return done.rowcount


async def settle(db: Database, account_id: str, key: str, *, owner: str) -> bool:
    """Mark it handled and drop the body; the key stays."""
    return await _leave(
        db,
        """
        UPDATE deliveries SET state = 2, body = '', owner = NULL
        WHERE account_id = %s AND key = %s AND state = 1 AND owner = %s
        """,
        (account_id, key, owner),
    )


async def retry(db: Database, account_id: str, key: str, *, owner: str, due_at: float) -> bool:
    """Give it back until `due_at`."""
    return await _leave(
        db,
        """
        UPDATE deliveries SET state = 0, owner = NULL, lease_until = 0, due_at = %s
        WHERE account_id = %s AND key = %s AND state = 1 AND owner = %s
        """,
        (due_at, account_id, key, owner),
    )


async def bury(db: Database, account_id: str, key: str, *, owner: str, reason: str, max_dead: int) -> bool:
    """Give it up; beyond the bound the oldest dead ones go."""
    is_mine = await _leave(
        db,
        """
        UPDATE deliveries SET state = 3, owner = NULL, reason = %s
        WHERE account_id = %s AND key = %s AND state = 1 AND owner = %s
        """,
        (reason, account_id, key, owner),
    )
    if is_mine:
        await db.execute(
            """
            DELETE FROM deliveries WHERE id = ANY(ARRAY(
                SELECT id FROM deliveries WHERE account_id = %s AND state = 3 ORDER BY id DESC OFFSET %s
            ))
            """,
            (account_id, max_dead),
        )
    return is_mine


async def release(db: Database, account_id: str, *, owner: str) -> int:
    """Give back all claims of an owner as if they had never been."""
    done = await db.execute(
        """
        UPDATE deliveries SET state = 0, owner = NULL, lease_until = 0, attempts = attempts - 1
        WHERE account_id = %s AND state = 1 AND owner = %s
        """,
        (account_id, owner),
    )
    return done.rowcount


async def counts(db: Database, account_id: str) -> DeliveryCounts:
    """How much is not handled."""
    rows = await db.execute(
        """
        SELECT count(*) FILTER (WHERE state = 0), count(*) FILTER (WHERE state = 1), min(received_at),
            (SELECT count(*) FROM deliveries WHERE account_id = %(account_id)s AND state = 3)
        FROM deliveries WHERE account_id = %(account_id)s AND state < 2
        """,
        {"account_id": account_id},
    )
    waiting, claimed, oldest, dead_count = await rows.fetchone() or (0, 0, None, 0)
    return DeliveryCounts(waiting=waiting, claimed=claimed, dead=dead_count, oldest_received_at=oldest)


async def dead(db: Database, account_id: str, *, limit: int) -> list[DeadDelivery]:
    """Those that were given up, oldest first."""
    rows = await db.execute(
        """
        SELECT key, lane, body, part, received_at, attempts, reason FROM deliveries
        WHERE account_id = %s AND state = 3 ORDER BY id LIMIT %s
        """,
        (account_id, limit),
        binary=True,
    )
    return [
        DeadDelivery(
            account_id=account_id,
            key=key,
            lane=lane,
            body=body,
            part=part,
            received_at=received_at,
            attempts=attempts,
            reason=reason,
        )
        for key, lane, body, part, received_at, attempts, reason in await rows.fetchall()
    ]


async def revive(db: Database, account_id: str, key: str) -> bool:
    """Let a dead one be claimed again."""
    return await _leave(
        db,
        """
        UPDATE deliveries SET state = 0, due_at = 0, lease_until = 0, attempts = 0, reason = NULL
        WHERE account_id = %s AND key = %s AND state = 3
        """,
        (account_id, key),
    )


async def _leave(db: Database, statement: LiteralString, values: tuple[Any, ...]) -> bool:
    """Change one delivery; False when the statement's conditions found none."""
    return (await db.execute(statement, values)).rowcount == 1
