"""Where calls wait, apart from what they wait for."""

from __future__ import annotations

import anyio
import pytest

from connector_async._concurrency import current_clock
from connector_async.exchange._call import Call, Superseded
from connector_async.exchange.gate import Gate
from connector_async.protocol.lanes import Lanes, Ticket, TicketState
from tests.exchange.test_reading import call_of

pytestmark = pytest.mark.anyio


class QuickLanes(Lanes):
    """Says that a ticket has to wait, and has let it on by then."""

    __slots__ = ()

    def enter(self, ticket: Ticket, now: float) -> bool:
        assert super().enter(ticket, now)
        ticket.granted()
        return False


async def test_whoever_was_let_on_while_queueing_does_not_wait() -> None:
    """Whoever was let on before it may have ended at once."""
    async with anyio.create_task_group() as tasks:
        gate = Gate(QuickLanes(width=1, max_queue=1), current_clock(tasks))
        call = call_of("m-1")
        assert not gate.lanes.enter(call, 0.0)
        await gate.queue(call, 0.0)
        assert call.state is TicketState.RUNNING
        assert call.queued == 0.0
        gate.lanes.leave(call, 0.0)
        gate.lanes.leave(call, 0.0)


async def test_a_call_that_waits_for_nothing_of_ours_is_not_interrupted() -> None:
    """It is somewhere else: in the transport, or with the tokens."""
    call: Call = call_of("m-1")
    call.interrupt(Superseded())
    call.granted()
    assert call.slot is None
