"""One AppJWT for all processes, in PostgreSQL: the token as it is written, and the lease of the one who renews it."""

from __future__ import annotations

from connector_async.store._postgres_engine import Database

__all__ = ["acquire", "get", "put", "release"]


async def get(db: Database, account_id: str, name: str) -> tuple[str, float] | None:
    """The token as it is written, and the seconds that it lives on."""
    rows = await db.execute(
        """
        SELECT token, ends_at - seconds() FROM app_tokens WHERE account_id = %s AND name = %s AND ends_at > seconds()
        """,
        (account_id, name),
    )
    row = await rows.fetchone()
    return None if row is None else (row[0], row[1])


async def put(db: Database, account_id: str, name: str, *, token: str, seconds: float, fence: int) -> bool:
    """Keep a token, as it is to be written, unless one stands there of a later lease."""
    done = await db.execute(
        """
        INSERT INTO app_tokens AS known (account_id, name, token, ends_at, fence)
        VALUES (%s, %s, %s, seconds() + %s, %s)
        ON CONFLICT (account_id, name) DO UPDATE
        SET token = excluded.token, ends_at = excluded.ends_at, fence = excluded.fence
        WHERE known.fence <= excluded.fence
        """,
        (account_id, name, token, seconds, fence),
    )
    return done.rowcount == 1


async def acquire(db: Database, account_id: str, name: str, *, owner: str, seconds: float) -> int | None:
    """Take the lease, or keep it; None while another has it."""
    rows = await db.execute(
        """
        INSERT INTO leases AS known (account_id, name, owner, fence, ends_at)
        VALUES (%s, %s, %s, nextval('fences'), seconds() + %s)
        ON CONFLICT (account_id, name) DO UPDATE SET
            owner = excluded.owner, ends_at = excluded.ends_at,
            fence = CASE WHEN known.owner = excluded.owner THEN known.fence ELSE excluded.fence END
        WHERE known.owner = excluded.owner OR known.ends_at <= seconds()
        RETURNING fence
        """,
        (account_id, name, owner, seconds),
    )
    row = await rows.fetchone()
    return None if row is None else int(row[0])


async def release(db: Database, account_id: str, name: str, *, owner: str) -> None:
    """Give the lease up."""
    await db.execute(
        "DELETE FROM leases WHERE account_id = %s AND name = %s AND owner = %s", (account_id, name, owner)
    )
