"""Who may send next: the queue in front of the transport.

Owns three rules. Requests of one lane (one dialog, one kind) go one after the other, retries included, so that they
never overtake each other. Across lanes it is fair: a lane that has sent goes to the back. And no more than `width`
requests run at once; the width shrinks when the cloud says 429 and grows back with each success.

Content goes before receipts, receipts before typing; a typing state that still waits is replaced by the next one of
its lane, and is the first to go when the queue is full.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from enum import Enum, IntEnum

from connector_async.errors import QueueFull

__all__ = ["Lanes", "Priority", "SharedWidth", "Ticket", "TicketState"]

_CUT = 0.7
_CUT_INTERVAL = 1.0  # one bad moment answers many requests with 429: it is one reason to narrow, not many
_TURNS_OF_THE_FIRST = 8  # of 9 grants, one goes to a lower priority, if one waits: late is fine, never is not
_LATENESS = 0.05  # seconds of late timer that the rate makes up for: more would come out as a burst


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


# Looked up once: on Python 3.11 each look-up of an enum member costs more than the decision it is for.
_NEW, _WAITING, _READY, _RUNNING, _PAUSED, _DONE = TicketState
_TYPING = Priority.TYPING


class Ticket:
    """One request's place. Subclass it to hear of `granted` and `superseded`.

    Both are called synchronously and must not raise; they may call the queue again.
    """

    __slots__ = ("lane", "priority", "queued_at", "state")

    def __init__(self, lane: Hashable, priority: Priority = Priority.CONTENT) -> None:
        self.lane = lane
        self.priority = priority
        self.queued_at = 0.0
        self.state = _NEW

    def granted(self) -> None:
        """It may run now. Only called for tickets that had to wait."""

    def superseded(self) -> None:
        """It was taken out unsent: a newer one of its lane replaces it, or the queue was full."""


class SharedWidth:
    """How many requests may run at once in several queues together; who finds none left is served in turn.

    Args:
        width: Most requests that run at once in all of them.
    """

    __slots__ = ("_free", "_giving", "_waiting")

    def __init__(self, width: int) -> None:
        if width < 1:
            raise ValueError(f"a width is at least 1, got {width}")
        self._free = width
        self._giving = False
        self._waiting: OrderedDict[Lanes, None] = OrderedDict()

    def take(self, lanes: Lanes) -> bool:
        """One more request of `lanes` starts; False: it must wait, and `lanes.wake` will be called."""
        if self._free:
            self._free -= 1
            # Who has just been served goes to the back, if it has more.
            self._waiting.pop(lanes, None)
            return True
        # Who waits already keeps its place: asking again for each new request must not put the busiest last.
        self._waiting.setdefault(lanes)
        return False

    def give(self, now: float) -> None:
        """A request has stopped running: who has waited longest starts one, unless its own limits forbid it now."""
        self._free += 1
        if self._giving:
            # Called from within `granted`: the loop that runs goes on with it, and the stack does not grow.
            return
        self._giving = True
        try:
            while self._free and self._waiting:
                self._waiting.popitem(last=False)[0].wake(now)
        finally:
            self._giving = False

    def leave(self, lanes: Lanes) -> None:
        """This queue is no more."""
        self._waiting.pop(lanes, None)


class Lanes:
    """The queue. Times are seconds on any one clock that does not step back.

    Args:
        width: Most requests that run at once.
        max_queue: Most requests that wait. As many as wait and run at most may pause between two attempts.
        rate: Most requests started per second, or None.
        shared: The width of several queues together, beside this one's own.
    """

    __slots__ = (
        "_active",
        "_cut_at",
        "_max_queue",
        "_max_width",
        "_next_start",
        "_paused",
        "_pumping",
        "_queued",
        "_ready",
        "_running",
        "_shared",
        "_spacing",
        "_turns",
        "_typing",
        "_waiting",
        "_width",
        "alarm",
        "wake_at",
    )

    def __init__(
        self, *, width: int, max_queue: int, rate: float | None = None, shared: SharedWidth | None = None
    ) -> None:
        if width < 1 or max_queue < 0:
            raise ValueError(f"width is at least 1 and max_queue at least 0, got {width} and {max_queue}")
        if rate is not None and not rate > 0:
            raise ValueError(f"a rate is above 0, or None for no limit, got {rate}")
        self._max_width = width
        self._width = float(width)
        self._max_queue = max_queue
        self._spacing = 0.0 if rate is None else 1.0 / rate
        self._next_start = float("-inf")
        self._cut_at = float("-inf")
        self._shared = shared
        self._running = 0
        self._paused = 0
        self._pumping = False
        self._turns = [0] * len(Priority)
        self._active: dict[Hashable, Ticket] = {}
        self._waiting: dict[Hashable, OrderedDict[Ticket, None]] = {}
        # The heads of lanes that wait for width; keyed by lane, so that a head can be replaced in its place.
        self._ready: tuple[OrderedDict[Hashable, Ticket], ...] = tuple(OrderedDict() for _ in Priority)
        self._queued: OrderedDict[Ticket, None] = OrderedDict()
        # Those of the queued that may be dropped: typing states that were never sent, at most one for each lane.
        self._typing: OrderedDict[Hashable, Ticket] = OrderedDict()
        self.wake_at: float | None = None
        """When `wake` must be called, because only the rate holds a request back; None if nothing is held."""
        self.alarm: Callable[[float], None] | None = None
        """Told each time that `wake_at` is set; must not call back."""

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
            RuntimeError: The ticket has been here before.
        """
        if ticket.state is not _NEW:
            raise RuntimeError(f"a ticket enters once, this one is {ticket.state.value}")
        lane = ticket.lane
        if lane not in self._active and self._may_start(now):
            if self._paused:
                self._check_paused(now)
            if self._shared is None or self._shared.take(self):
                self._active[lane] = ticket
                self._start(ticket, now)
                return True
        dropped = self._room_for(ticket, now)
        if dropped is None:
            self._queue_up(ticket, now)
            return False
        if dropped is self._active.get(lane) and ticket.priority is _TYPING and lane not in self._waiting:
            self._replace_head(dropped, ticket, now)
        else:
            self._take_out(dropped)
            self._queue_up(ticket, now)
        # Last, since it may call back: by now the queue is in order again.
        dropped.superseded()
        return False

    def pause(self, ticket: Ticket, now: float) -> None:
        """Give the width to others for a while, but keep the lane.

        Raises:
            RuntimeError: The ticket does not run.
        """
        if ticket.state is not _RUNNING:
            raise RuntimeError(f"only a running ticket pauses, this one is {ticket.state.value}")
        ticket.state = _PAUSED
        self._running -= 1
        self._paused += 1
        if self._shared is not None:
            self._shared.give(now)
        self._pump(now)

    def resume(self, ticket: Ticket, now: float) -> bool:
        """Ask for width again after `pause`; answers like `enter`, but is never refused and never superseded.

        Raises:
            RuntimeError: The ticket is not paused.
        """
        if ticket.state is not _PAUSED:
            raise RuntimeError(f"only a paused ticket resumes, this one is {ticket.state.value}")
        self._paused -= 1
        if self._may_start(now) and (self._shared is None or self._shared.take(self)):
            self._start(ticket, now)
            return True
        ticket.queued_at = now
        self._queued[ticket] = None
        self._make_ready(ticket)
        self._pump(now)
        return False

    def leave(self, ticket: Ticket, now: float) -> None:
        """End a ticket in whatever state it is, and let others on; idempotent."""
        state = ticket.state
        if state is _DONE or state is _NEW:
            return
        if state is _RUNNING and not self._queued:  # nobody is let on by this: the way that most go
            ticket.state = _DONE
            self._running -= 1
            del self._active[ticket.lane]
            if self._shared is not None:
                self._shared.give(now)
            return
        self._take_out(ticket)
        if state is _RUNNING and self._shared is not None:
            self._shared.give(now)
        self._pump(now)

    def wake(self, now: float) -> None:
        """Let requests on that the rate, or the shared width, held back; call it at `wake_at`."""
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
            self._pump(now)

    def _may_start(self, now: float) -> bool:
        return (
            self._running + 1 <= self._width and now >= self._next_start and not (self._queued and any(self._ready))
        )

    def _start(self, ticket: Ticket, due: float) -> None:
        ticket.state = _RUNNING
        self._running += 1
        if self._spacing:
            self._next_start = due + self._spacing

    def _queue_up(self, ticket: Ticket, now: float) -> None:
        self._enqueue(ticket, now)
        if ticket.lane in self._active:
            ticket.state = _WAITING
            self._waiting.setdefault(ticket.lane, OrderedDict())[ticket] = None
        else:
            self._active[ticket.lane] = ticket
            self._make_ready(ticket)
        self._pump(now)

    def _replace_head(self, old: Ticket, new: Ticket, now: float) -> None:
        """Put a typing state where the older one of its lane stood, so that who types much is not served last."""
        old.state = _DONE
        self._dequeue(old)
        self._enqueue(new, now)
        self._active[new.lane] = new
        self._make_ready(new)

    def _enqueue(self, ticket: Ticket, now: float) -> None:
        ticket.queued_at = now
        self._queued[ticket] = None
        if ticket.priority is _TYPING:
            self._typing[ticket.lane] = ticket

    def _dequeue(self, ticket: Ticket) -> None:
        del self._queued[ticket]
        if self._typing.get(ticket.lane) is ticket:
            del self._typing[ticket.lane]

    def _make_ready(self, ticket: Ticket) -> None:
        ticket.state = _READY
        self._ready[ticket.priority][ticket.lane] = ticket

    def _take_out(self, ticket: Ticket) -> None:
        state = ticket.state
        ticket.state = _DONE
        if state is _WAITING:
            self._dequeue(ticket)
            self._unlist(ticket)
            return
        if state is _RUNNING:
            self._running -= 1
        elif state is _PAUSED:
            self._paused -= 1
        else:
            self._dequeue(ticket)
            del self._ready[ticket.priority][ticket.lane]
        del self._active[ticket.lane]
        waiting = self._waiting.get(ticket.lane)
        if waiting is not None:
            following = next(iter(waiting))
            self._unlist(following)
            self._active[ticket.lane] = following
            self._make_ready(following)

    def _unlist(self, ticket: Ticket) -> None:
        waiting = self._waiting[ticket.lane]
        del waiting[ticket]
        if not waiting:
            del self._waiting[ticket.lane]

    def _pump(self, now: float) -> None:
        """Start what may start. Called again from within `granted`, it leaves the work to the loop that runs."""
        if self._pumping:
            return
        late = self.wake_at is not None
        self.wake_at = None
        if not self._queued:
            return
        self._pumping = True
        try:
            while self._running < int(self._width) and any(self._ready):
                if now < self._next_start:
                    self.wake_at = self._next_start
                    if self.alarm is not None:
                        self.alarm(self.wake_at)
                    return
                if self._shared is not None and not self._shared.take(self):
                    return
                ticket = self._next_ready()
                self._dequeue(ticket)
                # A timer that came late must not slow the rate down; a queue that was idle must not speed it up.
                self._start(ticket, max(self._next_start, now - _LATENESS) if late else now)
                ticket.granted()
        finally:
            self._pumping = False

    def _next_ready(self) -> Ticket:
        level = 0
        while not self._ready[level] or (any(self._ready[level + 1 :]) and not self._has_turn(level)):
            level += 1
        return self._ready[level].popitem(last=False)[1]

    def _has_turn(self, level: int) -> bool:
        self._turns[level] = (self._turns[level] + 1) % (_TURNS_OF_THE_FIRST + 1)
        return self._turns[level] != 0

    def _room_for(self, ticket: Ticket, now: float) -> Ticket | None:
        """The typing state that must go so that a ticket can wait; None if there is room without."""
        if ticket.priority is _TYPING:
            older = self._typing.get(ticket.lane)
            if older is not None:
                return older
        self._check_paused(now)
        depth = len(self._queued)
        if depth < self._max_queue:
            return None
        if self._typing:
            return next(iter(self._typing.values()))
        raise QueueFull(
            f"{depth} requests are waiting, the oldest for {self.oldest(now):.1f} s",
            depth=depth,
            age=self.oldest(now),
        )

    def _check_paused(self, now: float) -> None:
        # Pausing requests hold neither width nor a place in the queue: without a bound of their own, an outage
        # would let them pile up without end.
        if self._paused >= self._max_queue + self._max_width:
            raise QueueFull(
                f"{self._paused} requests are waiting for a token, or for their next attempt",
                depth=self._paused + len(self._queued),
                age=self.oldest(now),
                hint="the cloud fails or cannot be reached: send again when it recovers",
            )
