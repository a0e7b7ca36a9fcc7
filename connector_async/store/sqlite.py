"""The store in one SQLite file: survives the process, and is shared by all workers of one machine."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import attrs

from connector_async._arguments import check_kind
from connector_async.errors import ConfigurationError
from connector_async.store import _sqlite_inbox as inbox
from connector_async.store import _sqlite_ledger as ledger
from connector_async.store import _sqlite_sharing as sharing
from connector_async.store._sqlite_engine import SqliteEngine
from connector_async.store._sqlite_outbox import SqliteOutbox
from connector_async.store._sqlite_schema import MIGRATIONS
from connector_async.store._token_records import app_identity, opened, sealed
from connector_async.store.base import (
    Admission,
    ConsumerRecord,
    ConversationRecord,
    DeadDelivery,
    Delivery,
    DeliveryCounts,
)
from connector_async.store.tokens import SharedToken, TokenSeal, check_seal

__all__ = ["SqliteStore"]

_OPEN = "account_id = ? AND ext_consumer_id = ? AND NOT is_closed ORDER BY opened_at DESC, id DESC LIMIT 1"
_CONVERSATION_COLUMNS = "conversation_id, ext_consumer_id, client_properties, opened_at, is_closed"


@attrs.define(eq=False)
class SqliteStore:
    """Consumers, conversations, the durable inbox of the webhooks and the outbox in one file.

    The file is opened at first use, in a thread, and made readable by its owner only: it holds what people wrote.
    Several processes of one machine may share it, by one name: a hard link would have a log of its own, and a network
    file system is no place for it. Used by any number of event loops, and in the process that opened it: fork before
    the first use, or after `aclose`; a child that finds the file open gets ConfigurationError.

    Args:
        path: The file; made when it is not there, migrated when it is older than this package.
        max_entries: How many consumers, conversations, seen keys, receipts, handled deliveries and accepted messages
            are remembered at most, each, over all accounts; those put longest ago go first. Of accepted messages up
            to a thousandth more may be there.
        max_waiting: How many deliveries, and how many messages, of one account may wait.
        max_dead: How many deliveries that were given up are kept for each account, and how many messages that ended
            other than accepted; of those up to a tenth more may be there.
        busy_timeout: Seconds to wait for another process that is writing.
        tokens: How tokens are written down: `SealedTokens(key)`, or `PlaintextTokens()` by name. None: not at all;
            they are fetched again after a restart, and each process has an AppJWT of its own.
        wall: The clock, in seconds.

    Every method raises StoreUnavailable when the file cannot be used, and RuntimeError after `aclose`. A file that is
    moved or removed under a running store is told once that way; the next use opens what has the name then, or makes
    it.
    """

    path: Path | str
    max_entries: int = attrs.field(default=1_000_000, kw_only=True, validator=attrs.validators.ge(1))
    max_waiting: int = attrs.field(default=1_000_000, kw_only=True, validator=attrs.validators.ge(1))
    max_dead: int = attrs.field(default=10_000, kw_only=True, validator=attrs.validators.ge(1))
    busy_timeout: float = attrs.field(default=2.0, kw_only=True, validator=attrs.validators.ge(0))
    tokens: TokenSeal | None = attrs.field(default=None, kw_only=True, validator=check_seal)
    wall: Callable[[], float] = attrs.field(default=time.time, kw_only=True, repr=False)
    _engine: SqliteEngine = attrs.field(init=False, repr=False)
    outbox: SqliteOutbox = attrs.field(init=False, repr=False)
    """The messages on their way out."""

    def __attrs_post_init__(self) -> None:
        check_kind("path", self.path, (str, Path), "the name of a file")
        if not str(self.path):
            raise ConfigurationError("path: expected the name of a file, got an empty text")
        if "\0" in str(self.path):
            raise ConfigurationError("path: expected the name of a file, got a text with a NUL in it")
        self._engine = SqliteEngine(self.path, MIGRATIONS, self.busy_timeout)
        self.outbox = SqliteOutbox(
            self._engine,
            max_waiting=self.max_waiting,
            max_settled=self.max_entries,
            max_dead=self.max_dead,
            wall=self.wall,
        )

    @property
    def durable(self) -> bool:
        """True: what was put survives this process and a loss of power."""
        return True

    async def put_consumer(self, record: ConsumerRecord) -> None:
        """Keep a consumer."""
        await self._engine.write(partial(_put_consumer, record=sealed(self.tokens, record), bound=self.max_entries))

    async def get_consumer(self, account_id: str, ext_consumer_id: str) -> ConsumerRecord | None:
        """The consumer with this channel id."""
        record = await self._engine.read(
            partial(_select_consumer, column="ext_consumer_id", account_id=account_id, value=ext_consumer_id)
        )
        return opened(self.tokens, record)

    async def find_consumer(self, account_id: str, lp_consumer_id: str) -> ConsumerRecord | None:
        """The consumer with the cloud's id."""
        record = await self._engine.read(
            partial(_select_consumer, column="lp_consumer_id", account_id=account_id, value=lp_consumer_id)
        )
        return opened(self.tokens, record)

    async def drop_consumer_token(self, account_id: str, ext_consumer_id: str) -> None:
        """Forget a token that was refused."""
        await self._execute(
            "UPDATE consumers SET token = '' WHERE account_id = ? AND ext_consumer_id = ?",
            account_id,
            ext_consumer_id,
        )

    async def put_conversation(self, record: ConversationRecord) -> None:
        """Keep a conversation."""
        await self._engine.write(partial(_put_conversation, record=record, bound=self.max_entries))

    async def get_conversation(self, account_id: str, conversation_id: str) -> ConversationRecord | None:
        """The conversation with this id, open or closed."""
        where = "account_id = ? AND conversation_id = ?"
        return await self._engine.read(partial(_select_conversation, account_id, where, conversation_id))

    async def get_open_conversation(self, account_id: str, ext_consumer_id: str) -> ConversationRecord | None:
        """The consumer's newest conversation that is not closed."""
        return await self._engine.read(partial(_select_conversation, account_id, _OPEN, ext_consumer_id))

    async def get_contact(
        self, account_id: str, ext_consumer_id: str
    ) -> tuple[ConsumerRecord | None, ConversationRecord | None]:
        """The consumer and its newest conversation that is not closed."""
        consumer, conversation = await self._engine.read(partial(_select_contact, account_id, ext_consumer_id))
        return opened(self.tokens, consumer), conversation

    async def close_conversation(self, account_id: str, conversation_id: str) -> None:
        """Mark it closed; unknown ids are ignored."""
        await self._execute(
            "UPDATE conversations SET is_closed = 1 WHERE account_id = ? AND conversation_id = ?",
            account_id,
            conversation_id,
        )

    async def first_time(self, account_id: str, key: str) -> bool:
        """Whether this key was never given before by any worker, among at least the last `max_entries`."""
        return await self._engine.write(partial(_first_time, account_id=account_id, key=key, bound=self.max_entries))

    async def put_echo(self, account_id: str, conversation_id: str, digest: str, sequence: int | None) -> None:
        """Keep the echo of a consumer's message that no send of this worker was waiting for."""
        echo = (account_id, conversation_id, digest, sequence)
        await self._engine.write(partial(_put_echo, echo=echo, bound=self.max_entries))

    async def take_echo(self, account_id: str, conversation_id: str, digest: str) -> tuple[bool, int | None]:
        """Whether such an echo came to any worker, and its sequence; each is given out once."""
        return await self._engine.write(partial(_take_echo, echo=(account_id, conversation_id, digest)))

    async def put_receipt(self, account_id: str, conversation_id: str, status: str, sequences: Sequence[int]) -> None:
        """Keep what a receipt says of the messages with these numbers."""
        await self._engine.write(
            partial(
                sharing.put_receipt,
                account_id=account_id,
                conversation_id=conversation_id,
                status=status,
                sequences=sequences,
                bound=self.max_entries,
            )
        )

    async def receipts_of(self, account_id: str, conversation_id: str, sequence: int) -> frozenset[str]:
        """What receipts said of one message, to any worker."""
        return await self._engine.read(
            partial(sharing.receipts_of, account_id=account_id, conversation_id=conversation_id, sequence=sequence)
        )

    @property
    def shares_tokens(self) -> bool:
        """Whether it was told how to write tokens down."""
        return self.tokens is not None

    async def get_app_token(self, account_id: str, name: str) -> SharedToken | None:
        """The newest AppJWT, if it has not ended."""
        found = await self._engine.read(partial(sharing.get_token, account_id=account_id, name=name, now=self.wall()))
        if self.tokens is None or found is None:
            return None
        value = self.tokens.open(app_identity(account_id, name), found[0])
        return SharedToken(value=value, seconds=found[1]) if value else None

    async def put_app_token(self, account_id: str, name: str, *, value: str, seconds: float, fence: int) -> bool:
        """Keep a token; False when one was put under a later lease, or this store writes no tokens."""
        if self.tokens is None:
            return False
        token = self.tokens.seal(app_identity(account_id, name), value)
        return await self._engine.write(
            partial(
                sharing.put_token,
                account_id=account_id,
                name=name,
                token=token,
                ends_at=self.wall() + seconds,
                fence=fence,
            )
        )

    async def acquire_lease(self, account_id: str, name: str, *, owner: str, seconds: float) -> int | None:
        """Become, or stay, the one who renews."""
        return await self._engine.write(
            partial(sharing.acquire, account_id=account_id, name=name, owner=owner, now=self.wall(), seconds=seconds)
        )

    async def release_lease(self, account_id: str, name: str, *, owner: str) -> None:
        """Let the next one renew."""
        await self._engine.write(partial(sharing.release, account_id=account_id, name=name, owner=owner))

    async def put_delivery(
        self, account_id: str, *, key: str, lane: str, body: bytes, received_at: float, part: int = 0
    ) -> Admission:
        """Keep one event until a worker has handled it; when this returns NEW, it is on disk."""
        return await self._engine.write(
            partial(
                inbox.put,
                account_id=account_id,
                key=key,
                lane=lane,
                body=body,
                received_at=received_at,
                part=part,
                max_waiting=self.max_waiting,
                max_settled=self.max_entries,
            )
        )

    async def claim_deliveries(
        self, account_id: str, *, owner: str, now: float, lease_until: float, limit: int
    ) -> list[Delivery]:
        """Take up to `limit` that are due, oldest first."""
        return await self._engine.write(
            partial(inbox.claim, account_id=account_id, owner=owner, now=now, lease_until=lease_until, limit=limit)
        )

    async def renew_deliveries(self, account_id: str, *, owner: str, lease_until: float) -> int:
        """Extend all leases of a worker."""
        return await self._engine.write(
            partial(inbox.renew, account_id=account_id, owner=owner, lease_until=lease_until)
        )

    async def settle_delivery(self, account_id: str, key: str, *, owner: str) -> bool:
        """Mark it handled; its key stays known."""
        return await self._engine.write(partial(inbox.settle, account_id=account_id, key=key, owner=owner))

    async def retry_delivery(self, account_id: str, key: str, *, owner: str, due_at: float) -> bool:
        """Give it back, to be claimed from `due_at`."""
        return await self._engine.write(
            partial(inbox.retry, account_id=account_id, key=key, owner=owner, due_at=due_at)
        )

    async def dead_letter_delivery(self, account_id: str, key: str, *, owner: str, reason: str) -> bool:
        """Give it up and keep it aside."""
        return await self._engine.write(
            partial(inbox.bury, account_id=account_id, key=key, owner=owner, reason=reason, max_dead=self.max_dead)
        )

    async def release_deliveries(self, account_id: str, *, owner: str) -> int:
        """Give back all that a stopping worker holds."""
        return await self._engine.write(partial(inbox.release, account_id=account_id, owner=owner))

    async def delivery_counts(self, account_id: str) -> DeliveryCounts:
        """How many wait, are claimed, are dead."""
        return await self._engine.read(partial(inbox.counts, account_id=account_id))

    async def dead_deliveries(self, account_id: str, *, limit: int = 100) -> list[DeadDelivery]:
        """Those that were given up, oldest first."""
        return await self._engine.read(partial(inbox.dead, account_id=account_id, limit=limit))

    async def revive_delivery(self, account_id: str, key: str) -> bool:
        """Let a dead one be claimed again."""
        return await self._engine.write(partial(inbox.revive, account_id=account_id, key=key))

    async def forget(self, account_id: str, ext_consumer_id: str) -> None:
        """Erase the consumer, the token, all conversations, and what the inbox and the echoes hold of them.

        Overwritten in the file and gone from its log when this returns, unless another process is reading the log at
        this very moment: then with the next checkpoint. Backups, and copies that a file system keeps, are yours.
        """
        await self._engine.write(partial(_forget, account_id=account_id, ext_consumer_id=ext_consumer_id))
        await self._engine.wipe()

    async def aclose(self) -> None:
        """Close the file; idempotent."""
        await self._engine.aclose()

    async def _execute(self, statement: str, *values: object) -> None:
        await self._engine.write(lambda db: db.execute(statement, values))


def _put_consumer(db: sqlite3.Connection, *, record: ConsumerRecord, bound: int) -> None:
    (newest,) = db.execute(
        """
        INSERT OR REPLACE INTO consumers (account_id, ext_consumer_id, lp_consumer_id, token)
        VALUES (?, ?, ?, ?) RETURNING id
        """,
        (record.account_id, record.ext_consumer_id, record.lp_consumer_id, record.token),
    ).fetchone()
    db.execute("DELETE FROM consumers WHERE id <= ?", (newest - bound,))


def _select_consumer(db: sqlite3.Connection, *, column: str, account_id: str, value: str) -> ConsumerRecord | None:
    row = db.execute(
        f"SELECT ext_consumer_id, lp_consumer_id, token FROM consumers WHERE account_id = ? AND {column} = ?"  # noqa: S608 - a column name from above
        " ORDER BY id DESC LIMIT 1",
        (account_id, value),
    ).fetchone()
    if row is None:
        return None
    return ConsumerRecord(account_id=account_id, ext_consumer_id=row[0], lp_consumer_id=row[1], token=row[2])


def _put_conversation(db: sqlite3.Connection, *, record: ConversationRecord, bound: int) -> None:
    (newest,) = db.execute(
        """
        INSERT OR REPLACE INTO conversations (
            account_id, conversation_id, ext_consumer_id, client_properties, opened_at, is_closed
        ) VALUES (:account_id, :conversation_id, :ext_consumer_id, coalesce(:client_properties, (
            SELECT client_properties FROM conversations
            WHERE account_id = :account_id AND conversation_id = :conversation_id
        )), :opened_at, :is_closed) RETURNING id
        """,
        attrs.asdict(record),
    ).fetchone()
    db.execute("DELETE FROM conversations WHERE id <= ?", (newest - bound,))


def _select_conversation(
    account_id: str, where: str, value: str, db: sqlite3.Connection
) -> ConversationRecord | None:
    statement = f"SELECT {_CONVERSATION_COLUMNS} FROM conversations WHERE {where}"  # noqa: S608 - fixed texts from above
    row = db.execute(statement, (account_id, value)).fetchone()
    if row is None:
        return None
    return ConversationRecord(
        account_id=account_id,
        conversation_id=row[0],
        ext_consumer_id=row[1],
        client_properties=row[2],
        opened_at=row[3],
        is_closed=bool(row[4]),
    )


def _select_contact(
    account_id: str, ext_consumer_id: str, db: sqlite3.Connection
) -> tuple[ConsumerRecord | None, ConversationRecord | None]:
    consumer = _select_consumer(db, column="ext_consumer_id", account_id=account_id, value=ext_consumer_id)
    return consumer, _select_conversation(account_id, _OPEN, ext_consumer_id, db)


def _first_time(db: sqlite3.Connection, *, account_id: str, key: str, bound: int) -> bool:
    row = db.execute(
        "INSERT INTO seen (account_id, key) VALUES (?, ?) ON CONFLICT DO NOTHING RETURNING id", (account_id, key)
    ).fetchone()
    if row is None:
        return False
    db.execute("DELETE FROM seen WHERE id <= ?", (row[0] - bound,))
    return True


def _put_echo(db: sqlite3.Connection, *, echo: tuple[str, str, str, int | None], bound: int) -> None:
    (newest,) = db.execute(
        "INSERT INTO echoes (account_id, conversation_id, digest, sequence) VALUES (?, ?, ?, ?) RETURNING id", echo
    ).fetchone()
    db.execute("DELETE FROM echoes WHERE id <= ?", (newest - bound,))


def _take_echo(db: sqlite3.Connection, *, echo: tuple[str, str, str]) -> tuple[bool, int | None]:
    row = db.execute(
        """
        DELETE FROM echoes WHERE id = (
            SELECT min(id) FROM echoes WHERE account_id = ? AND conversation_id = ? AND digest = ?
        ) RETURNING sequence
        """,
        echo,
    ).fetchone()
    return (False, None) if row is None else (True, row[0])


def _forget(db: sqlite3.Connection, *, account_id: str, ext_consumer_id: str) -> None:
    of_consumer = (account_id, ext_consumer_id)
    ids = db.execute(
        "SELECT conversation_id FROM conversations WHERE account_id = ? AND ext_consumer_id = ?", of_consumer
    ).fetchall()
    for (conversation_id,) in ids:
        of_conversation = (account_id, conversation_id)
        db.execute("DELETE FROM deliveries WHERE account_id = ? AND lane = ?", of_conversation)
        db.execute("DELETE FROM echoes WHERE account_id = ? AND conversation_id = ?", of_conversation)
        sharing.forget(db, account_id, conversation_id)
    db.execute("DELETE FROM conversations WHERE account_id = ? AND ext_consumer_id = ?", of_consumer)
    db.execute("DELETE FROM consumers WHERE account_id = ? AND ext_consumer_id = ?", of_consumer)
    ledger.forget(db, account_id, ext_consumer_id)
