"""Messages that the session owns, one at a time or by the hundred thousand, on their way out.

Messages of one consumer go one after the other, in lanes; lanes take turns. Workers carry them: as many as can keep
the engine busy, so that its own queue stays short and a message's deadline starts when it is really its turn.
"""

from __future__ import annotations

import logging
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any

from anyio.abc import TaskGroup
from typing_extensions import TypeVar

from connector_async._arguments import check_kind
from connector_async._concurrency import Clock, Slot, failure_of
from connector_async.consumer import Consumer
from connector_async.conversation import Conversation
from connector_async.errors import DeadlineExceeded, Landed, QueueFull, RequestError, SessionClosed
from connector_async.exchange import session_owned
from connector_async.session._delivery import Delivery
from connector_async.session._messages import Outcome, OutcomeStatus, Outgoing, Submission

__all__ = ["Outbound", "lane_of"]

logger = logging.getLogger("connector_async.outbound")

K = TypeVar("K", default=None)


class _Item:
    """A message in its lane."""

    __slots__ = ("message", "on_outcome", "owner", "queued_at", "wait_limit")

    def __init__(
        self,
        message: Outgoing[Any],
        on_outcome: Callable[[Outcome[Any]], None],
        queued_at: float,
        wait_limit: float | None,
        owner: object,
    ) -> None:
        self.message = message
        self.on_outcome = on_outcome
        self.queued_at = queued_at
        self.wait_limit = wait_limit
        self.owner = owner


class Outbound:
    """The lanes and workers of one session.

    Args:
        find: The handle for what `Outgoing.to` names: a consumer or a conversation.
        max_workers: Messages under way at once.
    """

    def __init__(
        self,
        *,
        task_group: TaskGroup,
        clock: Clock,
        find: Callable[[str], Consumer],
        max_workers: int,
        max_queue: int,
    ) -> None:
        self._task_group = task_group
        self._clock = clock
        self._find = find
        self._max_workers = max_workers
        self._max_queue = max_queue
        self._lanes: dict[str, deque[_Item]] = {}
        self._ready: OrderedDict[str, None] = OrderedDict()
        self._workers = 0
        self._busy = 0
        self._queued = 0
        self._refusing = False
        self._closed = False
        self._idle: list[Slot] = []

    def __len__(self) -> int:
        """Messages without an outcome."""
        return self._queued + self._busy

    def submit(self, message: Outgoing[K]) -> Submission[K]:
        """Admit one message.

        Raises:
            QueueFull: Too many wait already.
            SessionClosed: The session is closed.
            TypeError: It is no `Outgoing`.
        """
        if self._queued >= self._max_queue:
            raise QueueFull(
                f"{self._queued} messages are waiting",
                depth=self._queued,
                age=self._oldest(),
                hint="submit less at once, or raise `SessionLimits(max_queue=…)`",
            )
        submission = Submission(message, self._clock)
        self.put(message, submission.settle)
        return submission

    def put(
        self,
        message: Outgoing[K],
        on_outcome: Callable[[Outcome[K]], None],
        *,
        wait_limit: float | None = None,
        owner: object = None,
    ) -> None:
        """Queue a message; `on_outcome` is called exactly once.

        Args:
            wait_limit: Seconds that it may wait for its turn.
            owner: Who may take it back; see `withdraw`.

        Raises:
            SessionClosed: The session is closed.
        """
        if self._refusing:
            raise SessionClosed("the session is closed")
        check_kind("a message", message, Outgoing, "an `Outgoing(to, body)`")
        lane = lane_of(message.to)
        items = self._lanes.get(lane)
        if items is None:
            items = self._lanes[lane] = deque()
            self._ready[lane] = None
        items.append(_Item(message, on_outcome, self._clock.time(), wait_limit, owner))
        self._queued += 1
        if self._ready and self._workers < self._max_workers:
            self._workers += 1
            self._task_group.start_soon(self._work)

    def withdraw(self, owner: object, error: RequestError) -> None:
        """Take back what this owner has put and what still waits for its turn; each message ends with the error."""
        for lane, items in list(self._lanes.items()):
            mine = [item for item in items if item.owner is owner]
            if not mine:
                continue
            others = [item for item in items if item.owner is not owner]
            items.clear()
            items.extend(others)
            if not items and lane in self._ready:
                del self._ready[lane], self._lanes[lane]
            for item in mine:
                self._queued -= 1
                self._tell(item, _unsent(item, error))
        self._settle_idle()

    def refuse_new(self) -> None:
        """Take no more messages; those that were taken go on."""
        self._refusing = True

    async def wait_idle(self) -> None:
        """Return once every message has its outcome."""
        while len(self):
            slot = self._clock.slot()
            self._idle.append(slot)
            await slot

    def close(self) -> None:
        """End every message that still waits, unsent; idempotent. Those under way end with their request."""
        self._refusing = self._closed = True
        self._ready.clear()
        lanes, self._lanes = self._lanes, {}
        for items in lanes.values():
            for item in items:
                self._queued -= 1
                self._tell(item, _unsent(item, SessionClosed("the session closed before it was its turn")))
            items.clear()
        self._settle_idle()

    async def _work(self) -> None:
        """Carry the next message of the next lane, until none is left."""
        session_owned.set(True)
        try:
            while self._ready:
                lane, _ = self._ready.popitem(last=False)
                items = self._lanes[lane]
                # The lane stays in the table while its message is under way: the next one waits for it there.
                await self._carry(items.popleft())
                if items:
                    self._ready[lane] = None
                elif not self._closed:
                    del self._lanes[lane]
        finally:
            self._workers -= 1
            self._settle_idle()

    async def _carry(self, item: _Item) -> None:
        self._queued -= 1
        self._busy += 1
        outcome: Outcome[Any] | None = None
        delivery = Delivery(item.message, self._find)
        waited = self._clock.time() - item.queued_at
        try:
            if item.wait_limit is not None and waited > item.wait_limit:
                outcome = _unsent(item, _waited_too_long(waited))
            else:
                outcome = await delivery.run()
        except BaseException as error:
            failure = failure_of(error)  # a store that fails, say
            logger.exception("a message could not be carried")
            outcome = delivery.cut_off(failure)
        finally:
            self._busy -= 1
            # None: the session is being torn down under it.
            closed = SessionClosed("the session closed before it was done")
            self._tell(item, delivery.cut_off(closed) if outcome is None else outcome)

    def _tell(self, item: _Item, outcome: Outcome[Any]) -> None:
        try:
            item.on_outcome(outcome)
        except Exception:
            logger.exception("an outcome could not be handed over")

    def _oldest(self) -> float:
        now = self._clock.time()
        return max((now - items[0].queued_at for items in self._lanes.values() if items), default=0.0)

    def _settle_idle(self) -> None:
        if len(self):
            return
        waiting, self._idle = self._idle, []
        for slot in waiting:
            slot.settle()


def lane_of(to: str | Consumer | Conversation) -> str:
    """The consumer whose messages go one after the other; those that are to nobody share a lane."""
    if isinstance(to, str):
        return to
    if isinstance(to, Consumer):
        return to.ext_consumer_id
    # Of what is none of these the consumer is nobody, and the message will be refused in its turn.
    conversation: Any = to
    return conversation.consumer.ext_consumer_id if hasattr(conversation, "consumer") else ""


def _unsent(item: _Item, error: RequestError) -> Outcome[Any]:
    return Outcome(message=item.message, status=OutcomeStatus.NOT_SENT, error=error)


def _waited_too_long(seconds: float) -> DeadlineExceeded:
    return DeadlineExceeded(
        f"it waited {seconds:.1f} s for the messages before it in its lane",
        landed=Landed.NO,
        retryable=True,
        stages={"lane": seconds},
        hint="it is safe to send it again later",
    )
