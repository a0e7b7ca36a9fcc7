"""`protocol/lanes.py`, `SharedWidth`: several queues under one limit, none of them last for ever."""

from __future__ import annotations

import random as random_module
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector_async.errors import QueueFull
from connector_async.protocol.lanes import Lanes, Priority, SharedWidth, TicketState
from tests.protocol.lanes_machine import RecordingTicket, assert_nothing_left


def _queues(count: int, shared: SharedWidth, *, width: int = 100, max_queue: int = 20_000) -> list[Lanes]:
    return [Lanes(width=width, max_queue=max_queue, shared=shared) for _ in range(count)]


def _enter(lanes: Lanes, lane: object) -> RecordingTicket:
    ticket = RecordingTicket(lane)
    lanes.enter(ticket, 0.0)
    return ticket


def test_several_queues_run_no_more_together_than_the_shared_width() -> None:
    """Issue 3.4: one gate for the accounts of a process."""
    a, b = _queues(2, SharedWidth(3))
    tickets = [(lanes, _enter(lanes, n)) for n in range(4) for lanes in (a, b)]
    assert a.running + b.running == 3
    for lanes, ticket in tickets:
        lanes.leave(ticket, 0.0)
        assert a.running + b.running == min(3, a.running + a.depth + b.running + b.depth)
    assert_nothing_left(a)
    assert_nothing_left(b)


def test_a_queue_keeps_its_own_width_beside_the_shared_one() -> None:
    """One account's 429 narrows that account alone."""
    shared = SharedWidth(10)
    (narrow,) = _queues(1, shared, width=2)
    (wide,) = _queues(1, shared)
    for n in range(5):
        _enter(narrow, n)
        _enter(wide, n)
    assert (narrow.running, wide.running) == (2, 5)


@pytest.mark.parametrize("width", [0, -1])
def test_a_shared_width_of_nothing_is_refused(width: int) -> None:
    """Misuse is ValueError."""
    with pytest.raises(ValueError, match="at least 1"):
        SharedWidth(width)


def test_a_pause_gives_the_shared_width_to_another_queue() -> None:
    """A backoff of one account is no reason for the others to wait."""
    a, b = _queues(2, SharedWidth(1))
    first, second = _enter(a, 1), _enter(b, 1)
    assert (first.state, second.state) == (TicketState.RUNNING, TicketState.READY)
    a.pause(first, 0.0)
    assert second.grants == 1
    assert a.resume(first, 0.0) is False
    b.leave(second, 0.0)
    assert (first.grants, a.running) == (1, 1)


def test_a_paused_request_resumes_at_once_where_the_shared_width_is_free() -> None:
    """Answers like `enter`."""
    (a,) = _queues(1, SharedWidth(1))
    ticket = _enter(a, 1)
    a.pause(ticket, 0.0)
    assert a.resume(ticket, 0.0) is True


def _shares(queues: list[Lanes], backlog: int, leaves: int, *, busy: Lanes | None = None) -> list[int]:
    """Who was served in `leaves` turns, by number of the queue; `busy` gets a new request between any two turns."""
    order: list[int] = []
    running: list[tuple[Lanes, RecordingTicket]] = []

    def enter(number: int, lane: object) -> None:
        ticket = RecordingTicket(lane)

        def granted() -> None:
            order.append(number)
            running.append((queues[number], ticket))

        ticket.when_granted = granted
        if queues[number].enter(ticket, 0.0):
            running.append((queues[number], ticket))

    for n in range(backlog):
        for number in range(len(queues)):
            enter(number, n)
    for turn in range(leaves):
        lanes, ticket = running.pop(0)
        lanes.leave(ticket, 0.0)
        if busy is not None:
            enter(queues.index(busy), ("new", turn))
    return order


@pytest.mark.parametrize("count", [2, 3, 7])
def test_queues_that_all_have_work_are_served_in_turn(count: int) -> None:
    """Fair between accounts, whatever their backlog."""
    order = _shares(_queues(count, SharedWidth(1)), 50, 40)
    for start in range(40 - count):
        assert len(set(order[start : start + count])) == count


def test_the_queue_that_gets_the_most_new_requests_is_not_put_to_the_back_by_them() -> None:
    """Locks a bug: each new request of a waiting queue moved it to the end, so that the busiest was never served."""
    queues = _queues(3, SharedWidth(1))
    order = _shares(queues, 30, 60, busy=queues[0])
    assert order.count(0) == order.count(1) == order.count(2) == 20


def test_a_queue_that_was_served_out_of_turn_goes_to_the_back_as_well() -> None:
    """Fair: it asked for itself, from within the `granted` of another, and had its turn by that."""
    a, b, c, d = _queues(4, SharedWidth(1))
    running, first = _enter(a, 1), RecordingTicket(1)
    b.enter(first, 0.0)
    served, more, waits = _enter(c, 1), _enter(c, 2), _enter(d, 1)

    def granted() -> None:
        b.leave(first, 0.0)
        _enter(c, 3)

    first.when_granted = granted
    a.leave(running, 0.0)
    assert (served.grants, more.grants, waits.grants) == (1, 0, 0)
    c.leave(served, 0.0)
    assert (more.grants, waits.grants) == (0, 1)


def test_a_queue_that_cannot_use_its_turn_passes_it_on() -> None:
    """Its rate, or a cancelled request, must not cost the others the width."""
    shared = SharedWidth(1)
    held = Lanes(width=5, max_queue=5, rate=1.0, shared=shared)
    (other, empty) = _queues(2, shared)
    running = _enter(held, 1)
    waits_for_rate, gone, waits = _enter(held, 2), _enter(empty, 1), _enter(other, 1)
    empty.leave(gone, 0.0)
    held.leave(running, 0.0)
    assert (waits_for_rate.grants, waits.grants, held.wake_at) == (0, 1, 1.0)
    held.wake(1.0)
    assert (waits_for_rate.grants, held.wake_at) == (0, None)
    other.leave(waits, 1.0)
    assert waits_for_rate.grants == 1


def test_a_request_refused_by_a_full_queue_takes_no_shared_width() -> None:
    """Refused is refused: nothing stays behind."""
    shared = SharedWidth(1)
    (a,) = _queues(1, shared, max_queue=0)
    (b,) = _queues(1, shared)
    running = _enter(b, 1)
    with pytest.raises(QueueFull):
        _enter(a, 1)
    b.leave(running, 0.0)
    assert _enter(a, 1).state is TicketState.RUNNING


def test_a_queue_that_is_no_more_is_not_woken() -> None:
    """`Accounts.remove`; leaving twice is harmless."""
    shared = SharedWidth(1)
    a, b, c = _queues(3, shared)
    running = _enter(a, 1)
    late, next_one = _enter(b, 1), _enter(c, 1)
    shared.leave(b)
    shared.leave(b)
    a.leave(running, 0.0)
    assert (late.grants, next_one.grants) == (0, 1)


def test_a_thousand_queues_granted_from_within_each_other_do_not_exhaust_the_stack() -> None:
    """Locks a bug: each `granted` that left at once woke the next queue one level deeper."""
    shared = SharedWidth(1)
    blocker, *queues = _queues(1001, shared)
    running = _enter(blocker, 1)
    tickets = []
    for lanes in queues:
        tickets.append(ticket := RecordingTicket(1))
        ticket.when_granted = partial(lanes.leave, ticket, 0.0)
        lanes.enter(ticket, 0.0)
    blocker.leave(running, 0.0)
    assert {ticket.grants for ticket in tickets} == {1}
    assert _enter(blocker, 2).state is TicketState.RUNNING


def test_a_callback_that_raises_does_not_stop_the_others_for_good() -> None:
    """It must not raise; if it does, the next event finds a width that works."""
    a, b = _queues(2, SharedWidth(1))
    running, broken = _enter(a, 1), RecordingTicket(1)
    broken.when_granted = lambda: 1 / 0
    b.enter(broken, 0.0)
    waits = _enter(a, 2)
    with pytest.raises(ZeroDivisionError):
        a.leave(running, 0.0)
    b.leave(broken, 0.0)
    assert waits.grants == 1


@given(seed=st.integers(0, 2**32), width=st.integers(1, 4), count=st.integers(1, 4), own=st.integers(1, 3))
def test_any_order_of_events_keeps_the_shared_width_busy_and_gives_all_of_it_back(
    seed: int, width: int, count: int, own: int
) -> None:
    """C16 in small: never more than the width, never idle while somebody could use it, all back at the end."""
    rng = random_module.Random(seed)
    shared = SharedWidth(width)
    queues = _queues(count, shared, width=own)
    live: list[tuple[Lanes, RecordingTicket]] = []
    for step in range(150):
        if step < 100 and rng.random() < 0.5:
            lanes, ticket = rng.choice(queues), RecordingTicket(rng.randrange(4), rng.choice(list(Priority)))
            lanes.enter(ticket, 0.0)
            live.append((lanes, ticket))
        elif live:
            lanes, ticket = rng.choice(live)
            if ticket.state is TicketState.RUNNING and rng.random() < 0.3:
                lanes.pause(ticket, 0.0)
            elif ticket.state is TicketState.PAUSED:
                lanes.resume(ticket, 0.0)
            else:
                lanes.leave(ticket, 0.0)
        live = [entry for entry in live if entry[1].state is not TicketState.DONE]
        running = sum(lanes.running for lanes in queues)
        assert running <= width
        able = {id(lanes) for lanes, ticket in live if ticket.state is TicketState.READY and lanes.running < own}
        assert running == width or not able
    for lanes, ticket in live:
        lanes.leave(ticket, 0.0)
    for lanes in queues:
        assert_nothing_left(lanes)
    assert shared._free == width
