"""Many consumers who open a conversation, send messages one after the other, and close; and what became of each."""

from __future__ import annotations

import math
import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

import anyio
import attrs

from connector_async.cli._progress import Progress
from connector_async.conversation import Conversation
from connector_async.errors import RequestError
from connector_async.exchange import outcome_of
from connector_async.protocol.retry import Attempt
from connector_async.session import ConnectorSession

__all__ = ["Crowd", "Fate", "Tally", "percentile"]

T = TypeVar("T")


@attrs.frozen
class Fate:
    """What became of one message that got a request id: `accepted`, `refused`, `not_sent` or `unknown`."""

    status: str
    attempts: tuple[Attempt, ...]
    maybe_duplicate: bool = False


@attrs.define
class Tally:
    """What the crowd has seen so far.

    Attributes:
        statuses: How many messages ended in each status.
        causes: How many failed for each reason, openings and closings included.
        fates: Request id -> what became of it.
        latencies: Seconds from the call to the cloud's OK, of each accepted message.
        seconds: How long the sending took.
    """

    statuses: Counter[str] = attrs.field(factory=Counter[str])
    causes: Counter[str] = attrs.field(factory=Counter[str])
    fates: dict[str, Fate] = attrs.field(factory=dict[str, Fate])
    latencies: list[float] = attrs.field(factory=list[float])
    seconds: float = 0.0

    @property
    def sent(self) -> int:
        """Messages that were given to the session and have an outcome."""
        return self.statuses.total()

    @property
    def accepted(self) -> int:
        """Messages with the cloud's OK."""
        return self.statuses["accepted"]

    @property
    def errors(self) -> int:
        """Messages without it."""
        return self.sent - self.accepted

    @property
    def attempts(self) -> int:
        """Times a message was sent."""
        return sum(len(fate.attempts) for fate in self.fates.values())

    @property
    def retried(self) -> int:
        """Messages that were sent more than once."""
        return sum(len(fate.attempts) > 1 for fate in self.fates.values())

    def failed(self, error: RequestError) -> None:
        """Note why something failed."""
        self.causes[_reason(error)] += 1

    def lost(self, error: RequestError) -> None:
        """Note a message that was not accepted."""
        self.failed(error)
        status = outcome_of(error)
        self.statuses[status] += 1
        if error.request_id is not None:
            self.fates[error.request_id] = Fate(status, error.attempts)


def _reason(error: RequestError) -> str:
    """Kind and code: the message itself differs from one request to the next."""
    code = error.code if error.code is not None else error.status
    return type(error).__name__ if code is None else f"{type(error).__name__} ({code})"


def percentile(values: Iterable[float], share: float) -> float | None:
    """The smallest value that at least this share of all do not exceed (nearest rank); None of none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None


@attrs.define(eq=False)
class Crowd:
    """So many consumers with so many messages each.

    Attributes:
        concurrency: Most consumers that wait for the cloud at the same time.
    """

    session: ConnectorSession
    progress: Progress
    consumers: int
    messages: int
    concurrency: int
    tally: Tally = attrs.field(factory=Tally)

    async def run(self) -> Tally:
        """Open, send, close; failures are counted, not raised."""
        # Fresh names: in a cloud that remembers, an id that was used before may have a conversation open.
        crowd = secrets.token_hex(4)
        names = [f"demo-{crowd}-{number}" for number in range(1, self.consumers + 1)]
        conversations: list[Conversation] = []

        async def open_one(name: str) -> None:
            try:
                conversations.append(await self.session.consumer(name).open_conversation())
            except RequestError as error:
                self.tally.failed(error)
                # Without a conversation its messages stay here, and are counted as such.
                self.tally.statuses["not_sent"] += self.messages

        self.progress.start("opening conversations", self.consumers)
        await self._each(names, open_one, steps=True)
        self.progress.start("sending messages", len(conversations) * self.messages)
        started = time.perf_counter()
        await self._each(conversations, self._talk, steps=False)
        self.tally.seconds = time.perf_counter() - started
        self.progress.start("closing conversations", len(conversations))
        await self._each(conversations, self._close, steps=True)
        return self.tally

    async def _talk(self, conversation: Conversation) -> None:
        for number in range(1, self.messages + 1):
            started = time.perf_counter()
            try:
                result = await conversation.send_text(f"Message {number} of {self.messages}")
            except RequestError as error:
                self.tally.lost(error)
            else:
                self.tally.latencies.append(time.perf_counter() - started)
                self.tally.statuses["accepted"] += 1
                self.tally.fates[result.request_id] = Fate("accepted", result.attempts, result.maybe_duplicate)
            self.progress.step()

    async def _close(self, conversation: Conversation) -> None:
        try:
            await conversation.close()
        except RequestError as error:
            self.tally.failed(error)

    async def _each(self, items: Iterable[T], do: Callable[[T], Awaitable[None]], *, steps: bool) -> None:
        """Do something to every item, at most `concurrency` at a time."""
        rest = iter(items)

        async def work() -> None:
            for item in rest:
                await do(item)
                if steps:
                    self.progress.step()

        async with anyio.create_task_group() as tasks:
            for _ in range(min(self.concurrency, self.consumers)):
                tasks.start_soon(work)
