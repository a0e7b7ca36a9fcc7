"""From a source of messages into the outbox, no faster than that has room."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable, Iterator
from itertools import islice

import anyio
import anyio.lowlevel

from connector_async._concurrency import Clock, failure_of
from connector_async.errors import StoreUnavailable
from connector_async.pump._keeper import Pauses
from connector_async.pump._messages import PumpMessage, to_outbox
from connector_async.store.outbox import OutboxMessage, PutResult

__all__ = ["Feeder"]

logger = logging.getLogger("connector_async.pump")

_BATCH = 500  # messages in memory between the source and the outbox
_FULL_PAUSE = 0.05  # seconds until the next look whether a full outbox has room again; doubled each time
_LONGEST_PAUSE = 1.0
_LEAST_TRY = 16  # messages for such a look
_CLOSE_SOURCE_WITHIN = 5.0  # seconds for the source's own clean-up


class Feeder:
    """One run of `Pump.feed`.

    Args:
        put: Writes messages down.
        stopping: Nothing is to be put any more.
    """

    def __init__(
        self,
        put: Callable[[list[OutboxMessage]], Awaitable[list[PutResult]]],
        clock: Clock,
        *,
        stopping: anyio.Event,
    ) -> None:
        self._put = put
        self._clock = clock
        self._stopping = stopping
        self._added = 0
        self._held: list[OutboxMessage] = []
        self._putting = 0
        self._reading = True
        self._failure: Exception | None = None
        self._news = clock.slot()
        self._room = clock.slot()

    async def feed(self, messages: Iterable[PumpMessage] | AsyncIterable[PumpMessage]) -> int:
        """Read all and put it; the source's error is raised when what was read before is put."""
        if isinstance(messages, AsyncIterable):
            await self._feed_async(messages)
        else:
            source = iter(messages)
            while not self._stopping.is_set() and (batch := self._next_of(source)):
                await self._put_all(batch)
        if self._failure is not None:
            raise self._failure
        return self._added

    def _next_of(self, source: Iterator[PumpMessage]) -> list[OutboxMessage]:
        """What comes next, up to the first that cannot be read or written; nothing after that."""
        batch: list[OutboxMessage] = []
        try:
            if self._failure is None:
                # One by one: what was read before a mistake is not lost with it.
                batch.extend(to_outbox(message) for message in islice(source, _BATCH))
        except BaseException as error:  # noqa: BLE001 - raised when what came before it is put
            self._failure = failure_of(error)
        return batch

    async def _feed_async(self, messages: AsyncIterable[PumpMessage]) -> None:
        # Apart, so that what has come is put while the source lets us wait for more.
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(self._read, messages)
            task_group.start_soon(self._watch)
            while not self._stopping.is_set():
                if not self._held:
                    if not self._reading:
                        break
                    self._news = self._clock.slot()
                    await self._news
                    continue
                batch, self._held = self._held, []
                self._putting = len(batch)
                await self._put_all(batch)
                self._putting = 0
                self._room.settle()
            task_group.cancel_scope.cancel()

    async def _read(self, messages: AsyncIterable[PumpMessage]) -> None:
        try:
            async for message in messages:
                self._held.append(to_outbox(message))
                self._news.settle()
                while len(self._held) + self._putting >= _BATCH:
                    self._room = self._clock.slot()
                    await self._room
        except BaseException as error:  # noqa: BLE001 - raised where the outcome is waited for
            self._failure = failure_of(error)
        finally:
            if isinstance(messages, AsyncGenerator):
                # Its own `finally` runs now, not when the garbage collector finds it.
                with anyio.move_on_after(_CLOSE_SOURCE_WITHIN, shield=True):
                    await messages.aclose()
            self._reading = False
            self._news.settle()

    async def _watch(self) -> None:
        await self._stopping.wait()
        self._news.settle()

    async def _put_all(self, batch: list[OutboxMessage]) -> None:
        pauses = Pauses(first=_FULL_PAUSE, longest=_LONGEST_PAUSE)
        at_once = len(batch)
        while batch and not self._stopping.is_set():
            try:
                results = await self._put(batch[:at_once])
            except StoreUnavailable:
                await pauses.wait()
                continue
            # From the first that found no room: those behind it may be of the same consumer.
            full = next((place for place, result in enumerate(results) if result is PutResult.FULL), len(results))
            self._added += sum(result is PutResult.ADDED for result in results[:full])
            batch = batch[full:]
            if full:
                pauses.reset()
            if full < len(results):
                # What has room now is about what had room before: more would be written out for nothing.
                at_once = max(_LEAST_TRY, 2 * full)
                await pauses.wait()
            else:
                await anyio.lowlevel.checkpoint()
