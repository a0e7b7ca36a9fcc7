"""One run of `connector-async pump`: the input into the outbox, the outbox into the cloud, and the signals."""

from __future__ import annotations

import math
import os
import signal
import stat
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

import anyio
import attrs

from connector_async.cli._console import tell
from connector_async.cli._lines import read_lines
from connector_async.cli._pump_input import BadLine, DeadLetter, read_line
from connector_async.cli._pump_progress import PumpProgress, Standing, pump_progress
from connector_async.cli._pump_report import Results, Summary
from connector_async.errors import ConnectorError, StoreUnavailable
from connector_async.pump import Pump, PumpMessage, PumpPolicy
from connector_async.session import ConnectorSession
from connector_async.store.outbox import Claim, Outbox, OutboxCounts, PutResult, Settlement

__all__ = ["PumpRun", "Settings", "StoppedAtOnce"]

_FULL_PAUSE = 0.1
_UNAVAILABLE_PAUSE = 1.0
_MAX_OPENINGS = 5  # about 15 s of pauses
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StoppedAtOnce(Exception):
    """A second signal came."""


@attrs.frozen(kw_only=True)
class Settings:
    """What the command line says about a run; `name` is the input's, `earlier` what the outbox held before."""

    concurrency: int
    lease: float
    drain: float
    unknown: Literal["resend", "leave"]
    resume: bool
    results: Path | None
    name: str
    earlier: int


class PumpRun:
    """Reads, sends, tells, and stops when told to.

    Attributes:
        known: Lines whose message the outbox had already.
    """

    def __init__(self, session: ConnectorSession, outbox: Outbox, settings: Settings) -> None:
        self.known = 0
        self._session = session
        self._outbox = outbox
        self._settings = settings
        self._results = None if settings.results is None else Results(settings.results, settings.resume)
        self._pump = Pump(
            session,
            outbox,
            # A run comes to its end, also where no webhook app on the same outbox names the conversations that an
            # earlier one opened and did not live to write down.
            policy=PumpPolicy(unknown=settings.unknown, max_openings=_MAX_OPENINGS),
            concurrency=settings.concurrency,
            lease=settings.lease,
            on_settled=None if self._results is None else self._settled,
        )
        self._work = anyio.CancelScope()
        self._stopped_by: str | None = None
        self._is_second = False
        self._error: ConnectorError | None = None
        self._failure: str | None = None
        self._bad_lines = 0
        self._lines = 0
        self._expected: int | None = None
        self._seconds = 0.0

    async def run(self, descriptor: int | None) -> None:
        """Pump the input, if there is one, and what the outbox holds.

        Raises:
            StoppedAtOnce: A second signal came.
            CommandFailed: The file of results cannot be written.
            ConnectorError: The outbox cannot be used.
        """
        started = time.perf_counter()
        with ExitStack() as stack:
            if self._results is not None:
                stack.enter_context(self._results)
            progress = stack.enter_context(pump_progress())
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._watch, tasks.cancel_scope)
                tasks.start_soon(self._tell, progress)
                try:
                    await self._pump_all(descriptor)
                except ConnectorError as error:
                    self._error = error
                tasks.cancel_scope.cancel()
            self._show(progress)
        self._seconds = time.perf_counter() - started
        if self._error is not None:
            raise self._error
        if self._is_second:
            raise StoppedAtOnce

    def summary(self, counts: OutboxCounts, *, durable: bool) -> Summary:
        """How it went, given how many messages ended how."""
        stats = self._pump.stats
        return Summary(
            counts=counts,
            sent=stats.accepted,
            retried=stats.retried,
            lease_lost=stats.lease_lost,
            known=self.known,
            bad_lines=self._bad_lines,
            seconds=self._seconds,
            durable=durable,
            stopped_by=self._stopped_by,
            failure=self._failure,
        )

    async def _pump_all(self, descriptor: int | None) -> None:
        async with self._session, self._pump:
            with self._work:
                if descriptor is not None:
                    await self._read(descriptor)
                self._expected = self._settings.earlier + self._lines
                await self._pump.drained()
            if self._stopped_by is not None:
                await self._pump.stop(drain=self._settings.drain)

    # The input

    async def _read(self, descriptor: int) -> None:
        status, seen = os.fstat(descriptor), 0
        try:
            async for lines in read_lines(descriptor):
                messages: list[PumpMessage] = []
                for line in lines:
                    seen += 0 if line.raw is None else len(line.raw) + 1
                    message = read_line(line)
                    if isinstance(message, BadLine):
                        self._bad_lines += 1
                        tell(f"{self._settings.name}, line {message.number}: {message.reason}")
                    else:
                        messages.append(message)
                await self._put(messages)
                if stat.S_ISREG(status.st_mode) and seen:
                    share = max(1.0, status.st_size / seen)
                    self._expected = self._settings.earlier + math.ceil(self._lines * share)
        except OSError as error:
            self._failure = f"cannot read {self._settings.name} to its end: {error.strerror}"

    async def _put(self, messages: list[PumpMessage]) -> None:
        """Put them all; while the outbox is full, or cannot be used, the reader of the input waits here."""
        while messages:
            try:
                answers = await self._pump.put(*messages)
            except StoreUnavailable as error:
                tell(f"trying again: {error}")
                await anyio.sleep(_UNAVAILABLE_PAUSE)
                continue
            results = list(zip(messages, answers, strict=True))
            known = [message for message, result in results if result is PutResult.KNOWN]
            self.known += len(known)
            self._lines += sum(result is PutResult.ADDED for _, result in results)
            await self._revive([message for message in known if isinstance(message, DeadLetter)])
            await self._make_up_for(known)
            messages = [message for message, result in results if result is PutResult.FULL]
            if messages:
                await anyio.sleep(_FULL_PAUSE)

    async def _revive(self, known: Sequence[DeadLetter]) -> None:
        """Send again what this outbox has given up; what it has not is left as it is."""
        for message in known:
            if await self._outbox.revive(self._session.account_id, message.id):
                self._lines += 1
                if self._results is not None:
                    self._results.expect_another(message.id)

    async def _make_up_for(self, known: Sequence[PumpMessage]) -> None:
        """Results that an earlier run could not write any more."""
        results = self._results
        for message in known if results is not None else ():
            if results is not None and message.id not in results:
                entry = await self._outbox.find(self._session.account_id, message.id)
                if entry is not None:
                    results.add_entry(entry)

    # Telling

    def _settled(self, claim: Claim, settlement: Settlement) -> None:
        if self._results is not None:
            self._results.add(claim, settlement)

    async def _tell(self, progress: PumpProgress) -> None:
        while True:
            await anyio.sleep(progress.interval)
            self._show(progress)

    def _show(self, progress: PumpProgress) -> None:
        if self._results is not None:
            self._results.flush()
        stats = self._pump.stats
        progress.show(
            Standing(
                done=stats.accepted + stats.refused + stats.not_sent + stats.unknown,
                total=self._expected,
                in_flight=stats.in_flight,
                retried=stats.retried,
                unknown=stats.unknown,
            )
        )

    # Signals

    async def _watch(self, everything: anyio.CancelScope) -> None:
        with anyio.open_signal_receiver(*_SIGNALS) as signals:
            async for number in signals:
                if self._stopped_by is not None:
                    self._is_second = True
                    everything.cancel()
                    return
                self._stopped_by = signal.Signals(number).name
                tell(
                    f"{self._stopped_by}: waiting at most {self._settings.drain:g} s for what is in flight "
                    "(a second signal stops at once)"
                )
                self._work.cancel()
