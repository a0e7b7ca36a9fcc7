"""From arrival to the lanes: the events of each dialog once and in order, those of a conversation one at a time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

import anyio
import attrs

from connector_async.protocol.inbox import Inbox, Release, Verdict
from connector_async.webhooks._job import Job
from connector_async.webhooks._lanes import Lanes
from connector_async.webhooks._parts import Part
from connector_async.webhooks._patience import Patience
from connector_async.webhooks._ports import SessionPort
from connector_async.webhooks.events import OrderGap
from connector_async.webhooks.settings import WebhookSettings, WebhookStats

__all__ = ["Sorting"]


@attrs.define(eq=False)
class Sorting:
    """The inbox before the lanes, and the task that waits no longer for what does not come.

    Args:
        port: The session.
        settings: Limits and patience.
        stats: Where to count.
        run: Handles a job; must not raise.
        patience: Of the event loop.
    """

    port: SessionPort
    settings: WebhookSettings
    stats: WebhookStats
    run: Callable[[Job], Awaitable[None]]
    patience: Patience
    lanes: Lanes[Job] = attrs.field(init=False)
    """For what has no order, or is past it."""
    _inbox: Inbox[Job] = attrs.field(init=False)
    _clock: Callable[[], float] | None = attrs.field(default=None, init=False)
    _is_watching: bool = attrs.field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        settings = self.settings
        self.lanes = Lanes(self.run, self.port.start_soon, settings.max_handlers, self.patience)
        self._inbox = Inbox(
            window=settings.reorder_window, patience=settings.gap_timeout, max_streams=settings.max_dialogs
        )

    def __len__(self) -> int:
        """Events in memory: waiting for those before them, in a lane, or at work."""
        return self.lanes.size + self._inbox.held

    @property
    def held(self) -> int:
        """How many wait for those before them."""
        return self._inbox.held

    def offer(self, job: Job, *, is_new: bool = False) -> bool:
        """Whether the event will be handled, now or in its turn.

        Args:
            job: The event.
            is_new: It was not handled before, even if it was released before.
        """
        part = job.part
        if part.sequence is not None and self._inbox.take_next(
            part.conversation_id, part.dialog_id or "", part.sequence
        ):
            self.lanes.put(part.conversation_id, job)
            return True
        verdict = self._judge(job, is_new=is_new)
        self.stats.duplicates += verdict is Verdict.DUPLICATE
        self.stats.outdated += verdict is Verdict.OUTDATED
        return verdict in {Verdict.RELEASED, Verdict.HELD}

    def retract(self, part: Part) -> None:
        """Forget that an event was released: it was not handled, and its next delivery counts."""
        if part.sequence is not None and part.dialog_id is not None:
            self._inbox.retract(
                conversation_id=part.conversation_id, dialog_id=part.dialog_id, sequence=part.sequence
            )
        if part.stamp is not None:
            self._inbox.retract_change(conversation_id=part.conversation_id, stamp=part.stamp)

    def flush(self) -> None:
        """Wait no longer for what has not come."""
        self._release(self._inbox.flush())

    def _judge(self, job: Job, *, is_new: bool) -> Verdict:
        part = job.part
        if part.sequence is not None and part.dialog_id is not None:
            offer = self._inbox.offer(
                job,
                conversation_id=part.conversation_id,
                dialog_id=part.dialog_id,
                sequence=part.sequence,
                now=self._now(),
                is_new=is_new,
            )
            self._release(offer.released)
            if offer.verdict is Verdict.HELD:
                self._watch_gaps()
            return offer.verdict
        if part.stamp is not None and not is_new:
            verdict = self._inbox.offer_change(conversation_id=part.conversation_id, stamp=part.stamp)
            if verdict is not Verdict.RELEASED:
                return verdict
        self.lanes.put(part.conversation_id, job)
        return Verdict.RELEASED

    def _release(self, releases: Iterable[Release[Job]]) -> None:
        for release in releases:
            job, part = release.item, release.item.part
            if release.after_gap or release.is_late:
                job.turn = attrs.evolve(job.turn, after_gap=release.after_gap, is_late=release.is_late)
                self.stats.late += release.is_late
            if release.after_gap:
                self.stats.gaps += 1
                self.port.emit(
                    OrderGap(
                        conversation_id=part.conversation_id,
                        dialog_id=part.dialog_id or "",
                        sequence=part.sequence or 0,
                    )
                )
            self.lanes.put(part.conversation_id, job)

    def _watch_gaps(self) -> None:
        if not self._is_watching and self._inbox.next_deadline is not None:
            self._is_watching = True
            self.port.start_soon(self._expire_gaps)

    async def _expire_gaps(self) -> None:
        """Release what has waited long enough; ends when nothing waits."""
        try:
            while (deadline := self._inbox.next_deadline) is not None:
                await anyio.sleep(max(0.0, deadline - self._now()))
                self._release(self._inbox.expire(self._now()))
        finally:
            self._is_watching = False

    def _now(self) -> float:
        if self._clock is None:
            self._clock = self.patience.clock()
        return self._clock()
