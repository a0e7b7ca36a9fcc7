"""The outbox in PostgreSQL: how messages are put, claimed and settled.

Lanes are locked first, in the order of their names, and only then are their messages looked at: a statement sees what
was committed before it began, so whoever had the lane before is done when its messages are read. Claiming alone takes
lanes in another order, and waits for none. Every call is a fixed number of statements, however large its batch.

Where a batch is joined to a table, `LATERAL (… OFFSET 0)` makes it one look-up in an index for each row of the batch:
PostgreSQL knows little of a table that has just been filled, and may compare each row with each.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

from connector_async.store._postgres_engine import Database
from connector_async.store._postgres_pruning import add_tallies_up, delete_empty, prune_accepted, prune_dead
from connector_async.store.outbox import Advance, Claim, MessageState, OutboxMessage, PutResult, Settlement

__all__ = ["CODES", "STATES", "advance", "claim", "next_due", "put", "release", "renew"]

STATES: Final[dict[int, MessageState]] = dict(enumerate(MessageState))
"""By the number that stands for each in the tables."""
CODES: Final[dict[MessageState, int]] = {state: code for code, state in STATES.items()}


async def put(
    db: Database, account_id: str, messages: Sequence[OutboxMessage], *, max_waiting: int
) -> list[PutResult]:
    """Keep those that are new, as far as there is room."""
    seen = await _known(db, account_id, [message.id for message in messages])
    wanted: list[OutboxMessage] = []
    for message in messages:
        if message.id not in seen:
            seen.add(message.id)
            wanted.append(message)
    room = max(0, max_waiting - await _unsettled(db, account_id)) if wanted else 0
    added = await _insert(db, account_id, wanted[:room]) if wanted[:room] else set[str]()
    full = {message.id for message in wanted[room:]}
    results: list[PutResult] = []
    for message in messages:
        if message.id in full:
            results.append(PutResult.FULL)
        elif message.id in added:
            results.append(PutResult.ADDED)
            added.discard(message.id)
        else:
            results.append(PutResult.KNOWN)
    return results


async def _known(db: Database, account_id: str, ids: list[str]) -> set[str]:
    rows = await db.execute(
        """
        SELECT wanted.id FROM unnest(%s::text[]) AS wanted (id),
            LATERAL (SELECT 1 FROM messages WHERE account_id = %s AND id = wanted.id OFFSET 0) AS found
        """,
        (ids, account_id),
    )
    return {row[0] for row in await rows.fetchall()}


async def _unsettled(db: Database, account_id: str) -> int:
    rows = await db.execute(
        "SELECT coalesce(sum(number), 0)::bigint FROM tallies WHERE account_id = %s AND state < 2", (account_id,)
    )
    (unsettled,) = await rows.fetchone() or (0,)
    return int(unsettled)


async def _insert(db: Database, account_id: str, messages: Sequence[OutboxMessage]) -> set[str]:
    await db.execute(
        """
        INSERT INTO lanes (account_id, lane, free_at)
        SELECT %s, lane, (SELECT seconds()) FROM unnest(%s::text[]) AS lane ORDER BY lane COLLATE "C"
        ON CONFLICT (account_id, lane) DO UPDATE SET fence = lanes.fence
        """,
        (account_id, list({message.consumer for message in messages})),
    )
    rows = await db.execute(
        """
        WITH added AS (
            INSERT INTO messages (account_id, id, lane, body, request_id, opening, put_at)
            SELECT %s, id, lane, body, request_id, opening, (SELECT seconds())
            FROM unnest(%s::text[], %s::text[], %b::bytea[], %s::text[], %b::bytea[])
                WITH ORDINALITY AS new (id, lane, body, request_id, opening, place)
            ORDER BY place
            ON CONFLICT (account_id, id) DO NOTHING RETURNING id, seq
        ), counted AS (
            INSERT INTO tallies SELECT %s, 0, false, count(*) FROM added HAVING count(*) > 0
        )
        SELECT id, seq FROM added
        """,
        (
            account_id,
            [message.id for message in messages],
            [message.consumer for message in messages],
            [message.body for message in messages],
            [message.request_id for message in messages],
            [message.opening for message in messages],
            account_id,
        ),
    )
    added: dict[str, int] = dict(await rows.fetchall())
    await add_tallies_up(db, account_id, added.values())
    return set(added)


async def claim(db: Database, account_id: str, *, owner: str, lease: float, limit: int) -> list[Claim]:
    """Take lanes that are free and due, and begin their heads."""
    rows = await db.execute(
        """
        SELECT lane FROM lanes WHERE account_id = %s AND free_at <= (SELECT seconds())
        ORDER BY free_at LIMIT %s FOR UPDATE SKIP LOCKED
        """,
        (account_id, limit),
    )
    free: list[str] = [lane for (lane,) in await rows.fetchall()]
    if not free:
        return []
    rows = await db.execute(
        """
        UPDATE lanes SET owner = %(owner)s, fence = nextval('fences'), free_at = seconds() + %(lease)s
        FROM unnest(%(free)s::text[]) AS wanted (lane), LATERAL (
            SELECT ctid AS place FROM lanes WHERE account_id = %(account_id)s AND lane = wanted.lane OFFSET 0
        ) AS found
        WHERE lanes.ctid = found.place RETURNING lanes.lane, fence
        """,
        {"account_id": account_id, "owner": owner, "lease": lease, "free": free},
    )
    fences: dict[str, int] = dict(await rows.fetchall())
    claims = await _begin(db, account_id, {lane: (owner, fence) for lane, fence in fences.items()})
    await add_tallies_up(db, account_id, fences.values())
    await delete_empty(db, account_id, set(free) - claims.keys())
    return [claims[lane] for lane in free if lane in claims]


async def _begin(db: Database, account_id: str, owners: Mapping[str, tuple[str, int]]) -> dict[str, Claim]:
    """Begin the heads of lanes that this transaction has locked; those of lanes that have any."""
    if not owners:
        return {}
    rows = await db.execute(
        """
        WITH begun AS (
            UPDATE messages SET state = 1, maybe_duplicate = maybe_duplicate OR head.state = 1
            FROM unnest(%(lanes)s::text[]) AS wanted (lane), LATERAL (
                SELECT seq, state FROM messages
                WHERE account_id = %(account_id)s AND lane = wanted.lane AND settled_at IS NULL ORDER BY seq LIMIT 1
            ) AS head
            WHERE messages.seq = head.seq
            RETURNING id, messages.lane, body, request_id, opening, attempts, head.state = 1 AS was_begun,
                maybe_duplicate, put_at
        ), counted AS (
            INSERT INTO tallies SELECT %(account_id)s, moved.state, false, sum(moved.number)
            FROM begun, (VALUES (0, -1), (1, 1)) AS moved (state, number) WHERE NOT was_begun GROUP BY 2
        )
        SELECT * FROM begun
        """,
        {"account_id": account_id, "lanes": list(owners)},
        binary=True,
    )
    return {row[1]: _claim(account_id, *owners[row[1]], row) for row in await rows.fetchall()}


def _claim(account_id: str, owner: str, fence: int, row: tuple[Any, ...]) -> Claim:
    message_id, consumer, body, request_id, opening, attempts, was_begun, maybe_duplicate, put_at = row
    return Claim(
        account_id=account_id,
        message=OutboxMessage(id=message_id, consumer=consumer, body=body, request_id=request_id, opening=opening),
        owner=owner,
        fence=fence,
        attempts=attempts,
        was_begun=was_begun,
        maybe_duplicate=maybe_duplicate,
        put_at=put_at,
    )


async def advance(
    db: Database,
    account_id: str,
    settlements: Sequence[tuple[Claim, Settlement]],
    *,
    lease: float,
    max_settled: int,
    max_dead: int,
) -> list[Advance]:
    """Settle the heads of lanes that are still their claims', and begin the next ones."""
    mine = await _lock(db, account_id, [claim for claim, _ in settlements])
    owned = [(claim, settlement) for claim, settlement in settlements if claim.message.consumer in mine]
    settled = (
        await _settle(db, account_id, owned, max_settled=max_settled, max_dead=max_dead) if owned else set[str]()
    )
    owned = [(claim, settlement) for claim, settlement in owned if claim.message.id in settled]
    if not owned:
        return [Advance(is_settled=False) for _ in settlements]
    goes_on = {
        claim.message.consumer: (claim.owner, claim.fence)
        for claim, settlement in owned
        if not settlement.holds_lane and not _rests(settlement)
    }
    begun = await _begin(db, account_id, goes_on)
    await _hand_on(db, account_id, owned, begun.keys(), lease)
    await delete_empty(db, account_id, goes_on.keys() - begun.keys())
    return [
        Advance(is_settled=claim.message.id in settled, next=begun.get(claim.message.consumer))
        for claim, _ in settlements
    ]


def _rests(settlement: Settlement) -> bool:
    return settlement.state is MessageState.WAITING and settlement.retry_in > 0


async def _lock(db: Database, account_id: str, claims: Iterable[Claim]) -> set[str]:
    """Lock the lanes of claims until the transaction ends; those that are still in the hands of their claims."""
    fences = {claim.message.consumer: (claim.owner, claim.fence) for claim in claims}
    rows = await db.execute(
        """
        SELECT found.* FROM unnest(%s::text[]) AS wanted (lane), LATERAL (
            SELECT lane, owner, fence FROM lanes WHERE account_id = %s AND lane = wanted.lane FOR UPDATE
        ) AS found
        """,
        (sorted(fences), account_id),
    )
    return {lane for lane, owner, fence in await rows.fetchall() if fences[lane] == (owner, fence)}


async def _settle(
    db: Database, account_id: str, owned: Sequence[tuple[Claim, Settlement]], *, max_settled: int, max_dead: int
) -> set[str]:
    """Write ends down; the ids of those that were under way: what is told twice counts once."""
    doubtful = {
        claim.message.id for claim, settlement in owned if settlement.maybe_duplicate or claim.maybe_duplicate
    }
    exceptions = [
        claim.message.id
        for claim, settlement in owned
        if settlement.state.is_final
        and (settlement.state is not MessageState.ACCEPTED or claim.message.id in doubtful)
    ]
    numbers = await _exception_numbers(db, account_id, exceptions) if exceptions else {}
    rows = await db.execute(
        """
        WITH settled AS (
            UPDATE messages SET state = new.state, attempts = new.attempts, sequence = new.sequence,
                conversation_id = new.conversation_id, reason = new.reason, maybe_duplicate = new.maybe_duplicate,
                settled_at = CASE WHEN new.state >= 2 THEN seconds() END,
                accepted_number = CASE WHEN new.state = 2 THEN nextval('acceptances') END,
                exception_number = new.exception_number,
                body = CASE WHEN new.state = 2 THEN '' ELSE body END,
                opening = CASE WHEN new.state = 2 THEN NULL ELSE opening END
            FROM unnest(%s::text[], %s::smallint[], %s::int[], %s::bigint[], %s::text[], %s::text[], %s::bool[],
                %s::bigint[]) AS new (id, state, attempts, sequence, conversation_id, reason, maybe_duplicate,
                exception_number),
                LATERAL (
                    SELECT seq FROM messages WHERE account_id = %s AND id = new.id AND state = 1 OFFSET 0
                ) AS found
            WHERE messages.seq = found.seq
            RETURNING messages.id, messages.state, messages.maybe_duplicate, accepted_number
        ), counted AS (
            INSERT INTO tallies SELECT %s, state, maybe_duplicate AND state >= 2, count(*) FROM settled GROUP BY 2, 3
            UNION ALL SELECT %s, 1, false, -count(*) FROM settled HAVING count(*) > 0
        )
        SELECT id, accepted_number FROM settled
        """,
        (
            [claim.message.id for claim, _ in owned],
            [CODES[settlement.state] for _, settlement in owned],
            [settlement.attempts for _, settlement in owned],
            [settlement.sequence for _, settlement in owned],
            [settlement.conversation_id for _, settlement in owned],
            [settlement.reason for _, settlement in owned],
            [claim.message.id in doubtful for claim, _ in owned],
            [numbers.get(claim.message.id) for claim, _ in owned],
            account_id,
            account_id,
            account_id,
        ),
    )
    settled: dict[str, int | None] = dict(await rows.fetchall())
    accepted = [number for number in settled.values() if number is not None]
    await add_tallies_up(db, account_id, accepted)
    await prune_accepted(db, accepted, max_settled)
    if exceptions:
        await prune_dead(db, account_id, numbers.values(), max_dead)
    return set(settled)


async def _exception_numbers(db: Database, account_id: str, ids: Sequence[str]) -> dict[str, int]:
    """Numbers for the exceptions of a batch, in the order in which batches are committed.

    The row stays locked until then: whoever reads in steps, by the last number seen, overlooks none.
    """
    rows = await db.execute(
        """
        INSERT INTO exception_numbers VALUES (%s, %s)
        ON CONFLICT (account_id) DO UPDATE SET last = exception_numbers.last + excluded.last RETURNING last
        """,
        (account_id, len(ids)),
    )
    (last,) = await rows.fetchone() or (len(ids),)
    return {message_id: last - len(ids) + place for place, message_id in enumerate(ids, 1)}


async def _hand_on(
    db: Database,
    account_id: str,
    owned: Sequence[tuple[Claim, Settlement]],
    begun: Iterable[str],
    lease: float,
) -> None:
    """Let lanes stay where their next message was begun, rest, or be held."""
    stays = set(begun)
    await db.execute(
        """
        UPDATE lanes SET free_at = seconds() + new.seconds, held_by = new.held_by,
            owner = CASE WHEN new.stays THEN owner END
        FROM unnest(%s::text[], %s::float8[], %s::text[], %s::bool[]) AS new (lane, seconds, held_by, stays),
            LATERAL (SELECT ctid AS place FROM lanes WHERE account_id = %s AND lane = new.lane OFFSET 0) AS found
        WHERE lanes.ctid = found.place
        """,
        (
            [claim.message.consumer for claim, _ in owned],
            [
                lease if claim.message.consumer in stays else None if settlement.holds_lane else settlement.retry_in
                for claim, settlement in owned
            ],
            [claim.message.id if settlement.holds_lane else None for claim, settlement in owned],
            [claim.message.consumer in stays for claim, _ in owned],
            account_id,
        ),
    )


async def renew(
    db: Database, account_id: str, *, owner: str, lease: float, consumers: Collection[str] | None
) -> frozenset[str]:
    """Extend the leases of an owner, of all its lanes or of some; those lanes."""
    rows = await db.execute(
        "SELECT lane FROM lanes WHERE account_id = %s AND owner = %s ORDER BY lane FOR UPDATE", (account_id, owner)
    )
    owned = frozenset(lane for (lane,) in await rows.fetchall())
    kept = owned if consumers is None else owned.intersection(consumers)
    await db.execute(
        "UPDATE lanes SET free_at = seconds() + %s WHERE account_id = %s AND owner = %s AND lane = ANY(%s::text[])",
        (lease, account_id, owner, list(kept)),
    )
    return kept


async def release(db: Database, account_id: str, claims: Sequence[Claim]) -> int:
    """Give lanes back, their heads as they were before they were claimed."""
    mine = await _lock(db, account_id, claims)
    heads = [claim for claim in claims if claim.message.consumer in mine]
    released = await db.execute(
        """
        WITH back AS (
            UPDATE messages SET state = new.state
            FROM unnest(%(ids)s::text[], %(states)s::smallint[]) AS new (id, state),
                LATERAL (
                    SELECT seq FROM messages WHERE account_id = %(account_id)s AND id = new.id AND state = 1 OFFSET 0
                ) AS found
            WHERE messages.seq = found.seq RETURNING lane, messages.state
        ), counted AS (
            INSERT INTO tallies SELECT %(account_id)s, moved.state, false, sum(moved.number)
            FROM back, (VALUES (0, 1), (1, -1)) AS moved (state, number) WHERE back.state = 0 GROUP BY 2
        )
        UPDATE lanes SET owner = NULL, free_at = seconds()
        WHERE account_id = %(account_id)s AND lane = ANY(ARRAY(SELECT lane FROM back))
        """,
        {
            "account_id": account_id,
            "ids": [claim.message.id for claim in heads],
            "states": [CODES[MessageState.BEGUN if claim.was_begun else MessageState.WAITING] for claim in heads],
        },
    )
    return released.rowcount


async def next_due(db: Database, account_id: str) -> float | None:
    """Seconds until a lane can be claimed."""
    rows = await db.execute(
        "SELECT min(free_at) - seconds() FROM lanes WHERE account_id = %s AND free_at IS NOT NULL", (account_id,)
    )
    (wait,) = await rows.fetchone() or (None,)
    return None if wait is None else max(0.0, wait)
