"""Writes ends down: those of all lanes together, as many at a time as have come while the last were written."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable

from connector_async._concurrency import Clock, Slot
from connector_async.pump._keeper import Keeper, Pauses
from connector_async.store.outbox import Advance, Claim, MessageState, Settlement

__all__ = ["OnSettled", "Settler"]

logger = logging.getLogger("connector_async.pump")

OnSettled = Callable[[Claim, Settlement], object]

_BATCH = 500  # ends that are written at once: a statement of a size that every engine takes


class _Entry:
    __slots__ = ("asked_at", "claim", "next", "settlement", "slot", "was_tried")

    def __init__(self, claim: Claim, settlement: Settlement, slot: Slot | None) -> None:
        self.claim = claim
        self.settlement = settlement
        self.slot = slot
        self.next: Claim | None = None
        self.asked_at = 0.0
        self.was_tried = False


class Settler:
    """Takes the ends of claimed messages, and gives each lane its next message.

    An end is kept until the outbox has answered, however long that takes: the outbox accepts it even after the lease
    as long as nobody else has taken the lane, and refuses it otherwise.

    Args:
        on_settled: Told of each end that was written down and is final.
    """

    def __init__(self, keeper: Keeper, clock: Clock, on_settled: OnSettled | None) -> None:
        self._keeper = keeper
        self._clock = clock
        self._on_settled = on_settled
        self._waiting: deque[_Entry] = deque()
        self._writing: list[_Entry] = []
        self._unsent: list[Claim] = []
        self._bell = clock.slot()

    def __len__(self) -> int:
        """Ends that are not written down, and claims that are not given back."""
        return len(self._waiting) + len(self._writing) + len(self._unsent)

    async def settle(self, claim: Claim, settlement: Settlement) -> tuple[Claim | None, float]:
        """Have an end written down.

        Returns:
            The lane's next message, begun, or None; and the time on the loop's clock from which its lease runs.
        """
        slot = self._clock.slot()
        entry = _Entry(claim, settlement, slot)
        self._waiting.append(entry)
        self._bell.settle()
        try:
            await slot
        except BaseException:
            # Cancelled: the end is written down all the same, and what it began is given back.
            entry.slot = None
            if entry.next is not None:
                self.give_back(entry.next)
            raise
        return entry.next, entry.asked_at

    def leave(self, claim: Claim, settlement: Settlement) -> None:
        """Have an end written down that nobody waits for; without an await, for those who are being cancelled."""
        self._waiting.append(_Entry(claim, settlement, None))
        self._bell.settle()

    def give_back(self, claim: Claim) -> None:
        """Have a lane given back whose head was certainly not sent."""
        self._unsent.append(claim)
        self._bell.settle()

    async def run(self) -> None:
        """Write down what comes, until cancelled."""
        pauses = Pauses()
        while True:
            if not len(self):
                self._bell = self._clock.slot()
                await self._bell
            if await self._step():
                pauses.reset()
            else:
                await pauses.wait()

    async def flush(self) -> bool:
        """Write down what is left, until the outbox fails; whether all is written. For when `run` has ended."""
        while len(self):
            if not await self._step():
                return False
        return True

    async def _step(self) -> bool:
        return await self._write() and await self._release()

    async def _write(self) -> bool:
        while self._waiting and len(self._writing) < _BATCH:
            self._writing.append(self._waiting.popleft())
        if not self._writing:
            return True
        keeper, asked_at = self._keeper, self._clock.time()
        batch = [(entry.claim, entry.settlement) for entry in self._writing]
        answers = await keeper.try_once(lambda: keeper.outbox.advance(keeper.account_id, batch, lease=keeper.lease))
        if answers is None:
            for entry in self._writing:
                entry.was_tried = True
            return False
        written, self._writing = self._writing, []
        for entry, answer in zip(written, answers, strict=True):
            entry.asked_at = asked_at
            is_settled = answer.is_settled or (entry.was_tried and await self._was_written(entry))
            self._answer(entry, Advance(is_settled=is_settled, next=answer.next))
        return True

    async def _was_written(self, entry: _Entry) -> bool:
        """Whether an end was written down by a call that failed: what got lost may have been its answer."""
        keeper, settlement = self._keeper, entry.settlement
        found = await keeper.try_once(lambda: keeper.outbox.find(keeper.account_id, entry.claim.message.id))
        return (
            found is not None
            and (found.state, found.attempts) == (settlement.state, settlement.attempts)
            and (found.sequence, found.conversation_id) == (settlement.sequence, settlement.conversation_id)
        )

    def _answer(self, entry: _Entry, answer: Advance) -> None:
        if answer.is_settled:
            self._count(entry.claim, entry.settlement)
        else:
            self._keeper.counters.lease_lost += 1
            logger.warning("another pump has taken a lane over: an end was not written down")
        entry.next = answer.next
        if entry.slot is not None:
            entry.slot.settle()
        elif answer.next is not None:
            self._unsent.append(answer.next)

    async def _release(self) -> bool:
        batch, keeper = self._unsent[:_BATCH], self._keeper
        if not batch:
            return True
        released = await keeper.try_once(lambda: keeper.outbox.release(keeper.account_id, batch))
        if released is None:
            return False
        del self._unsent[: len(batch)]
        keeper.counters.released += released
        keeper.counters.lease_lost += len(batch) - released
        return True

    def _count(self, claim: Claim, settlement: Settlement) -> None:
        counters, state = self._keeper.counters, settlement.state
        if state is MessageState.WAITING:
            counters.retried += 1
            return
        if state is MessageState.ACCEPTED:
            counters.accepted += 1
            counters.maybe_duplicate += settlement.maybe_duplicate
        elif state is MessageState.REFUSED:
            counters.refused += 1
        elif state is MessageState.NOT_SENT:
            counters.not_sent += 1
        else:
            counters.unknown += 1
        if self._on_settled is not None:
            try:
                self._on_settled(claim, settlement)
            except Exception:
                logger.exception("`on_settled` failed")
