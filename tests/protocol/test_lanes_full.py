"""`protocol/lanes.py`: typing that is replaced, a queue that is full, callbacks that call back."""

from __future__ import annotations

from functools import partial

import pytest

from connector_async.errors import Landed, QueueFull
from connector_async.protocol.lanes import Priority, TicketState
from tests.protocol.lanes_machine import (
    RecordingTicket,
    assert_nothing_left,
    entered,
    make_lanes,
    make_ticket,
)

CONTENT, RECEIPT, TYPING = Priority


# Typing


def test_a_typing_state_that_waits_is_replaced_by_the_next_of_its_lane() -> None:
    """Issue 3.4: typing is coalesced."""
    lanes = make_lanes(width=1)
    running, *states = make_ticket("t", TYPING), *(make_ticket("t", TYPING) for _ in range(4))
    entered(lanes, running, *states)
    assert [state.drops for state in states] == [1, 1, 1, 0]
    assert lanes.depth == 1
    lanes.leave(running, 0.0)
    assert [state.grants for state in states] == [0, 0, 0, 1]
    lanes.leave(states[-1], 0.0)
    assert_nothing_left(lanes)


def test_the_newer_typing_state_takes_the_place_of_the_older_in_the_queue() -> None:
    """Locks a bug: who typed on was put to the back with each letter, and never served."""
    lanes = make_lanes(width=1)
    running, old, other, new = (
        make_ticket("x"),
        make_ticket("t", TYPING),
        make_ticket("u", TYPING),
        make_ticket("t", TYPING),
    )
    entered(lanes, running, old, other, new)
    assert (old.drops, lanes.depth) == (1, 2)
    lanes.leave(running, 0.0)
    assert (new.grants, other.grants) == (1, 0)
    behind = make_ticket("t", TYPING)
    assert lanes.enter(behind, 0.0) is False
    lanes.leave(new, 0.0)
    assert (other.grants, behind.grants) == (1, 0)
    lanes.leave(other, 0.0)
    lanes.leave(behind, 0.0)
    assert_nothing_left(lanes)


def test_a_place_in_the_queue_is_kept_through_any_number_of_newer_typing_states() -> None:
    """The age is that of the state that waits: the older ones are gone."""
    lanes = make_lanes(width=1)
    running, other = make_ticket("x"), make_ticket("u", TYPING)
    states = [make_ticket("t", TYPING) for _ in range(4)]
    entered(lanes, running, states[0], other)
    for seconds, state in enumerate(states[1:], start=1):
        entered(lanes, state, now=float(seconds))
    lanes.leave(other, 3.0)
    assert lanes.oldest(5.0) == 2.0
    entered(lanes, make_ticket("u", TYPING), now=5.0)
    lanes.leave(running, 5.0)
    assert [state.grants for state in states] == [0, 0, 0, 1]


def test_a_typing_state_that_became_the_head_of_its_lane_is_replaced_in_its_place() -> None:
    """What stood before it in the lane was cancelled."""
    lanes = make_lanes(width=1)
    running, cancelled, typing = make_ticket("x"), make_ticket("t"), make_ticket("t", TYPING)
    entered(lanes, running, cancelled, typing)
    lanes.leave(cancelled, 0.0)
    entered(lanes, other := make_ticket("u", TYPING), newer := make_ticket("t", TYPING))
    lanes.leave(running, 0.0)
    assert (typing.drops, newer.grants, other.grants) == (1, 1, 0)


def test_a_typing_state_replaced_in_a_full_queue_is_not_refused() -> None:
    """One goes out, one comes in."""
    lanes = make_lanes(width=1, max_queue=1)
    running, old, new = make_ticket("x"), make_ticket("t", TYPING), make_ticket("t", TYPING)
    assert entered(lanes, running, old, new) == [True, False, False]
    assert (old.drops, lanes.depth) == (1, 1)


def test_a_typing_state_that_has_been_sent_once_is_never_called_unsent() -> None:
    """Locks a bug: one that waited for its second attempt was superseded as if it had not been sent."""
    lanes = make_lanes(width=1, max_queue=2)
    sent, other = make_ticket("t", TYPING), make_ticket("x")
    entered(lanes, sent)
    lanes.pause(sent, 0.0)
    entered(lanes, other)
    assert lanes.resume(sent, 0.0) is False
    newer = make_ticket("t", TYPING)
    assert lanes.enter(newer, 0.0) is False
    assert sent.drops == 0
    content = make_ticket("y")
    assert lanes.enter(content, 0.0) is False
    assert (sent.drops, newer.drops) == (0, 1)
    with pytest.raises(QueueFull):
        lanes.enter(make_ticket("z"), 0.0)


def test_typing_replaces_nothing_but_typing_in_a_lane_of_several_kinds() -> None:
    """Locks a bug: everything that waited in the lane was thrown away, content included."""
    lanes = make_lanes(width=1)
    running, content, typing = make_ticket("a"), make_ticket("a", CONTENT), make_ticket("a", TYPING)
    entered(lanes, running, content, typing, newer := make_ticket("a", TYPING))
    assert (content.drops, typing.drops, newer.drops) == (0, 1, 0)
    lanes.leave(running, 0.0)
    assert (content.grants, newer.grants) == (1, 0)
    lanes.leave(content, 0.0)
    assert newer.grants == 1


def test_typing_does_not_overtake_content_of_its_lane_by_taking_an_older_ones_place() -> None:
    """Lanes are FIFO, whatever their tickets' kinds."""
    lanes = make_lanes(width=1)
    blocker, typing, content, newer = (
        make_ticket("x"),
        make_ticket("a", TYPING),
        make_ticket("a"),
        make_ticket("a", TYPING),
    )
    entered(lanes, blocker, typing, content, newer)
    assert typing.drops == 1
    lanes.leave(blocker, 0.0)
    assert (content.grants, newer.grants) == (1, 0)


# A full queue


def test_a_full_queue_refuses_and_says_how_full_and_how_old() -> None:
    """Issue 3.4: `QueueFull` says depth and age."""
    lanes = make_lanes(width=1, max_queue=2)
    waiting = make_ticket("b")
    entered(lanes, make_ticket("a"), waiting, now=10.0)
    entered(lanes, make_ticket("c"), now=11.0)
    refused = make_ticket("d")
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
    assert lanes.enter(make_ticket("e"), 13.5) is False


def test_nothing_may_wait_where_the_queue_has_no_place() -> None:
    """`max_queue=0` is a way to say: now or never."""
    lanes = make_lanes(width=1, max_queue=0)
    first = make_ticket("a")
    assert lanes.enter(first, 0.0) is True
    for lane in ("a", "b"):
        with pytest.raises(QueueFull):
            lanes.enter(make_ticket(lane), 0.0)
    lanes.leave(first, 0.0)
    assert_nothing_left(lanes)


def test_the_oldest_typing_state_makes_way_when_the_queue_is_full() -> None:
    """Issue 3.4: typing is dropped first."""
    lanes = make_lanes(width=1, max_queue=3)
    running, one, receipt, two = (
        make_ticket("x"),
        make_ticket(1, TYPING),
        make_ticket("r", RECEIPT),
        make_ticket(2, TYPING),
    )
    entered(lanes, running, one, receipt, two)
    contents = [make_ticket("a"), make_ticket("b")]
    entered(lanes, *contents)
    assert (one.drops, two.drops, receipt.drops) == (1, 1, 0)
    assert lanes.depth == 3
    with pytest.raises(QueueFull):
        lanes.enter(make_ticket("c"), 0.0)
    with pytest.raises(QueueFull):
        lanes.enter(make_ticket(3, TYPING), 0.0)


def test_a_typing_state_behind_another_of_its_lane_makes_way_too() -> None:
    """Locks a bug: only heads of lanes were looked at, and content was refused for mere typing."""
    lanes = make_lanes(width=1, max_queue=1)
    running, waiting = make_ticket("t", TYPING), make_ticket("t", TYPING)
    entered(lanes, running, waiting)
    assert lanes.enter(content := make_ticket("a"), 0.0) is False
    assert (waiting.drops, lanes.depth) == (1, 1)
    lanes.leave(running, 0.0)
    assert content.grants == 1


def test_typing_that_makes_way_for_content_of_its_own_lane_leaves_the_lane_in_order() -> None:
    """The content may not inherit a place among the typing states."""
    lanes = make_lanes(width=1, max_queue=1)
    running, typing, content = make_ticket("x"), make_ticket("a", TYPING), make_ticket("a")
    entered(lanes, running, typing, content)
    assert typing.drops == 1
    lanes.leave(running, 0.0)
    assert content.grants == 1
    lanes.leave(content, 0.0)
    assert_nothing_left(lanes)


def test_a_resumed_request_is_never_refused_by_a_full_queue() -> None:
    """It was admitted once: its attempts so far must not be for nothing."""
    lanes = make_lanes(width=1, max_queue=1)
    retrying, running, waiting = make_ticket("a"), make_ticket("b"), make_ticket("c")
    entered(lanes, retrying)
    lanes.pause(retrying, 0.0)
    entered(lanes, running, waiting)
    assert lanes.resume(retrying, 0.0) is False
    assert lanes.depth == 2


def test_requests_that_pause_between_attempts_are_bounded_too() -> None:
    """Locks a bug: in an outage each request paused, made room for the next, and memory had no bound."""
    lanes = make_lanes(width=2, max_queue=3)
    tickets: list[RecordingTicket] = []

    def fail_forever() -> None:
        for n in range(100):
            tickets.append(ticket := make_ticket(n))
            assert lanes.enter(ticket, 0.0) is True
            lanes.pause(ticket, 0.0)

    with pytest.raises(QueueFull, match="5 requests are waiting for a token, or for their next attempt") as caught:
        fail_forever()
    assert (caught.value.depth, caught.value.age, lanes.running) == (5, 0.0, 0)
    with pytest.raises(QueueFull, match="waiting for a token"):
        lanes.enter(make_ticket(0), 0.0)
    assert lanes.resume(tickets[0], 0.0) is True
    assert lanes.enter(make_ticket("new"), 0.0) is True


def test_a_refusal_because_of_pauses_says_who_else_waits_and_for_how_long() -> None:
    """It is the outage that is in the way, and nothing that its caller could do about it."""
    lanes = make_lanes(width=1, max_queue=1, rate=1.0)
    first, second, waits = make_ticket("a"), make_ticket("b"), make_ticket("c")
    entered(lanes, first)
    lanes.pause(first, 0.0)
    entered(lanes, second)
    lanes.wake(1.0)
    entered(lanes, waits, now=1.0)
    lanes.pause(second, 1.0)
    with pytest.raises(
        QueueFull, match=r"^2 requests are waiting for a token, or for their next attempt; "
    ) as caught:
        lanes.enter(make_ticket("d"), 1.5)
    assert (caught.value.depth, caught.value.age) == (3, 0.5)
    assert caught.value.hint == "the cloud fails or cannot be reached: send again when it recovers"


# Callbacks that call back


def test_ten_thousand_granted_one_from_within_the_other_do_not_exhaust_the_stack() -> None:
    """Locks a bug: each `granted` that left at once (its caller was gone) went one level deeper."""
    lanes = make_lanes(width=1, max_queue=20_000)
    running = make_ticket("x")
    lanes.enter(running, 0.0)
    tickets = [make_ticket(n) for n in range(10_000)]
    for ticket in tickets:
        ticket.when_granted = partial(lanes.leave, ticket, 0.0)
    entered(lanes, *tickets)
    lanes.leave(running, 0.0)
    assert {ticket.grants for ticket in tickets} == {1}
    assert_nothing_left(lanes)


def test_what_a_granted_ticket_enters_in_turn_waits_for_its_own_turn() -> None:
    """A callback is no way around the queue."""
    lanes = make_lanes(width=1)
    order: list[str] = []
    inner, running, second = make_ticket("in", then=lambda: order.append("inner")), make_ticket("x"), make_ticket("b")
    second.when_granted = lambda: order.append("second")

    def enter_another() -> None:
        order.append("first")
        lanes.leave(first, 0.0)
        assert lanes.enter(inner, 0.0) is False

    first = make_ticket("a", then=enter_another)
    entered(lanes, running, first, second)
    lanes.leave(running, 0.0)
    assert order == ["first", "second"]
    lanes.leave(second, 0.0)
    assert order == ["first", "second", "inner"]


def test_a_granted_ticket_may_pause_and_resume_from_within() -> None:
    """A request that finds no token gives its width away at once."""
    lanes = make_lanes(width=1)
    running, other = make_ticket("x"), make_ticket("b")

    def no_token() -> None:
        lanes.pause(ticket, 0.0)
        lanes.resume(ticket, 0.0)

    ticket = make_ticket("a", then=no_token)
    entered(lanes, running, ticket, other)
    lanes.leave(running, 0.0)
    assert (other.grants, ticket.grants, lanes.running) == (1, 1, 1)
    ticket.when_granted = lambda: None
    lanes.leave(other, 0.0)
    assert ticket.grants == 2


def test_a_superseded_callback_that_fills_the_queue_does_not_push_it_beyond_its_bound() -> None:
    """Locks a bug: it was called before the newer ticket had its place."""
    lanes = make_lanes(width=1, max_queue=1)
    running, typing, content, late = make_ticket("x"), make_ticket("t", TYPING), make_ticket("a"), make_ticket("b")
    refused: list[str] = []

    def try_to_enter() -> None:
        with pytest.raises(QueueFull):
            lanes.enter(late, 0.0)
        lanes.leave(typing, 0.0)
        refused.append("late")

    typing.when_dropped = try_to_enter
    entered(lanes, running, typing, content)
    assert (refused, lanes.depth, typing.drops) == (["late"], 1, 1)


def test_a_callback_that_raises_does_not_stop_the_queue_for_good() -> None:
    """It must not raise; if it does, the next event finds a queue that works."""
    lanes = make_lanes(width=1)
    running, broken, other = make_ticket("x"), make_ticket("a", then=lambda: 1 / 0), make_ticket("b")
    entered(lanes, running, broken, other)
    with pytest.raises(ZeroDivisionError):
        lanes.leave(running, 0.0)
    lanes.leave(broken, 0.0)
    assert other.grants == 1
