"""The events of one account on their way from a verified delivery to the handlers: once, in order, within bounds.

In memory an event is remembered before it is handled and lost with the process. With `ack="stored"` it goes through
the durable inbox: it is remembered when it was handled, and lost with the disk only.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any

import anyio
import attrs

from connector_async.errors import StoreUnavailable
from connector_async.protocol.inbox import Inbox, Release, Verdict
from connector_async.store.base import Admission, Delivery
from connector_async.webhooks._durable import DurableInbox
from connector_async.webhooks._job import Job
from connector_async.webhooks._lanes import Lanes
from connector_async.webhooks._parts import Part, split
from connector_async.webhooks._patience import Patience
from connector_async.webhooks._ports import SessionPort
from connector_async.webhooks._runner import Failure, Result, Runner
from connector_async.webhooks.events import DeliveryShed, HandlerFailed, OrderGap
from connector_async.webhooks.incoming import Turn
from connector_async.webhooks.receiver import AppRecord, WebhookReceiver
from connector_async.webhooks.router import Router
from connector_async.webhooks.settings import Ack, WebhookSettings, WebhookStats
from connector_async.wire import Notification

__all__ = ["Acceptance", "Dispatched", "Dispatcher"]

logger = logging.getLogger("connector_async.webhooks")

_SHED_AT = 0.75
"""Share of the queue beyond which chat states are dropped, so that the rest of it is for what counts."""


class Acceptance(Enum):
    """What can be promised to the vendor about a delivery."""

    DONE = "done"
    """Queued, stored or handled, as asked; or known already."""
    FAILED = "failed"
    """A handler failed, or took too long, and nothing durable will try again."""
    BUSY = "busy"
    """There is no room for it."""


@attrs.frozen(kw_only=True)
class Dispatched:
    """What came of a notification that was dispatched by hand.

    Attributes:
        events: How many events it held.
        errors: What handlers raised.
    """

    events: int
    errors: tuple[Exception, ...] = ()


@attrs.define(eq=False)
class Dispatcher:
    """Takes notifications of one account and runs the handlers of a router.

    Args:
        port: The session.
        router: The handlers.
        settings: Limits and patience.
        clock: Seconds of the event loop; None: the loop is asked.
        wall_clock: Seconds that all workers share.
    """

    port: SessionPort
    router: Router
    settings: WebhookSettings = attrs.field(factory=WebhookSettings)
    clock: Callable[[], float] | None = None
    wall_clock: Callable[[], float] = time.time
    counters: WebhookStats = attrs.field(factory=WebhookStats, init=False)
    _inbox: Inbox[Job] = attrs.field(init=False)
    _lanes: Lanes[Job] = attrs.field(init=False)
    _runner: Runner = attrs.field(init=False)
    _durable: DurableInbox = attrs.field(init=False)
    _patience: Patience = attrs.field(factory=Patience, init=False)
    _in_progress: dict[str, Job] = attrs.field(factory=dict[str, Job], init=False)
    _secrets: tuple[tuple[AppRecord, ...], WebhookReceiver] | None = attrs.field(default=None, init=False)
    _is_watching: bool = attrs.field(default=False, init=False)
    _is_draining: bool = attrs.field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        settings = self.settings
        self._inbox = Inbox(
            window=settings.reorder_window, patience=settings.gap_timeout, max_streams=settings.max_dialogs
        )
        self._lanes = Lanes(self._handle, self.port.start_soon, settings.max_handlers, self._patience)
        self._runner = Runner(self.port, self.router, self.counters, settings.handler_timeout, self._patience)
        self._durable = DurableInbox(
            self.port, settings, self.counters, room=self._durable_room, take=self._take, wall_clock=self.wall_clock
        )

    @property
    def receiver(self) -> WebhookReceiver | None:
        """Verifies deliveries with the secrets that the session has now; None before it has any."""
        records = self.port.app_records()
        if self._secrets is not None and self._secrets[0] is records:
            return self._secrets[1]
        records = tuple(records)
        if not records:
            return None
        if self._secrets is None or self._secrets[0] != records:
            receiver = self._secrets[1] if self._secrets is not None else WebhookReceiver(records)
            receiver.replace_secrets(records)
            self._secrets = (records, receiver)
        return self._secrets[1]

    def _now(self) -> float:
        if self.clock is None:
            self.clock = self._patience.clock()
        return self.clock()

    def start(self) -> None:
        """Work off what a durable store holds from earlier runs; idempotent. Other stores hold nothing."""
        if self.port.store.durable and not self._is_draining:
            self._durable.start()

    async def accept(self, notification: Notification[Any], body: bytes, ack: Ack | None) -> Acceptance:
        """Take in a verified delivery; returns as soon as `ack` is reached.

        Args:
            notification: What was in it.
            body: The raw bytes, for the store.
            ack: What must be so before the vendor is told that it arrived; None: stored, where the store is durable,
                else queued.
        """
        is_durable = self.port.store.durable
        parts = split(notification)
        self.counters.received += len(parts)
        self.counters.unroutable += not parts
        if ack == "queued" or (ack is None and not is_durable):
            body_to_keep = body if is_durable else b""
            left = [part for part in parts if not self._queue(part, body_to_keep)]
            return await self._accept_rest(left, body) if left else Acceptance.DONE
        if ack == "handled" and not is_durable:
            return await self._accept_handled(parts)
        return await self._accept_stored(parts, body, is_waiting=ack == "handled")

    async def keep_unreadable(self, body: bytes) -> Acceptance | None:
        """Keep a genuine delivery that is no notification: it would be as unreadable each time it came again.

        Returns:
            None: The store is not durable, and it is not kept.
        """
        if not self.port.store.durable:
            return None
        self.counters.unreadable += 1
        try:
            admission = await self._durable.put_unreadable(body)
        except StoreUnavailable as error:
            logger.error("a delivery that cannot be read could not be stored: %s", error)
            return Acceptance.BUSY
        self.counters.duplicates += admission is Admission.SEEN
        return Acceptance.BUSY if admission is Admission.FULL else Acceptance.DONE

    async def dispatch(self, notification: Notification[Any]) -> Dispatched:
        """Run the handlers and return when they are done.

        For teams that have a queue of their own, and for tests: neither doubles nor order are looked at, but the
        events of one conversation still wait for each other: not to be called by a handler of the same conversation.
        """
        jobs = [Job.awaited(part) for part in split(notification)]
        for job in jobs:
            self._lanes.put(job.part.conversation_id, job)
        for job in jobs:
            await job.wait()
        failures = [failure for job in jobs if job.result is not None for failure in job.result.failures]
        return Dispatched(events=len(jobs), errors=tuple(failure.error for failure in failures))

    async def drain(self, timeout: float) -> int:
        """Begin to end: take on nothing new in memory, let handlers finish, give back what the store can keep.

        Deliveries still go into a durable store and are answered with 200.

        Args:
            timeout: Seconds that the handlers have.

        Returns:
            How many events are left in memory, unhandled. Those of a durable store are not lost.
        """
        self._is_draining = True
        self._durable.stop()
        self._release_all(self._inbox.flush())
        with anyio.move_on_after(timeout):
            await self._lanes.idle()
        self._lanes.stop()
        left = len(self._lanes) - self._durable.claimed
        if self._durable.claimed:
            with anyio.move_on_after(timeout, shield=True):
                await self._durable.release()
        return left

    def stop(self) -> None:
        """Take on nothing new in memory and begin nothing: for a session that has ended."""
        self._is_draining = True
        self._durable.stop()
        self._lanes.stop()

    def stats(self) -> WebhookStats:
        """The counters as they are now."""
        return attrs.evolve(self.counters, waiting=self._load(), held=self._inbox.held)

    # Taking in

    def _queue(self, part: Part, body: bytes) -> bool:
        """Whether an event was taken into memory, or needs not be taken at all."""
        if part.key is None:
            self._take_chat_state(part)
        elif self._is_draining or self._load() >= self.settings.max_queue:
            return False
        else:
            self._offer(Job(part, body, is_asked=True))
        return True

    async def _accept_rest(self, parts: list[Part], body: bytes) -> Acceptance:
        """Put into the store what memory has no room for, or leave it to the vendor."""
        acceptance = Acceptance.DONE
        for part in parts:
            if not self.port.store.durable or await self._store(part, body) is Admission.FULL:
                acceptance = self._refuse(part)
        return acceptance

    async def _accept_stored(self, parts: list[Part], body: bytes, *, is_waiting: bool) -> Acceptance:
        acceptance = Acceptance.DONE
        jobs: dict[str, Job] = {}
        for part in parts:
            if part.key is None:
                self._take_chat_state(part)
                continue
            if is_waiting:
                # Before it is put: from then on it may be claimed at any moment.
                jobs[part.key] = self._in_progress.setdefault(part.key, Job.awaited(part))
            admission = await self._store(part, body)
            if admission is Admission.FULL:
                acceptance = self._refuse(part)
            if admission is not Admission.NEW:
                jobs.pop(part.key, None)
        try:
            with anyio.move_on_after(self.settings.handled_timeout):
                for job in jobs.values():
                    await job.wait()
        finally:
            for key in jobs:
                self._in_progress.pop(key, None)
        return acceptance

    async def _accept_handled(self, parts: list[Part]) -> Acceptance:
        acceptance = Acceptance.DONE
        jobs: list[Job] = []
        for part in parts:
            if part.key is None:
                self._take_chat_state(part)
            elif part.key in self._in_progress:
                # Delivered again while the first is still at work: its end is the answer to both.
                self.counters.duplicates += 1
                jobs.append(self._in_progress[part.key])
            elif self._is_draining or self._load() >= self.settings.max_queue:
                acceptance = self._refuse(part)
            else:
                jobs += self._begin(part.key, Job.awaited(part, is_retractable=True))
        with anyio.move_on_after(self.settings.handled_timeout):
            for job in jobs:
                await job.wait()
        if acceptance is Acceptance.DONE and not all(_succeeded(job) for job in jobs):
            return Acceptance.FAILED
        return acceptance

    def _begin(self, key: str, job: Job) -> list[Job]:
        """The job, or nothing if it is a double."""
        self._in_progress[key] = job
        if self._offer(job):
            return [job]
        del self._in_progress[key]
        return []

    async def _store(self, part: Part, body: bytes) -> Admission:
        """Keep an event in the store; one that cannot take it is as good as full."""
        try:
            admission = await self._durable.put(part, body)
        except StoreUnavailable as error:
            logger.error("an event of %s could not be stored: %s", part.conversation_id, error)
            return Admission.FULL
        self.counters.duplicates += admission is Admission.SEEN
        return admission

    def _take_chat_state(self, part: Part) -> None:
        """Chat states are soon stale: they wait in memory or nowhere, and are the first to go."""
        if self._is_draining or self._load() >= _SHED_AT * self.settings.max_queue:
            self.counters.shed += 1
            self.port.emit(DeliveryShed(conversation_id=part.conversation_id, is_lost=True))
        else:
            self._lanes.put(part.conversation_id, Job(part))

    def _refuse(self, part: Part) -> Acceptance:
        self.counters.busy += 1
        self.port.emit(DeliveryShed(conversation_id=part.conversation_id, is_lost=False))
        return Acceptance.BUSY

    def _load(self) -> int:
        return len(self._lanes) + self._inbox.held

    def _durable_room(self) -> int:
        """How many claims to ask for: enough to keep the handlers busy, in lots that are worth a commit."""
        most = 2 * self.settings.max_handlers
        free = most - self._durable.claimed
        return free if free >= most // 4 else 0

    def _take(self, part: Part, delivery: Delivery) -> bool:
        """Take on a claimed event; False if there is nothing to do for it."""
        job = self._in_progress.get(delivery.key) or Job(part)
        job.delivery = delivery
        job.turn = Turn(attempt=delivery.attempts, done=self._durable.done_before(delivery.key))
        # The store has seen to doubles. But a change that was overtaken is of no use, unless it is a second try:
        # then it may be the newest one itself.
        return self._offer(job, is_new=part.sequence is not None or delivery.attempts > 1)

    # Order

    def _offer(self, job: Job, *, is_new: bool = False) -> bool:
        """Whether the event will be handled, now or in its turn."""
        part = job.part
        if part.sequence is not None and self._inbox.take_next(
            part.conversation_id, part.dialog_id or "", part.sequence
        ):
            self._lanes.put(part.conversation_id, job)
            return True
        verdict = self._put_in_order(job, is_new=is_new)
        self.counters.duplicates += verdict is Verdict.DUPLICATE
        self.counters.outdated += verdict is Verdict.OUTDATED
        return verdict in {Verdict.RELEASED, Verdict.HELD}

    def _put_in_order(self, job: Job, *, is_new: bool) -> Verdict:
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
            self._release_all(offer.released)
            if offer.verdict is Verdict.HELD:
                self._watch_gaps()
            return offer.verdict
        if part.stamp is not None and not is_new:
            verdict = self._inbox.offer_change(conversation_id=part.conversation_id, stamp=part.stamp)
            if verdict is not Verdict.RELEASED:
                return verdict
        self._lanes.put(part.conversation_id, job)
        return Verdict.RELEASED

    def _release_all(self, releases: Iterable[Release[Job]]) -> None:
        for release in releases:
            job, part = release.item, release.item.part
            if release.after_gap or release.is_late:
                job.turn = attrs.evolve(job.turn, after_gap=release.after_gap, is_late=release.is_late)
                self.counters.late += release.is_late
            if release.after_gap:
                self.counters.gaps += 1
                self.port.emit(
                    OrderGap(
                        conversation_id=part.conversation_id,
                        dialog_id=part.dialog_id or "",
                        sequence=part.sequence or 0,
                    )
                )
            self._lanes.put(part.conversation_id, job)

    def _watch_gaps(self) -> None:
        if not self._is_watching and self._inbox.next_deadline is not None:
            self._is_watching = True
            self.port.start_soon(self._expire_gaps)

    async def _expire_gaps(self) -> None:
        """Release what has waited long enough; ends when nothing waits."""
        try:
            while (deadline := self._inbox.next_deadline) is not None:
                await anyio.sleep(max(0.0, deadline - self._now()))
                self._release_all(self._inbox.expire(self._now()))
        finally:
            self._is_watching = False

    # Handling

    async def _handle(self, job: Job) -> None:
        try:
            if job.is_asked and not await self._is_first(job.part):
                self.counters.duplicates += 1
                return
            job.result = result = await self._runner.run(job.part, job.turn)
            if not result.failures:
                self.counters.handled += 1
                if job.delivery is None:
                    return
            wait = await self._finish(job, result)
            for failure in result.failures:
                self._report(job, failure, wait)
        finally:
            if job.part.key is not None and self._in_progress.get(job.part.key) is job:
                del self._in_progress[job.part.key]
            if job.done is not None:
                job.done.set()

    async def _is_first(self, part: Part) -> bool:
        """Whether no worker that shares the store has had it. A store that cannot tell costs a double, not a loss."""
        try:
            return await self.port.store.first_time(self.port.account_id, part.key or "")
        except StoreUnavailable:
            logger.exception("the store cannot tell whether an event of %s is a double", part.conversation_id)
            return True

    async def _finish(self, job: Job, result: Result) -> float | None:
        """Remember what is done, and see to another try: seconds until then, or None."""
        part = job.part
        if job.delivery is not None:
            return await self._durable.finish(job.delivery, result)
        if job.is_retractable:
            self._retract(part)
        elif job.body and await self._store(part, job.body) is Admission.NEW:
            return 0.0
        return None

    def _retract(self, part: Part) -> None:
        if part.sequence is not None and part.dialog_id is not None:
            self._inbox.retract(
                conversation_id=part.conversation_id, dialog_id=part.dialog_id, sequence=part.sequence
            )
        if part.stamp is not None:
            self._inbox.retract_change(conversation_id=part.conversation_id, stamp=part.stamp)

    def _report(self, job: Job, failure: Failure, wait: float | None) -> None:
        self.counters.failed += 1
        self.port.emit(
            HandlerFailed(
                conversation_id=job.part.conversation_id,
                handler=failure.name,
                attempt=job.turn.attempt,
                error=failure.error,
                wait=wait,
            )
        )


def _succeeded(job: Job) -> bool:
    return job.result is not None and not job.result.failures
