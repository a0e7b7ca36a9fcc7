"""`protocol/lanes.py`: the width that follows the cloud, and the rate."""

from __future__ import annotations

import itertools
import random as random_module
from collections.abc import Callable

import pytest

from connector_async.protocol.lanes import Lanes, Priority
from tests.protocol.lanes_machine import (
    RecordingTicket,
    assert_nothing_left,
    entered,
    make_lanes,
    make_ticket,
)

CONTENT, RECEIPT, TYPING = Priority


# Width that follows the cloud (C9)


def test_c9_a_429_narrows_to_70_percent_at_most_once_a_second() -> None:
    """Row C9: concurrency falls by 0.7; one bad moment answers many requests."""
    lanes = make_lanes(width=100)
    for _ in range(50):
        lanes.throttled(5.0)
    assert lanes.width == 70
    lanes.throttled(5.999)
    assert lanes.width == 70
    lanes.throttled(6.0)
    assert lanes.width == 49


def test_c9_the_width_never_falls_below_one() -> None:
    """Ours: the cloud cannot tell us to stop, only to wait."""
    lanes = make_lanes(width=3)
    for second in range(50):
        lanes.throttled(float(second))
    assert lanes.width == 1
    assert lanes.enter(make_ticket(), 99.0) is True


def test_c9_each_full_width_of_successes_widens_by_one_up_to_the_limit() -> None:
    """our design, 4.5: additive increase."""
    lanes = make_lanes(width=100)
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
    lanes = make_lanes(width=2)
    lanes.throttled(0.0)
    tickets = [make_ticket(n) for n in range(3)]
    assert entered(lanes, *tickets) == [True, False, False]
    for _ in range(3):
        lanes.succeeded(0.0)
    assert (lanes.width, lanes.running, tickets[1].grants) == (2, 2, 1)


def test_requests_under_way_when_the_width_falls_go_on_and_nobody_follows_until_it_fits() -> None:
    """The width is a limit for starting."""
    lanes = make_lanes(width=4)
    tickets = [make_ticket(n) for n in range(6)]
    entered(lanes, *tickets)
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
    lanes = make_lanes(width=1000, max_queue=1000, rate=10.0)
    starts = _play(lanes, [make_ticket(n) for n in range(50)], lambda: 0.0)
    assert starts == pytest.approx([n / 10 for n in range(50)])


def test_timers_that_come_late_do_not_slow_the_rate_down() -> None:
    """Locks a bug: with timers a millisecond or two late, 1,000 per second came out as 400."""
    rng = random_module.Random(4)
    lanes = make_lanes(width=5000, max_queue=5000, rate=1000.0)
    starts = _play(lanes, [make_ticket(n) for n in range(3000)], lambda: rng.uniform(0.0005, 0.003))
    assert 2.99 <= starts[-1] <= 3.01
    assert all(later - earlier >= 0.1 - 0.05 for earlier, later in zip(starts, starts[100:], strict=False))


def test_after_a_long_stall_there_is_no_burst_to_make_up_for_it() -> None:
    """Retry policy recommendations: avoid bursts. At most 50 ms are made up for."""
    lanes = make_lanes(width=1000, max_queue=1000, rate=100.0)
    tickets = [make_ticket(n) for n in range(100)]
    entered(lanes, *tickets)
    lanes.wake(30.0)
    assert sum(ticket.grants for ticket in tickets) <= 6
    assert lanes.wake_at == pytest.approx(30.01, abs=0.0101)


def test_a_queue_that_was_idle_or_short_of_width_has_saved_nothing_up() -> None:
    """The rate is a distance between starts, not an allowance."""
    lanes = make_lanes(width=1, rate=10.0)
    tickets = [make_ticket(n) for n in range(4)]
    assert entered(lanes, *tickets) == [True, False, False, False]
    lanes.leave(tickets[0], 60.0)
    assert (tickets[1].grants, lanes.wake_at) == (1, None)
    lanes.leave(tickets[1], 60.0)
    assert tickets[2].grants == 0
    assert lanes.wake_at == pytest.approx(60.1)
    lanes.wake(60.1)
    assert tickets[2].grants == 1


def test_nobody_has_to_be_woken_once_nothing_is_held() -> None:
    """Locks a bug: the time stayed set when the last request that the rate held back had left."""
    lanes = make_lanes(width=5, rate=10.0)
    first, held = make_ticket("a"), make_ticket("b")
    assert entered(lanes, first, held) == [True, False]
    assert lanes.wake_at == pytest.approx(0.1)
    lanes.leave(held, 0.0)
    assert lanes.wake_at is None
    lanes.leave(first, 0.0)
    lanes.wake(9.0)
    assert_nothing_left(lanes)


def test_a_timer_that_comes_early_is_asked_to_come_again() -> None:
    """Event loops fire within their clock's resolution."""
    lanes = make_lanes(width=5, rate=10.0)
    held = make_ticket("b")
    entered(lanes, make_ticket("a"), held)
    lanes.wake(0.0999999)
    assert held.grants == 0
    assert lanes.wake_at == pytest.approx(0.1)
    lanes.wake(0.1)
    assert (held.grants, lanes.wake_at) == (1, None)


def test_the_alarm_is_told_each_time_that_a_request_is_held_back() -> None:
    """Whoever owns the timer need not look after every call."""
    lanes = make_lanes(width=5, rate=10.0)
    rung: list[float] = []
    lanes.alarm = rung.append
    tickets = [make_ticket(n) for n in range(3)]
    entered(lanes, *tickets)
    assert rung == pytest.approx([0.1, 0.1])
    lanes.wake(0.1)
    assert rung == pytest.approx([0.1, 0.1, 0.2])
    lanes.wake(0.2)
    assert len(rung) == 3


def test_a_resumed_request_counts_against_the_rate_as_well() -> None:
    """Each attempt is a request to the cloud."""
    lanes = make_lanes(width=5, rate=10.0)
    ticket = make_ticket("a")
    entered(lanes, ticket)
    lanes.pause(ticket, 0.05)
    assert lanes.resume(ticket, 0.05) is False
    assert lanes.wake_at == pytest.approx(0.1)
    assert lanes.oldest(0.09) == pytest.approx(0.04)
    lanes.wake(0.1)
    assert ticket.grants == 1
