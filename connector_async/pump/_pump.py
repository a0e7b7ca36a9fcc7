"""The pump's life: entered, claiming, renewing its leases, stopped; nothing is lost either way."""

from __future__ import annotations

import logging
import math
import os
import socket
import uuid
from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Self, cast

import anyio
import attrs
from anyio.abc import TaskGroup

from connector_async._arguments import check_kind, kind_of
from connector_async._concurrency import Clock, Slot, current_clock
from connector_async.errors import ConfigurationError
from connector_async.pump._feeder import Feeder
from connector_async.pump._keeper import Keeper, Pauses
from connector_async.pump._lane import Lanes
from connector_async.pump._messages import PumpMessage, to_outbox
from connector_async.pump._policy import PumpPolicy
from connector_async.pump._report import PumpReport, PumpStats
from connector_async.pump._settler import OnSettled, Settler
from connector_async.session import ConnectorSession
from connector_async.store.outbox import Outbox, OutboxCounts, OutboxMessage, OutboxStore, PutResult

__all__ = ["Pump"]

logger = logging.getLogger("connector_async.pump")

_MOST_CLAIMS = 500  # at once: a statement of a size that every engine takes
_POLL = 1.0  # seconds between looks for what other processes have put
_LOOK = 0.1  # seconds between looks whether all is done
_LEAST_WAIT = 0.01  # seconds: what is due now, and cannot be claimed, must not keep the loop busy
_SHORT_DRAIN = 2.0  # seconds for what is under way when the block is left by an error
_LAST_WORDS_WITHIN = 5.0  # seconds for writing down what became of it
_EXIT_DRAIN = 30.0


@attrs.frozen
class _Parts:
    """What exists while the pump is entered."""

    clock: Clock
    settler: Settler
    lanes: Lanes


class Pump:
    """Carries what is in an outbox to the cloud; every message is accounted for.

        async with ConnectorSession.from_env(store=store) as session, Pump(session, store) as pump:
            await pump.put(PumpMessage("order-1", "customer-42", "Is my order on its way?"))
            await pump.drained()

    Messages of one consumer go one after the other, those of many in parallel. Any number of pumps may share a
    durable outbox. Leaving the block stops it as `stop()` does; after an error what is under way has two seconds.
    Entered once, inside an entered session of the same event loop.

    Args:
        session: Sends the messages, and is left after the pump.
        outbox: An `Outbox`, or a store that has one.
        policy: What is done with messages that were not accepted.
        concurrency: Most messages under way at once; each has a consumer of its own.
        lease: Seconds until another pump may take over what this one has claimed, if it dies. With `SqliteStore` it
            need not wait so long where the kernel tells that the process has ended (not on Windows).
        on_settled: Called with the `Claim` and the `Settlement` of each message whose end was written down.

    Raises:
        ConfigurationError: A setting cannot work.
        TypeError: What is passed is of another kind.
    """

    def __init__(
        self,
        session: ConnectorSession,
        outbox: Outbox | OutboxStore,
        *,
        policy: PumpPolicy | None = None,
        concurrency: int = 1000,
        lease: float = 90.0,
        on_settled: OnSettled | None = None,
    ) -> None:
        check_kind("session", session, ConnectorSession, "a ConnectorSession")
        check_kind("outbox", outbox, (OutboxStore, Outbox), "an Outbox, or a store that has one")
        check_kind("policy", policy, (PumpPolicy, type(None)), "a PumpPolicy")
        if not _is_number(concurrency, int) or concurrency < 1:
            raise ConfigurationError(f"concurrency must be a whole number of at least 1, got {concurrency!r}")
        if not _is_number(lease, int, float) or not lease > 0:
            raise ConfigurationError(f"lease must be a number of seconds above 0, got {lease!r}")
        if on_settled is not None and not callable(on_settled):
            raise ConfigurationError(f"on_settled must be a callable, got {kind_of(on_settled)}")
        self._session = session
        self._policy = policy or PumpPolicy()
        self._concurrency = concurrency
        self._counters = PumpStats()
        self._keeper = Keeper(
            cast("Outbox", getattr(outbox, "outbox", outbox)),
            session.account_id,
            lease,
            self._counters,
        )
        self._on_settled = on_settled
        self._parts: _Parts | None = None
        self._life: AbstractAsyncContextManager[None] | None = None
        self._stop_at = math.inf
        self._stopping = anyio.Event()
        self._work = _Bell()  # something may be due
        self._room = _Bell()  # a lane has ended
        self._hurry = _Bell()  # a lane has ended, or there is less time
        self._ended = anyio.Event()
        self._counts = OutboxCounts()

    def __repr__(self) -> str:
        parts = self._parts
        return f"Pump({self._keeper.account_id!r}, {0 if parts is None else len(parts.lanes)} in flight)"

    # Entering and leaving

    async def __aenter__(self) -> Self:
        if self._life is not None:
            raise RuntimeError("a pump is entered once: build another")
        if not self._session.health().live:
            raise RuntimeError("the pump's session is not entered, or closed: enter it first, around the pump")
        # Here, not where it is built: that may have been before the process was forked, in several children.
        self._keeper.owner = f"{socket.gethostname()}/{os.getpid()}/{uuid.uuid4().hex[:12]}"
        self._life = self._live()
        await self._life.__aenter__()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        return None if self._life is None else await self._life.__aexit__(exc_type, exc, traceback)

    @asynccontextmanager
    async def _live(self) -> AsyncGenerator[None]:
        failure: BaseException | None = None
        try:
            async with anyio.create_task_group() as task_group:
                self._parts = self._assemble(task_group)
                task_group.start_soon(self._run, name="connector_async pump")
                try:
                    yield
                    await self.stop(_EXIT_DRAIN)
                except BaseException as error:  # noqa: BLE001 - raised again below, outside the task group
                    failure = error
                    if isinstance(error, Exception):
                        with anyio.move_on_after(_SHORT_DRAIN + _LAST_WORDS_WITHIN, shield=True):
                            await self.stop(_SHORT_DRAIN)
                finally:
                    task_group.cancel_scope.cancel()
        finally:
            await self._write_rest()
            self._ended.set()
        if failure is not None:
            # Not from inside the task group, which would wrap it.
            raise failure

    def _assemble(self, task_group: TaskGroup) -> _Parts:
        clock = current_clock(task_group)
        settler = Settler(self._keeper, clock, self._on_settled)
        lanes = Lanes(
            self._session,
            self._policy,
            keeper=self._keeper,
            settler=settler,
            clock=clock,
            on_end=self._lane_ended,
        )
        return _Parts(clock, settler, lanes)

    def _lane_ended(self) -> None:
        self._room.ring()
        self._hurry.ring()

    async def stop(self, drain: float = 30.0) -> None:
        """Claim no more, let what is under way end, write it down, and give back what was not sent.

        Called again with less time it takes less: `stop(0)` ends what is under way at once. Cancelling the call does
        not cancel the stop.

        Args:
            drain: Seconds for what is under way. What is left then was not sent, or is unknown.
        """
        parts = self._entered()
        self._stop_at = min(self._stop_at, parts.clock.time() + drain)
        parts.lanes.refusing = True
        self._stopping.set()
        for bell in (self._hurry, self._work, self._room):
            bell.ring()
        await self._ended.wait()

    @property
    def is_stopping(self) -> bool:
        """Whether it was told to stop, or has."""
        return self._stopping.is_set()

    # What it is given

    async def put(self, *messages: PumpMessage) -> list[PutResult]:
        """Write messages down; when this returns those ADDED are in the outbox: on disk, if it is a durable one.

        Raises:
            StoreUnavailable: None was written down.
            LocalProtocolError: One cannot be written as JSON; none was written down.
        """
        return await self._put([to_outbox(message) for message in messages])

    async def _put(self, messages: list[OutboxMessage]) -> list[PutResult]:
        results = await self._keeper.outbox.put(self._keeper.account_id, messages)
        added = sum(result is PutResult.ADDED for result in results)
        if added:
            self._counters.put += added
            self._work.ring()
        return results

    async def feed(self, messages: Iterable[PumpMessage] | AsyncIterable[PumpMessage]) -> int:
        """Write many messages down, reading no faster than the outbox has room.

        While the outbox is full or cannot be used it waits. It holds at most one batch in memory; when it is
        cancelled, or the pump stops, what it has read and not put is lost to the outbox: commit, or remember the
        line, by `put`'s results or the ids in the outbox.

        Returns:
            How many were added; the others were known already.

        Raises:
            Exception: What the source raised, or TypeError or LocalProtocolError for what is no message that can be
                written. What came before it is in the outbox then, and nothing after it was read.
        """
        parts = self._entered()
        return await Feeder(self._put, parts.clock, stopping=self._stopping).feed(messages)

    async def drained(self) -> None:
        """Return when nothing in the outbox is unsettled, save what a dead message holds; or the pump has stopped.

        The messages of other pumps on the same outbox count too.
        """
        lanes = self._entered().lanes
        while not self._ended.is_set():
            if not len(lanes) and await self._keeper.try_once(self._next_due) == math.inf:
                return
            with anyio.move_on_after(_LOOK):
                await self._ended.wait()

    async def _next_due(self) -> float:
        """Seconds until there is something to claim; for ever if there is nothing."""
        due = await self._keeper.outbox.next_due(self._keeper.account_id)
        return math.inf if due is None else due

    # What it says

    @property
    def stats(self) -> PumpStats:
        """Counters and gauges of this moment."""
        parts = self._parts
        return attrs.evolve(
            self._counters,
            in_flight=0 if parts is None else len(parts.lanes),
            unwritten=0 if parts is None else len(parts.settler),
        )

    async def report(self, *, limit: int = 1000) -> PumpReport:
        """How it stands: counts, the oldest age, and each exception up to `limit`. Raises nothing of the store's."""
        keeper = self._keeper
        counts = await keeper.try_once(lambda: keeper.outbox.counts(keeper.account_id))
        found = await keeper.try_once(lambda: keeper.outbox.exceptions(keeper.account_id, limit=limit + 1))
        self._counts = counts or self._counts
        return PumpReport(
            counts=self._counts,
            exceptions=tuple(entry for _, entry in (found or [])[:limit]),
            has_more_exceptions=len(found or []) > limit,
            stats=self.stats,
            store_failure=keeper.failure,
        )

    # What it does

    async def _run(self) -> None:
        parts = self._entered()
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(parts.settler.run, name="connector_async pump settler")
            task_group.start_soon(self._renew, parts, name="connector_async pump leases")
            task_group.start_soon(self._claim, parts, task_group, name="connector_async pump claims")
            await self._until_stopped(parts)
            task_group.cancel_scope.cancel()
        await self._write_rest()
        self._ended.set()

    async def _until_stopped(self, parts: _Parts) -> None:
        await self._stopping.wait()
        while len(parts.lanes) and (left := self._stop_at - parts.clock.time()) > 0:
            with anyio.move_on_after(left):
                await self._hurry.wait(parts.clock)
        parts.lanes.cut_all()
        with anyio.move_on_after(_LAST_WORDS_WITHIN):
            while len(parts.lanes):
                await self._hurry.wait(parts.clock)

    async def _write_rest(self) -> None:
        """All tasks have ended: write down what they left, even while being cancelled, but not for ever."""
        settler = self._entered().settler
        with anyio.move_on_after(_LAST_WORDS_WITHIN, shield=True):
            await settler.flush()
        if len(settler):
            logger.warning("%d ends could not be written down: their messages may be sent twice", len(settler))

    async def _claim(self, parts: _Parts, task_group: TaskGroup) -> None:
        pauses = Pauses()
        while not self.is_stopping:
            limit = min(self._concurrency - len(parts.lanes), _MOST_CLAIMS)
            if limit <= 0:
                await self._room.wait(parts.clock)
                continue
            self._work.hush()
            found = await self._claim_some(parts, task_group, limit)
            if found is None:
                await pauses.wait()
                continue
            pauses.reset()
            if found < limit:
                await self._rest(parts)

    async def _claim_some(self, parts: _Parts, task_group: TaskGroup, limit: int) -> int | None:
        """Claim lanes and start their tasks; how many, or None when the outbox fails."""
        keeper, asked_at = self._keeper, parts.clock.time()
        claims = await keeper.try_once(
            lambda: keeper.outbox.claim(keeper.account_id, owner=keeper.owner, lease=keeper.lease, limit=limit)
        )
        if claims is None:
            return None
        for claim in claims:
            lane = parts.lanes.take(claim, asked_at + keeper.lease)
            if lane is not None:
                task_group.start_soon(parts.lanes.carry, lane)
        return len(claims)

    async def _rest(self, parts: _Parts) -> None:
        """Wait until there may be something to claim: a message was put, or is due, here or elsewhere."""
        due = await self._keeper.try_once(self._next_due)
        with anyio.move_on_after(_POLL if due is None else min(max(due, _LEAST_WAIT), _POLL)):
            await self._work.wait(parts.clock)

    async def _renew(self, parts: _Parts) -> None:
        """Keep the leases alive; lanes that are no longer ours are not sent on."""
        pauses = Pauses()
        while True:
            await anyio.sleep(self._keeper.lease / 3)
            while len(parts.lanes) and not await self._renew_once(parts):
                await pauses.wait()
            pauses.reset()

    async def _renew_once(self, parts: _Parts) -> bool:
        keeper, asked_at = self._keeper, parts.clock.time()
        sending = [(lane, lane.claim) for lane in parts.lanes.all() if lane.is_sending]
        carried = parts.lanes.consumers()
        owned = await keeper.try_once(
            lambda: keeper.outbox.renew(keeper.account_id, owner=keeper.owner, lease=keeper.lease, consumers=carried)
        )
        if owned is None:
            return False
        for lane, claim in sending:
            if lane.claim is not claim or not lane.is_sending:
                continue  # it went on meanwhile, with a lease that is newer
            if claim.message.consumer in owned:
                lane.extend(asked_at + keeper.lease)
            else:
                logger.warning("another pump has taken a lane over")
                lane.cut()
        return True

    def _entered(self) -> _Parts:
        if self._parts is None:
            raise RuntimeError("the pump is not entered yet: use `async with Pump(...) as pump:`")
        return self._parts


class _Bell:
    """Rings for one waiter; a ring that nobody waits for is remembered."""

    __slots__ = ("_rung", "_slot")

    def __init__(self) -> None:
        self._rung = False
        self._slot: Slot | None = None

    def ring(self) -> None:
        """Let the waiter go on, or the next one not wait."""
        self._rung = True
        if self._slot is not None:
            self._slot.settle()

    def hush(self) -> None:
        """Forget rings of before."""
        self._rung = False

    async def wait(self, clock: Clock) -> None:
        """Return when it rings, at once if it has."""
        if not self._rung:
            self._slot = clock.slot()
            try:
                await self._slot
            finally:
                self._slot = None
        self._rung = False


def _is_number(value: object, *kinds: type) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool)
