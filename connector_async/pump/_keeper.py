"""The outbox in the hands of one pump: its accidents are survived, counted and told."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

from connector_async.errors import StoreUnavailable
from connector_async.pump._report import PumpStats
from connector_async.store.outbox import Outbox

__all__ = ["Keeper", "Pauses"]

logger = logging.getLogger("connector_async.pump")

T = TypeVar("T")

_FIRST_PAUSE = 0.1  # seconds until a failed call is repeated; doubled each time
_LONGEST_PAUSE = 5.0
_CALL_WITHIN = 10.0  # seconds that a call may take, also when it is cancelled: half done is worse than late


class Keeper:
    """The outbox of one account in the hands of one pump, with its accidents counted and told once.

    Attributes:
        owner: Who owns the lanes: one run of one process. Given when the pump is entered.
        failure: Why the last call failed; None when it did not.
    """

    def __init__(self, outbox: Outbox, account_id: str, lease: float, counters: PumpStats) -> None:
        self.outbox = outbox
        self.account_id = account_id
        self.owner = ""
        self.lease = lease
        self.counters = counters
        self.failure: str | None = None

    async def try_once(self, work: Callable[[], Awaitable[T]]) -> T | None:
        """The result, or None when the outbox fails, whose failure is counted and logged. Not cut off half-way."""
        try:
            with anyio.fail_after(_CALL_WITHIN, shield=True):
                result = await work()
        except Exception as error:  # noqa: BLE001 - whatever an engine raises must not end the pump; it is told below
            self._note(error)
            return None
        if self.failure is not None:
            logger.warning("the outbox can be used again")
            self.failure = None
        return result

    def _note(self, error: Exception) -> None:
        self.counters.store_failures += 1
        # Of an error that is none of ours nobody knows what it shows.
        shown = str(error) if isinstance(error, StoreUnavailable) else type(error).__name__
        if self.failure is None:
            logger.warning("the outbox cannot be used: %s", shown)
        self.failure = shown or "it cannot be used"


class Pauses:
    """Seconds between calls that fail, growing."""

    __slots__ = ("_first", "_longest", "_next")

    def __init__(self, *, first: float = _FIRST_PAUSE, longest: float = _LONGEST_PAUSE) -> None:
        self._first = self._next = first
        self._longest = longest

    def reset(self) -> None:
        """The last call did not fail."""
        self._next = self._first

    async def wait(self) -> None:
        """Let some time pass before the next try."""
        pause, self._next = self._next, min(2 * self._next, self._longest)
        await anyio.sleep(pause)
