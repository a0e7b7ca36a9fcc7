"""Who may send next: the queue in front of the transport.

Owns three rules. Requests of one lane (one dialog, one kind) go one after the other, retries included, so that they
never overtake each other. Across lanes it is fair: a lane that has sent goes to the back. And no more than `width`
requests run at once; the width shrinks when the cloud says 429 and grows back with each success.

Content goes before receipts, receipts before typing; a typing state that still waits is replaced by the next one of
its lane, and is the first to go when the queue is full.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from enum import Enum, IntEnum

from connector_async.errors import QueueFull

__all__ = ["Lanes", "Priority", "Ticket", "TicketState"]

_CUT = 0.7
_CUT_INTERVAL = 1.0  # one bad moment answers many requests with 429: it is one reason to narrow, not many
_TURNS_OF_THE_FIRST = 8  # of 9 grants, one goes to a lower priority, if one waits: late is fine, never is not


class Priority(IntEnum):
    """Order in which lanes are served."""

    CONTENT = 0
    RECEIPT = 1
    TYPING = 2


class TicketState(Enum):
    """Where a ticket is."""

    NEW = "new"
    WAITING = "waiting"
    """Behind another ticket of its lane."""
    READY = "ready"
    """At the head of its lane, waiting for width."""
    RUNNING = "running"
    PAUSED = "paused"
    """Holds its lane but no width: between two attempts."""
    DONE = "done"


class Ticket:
    """One request's place. Subclass it to hear of `granted` and `superseded`; both are called synchronously."""

    __slots__ = ("lane", "priority", "queued_at", "state")

    def __init__(self, lane: Hashable, priority: Priority = Priority.CONTENT) -> None:
        self.lane = lane
        self.priority = priority
        self.queued_at = 0.0
        self.state = TicketState.NEW

    def granted(self) -> None:
        """It may run now. Only called for tickets that had to wait."""

    def superseded(self) -> None:
        """It was taken out unsent: a newer one of its lane replaces it, or the queue was full."""


class Lanes:
    """The queue. Times are seconds on any one clock that does not step back.

    Args:
        width: Most requests that run at once.
        max_queue: Most requests that wait.
        rate: Most requests started per second, or None.
    """

    __slots__ = (
        "_active",
        "_cut_at",
        "_max_queue",
        "_max_width",
        "_next_start",
        "_queued",
        "_ready",
        "_running",
        "_spacing",
        "_turns",
        "_waiting",
        "_width",
        "wake_at",
    )

    def __init__(self, *, width: int, max_queue: int, rate: float | None = None) -> None:
        self._max_width = width
        self._width = float(width)
        self._max_queue = max_queue
        self._spacing = 0.0 if rate is None else 1.0 / rate
        self._next_start = 0.0
        self._cut_at = float("-inf")
        self._running = 0
        self._turns = 0
        self._active: dict[Hashable, Ticket] = {}
        self._waiting: dict[Hashable, OrderedDict[Ticket, None]] = {}
        self._ready: tuple[OrderedDict[Ticket, None], ...] = (OrderedDict(), OrderedDict(), OrderedDict())
        self._queued: OrderedDict[Ticket, None] = OrderedDict()
        self.wake_at: float | None = None
        """When `wake` must be called, because only the rate holds a request back; None if nothing is held."""

    @property
    def running(self) -> int:
        """Requests that hold width."""
        return self._running

    @property
    def depth(self) -> int:
        """Requests that wait, for their lane or for width."""
        return len(self._queued)

    @property
    def width(self) -> int:
        """How many may run at once at present."""
        return int(self._width)

    def oldest(self, now: float) -> float:
        """Seconds that the longest-waiting request has waited."""
        first = next(iter(self._queued), None)
        return 0.0 if first is None else now - first.queued_at

    def is_idle(self) -> bool:
        """Whether nothing runs, waits or holds a lane."""
        return not self._active and not self._queued and not self._running

    def enter(self, ticket: Ticket, now: float) -> bool:
        """Take a place. True: go at once. False: `ticket.granted()` will be called.

        Raises:
            QueueFull: `max_queue` requests wait already, and none of them is mere typing.
        """
        active = self._active
        if ticket.priority is Priority.TYPING and ticket.lane in active:
            self._supersede(ticket.lane, now)
        if ticket.lane not in active:
            if self._may_start(now):
                active[ticket.lane] = ticket
                self._start(ticket, now)
                return True
            self._make_room(now)
            active[ticket.lane] = ticket
            self._enqueue(ticket, now)
            self._make_ready(ticket)
            self._pump(now)
            return False
        self._make_room(now)
        self._enqueue(ticket, now)
        ticket.state = TicketState.WAITING
        self._waiting.setdefault(ticket.lane, OrderedDict())[ticket] = None
        return False

    def pause(self, ticket: Ticket, now: float) -> None:
        """Give the width to others for a while, but keep the lane."""
        ticket.state = TicketState.PAUSED
        self._running -= 1
        self._pump(now)

    def resume(self, ticket: Ticket, now: float) -> bool:
        """Ask for width again after `pause`; answers like `enter`, but is never refused."""
        if self._may_start(now):
            self._start(ticket, now)
            return True
        self._enqueue(ticket, now)
        self._make_ready(ticket)
        self._pump(now)
        return False

    def leave(self, ticket: Ticket, now: float) -> None:
        """End a ticket in whatever state it is, and let others on; idempotent."""
        state = ticket.state
        if state is TicketState.DONE or state is TicketState.NEW:
            return
        ticket.state = TicketState.DONE
        if state is TicketState.WAITING:
            self._unqueue_waiting(ticket)
            return
        if state is TicketState.RUNNING:
            self._running -= 1
        elif state is TicketState.READY:
            del self._queued[ticket]
            del self._ready[ticket.priority][ticket]
        del self._active[ticket.lane]
        if self._waiting:
            self._promote(ticket.lane)
        if self._queued:
            self._pump(now)

    def wake(self, now: float) -> None:
        """Let requests on that the rate held back; call it at `wake_at`."""
        self._pump(now)

    def throttled(self, now: float) -> None:
        """The cloud said 429: narrow to 0.7, at most once a second."""
        if now - self._cut_at >= _CUT_INTERVAL:
            self._cut_at = now
            self._width = max(1.0, self._width * _CUT)

    def succeeded(self, now: float) -> None:
        """The cloud accepted a request: widen by one for each full width of successes."""
        if self._width < self._max_width:
            self._width = min(float(self._max_width), self._width + 1.0 / self._width)
            if self._queued:
                self._pump(now)

    def _may_start(self, now: float) -> bool:
        return (
            self._running < int(self._width) and now >= self._next_start and not (self._queued and any(self._ready))
        )

    def _start(self, ticket: Ticket, now: float) -> None:
        ticket.state = TicketState.RUNNING
        self._running += 1
        if self._spacing:
            self._next_start = max(now, self._next_start) + self._spacing

    def _enqueue(self, ticket: Ticket, now: float) -> None:
        ticket.queued_at = now
        self._queued[ticket] = None

    def _make_ready(self, ticket: Ticket) -> None:
        ticket.state = TicketState.READY
        self._ready[ticket.priority][ticket] = None

    def _pump(self, now: float) -> None:
        self.wake_at = None
        while self._running < int(self._width):
            queue = self._next_queue()
            if queue is None:
                return
            if now < self._next_start:
                self.wake_at = self._next_start
                return
            ticket, _ = queue.popitem(last=False)
            del self._queued[ticket]
            self._start(ticket, now)
            ticket.granted()

    def _next_queue(self) -> OrderedDict[Ticket, None] | None:
        content, *lower = self._ready
        behind = next((queue for queue in lower if queue), None)
        if not content or behind is None:
            return content or behind
        self._turns = (self._turns + 1) % (_TURNS_OF_THE_FIRST + 1)
        return content if self._turns else behind

    def _promote(self, lane: Hashable) -> None:
        waiting = self._waiting.get(lane)
        if waiting is None:
            return
        ticket, _ = waiting.popitem(last=False)
        if not waiting:
            del self._waiting[lane]
        self._active[lane] = ticket
        self._make_ready(ticket)

    def _unqueue_waiting(self, ticket: Ticket) -> None:
        waiting = self._waiting[ticket.lane]
        del waiting[ticket]
        if not waiting:
            del self._waiting[ticket.lane]
        del self._queued[ticket]

    def _supersede(self, lane: Hashable, now: float) -> None:
        """Take out the typing states of a lane that have not started: only the newest is worth sending."""
        unsent = list(self._waiting.get(lane, ()))
        head = self._active[lane]
        if head.state is TicketState.READY:
            unsent.append(head)
        for ticket in unsent:
            self._drop(ticket, now)

    def _drop(self, ticket: Ticket, now: float) -> None:
        self.leave(ticket, now)
        ticket.superseded()

    def _make_room(self, now: float) -> None:
        if len(self._queued) < self._max_queue:
            return
        typing = next(iter(self._ready[Priority.TYPING]), None)
        if typing is not None:
            self._drop(typing, now)
            return
        raise QueueFull(
            f"{len(self._queued)} requests are waiting, the oldest for {self.oldest(now):.1f} s",
            depth=len(self._queued),
            age=self.oldest(now),
            hint="send less at once, or raise `SessionLimits(max_queue=…)`",
        )
