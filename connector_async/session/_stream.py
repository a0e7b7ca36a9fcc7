"""Many messages in, exactly one outcome for each out, in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from types import TracebackType
from typing import Generic, Self

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup
from typing_extensions import TypeVar

from connector_async._concurrency import Clock, Slot
from connector_async.errors import SessionClosed
from connector_async.session._messages import Outcome, OutcomeStatus, Outgoing
from connector_async.session._outbound import Outbound, lane_of

__all__ = ["OutcomeStream"]

K = TypeVar("K", default=None)


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
