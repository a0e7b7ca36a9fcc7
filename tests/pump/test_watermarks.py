"""`pump/watermarks.py`: what may be committed of a partitioned log."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from connector_async.pump.watermarks import Mark, Watermarks


def test_nothing_is_committable_before_something_is_done() -> None:
    """Ours: to commit where one began says nothing, and might say less than was committed already."""
    marks = Watermarks()
    assert marks.committable() == {}
    marks.begin(0, 40)
    assert marks.committable() == {}
    assert marks.outstanding == 1


@pytest.mark.requirement("pump:watermarks")
def test_what_is_done_after_one_that_is_not_waits_for_it() -> None:
    """Issue 7, item 6: only contiguous offsets."""
    marks = Watermarks()
    first, second, third = (marks.begin(0, offset) for offset in (40, 41, 42))
    assert marks.done(third)
    assert marks.done(second)
    assert marks.committable() == {}
    assert (marks.outstanding, marks.ahead) == (1, 2)
    assert marks.done(first)
    assert marks.committable() == {0: 43}
    assert (marks.outstanding, marks.ahead) == (0, 0)


def test_partitions_do_not_wait_for_each_other() -> None:
    """Kafka: an offset is of its partition."""
    marks = Watermarks[tuple[str, int]]()
    marks.begin(("orders", 0), 0)
    other = marks.begin(("orders", 1), 7)
    marks.done(other)
    assert marks.committable() == {("orders", 1): 8}


def test_offsets_that_the_log_leaves_out_are_passed() -> None:
    """Kafka: compaction and the markers of transactions leave gaps."""
    marks = Watermarks()
    first, second = marks.begin(0, 5), marks.begin(0, 900)
    marks.done(first)
    assert marks.committable() == {0: 900}
    marks.done(second)
    assert marks.committable() == {0: 901}


def test_to_ask_changes_nothing_so_that_a_failed_commit_is_made_up_for() -> None:
    """Ours: an answer that is given once is lost with the commit it was for."""
    marks = Watermarks()
    marks.done(marks.begin(0, 5))
    assert marks.committable() == marks.committable() == {0: 6}
    marks.committable().clear()
    assert marks.committable() == {0: 6}


def test_a_late_done_of_a_revoked_partition_is_ignored_also_when_it_was_assigned_again() -> None:
    """Ours: the message was given to another consumer, or comes again to this one and is under way again."""
    marks = Watermarks()
    early = marks.begin(3, 10)
    assert marks.revoke(3) is None
    assert not marks.done(early)
    assert marks.committable() == {}
    again = marks.begin(3, 10)
    assert not marks.done(early)
    assert marks.committable() == {}
    assert marks.outstanding == 1
    assert marks.done(again)
    assert marks.committable() == {3: 11}


def test_to_revoke_tells_what_can_be_committed_for_the_last_time() -> None:
    """Kafka: `on_partitions_revoked` may still commit."""
    marks = Watermarks()
    marks.done(marks.begin(0, 5))
    marks.begin(0, 6)
    assert marks.revoke(0) == 6
    assert marks.committable() == {}
    assert marks.outstanding == 0
    assert marks.revoke(0) is None


def test_a_revoked_partition_may_begin_below_where_it_was() -> None:
    """Kafka: redelivery begins at what was committed."""
    marks = Watermarks()
    for offset in range(5, 9):
        marks.begin(0, offset)
    marks.revoke(0)
    marks.done(marks.begin(0, 2))
    assert marks.committable() == {0: 3}


@pytest.mark.parametrize("offset", [7, 6, 0])
def test_an_offset_that_comes_again_without_a_revocation_is_refused(offset: int) -> None:
    """Ours: it would be committed when either of the two is done."""
    marks = Watermarks()
    marks.done(marks.begin(0, 7))
    with pytest.raises(ValueError, match="revoke the partition before reading it again"):
        marks.begin(0, offset)
    assert marks.committable() == {0: 8}


def test_a_negative_offset_is_refused() -> None:
    """Kafka: negative numbers stand for the beginning and the end, not for a message."""
    marks = Watermarks()
    with pytest.raises(ValueError, match="not negative: -1"):
        marks.begin(0, -1)
    assert marks.revoke(0) is None


def test_done_twice_is_refused() -> None:
    """Ours: one of the two was meant for another message."""
    marks = Watermarks()
    mark = marks.begin(0, 7)
    marks.done(mark)
    with pytest.raises(ValueError, match="done before"):
        marks.done(mark)


def test_a_mark_of_other_watermarks_is_refused() -> None:
    """Ours."""
    mine, other = Watermarks(), Watermarks()
    mine.begin(0, 7)
    with pytest.raises(ValueError, match="other watermarks"):
        mine.done(other.begin(0, 7))


def test_a_message_without_its_mark_is_refused() -> None:
    """Ours: a message that was sent without `key=mark` would hold its partition for ever."""
    with pytest.raises(TypeError, match="key=mark"):
        Watermarks().done(None)


def test_memory_follows_what_is_under_way_not_what_is_ahead() -> None:
    """Ours: one stuck message must not make the rest pile up."""
    marks = Watermarks()
    stuck = marks.begin(0, 0)
    for offset in range(1, 20_000):
        marks.done(marks.begin(0, offset))
    assert (marks.outstanding, marks.ahead) == (1, 19_999)
    assert len(marks._assignments[0].undone) == 1
    marks.done(stuck)
    assert marks.committable() == {0: 20_000}


def test_the_representation_counts() -> None:
    """Ours: for logs."""
    marks = Watermarks()
    marks.begin(0, 0)
    marks.done(marks.begin(0, 1))
    assert repr(marks) == "Watermarks(1 partitions, 1 outstanding, 1 ahead)"
    assert repr(marks.begin(1, 4)) == "Mark(partition=1, offset=4)"


@given(st.lists(st.integers(1, 5), min_size=1, max_size=60), st.randoms(use_true_random=False))
def test_when_everything_is_done_in_any_order_all_is_committable(steps: list[int], order: random.Random) -> None:
    """Ours; on the way there it never passes one that is not done, and stops at none that is."""
    marks = Watermarks()
    begun = [marks.begin(0, offset) for offset in itertools.accumulate(steps)]
    undone = [mark.offset for mark in begun]
    shuffled = list(begun)
    order.shuffle(shuffled)
    for mark in shuffled:
        marks.done(mark)
        undone.remove(mark.offset)
        expected = undone[0] if undone else begun[-1].offset + 1
        assert marks.committable().get(0, begun[0].offset) == expected
        assert marks.ahead == sum(one.offset > expected for one in begun) - sum(one > expected for one in undone)
    assert marks.committable() == {0: begun[-1].offset + 1}


class Consumption(RuleBasedStateMachine):
    """A log of three partitions, read, done in any order, committed and revoked at any time.

    The model keeps what really happened: for each offset whether it was ever done by an attempt that counts.
    """

    def __init__(self) -> None:
        super().__init__()
        self.marks = Watermarks()
        self.committed = dict.fromkeys(range(3), 0)
        self.position = dict.fromkeys(range(3), 0)
        self.live: list[Mark[int]] = []
        self.late: list[Mark[int]] = []
        self.ever_done: set[tuple[int, int]] = set()
        self.read: set[tuple[int, int]] = set()

    @rule(partition=st.integers(0, 2), gap=st.integers(0, 2))
    def begin(self, partition: int, gap: int) -> None:
        offset = self.position[partition]
        # A gap is a property of the log: what was skipped once was not there, unless it was read before.
        while gap and (partition, offset) not in self.read:
            offset, gap = offset + 1, gap - 1
            self.ever_done.add((partition, offset - 1))
        self.read.add((partition, offset))
        self.live.append(self.marks.begin(partition, offset))
        self.position[partition] = offset + 1

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def done(self, data: st.DataObject) -> None:
        mark = self.live.pop(data.draw(st.integers(0, len(self.live) - 1)))
        assert self.marks.done(mark)
        self.ever_done.add((mark.partition, mark.offset))

    @precondition(lambda self: self.late)
    @rule(data=st.data())
    def done_late(self, data: st.DataObject) -> None:
        before = self.marks.committable(), self.marks.outstanding
        assert not self.marks.done(self.late.pop(data.draw(st.integers(0, len(self.late) - 1))))
        assert (self.marks.committable(), self.marks.outstanding) == before

    @rule()
    def commit(self) -> None:
        self.committed |= self.marks.committable()

    @rule(partition=st.integers(0, 2), commits=st.booleans())
    def revoke(self, partition: int, commits: bool) -> None:
        last = self.marks.revoke(partition)
        if commits and last is not None:
            self.committed[partition] = last
        self.late += [mark for mark in self.live if mark.partition == partition]
        self.live = [mark for mark in self.live if mark.partition != partition]
        self.position[partition] = self.committed[partition]  # it comes back, and begins at what was committed

    @invariant()
    def nothing_is_committable_that_was_not_done(self) -> None:
        for partition, offset in (self.committed | self.marks.committable()).items():
            assert all((partition, below) in self.ever_done for below in range(offset))

    @invariant()
    def nothing_is_committable_past_what_is_under_way(self) -> None:
        committable = self.marks.committable()
        assert all(committable.get(mark.partition, 0) <= mark.offset for mark in self.live)
        assert self.marks.outstanding == len(self.live)

    @invariant()
    def a_commit_never_steps_back(self) -> None:
        assert all(offset >= self.committed[partition] for partition, offset in self.marks.committable().items())

    @invariant()
    def a_partition_with_nothing_under_way_is_committable_up_to_where_it_was_read(self) -> None:
        busy = {mark.partition for mark in self.live}
        for partition, position in self.position.items():
            if partition not in busy:
                assert (self.committed | self.marks.committable())[partition] == position


TestConsumption: Any = pytest.mark.no_cover(Consumption.TestCase)
