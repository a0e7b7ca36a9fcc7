"""How messages are put into the outbox, claimed and settled. Each function runs in a transaction of the engine.

A call may hold hundreds of lanes, so what can be is done for all of them in one statement, and no row is looked for
twice: a lane knows the number of its head.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import attrs

from connector_async.store._sqlite_ledger import CODES, Tally, add_up, let_go
from connector_async.store.outbox import Advance, Claim, MessageState, OutboxMessage, PutResult, Settlement

__all__ = ["advance", "claim", "inherit", "next_due", "put", "release", "renew"]

_WAITING, _BEGUN = (0, False), (1, False)

_HEAD = """
    SELECT number, id, lane, body, request_id, opening, state, attempts, maybe_duplicate, put_at FROM messages
    WHERE account_id = ? AND lane = ? AND number >= ? AND state < 2 ORDER BY number LIMIT 1
"""
_OWNED = """
    SELECT messages.number, lanes.head, messages.maybe_duplicate FROM lanes, messages
    WHERE lanes.account_id = ? AND lanes.lane = ? AND lanes.owner = ? AND lanes.fence = ?
    AND messages.account_id = lanes.account_id AND messages.id = ? AND messages.state = 1
"""
_SETTLE = """
    UPDATE messages SET state = ?, attempts = ?, sequence = ?, conversation_id = ?, reason = ?, maybe_duplicate = ?,
        exception = ?, settled_at = ?
    WHERE number = ?
"""
_ACCEPT = """
    UPDATE messages SET state = ?, attempts = ?, sequence = ?, conversation_id = ?, reason = ?, maybe_duplicate = ?,
        exception = ?, settled_at = ?, accepted = ?, body = x'', opening = NULL
    WHERE number = ?
"""
_GIVE_BACK = """
    UPDATE lanes SET owner = NULL, free_at = ?, held_by = ?, head = ? WHERE account_id = ? AND lane = ?
"""


@attrs.define(eq=False)
class _Head:
    """A head that is settled, and what becomes of its lane."""

    claim: Claim
    settlement: Settlement
    number: int
    lane_head: int
    is_doubtful: bool
    is_final: bool
    is_accepted: bool
    is_exception: bool


def put(
    db: sqlite3.Connection, account_id: str, messages: Sequence[OutboxMessage], *, now: float, max_waiting: int
) -> list[PutResult]:
    """Keep those that are new, as far as there is room."""
    (unsettled,) = db.execute(
        "SELECT coalesce(sum(number), 0) FROM outbox_tallies WHERE account_id = ? AND state < 2", (account_id,)
    ).fetchone()
    room = max_waiting - unsettled
    cursor = db.cursor()
    heads: dict[str, int] = {}
    results: list[PutResult] = []
    added = 0
    for message in messages:
        if added >= room:
            results.append(_refused(db, account_id, message.id))
            continue
        cursor.execute(
            "INSERT INTO messages (account_id, id, lane, body, request_id, opening, put_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (account_id, message.id, message.consumer, message.body, message.request_id, message.opening, now),
        )
        if cursor.rowcount == 1:
            added += 1
            heads.setdefault(message.consumer, cursor.lastrowid or 0)
            results.append(PutResult.ADDED)
        else:
            results.append(PutResult.KNOWN)
    db.executemany(
        "INSERT INTO lanes (account_id, lane, head, free_at) VALUES (?, ?, ?, ?)"
        " ON CONFLICT DO UPDATE SET head = excluded.head WHERE head IS NULL",
        [(account_id, lane, head, now) for lane, head in heads.items()],
    )
    add_up(db, account_id, Counter({_WAITING: added}))
    return results


def _refused(db: sqlite3.Connection, account_id: str, message_id: str) -> PutResult:
    known = db.execute("SELECT 1 FROM messages WHERE account_id = ? AND id = ?", (account_id, message_id)).fetchone()
    return PutResult.FULL if known is None else PutResult.KNOWN


def claim(
    db: sqlite3.Connection, account_id: str, *, owner: str, now: float, lease: float, limit: int
) -> list[Claim]:
    """Take lanes that are free and due, and begin their heads."""
    lanes = db.execute(
        "SELECT lane, head FROM lanes WHERE account_id = ? AND free_at <= ? ORDER BY free_at, head LIMIT ?",
        (account_id, now, limit),
    ).fetchall()
    if not lanes:
        return []
    fence = _next(db, "fence", len(lanes)) - len(lanes)
    heads = [db.execute(_HEAD, (account_id, lane, head)).fetchone() for lane, head in lanes]
    claims = [_claim(account_id, owner, fence + place, row) for place, row in enumerate(heads, 1)]
    _begin(db, account_id, [row[0] for row in heads], claims)
    db.executemany(
        "UPDATE lanes SET owner = ?, fence = ?, free_at = ? WHERE account_id = ? AND lane = ?",
        [(owner, one.fence, now + lease, account_id, one.message.consumer) for one in claims],
    )
    return claims


def _claim(account_id: str, owner: str, fence: int, row: tuple[Any, ...]) -> Claim:
    _, message_id, lane, body, request_id, opening, state, attempts, doubtful, put_at = row
    return Claim(
        account_id=account_id,
        message=OutboxMessage(id=message_id, consumer=lane, body=body, request_id=request_id, opening=opening),
        owner=owner,
        fence=fence,
        attempts=attempts,
        was_begun=state == 1,
        maybe_duplicate=bool(doubtful) or state == 1,
        put_at=put_at,
    )


def _begin(db: sqlite3.Connection, account_id: str, numbers: Sequence[int], claims: Sequence[Claim]) -> None:
    db.executemany(
        "UPDATE messages SET state = 1, maybe_duplicate = ? WHERE number = ?",
        [(one.maybe_duplicate, number) for number, one in zip(numbers, claims, strict=True)],
    )
    fresh = sum(not one.was_begun for one in claims)
    add_up(db, account_id, Counter({_WAITING: -fresh, _BEGUN: fresh}))


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
    owned = _owned(db, account_id, settlements)
    heads = [head for head in owned if head is not None]
    _settle(db, account_id, heads, now=now)
    begun = _hand_on(db, account_id, heads, now=now, lease=lease)
    if any(head.is_accepted for head in heads):
        _prune(db, len(heads), max_settled)
    exceptions = sum(head.is_exception for head in heads)
    if exceptions:
        _bury(db, account_id, exceptions, max_dead, now=now)
    return [
        Advance(is_settled=False) if head is None else Advance(is_settled=True, next=begun.get(head.number))
        for head in owned
    ]


def _owned(
    db: sqlite3.Connection, account_id: str, settlements: Iterable[tuple[Claim, Settlement]]
) -> list[_Head | None]:
    """The heads that are still in the hands of their claims."""
    cursor = db.cursor()
    owned: list[_Head | None] = []
    for claim, settlement in settlements:
        message, state = claim.message, settlement.state
        row = cursor.execute(_OWNED, (account_id, message.consumer, claim.owner, claim.fence, message.id)).fetchone()
        if row is None:
            owned.append(None)
            continue
        number, lane_head, was_doubtful = row
        is_doubtful = settlement.maybe_duplicate or bool(was_doubtful)
        is_final, is_accepted = state.is_final, state is MessageState.ACCEPTED
        is_exception = is_final and (is_doubtful or not is_accepted)
        owned.append(_Head(claim, settlement, number, lane_head, is_doubtful, is_final, is_accepted, is_exception))
    return owned


def _settle(db: sqlite3.Connection, account_id: str, heads: Sequence[_Head], *, now: float) -> None:
    exception = _first(db, "exception", sum(head.is_exception for head in heads))
    accepted = _first(db, "accepted", sum(head.is_accepted for head in heads))
    changes: Tally = Counter()
    accepts: list[tuple[Any, ...]] = []
    others: list[tuple[Any, ...]] = []
    for head in heads:
        settlement = head.settlement
        values = (
            CODES[settlement.state],
            settlement.attempts,
            settlement.sequence,
            settlement.conversation_id,
            settlement.reason,
            head.is_doubtful,
            exception if head.is_exception else None,
            now if head.is_final else None,
        )
        exception += head.is_exception
        if head.is_accepted:
            accepts.append((*values, accepted, head.number))
            accepted += 1
        else:
            others.append((*values, head.number))
        changes[values[0], head.is_final and head.is_doubtful] += 1
    changes[_BEGUN] -= len(heads)
    db.executemany(_ACCEPT, accepts)
    db.executemany(_SETTLE, others)
    add_up(db, account_id, changes)


def _hand_on(
    db: sqlite3.Connection, account_id: str, heads: Sequence[_Head], *, now: float, lease: float
) -> dict[int, Claim]:
    """Begin the next messages, by the numbers of those before them; give back lanes where there is none to begin."""
    begun: dict[int, Claim] = {}
    numbers: list[int] = []
    given_back: list[tuple[Any, ...]] = []
    ended: list[tuple[str, str]] = []
    cursor = db.cursor()
    for head in heads:
        lane = head.claim.message.consumer
        row = cursor.execute(_HEAD, (account_id, lane, head.lane_head)).fetchone()
        following = None if row is None else row[0]
        if head.settlement.holds_lane:
            given_back.append((None, head.claim.message.id, following, account_id, lane))
        elif row is None:
            ended.append((account_id, lane))
        elif not head.is_final and head.settlement.retry_in > 0:
            given_back.append((now + head.settlement.retry_in, None, following, account_id, lane))
        else:
            begun[head.number] = _claim(account_id, head.claim.owner, head.claim.fence, row)
            numbers.append(row[0])
    claims = list(begun.values())
    _begin(db, account_id, numbers, claims)
    db.executemany(
        "UPDATE lanes SET free_at = ?, head = ? WHERE account_id = ? AND lane = ?",
        [
            (now + lease, number, account_id, one.message.consumer)
            for number, one in zip(numbers, claims, strict=True)
        ],
    )
    db.executemany(_GIVE_BACK, given_back)
    db.executemany("DELETE FROM lanes WHERE account_id = ? AND lane = ?", ended)
    return begun


def _next(db: sqlite3.Connection, name: str, by: int) -> int:
    """Numbers that only grow, over the whole file; the last of `by` new ones."""
    row = db.execute(
        "INSERT INTO outbox_numbers VALUES (?, ?) ON CONFLICT DO UPDATE SET value = value + excluded.value"
        " RETURNING value",
        (name, by),
    ).fetchone()
    return int(row[0])


def _first(db: sqlite3.Connection, name: str, wanted: int) -> int:
    return _next(db, name, wanted) - wanted + 1 if wanted else 0


def _prune(db: sqlite3.Connection, new: int, max_settled: int) -> None:
    """Drop the accepted ones that lie furthest back. Not at each call: a thousandth more than the bound may stay."""
    (newest,) = db.execute("SELECT value FROM outbox_numbers WHERE name = 'accepted'").fetchone()
    step = max(1, max_settled // 1000)
    if newest // step != (newest - new) // step:
        db.execute("DELETE FROM messages WHERE accepted <= ?", (newest - max_settled,))


def _bury(db: sqlite3.Connection, account_id: str, new: int, max_dead: int, *, now: float) -> None:
    """Drop the oldest dead ones beyond the bound; lanes that they held go on. Not each time: all are looked at."""
    (newest,) = db.execute("SELECT value FROM outbox_numbers WHERE name = 'exception'").fetchone()
    step = max(1, max_dead // 10)
    if newest // step == (newest - new) // step:
        return
    rows = db.execute(
        "SELECT number, lane, id FROM messages WHERE account_id = ? AND state > 2 AND exception IS NOT NULL"
        " ORDER BY exception DESC LIMIT -1 OFFSET ?",
        (account_id, max_dead),
    ).fetchall()
    for number, lane, message_id in rows:
        db.execute("DELETE FROM messages WHERE number = ?", (number,))
        let_go(db, account_id, lane, message_id, now=now)


def renew(
    db: sqlite3.Connection, account_id: str, *, owner: str, until: float, consumers: Collection[str] | None
) -> frozenset[str]:
    """Extend the leases of an owner, of all its lanes or of some."""
    rows = db.execute("SELECT lane FROM lanes WHERE account_id = ? AND owner = ?", (account_id, owner)).fetchall()
    owned = frozenset(lane for (lane,) in rows)
    kept = owned if consumers is None else owned.intersection(consumers)
    db.executemany(
        "UPDATE lanes SET free_at = ? WHERE account_id = ? AND lane = ?", [(until, account_id, lane) for lane in kept]
    )
    return kept


def inherit(db: sqlite3.Connection, owners: Iterable[str], *, now: float) -> int:
    """Let the lanes of owners who are dead be claimed before the lease ends; how many they are."""
    values = [(now, owner) for owner in owners]
    return max(0, db.executemany("UPDATE lanes SET owner = NULL, free_at = ? WHERE owner = ?", values).rowcount)


def release(db: sqlite3.Connection, account_id: str, claims: Sequence[Claim], *, now: float) -> int:
    """Give lanes back as if they had never been claimed."""
    nothing_told = Settlement(state=MessageState.WAITING)
    owned = _owned(db, account_id, ((one, nothing_told) for one in claims))
    heads = [head for head in owned if head is not None]
    # What an earlier owner began stays begun: it may have been sent by that one.
    fresh = [head for head in heads if not head.claim.was_begun]
    db.executemany("UPDATE messages SET state = 0 WHERE number = ?", [(head.number,) for head in fresh])
    add_up(db, account_id, Counter({_BEGUN: -len(fresh), _WAITING: len(fresh)}))
    db.executemany(
        _GIVE_BACK, [(now, None, head.lane_head, account_id, head.claim.message.consumer) for head in heads]
    )
    return len(heads)


def next_due(db: sqlite3.Connection, account_id: str, *, now: float) -> float | None:
    """Seconds until a lane can be claimed."""
    (free_at,) = db.execute("SELECT min(free_at) FROM lanes WHERE account_id = ?", (account_id,)).fetchone()
    return None if free_at is None else max(0.0, free_at - now)
