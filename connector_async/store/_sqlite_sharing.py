"""Receipts, and one AppJWT for all processes. Each function runs inside a transaction that the engine opened."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

__all__ = ["acquire", "forget", "get_token", "put_receipt", "put_token", "receipts_of", "release"]


def put_receipt(
    db: sqlite3.Connection,
    account_id: str,
    conversation_id: str,
    status: str,
    sequences: Sequence[int],
    *,
    bound: int,
) -> None:
    """Keep that messages have a status."""
    db.executemany(
        "INSERT INTO receipts (account_id, conversation_id, sequence, status) VALUES (?, ?, ?, ?)"
        " ON CONFLICT DO NOTHING",
        [(account_id, conversation_id, sequence, status) for sequence in sequences],
    )
    db.execute("DELETE FROM receipts WHERE id <= (SELECT max(id) FROM receipts) - ?", (bound,))


def receipts_of(db: sqlite3.Connection, account_id: str, conversation_id: str, sequence: int) -> frozenset[str]:
    """The statuses of one message."""
    rows = db.execute(
        "SELECT status FROM receipts WHERE account_id = ? AND conversation_id = ? AND sequence = ?",
        (account_id, conversation_id, sequence),
    )
    return frozenset(status for (status,) in rows.fetchall())


def forget(db: sqlite3.Connection, account_id: str, conversation_id: str) -> None:
    """Erase the receipts of a conversation."""
    db.execute("DELETE FROM receipts WHERE account_id = ? AND conversation_id = ?", (account_id, conversation_id))


def get_token(db: sqlite3.Connection, account_id: str, name: str, *, now: float) -> tuple[str, float] | None:
    """The AppJWT as it is written, and the seconds that it lives on."""
    row = db.execute(
        "SELECT token, ends_at FROM app_tokens WHERE account_id = ? AND name = ? AND ends_at > ?",
        (account_id, name, now),
    ).fetchone()
    return None if row is None else (row[0], row[1] - now)


def put_token(db: sqlite3.Connection, account_id: str, name: str, *, token: str, ends_at: float, fence: int) -> bool:
    """Keep a token, as it is to be written, unless one stands there of a later lease."""
    done = db.execute(
        """
        INSERT INTO app_tokens VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE
        SET token = excluded.token, ends_at = excluded.ends_at, fence = excluded.fence WHERE fence <= excluded.fence
        """,
        (account_id, name, token, ends_at, fence),
    )
    return done.rowcount == 1


def acquire(
    db: sqlite3.Connection, account_id: str, name: str, *, owner: str, now: float, seconds: float
) -> int | None:
    """Take the lease, or keep it; None while another has it."""
    row = db.execute(
        "SELECT owner, fence, ends_at FROM leases WHERE account_id = ? AND name = ?", (account_id, name)
    ).fetchone()
    if row is not None and row[0] != owner and row[2] > now:
        return None
    if row is not None and row[0] == owner:
        fence = int(row[1])
    else:
        (fence,) = db.execute(
            "INSERT INTO outbox_numbers VALUES ('fence', 1) ON CONFLICT DO UPDATE SET value = value + 1"
            " RETURNING value"
        ).fetchone()
    db.execute(
        "INSERT OR REPLACE INTO leases VALUES (?, ?, ?, ?, ?)", (account_id, name, owner, fence, now + seconds)
    )
    return int(fence)


def release(db: sqlite3.Connection, account_id: str, name: str, *, owner: str) -> None:
    """Give the lease up."""
    db.execute("DELETE FROM leases WHERE account_id = ? AND name = ? AND owner = ?", (account_id, name, owner))
