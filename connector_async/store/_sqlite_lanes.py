"""The statements of the outbox. Each function runs inside a transaction that the engine opened."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from connector_async.store.outbox import (
    Advance,
    Claim,
    MessageState,
    OutboxCounts,
    OutboxEntry,
    OutboxMessage,
    PutResult,
    Settlement,
)

__all__ = [
    "advance",
    "claim",
    "counts",
    "discard",
    "exceptions",
    "find",
    "forget",
    "next_due",
    "put",
    "release",
    "renew",
    "revive",
]

_STATES = tuple(MessageState)
_CODES = {state: code for code, state in enumerate(_STATES)}
# In the tables: 0 waiting, 1 begun, 2 accepted, above that dead. Below 2 a message is not settled.

_PRUNE_EVERY = 64
_ENTRY = (
    "id, lane, body, request_id, opening, state, attempts, sequence, conversation_id, reason, maybe_duplicate,"
    " put_at, settled_at"
)


def put(
    db: sqlite3.Connection, account_id: str, messages: Sequence[OutboxMessage], *, now: float, max_waiting: int
) -> list[PutResult]:
    """Keep those that are new, as far as there is room."""
    row = db.execute("SELECT unsettled FROM outbox_counts WHERE account_id = ?", (account_id,)).fetchone()
    room = max_waiting - (0 if row is None else row[0])
    results: list[PutResult] = []
    added = 0
    for message in messages:
        if db.execute("SELECT 1 FROM messages WHERE account_id = ? AND id = ?", (account_id, message.id)).fetchone():
            results.append(PutResult.KNOWN)
            continue
        if added >= room:
            results.append(PutResult.FULL)
            continue
        db.execute(
            "INSERT INTO messages (account_id, id, lane, body, request_id, opening, put_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (account_id, message.id, message.consumer, message.body, message.request_id, message.opening, now),
        )
        db.execute(
            "INSERT INTO lanes (account_id, lane, free_at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
            (account_id, message.consumer, now),
        )
        added += 1
        results.append(PutResult.ADDED)
    _count(db, account_id, added)
    return results


def claim(
    db: sqlite3.Connection, account_id: str, *, owner: str, now: float, lease: float, limit: int
) -> list[Claim]:
    """Take lanes that are free and due, and begin their heads."""
    lanes = db.execute(
        """
        SELECT lane FROM lanes WHERE account_id = ? AND held_by IS NULL AND free_at <= ? ORDER BY free_at LIMIT ?
        """,
        (account_id, now, limit),
    ).fetchall()
    if not lanes:
        return []
    fence = _next(db, "fence", len(lanes)) - len(lanes)
    claims: list[Claim] = []
    for (lane,) in lanes:
        fence += 1
        begun = _begin(db, account_id, lane, owner, fence)
        if begun is None:
            db.execute("DELETE FROM lanes WHERE account_id = ? AND lane = ?", (account_id, lane))
            continue
        db.execute(
            "UPDATE lanes SET owner = ?, fence = ?, free_at = ? WHERE account_id = ? AND lane = ?",
            (owner, fence, now + lease, account_id, lane),
        )
        claims.append(begun)
    return claims


def _begin(db: sqlite3.Connection, account_id: str, lane: str, owner: str, fence: int) -> Claim | None:
    """Begin the head of a lane; None when it has none."""
    row = db.execute(
        """
        SELECT number, id, body, request_id, opening, state, attempts, maybe_duplicate, put_at FROM messages
        WHERE account_id = ? AND lane = ? AND state < 2 ORDER BY number LIMIT 1
        """,
        (account_id, lane),
    ).fetchone()
    if row is None:
        return None
    number, message_id, body, request_id, opening, state, attempts, maybe_duplicate, put_at = row
    was_begun = state == 1
    maybe_duplicate = bool(maybe_duplicate) or was_begun
    db.execute("UPDATE messages SET state = 1, maybe_duplicate = ? WHERE number = ?", (maybe_duplicate, number))
    return Claim(
        account_id=account_id,
        message=OutboxMessage(id=message_id, consumer=lane, body=body, request_id=request_id, opening=opening),
        owner=owner,
        fence=fence,
        attempts=attempts,
        was_begun=was_begun,
        maybe_duplicate=maybe_duplicate,
        put_at=put_at,
    )


def advance(
    db: sqlite3.Connection,
    account_id: str,
    settlements: Sequence[tuple[Claim, Settlement]],
    *,
    now: float,
    lease: float,
    max_settled: int,
    max_dead: int,
) -> list[Advance]:
    """Settle heads that are still their claims', and begin the next ones."""
    results: list[Advance] = []
    final = dead = 0
    for claim, settlement in settlements:
        lane = claim.message.consumer
        if not _owns(db, account_id, claim):
            results.append(Advance(is_settled=False))
            continue
        _settle(db, account_id, claim, settlement, now)
        final += settlement.state.is_final
        dead += settlement.state.is_final and settlement.state is not MessageState.ACCEPTED
        rests = settlement.state is MessageState.WAITING and settlement.retry_in > 0
        begun = None
        if not rests and not settlement.holds_lane:
            begun = _begin(db, account_id, lane, claim.owner, claim.fence)
        if begun is not None:
            db.execute(
                "UPDATE lanes SET free_at = ? WHERE account_id = ? AND lane = ?", (now + lease, account_id, lane)
            )
        else:
            held_by = claim.message.id if settlement.holds_lane else None
            _give_back(db, account_id, lane, now + (settlement.retry_in if rests else 0.0), held_by)
        results.append(Advance(is_settled=True, next=begun))
    _count(db, account_id, -final)
    if dead:
        _bury(db, max_dead)
    if final:
        _prune(db, max_settled)
    return results


def _owns(db: sqlite3.Connection, account_id: str, claim: Claim) -> bool:
    row = db.execute(
        "SELECT owner, fence FROM lanes WHERE account_id = ? AND lane = ?", (account_id, claim.message.consumer)
    ).fetchone()
    return bool(row == (claim.owner, claim.fence))


def _settle(db: sqlite3.Connection, account_id: str, claim: Claim, settlement: Settlement, now: float) -> None:
    state = settlement.state
    maybe_duplicate = settlement.maybe_duplicate or claim.maybe_duplicate
    is_exception = state.is_final and (state is not MessageState.ACCEPTED or maybe_duplicate)
    changes = "body = x'', opening = NULL, " if state is MessageState.ACCEPTED else ""
    db.execute(
        f"UPDATE messages SET {changes}state = ?, attempts = ?, sequence = ?, conversation_id = ?, reason = ?,"  # noqa: S608 - a fixed text from above
        " maybe_duplicate = ?, settled_at = ?, exception = ? WHERE account_id = ? AND id = ?",
        (
            _CODES[state],
            settlement.attempts,
            settlement.sequence,
            settlement.conversation_id,
            settlement.reason,
            maybe_duplicate,
            now if state.is_final else None,
            _next(db, "exception", 1) if is_exception else None,
            account_id,
            claim.message.id,
        ),
    )


def _give_back(db: sqlite3.Connection, account_id: str, lane: str, free_at: float, held_by: str | None) -> None:
    is_needed = held_by is not None or _has_messages(db, account_id, lane)
    if is_needed:
        db.execute(
            "UPDATE lanes SET owner = NULL, free_at = ?, held_by = ? WHERE account_id = ? AND lane = ?",
            (free_at, held_by, account_id, lane),
        )
    else:
        db.execute("DELETE FROM lanes WHERE account_id = ? AND lane = ?", (account_id, lane))


def _has_messages(db: sqlite3.Connection, account_id: str, lane: str) -> bool:
    found = db.execute(
        "SELECT 1 FROM messages WHERE account_id = ? AND lane = ? AND state < 2 LIMIT 1", (account_id, lane)
    ).fetchone()
    return found is not None


def _next(db: sqlite3.Connection, name: str, by: int) -> int:
    """Numbers that only grow, over the whole file; the last of `by` new ones."""
    row = db.execute(
        "INSERT INTO outbox_numbers VALUES (?, ?) ON CONFLICT DO UPDATE SET value = value + excluded.value"
        " RETURNING value",
        (name, by),
    ).fetchone()
    return int(row[0])


def _count(db: sqlite3.Connection, account_id: str, change: int) -> None:
    if change:
        db.execute(
            "INSERT INTO outbox_counts VALUES (?, ?)"
            " ON CONFLICT DO UPDATE SET unsettled = unsettled + excluded.unsettled",
            (account_id, change),
        )


def _bury(db: sqlite3.Connection, max_dead: int) -> None:
    """Beyond the bound the oldest dead ones go."""
    _drop(
        db,
        "number IN (SELECT number FROM messages WHERE state > 2 ORDER BY exception DESC LIMIT -1 OFFSET ?)",
        max_dead,
    )


def _prune(db: sqlite3.Connection, max_settled: int) -> None:
    """Numbers only grow, so the bound on remembered messages is a range of them, looked at now and then."""
    (newest,) = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'messages'").fetchone()
    (pruned_at,) = db.execute("SELECT value FROM outbox_numbers WHERE name = 'pruned_at'").fetchone() or (0,)
    if newest - pruned_at < min(_PRUNE_EVERY, max_settled):
        return
    _next(db, "pruned_at", newest - pruned_at)
    _drop(db, "state = 2 AND number <= ?", newest - max_settled)


def _drop(db: sqlite3.Connection, where: str, bound: int) -> None:
    """Drop settled messages, keeping their number in the counts, and letting go the lanes they hold."""
    rows = db.execute(
        f"DELETE FROM messages WHERE {where} RETURNING account_id, id, lane, state, maybe_duplicate",  # noqa: S608 - fixed texts from above
        (bound,),
    ).fetchall()
    for account_id, message_id, lane, state, maybe_duplicate in rows:
        db.execute(
            "INSERT INTO outbox_pruned VALUES (?, ?, ?, 1) ON CONFLICT DO UPDATE SET number = number + 1",
            (account_id, state, maybe_duplicate),
        )
        _let_go(db, account_id, lane, message_id)


def _let_go(db: sqlite3.Connection, account_id: str, lane: str, message_id: str) -> bool:
    """Let the messages behind a final one go on; False when it holds no lane."""
    freed = db.execute(
        "UPDATE lanes SET held_by = NULL WHERE account_id = ? AND lane = ? AND held_by = ?",
        (account_id, lane, message_id),
    ).rowcount
    if freed and not _has_messages(db, account_id, lane):
        db.execute("DELETE FROM lanes WHERE account_id = ? AND lane = ?", (account_id, lane))
    return freed == 1


def renew(db: sqlite3.Connection, account_id: str, *, owner: str, until: float) -> frozenset[str]:
    """Extend the leases of an owner."""
    rows = db.execute(
        "UPDATE lanes SET free_at = ? WHERE account_id = ? AND owner = ? RETURNING lane", (until, account_id, owner)
    )
    return frozenset(lane for (lane,) in rows.fetchall())


def release(db: sqlite3.Connection, account_id: str, claims: Sequence[Claim], *, now: float) -> int:
    """Give lanes back as if they had never been claimed."""
    released = 0
    for claim in claims:
        if not _owns(db, account_id, claim):
            continue
        # What an earlier owner began stays begun: it may have been sent by that one.
        if not claim.was_begun:
            db.execute(
                "UPDATE messages SET state = 0 WHERE account_id = ? AND id = ?", (account_id, claim.message.id)
            )
        _give_back(db, account_id, claim.message.consumer, now, None)
        released += 1
    return released


def counts(db: sqlite3.Connection, account_id: str, *, now: float) -> OutboxCounts:
    """How many are where, those that were dropped since included."""
    rows = db.execute(
        """
        SELECT state, maybe_duplicate, count(*) FROM messages WHERE account_id = :a GROUP BY 1, 2
        UNION ALL SELECT state, maybe_duplicate, number FROM outbox_pruned WHERE account_id = :a
        """,
        {"a": account_id},
    ).fetchall()
    totals: dict[str, int] = {}
    doubtful = 0
    for state, maybe_duplicate, number in rows:
        name = _STATES[state].value
        totals[name] = totals.get(name, 0) + number
        doubtful += number if state == 2 and maybe_duplicate else 0
    (held,) = db.execute(
        "SELECT count(*) FROM lanes WHERE account_id = ? AND held_by IS NOT NULL", (account_id,)
    ).fetchone()
    (oldest,) = db.execute(
        "SELECT min(put_at) FROM messages WHERE account_id = ? AND state < 2", (account_id,)
    ).fetchone()
    return OutboxCounts(
        **totals,
        maybe_duplicate=doubtful,
        held_lanes=held,
        oldest_age=None if oldest is None else max(0.0, now - oldest),
    )


def next_due(db: sqlite3.Connection, account_id: str, *, now: float) -> float | None:
    """Seconds until a lane can be claimed."""
    (free_at,) = db.execute(
        "SELECT min(free_at) FROM lanes WHERE account_id = ? AND held_by IS NULL", (account_id,)
    ).fetchone()
    return None if free_at is None else max(0.0, float(free_at) - now)


def find(db: sqlite3.Connection, account_id: str, message_id: str) -> OutboxEntry | None:
    """One message."""
    row = db.execute(
        f"SELECT {_ENTRY} FROM messages WHERE account_id = ? AND id = ?",  # noqa: S608 - fixed column names
        (account_id, message_id),
    ).fetchone()
    return None if row is None else _entry(row)


def exceptions(db: sqlite3.Connection, account_id: str, *, after: int, limit: int) -> list[tuple[int, OutboxEntry]]:
    """Those that ended otherwise than accepted once, by number."""
    rows = db.execute(
        f"SELECT exception, {_ENTRY} FROM messages"  # noqa: S608 - fixed column names
        " WHERE account_id = ? AND exception > ? ORDER BY exception LIMIT ?",
        (account_id, after, limit),
    ).fetchall()
    return [(row[0], _entry(row[1:])) for row in rows]


def _entry(row: tuple[Any, ...]) -> OutboxEntry:
    message_id, lane, body, request_id, opening, state, attempts, sequence, *others = row
    conversation_id, reason, maybe_duplicate, put_at, settled_at = others
    return OutboxEntry(
        message=OutboxMessage(id=message_id, consumer=lane, body=body, request_id=request_id, opening=opening),
        state=_STATES[state],
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
        """
        UPDATE messages SET state = 0, settled_at = NULL, reason = NULL, exception = NULL
        WHERE account_id = ? AND id = ? AND state > 2 RETURNING lane
        """,
        (account_id, message_id),
    ).fetchone()
    if row is None:
        return False
    _count(db, account_id, 1)
    db.execute(
        "INSERT INTO lanes (account_id, lane, free_at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
        (account_id, row[0], now),
    )
    _let_go(db, account_id, row[0], message_id)
    return True


def discard(db: sqlite3.Connection, account_id: str, message_id: str) -> bool:
    """Let the messages behind a final one go on."""
    row = db.execute("SELECT lane FROM messages WHERE account_id = ? AND id = ?", (account_id, message_id)).fetchone()
    return row is not None and _let_go(db, account_id, row[0], message_id)


def forget(db: sqlite3.Connection, account_id: str, ext_consumer_id: str) -> None:
    """Erase a consumer's messages."""
    rows = db.execute(
        "DELETE FROM messages WHERE account_id = ? AND lane = ? RETURNING state", (account_id, ext_consumer_id)
    ).fetchall()
    _count(db, account_id, -sum(state < 2 for (state,) in rows))
    db.execute("DELETE FROM lanes WHERE account_id = ? AND lane = ?", (account_id, ext_consumer_id))
