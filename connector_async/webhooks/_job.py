"""One event on its way through memory."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import attrs

from connector_async.store.base import Delivery
from connector_async.webhooks._parts import Part
from connector_async.webhooks._runner import Result
from connector_async.webhooks.incoming import Turn

__all__ = ["Job"]

_FIRST_TURN = Turn()


@attrs.define(eq=False)
class Job:
    """One event in memory.

    Attributes:
        part: The event.
        body: The raw bytes that it came in, while the store may have to take it after all.
        delivery: Its claim, when it comes out of the durable inbox.
        is_asked: Ask the store whether another worker, or an earlier run, has had it. Not where the durable inbox
            or a caller answers for that.
        is_retractable: A failure is told to the vendor, whose next delivery must not look like a double.
        turn: How it is handed out.
        result: What came of it; None while it is not handled.
        done: Set when it left memory; None while nobody waits for that.
    """

    part: Part
    body: bytes = attrs.field(default=b"", repr=False)
    delivery: Delivery | None = None
    is_asked: bool = False
    is_retractable: bool = False
    turn: Turn = _FIRST_TURN
    result: Result | None = None
    done: anyio.Event | None = None

    @classmethod
    def awaited(cls, part: Part, *, is_retractable: bool = False) -> Job:
        """One that somebody will wait for."""
        return cls(part, is_retractable=is_retractable, done=anyio.Event())

    async def wait(self) -> None:
        """Wait until it left memory, if it was made for that."""
        await (self.done.wait() if self.done is not None else anyio.lowlevel.checkpoint())

    def let_go(self) -> None:
        """Let go on whoever waits."""
        if self.done is not None:
            self.done.set()
