"""The outbox of the SQLite store: what is put is on disk, and lanes are shared by the processes of one machine."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Collection, Sequence
from functools import partial

import attrs

from connector_async.store import _sqlite_lanes as lanes
from connector_async.store import _sqlite_ledger as ledger
from connector_async.store._sqlite_clock import SteadyClock
from connector_async.store._sqlite_engine import SqliteEngine
from connector_async.store._sqlite_presence import Presence
from connector_async.store.outbox import (
    Advance,
    Claim,
    OutboxCounts,
    OutboxEntry,
    OutboxMessage,
    PutResult,
    Settlement,
)

__all__ = ["SqliteOutbox"]


@attrs.define(eq=False)
class SqliteOutbox:
    """Made by `SqliteStore.outbox`. See `Outbox` for what each method does.

    Args:
        wall: A clock of the caller's own, in seconds. The wall's is taken for one that nobody sets; see
            `SteadyClock`.
    """

    engine: SqliteEngine = attrs.field(repr=False)
    max_waiting: int = attrs.field(kw_only=True)
    max_settled: int = attrs.field(kw_only=True)
    max_dead: int = attrs.field(kw_only=True)
    wall: Callable[[], float] = attrs.field(default=time.time, kw_only=True, repr=False)
    _clock: SteadyClock = attrs.field(factory=SteadyClock.of_this_boot, init=False, repr=False)
    _presence: Presence = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._presence = Presence(self.engine.path)
        self.engine.on_close.append(self._presence.leave)

    def _now(self, db: sqlite3.Connection, *, writes: bool = True) -> float:
        return self._clock.now(db, writes=writes) if self.wall is time.time else self.wall()

    @property
    def durable(self) -> bool:
        """True: what was put survives this process and a loss of power."""
        return True

    async def put(self, account_id: str, messages: Sequence[OutboxMessage]) -> list[PutResult]:
        """Keep messages; those ADDED are on disk."""
        return await self.engine.write(
            lambda db: lanes.put(db, account_id, messages, now=self._now(db), max_waiting=self.max_waiting)
        )

    async def claim(self, account_id: str, *, owner: str, lease: float, limit: int) -> list[Claim]:
        """Take up to `limit` lanes that are free and due, longest due first."""

        def claim(db: sqlite3.Connection) -> list[Claim]:
            now = self._now(db)
            self._presence.hold(owner)
            for file, owners in self._presence.dead().items():
                if not lanes.inherit(db, owners, now=now):
                    # Not in the transaction that takes from them, which may still fail.
                    self._presence.bury(file)
            return lanes.claim(db, account_id, owner=owner, now=now, lease=lease, limit=limit)

        return await self.engine.write(claim)

    async def advance(
        self, account_id: str, settlements: Sequence[tuple[Claim, Settlement]], *, lease: float
    ) -> list[Advance]:
        """Settle heads, and begin the next of each lane."""
        return await self.engine.write(
            lambda db: lanes.advance(
                db,
                account_id,
                settlements,
                now=self._now(db),
                lease=lease,
                max_settled=self.max_settled,
                max_dead=self.max_dead,
            )
        )

    async def renew(
        self, account_id: str, *, owner: str, lease: float, consumers: Collection[str] | None = None
    ) -> frozenset[str]:
        """Extend the leases of a pump; the lanes that it still owns."""
        return await self.engine.write(
            lambda db: lanes.renew(db, account_id, owner=owner, until=self._now(db) + lease, consumers=consumers)
        )

    async def release(self, account_id: str, claims: Sequence[Claim]) -> int:
        """Give lanes back whose heads were certainly not sent."""
        return await self.engine.write(lambda db: lanes.release(db, account_id, claims, now=self._now(db)))

    async def counts(self, account_id: str) -> OutboxCounts:
        """How many are where."""
        return await self.engine.read(lambda db: ledger.counts(db, account_id, now=self._now(db, writes=False)))

    async def next_due(self, account_id: str) -> float | None:
        """Seconds until a lane can be claimed."""
        return await self.engine.read(lambda db: lanes.next_due(db, account_id, now=self._now(db, writes=False)))

    async def find(self, account_id: str, message_id: str) -> OutboxEntry | None:
        """One message."""
        return await self.engine.read(partial(ledger.find, account_id=account_id, message_id=message_id))

    async def exceptions(self, account_id: str, *, after: int = 0, limit: int = 100) -> list[tuple[int, OutboxEntry]]:
        """Those that ended otherwise than accepted once, by number."""
        return await self.engine.read(partial(ledger.exceptions, account_id=account_id, after=after, limit=limit))

    async def revive(self, account_id: str, message_id: str) -> bool:
        """Let a dead one be sent again, in its old place."""
        return await self.engine.write(lambda db: ledger.revive(db, account_id, message_id, now=self._now(db)))

    async def discard(self, account_id: str, message_id: str) -> bool:
        """Let the messages behind a final one go on."""
        return await self.engine.write(lambda db: ledger.discard(db, account_id, message_id, now=self._now(db)))

    async def forget(self, account_id: str, ext_consumer_id: str) -> None:
        """Erase a consumer's messages."""
        await self.engine.write(partial(ledger.forget, account_id=account_id, ext_consumer_id=ext_consumer_id))
        await self.engine.wipe()
