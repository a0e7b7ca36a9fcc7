"""A ticket that tells what happened to it, and a state machine that does everything to `Lanes` in any order."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable
from typing import Literal

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from connector_async.errors import QueueFull
from connector_async.protocol import lanes as lanes_module
from connector_async.protocol.lanes import Lanes, Priority, Ticket, TicketState

__all__ = ["LanesMachine", "RecordingTicket", "assert_nothing_left", "entered", "make_lanes", "make_ticket"]

End = Literal["left", "superseded", "refused"]


def _nothing() -> None:
    """What most tickets do when their turn comes."""


class RecordingTicket(Ticket):
    """Counts its callbacks and may do something in them."""

    def __init__(self, lane: Hashable, priority: Priority = Priority.CONTENT) -> None:
        super().__init__(lane, priority)
        self.grants = 0
        self.drops = 0
        self.when_granted: Callable[[], object] = _nothing
        self.when_dropped: Callable[[], object] = _nothing

    def granted(self) -> None:
        self.grants += 1
        self.when_granted()

    def superseded(self) -> None:
        self.drops += 1
        self.when_dropped()


def assert_nothing_left(lanes: Lanes) -> None:
    """Nothing runs, waits or holds a lane, and no container keeps anything."""
    assert lanes.is_idle()
    assert (lanes.running, lanes.depth, lanes.oldest(1e9), lanes.wake_at) == (0, 0, 0.0, None)
    assert not any((lanes._active, lanes._waiting, lanes._queued, lanes._typing, lanes._paused, *lanes._ready))


def make_lanes(*, width: int = 1, max_queue: int = 100, rate: float | None = None) -> Lanes:
    """A queue, narrow unless told otherwise."""
    return Lanes(width=width, max_queue=max_queue, rate=rate)


def make_ticket(
    lane: Hashable = "a", priority: Priority = Priority.CONTENT, *, then: Callable[[], object] | None = None
) -> RecordingTicket:
    """A ticket of content in lane `a`, unless told otherwise."""
    ticket = RecordingTicket(lane, priority)
    if then is not None:
        ticket.when_granted = then
    return ticket


def entered(lanes: Lanes, *tickets: RecordingTicket, now: float = 0.0) -> list[bool]:
    """Enter tickets one after the other; whether each may go at once."""
    return [lanes.enter(ticket, now) for ticket in tickets]


class LanesMachine(RuleBasedStateMachine):
    """Every event in any order; a model knows who entered when and how each ended."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.entered: defaultdict[Hashable, list[RecordingTicket]] = defaultdict(list)
        self.tickets: list[RecordingTicket] = []
        self.ends: dict[RecordingTicket, list[End]] = {}
        self.waits: dict[RecordingTicket, int] = {}
        self.starts: list[float] = []
        self.lanes = Lanes(width=1, max_queue=1)
        self.rate: float | None = None

    @initialize(width=st.integers(1, 4), max_queue=st.integers(0, 6), rate=st.sampled_from([None, None, 2.0, 100.0]))
    def build(self, width: int, max_queue: int, rate: float | None) -> None:
        self.rate = rate
        self.max_queue = max_queue
        self.max_width = width
        self.lanes = Lanes(width=width, max_queue=max_queue, rate=rate)

    # What happens to tickets

    def _started(self, ticket: RecordingTicket) -> None:
        assert ticket.state is TicketState.RUNNING
        assert self.lanes.running <= self.lanes.width
        assert self.entered[ticket.lane][0] is ticket, "overtook another of its lane"
        self.starts.append(self.now)

    def _granted(self, ticket: RecordingTicket, then: str) -> None:
        assert not self.ends[ticket]
        self.waits[ticket] -= 1
        self._started(ticket)
        if then == "leave":
            self._leave(ticket)
        elif then == "enter":
            self._enter(("from", "within"), Priority.CONTENT, "nothing")
        elif then == "pause":
            self.lanes.pause(ticket, self.now)

    def _dropped(self, ticket: RecordingTicket) -> None:
        assert ticket.priority is Priority.TYPING
        assert ticket.grants == 0
        self.ends[ticket].append("superseded")
        self.waits[ticket] -= 1
        self.entered[ticket.lane].remove(ticket)
        self.lanes.leave(ticket, self.now)

    def _enter(self, lane: Hashable, priority: Priority, then: str) -> None:
        ticket = RecordingTicket(lane, priority)
        ticket.when_granted = lambda: self._granted(ticket, then)
        ticket.when_dropped = lambda: self._dropped(ticket)
        self.tickets.append(ticket)
        self.ends[ticket] = []
        self.waits[ticket] = 1
        self.entered[lane].append(ticket)
        try:
            at_once = self.lanes.enter(ticket, self.now)
        except QueueFull:
            self.entered[lane].remove(ticket)
            self.ends[ticket].append("refused")
            self.waits[ticket] -= 1
            assert ticket.state is TicketState.NEW
            return
        if at_once:
            self.waits[ticket] -= 1
            self._started(ticket)

    def _leave(self, ticket: RecordingTicket) -> None:
        if not self.ends[ticket]:
            self.ends[ticket].append("left")
            self.entered[ticket.lane].remove(ticket)
            if ticket.state in (TicketState.WAITING, TicketState.READY):
                self.waits[ticket] -= 1
        self.lanes.leave(ticket, self.now)

    def _of(self, *states: TicketState) -> list[RecordingTicket]:
        return [ticket for ticket in self.tickets if ticket.state in states]

    # What can be done

    @rule(
        dialog=st.integers(0, 3),
        priority=st.sampled_from(Priority),
        mixed=st.booleans(),
        then=st.sampled_from(["nothing", "nothing", "leave", "enter", "pause"]),
    )
    def enter(self, dialog: int, priority: Priority, mixed: bool, then: str) -> None:
        self._enter(("any kind", dialog) if mixed else (priority, dialog), priority, then)

    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        if self.tickets:
            self._leave(data.draw(st.sampled_from(self.tickets)))

    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        if running := self._of(TicketState.RUNNING):
            self._leave(data.draw(st.sampled_from(running)))

    @rule(data=st.data())
    def pause(self, data: st.DataObject) -> None:
        if running := self._of(TicketState.RUNNING):
            self.lanes.pause(data.draw(st.sampled_from(running)), self.now)

    @rule(data=st.data())
    def resume(self, data: st.DataObject) -> None:
        if paused := self._of(TicketState.PAUSED):
            ticket = data.draw(st.sampled_from(paused))
            self.waits[ticket] += 1
            if self.lanes.resume(ticket, self.now):
                self.waits[ticket] -= 1
                self._started(ticket)

    @rule()
    def throttled(self) -> None:
        self.lanes.throttled(self.now)

    @rule(times=st.integers(1, 5))
    def succeeded(self, times: int) -> None:
        for _ in range(times):
            self.lanes.succeeded(self.now)

    @rule(seconds=st.sampled_from([0.001, 0.01, 0.3, 2.0]))
    def time_passes(self, seconds: float) -> None:
        """Timers fire when due, or a little later."""
        end = self.now + seconds
        while (due := self.lanes.wake_at) is not None and due <= end:
            self.now = max(self.now, due)
            self.lanes.wake(self.now)
        self.now = end

    @rule(seconds=st.sampled_from([0.005, 1.0]))
    def the_timer_comes_late(self, seconds: float) -> None:
        self.now += seconds
        self.lanes.wake(self.now)

    # What must hold

    @invariant()
    def counts_agree(self) -> None:
        lanes = self.lanes
        assert lanes.running == len(self._of(TicketState.RUNNING)) <= self.max_width
        assert lanes.depth == len(self._of(TicketState.WAITING, TicketState.READY))
        assert lanes._paused == len(self._of(TicketState.PAUSED))
        assert lanes.depth <= 2 * self.max_queue + 2 * self.max_width
        assert 1 <= lanes.width <= self.max_width
        assert lanes.is_idle() == (not any(self.entered.values()))

    @invariant()
    def every_ticket_has_one_end_and_every_wait_one_answer(self) -> None:
        for ticket in self.tickets:
            over = ticket.state in (TicketState.DONE, TicketState.NEW)
            assert len(self.ends[ticket]) == over
            assert self.waits[ticket] == (ticket.state in (TicketState.WAITING, TicketState.READY))
            assert ticket.drops <= 1

    @invariant()
    def one_of_each_lane_holds_it_and_it_is_the_first(self) -> None:
        for tickets in self.entered.values():
            states = [ticket.state for ticket in tickets]
            assert TicketState.WAITING not in states[:1]
            assert all(state is TicketState.WAITING for state in states[1:])

    @invariant()
    def nobody_waits_while_there_is_room(self) -> None:
        lanes = self.lanes
        ready = self._of(TicketState.READY)
        if ready and lanes.running < lanes.width:
            assert lanes.wake_at is not None
            assert self.rate is not None
        else:
            assert lanes.wake_at is None or lanes.running >= lanes.width

    @invariant()
    def the_rate_is_kept(self) -> None:
        if self.rate is None:
            return
        spacing, starts = 1 / self.rate, self.starts
        for count in range(1, min(len(starts), 20)):
            least = count * spacing - lanes_module._LATENESS - 1e-6
            assert starts[-1] - starts[-1 - count] >= least

    def teardown(self) -> None:
        """All leave: nothing is left behind."""
        for ticket in self.tickets:
            self._leave(ticket)
        while late := self._of(*set(TicketState) - {TicketState.DONE, TicketState.NEW}):
            for ticket in late:
                self._leave(ticket)
        assert_nothing_left(self.lanes)
        assert all(len(ends) == 1 for ends in self.ends.values())
        assert not any(self.waits.values())
        assert not any(self.entered.values())
