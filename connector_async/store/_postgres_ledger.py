"""The outbox in PostgreSQL: how a person looks at messages, and decides about those that ended badly."""

from __future__ import annotations

from typing import Any

from connector_async.store._postgres_engine import Database
from connector_async.store._postgres_outbox import CODES, STATES
from connector_async.store._postgres_pruning import delete_empty
from connector_async.store.outbox import MessageState, OutboxCounts, OutboxEntry, OutboxMessage

__all__ = ["counts", "discard", "exceptions", "find", "forget", "revive"]


async def counts(db: Database, account_id: str) -> OutboxCounts:
    """How many are where, those that were dropped since included."""
    rows = await db.execute(
        """
        WITH found AS (
            SELECT state, maybe_duplicate, count(*) AS number, min(put_at) FILTER (WHERE state < 2) AS oldest
            FROM messages WHERE account_id = %(account_id)s GROUP BY 1, 2
            UNION ALL SELECT state, maybe_duplicate, number, NULL FROM pruned WHERE account_id = %(account_id)s
        )
        SELECT state, sum(number)::bigint, (sum(number) FILTER (WHERE state = 2 AND maybe_duplicate))::bigint,
            seconds() - min(oldest)
        FROM found GROUP BY state
        """,
        {"account_id": account_id},
    )
    found = {STATES[state]: (number, doubtful or 0, age) for state, number, doubtful, age in await rows.fetchall()}
    rows = await db.execute("SELECT count(*) FROM lanes WHERE account_id = %s AND held_by IS NOT NULL", (account_id,))
    (held,) = await rows.fetchone() or (0,)
    return OutboxCounts(
        **{state.value: found[state][0] for state in found},
        maybe_duplicate=found[MessageState.ACCEPTED][1] if MessageState.ACCEPTED in found else 0,
        held_lanes=held,
        oldest_age=max((age for _, _, age in found.values() if age is not None), default=None),
    )


async def find(db: Database, account_id: str, message_id: str) -> OutboxEntry | None:
    """One message."""
    rows = await db.execute(
        """
        SELECT id, lane, body, request_id, opening, state, attempts, sequence, conversation_id, reason,
            maybe_duplicate, put_at, settled_at
        FROM messages WHERE account_id = %s AND id = %s
        """,
        (account_id, message_id),
        binary=True,
    )
    row = await rows.fetchone()
    return None if row is None else _entry(row)


async def exceptions(db: Database, account_id: str, *, after: int, limit: int) -> list[tuple[int, OutboxEntry]]:
    """Those that ended otherwise than accepted once, by their numbers."""
    rows = await db.execute(
        """
        SELECT exception_number, id, lane, body, request_id, opening, state, attempts, sequence, conversation_id,
            reason, maybe_duplicate, put_at, settled_at
        FROM messages WHERE account_id = %s AND exception_number > %s ORDER BY exception_number LIMIT %s
        """,
        (account_id, after, limit),
        binary=True,
    )
    return [(number, _entry(row)) for number, *row in await rows.fetchall()]


def _entry(row: Any) -> OutboxEntry:
    message_id, consumer, body, request_id, opening, state, attempts, sequence, *others = row
    conversation_id, reason, maybe_duplicate, put_at, settled_at = others
    return OutboxEntry(
        message=OutboxMessage(id=message_id, consumer=consumer, body=body, request_id=request_id, opening=opening),
        state=STATES[state],
        attempts=attempts,
        sequence=sequence,
        conversation_id=conversation_id,
        reason=reason,
        maybe_duplicate=maybe_duplicate,
        put_at=put_at,
        settled_at=settled_at,
    )


async def revive(db: Database, account_id: str, message_id: str) -> bool:
    """Let one that ended badly be sent again; a lane that it held goes on with it."""
    # The lane before the message, as everywhere; a message never changes its lane.
    rows = await db.execute(
        """
        INSERT INTO lanes (account_id, lane, free_at)
        SELECT account_id, lane, seconds() FROM messages WHERE account_id = %s AND id = %s AND state > 2
        ON CONFLICT (account_id, lane) DO UPDATE SET fence = lanes.fence RETURNING lane
        """,
        (account_id, message_id),
    )
    row = await rows.fetchone()
    if row is None:
        return False
    revived = await db.execute(
        """
        UPDATE messages SET state = 0, maybe_duplicate = maybe_duplicate OR state = %s, reason = NULL,
            settled_at = NULL, exception_number = NULL
        WHERE account_id = %s AND id = %s AND state > 2
        """,
        (CODES[MessageState.UNKNOWN], account_id, message_id),
    )
    await _let_go(db, account_id, row[0], message_id)
    await delete_empty(db, account_id, [row[0]])
    return revived.rowcount == 1


async def discard(db: Database, account_id: str, message_id: str) -> bool:
    """Let the lane that a message holds go on without it."""
    rows = await db.execute(
        "SELECT lane FROM lanes WHERE account_id = %s AND held_by = %s FOR UPDATE", (account_id, message_id)
    )
    row = await rows.fetchone()
    if row is None:
        return False
    await _let_go(db, account_id, row[0], message_id)
    await delete_empty(db, account_id, [row[0]])
    return True


async def _let_go(db: Database, account_id: str, lane: str, message_id: str) -> None:
    await db.execute(
        """
        UPDATE lanes SET held_by = NULL, free_at = seconds() WHERE account_id = %s AND lane = %s AND held_by = %s
        """,
        (account_id, lane, message_id),
    )


async def forget(db: Database, account_id: str, ext_consumer_id: str) -> None:
    """Erase a lane and its messages."""
    lane = (account_id, ext_consumer_id)
    await db.execute("DELETE FROM lanes WHERE account_id = %s AND lane = %s", lane)
    await db.execute("DELETE FROM messages WHERE account_id = %s AND lane = %s", lane)
