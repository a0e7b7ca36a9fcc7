"""The mapping that keeps what was used last: `connector_async._recent`."""

from __future__ import annotations

from collections import OrderedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector_async._recent import Recent


def test_what_is_not_full_keeps_everything() -> None:
    """And says what it has."""
    recent: Recent[str, int] = Recent(3)
    assert [recent.put(key, number) for number, key in enumerate("abc")] == [None, None, None]
    assert [recent.get(key) for key in "abcd"] == [0, 1, 2, None]
    assert recent.put("b", 7) is None
    assert (recent.get("b"), len(recent), "b" in recent, "d" in recent) == (7, 3, True, False)
    assert (recent.pop("b"), recent.pop("b"), len(recent)) == (7, None, 2)


def test_the_one_not_used_for_longest_goes_first() -> None:
    """A use is a `get` or a `put`."""
    recent: Recent[str, int] = Recent(4)
    for number, key in enumerate("abcd"):
        recent.put(key, number)
    recent.get("a")
    assert recent.put("e", 4) == 1
    assert (recent.get("c"), recent.put("d", 9)) == (2, None)
    assert [recent.put("f", 5), recent.put("g", 6)] == [0, 4]
    assert [key for key in "abcdefg" if key in recent] == ["c", "d", "f", "g"]
    assert recent.pop("c") == 2
    assert [recent.put("h", 7), recent.put("i", 8)] == [None, 9]


def test_uses_before_it_was_half_full_do_not_count() -> None:
    """A million of silent consumers must not pay for an order that nobody asks for."""
    recent: Recent[str, int] = Recent(4)
    for number, key in enumerate("abcd"):
        recent.put(key, number)
        recent.get("a") if number < 2 else None
    assert recent.put("e", 4) == 0


def test_one_place_is_enough() -> None:
    """The newest has it."""
    recent: Recent[str, int] = Recent(1)
    assert [recent.put(key, number) for number, key in enumerate("aab")] == [None, None, 1]
    assert (recent.get("a"), recent.get("b"), len(recent)) == (None, 2, 1)


@pytest.mark.parametrize("most", [1, 2, 5])
@given(steps=st.lists(st.tuples(st.sampled_from(["get", "put", "pop"]), st.integers(0, 8)), max_size=60))
def test_it_does_what_an_ordered_dict_would(most: int, steps: list[tuple[str, int]]) -> None:
    """Compared with one, filled with entries that nobody uses first; both stay more than half full."""
    recent: Recent[int, int] = Recent(most)
    plain: OrderedDict[int, int] = OrderedDict()
    for key in range(100, 100 + most):
        plain[key] = -key
        recent.put(key, -key)
    for number, (step, key) in enumerate(steps):
        if step == "get":
            assert recent.get(key) == plain.get(key)
            if key in plain:
                plain.move_to_end(key)
        elif step == "pop" and len(plain) - 1 > most // 2:
            assert recent.pop(key) == plain.pop(key, None)
        elif step == "put":
            is_full = key not in plain and len(plain) == most
            assert recent.put(key, number) == (plain.popitem(last=False)[1] if is_full else None)
            plain[key] = number
            plain.move_to_end(key)
        assert len(recent) == len(plain)
        assert {one for one in (*range(9), *range(100, 106)) if one in recent} == plain.keys()
