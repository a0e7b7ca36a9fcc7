"""The durable inbox from a worker's side: puts events in, claims what is due, settles what was handled."""

from __future__ import annotations

import hashlib
import logging
import re
import time
import uuid
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

import anyio
import attrs

from connector_async.errors import StoreUnavailable, UnreadableNotification
from connector_async.store.base import Admission, Delivery
from connector_async.webhooks._parts import Part, split
from connector_async.webhooks._ports import SessionPort
from connector_async.webhooks._runner import Failure, Result
from connector_async.webhooks.events import DeliveryDead
from connector_async.webhooks.incoming import Turn
from connector_async.webhooks.receiver import read_notification
from connector_async.webhooks.settings import WebhookSettings, WebhookStats

__all__ = ["DurableInbox"]

T = TypeVar("T")

logger = logging.getLogger("connector_async.webhooks")

_MAX_REMEMBERED = 10_000
_FIRST_TURN = Turn()
_UNREADABLE = "unreadable "
"""Begins the keys of deliveries that are genuine and yet no notification; the digest of the body follows."""

_CONVERSATION_NAMED = re.compile(rb'"(?:conversationId|convId)"\s*:\s*"([\x20-\x21\x23-\x5b\x5d-\x7e]{1,64})"')
"""Of several the first, without escapes: a guess, but about a body that nobody could read."""


@attrs.define(eq=False)
class DurableInbox:
    """What one worker has to do with the deliveries in the store.

    Args:
        port: The session.
        settings: Limits and patience.
        stats: Where to count.
        room: How many more events the worker can take on now.
        take: Hands an event over to be handled; it comes back through `finish`. False: there is nothing to do for it.
        wall_clock: Seconds that all workers share.
    """

    port: SessionPort
    settings: WebhookSettings
    stats: WebhookStats
    room: Callable[[], int]
    take: Callable[[Part, Delivery], bool]
    wall_clock: Callable[[], float] = time.time
    owner: str = attrs.field(factory=lambda: uuid.uuid4().hex)
    """New for each run: leases of an earlier one with the same name must not look like ours."""
    claimed: int = attrs.field(default=0, init=False)
    """Claims of which the store was not told yet what became of them."""
    _unbegun: dict[str, Delivery] = attrs.field(factory=dict[str, Delivery], init=False)
    """Claims whose turn has not come, oldest first."""
    _lost: dict[str, Delivery] = attrs.field(factory=dict[str, Delivery], init=False)
    """Claims that may be others' by now, to be given back before anything is claimed: what is behind them waits."""
    _owed: deque[Callable[[], Awaitable[object]]] = attrs.field(
        factory=deque[Callable[[], Awaitable[object]]], init=False
    )
    """What the store could not be told."""
    _parsed: OrderedDict[str, Part] = attrs.field(factory=OrderedDict[str, Part], init=False)
    _turns: OrderedDict[str, Turn] = attrs.field(factory=OrderedDict[str, Turn], init=False)
    """How events that failed in this process are handed out next."""
    _wake: anyio.Event = attrs.field(factory=anyio.Event, init=False)
    _ended: anyio.Event | None = attrs.field(default=None, init=False)
    """Set when the task that claims has ended; None before it began."""
    _is_stopped: bool = attrs.field(default=False, init=False)
    _renew_at: float = attrs.field(default=0.0, init=False)
    _ours_until: float = attrs.field(default=0.0, init=False)
    """When the first lease of those claimed ends."""
    _lapsed_at: float = attrs.field(default=0.0, init=False)
    _renewing: anyio.Lock = attrs.field(factory=anyio.Lock, init=False)

    def start(self) -> None:
        """Work off what is in the store, also what earlier runs and other workers left; idempotent."""
        if self._ended is None and not self._is_stopped:
            self._ended = anyio.Event()
            self.port.start_soon(self._pump, self._ended)

    def wake(self) -> None:
        """There may be something to claim, or room for it."""
        self._wake.set()

    def stop(self) -> None:
        """Claim no more."""
        self._is_stopped = True
        self._wake.set()

    async def put(self, part: Part, body: bytes) -> Admission:
        """Keep one event.

        Raises:
            StoreUnavailable: It is not kept.
        """
        admission = await self._put(part.key or "", part.conversation_id, body, part.index)
        if admission is Admission.NEW:
            _remember(self._parsed, part.key or "", part)
        return admission

    async def put_unreadable(self, body: bytes) -> Admission:
        """Keep what is genuine and yet no notification, to be given up; revived, it is read once more.

        It is kept with the conversation that it names in whatever place, so that `Store.forget` finds it.

        Raises:
            StoreUnavailable: It is not kept.
        """
        named = _CONVERSATION_NAMED.search(body)
        lane = "" if named is None else named[1].decode()
        return await self._put(_UNREADABLE + hashlib.sha256(body).hexdigest(), lane, body, 0)

    async def _put(self, key: str, lane: str, body: bytes, part: int) -> Admission:
        admission = await self.port.store.put_delivery(
            self.port.account_id, key=key, lane=lane, body=body, part=part, received_at=self.wall_clock()
        )
        # Also for one that is known: it may be what an earlier run left.
        self.start()
        self.wake()
        return admission

    @property
    def at_hand(self) -> int:
        """Claims that are in memory, to be handled."""
        return self.claimed - len(self._owed)

    def turn_of(self, delivery: Delivery) -> Turn:
        """How a claimed event is handed out: not to the handlers that succeeded with it in this process."""
        turn = self._turns.get(delivery.key, _FIRST_TURN)
        return turn if turn.attempt >= delivery.attempts else attrs.evolve(turn, attempt=delivery.attempts)

    def note_failure(self, key: str, turn: Turn, result: Result) -> None:
        """Remember what the next attempt need not repeat."""
        _remember(self._turns, key, Turn(attempt=turn.attempt + 1, done=tuple(result.done)))

    async def begin(self, delivery: Delivery) -> bool:
        """Whether a claim is certainly still ours, now that its turn has come: others may be at it else.

        A worker that was paused, or whose loop a handler blocked, finds much in memory that it has lost meanwhile.
        """
        if self.wall_clock() >= self._ours_until:
            try:
                await self._renew()
            except Exception:
                logger.exception("leases have ended and cannot be renewed")
                self._lose()
        return self._unbegun.pop(delivery.key, None) is not None

    async def finish(self, delivery: Delivery, result: Result | None) -> float | None:
        """Settle an event that was handled (None: dropped), or see to its next attempt: seconds until then.

        An event whose handlers failed as often as it may is given up; so is one that killed its worker as often.
        """
        if result is not None and result.failures:
            self.note_failure(delivery.key, self.turn_of(delivery), result)
        try:
            return await self._tell(partial(self._conclude, delivery, result))
        except Exception:
            logger.exception("the store did not take note that an event of %s was handled", delivery.lane)
            return None

    async def release(self) -> None:
        """Give back what is claimed and not done, also what was being claimed when `stop` was called."""
        if self._ended is None:
            return
        await self._ended.wait()
        try:
            await self.port.store.release_deliveries(self.port.account_id, owner=self.owner)
        except Exception:
            logger.exception("claimed events could not be given back; others take them when the lease ends")

    async def _tell(self, step: Callable[[], Awaitable[T]]) -> T:
        """Tell the store what became of a claim. While it cannot hear it, the claim stays ours, and so does the step.

        Raises:
            Exception: As the store; the step is taken again when next there is a look into the store.
        """
        try:
            told = await step()
        except BaseException:
            self._owed.append(step)
            raise
        self.claimed -= 1
        self._wake.set()
        return told

    async def _conclude(self, delivery: Delivery, result: Result | None) -> float | None:
        if result is None or not result.failures:
            await self._settle(delivery)
            return None
        if delivery.attempts >= self.settings.max_attempts:
            await self._bury(delivery, _reason(result.failures[-1]))
            return None
        return await self._try_again(delivery)

    async def _settle(self, delivery: Delivery) -> None:
        self._turns.pop(delivery.key, None)
        is_mine = await self.port.store.settle_delivery(delivery.account_id, delivery.key, owner=self.owner)
        if not is_mine:
            logger.warning("an event of %s was handled, but its lease had ended: others may repeat it", delivery.lane)
            self._note_loss(self.wall_clock())

    async def _try_again(self, delivery: Delivery) -> float:
        wait = self.settings.retry_wait(delivery.attempts)
        await self._retry(delivery, self.wall_clock() + wait)
        return wait

    async def _retry(self, delivery: Delivery, due_at: float) -> None:
        await self.port.store.retry_delivery(delivery.account_id, delivery.key, owner=self.owner, due_at=due_at)

    async def _bury(self, delivery: Delivery, reason: str) -> None:
        self._turns.pop(delivery.key, None)
        await self.port.store.dead_letter_delivery(delivery.account_id, delivery.key, owner=self.owner, reason=reason)
        self.stats.dead += 1
        whose = delivery.lane or "a conversation that cannot be told"
        logger.error("an event of %s is given up after %d attempts: %s", whose, delivery.attempts, reason)
        self.port.emit(
            DeliveryDead(conversation_id=delivery.lane, key=delivery.key, attempts=delivery.attempts, reason=reason)
        )

    async def _pump(self, ended: anyio.Event) -> None:
        """Claim what is due while there is room, and keep the leases, until stopped."""
        try:
            while not self._is_stopped:
                self._wake = anyio.Event()
                if not await self._claim_safely():
                    with anyio.move_on_after(self.settings.poll_interval):
                        await self._wake.wait()
        finally:
            ended.set()

    async def _claim_safely(self) -> bool:
        """Whether there may be more to claim at once."""
        try:
            await self._renew()
            await self._give_lost_back()
            has_more = await self._claim()
            for _ in range(len(self._owed)):
                await self._tell(self._owed.popleft())
            return has_more
        except Exception:
            logger.exception("the store gives no events; trying again in %.1f s", self.settings.poll_interval)
            return False

    async def _claim(self) -> bool:
        limit = self.room()
        if limit <= 0:
            return False
        now = self.wall_clock()
        deliveries = await self.port.store.claim_deliveries(
            self.port.account_id, owner=self.owner, now=now, lease_until=now + self.settings.lease, limit=limit
        )
        if not self.claimed:
            self._ours_until = now + self.settings.lease
        self.claimed += len(deliveries)
        for delivery in deliveries:
            try:
                await self._open(delivery)
            except Exception:
                # The others are claimed as well: they must not be left lying.
                logger.exception("an event of %s could not be given up", delivery.lane)
        return len(deliveries) == limit

    async def _open(self, delivery: Delivery) -> None:
        if self._lost:
            # Noticed while this was claimed, which may stand behind some of it.
            self._lost[delivery.key] = delivery
            return
        part = self._parsed.pop(delivery.key, None)
        reason = "its worker ended before it was done, every time"
        if delivery.attempts <= self.settings.max_attempts:
            try:
                parts = [part] if part is not None else self._read(delivery)
            except (UnreadableNotification, IndexError):
                reason = "unreadable"
            else:
                if delivery.key.startswith(_UNREADABLE):
                    await self.finish(delivery, await self._put_all(parts, delivery.body))
                    return
                self._unbegun[delivery.key] = delivery
                if not self.take(parts[0], delivery):
                    del self._unbegun[delivery.key]
                    await self.finish(delivery, None)
                return
        await self._tell(partial(self._bury, delivery, reason))

    def _read(self, delivery: Delivery) -> list[Part]:
        parts = split(read_notification(delivery.body))
        return parts if delivery.key.startswith(_UNREADABLE) else [parts[delivery.part]]

    async def _put_all(self, parts: list[Part], body: bytes) -> Result:
        """Put in each event of what could not be read when it came."""
        result = Result([], [])
        try:
            for part in parts:
                if part.key is not None and await self.put(part, body) is Admission.FULL:
                    raise StoreUnavailable("the inbox is full")
        except StoreUnavailable as error:
            result.failures.append(Failure("put_delivery", error))
        return result

    async def _renew(self) -> None:
        async with self._renewing:
            now, claimed = self.wall_clock(), self.claimed
            if not claimed or now < self._renew_at:
                return
            ours_until = now + self.settings.lease
            renewed = await self.port.store.renew_deliveries(
                self.port.account_id, owner=self.owner, lease_until=ours_until
            )
            if renewed < claimed:
                self._note_loss(now)
            self._renew_at, self._ours_until = now + self.settings.lease / 3, ours_until

    def _note_loss(self, now: float) -> None:
        """An event is no longer ours. (Within the lease that says nothing of others: it was forgotten, perhaps.)"""
        if now >= self._ours_until != self._lapsed_at:
            self._lapsed_at = self._ours_until
            self._lose()
            logger.warning(
                "leases of claimed events had ended before they were renewed, and others have taken some: those not "
                "begun are given back. Was this process paused, or does a handler block the event loop?"
            )

    def _lose(self) -> None:
        self._lost.update(self._unbegun)
        self._unbegun.clear()
        self._wake.set()

    async def _give_lost_back(self) -> None:
        """Leave what was not begun to whoever comes first; some of it is another's already."""
        while self._lost:
            key, delivery = next(iter(self._lost.items()))
            # Due at any time: for one who claims by a clock that he read before, those behind it would be due first.
            await self._retry(delivery, 0.0)
            del self._lost[key]
            self.claimed -= 1


def _remember(kept: OrderedDict[str, Any], key: str, value: object) -> None:
    kept[key] = value
    if len(kept) > _MAX_REMEMBERED:
        kept.popitem(last=False)


def _reason(failure: Failure) -> str:
    """Who failed and with what kind of error; its text may hold what a person has written."""
    return f"{failure.name}: {type(failure.error).__name__}"
