"""The store in one PostgreSQL database: shared by the processes of many machines."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial

import attrs

from connector_async._arguments import check_kind
from connector_async.store import _postgres_inbox as inbox
from connector_async.store import _postgres_ledger as ledger
from connector_async.store import _postgres_outbox as lanes
from connector_async.store import _postgres_records as records
from connector_async.store import _postgres_tokens as app_tokens
from connector_async.store._postgres_engine import PostgresEngine
from connector_async.store._postgres_schema import MIGRATIONS
from connector_async.store._token_records import app_identity, opened, sealed
from connector_async.store.base import (
    Admission,
    ConsumerRecord,
    ConversationRecord,
    DeadDelivery,
    Delivery,
    DeliveryCounts,
)
from connector_async.store.outbox import (
    Advance,
    Claim,
    Outbox,
    OutboxCounts,
    OutboxEntry,
    OutboxMessage,
    PutResult,
    Settlement,
)
from connector_async.store.tokens import SharedToken, TokenSeal, check_seal

__all__ = ["PostgresStore"]


@attrs.define(eq=False)
class PostgresStore:
    """Consumers, conversations, the durable inbox and the outbox in one schema of a database.

        store = PostgresStore("postgresql://app@db.example/app", tokens=SealedTokens(os.environ["TOKEN_KEY"]))

    Needs the extra `postgres`, PostgreSQL 12 or newer, and, behind a pooler, one that pools sessions. Connections are
    opened at first use, and anew in a process that was forked. On asyncio, and used by one event loop at a time. The
    leases of the outbox and of the AppJWT run by the database's clock.

    Args:
        dsn: The database, as libpq reads it: `postgresql://user@host/database` or `host=… dbname=…`.
        tokens: How tokens are written. None: they are not, and are fetched again after a restart.
        max_entries: How many consumers, conversations, seen keys, receipts, handled deliveries and accepted messages
            are remembered at most, each, over all accounts; those put longest ago go first. Of accepted messages up
            to a thousandth more may be there.
        max_waiting: How many deliveries, and how many messages, of one account may wait. Processes that put at the
            same instant may exceed it by what they put.
        max_dead: How many deliveries that were given up are kept for each account, and how many messages that ended
            other than accepted; of those up to a tenth more may be there.
        schema: The schema of the tables; made when it is not there, migrated when it is older than this package.
        max_connections: How many connections this store opens at most.
        patience: Seconds to wait for a connection, and for a row that another process has locked.

    Every method raises StoreUnavailable when the database cannot be used, and RuntimeError after `aclose`.

    Raises:
        ConfigurationError: `dsn` or `schema` is not of that form, or psycopg is not installed.
    """

    dsn: str = attrs.field(repr=False)
    tokens: TokenSeal | None = attrs.field(default=None, kw_only=True, validator=check_seal)
    max_entries: int = attrs.field(default=1_000_000, kw_only=True, validator=attrs.validators.ge(1))
    max_waiting: int = attrs.field(default=1_000_000, kw_only=True, validator=attrs.validators.ge(1))
    max_dead: int = attrs.field(default=10_000, kw_only=True, validator=attrs.validators.ge(1))
    schema: str = attrs.field(default="connector_async", kw_only=True)
    max_connections: int = attrs.field(default=10, kw_only=True, validator=attrs.validators.ge(1))
    patience: float = attrs.field(default=10.0, kw_only=True, validator=attrs.validators.gt(0))
    _engine: PostgresEngine = attrs.field(init=False, repr=False)
    _outbox: Outbox = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        check_kind("dsn", self.dsn, str, "the address of a database, such as postgresql://user@host/db")
        self._engine = PostgresEngine(self.dsn, self.schema, MIGRATIONS, self.max_connections, self.patience)
        self._outbox = _PostgresOutbox(self._engine, self.max_entries, self.max_waiting, self.max_dead)

    @property
    def durable(self) -> bool:
        """True: what was put survives this process, and what the database survives."""
        return True

    @property
    def outbox(self) -> Outbox:
        """The messages on their way out."""
        return self._outbox

    @property
    def shares_tokens(self) -> bool:
        """Whether this store was given a way to write tokens."""
        return self.tokens is not None

    async def put_consumer(self, record: ConsumerRecord) -> None:
        """Keep a consumer."""
        kept = sealed(self.tokens, record)
        await self._engine.run(partial(records.put_consumer, record=kept, token=kept.token, bound=self.max_entries))

    async def get_consumer(self, account_id: str, ext_consumer_id: str) -> ConsumerRecord | None:
        """The consumer with this channel id."""
        row = await self._engine.run(
            partial(records.get_consumer, account_id=account_id, ext_consumer_id=ext_consumer_id)
        )
        return opened(self.tokens, row)

    async def find_consumer(self, account_id: str, lp_consumer_id: str) -> ConsumerRecord | None:
        """The consumer with the cloud's id."""
        row = await self._engine.run(
            partial(records.find_consumer, account_id=account_id, lp_consumer_id=lp_consumer_id)
        )
        return opened(self.tokens, row)

    async def drop_consumer_token(self, account_id: str, ext_consumer_id: str) -> None:
        """Forget a token that was refused."""
        await self._engine.run(
            partial(records.drop_consumer_token, account_id=account_id, ext_consumer_id=ext_consumer_id)
        )

    async def put_conversation(self, record: ConversationRecord) -> None:
        """Keep a conversation."""
        await self._engine.run(partial(records.put_conversation, record=record, bound=self.max_entries))

    async def get_conversation(self, account_id: str, conversation_id: str) -> ConversationRecord | None:
        """The conversation with this id, open or closed."""
        return await self._engine.run(
            partial(records.get_conversation, account_id=account_id, conversation_id=conversation_id)
        )

    async def get_open_conversation(self, account_id: str, ext_consumer_id: str) -> ConversationRecord | None:
        """The consumer's newest conversation that is not closed."""
        return await self._engine.run(
            partial(records.get_open_conversation, account_id=account_id, ext_consumer_id=ext_consumer_id)
        )

    async def get_contact(
        self, account_id: str, ext_consumer_id: str
    ) -> tuple[ConsumerRecord | None, ConversationRecord | None]:
        """The consumer and its newest conversation that is not closed."""
        consumer, conversation = await self._engine.run(
            partial(records.get_contact, account_id=account_id, ext_consumer_id=ext_consumer_id)
        )
        return opened(self.tokens, consumer), conversation

    async def close_conversation(self, account_id: str, conversation_id: str) -> None:
        """Mark it closed; unknown ids are ignored."""
        await self._engine.run(
            partial(records.close_conversation, account_id=account_id, conversation_id=conversation_id)
        )

    async def first_time(self, account_id: str, key: str) -> bool:
        """Whether this key was never given before by any worker, among the last `max_entries`."""
        return await self._engine.run(
            partial(records.first_time, account_id=account_id, key=key, bound=self.max_entries)
        )

    async def put_echo(self, account_id: str, conversation_id: str, digest: str, sequence: int | None) -> None:
        """Keep the echo of a consumer's message that no send of this worker was waiting for."""
        echo = (account_id, conversation_id, digest, sequence)
        await self._engine.run(partial(records.put_echo, echo=echo, bound=self.max_entries))

    async def take_echo(self, account_id: str, conversation_id: str, digest: str) -> tuple[bool, int | None]:
        """Whether such an echo came to any worker, and its sequence; each is given out once."""
        return await self._engine.run(
            partial(records.take_echo, account_id=account_id, conversation_id=conversation_id, digest=digest)
        )

    async def put_receipt(self, account_id: str, conversation_id: str, status: str, sequences: Sequence[int]) -> None:
        """Keep that messages have a status, for whichever worker waits for it."""
        await self._engine.run(
            partial(
                records.put_receipt,
                account_id=account_id,
                conversation_id=conversation_id,
                status=status,
                sequences=sequences,
                bound=self.max_entries,
            )
        )

    async def receipts_of(self, account_id: str, conversation_id: str, sequence: int) -> frozenset[str]:
        """The statuses that were told of a message to any worker."""
        return await self._engine.run(
            partial(records.receipts_of, account_id=account_id, conversation_id=conversation_id, sequence=sequence)
        )

    async def put_delivery(
        self, account_id: str, *, key: str, lane: str, body: bytes, received_at: float, part: int = 0
    ) -> Admission:
        """Keep one event until a worker has handled it; when this returns NEW, it is on disk."""
        return await self._engine.transact(
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
        return await self._engine.transact(
            partial(inbox.claim, account_id=account_id, owner=owner, now=now, lease_until=lease_until, limit=limit)
        )

    async def renew_deliveries(self, account_id: str, *, owner: str, lease_until: float) -> int:
        """Extend all leases of a worker."""
        return await self._engine.run(
            partial(inbox.renew, account_id=account_id, owner=owner, lease_until=lease_until)
        )

    async def settle_delivery(self, account_id: str, key: str, *, owner: str) -> bool:
        """Mark it handled; its key stays known."""
        return await self._engine.run(partial(inbox.settle, account_id=account_id, key=key, owner=owner))

    async def retry_delivery(self, account_id: str, key: str, *, owner: str, due_at: float) -> bool:
        """Give it back, to be claimed from `due_at`."""
        return await self._engine.run(
            partial(inbox.retry, account_id=account_id, key=key, owner=owner, due_at=due_at)
        )

    async def dead_letter_delivery(self, account_id: str, key: str, *, owner: str, reason: str) -> bool:
        """Give it up and keep it aside."""
        return await self._engine.transact(
            partial(inbox.bury, account_id=account_id, key=key, owner=owner, reason=reason, max_dead=self.max_dead)
        )

    async def release_deliveries(self, account_id: str, *, owner: str) -> int:
        """Give back all that a stopping worker holds."""
        return await self._engine.run(partial(inbox.release, account_id=account_id, owner=owner))

    async def delivery_counts(self, account_id: str) -> DeliveryCounts:
        """How many wait, are claimed, are dead."""
        return await self._engine.run(partial(inbox.counts, account_id=account_id))

    async def dead_deliveries(self, account_id: str, *, limit: int = 100) -> list[DeadDelivery]:
        """Those that were given up, oldest first."""
        return await self._engine.run(partial(inbox.dead, account_id=account_id, limit=limit))

    async def revive_delivery(self, account_id: str, key: str) -> bool:
        """Let a dead one be claimed again."""
        return await self._engine.run(partial(inbox.revive, account_id=account_id, key=key))

    async def get_app_token(self, account_id: str, name: str) -> SharedToken | None:
        """The newest one, if it has not ended; None too where this store's key does not open it."""
        found = await self._engine.run(partial(app_tokens.get, account_id=account_id, name=name))
        if self.tokens is None or found is None:
            return None
        value = self.tokens.open(app_identity(account_id, name), found[0])
        return SharedToken(value=value, seconds=found[1]) if value else None

    async def put_app_token(self, account_id: str, name: str, *, value: str, seconds: float, fence: int) -> bool:
        """Keep a token; False when one was put under a later lease, or this store writes no tokens."""
        if self.tokens is None:
            return False
        token = self.tokens.seal(app_identity(account_id, name), value)
        return await self._engine.run(
            partial(app_tokens.put, account_id=account_id, name=name, token=token, seconds=seconds, fence=fence)
        )

    async def acquire_lease(self, account_id: str, name: str, *, owner: str, seconds: float) -> int | None:
        """Become, or stay, the one who renews; the fencing number, or None while another holds the lease."""
        return await self._engine.run(
            partial(app_tokens.acquire, account_id=account_id, name=name, owner=owner, seconds=seconds)
        )

    async def release_lease(self, account_id: str, name: str, *, owner: str) -> None:
        """Let the next one renew; ignored when the owner does not hold it."""
        await self._engine.run(partial(app_tokens.release, account_id=account_id, name=name, owner=owner))

    async def forget(self, account_id: str, ext_consumer_id: str) -> None:
        """Erase the consumer, the token, all conversations and messages, and what the inbox and the echoes hold."""
        await self._engine.transact(partial(records.forget, account_id=account_id, ext_consumer_id=ext_consumer_id))
        await self._outbox.forget(account_id, ext_consumer_id)

    async def aclose(self) -> None:
        """Close all connections; idempotent."""
        await self._engine.aclose()


@attrs.define(eq=False)
class _PostgresOutbox:
    """What `Outbox` promises, each call one transaction."""

    _engine: PostgresEngine
    _max_entries: int
    _max_waiting: int
    _max_dead: int

    @property
    def durable(self) -> bool:
        return True

    async def put(self, account_id: str, messages: Sequence[OutboxMessage]) -> list[PutResult]:
        return await self._engine.transact(
            partial(lanes.put, account_id=account_id, messages=messages, max_waiting=self._max_waiting)
        )

    async def claim(self, account_id: str, *, owner: str, lease: float, limit: int) -> list[Claim]:
        return await self._engine.transact(
            partial(lanes.claim, account_id=account_id, owner=owner, lease=lease, limit=limit)
        )

    async def advance(
        self, account_id: str, settlements: Sequence[tuple[Claim, Settlement]], *, lease: float
    ) -> list[Advance]:
        return await self._engine.transact(
            partial(
                lanes.advance,
                account_id=account_id,
                settlements=settlements,
                lease=lease,
                max_settled=self._max_entries,
                max_dead=self._max_dead,
            )
        )

    async def renew(
        self, account_id: str, *, owner: str, lease: float, consumers: Collection[str] | None = None
    ) -> frozenset[str]:
        return await self._engine.transact(
            partial(lanes.renew, account_id=account_id, owner=owner, lease=lease, consumers=consumers)
        )

    async def release(self, account_id: str, claims: Sequence[Claim]) -> int:
        return await self._engine.transact(partial(lanes.release, account_id=account_id, claims=claims))

    async def counts(self, account_id: str) -> OutboxCounts:
        return await self._engine.run(partial(ledger.counts, account_id=account_id))

    async def next_due(self, account_id: str) -> float | None:
        return await self._engine.run(partial(lanes.next_due, account_id=account_id))

    async def find(self, account_id: str, message_id: str) -> OutboxEntry | None:
        return await self._engine.run(partial(ledger.find, account_id=account_id, message_id=message_id))

    async def exceptions(self, account_id: str, *, after: int = 0, limit: int = 100) -> list[tuple[int, OutboxEntry]]:
        return await self._engine.run(partial(ledger.exceptions, account_id=account_id, after=after, limit=limit))

    async def revive(self, account_id: str, message_id: str) -> bool:
        return await self._engine.transact(partial(ledger.revive, account_id=account_id, message_id=message_id))

    async def discard(self, account_id: str, message_id: str) -> bool:
        return await self._engine.transact(partial(ledger.discard, account_id=account_id, message_id=message_id))

    async def forget(self, account_id: str, ext_consumer_id: str) -> None:
        await self._engine.transact(partial(ledger.forget, account_id=account_id, ext_consumer_id=ext_consumer_id))
