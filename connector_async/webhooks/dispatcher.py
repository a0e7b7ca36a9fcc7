"""The events of one account on their way from a verified delivery to the handlers: once, in order, within bounds.

In memory an event is remembered before it is handled and lost with the process. With `ack="stored"` it goes through
the durable inbox: it is remembered when it was handled, and lost with the disk only.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from enum import Enum
from typing import Any

import anyio
import attrs

from connector_async.errors import SessionClosed, StoreUnavailable
from connector_async.store.base import Admission, Delivery
from connector_async.webhooks._durable import DurableInbox
from connector_async.webhooks._job import Job
from connector_async.webhooks._parts import Part, split
from connector_async.webhooks._patience import Patience
from connector_async.webhooks._ports import SessionPort
from connector_async.webhooks._runner import Failure, Result, Runner
from connector_async.webhooks._sorting import Sorting
from connector_async.webhooks.events import DeliveryShed, HandlerFailed
from connector_async.webhooks.receiver import AppRecord, WebhookReceiver
from connector_async.webhooks.router import Router
from connector_async.webhooks.settings import Ack, WebhookSettings, WebhookStats
from connector_async.wire import Notification

__all__ = ["Acceptance", "Dispatched", "Dispatcher"]

logger = logging.getLogger("connector_async.webhooks")

_SHED_AT = 0.75
"""Share of the queue beyond which chat states are dropped, so that the rest of it is for what counts."""

_GIVE_BACK_WITHIN = 2.0
"""Seconds for giving claimed events back to the store, however little time there was for the handlers."""

_HOW_TO_DISPATCH = "dispatch it to an open session; `drain=…` gives the handlers of a closing one more time"


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


@attrs.define(eq=False, repr=False)
class Dispatcher:
    """Takes notifications of one account and runs the handlers of a router.

    Args:
        port: The session.
        router: The handlers.
        settings: Limits and patience.
        wall_clock: Seconds that all workers share.
    """

    port: SessionPort
    router: Router
    settings: WebhookSettings = attrs.field(factory=WebhookSettings)
    wall_clock: Callable[[], float] = time.time
    counters: WebhookStats = attrs.field(factory=WebhookStats, init=False)
    _sorting: Sorting = attrs.field(init=False)
    _runner: Runner = attrs.field(init=False)
    _durable: DurableInbox = attrs.field(init=False)
    _in_progress: dict[str, Job] = attrs.field(factory=dict[str, Job], init=False)
    _dispatched: set[Job] = attrs.field(factory=set[Job], init=False)
    """Those that a caller of `dispatch` waits for."""
    _secrets: tuple[tuple[AppRecord, ...], WebhookReceiver] | None = attrs.field(default=None, init=False)
    _is_draining: bool = attrs.field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        settings, patience = self.settings, Patience()
        self._sorting = Sorting(self.port, settings, self.counters, self._handle, patience)
        self._runner = Runner(self.port, self.router, self.counters, settings.handler_timeout, patience)
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
        """Run the handlers and return when they are done; cancelling it does not stop them.

        For teams that have a queue of their own, and for tests: neither doubles nor order are looked at, but the
        events of one conversation still wait for each other: not to be called by a handler of the same conversation.

        Raises:
            SessionClosed: The session is closed or closing, or closed before all handlers were done.
        """
        if self._is_draining:
            raise SessionClosed("the session is closed, and its handlers run no more", hint=_HOW_TO_DISPATCH)
        jobs = [Job.awaited(part) for part in split(notification)]
        self._dispatched.update(jobs)
        try:
            for job in jobs:
                self._sorting.lanes.put(job.part.conversation_id, job)
            for job in jobs:
                await job.wait()
        finally:
            self._dispatched.difference_update(jobs)
        results = [job.result for job in jobs if job.result is not None]
        if len(results) < len(jobs):
            raise SessionClosed("the session closed before all handlers were done", hint=_HOW_TO_DISPATCH)
        failures = [failure for result in results for failure in result.failures]
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
        self._sorting.flush()
        try:
            with anyio.move_on_after(timeout):
                await self._sorting.lanes.idle()
        finally:
            self.stop()
            # Also while we are being cancelled: nobody else takes what we have claimed before the lease ends.
            with anyio.move_on_after(_GIVE_BACK_WITHIN, shield=True):
                await self._durable.release()
        return max(0, len(self._sorting) - self._durable.at_hand)

    def stop(self) -> None:
        """Take on nothing new in memory and begin nothing: for a session that has ended."""
        self._is_draining = True
        self._durable.stop()
        self._sorting.lanes.stop()
        for job in (*self._dispatched, *self._in_progress.values()):
            job.let_go()

    def stats(self) -> WebhookStats:
        """The counters as they are now."""
        return attrs.evolve(self.counters, waiting=len(self._sorting), held=self._sorting.held)

    def __repr__(self) -> str:
        return f"Dispatcher({self.port.account_id!r}, {self.counters.handled} handled, {len(self._sorting)} waiting)"

    # Taking in

    def _queue(self, part: Part, body: bytes) -> bool:
        """Whether an event was taken into memory, or needs not be taken at all."""
        if part.key is None:
            self._take_chat_state(part)
        elif self._is_draining or len(self._sorting) >= self.settings.max_queue:
            return False
        else:
            self._sorting.offer(Job(part, body, is_asked=True))
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
        try:
            for part in parts:
                if part.key is None:
                    self._take_chat_state(part)
                    continue
                if is_waiting and part.key not in self._in_progress and not self._is_draining:
                    # Before it is put: from then on it may be claimed at any moment.
                    jobs[part.key] = self._in_progress[part.key] = Job.awaited(part)
                admission = await self._store(part, body)
                if admission is Admission.FULL:
                    acceptance = self._refuse(part)
                if admission is not Admission.NEW and (job := jobs.pop(part.key, None)) is not None:
                    self._forget(job)
            with anyio.move_on_after(self.settings.handled_timeout):
                for job in jobs.values():
                    await job.wait()
        finally:
            for job in jobs.values():
                self._forget(job)
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
            elif self._is_draining or len(self._sorting) >= self.settings.max_queue:
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
        if self._sorting.offer(job):
            return [job]
        self._forget(job)
        return []

    def _forget(self, job: Job) -> None:
        """Nobody need wait for its end any more."""
        if job.part.key is not None and self._in_progress.get(job.part.key) is job:
            del self._in_progress[job.part.key]

    async def _store(self, part: Part, body: bytes) -> Admission:
        """Keep an event in the store; one that cannot take it is as good as full."""
        try:
            admission = await self._durable.put(part, body)
        except Exception as error:  # noqa: BLE001 - whatever a store raises, it does not have the event
            logger.error("an event of %s could not be stored: %s", part.conversation_id, error)
            return Admission.FULL
        self.counters.duplicates += admission is Admission.SEEN
        return admission

    def _take_chat_state(self, part: Part) -> None:
        """Chat states are soon stale: they wait in memory or nowhere, and are the first to go."""
        if self._is_draining or len(self._sorting) >= _SHED_AT * self.settings.max_queue:
            self.counters.shed += 1
            self.port.emit(DeliveryShed(conversation_id=part.conversation_id, is_lost=True))
        else:
            self._sorting.lanes.put(part.conversation_id, Job(part))

    def _refuse(self, part: Part) -> Acceptance:
        self.counters.busy += 1
        self.port.emit(DeliveryShed(conversation_id=part.conversation_id, is_lost=False))
        return Acceptance.BUSY

    def _durable_room(self) -> int:
        """How many claims to ask for: enough to keep the handlers busy, in lots that are worth a commit."""
        most = 2 * self.settings.max_handlers
        free = most - self._durable.claimed
        return free if free >= most // 4 else 0

    def _take(self, part: Part, delivery: Delivery) -> bool:
        """Take on a claimed event; False if there is nothing to do for it."""
        job = self._in_progress.get(delivery.key) or Job(part)
        job.delivery = delivery
        job.turn = self._durable.turn_of(delivery)
        # The store has seen to doubles. But a change that was overtaken is of no use, unless it is a second try:
        # then it may be the newest one itself.
        return self._sorting.offer(job, is_new=part.sequence is not None or job.turn.attempt > 1)

    # Handling

    async def _handle(self, job: Job) -> None:
        try:
            if job.is_asked and not await self._is_first(job.part):
                self.counters.duplicates += 1
                return
            if job.delivery is not None and not await self._durable.begin(job.delivery):
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
            if job.done is not None:
                # Only those that somebody may wait for are entered as in progress.
                self._forget(job)
                job.done.set()

    async def _is_first(self, part: Part) -> bool:
        """Whether no worker that shares the store has had it. A store that cannot tell costs a double, not a loss."""
        try:
            return await self.port.store.first_time(self.port.account_id, part.key or "")
        except Exception:
            logger.exception("the store cannot tell whether an event of %s is a double", part.conversation_id)
            return True

    async def _finish(self, job: Job, result: Result) -> float | None:
        """Remember what is done, and see to another try: seconds until then, or None."""
        part = job.part
        if job.delivery is not None:
            return await self._durable.finish(job.delivery, result)
        if job.is_retractable:
            self._sorting.retract(part)
        elif job.body:
            self._durable.note_failure(part.key or "", job.turn, result)
            if await self._store(part, job.body) is Admission.NEW:
                return 0.0
        return None

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
