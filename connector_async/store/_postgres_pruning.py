"""What the outbox in PostgreSQL drops: settled messages beyond the bounds, lanes without any, old tallies.

The counts are the sum of the tallies. Each call adds what it changed as rows of its own, since one row for all would
make all pumps wait for each other; now and then somebody puts one row in the place of many.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from connector_async.store._postgres_engine import Database

__all__ = ["add_tallies_up", "delete_empty", "prune_accepted", "prune_dead"]

_ADD_UP_EVERY = 250
"""Messages, or claims: so many rows, or a few more, are summed up for the counts of an account."""


async def add_tallies_up(db: Database, account_id: str, numbers: Iterable[int]) -> None:
    """Put few tallies in the place of many, when one of these numbers, which only grow, is a round one.

    Those that another process is putting together are left alone.
    """
    if not any(number % _ADD_UP_EVERY == 0 for number in numbers):
        return
    await db.execute(
        """
        WITH old AS (
            DELETE FROM tallies WHERE ctid = ANY(ARRAY(
                SELECT ctid FROM tallies WHERE account_id = %(account_id)s FOR UPDATE SKIP LOCKED
            )) RETURNING state, maybe_duplicate, number
        )
        INSERT INTO tallies SELECT %(account_id)s, state, maybe_duplicate, sum(number) FROM old
        GROUP BY 2, 3 HAVING sum(number) <> 0
        """,
        {"account_id": account_id},
    )


async def prune_accepted(db: Database, numbers: Sequence[int], bound: int) -> None:
    """Drop accepted messages beyond the bound; their number stays. Not each time, which would cost each time."""
    step = max(1, bound // 1000)
    if not any(number % step == 0 for number in numbers):
        return
    await db.execute(
        """
        DELETE FROM messages WHERE seq = ANY(ARRAY(
            SELECT seq FROM messages WHERE accepted_number <= %s ORDER BY accepted_number FOR UPDATE SKIP LOCKED
        ))
        """,
        (max(numbers) - bound,),
    )


async def prune_dead(db: Database, account_id: str, numbers: Iterable[int], bound: int) -> None:
    """Drop the oldest of those that ended otherwise, beyond the bound; lanes that they held go on.

    Not each time, for all are looked at: when one of these numbers is a round one. No lane is waited for, for others
    are locked already: one that another has locked goes on the next time.
    """
    step = max(1, bound // 10)
    if not any(number % step == 0 for number in numbers):
        return
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
        DELETE FROM messages WHERE seq = ANY(ARRAY(
            SELECT seq FROM messages WHERE account_id = %(account_id)s AND exception_number IS NOT NULL
            AND state > 2 ORDER BY exception_number DESC OFFSET %(bound)s
        )) AND NOT EXISTS (
            SELECT 1 FROM lanes WHERE account_id = %(account_id)s AND lane = messages.lane AND held_by = messages.id
        )
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
                WHERE messages.account_id = lanes.account_id AND messages.lane = lanes.lane AND settled_at IS NULL
            )
            """,
            (account_id, names),
        )
