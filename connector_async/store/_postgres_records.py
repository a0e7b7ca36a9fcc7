"""Consumers, conversations, seen keys, echoes and receipts in PostgreSQL; each function is one statement or two.

Ids only grow, so that the bound on each table is a range of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, LiteralString

from connector_async.store._postgres_engine import Database
from connector_async.store.base import ConsumerRecord, ConversationRecord

__all__ = [
    "close_conversation",
    "drop_consumer_token",
    "find_consumer",
    "first_time",
    "forget",
    "get_consumer",
    "get_contact",
    "get_conversation",
    "get_open_conversation",
    "put_consumer",
    "put_conversation",
    "put_echo",
    "put_receipt",
    "receipts_of",
    "take_echo",
]


async def put_consumer(db: Database, record: ConsumerRecord, *, token: str, bound: int) -> None:
    """Keep a consumer, its token written as `token`; one put longest ago goes."""
    await db.execute(
        """
        WITH put AS (
            INSERT INTO consumers AS known (account_id, ext_consumer_id, lp_consumer_id, token)
            VALUES (%(account_id)s, %(ext)s, %(lp)s, %(token)s)
            ON CONFLICT (account_id, ext_consumer_id) DO UPDATE
            SET id = excluded.id, lp_consumer_id = excluded.lp_consumer_id, token = excluded.token
            RETURNING id
        )
        DELETE FROM consumers WHERE id = ANY(ARRAY(
            SELECT id FROM consumers WHERE id <= (SELECT id FROM put) - %(bound)s
            AND NOT (account_id = %(account_id)s AND ext_consumer_id = %(ext)s) ORDER BY id FOR UPDATE SKIP LOCKED
        ))
        """,
        {
            "account_id": record.account_id,
            "ext": record.ext_consumer_id,
            "lp": record.lp_consumer_id,
            "token": token,
            "bound": bound,
        },
    )


async def get_consumer(db: Database, account_id: str, ext_consumer_id: str) -> ConsumerRecord | None:
    """The consumer with this channel id, the token as it was written."""
    return await _consumer(
        db,
        """
        SELECT ext_consumer_id, lp_consumer_id, token FROM consumers WHERE account_id = %s AND ext_consumer_id = %s
        """,
        (account_id, ext_consumer_id),
    )


async def find_consumer(db: Database, account_id: str, lp_consumer_id: str) -> ConsumerRecord | None:
    """The newest consumer with the cloud's id, the token as it was written."""
    return await _consumer(
        db,
        """
        SELECT ext_consumer_id, lp_consumer_id, token FROM consumers WHERE account_id = %s AND lp_consumer_id = %s
        ORDER BY id DESC LIMIT 1
        """,
        (account_id, lp_consumer_id),
    )


async def _consumer(db: Database, statement: LiteralString, values: tuple[str, str]) -> ConsumerRecord | None:
    row = await (await db.execute(statement, values)).fetchone()
    if row is None:
        return None
    ext_consumer_id, lp_consumer_id, token = row
    return ConsumerRecord(
        account_id=values[0],
        ext_consumer_id=ext_consumer_id,
        lp_consumer_id=lp_consumer_id,
        token=token,
    )


async def drop_consumer_token(db: Database, account_id: str, ext_consumer_id: str) -> None:
    """Forget a token that was refused."""
    await db.execute(
        "UPDATE consumers SET token = '' WHERE account_id = %s AND ext_consumer_id = %s",
        (account_id, ext_consumer_id),
    )


async def put_conversation(db: Database, record: ConversationRecord, *, bound: int) -> None:
    """Keep a conversation; one put longest ago goes."""
    await db.execute(
        """
        WITH put AS (
            INSERT INTO conversations AS known (
                account_id, conversation_id, ext_consumer_id, client_properties, opened_at, is_closed
            ) VALUES (%(account_id)s, %(conversation_id)s, %(ext)s, %(properties)s, %(opened_at)s, %(is_closed)s)
            ON CONFLICT (account_id, conversation_id) DO UPDATE SET
                id = excluded.id, ext_consumer_id = excluded.ext_consumer_id, opened_at = excluded.opened_at,
                client_properties = coalesce(excluded.client_properties, known.client_properties),
                is_closed = excluded.is_closed
            RETURNING id
        )
        DELETE FROM conversations WHERE id = ANY(ARRAY(
            SELECT id FROM conversations WHERE id <= (SELECT id FROM put) - %(bound)s
            AND NOT (account_id = %(account_id)s AND conversation_id = %(conversation_id)s)
            ORDER BY id FOR UPDATE SKIP LOCKED
        ))
        """,
        {
            "account_id": record.account_id,
            "conversation_id": record.conversation_id,
            "ext": record.ext_consumer_id,
            "properties": record.client_properties,
            "opened_at": record.opened_at,
            "is_closed": record.is_closed,
            "bound": bound,
        },
    )


async def get_conversation(db: Database, account_id: str, conversation_id: str) -> ConversationRecord | None:
    """The conversation with this id, open or closed."""
    return await _conversation(
        db,
        """
        SELECT conversation_id, ext_consumer_id, client_properties, opened_at, is_closed FROM conversations
        WHERE account_id = %s AND conversation_id = %s
        """,
        (account_id, conversation_id),
    )


async def get_open_conversation(db: Database, account_id: str, ext_consumer_id: str) -> ConversationRecord | None:
    """The consumer's newest conversation that is not closed."""
    return await _conversation(
        db,
        """
        SELECT conversation_id, ext_consumer_id, client_properties, opened_at, is_closed FROM conversations
        WHERE account_id = %s AND ext_consumer_id = %s AND NOT is_closed ORDER BY opened_at DESC, id DESC LIMIT 1
        """,
        (account_id, ext_consumer_id),
    )


async def get_contact(
    db: Database, account_id: str, ext_consumer_id: str
) -> tuple[ConsumerRecord | None, ConversationRecord | None]:
    """The consumer, the token as it was written, and its newest conversation that is not closed: either may miss."""
    rows = await db.execute(
        """
        SELECT consumer.token, lp_consumer_id, conversation_id, client_properties, opened_at
        FROM (SELECT) AS one LEFT JOIN (
            SELECT token, lp_consumer_id FROM consumers
            WHERE account_id = %(account_id)s AND ext_consumer_id = %(ext)s
        ) AS consumer ON true LEFT JOIN (
            SELECT conversation_id, client_properties, opened_at FROM conversations
            WHERE account_id = %(account_id)s AND ext_consumer_id = %(ext)s AND NOT is_closed
            ORDER BY opened_at DESC, id DESC LIMIT 1
        ) AS conversation ON true
        """,
        {"account_id": account_id, "ext": ext_consumer_id},
    )
    row: Any = await rows.fetchone()  # of outer joins with one row: there is one, whatever is found
    token, lp_consumer_id, conversation_id, client_properties, opened_at = row
    consumer = conversation = None
    if token is not None:
        consumer = ConsumerRecord(
            account_id=account_id, ext_consumer_id=ext_consumer_id, lp_consumer_id=lp_consumer_id, token=token
        )
    if conversation_id is not None:
        conversation = ConversationRecord(
            account_id=account_id,
            conversation_id=conversation_id,
            ext_consumer_id=ext_consumer_id,
            client_properties=client_properties,
            opened_at=opened_at,
        )
    return consumer, conversation


async def _conversation(db: Database, statement: LiteralString, values: tuple[str, str]) -> ConversationRecord | None:
    row = await (await db.execute(statement, values)).fetchone()
    if row is None:
        return None
    conversation_id, ext_consumer_id, client_properties, opened_at, is_closed = row
    return ConversationRecord(
        account_id=values[0],
        conversation_id=conversation_id,
        ext_consumer_id=ext_consumer_id,
        client_properties=client_properties,
        opened_at=opened_at,
        is_closed=is_closed,
    )


async def close_conversation(db: Database, account_id: str, conversation_id: str) -> None:
    """Mark it closed; unknown ids are ignored."""
    await db.execute(
        "UPDATE conversations SET is_closed = true WHERE account_id = %s AND conversation_id = %s",
        (account_id, conversation_id),
    )


async def first_time(db: Database, account_id: str, key: str, *, bound: int) -> bool:
    """Whether this key was never given before, among those that are remembered."""
    # Asked first: a conflict would use up an id, and the bound counts ids.
    rows = await db.execute(
        """
        WITH put AS (
            INSERT INTO seen (account_id, key) SELECT %(account_id)s, %(key)s WHERE NOT EXISTS (
                SELECT 1 FROM seen WHERE account_id = %(account_id)s AND key = %(key)s
            ) ON CONFLICT DO NOTHING RETURNING id
        ), pruned AS (
            DELETE FROM seen WHERE id = ANY(ARRAY(
                SELECT id FROM seen WHERE id <= (SELECT id FROM put) - %(bound)s ORDER BY id FOR UPDATE SKIP LOCKED
            ))
        )
        SELECT id FROM put
        """,
        {"account_id": account_id, "key": key, "bound": bound},
    )
    return await rows.fetchone() is not None


async def put_echo(db: Database, echo: tuple[str, str, str, int | None], *, bound: int) -> None:
    """Keep an echo: account, conversation, digest, sequence."""
    account_id, conversation_id, digest, sequence = echo
    await db.execute(
        """
        WITH put AS (
            INSERT INTO echoes (account_id, conversation_id, digest, sequence)
            VALUES (%(account_id)s, %(conversation_id)s, %(digest)s, %(sequence)s) RETURNING id
        )
        DELETE FROM echoes WHERE id = ANY(ARRAY(
            SELECT id FROM echoes WHERE id <= (SELECT id FROM put) - %(bound)s ORDER BY id FOR UPDATE SKIP LOCKED
        ))
        """,
        {
            "account_id": account_id,
            "conversation_id": conversation_id,
            "digest": digest,
            "sequence": sequence,
            "bound": bound,
        },
    )


async def take_echo(db: Database, account_id: str, conversation_id: str, digest: str) -> tuple[bool, int | None]:
    """Whether such an echo came, and its sequence; no two callers are given the same."""
    rows = await db.execute(
        """
        DELETE FROM echoes WHERE id = ANY(ARRAY(
            SELECT id FROM echoes WHERE account_id = %s AND conversation_id = %s AND digest = %s
            ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED
        )) RETURNING sequence
        """,
        (account_id, conversation_id, digest),
    )
    row = await rows.fetchone()
    return (False, None) if row is None else (True, row[0])


async def put_receipt(
    db: Database, account_id: str, conversation_id: str, status: str, sequences: Sequence[int], *, bound: int
) -> None:
    """Keep that messages have a status."""
    # Asked first, as for `first_time`. In one order, so that two who tell the same do not wait for each other.
    await db.execute(
        """
        WITH put AS (
            INSERT INTO receipts (account_id, conversation_id, sequence, status)
            SELECT DISTINCT %(account_id)s, %(conversation_id)s, new.sequence, %(status)s
            FROM unnest(%(sequences)s::bigint[]) AS new (sequence)
            WHERE NOT EXISTS (
                SELECT 1 FROM receipts WHERE account_id = %(account_id)s AND conversation_id = %(conversation_id)s
                AND sequence = new.sequence AND status = %(status)s
            ) ORDER BY 3
            ON CONFLICT DO NOTHING RETURNING id
        )
        DELETE FROM receipts WHERE id = ANY(ARRAY(
            SELECT id FROM receipts WHERE id <= (SELECT max(id) FROM put) - %(bound)s ORDER BY id
            FOR UPDATE SKIP LOCKED
        ))
        """,
        {
            "account_id": account_id,
            "conversation_id": conversation_id,
            "status": status,
            "sequences": list(sequences),
            "bound": bound,
        },
    )


async def receipts_of(db: Database, account_id: str, conversation_id: str, sequence: int) -> frozenset[str]:
    """The statuses that were told of a message."""
    rows = await db.execute(
        "SELECT status FROM receipts WHERE account_id = %s AND conversation_id = %s AND sequence = %s",
        (account_id, conversation_id, sequence),
    )
    return frozenset(status for (status,) in await rows.fetchall())


async def forget(db: Database, account_id: str, ext_consumer_id: str) -> None:
    """Erase a consumer, its conversations, and what came of them."""
    values: dict[str, Any] = {"account_id": account_id, "ext": ext_consumer_id}
    rows = await db.execute(
        """
        DELETE FROM conversations WHERE account_id = %(account_id)s AND ext_consumer_id = %(ext)s
        RETURNING conversation_id
        """,
        values,
    )
    values["ids"] = [conversation_id for (conversation_id,) in await rows.fetchall()]
    await db.execute("DELETE FROM consumers WHERE account_id = %(account_id)s AND ext_consumer_id = %(ext)s", values)
    await db.execute("DELETE FROM deliveries WHERE account_id = %(account_id)s AND lane = ANY(%(ids)s)", values)
    await db.execute(
        "DELETE FROM echoes WHERE account_id = %(account_id)s AND conversation_id = ANY(%(ids)s)", values
    )
    await db.execute(
        "DELETE FROM receipts WHERE account_id = %(account_id)s AND conversation_id = ANY(%(ids)s)", values
    )
