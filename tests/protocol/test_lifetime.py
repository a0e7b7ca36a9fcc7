"""`protocol/lifetime.py`: fresh, stale, expired; and how long a token says it lives."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector_async.protocol.lifetime import DEFAULT_LIFETIME, Freshness, Lifetime, lifetime_of

WALL = 1_700_000_000.0


def _starting(seconds: float, *, jitter: float = 0.0, early: float = 300.0, fraction: float = 0.9) -> Lifetime:
    return Lifetime.starting(1000.0, seconds, fraction=fraction, early=early, jitter=jitter)


def test_a_token_is_fresh_then_stale_then_expired() -> None:
    """our design, 4.4; the bounds belong to the later state."""
    lifetime = Lifetime(refresh_at=10.0, expires_at=20.0)
    assert lifetime.at(9.999) is Freshness.FRESH
    assert lifetime.at(10.0) is Freshness.STALE
    assert lifetime.at(19.999) is Freshness.STALE
    assert lifetime.at(20.0) is Freshness.EXPIRED


def test_an_hour_is_renewed_5_minutes_before_its_end_when_the_fraction_allows_that() -> None:
    """How-to guide: renew 5 minutes before the end."""
    assert _starting(3600.0, fraction=1.0) == Lifetime(refresh_at=4300.0, expires_at=4600.0)


def test_the_fraction_counts_where_it_comes_first() -> None:
    """our design, 4.4: the fraction is a setting."""
    assert _starting(3600.0, fraction=0.5).refresh_at == 1000.0 + 1800.0


@pytest.mark.parametrize("seconds", [1.0, 299.0, 300.0, 301.0, 599.0])
def test_a_token_that_lives_little_longer_than_the_margin_still_serves_its_fraction(seconds: float) -> None:
    """Locks a bug: a token of 301 seconds was renewed after one, so a service that gives such tokens was stormed."""
    assert _starting(seconds).refresh_at == pytest.approx(1000.0 + 0.9 * seconds)


def test_from_twice_the_margin_on_the_margin_counts() -> None:
    """Ours: half of a token's life is the least that it serves."""
    assert _starting(600.0).refresh_at == 1300.0


@given(
    seconds=st.floats(0.001, 7 * 86_400.0),
    fraction=st.floats(0.01, 1.0),
    early=st.floats(0.0, 86_400.0),
    jitter=st.floats(0.0, 1.0),
)
def test_a_token_turns_stale_within_its_life_and_serves_a_fair_part_of_it(
    seconds: float, fraction: float, early: float, jitter: float
) -> None:
    """Rule 8: refresh early, never at once: at least 0.9 of half its life, or of its fraction if that is less."""
    lifetime = Lifetime.starting(0.0, seconds, fraction=fraction, early=early, jitter=jitter)
    assert 0.9 * min(fraction, 0.5) * seconds * (1 - 1e-9) <= lifetime.refresh_at <= lifetime.expires_at == seconds
    if seconds >= 2 * early:
        assert lifetime.refresh_at <= seconds - early


def test_jitter_brings_the_renewal_forward_by_a_tenth_at_most() -> None:
    """our design, 4.4: a fleet does not refresh in step."""
    assert _starting(3600.0, jitter=1.0).refresh_at == pytest.approx(1000.0 + 0.9 * 3240.0)


@pytest.mark.parametrize(
    ("claims", "expires_in", "seconds"),
    [
        ({"iat": WALL, "exp": WALL + 600}, None, 600.0),
        ({"iat": str(int(WALL)), "exp": str(int(WALL) + 600)}, None, 600.0),
        ({"iat": WALL - 86_400, "exp": WALL - 86_400 + 600}, None, 600.0),
        ({"exp": WALL + 600}, None, 600.0),
        ({}, 120, 120.0),
        ({}, "120", 120.0),
        ({"iat": WALL, "exp": WALL + 600}, 120, 120.0),
        ({"iat": WALL, "exp": WALL + 60}, 120, 60.0),
        ({}, None, DEFAULT_LIFETIME),
        ({}, 0.5, 0.5),
        ({"iat": WALL, "exp": WALL + 7 * 86_400}, None, 7 * 86_400.0),
    ],
)
def test_the_lifetime_is_the_shorter_of_what_the_token_and_its_answer_say(
    claims: dict[str, object], expires_in: object, seconds: float
) -> None:
    """Connector API, authorization: 60 minutes unless it says otherwise; a wrong clock of theirs does not matter."""
    assert lifetime_of(claims, expires_in, WALL) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "exp",
    [
        [1],
        None,
        math.inf,
        -math.inf,
        math.nan,
        "inf",
        "nan",
        "1e400",
        True,
        {},
        b"1",
        "soon",
        10**400,
        -1,
        0,
        WALL * 1e3,
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_exp_of_any_other_kind_falls_back_to_60_minutes(exp: object) -> None:
    """Rule 9 and S4: PyJWT hands on whatever stands in an unverified token."""
    assert lifetime_of({"exp": exp}, None, WALL) == DEFAULT_LIFETIME
    assert lifetime_of({"exp": exp, "iat": WALL}, exp, WALL) == DEFAULT_LIFETIME


@pytest.mark.parametrize("exp", [math.inf, "inf", math.nan])
def test_an_endless_exp_does_not_shorten_what_came_with_the_token(exp: object) -> None:
    """Ours: what is no number is as good as absent, not as good as 60 minutes."""
    assert lifetime_of({"exp": exp}, 7200, WALL) == 7200.0


@pytest.mark.parametrize("skew", [3600.0, 86_400.0, 3 * 86_400.0])
def test_without_iat_a_clock_that_is_behind_never_lengthens_a_token(skew: float) -> None:
    """Locks a bug (C8): with our clock a day behind, a token of an hour was kept for 25."""
    assert lifetime_of({"exp": WALL + 3600}, None, WALL - skew) == DEFAULT_LIFETIME


def test_an_unreadable_iat_is_as_good_as_none() -> None:
    """S4."""
    assert lifetime_of({"exp": WALL + 600, "iat": "yesterday"}, None, WALL) == pytest.approx(600.0)


_ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.binary(max_size=8),
    st.lists(st.integers(), max_size=2),
    st.floats(WALL - 10_000, WALL + 10_000),
    st.floats(WALL - 10_000, WALL + 10_000).map(str),
)


@given(exp=_ANYTHING, iat=_ANYTHING, expires_in=_ANYTHING)
def test_any_claims_at_all_give_a_lifetime_that_can_be_worked_with(
    exp: object, iat: object, expires_in: object
) -> None:
    """S4: no crash, and trust is never extended beyond a week."""
    assert 0 < lifetime_of({"exp": exp, "iat": iat}, expires_in, WALL) <= 7 * 86_400
