"""The outbox in PostgreSQL: how a person looks at messages, and decides about those that ended badly."""

from __future__ import annotations

from typing import Any

from connector_async.store._postgres_engine import Database
from connector_async.store._postgres_outbox import CODES, STATES
from connector_async.store._postgres_pruning import delete_empty
from connector_async.store.outbox import MessageState, OutboxCounts, OutboxEntry, OutboxMessage

__all__ = ["counts", "discard", "exceptions", "find", "forget", "revive"]


async def counts(db: Database, account_id: str) -> OutboxCounts:
    """How many are where, those that were dropped since included; nothing is counted that was counted before."""
    rows = await db.execute(
        """
        SELECT state, maybe_duplicate, sum(number)::bigint,
            (SELECT count(*) FROM lanes WHERE account_id = %(account_id)s AND held_by IS NOT NULL),
            (SELECT seconds() - put_at FROM messages WHERE account_id || '' = %(account_id)s AND settled_at IS NULL
                ORDER BY seq LIMIT 1)
        FROM tallies WHERE account_id = %(account_id)s GROUP BY 1, 2
        """,
        {"account_id": account_id},
    )
    totals = {state.value: 0 for state in MessageState}
    doubtful, held, age = 0, 0, None
    for state, is_doubtful, number, held, age in await rows.fetchall():  # noqa: B007 - the same in every row
        totals[STATES[state].value] += number
        doubtful += number if is_doubtful and STATES[state] is MessageState.ACCEPTED else 0
    return OutboxCounts(**totals, maybe_duplicate=doubtful, held_lanes=held, oldest_age=age)


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
        WITH revived AS (
            UPDATE messages SET state = 0, maybe_duplicate = messages.maybe_duplicate OR dead.state = %(unknown)s,
                reason = NULL, settled_at = NULL, exception_number = NULL
            FROM (
                SELECT seq, state, maybe_duplicate FROM messages
                WHERE account_id = %(account_id)s AND id = %(id)s AND state > 2 FOR UPDATE
            ) AS dead
            WHERE messages.seq = dead.seq RETURNING dead.state, dead.maybe_duplicate
        )
        INSERT INTO tallies SELECT %(account_id)s, state, maybe_duplicate, -1 FROM revived
        UNION ALL SELECT %(account_id)s, 0, false, 1 FROM revived
        """,
        {"unknown": CODES[MessageState.UNKNOWN], "account_id": account_id, "id": message_id},
    )
    await _let_go(db, account_id, row[0], message_id)
    await delete_empty(db, account_id, [row[0]])
    return revived.rowcount > 0


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
    await db.execute(
        """
        WITH gone AS (
            DELETE FROM messages WHERE account_id = %s AND lane = %s RETURNING account_id, state, maybe_duplicate
        )
        INSERT INTO tallies SELECT account_id, state, maybe_duplicate AND state >= 2, -count(*) FROM gone
        GROUP BY 1, 2, 3
        """,
        lane,
    )
