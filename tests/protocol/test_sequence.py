"""`protocol/sequence.py`: the counter of sends, and what the server's own says beside it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector_async.protocol.sequence import SequenceReading, read_sequence, sequence_of


@pytest.mark.parametrize(
    ("attempt", "sequence"), [(1, 0), (2, 2), (3, 4), (4, 8), (5, 16), (6, 32), (12, 2048), (64, 2**63)]
)
def test_the_counter_is_0_then_2_then_4_and_doubles_from_there(attempt: int, sequence: int) -> None:
    """Connector API overview, "Responses": 0, 2, 4, and "doubles"; the fourth send is our decision."""
    assert sequence_of(attempt) == sequence


@pytest.mark.parametrize("attempt", [0, -1, -(10**9)])
def test_attempts_are_counted_from_one(attempt: int) -> None:
    """our style 2: the first send is attempt 1."""
    with pytest.raises(ValueError, match=f"counted from 1, got {attempt}"):
        sequence_of(attempt)


@given(st.integers(2, 200))
def test_each_further_send_doubles_the_counter(attempt: int) -> None:
    """our design, 4.2: `2**(n-1)` for n >= 2."""
    assert sequence_of(attempt + 1) == 2 * sequence_of(attempt)
    assert sequence_of(attempt) == 2 ** (attempt - 1)


@pytest.mark.parametrize(
    ("returned", "attempt", "reading"),
    [
        (0, 1, SequenceReading.AGREES),
        (2, 2, SequenceReading.AGREES),
        (8, 4, SequenceReading.AGREES),
        (2, 1, SequenceReading.SAW_MORE),
        (3, 2, SequenceReading.SAW_MORE),
        (0, 2, SequenceReading.SAW_FEWER),
        (4, 4, SequenceReading.SAW_FEWER),
    ],
)
def test_the_servers_counter_tells_doubled_from_lost_sends(
    returned: int, attempt: int, reading: SequenceReading
) -> None:
    """our design, 4.2: a free duplicate-and-loss meter where the server follows the documentation."""
    assert read_sequence(returned, attempt) is reading


@given(st.integers(-(10**6), 2**70), st.integers(1, 80))
def test_any_number_the_server_returns_is_read_and_never_refused(returned: int, attempt: int) -> None:
    """Live systems number the events of the dialog instead, so every value occurs."""
    ours = sequence_of(attempt)
    expected = (returned > ours) - (returned < ours)
    assert (
        read_sequence(returned, attempt)
        is {
            0: SequenceReading.AGREES,
            1: SequenceReading.SAW_MORE,
            -1: SequenceReading.SAW_FEWER,
        }[expected]
    )
