"""`protocol/retry.py`: whether to send again, after how long, and how little harm that does on a bad day."""

from __future__ import annotations

import math
import random as random_module
import time
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector_async.protocol.retry import (
    RETRY_AFTER_CAP,
    Failure,
    Fate,
    RetryBudget,
    RetryPolicy,
    Stop,
    Wait,
    parse_retry_after,
)

NOT_SENT = Failure(fate=Fate.NOT_SENT)
UNKNOWN = Failure(fate=Fate.UNKNOWN)
VENDOR = RetryPolicy.vendor()
REPORT = RetryPolicy.vendor(unknown="report")

RANDOM = st.floats(0.0, 1.0)


def _answered(status: int, retry_after: float | None = None) -> Failure:
    return Failure(fate=Fate.ANSWERED, status=status, retry_after=retry_after)


def _decide(policy: RetryPolicy, failure: Failure, **changes: Any) -> Wait | Stop:
    facts: dict[str, Any] = {
        "attempt": 1,
        "repeatable": False,
        "budget": RetryBudget(),
        "now": 0.0,
        "deadline": math.inf,
        "random": 0.5,
    }
    return policy.decide(failure, **(facts | changes))


def _pause(policy: RetryPolicy, failure: Failure, **changes: Any) -> float:
    decision = _decide(policy, failure, **changes)
    assert isinstance(decision, Wait)
    return decision.seconds


# What may be sent again


@pytest.mark.parametrize("status", [200, 301, 400, 401, 403, 404, 412, 499, None])
def test_an_answer_other_than_429_and_5xx_ends_the_request(status: int | None) -> None:
    """Retry policy recommendations: 4xx, do not retry; fix the request."""
    failure = Failure(fate=Fate.ANSWERED, status=status)
    assert _decide(VENDOR, failure, repeatable=True) == Stop("refused")


@pytest.mark.parametrize("failure", [_answered(429), _answered(500), _answered(503), NOT_SENT, UNKNOWN])
def test_throttled_broken_unsent_and_unknown_sends_are_tried_again(failure: Failure) -> None:
    """our design, 4.3 and issue 3.2: the default resends."""
    assert isinstance(_decide(VENDOR, failure), Wait)


@pytest.mark.parametrize("failure", [UNKNOWN, _answered(500), _answered(599), Failure(fate=Fate.UNKNOWN, stale=True)])
def test_content_that_may_have_landed_is_reported_where_the_caller_says_so(failure: Failure) -> None:
    """Retry policy recommendations: after a timeout or a 5xx the event may have been stored."""
    assert _decide(REPORT, failure) == Stop("unknown")
    assert isinstance(_decide(REPORT, failure, repeatable=True), Wait)


@pytest.mark.parametrize("failure", [NOT_SENT, _answered(429)])
def test_what_cannot_have_landed_is_sent_again_whatever_the_caller_says_of_unknown(failure: Failure) -> None:
    """Rule 6: not sent is retried freely; a 429 was not accepted."""
    assert isinstance(_decide(REPORT, failure), Wait)


@pytest.mark.parametrize("fate", list(Fate))
def test_a_final_failure_is_never_repeated(fate: Fate) -> None:
    """Wire-fault catalogue: an untrusted certificate, never."""
    assert _decide(VENDOR, Failure(fate=fate, status=503, final=True), repeatable=True) == Stop("final")


@pytest.mark.parametrize("failure", [_answered(429), _answered(500), NOT_SENT, UNKNOWN])
def test_attempts_are_counted_and_end(failure: Failure) -> None:
    """`max_attempts` is the number of sends in all."""
    policy = attrs.evolve(VENDOR, max_attempts=3)
    assert [isinstance(_decide(policy, failure, attempt=n), Wait) for n in (1, 2, 3, 4)] == [True, True, False, False]
    assert _decide(policy, failure, attempt=3) == Stop("attempts")


@pytest.mark.parametrize(
    "failure", [_answered(429), _answered(500), NOT_SENT, Failure(fate=Fate.UNKNOWN, stale=True)]
)
def test_the_preset_none_never_sends_again(failure: Failure) -> None:
    """Ours."""
    assert _decide(RetryPolicy.none(), failure, repeatable=True) == Stop("attempts")
    assert isinstance(_decide(RetryPolicy.none(), failure), Stop)


# Deadline and budget


def test_a_pause_that_would_end_at_the_deadline_is_not_begun() -> None:
    """our design, 4.3: one deadline covers everything; what cannot be sent in time fails at once."""
    assert _decide(VENDOR, _answered(500), random=0.0, now=10.0, deadline=15.0) == Stop("deadline")
    assert _decide(VENDOR, _answered(500), random=0.0, now=10.0, deadline=15.001) == Wait(5.0)


def test_a_stop_spends_nothing_from_the_budget() -> None:
    """Ours: what is not sent again must not cost the others their chance."""
    budget = RetryBudget()
    _decide(VENDOR, _answered(500), budget=budget, deadline=0.0)
    _decide(VENDOR, _answered(400), budget=budget)
    _decide(VENDOR, _answered(500), budget=budget, attempt=99)
    _decide(REPORT, UNKNOWN, budget=budget)
    assert budget.tokens == 500


@pytest.mark.parametrize(
    ("failure", "cost"), [(NOT_SENT, 0), (_answered(429), 5), (_answered(500), 14), (UNKNOWN, 14)]
)
def test_a_retry_costs_what_it_burdens_the_cloud_with(failure: Failure, cost: int) -> None:
    """Rules 6 and 7: 14, 5 when throttled, nothing when no byte was sent."""
    budget = RetryBudget()
    _pause(VENDOR, failure, budget=budget)
    assert budget.tokens == 500 - cost


def test_an_empty_budget_means_fail_now() -> None:
    """Rule 7: never queue."""
    budget = RetryBudget(13)
    assert _decide(VENDOR, _answered(500), budget=budget) == Stop("budget")
    assert _decide(VENDOR, UNKNOWN, budget=budget) == Stop("budget")
    assert budget.tokens == 13
    assert isinstance(_decide(VENDOR, _answered(429), budget=budget), Wait)
    assert isinstance(_decide(VENDOR, NOT_SENT, budget=budget), Wait)


def test_successes_fill_the_budget_up_to_its_capacity() -> None:
    """Rule 7: a first-time success gives 1 back."""
    budget = RetryBudget(2)
    assert budget.take(2)
    assert not budget.take(1)
    for _ in range(5):
        budget.repay()
    assert budget.tokens == 2


@given(
    failure=st.builds(
        Failure,
        fate=st.sampled_from(Fate),
        status=st.none() | st.integers(100, 999),
        retry_after=st.none() | st.floats(allow_nan=True, allow_infinity=True),
        stale=st.booleans(),
        final=st.booleans(),
    ),
    policy=st.sampled_from(
        [VENDOR, REPORT, RetryPolicy.none(), RetryPolicy.exponential(max_attempts=10_000), RetryPolicy(name="plain")]
    ),
    attempt=st.integers(1, 5000),
    random=RANDOM,
    now=st.floats(0, 1e6),
    left=st.floats(-10, 1e6),
    tokens=st.integers(0, 500),
    repeatable=st.booleans(),
)
def test_every_decision_is_sound(
    failure: Failure,
    policy: RetryPolicy,
    attempt: int,
    random: float,
    now: float,
    left: float,
    tokens: int,
    repeatable: bool,
) -> None:
    """C16: whatever happened, a pause is finite, ends before the deadline and is paid for."""
    budget = RetryBudget(tokens)
    decision = policy.decide(
        failure,
        attempt=attempt,
        repeatable=repeatable,
        budget=budget,
        now=now,
        deadline=now + left,
        random=random,
    )
    if isinstance(decision, Stop):
        assert budget.tokens == tokens
        return
    assert attempt < policy.max_attempts
    assert not failure.final
    assert 0 <= decision.seconds < math.inf
    assert now + decision.seconds < now + left
    assert tokens - budget.tokens in ({0} if failure.fate is Fate.NOT_SENT else {5, 14})


# Pauses


def test_c11_the_vendors_pauses_are_5_10_15_seconds_then_2_4_8_minutes() -> None:
    """Row C11, 100 times; retry policy recommendations: three retries, then every 2, 4, 8 … minutes."""
    rng = random_module.Random(11)
    table = (5.0, 10.0, 15.0, 120.0, 240.0, 480.0)
    for _ in range(100):
        for attempt, seconds in enumerate(table, start=1):
            random = rng.random()
            assert _pause(VENDOR, _answered(503), attempt=attempt, random=0.0) == seconds
            assert _pause(VENDOR, _answered(503), attempt=attempt, random=random) == pytest.approx(
                seconds * (1 + 0.1 * random)
            )
            assert seconds <= _pause(VENDOR, _answered(503), attempt=attempt, random=random) <= seconds * 1.1


def test_after_the_table_the_last_pause_doubles_up_to_an_hour() -> None:
    """Ours: "exponential" needs an end."""
    pauses = [_pause(VENDOR, _answered(500), attempt=attempt, random=0.0) for attempt in range(7, 12)]
    assert pauses == [960.0, 1920.0, 3600.0, 3600.0, 3600.0]


def test_a_table_whose_last_pause_is_beyond_the_cap_keeps_it() -> None:
    """Ours: what the caller wrote down counts."""
    policy = RetryPolicy(name="mine", max_attempts=9, server_pauses=(10.0,), longest_server_pause=1.0)
    assert [_pause(policy, _answered(500), attempt=n, random=0.0) for n in (1, 2, 8)] == [10.0, 10.0, 10.0]


def test_without_a_table_there_is_no_server_pause() -> None:
    """Ours: an empty table is a wish, not an IndexError."""
    assert _pause(RetryPolicy(name="eager", server_pauses=()), _answered(500)) == 0.0


@given(
    base=st.floats(0.001, 100.0),
    factor=st.floats(1.0, 1000.0),
    attempt=st.integers(1, 9) | st.integers(1, 3000),
    random=RANDOM,
)
def test_exponential_pauses_double_with_full_jitter_and_never_exceed_the_longest(
    base: float, factor: float, attempt: int, random: float
) -> None:
    """Locks a bug: after the table the last pause doubled beyond `longest`."""
    longest = base * factor
    policy = RetryPolicy.exponential(base=base, longest=longest, max_attempts=5000)
    for failure in (_answered(500), UNKNOWN, NOT_SENT):
        expected = random * min(longest, base * 2.0 ** min(attempt - 1, 30))
        assert _pause(policy, failure, attempt=attempt, random=random) == pytest.approx(expected)
        assert _pause(policy, failure, attempt=attempt, random=1.0) <= longest


def test_unsent_and_unknown_sends_wait_a_random_part_of_a_doubling_pause() -> None:
    """our design, 4.3: full jitter."""
    assert [_pause(VENDOR, NOT_SENT, attempt=n, random=1.0) for n in range(1, 7)] == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0]
    assert [_pause(VENDOR, UNKNOWN, attempt=n, random=1.0) for n in range(1, 6)] == [0.5, 1.0, 2.0, 4.0, 5.0]
    assert _pause(VENDOR, UNKNOWN, random=0.0) == 0.0


def test_a_connection_the_server_had_closed_while_idle_is_replaced_at_once() -> None:
    """our design, 5: retried at once on a fresh one, once."""
    stale = Failure(fate=Fate.UNKNOWN, stale=True)
    assert _pause(VENDOR, stale, random=1.0) == 0.0
    assert _pause(VENDOR, stale, attempt=2, random=1.0) == 1.0


# Throttling and `Retry-After` (row C9)


def test_c9_a_pause_after_429_keeps_to_what_was_asked() -> None:
    """Row C9, 500 times: within [RA, RA + 25 %], at least a second, 120 at most; never before."""
    rng = random_module.Random(9)
    for _ in range(500):
        random, asked, attempt = rng.random(), rng.uniform(0, 119), rng.randint(1, 11)
        pause = _pause(VENDOR, _answered(429, asked), random=random, attempt=attempt)
        assert max(1.0, asked) <= pause <= min(120.0, max(1.0, asked) * 1.25)


@pytest.mark.parametrize("asked", [120.0, 121.0, 1e9, math.inf])
@pytest.mark.parametrize("status", [429, 503])
def test_c9_a_retry_after_beyond_two_minutes_is_cut_to_two_minutes(asked: float, status: int) -> None:
    """Row C9: cap 120 s, jitter included."""
    for random in (0.0, 0.3, 1.0):
        assert _pause(VENDOR, _answered(status, asked), random=random) == RETRY_AFTER_CAP == 120.0


@pytest.mark.parametrize("asked", [-1e9, -1.0, 0.0, 0.4, math.nan])
def test_c9_a_retry_after_of_nothing_or_less_still_means_a_second(asked: float) -> None:
    """Retry policy recommendations: at least a second."""
    for random in (0.0, 0.5, 1.0):
        assert 1.0 <= _pause(VENDOR, _answered(429, asked), random=random) <= 1.25


def test_c9_without_retry_after_the_pause_starts_at_a_second_and_doubles_to_30() -> None:
    """Retry policy recommendations: wait at least a second, avoid bursts."""
    pauses = [_pause(VENDOR, _answered(429), attempt=n, random=0.0) for n in range(1, 9)]
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
    assert _pause(VENDOR, _answered(429), random=1.0) == 1.25


def test_a_retry_after_with_a_5xx_lengthens_the_pause_and_never_shortens_it() -> None:
    """Ours: honoured where it comes."""
    assert _pause(VENDOR, _answered(503, 60.0), random=0.0) == 60.0
    assert _pause(VENDOR, _answered(503, 60.0), random=1.0) == 75.0
    assert _pause(VENDOR, _answered(503, 1.0), random=0.0) == 5.0
    assert _pause(VENDOR, _answered(503, math.nan), random=0.0) == 5.0


WALL = 784_111_777.0  # Sun, 06 Nov 1994 08:49:37 GMT, the date of RFC 9110


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("0", 0.0),
        ("7", 7.0),
        (" 120 ", 120.0),
        ("1.5", 1.5),
        ("1000000000", 1e9),
        ("0000000000000000000005", 5.0),
        ("000", 0.0),
        ("Sun, 06 Nov 1994 08:49:47 GMT", 10.0),
        ("Sunday, 06-Nov-94 08:50:37 GMT", 60.0),
        ("Sun Nov  6 08:49:38 1994", 1.0),
        ("Sun, 06 Nov 1994 08:49:47 -0000", 10.0),
        ("Sun, 06 Nov 1994 10:49:47 +0200", 10.0),
        ("Sun, 06 Nov 1994 08:49:36 GMT", 0.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
    ],
)
def test_retry_after_is_read_as_seconds_and_as_all_three_kinds_of_date(header: str, seconds: float) -> None:
    """RFC 9110 10.2.3 and 5.6.7. Locks two bugs: leading zeros were cut to 0, asctime was taken for local time."""
    assert parse_retry_after(header, WALL) == seconds


@pytest.mark.parametrize("zone", ["Pacific/Auckland", "America/Los_Angeles", "UTC"])
def test_a_date_without_a_zone_does_not_depend_on_where_we_are(zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 9110 5.6.7: asctime is UTC as well."""
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        assert parse_retry_after("Sun Nov  6 08:49:47 1994", WALL) == 10.0
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    "header",
    [
        None, "", " ", "-1", "+5", "1_000", "1e9", "nan", "inf", "-inf", "soon", "5 s", "5,5", "٣", "0x10", "\x00",
        "Sun, 99 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:37 +9999", "Sun, 06 Nov 99999999999 08:49:37 GMT",
        "Sun, 99999999999999999999 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994",
    ],
)  # fmt: skip
def test_a_retry_after_that_is_neither_is_as_good_as_none(header: str | None) -> None:
    """C9: garbage and negative numbers."""
    assert parse_retry_after(header, WALL) is None


@pytest.mark.parametrize("digits", [20, 400, 60_000])
def test_a_retry_after_of_many_digits_is_a_long_time_and_not_an_error(digits: int) -> None:
    """C9 and C17: the cap makes two minutes of it."""
    asked = parse_retry_after("9" * digits, WALL)
    assert asked is not None
    assert 1e9 < asked < math.inf


@given(
    st.text(max_size=40) | st.from_regex(r"[A-Z][a-z]{2}, [0-9]{1,3} [A-Z][a-z]{2} [0-9 :+-]{1,24}", fullmatch=True)
)
def test_any_header_gives_seconds_or_nothing(header: str) -> None:
    """S4 and C17: no exception, never a negative or endless pause."""
    seconds = parse_retry_after(header, WALL)
    assert seconds is None or 0 <= seconds < math.inf


# Settings


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_attempts": 0}, "max_attempts must be a number above 0"),
        ({"connect_base": 0.0}, "connect_base must be a number above 0"),
        ({"unknown_base": math.nan}, "unknown_base must be a number above 0"),
        ({"longest_pause": math.inf}, "longest_pause must be a number above 0"),
        ({"longest_server_pause": -1.0}, "longest_server_pause must be a number above 0"),
        ({"server_pauses": (5.0, -1.0)}, "server_pauses must be seconds, none below 0"),
        ({"server_pauses": (math.inf,)}, "server_pauses must be seconds, none below 0"),
        ({"spread": -0.1}, "spread must be from 0 to 1"),
        ({"spread": math.nan}, "spread must be from 0 to 1"),
        ({"spread": 1.1}, "spread must be from 0 to 1"),
        ({"unknown": "maybe"}, "unknown"),
    ],
)
def test_a_setting_that_cannot_work_is_refused_when_the_policy_is_made(change: dict[str, Any], message: str) -> None:
    """our style 6: validators check what we promise."""
    with pytest.raises(ValueError, match=message):
        attrs.evolve(VENDOR, **change)


@pytest.mark.parametrize(("base", "longest"), [(0.0, 1.0), (-1.0, 1.0), (2.0, 1.0), (math.nan, 1.0)])
def test_an_exponential_policy_has_a_base_above_0_and_below_the_longest(base: float, longest: float) -> None:
    """Locks a bug: a base of 0 ended in ZeroDivisionError."""
    with pytest.raises(ValueError, match="base must be above 0"):
        RetryPolicy.exponential(base=base, longest=longest)


def test_a_policy_can_be_varied_and_stays_a_value() -> None:
    """our style 6: settings are frozen; lists are accepted and become tuples."""
    policy = attrs.evolve(VENDOR, server_pauses=[1.0, 2.0])
    assert list(policy.server_pauses) == [1.0, 2.0]
    assert hash(policy) != hash(VENDOR)
    assert [RetryPolicy.vendor().name, RetryPolicy.exponential().name, RetryPolicy.none().name] == [
        "vendor",
        "exponential",
        "none",
    ]


def test_the_presets_are_what_they_say() -> None:
    """Ours, beside the vendor's table: as many attempts as the table has pauses, and some for unknown outcomes."""
    vendor, exponential, plain = RetryPolicy.vendor(), RetryPolicy.exponential(), RetryPolicy(name="plain")
    assert (vendor.max_attempts, exponential.max_attempts, plain.max_attempts) == (12, 5, 4)
    assert (exponential.connect_base, exponential.longest_pause, exponential.full_jitter) == (0.5, 20.0, True)
    assert plain.server_pauses == (5.0, 10.0, 15.0)
    assert vendor.server_pauses == (5.0, 10.0, 15.0, 120.0, 240.0, 480.0)
    assert exponential == RetryPolicy.exponential(base=0.5, longest=20.0, max_attempts=5, unknown="resend")
    assert {vendor.unknown, exponential.unknown, plain.unknown} == {"resend"}
    assert RetryPolicy.vendor(unknown="report").unknown == "report"
    assert RetryPolicy.exponential(unknown="report").unknown == "report"
    assert RetryPolicy.none() == RetryPolicy(name="none", max_attempts=1, unknown="report")
    assert attrs.evolve(vendor, spread=1.0, server_pauses=(0.0,)).spread == 1.0
    assert attrs.evolve(vendor, spread=0.0).spread == 0.0
