"""The lanes that a pump has claimed: one task for each, which sends one message after the other."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import anyio
import attrs

from connector_async._concurrency import Clock
from connector_async._redact import mask
from connector_async.errors import ConversationAlreadyOpen, SessionClosed
from connector_async.pump._keeper import Keeper
from connector_async.pump._policy import PumpPolicy, is_accident, judge, left_behind
from connector_async.pump._sending import Sending
from connector_async.pump._settler import Settler
from connector_async.session import ConnectorSession, Outcome
from connector_async.store.outbox import Claim, MessageState, Settlement

__all__ = ["Lane", "Lanes"]

logger = logging.getLogger("connector_async.pump")

_MAX_FAILURES = 100_000  # messages whose pauses grow; of more the oldest begin again with the first pause


@attrs.define(eq=False)
class Lane:
    """A claimed lane.

    Attributes:
        lease_ends: On the loop's clock; never later than the outbox has it.
        scope: Of the message under way; None between messages.
    """

    claim: Claim
    lease_ends: float
    scope: anyio.CancelScope | None = None
    sending: Sending | None = None

    @property
    def is_sending(self) -> bool:
        """Whether a message is under way, as opposed to its end being written down."""
        return self.scope is not None

    def extend(self, lease_ends: float) -> None:
        """The lease was renewed."""
        self.lease_ends = lease_ends
        if self.scope is not None:
            self.scope.deadline = lease_ends

    def cut(self) -> None:
        """End what is under way."""
        if self.scope is not None:
            self.scope.cancel()


class Lanes:
    """All lanes of one pump, by consumer.

    Attributes:
        refusing: No message is begun any more; what was claimed is given back.

    Args:
        on_end: Called when a lane ends.
    """

    def __init__(
        self,
        session: ConnectorSession,
        policy: PumpPolicy,
        *,
        keeper: Keeper,
        settler: Settler,
        clock: Clock,
        on_end: Callable[[], object],
    ) -> None:
        self._session = session
        self._policy = policy
        self._keeper = keeper
        self._settler = settler
        self._clock = clock
        self._lanes: dict[str, Lane] = {}
        self._failures: OrderedDict[str, int] = OrderedDict()
        self._on_end = on_end
        self.refusing = False

    def __len__(self) -> int:
        return len(self._lanes)

    def all(self) -> list[Lane]:
        """Those of this moment."""
        return list(self._lanes.values())

    def consumers(self) -> frozenset[str]:
        """Whose they are."""
        return frozenset(self._lanes)

    def take(self, claim: Claim, lease_ends: float) -> Lane | None:
        """Take note of a claim; None if it was given back at once."""
        self._keeper.counters.claimed += 1
        mine = self._lanes.get(claim.message.consumer)
        is_sending = mine is not None and mine.is_sending
        if mine is not None and is_sending:
            # Our own lease has run out, in a process that was paused, say: first the message under way has to end.
            mine.cut()
        if is_sending or self.refusing:
            self._settler.give_back(claim)
            return None
        lane = self._lanes[claim.message.consumer] = Lane(claim, lease_ends)
        return lane

    async def carry(self, lane: Lane) -> None:
        """Send the messages of a lane, until there is none that is due."""
        try:
            while True:
                claim = lane.claim
                if self.refusing or self._clock.time() >= lane.lease_ends:
                    self._settler.give_back(claim)
                    return
                settlement = left_behind(claim, self._policy) or await self._deliver(lane)
                if settlement is None:
                    self._settler.give_back(claim)
                    return
                following, leased_at = await self._settler.settle(claim, settlement)
                if following is None:
                    return
                self._keeper.counters.claimed += 1
                lane.claim, lane.lease_ends = following, leased_at + self._keeper.lease
        finally:
            consumer = lane.claim.message.consumer
            if self._lanes.get(consumer) is lane:  # it may have been claimed again by now
                del self._lanes[consumer]
            self._on_end()

    async def _deliver(self, lane: Lane) -> Settlement | None:
        """Send the message of a lane; None if it was stopped before any of it was sent."""
        sending = lane.sending = Sending(lane.claim, self._session, self._policy)
        self._keeper.counters.sent += 1
        outcome: Outcome[Any] | None = None
        try:
            # Never past the lease: another pump may be sending it by then.
            with anyio.CancelScope(deadline=lane.lease_ends) as lane.scope:
                outcome = await sending.run()
        except BaseException:
            self._leave(lane.claim, sending)
            raise
        finally:
            lane.scope = lane.sending = None
        self._keeper.counters.reopened += sending.reopened
        if outcome is None and not sending.may_have_landed:
            return None
        return self._judged(lane.claim, outcome or sending.cut_off(_stopped()))

    def _leave(self, claim: Claim, sending: Sending) -> None:
        """The pump is being cancelled: leave what is known to whoever writes it down."""
        if sending.may_have_landed:
            self._settler.leave(claim, self._judged(claim, sending.cut_off(_stopped())))
        else:
            self._settler.give_back(claim)

    def _judged(self, claim: Claim, outcome: Outcome[Any]) -> Settlement:
        message_id = claim.message.id
        failures = self._failures.pop(message_id, 0)
        settlement = judge(claim, outcome, self._policy, failures=failures)
        if settlement.state is MessageState.WAITING:
            if isinstance(outcome.error, ConversationAlreadyOpen) and not failures:
                # Told once, for what waits is in no report.
                logger.warning("a message of %s waits: %s", mask(claim.message.consumer), settlement.reason)
            if is_accident(outcome) and not failures:
                who = mask(claim.message.consumer)
                logger.error("a message of %s could not be carried", who, exc_info=outcome.error)
            self._failures[message_id] = failures + 1
            if len(self._failures) > _MAX_FAILURES:
                self._failures.popitem(last=False)
        return settlement

    def cut_all(self) -> None:
        """End everything under way, those that were not sent yet as such."""
        waiting = {
            request_id
            for request in self._session.pending()
            if not request.attempt
            for request_id in request.request_ids
        }
        for lane in self.all():
            if lane.sending is not None and lane.claim.message.request_id in waiting:
                lane.sending.is_sent = False
            lane.cut()


def _stopped() -> SessionClosed:
    return SessionClosed("the pump stopped before it was done")
