"""Many messages in, exactly one outcome for each out, in bounded memory."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable
from types import TracebackType
from typing import Generic, Self

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup
from typing_extensions import TypeVar

from connector_async._arguments import check_kind
from connector_async._concurrency import Clock, Slot, failure_of
from connector_async.errors import Landed, NotSent, OutcomeUnknown, RequestError, SessionClosed
from connector_async.session._messages import Outcome, OutcomeStatus, Outgoing
from connector_async.session._outbound import Outbound, lane_of

__all__ = ["OutcomeStream"]

K = TypeVar("K", default=None)

logger = logging.getLogger("connector_async.outbound")


class OutcomeStream(Generic[K]):
    """The outcomes of many messages: `async with` it, then `async for`. Made by `ConnectorSession.send_many`.

    Exactly one outcome for each message read from the source. When the source fails, the outcomes of what was read
    come first, then its error. When the loop is left, nothing more is read; what was read is settled, and `left` has
    the outcomes that the loop did not take. When the block is left by an error or a cancellation, what still waits is
    not sent any more, and what is under way has 10 seconds to end. Several tasks may take outcomes from one stream.
    An async generator is closed when no more is read of it.

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
        self._entered = False
        self._reading = False
        self._stopped = False
        self._failure: Exception | None = None
        self._read = 0
        self._settled = 0
        self._taken = 0
        self._outcomes: deque[Outcome[K]] = deque()
        self._early: dict[int, Outcome[K]] = {}
        self._load: dict[str, int] = {}
        self._unsettled: dict[int, Outgoing[K]] = {}
        self._news: list[Slot] = []
        self._room: Slot | None = None
        self.left: tuple[Outcome[K], ...] = ()

    async def __aenter__(self) -> Self:
        if self._entered:
            raise RuntimeError("a stream is entered once: call `send_many` again")
        self._entered = self._reading = True
        try:
            self._task_group.start_soon(self._read_all)
        except RuntimeError:
            self._reading = False
            raise SessionClosed("the session is closed") from None
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
        if exc is None:
            await self._settle()
        else:
            # Also while we are being cancelled; what waits for its turn is given up, the rest is given a while.
            self._outbound.withdraw(self, _left_unsent())
            with anyio.move_on_after(_SETTLE_WITHIN, shield=True):
                await self._settle()
            for number, message in list(self._unsettled.items()):
                self._take_in(number, Outcome(message=message, status=OutcomeStatus.UNKNOWN, error=_left_unknown()))
        self.left = (*self._outcomes, *(self._early[number] for number in sorted(self._early)))
        self._outcomes.clear()
        self._early.clear()
        self._taken = self._read
        if self._failure is not None:
            logger.error("the source of messages failed, and nobody heard", exc_info=self._failure)

    async def _settle(self) -> None:
        while self._reading or self._settled < self._read:
            await self._wait_for_news()

    def __aiter__(self) -> AsyncIterator[Outcome[K]]:
        return self

    async def __anext__(self) -> Outcome[K]:
        if not self._entered:
            raise RuntimeError("enter the stream first: `async with session.send_many(...) as outcomes:`")
        while not self._outcomes:
            if not self._reading and self._settled == self._read:
                if self._failure is not None:
                    failure, self._failure = self._failure, None
                    try:
                        raise failure
                    finally:
                        del failure  # its traceback holds this frame
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
                    await self._read_async(self._messages)
                else:
                    for message in self._messages:
                        await self._admit(message)
                        if self._read % _BREATH == 0:
                            await anyio.lowlevel.checkpoint()
        except BaseException as error:  # noqa: BLE001 - the source's error is raised where the outcomes are taken
            self._failure = failure_of(error)
        finally:
            self._reading = False
            self._ring()

    async def _read_async(self, messages: AsyncIterable[Outgoing[K]]) -> None:
        try:
            async for message in messages:
                await self._admit(message)
        finally:
            if isinstance(messages, AsyncGenerator):
                # Its own `finally` runs now, not when the garbage collector finds it.
                with anyio.move_on_after(_CLOSE_SOURCE_WITHIN, shield=True):
                    await messages.aclose()

    async def _admit(self, message: Outgoing[K]) -> None:
        check_kind("what `send_many` reads", message, Outgoing, "an `Outgoing(to, body)`")
        number = self._read
        self._read += 1
        self._unsettled[number] = message
        try:
            await self._room_for(message)
        except BaseException:
            # Stopped while it waited for room: it was read, so it has an outcome.
            self._take_in(number, Outcome(message=message, status=OutcomeStatus.NOT_SENT, error=_left_unsent()))
            raise
        lane = lane_of(message.to)
        self._load[lane] = self._load.get(lane, 0) + 1
        try:
            self._outbound.put(
                message,
                lambda outcome: self._take_in(number, outcome, lane),
                wait_limit=self._lane_timeout,
                owner=self,
            )
        except Exception as error:
            # Whatever it is, a message that was read has an outcome: who waits for all of them would wait for ever.
            self._take_in(number, Outcome(message=message, status=OutcomeStatus.NOT_SENT, error=error), lane)
            if not isinstance(error, SessionClosed):
                raise
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
        if self._unsettled.pop(number, None) is None:
            return  # told as unknown already, when the block was left
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
        slot = self._clock.slot()
        self._news.append(slot)
        await slot

    def _ring(self) -> None:
        if self._news:
            waiting, self._news = self._news, []
            for slot in waiting:
                slot.settle()


def _left_unsent() -> RequestError:
    return NotSent("the stream was left before it was its turn", hint="it is safe to send it again")


def _left_unknown() -> RequestError:
    return OutcomeUnknown("the stream was left while it was under way", landed=Landed.UNKNOWN)


_BREATH = 64  # a source that never waits must not keep the loop from turning
_SETTLE_WITHIN = 10.0  # seconds, when the block is left by an error
_CLOSE_SOURCE_WITHIN = 5.0  # seconds for the source's own clean-up
