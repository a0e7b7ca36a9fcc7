"""`protocol/lanes.py`: order within a lane, fairness between lanes, width, rate, and nothing left behind."""

from __future__ import annotations

import itertools
import random as random_module
from collections import defaultdict
from collections.abc import Callable, Hashable
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connector_async.errors import Landed, QueueFull
from connector_async.protocol.lanes import Lanes, Priority, Ticket, TicketState
from tests.protocol.lanes_machine import LanesMachine, RecordingTicket, assert_nothing_left

CONTENT, RECEIPT, TYPING = Priority


def _lanes(*, width: int = 1, max_queue: int = 100, rate: float | None = None) -> Lanes:
    return Lanes(width=width, max_queue=max_queue, rate=rate)


def _ticket(
    lane: Hashable = "a", priority: Priority = CONTENT, *, then: Callable[[], object] | None = None
) -> RecordingTicket:
    ticket = RecordingTicket(lane, priority)
    if then is not None:
        ticket.when_granted = then
    return ticket


def _entered(lanes: Lanes, *tickets: RecordingTicket, now: float = 0.0) -> list[bool]:
    return [lanes.enter(ticket, now) for ticket in tickets]


# One lane


def test_the_first_of_a_lane_goes_at_once_and_the_next_waits_for_it_to_leave() -> None:
    """design.md 4.5: content publishes of one dialog never overtake each other."""
    lanes = _lanes(width=9)
    first, second, third = _ticket(), _ticket(), _ticket()
    assert _entered(lanes, first, second, third) == [True, False, False]
    assert (first.grants, second.grants, lanes.running, lanes.depth) == (0, 0, 1, 2)
    lanes.leave(first, 0.0)
    assert (second.grants, third.grants) == (1, 0)
    lanes.leave(second, 0.0)
    assert third.grants == 1
    lanes.leave(third, 0.0)
    assert_nothing_left(lanes)


def test_a_pause_between_two_attempts_keeps_the_lane_and_gives_the_width_away() -> None:
    """design.md 4.5: retries included."""
    lanes = _lanes(width=1)
    first, behind, other = _ticket("a"), _ticket("a"), _ticket("b")
    _entered(lanes, first, behind, other)
    lanes.pause(first, 0.0)
    assert (other.grants, behind.grants, lanes.running) == (1, 0, 1)
    assert lanes.resume(first, 0.0) is False
    lanes.leave(other, 0.0)
    assert (first.grants, behind.grants) == (1, 0)
    lanes.leave(first, 0.0)
    assert behind.grants == 1


def test_a_paused_request_resumes_at_once_where_there_is_width() -> None:
    """Answers like `enter`."""
    lanes = _lanes(width=2)
    first, behind = _ticket("a"), _ticket("a")
    _entered(lanes, first, behind)
    lanes.pause(first, 0.0)
    assert lanes.resume(first, 0.0) is True
    assert (first.grants, behind.grants, lanes.running) == (0, 0, 1)


def test_a_paused_request_that_gives_up_lets_its_lane_on() -> None:
    """The deadline may pass during the pause."""
    lanes = _lanes(width=1)
    first, behind = _ticket("a"), _ticket("a")
    _entered(lanes, first, behind)
    lanes.pause(first, 0.0)
    lanes.leave(first, 0.0)
    assert behind.grants == 1
    lanes.leave(behind, 0.0)
    assert_nothing_left(lanes)


def test_a_waiting_request_that_is_cancelled_is_skipped() -> None:
    """style.md 5.2: a waiter never outlives its caller."""
    lanes = _lanes(width=1)
    first, cancelled, third = _ticket(), _ticket(), _ticket()
    _entered(lanes, first, cancelled, third)
    lanes.leave(cancelled, 0.0)
    lanes.leave(first, 0.0)
    assert (cancelled.grants, third.grants, lanes.depth) == (0, 1, 0)


def test_the_head_of_a_lane_that_is_cancelled_before_its_turn_is_followed_by_the_next() -> None:
    """The next of the lane takes its turn where the lane stands."""
    lanes = _lanes(width=1)
    running, head, behind = _ticket("a"), _ticket("b"), _ticket("b")
    _entered(lanes, running, head, behind)
    lanes.leave(head, 0.0)
    assert behind.state is TicketState.READY
    lanes.leave(running, 0.0)
    assert (head.grants, behind.grants) == (0, 1)


def test_leaving_twice_or_without_having_entered_is_harmless() -> None:
    """style.md 5.2: the `finally` leaves, whatever happened before."""
    lanes = _lanes()
    ticket, never = _ticket(), _ticket()
    _entered(lanes, ticket)
    for _ in range(3):
        lanes.leave(ticket, 0.0)
        lanes.leave(never, 0.0)
    assert_nothing_left(lanes)
    assert never.state is TicketState.NEW


def test_a_plain_ticket_may_be_granted_and_superseded_without_listening() -> None:
    """The two callbacks are optional."""
    lanes = _lanes()
    tickets = [Ticket("a"), Ticket("b"), Ticket("t", TYPING), Ticket("t", TYPING)]
    for ticket in tickets:
        lanes.enter(ticket, 0.0)
    for ticket in tickets:
        lanes.leave(ticket, 0.0)
    assert_nothing_left(lanes)


# Misuse


def test_a_ticket_enters_once() -> None:
    """Ours: entering again would leave a place behind that nobody gives up."""
    lanes = _lanes()
    ticket = _ticket()
    _entered(lanes, ticket)
    with pytest.raises(RuntimeError, match="enters once, this one is running"):
        lanes.enter(ticket, 0.0)
    lanes.leave(ticket, 0.0)
    with pytest.raises(RuntimeError, match="enters once, this one is done"):
        lanes.enter(ticket, 0.0)
    assert_nothing_left(lanes)


def test_only_running_tickets_pause_and_only_paused_ones_resume() -> None:
    """Locks a bug: pausing a ticket that had left made room for one too many."""
    lanes = _lanes()
    ticket = _ticket()
    with pytest.raises(RuntimeError, match="only a running ticket pauses, this one is new"):
        lanes.pause(ticket, 0.0)
    _entered(lanes, ticket)
    with pytest.raises(RuntimeError, match="only a paused ticket resumes, this one is running"):
        lanes.resume(ticket, 0.0)
    lanes.leave(ticket, 0.0)
    with pytest.raises(RuntimeError, match="this one is done"):
        lanes.pause(ticket, 0.0)
    with pytest.raises(RuntimeError, match="this one is done"):
        lanes.resume(ticket, 0.0)
    assert_nothing_left(lanes)


@pytest.mark.parametrize(
    ("width", "max_queue", "rate"), [(0, 1, None), (-1, 1, None), (1, -1, None), (1, 1, 0.0), (1, 1, -2.0)]
)
def test_limits_that_cannot_work_are_refused(width: int, max_queue: int, rate: float | None) -> None:
    """Locks a bug: a rate of 0 ended in ZeroDivisionError, a negative one in a clock that ran backwards."""
    with pytest.raises(ValueError, match=r"width is at least 1|rate is above 0"):
        Lanes(width=width, max_queue=max_queue, rate=rate)


# Between lanes


def test_no_more_run_than_the_width_allows() -> None:
    """design.md 4.5."""
    lanes = _lanes(width=3)
    tickets = [_ticket(n) for n in range(10)]
    assert _entered(lanes, *tickets) == [True] * 3 + [False] * 7
    for ticket in tickets:
        assert lanes.running == min(3, lanes.running + lanes.depth)
        lanes.leave(ticket, 0.0)
    assert [ticket.grants for ticket in tickets] == [0] * 3 + [1] * 7
    assert_nothing_left(lanes)


def test_a_lane_that_has_sent_goes_to_the_back() -> None:
    """design.md 4.5: fair between conversations, however much one of them has to say."""
    lanes = _lanes(width=1)
    order: list[Hashable] = []
    tickets: list[RecordingTicket] = []
    for lane in ["chatty"] * 6 + ["b", "c"]:
        ticket = _ticket(lane)
        ticket.when_granted = partial(order.append, lane)
        tickets.append(ticket)
    _entered(lanes, *tickets)
    for _ in range(8):
        lanes.leave(next(ticket for ticket in tickets if ticket.state is TicketState.RUNNING), 0.0)
    assert order == ["b", "c", "chatty", "chatty", "chatty", "chatty", "chatty"]


def test_who_comes_later_does_not_overtake_who_is_ready() -> None:
    """A free place goes to the one that waits, not to the one that happens to come by."""
    lanes = _lanes(width=1, rate=10.0)
    lanes.leave(first := _ticket("x"), 0.0)
    _entered(lanes, first, waiting := _ticket("a"))
    lanes.leave(first, 0.0)
    assert lanes.enter(late := _ticket("b"), 0.1) is False
    assert (waiting.grants, late.grants) == (1, 0)


def test_content_goes_before_receipts_and_receipts_before_typing() -> None:
    """Issue 3.4: priority lanes."""
    lanes = _lanes(width=1)
    order: list[Priority] = []
    running = _ticket("running")
    tickets = [_ticket((n, p), p, then=partial(order.append, p)) for n in range(2) for p in reversed(Priority)]
    _entered(lanes, running, *tickets)
    lanes.leave(running, 0.0)
    while any(busy := [ticket for ticket in tickets if ticket.state is TicketState.RUNNING]):
        lanes.leave(busy[0], 0.0)
    assert order == [CONTENT, CONTENT, RECEIPT, RECEIPT, TYPING, TYPING]
    assert_nothing_left(lanes)


def _share_of_grants(lanes: Lanes, priorities: list[Priority], grants: int, *, hold: int = 0) -> list[Hashable]:
    """Keep a lane for each priority given always busy and note whose turn it was; `hold` idle wakes before each."""
    order: list[Hashable] = []
    now = 0.0

    def refill(lane: Hashable, priority: Priority) -> None:
        ticket = _ticket(lane, priority)

        def granted() -> None:
            order.append(lane)
            running.append(ticket)
            refill(lane, priority)

        ticket.when_granted = granted
        lanes.enter(ticket, now)

    running: list[Ticket] = [blocker := _ticket("blocker")]
    lanes.enter(blocker, now)
    for lane, priority in enumerate(priorities):
        refill(lane, priority)
    while len(order) < grants:
        if running:
            lanes.leave(running.pop(), now)
        for _ in range(hold):
            lanes.wake(now)
        if lanes.wake_at is not None:
            now = lanes.wake_at
            lanes.wake(now)
    return order


@pytest.mark.parametrize("rate", [None, 10.0])
@pytest.mark.parametrize("hold", range(4))
def test_a_lower_priority_gets_one_turn_of_nine(hold: int, rate: float | None) -> None:
    """Late is fine, never is not. Locks a bug: pumps that the rate held back used the turn up, some times always."""
    order = _share_of_grants(_lanes(rate=rate), [CONTENT, CONTENT, RECEIPT], 90, hold=hold)
    assert order.count(2) == 10
    assert all(2 in order[start : start + 9] for start in range(81))


def test_typing_gets_its_turn_while_content_and_receipts_never_pause() -> None:
    """Locks a bug: only the first of the lower priorities was ever served."""
    order = _share_of_grants(_lanes(), [CONTENT, RECEIPT, TYPING], 810)
    assert order.count(2) == 10
    assert order.count(1) == 80


@given(
    contents=st.integers(0, 5),
    receipts=st.integers(0, 5),
    typing=st.integers(0, 5),
    hold=st.integers(0, 3),
    rate=st.sampled_from([None, 7.0]),
)
def test_no_lane_starves(contents: int, receipts: int, typing: int, hold: int, rate: float | None) -> None:
    """design.md 4.5: whatever the mix, every lane gets a turn within a bounded number of grants."""
    priorities = [CONTENT] * contents + [RECEIPT] * receipts + [TYPING] * typing
    if not priorities:
        return
    bound = 81 * len(priorities)
    order = _share_of_grants(_lanes(rate=rate), priorities, 2 * bound, hold=hold)
    for lane in range(len(priorities)):
        turns = [-1, *(at for at, who in enumerate(order) if who == lane), len(order)]
        assert max(later - earlier for earlier, later in itertools.pairwise(turns)) <= bound


# Typing


def test_a_typing_state_that_waits_is_replaced_by_the_next_of_its_lane() -> None:
    """Issue 3.4: typing is coalesced."""
    lanes = _lanes(width=1)
    running, *states = _ticket("t", TYPING), *(_ticket("t", TYPING) for _ in range(4))
    _entered(lanes, running, *states)
    assert [state.drops for state in states] == [1, 1, 1, 0]
    assert lanes.depth == 1
    lanes.leave(running, 0.0)
    assert [state.grants for state in states] == [0, 0, 0, 1]
    lanes.leave(states[-1], 0.0)
    assert_nothing_left(lanes)


def test_the_newer_typing_state_takes_the_place_of_the_older_in_the_queue() -> None:
    """Locks a bug: who typed on was put to the back with each letter, and never served."""
    lanes = _lanes(width=1)
    running, old, other, new = _ticket("x"), _ticket("t", TYPING), _ticket("u", TYPING), _ticket("t", TYPING)
    _entered(lanes, running, old, other, new)
    assert (old.drops, lanes.depth) == (1, 2)
    lanes.leave(running, 0.0)
    assert (new.grants, other.grants) == (1, 0)


def test_a_typing_state_replaced_in_a_full_queue_is_not_refused() -> None:
    """One goes out, one comes in."""
    lanes = _lanes(width=1, max_queue=1)
    running, old, new = _ticket("x"), _ticket("t", TYPING), _ticket("t", TYPING)
    assert _entered(lanes, running, old, new) == [True, False, False]
    assert (old.drops, lanes.depth) == (1, 1)


def test_a_typing_state_that_has_been_sent_once_is_never_called_unsent() -> None:
    """Locks a bug: one that waited for its second attempt was superseded as if it had not been sent."""
    lanes = _lanes(width=1, max_queue=2)
    sent, other = _ticket("t", TYPING), _ticket("x")
    _entered(lanes, sent)
    lanes.pause(sent, 0.0)
    _entered(lanes, other)
    assert lanes.resume(sent, 0.0) is False
    newer = _ticket("t", TYPING)
    assert lanes.enter(newer, 0.0) is False
    assert sent.drops == 0
    content = _ticket("y")
    assert lanes.enter(content, 0.0) is False
    assert (sent.drops, newer.drops) == (0, 1)
    with pytest.raises(QueueFull):
        lanes.enter(_ticket("z"), 0.0)


def test_typing_replaces_nothing_but_typing_in_a_lane_of_several_kinds() -> None:
    """Locks a bug: everything that waited in the lane was thrown away, content included."""
    lanes = _lanes(width=1)
    running, content, typing = _ticket("a"), _ticket("a", CONTENT), _ticket("a", TYPING)
    _entered(lanes, running, content, typing, newer := _ticket("a", TYPING))
    assert (content.drops, typing.drops, newer.drops) == (0, 1, 0)
    lanes.leave(running, 0.0)
    assert (content.grants, newer.grants) == (1, 0)
    lanes.leave(content, 0.0)
    assert newer.grants == 1


def test_typing_does_not_overtake_content_of_its_lane_by_taking_an_older_ones_place() -> None:
    """Lanes are FIFO, whatever their tickets' kinds."""
    lanes = _lanes(width=1)
    blocker, typing, content, newer = _ticket("x"), _ticket("a", TYPING), _ticket("a"), _ticket("a", TYPING)
    _entered(lanes, blocker, typing, content, newer)
    assert typing.drops == 1
    lanes.leave(blocker, 0.0)
    assert (content.grants, newer.grants) == (1, 0)


# A full queue


def test_a_full_queue_refuses_and_says_how_full_and_how_old() -> None:
    """Issue 3.4: `QueueFull` says depth and age."""
    lanes = _lanes(width=1, max_queue=2)
    waiting = _ticket("b")
    _entered(lanes, _ticket("a"), waiting, now=10.0)
    _entered(lanes, _ticket("c"), now=11.0)
    refused = _ticket("d")
    with pytest.raises(
        QueueFull, match=r"^2 requests are waiting, the oldest for 3\.5 s; send less at once"
    ) as caught:
        lanes.enter(refused, 13.5)
    error = caught.value
    assert (error.depth, error.age, error.landed, error.retryable) == (2, 3.5, Landed.NO, True)
    assert refused.state is TicketState.NEW
    assert (lanes.depth, lanes.oldest(13.5)) == (2, 3.5)
    lanes.leave(refused, 13.5)
    lanes.leave(waiting, 13.5)
    assert lanes.enter(_ticket("e"), 13.5) is False


def test_nothing_may_wait_where_the_queue_has_no_place() -> None:
    """`max_queue=0` is a way to say: now or never."""
    lanes = _lanes(width=1, max_queue=0)
    first = _ticket("a")
    assert lanes.enter(first, 0.0) is True
    for lane in ("a", "b"):
        with pytest.raises(QueueFull):
            lanes.enter(_ticket(lane), 0.0)
    lanes.leave(first, 0.0)
    assert_nothing_left(lanes)


def test_the_oldest_typing_state_makes_way_when_the_queue_is_full() -> None:
    """Issue 3.4: typing is dropped first."""
    lanes = _lanes(width=1, max_queue=3)
    running, one, receipt, two = _ticket("x"), _ticket(1, TYPING), _ticket("r", RECEIPT), _ticket(2, TYPING)
    _entered(lanes, running, one, receipt, two)
    contents = [_ticket("a"), _ticket("b")]
    _entered(lanes, *contents)
    assert (one.drops, two.drops, receipt.drops) == (1, 1, 0)
    assert lanes.depth == 3
    with pytest.raises(QueueFull):
        lanes.enter(_ticket("c"), 0.0)
    with pytest.raises(QueueFull):
        lanes.enter(_ticket(3, TYPING), 0.0)


def test_a_typing_state_behind_another_of_its_lane_makes_way_too() -> None:
    """Locks a bug: only heads of lanes were looked at, and content was refused for mere typing."""
    lanes = _lanes(width=1, max_queue=1)
    running, waiting = _ticket("t", TYPING), _ticket("t", TYPING)
    _entered(lanes, running, waiting)
    assert lanes.enter(content := _ticket("a"), 0.0) is False
    assert (waiting.drops, lanes.depth) == (1, 1)
    lanes.leave(running, 0.0)
    assert content.grants == 1


def test_typing_that_makes_way_for_content_of_its_own_lane_leaves_the_lane_in_order() -> None:
    """The content may not inherit a place among the typing states."""
    lanes = _lanes(width=1, max_queue=1)
    running, typing, content = _ticket("x"), _ticket("a", TYPING), _ticket("a")
    _entered(lanes, running, typing, content)
    assert typing.drops == 1
    lanes.leave(running, 0.0)
    assert content.grants == 1
    lanes.leave(content, 0.0)
    assert_nothing_left(lanes)


def test_a_resumed_request_is_never_refused_by_a_full_queue() -> None:
    """It was admitted once: its attempts so far must not be for nothing."""
    lanes = _lanes(width=1, max_queue=1)
    retrying, running, waiting = _ticket("a"), _ticket("b"), _ticket("c")
    _entered(lanes, retrying)
    lanes.pause(retrying, 0.0)
    _entered(lanes, running, waiting)
    assert lanes.resume(retrying, 0.0) is False
    assert lanes.depth == 2


def test_requests_that_pause_between_attempts_are_bounded_too() -> None:
    """Locks a bug: in an outage each request paused, made room for the next, and memory had no bound."""
    lanes = _lanes(width=2, max_queue=3)
    tickets: list[RecordingTicket] = []

    def fail_forever() -> None:
        for n in range(100):
            tickets.append(ticket := _ticket(n))
            assert lanes.enter(ticket, 0.0) is True
            lanes.pause(ticket, 0.0)

    with pytest.raises(QueueFull, match="5 requests are pausing before their next attempt") as caught:
        fail_forever()
    assert (caught.value.depth, caught.value.age, lanes.running) == (5, 0.0, 0)
    with pytest.raises(QueueFull, match="pausing"):
        lanes.enter(_ticket(0), 0.0)
    assert lanes.resume(tickets[0], 0.0) is True
    assert lanes.enter(_ticket("new"), 0.0) is True


# Callbacks that call back


def test_ten_thousand_granted_one_from_within_the_other_do_not_exhaust_the_stack() -> None:
    """Locks a bug: each `granted` that left at once (its caller was gone) went one level deeper."""
    lanes = _lanes(width=1, max_queue=20_000)
    running = _ticket("x")
    lanes.enter(running, 0.0)
    tickets = [_ticket(n) for n in range(10_000)]
    for ticket in tickets:
        ticket.when_granted = partial(lanes.leave, ticket, 0.0)
    _entered(lanes, *tickets)
    lanes.leave(running, 0.0)
    assert {ticket.grants for ticket in tickets} == {1}
    assert_nothing_left(lanes)


def test_what_a_granted_ticket_enters_in_turn_waits_for_its_own_turn() -> None:
    """A callback is no way around the queue."""
    lanes = _lanes(width=1)
    order: list[str] = []
    inner, running, second = _ticket("in", then=lambda: order.append("inner")), _ticket("x"), _ticket("b")
    second.when_granted = lambda: order.append("second")

    def enter_another() -> None:
        order.append("first")
        lanes.leave(first, 0.0)
        assert lanes.enter(inner, 0.0) is False

    first = _ticket("a", then=enter_another)
    _entered(lanes, running, first, second)
    lanes.leave(running, 0.0)
    assert order == ["first", "second"]
    lanes.leave(second, 0.0)
    assert order == ["first", "second", "inner"]


def test_a_granted_ticket_may_pause_and_resume_from_within() -> None:
    """A request that finds no token gives its width away at once."""
    lanes = _lanes(width=1)
    running, other = _ticket("x"), _ticket("b")

    def no_token() -> None:
        lanes.pause(ticket, 0.0)
        lanes.resume(ticket, 0.0)

    ticket = _ticket("a", then=no_token)
    _entered(lanes, running, ticket, other)
    lanes.leave(running, 0.0)
    assert (other.grants, ticket.grants, lanes.running) == (1, 1, 1)
    ticket.when_granted = lambda: None
    lanes.leave(other, 0.0)
    assert ticket.grants == 2


def test_a_superseded_callback_that_fills_the_queue_does_not_push_it_beyond_its_bound() -> None:
    """Locks a bug: it was called before the newer ticket had its place."""
    lanes = _lanes(width=1, max_queue=1)
    running, typing, content, late = _ticket("x"), _ticket("t", TYPING), _ticket("a"), _ticket("b")
    refused: list[str] = []

    def try_to_enter() -> None:
        with pytest.raises(QueueFull):
            lanes.enter(late, 0.0)
        lanes.leave(typing, 0.0)
        refused.append("late")

    typing.when_dropped = try_to_enter
    _entered(lanes, running, typing, content)
    assert (refused, lanes.depth, typing.drops) == (["late"], 1, 1)


def test_a_callback_that_raises_does_not_stop_the_queue_for_good() -> None:
    """It must not raise; if it does, the next event finds a queue that works."""
    lanes = _lanes(width=1)
    running, broken, other = _ticket("x"), _ticket("a", then=lambda: 1 / 0), _ticket("b")
    _entered(lanes, running, broken, other)
    with pytest.raises(ZeroDivisionError):
        lanes.leave(running, 0.0)
    lanes.leave(broken, 0.0)
    assert other.grants == 1


# Width that follows the cloud (C9)


def test_c9_a_429_narrows_to_70_percent_at_most_once_a_second() -> None:
    """Row C9: concurrency falls by 0.7; one bad moment answers many requests."""
    lanes = _lanes(width=100)
    for _ in range(50):
        lanes.throttled(5.0)
    assert lanes.width == 70
    lanes.throttled(5.999)
    assert lanes.width == 70
    lanes.throttled(6.0)
    assert lanes.width == 49


def test_c9_the_width_never_falls_below_one() -> None:
    """Ours: the cloud cannot tell us to stop, only to wait."""
    lanes = _lanes(width=3)
    for second in range(50):
        lanes.throttled(float(second))
    assert lanes.width == 1
    assert lanes.enter(_ticket(), 99.0) is True


def test_c9_each_full_width_of_successes_widens_by_one_up_to_the_limit() -> None:
    """design.md 4.5: additive increase."""
    lanes = _lanes(width=100)
    lanes.throttled(0.0)
    widths = [lanes.width]
    successes = 0
    while lanes.width < 100:
        lanes.succeeded(1.0)
        successes += 1
        widths.append(lanes.width)
    assert 2000 < successes < 30 * 100
    assert all(later - earlier in (0, 1) for earlier, later in itertools.pairwise(widths))
    for _ in range(500):
        lanes.succeeded(1.0)
    assert lanes.width == 100


def test_c9_a_width_that_grows_lets_the_next_one_on() -> None:
    """Nobody waits for an event that has happened."""
    lanes = _lanes(width=2)
    lanes.throttled(0.0)
    tickets = [_ticket(n) for n in range(3)]
    assert _entered(lanes, *tickets) == [True, False, False]
    for _ in range(3):
        lanes.succeeded(0.0)
    assert (lanes.width, lanes.running, tickets[1].grants) == (2, 2, 1)


def test_requests_under_way_when_the_width_falls_go_on_and_nobody_follows_until_it_fits() -> None:
    """The width is a limit for starting."""
    lanes = _lanes(width=4)
    tickets = [_ticket(n) for n in range(6)]
    _entered(lanes, *tickets)
    lanes.throttled(0.0)
    lanes.throttled(1.0)
    assert (lanes.width, lanes.running) == (1, 4)
    for n in range(3):
        lanes.leave(tickets[n], 1.0)
    assert (lanes.running, tickets[4].grants) == (1, 0)
    lanes.leave(tickets[3], 1.0)
    assert (lanes.running, tickets[4].grants) == (1, 1)


# Rate


def _play(lanes: Lanes, tickets: list[RecordingTicket], late: Callable[[], float]) -> list[float]:
    """Start everything, waking as the queue asks, each time a little too late; return when each started."""
    now = 0.0
    starts: list[float] = []
    for ticket in tickets:
        ticket.when_granted = lambda: starts.append(now)
        if lanes.enter(ticket, now):
            starts.append(now)
    while lanes.wake_at is not None:
        now = max(now, lanes.wake_at + late())
        lanes.wake(now)
    return starts


def test_no_more_requests_start_per_second_than_the_rate_says() -> None:
    """Issue 3.4: optional rate; the first one goes at once."""
    lanes = _lanes(width=1000, max_queue=1000, rate=10.0)
    starts = _play(lanes, [_ticket(n) for n in range(50)], lambda: 0.0)
    assert starts == pytest.approx([n / 10 for n in range(50)])


def test_timers_that_come_late_do_not_slow_the_rate_down() -> None:
    """Locks a bug: with timers a millisecond or two late, 1,000 per second came out as 400."""
    rng = random_module.Random(4)
    lanes = _lanes(width=5000, max_queue=5000, rate=1000.0)
    starts = _play(lanes, [_ticket(n) for n in range(3000)], lambda: rng.uniform(0.0005, 0.003))
    assert 2.99 <= starts[-1] <= 3.01
    assert all(later - earlier >= 0.1 - 0.05 for earlier, later in zip(starts, starts[100:], strict=False))


def test_after_a_long_stall_there_is_no_burst_to_make_up_for_it() -> None:
    """Retry policy recommendations: avoid bursts. At most 50 ms are made up for."""
    lanes = _lanes(width=1000, max_queue=1000, rate=100.0)
    tickets = [_ticket(n) for n in range(100)]
    _entered(lanes, *tickets)
    lanes.wake(30.0)
    assert sum(ticket.grants for ticket in tickets) <= 6
    assert lanes.wake_at == pytest.approx(30.01, abs=0.0101)


def test_a_queue_that_was_idle_or_short_of_width_has_saved_nothing_up() -> None:
    """The rate is a distance between starts, not an allowance."""
    lanes = _lanes(width=1, rate=10.0)
    tickets = [_ticket(n) for n in range(4)]
    assert _entered(lanes, *tickets) == [True, False, False, False]
    lanes.leave(tickets[0], 60.0)
    assert (tickets[1].grants, lanes.wake_at) == (1, None)
    lanes.leave(tickets[1], 60.0)
    assert tickets[2].grants == 0
    assert lanes.wake_at == pytest.approx(60.1)
    lanes.wake(60.1)
    assert tickets[2].grants == 1


def test_nobody_has_to_be_woken_once_nothing_is_held() -> None:
    """Locks a bug: the time stayed set when the last request that the rate held back had left."""
    lanes = _lanes(width=5, rate=10.0)
    first, held = _ticket("a"), _ticket("b")
    assert _entered(lanes, first, held) == [True, False]
    assert lanes.wake_at == pytest.approx(0.1)
    lanes.leave(held, 0.0)
    assert lanes.wake_at is None
    lanes.leave(first, 0.0)
    lanes.wake(9.0)
    assert_nothing_left(lanes)


def test_a_timer_that_comes_early_is_asked_to_come_again() -> None:
    """Event loops fire within their clock's resolution."""
    lanes = _lanes(width=5, rate=10.0)
    held = _ticket("b")
    _entered(lanes, _ticket("a"), held)
    lanes.wake(0.0999999)
    assert held.grants == 0
    assert lanes.wake_at == pytest.approx(0.1)
    lanes.wake(0.1)
    assert (held.grants, lanes.wake_at) == (1, None)


def test_a_resumed_request_counts_against_the_rate_as_well() -> None:
    """Each attempt is a request to the cloud."""
    lanes = _lanes(width=5, rate=10.0)
    ticket = _ticket("a")
    _entered(lanes, ticket)
    lanes.pause(ticket, 0.05)
    assert lanes.resume(ticket, 0.05) is False
    lanes.wake(0.1)
    assert ticket.grants == 1


# Many, at random


@given(seed=st.integers(0, 2**32), width=st.integers(1, 8), dialogs=st.integers(1, 20))
def test_content_of_a_dialog_is_sent_in_order_with_any_mix_of_retries_and_cancels(
    seed: int, width: int, dialogs: int
) -> None:
    """P5 in small: per-conversation order with faults; everything ends."""
    rng = random_module.Random(seed)
    lanes = _lanes(width=width, max_queue=10_000)
    tickets = [_ticket(rng.randrange(dialogs)) for _ in range(100)]
    _entered(lanes, *tickets)
    sent: defaultdict[Hashable, list[int]] = defaultdict(list)
    live = list(tickets)
    while live:
        ticket = rng.choice(live)
        if ticket.state is TicketState.RUNNING and rng.random() < 0.3:
            lanes.pause(ticket, 0.0)
        elif ticket.state is TicketState.PAUSED:
            lanes.resume(ticket, 0.0)
        elif ticket.state is TicketState.RUNNING or rng.random() < 0.05:
            if ticket.state is TicketState.RUNNING:
                sent[ticket.lane].append(tickets.index(ticket))
            lanes.leave(ticket, 0.0)
            live.remove(ticket)
        assert lanes.running <= width
    assert all(order == sorted(order) for order in sent.values())
    assert_nothing_left(lanes)


LanesMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
test_no_order_of_events_breaks_a_promise_or_leaves_anything_behind = LanesMachine.TestCase
