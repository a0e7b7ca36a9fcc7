"""What the outbox in PostgreSQL drops: settled messages beyond the bounds, and lanes in which nothing is left."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from connector_async.store._postgres_engine import Database

__all__ = ["delete_empty", "prune_accepted", "prune_dead"]


async def prune_accepted(db: Database, numbers: Sequence[int], bound: int) -> None:
    """Drop accepted messages beyond the bound; their number stays. Not each time: the count is one row for all."""
    step = max(1, bound // 1000)
    if not any(number % step == 0 for number in numbers):
        return
    await db.execute(
        """
        WITH old AS (
            DELETE FROM messages WHERE seq = ANY(ARRAY(
                SELECT seq FROM messages WHERE accepted_number <= %s ORDER BY seq FOR UPDATE SKIP LOCKED
            )) RETURNING account_id, maybe_duplicate
        )
        INSERT INTO pruned AS known
        SELECT account_id, 2, maybe_duplicate, count(*) FROM old GROUP BY 1, 3 ORDER BY 1, 3
        ON CONFLICT (account_id, state, maybe_duplicate) DO UPDATE SET number = known.number + excluded.number
        """,
        (max(numbers) - bound,),
    )


async def prune_dead(db: Database, account_id: str, bound: int) -> None:
    """Drop the oldest of those that ended otherwise, beyond the bound; lanes that they held go on.

    No lane is waited for, for others are locked already: one that another has locked goes on the next time.
    """
    values = {"account_id": account_id, "bound": bound}
    rows = await db.execute(
        """
        WITH old AS MATERIALIZED (
            SELECT id, lane FROM messages WHERE account_id = %(account_id)s AND exception_number IS NOT NULL
            AND state > 2 ORDER BY exception_number DESC OFFSET %(bound)s
        ), held AS MATERIALIZED (
            SELECT lanes.lane FROM old JOIN lanes ON lanes.lane = old.lane AND held_by = old.id
            WHERE account_id = %(account_id)s FOR UPDATE OF lanes SKIP LOCKED
        )
        UPDATE lanes SET held_by = NULL, free_at = seconds() FROM held
        WHERE account_id = %(account_id)s AND lanes.lane = held.lane RETURNING lanes.lane
        """,
        values,
    )
    let_go = [lane for (lane,) in await rows.fetchall()]
    await db.execute(
        """
        WITH old AS (
            DELETE FROM messages WHERE seq = ANY(ARRAY(
                SELECT seq FROM messages WHERE account_id = %(account_id)s AND exception_number IS NOT NULL
                AND state > 2 ORDER BY exception_number DESC OFFSET %(bound)s
            )) AND NOT EXISTS (
                SELECT 1 FROM lanes
                WHERE account_id = %(account_id)s AND lane = messages.lane AND held_by = messages.id
            ) RETURNING state, maybe_duplicate
        )
        INSERT INTO pruned AS known
        SELECT %(account_id)s, state, maybe_duplicate, count(*) FROM old GROUP BY 2, 3 ORDER BY 2, 3
        ON CONFLICT (account_id, state, maybe_duplicate) DO UPDATE SET number = known.number + excluded.number
        """,
        values,
    )
    await delete_empty(db, account_id, let_go)


async def delete_empty(db: Database, account_id: str, lanes: Iterable[str]) -> None:
    """Drop lanes, of those that this transaction has locked, in which nothing is left to do."""
    names = list(lanes)
    if names:
        await db.execute(
            """
            DELETE FROM lanes WHERE account_id = %s AND lane = ANY(%s) AND held_by IS NULL AND NOT EXISTS (
                SELECT 1 FROM messages
                WHERE messages.account_id = lanes.account_id AND messages.lane = lanes.lane AND state < 2
            )
            """,
            (account_id, names),
        )
