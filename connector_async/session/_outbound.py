"""Messages that the session owns: one at a time, or by the hundred thousand. Each one read has exactly one outcome.

Messages of one consumer go one after the other, in lanes; lanes take turns. Workers carry them: as many as can keep
the engine busy, so that its own queue stays short and a message's deadline starts when it is really its turn.
"""

from __future__ import annotations

import logging
from collections import OrderedDict, deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from enum import Enum
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import anyio
import attrs
from anyio.abc import TaskGroup

from connector_async._concurrency import Clock, Slot
from connector_async._send_result import SendResult
from connector_async.consumer import Consumer, Opening
from connector_async.conversation import Conversation
from connector_async.errors import (
    ConnectorError,
    ConversationAlreadyOpen,
    ConversationClosed,
    DeadlineExceeded,
    Landed,
    QueueFull,
    RequestError,
    RequestRefused,
    SessionClosed,
)
from connector_async.exchange import outcome_of, session_owned
from connector_async.wire import ContentEvent, Event

__all__ = ["Outbound", "Outcome", "OutcomeStatus", "OutcomeStream", "Outgoing", "Submission"]

logger = logging.getLogger("connector_async.outbound")

K = TypeVar("K")


@attrs.frozen
class Outgoing(Generic[K]):
    """One message to send.

    Attributes:
        to: The `ext_consumer_id`, a `Consumer` (their conversation is found or opened), or a `Conversation`.
        body: A text, or any event.
        key: Yours; it comes back on the outcome.
        request_id: The id to send it under, for a message that an earlier process may have sent.
        opening: How to open a conversation, if need be.
        prior_attempts: How often an earlier process has sent this `request_id`.
        timeout: Seconds from the moment it is its turn; the session's default when None.
    """

    to: str | Consumer | Conversation
    body: str | Event = attrs.field(repr=False)
    key: K | None = attrs.field(default=None, kw_only=True)
    request_id: str | None = attrs.field(default=None, kw_only=True)
    opening: Opening | None = attrs.field(default=None, kw_only=True)
    prior_attempts: int = attrs.field(default=0, kw_only=True)
    timeout: float | None = attrs.field(default=None, kw_only=True)


class OutcomeStatus(Enum):
    """What became of a message."""

    ACCEPTED = "accepted"
    """The cloud said OK."""
    REFUSED = "refused"
    """It can never succeed as it is; `Outcome.error` says why."""
    NOT_SENT = "not_sent"
    """It did not reach the cloud: safe to send again."""
    UNKNOWN = "unknown"
    """It may have landed."""


@attrs.frozen(kw_only=True)
class Outcome(Generic[K]):
    """The one outcome of one message.

    Attributes:
        result: The receipt, if it was accepted.
        error: Why it was not, otherwise.
        conversation_id: Where it went, or was to go; None if no conversation could be had.
    """

    message: Outgoing[K] = attrs.field(repr=False)
    status: OutcomeStatus
    result: SendResult | None = None
    error: Exception | None = None
    conversation_id: str | None = None

    @property
    def key(self) -> K | None:
        """The message's key."""
        return self.message.key

    @property
    def maybe_duplicate(self) -> bool:
        """Whether it may have landed more than once."""
        return self.result is not None and self.result.maybe_duplicate


class Submission(Generic[K]):
    """A message that was admitted: the session sends it, whatever becomes of the caller."""

    __slots__ = ("_clock", "_outcome", "_slots", "message")

    def __init__(self, message: Outgoing[K], clock: Clock) -> None:
        self.message = message
        self._clock = clock
        self._outcome: Outcome[K] | None = None
        self._slots: list[Slot] = []

    @property
    def done(self) -> bool:
        """Whether the outcome is known."""
        return self._outcome is not None

    async def outcome(self) -> Outcome[K]:
        """Wait for the outcome. Cancelling this does not cancel the message."""
        while self._outcome is None:
            slot = self._clock.slot()
            self._slots.append(slot)
            await slot
        return self._outcome

    def settle(self, outcome: Outcome[K]) -> None:
        """Called by the session, once."""
        self._outcome = outcome
        for slot in self._slots:
            slot.settle()


class _Item:
    """A message in its lane."""

    __slots__ = ("message", "on_outcome", "queued_at", "wait_limit")

    def __init__(
        self,
        message: Outgoing[Any],
        on_outcome: Callable[[Outcome[Any]], None],
        queued_at: float,
        wait_limit: float | None,
    ) -> None:
        self.message = message
        self.on_outcome = on_outcome
        self.queued_at = queued_at
        self.wait_limit = wait_limit


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
        self, message: Outgoing[K], on_outcome: Callable[[Outcome[K]], None], *, wait_limit: float | None = None
    ) -> None:
        """Queue a message; `on_outcome` is called exactly once.

        Args:
            wait_limit: Seconds that it may wait for its turn.

        Raises:
            SessionClosed: The session is closed.
        """
        if self._refusing:
            raise SessionClosed("the session is closed")
        lane = lane_of(message.to)
        items = self._lanes.get(lane)
        if items is None:
            items = self._lanes[lane] = deque()
            self._ready[lane] = None
        items.append(_Item(message, on_outcome, self._clock.time(), wait_limit))
        self._queued += 1
        if self._ready and self._workers < self._max_workers:
            self._workers += 1
            self._task_group.start_soon(self._work)

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
        self._settle_idle()

    async def _work(self) -> None:
        """Carry the next message of the next lane, until none is left."""
        session_owned.set(True)
        try:
            while self._ready:
                lane, _ = self._ready.popitem(last=False)
                items = self._lanes[lane]
                # It stays at the head of its lane until it is done: the lane's length is its load.
                await self._carry(items[0])
                if not self._closed:
                    items.popleft()
                    if items:
                        self._ready[lane] = None
                    else:
                        del self._lanes[lane]
        finally:
            self._workers -= 1
            self._settle_idle()

    async def _carry(self, item: _Item) -> None:
        self._queued -= 1
        self._busy += 1
        outcome: Outcome[Any] | None = None
        delivery = _Delivery(item.message, self._find)
        waited = self._clock.time() - item.queued_at
        try:
            if item.wait_limit is not None and waited > item.wait_limit:
                outcome = _unsent(item, _waited_too_long(waited))
            else:
                outcome = await delivery.run()
        finally:
            self._busy -= 1
            if outcome is None:  # the session is being torn down under it
                outcome = delivery.cut_off()
            self._tell(item, outcome)

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
    """The consumer whose messages go one after the other."""
    if isinstance(to, str):
        return to
    return to.ext_consumer_id if isinstance(to, Consumer) else to.consumer.ext_consumer_id


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


class _Delivery:
    """One message on its way to a conversation."""

    __slots__ = ("_conversation", "_find", "_message")

    def __init__(self, message: Outgoing[Any], find: Callable[[str], Consumer]) -> None:
        self._message = message
        self._find = find
        self._conversation: Conversation | None = None

    async def run(self) -> Outcome[Any]:
        """Send it; every error of ours becomes an outcome."""
        message = self._message
        target = self._find(message.to) if isinstance(message.to, str) else message.to
        for last_chance in (False, True):
            self._conversation = None
            try:
                conversation = (
                    target
                    if isinstance(target, Conversation)
                    else await target.ensure_conversation(message.opening, timeout=message.timeout)
                )
            except RequestError as error:
                return self._outcome(_status_without_conversation(error), error=error)
            self._conversation = conversation
            try:
                result = await self._publish(conversation)
            except ConversationClosed as error:
                # Closed since: a consumer's next message opens a new one (protocol.md 1.3).
                if last_chance or isinstance(target, Conversation) or error.landed is Landed.UNKNOWN:
                    return self._outcome(_status(error), error=error)
            except RequestError as error:
                return self._outcome(_status(error), error=error)
            except (ConnectorError, ValueError, TypeError) as error:
                return self._outcome(OutcomeStatus.REFUSED, error=error)
            else:
                return self._outcome(OutcomeStatus.ACCEPTED, result=result)
        raise AssertionError("the second round returns")

    async def _publish(self, conversation: Conversation) -> SendResult:
        message = self._message
        event = ContentEvent.text_of(message.body) if isinstance(message.body, str) else message.body
        if conversation.is_closed:
            raise ConversationClosed("the conversation is closed")
        return await conversation.publish(
            event,
            request_id=message.request_id,
            timeout=message.timeout,
            prior_attempts=message.prior_attempts,
        )

    def cut_off(self) -> Outcome[Any]:
        """The outcome when the task that carried it was cancelled."""
        landed = Landed.NO if self._conversation is None else Landed.UNKNOWN
        status = OutcomeStatus.NOT_SENT if landed is Landed.NO else OutcomeStatus.UNKNOWN
        return self._outcome(status, error=SessionClosed("the session closed before it was done", landed=landed))

    def _outcome(
        self, status: OutcomeStatus, *, result: SendResult | None = None, error: Exception | None = None
    ) -> Outcome[Any]:
        conversation = self._conversation
        return Outcome(
            message=self._message,
            status=status,
            result=result,
            error=error,
            conversation_id=None if conversation is None else conversation.conversation_id,
        )


def _status(error: RequestError) -> OutcomeStatus:
    return OutcomeStatus(outcome_of(error))


def _status_without_conversation(error: RequestError) -> OutcomeStatus:
    """The message itself was not sent; only a clear no to the opening means that it never can be."""
    refused = isinstance(error, RequestRefused) and not isinstance(error, ConversationAlreadyOpen)
    return OutcomeStatus.REFUSED if refused and error.landed is Landed.NO else OutcomeStatus.NOT_SENT


class OutcomeStream(Generic[K]):
    """The outcomes of many messages: `async with` it, then `async for`. Made by `ConnectorSession.send_many`.

    Exactly one outcome for each message read from the source. When the source fails, the outcomes of what was read
    come first, then its error. When the loop's body raises, or the loop is left, nothing more is read; what was read
    is settled, and `left` has the outcomes that the loop did not take.

    Attributes:
        left: After the block: outcomes that were not taken from the stream.
    """

    def __init__(
        self,
        outbound: Outbound,
        messages: Iterable[Outgoing[K]] | AsyncIterable[Outgoing[K]],
        *,
        clock: Clock,
        task_group: TaskGroup,
        concurrency: int,
        per_consumer: int,
        ordered: bool,
        lane_timeout: float | None,
    ) -> None:
        self._outbound = outbound
        self._messages = messages
        self._clock = clock
        self._task_group = task_group
        self._concurrency = concurrency
        self._per_consumer = per_consumer
        self._ordered = ordered
        self._lane_timeout = lane_timeout
        self._reader: anyio.CancelScope | None = None
        self._reading = False
        self._stopped = False
        self._failure: Exception | None = None
        self._read = 0
        self._settled = 0
        self._taken = 0
        self._outcomes: deque[Outcome[K]] = deque()
        self._early: dict[int, Outcome[K]] = {}
        self._load: dict[str, int] = {}
        self._news: Slot | None = None
        self._room: Slot | None = None
        self.left: tuple[Outcome[K], ...] = ()

    async def __aenter__(self) -> Self:
        self._reading = True
        self._task_group.start_soon(self._read_all)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
        # What was read is settled even while we are being cancelled; the session's own close bounds it.
        with anyio.CancelScope(shield=exc is not None) as scope:
            scope.deadline = anyio.current_time() + _SETTLE_WITHIN if exc is not None else scope.deadline
            while self._reading or self._settled < self._read:
                await self._wait_for_news()
        self.left = (*self._outcomes, *(self._early[number] for number in sorted(self._early)))
        self._outcomes.clear()
        self._early.clear()
        self._taken = self._read

    def __aiter__(self) -> AsyncIterator[Outcome[K]]:
        return self

    async def __anext__(self) -> Outcome[K]:
        while not self._outcomes:
            if not self._reading and self._settled == self._read:
                if self._failure is not None:
                    failure, self._failure = self._failure, None
                    raise failure
                raise StopAsyncIteration
            await self._wait_for_news()
        self._taken += 1
        outcome = self._outcomes.popleft()
        if self._room is not None:
            self._room.settle()
        return outcome

    def stop(self) -> None:
        """Read no more; what was read is sent and settled. Idempotent."""
        self._stopped = True
        if self._reader is not None:
            self._reader.cancel()

    @property
    def read(self) -> int:
        """Messages read from the source so far."""
        return self._read

    async def _read_all(self) -> None:
        try:
            with anyio.CancelScope() as self._reader:
                if self._stopped:
                    return
                if isinstance(self._messages, AsyncIterable):
                    async for message in self._messages:
                        await self._admit(message)
                else:
                    for message in self._messages:
                        await self._admit(message)
                        if self._read % _BREATH == 0:
                            await anyio.lowlevel.checkpoint()
        except Exception as error:  # noqa: BLE001 - the source's error is raised where the outcomes are taken
            self._failure = error
        finally:
            self._reading = False
            self._ring()

    async def _admit(self, message: Outgoing[K]) -> None:
        number = self._read
        self._read += 1
        try:
            await self._room_for(message)
        except BaseException:
            # Stopped while it waited for room: it was read, so it has an outcome.
            stopped = SessionClosed("the stream was stopped before it was its turn")
            self._take_in(number, Outcome(message=message, status=OutcomeStatus.NOT_SENT, error=stopped))
            raise
        lane = lane_of(message.to)
        self._load[lane] = self._load.get(lane, 0) + 1
        try:
            self._outbound.put(
                message, lambda outcome: self._take_in(number, outcome, lane), wait_limit=self._lane_timeout
            )
        except SessionClosed as error:
            self._take_in(number, Outcome(message=message, status=OutcomeStatus.NOT_SENT, error=error), lane)
            self.stop()

    async def _room_for(self, message: Outgoing[K]) -> None:
        while not self._has_room(message):
            self._room = self._clock.slot()
            await self._room

    def _has_room(self, message: Outgoing[K]) -> bool:
        if self._read - self._taken > self._concurrency:
            return False
        return self._load.get(lane_of(message.to), 0) < self._per_consumer

    def _take_in(self, number: int, outcome: Outcome[K], lane: str | None = None) -> None:
        self._settled += 1
        if lane is not None:
            self._load[lane] -= 1
            if not self._load[lane]:
                del self._load[lane]
        if self._ordered:
            self._early[number] = outcome
            while (following := self._early.pop(self._taken + len(self._outcomes), None)) is not None:
                self._outcomes.append(following)
        else:
            self._outcomes.append(outcome)
        if self._room is not None:
            self._room.settle()
        self._ring()

    async def _wait_for_news(self) -> None:
        self._news = self._clock.slot()
        await self._news

    def _ring(self) -> None:
        if self._news is not None:
            self._news.settle()


_BREATH = 64  # a source that never waits must not keep the loop from turning
_SETTLE_WITHIN = 30.0  # seconds, when the block is left by an error
