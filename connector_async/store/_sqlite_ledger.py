"""How a person looks at the outbox, and decides about messages that ended badly. See `_sqlite_lanes` for the rest.

Each function runs inside a transaction that the engine opened.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from typing import Any

from connector_async.store.outbox import MessageState, OutboxCounts, OutboxEntry, OutboxMessage

__all__ = [
    "CODES",
    "STATES",
    "Tally",
    "add_up",
    "counts",
    "discard",
    "exceptions",
    "find",
    "forget",
    "let_go",
    "revive",
]

STATES: dict[int, MessageState] = dict(enumerate(MessageState))
"""By the number that stands for each in the tables: below 2 a message is not settled, above 2 it is dead."""
CODES: dict[MessageState, int] = {state: code for code, state in STATES.items()}

Tally = Counter[tuple[int, bool]]
"""How many by state and by whether they may have landed twice; the latter is False for those that are not settled."""

_ENTRY = """
    SELECT coalesce(exception, 0), id, lane, body, request_id, opening, state, attempts, sequence, conversation_id,
        reason, maybe_duplicate, put_at, settled_at
    FROM messages
"""


def add_up(db: sqlite3.Connection, account_id: str, changes: Tally) -> None:
    """Keep the counts: to count a million rows would stop all others for as long."""
    db.executemany(
        "INSERT INTO outbox_tallies VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET number = number + excluded.number",
        [(account_id, state, doubtful, number) for (state, doubtful), number in changes.items() if number],
    )


def counts(db: sqlite3.Connection, account_id: str, *, now: float) -> OutboxCounts:
    """How many are where, those that were dropped since included."""
    rows = db.execute("SELECT state, maybe_duplicate, number FROM outbox_tallies WHERE account_id = ?", (account_id,))
    totals: Counter[str] = Counter()
    doubtful = 0
    for state, maybe_duplicate, number in rows:
        totals[STATES[state].value] += number
        doubtful += number if STATES[state] is MessageState.ACCEPTED and maybe_duplicate else 0
    held, head = db.execute(
        "SELECT count(held_by), min(head) FROM lanes WHERE account_id = ?", (account_id,)
    ).fetchone()
    # Messages are put in the order of their numbers, and the first of a lane is its head.
    oldest = db.execute("SELECT put_at FROM messages WHERE number = ?", (head,)).fetchone()
    return OutboxCounts(
        **totals,
        maybe_duplicate=doubtful,
        held_lanes=held,
        oldest_age=None if oldest is None else max(0.0, now - oldest[0]),
    )


def find(db: sqlite3.Connection, account_id: str, message_id: str) -> OutboxEntry | None:
    """One message."""
    row = db.execute(f"{_ENTRY} WHERE account_id = ? AND id = ?", (account_id, message_id)).fetchone()
    return None if row is None else _numbered(*row)[1]


def exceptions(db: sqlite3.Connection, account_id: str, *, after: int, limit: int) -> list[tuple[int, OutboxEntry]]:
    """Those that ended otherwise than accepted once, by number."""
    rows = db.execute(
        f"{_ENTRY} WHERE account_id = ? AND exception > ? ORDER BY exception LIMIT ?", (account_id, after, limit)
    )
    return [_numbered(*row) for row in rows]


def _numbered(exception: int, message_id: str, lane: str, body: bytes, *others: Any) -> tuple[int, OutboxEntry]:
    request_id, opening, state, attempts, sequence, *ends = others
    conversation_id, reason, maybe_duplicate, put_at, settled_at = ends
    return exception, OutboxEntry(
        message=OutboxMessage(id=message_id, consumer=lane, body=body, request_id=request_id, opening=opening),
        state=STATES[state],
        attempts=attempts,
        sequence=sequence,
        conversation_id=conversation_id,
        reason=reason,
        maybe_duplicate=bool(maybe_duplicate),
        put_at=put_at,
        settled_at=settled_at,
    )


def revive(db: sqlite3.Connection, account_id: str, message_id: str, *, now: float) -> bool:
    """Let a dead one be sent again, in its old place."""
    row = db.execute(
        "SELECT number, lane, state, maybe_duplicate FROM messages WHERE account_id = ? AND id = ? AND state > 2",
        (account_id, message_id),
    ).fetchone()
    if row is None:
        return False
    number, lane, state, doubtful = row
    db.execute(
        "UPDATE messages SET state = 0, maybe_duplicate = ?, settled_at = NULL, reason = NULL, exception = NULL"
        " WHERE number = ?",
        (doubtful or STATES[state] is MessageState.UNKNOWN, number),
    )
    add_up(db, account_id, Counter({(state, bool(doubtful)): -1, (0, False): 1}))
    db.execute(
        """
        INSERT INTO lanes (account_id, lane, head, free_at) VALUES (?, ?, ?, ?)
        ON CONFLICT DO UPDATE SET head = min(coalesce(head, excluded.head), excluded.head)
        """,
        (account_id, lane, number, now),
    )
    let_go(db, account_id, lane, message_id, now=now)
    return True


def discard(db: sqlite3.Connection, account_id: str, message_id: str, *, now: float) -> bool:
    """Let the messages behind a final one go on."""
    row = db.execute("SELECT lane FROM messages WHERE account_id = ? AND id = ?", (account_id, message_id)).fetchone()
    return row is not None and let_go(db, account_id, row[0], message_id, now=now)


def let_go(db: sqlite3.Connection, account_id: str, lane: str, message_id: str, *, now: float) -> bool:
    """Let a lane go on that a message holds; False when it holds none."""
    freed = db.execute(
        "UPDATE lanes SET held_by = NULL, free_at = ? WHERE account_id = ? AND lane = ? AND held_by = ?",
        (now, account_id, lane, message_id),
    )
    db.execute(
        "DELETE FROM lanes WHERE account_id = ? AND lane = ? AND head IS NULL AND held_by IS NULL", (account_id, lane)
    )
    return freed.rowcount == 1


def forget(db: sqlite3.Connection, account_id: str, ext_consumer_id: str) -> None:
    """Erase a consumer's messages."""
    of_consumer = (account_id, ext_consumer_id)
    changes: Tally = Counter()
    rows = db.execute(
        "DELETE FROM messages WHERE account_id = ? AND lane = ? RETURNING state, maybe_duplicate", of_consumer
    ).fetchall()
    for state, doubtful in rows:
        changes[state, STATES[state].is_final and bool(doubtful)] -= 1
    add_up(db, account_id, changes)
    db.execute("DELETE FROM lanes WHERE account_id = ? AND lane = ?", of_consumer)
