"""How far a partitioned log has been consumed, when what is read from it is done in another order.

A consumer of Kafka, or of any log with partitions and offsets, commits one offset for each partition: everything
below it is done. Messages sent in parallel are done in any order, so it must not commit past one that still is under
way. This module knows neither the broker nor the event loop: offsets in, offsets out. Not for several threads.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic

import attrs
from typing_extensions import TypeVar

__all__ = ["Mark", "Watermarks"]

P = TypeVar("P", bound=Hashable, default=int)


@attrs.define(eq=False)
class _Assignment:
    """One partition from its first offset until it is revoked.

    Only what is not done is kept: with the offset begun last, that says everything. An OrderedDict, for its first
    entry is found in constant time, which a plain dict's is not once the entries before it have been deleted.
    """

    first: int
    last: int
    begun: int = 0
    undone: OrderedDict[int, int] = attrs.field(factory=OrderedDict[int, int])  # offset -> how many were begun before
    is_revoked: bool = False

    @property
    def next_offset(self) -> int:
        return next(iter(self.undone), self.last + 1)

    @property
    def ahead(self) -> int:
        before_oldest = next(iter(self.undone.values()), self.begun)
        return self.begun - before_oldest - len(self.undone)


@attrs.frozen(eq=False)
class Mark(Generic[P]):
    """One offset of one assignment of its partition; what `Watermarks.begin()` gives and `done()` takes."""

    partition: P
    offset: int
    assignment: _Assignment = attrs.field(repr=False)  # for `Watermarks` alone


class Watermarks(Generic[P]):
    """Which offsets of a partitioned log may be committed: never one past a message whose end is not known.

    Each message is begun in the order of its partition and done in any order. With a session and any Kafka client:

        marks = Watermarks()

        async def source():
            async for record in consumer:
                mark = marks.begin(record.partition, record.offset)
                request_id = f"{record.topic}-{record.partition}-{record.offset}"  # the same one when it comes again
                yield Outgoing(record.key, record.value, key=mark, request_id=request_id)

        async with session.send_many(source()) as outcomes:
            async for outcome in outcomes:
                if outcome.status in (OutcomeStatus.ACCEPTED, OutcomeStatus.REFUSED):
                    marks.done(outcome.key)
                if it_is_time():
                    await consumer.commit(marks.committable())

    What is left undone holds its partition where it is: read it again from there, after `revoke()`, as after a crash.
    Every call takes constant time for each partition, and memory grows with what is under way, not with how far the
    rest is ahead.

    The type parameter is what names a partition: a number, or `tuple[str, int]` with several topics.
    """

    def __init__(self) -> None:
        self._assignments: dict[P, _Assignment] = {}

    def begin(self, partition: P, offset: int) -> Mark[P]:
        """Take note of a message before it is handed on; the first of a partition says where it was taken up.

        Offsets that the log leaves out (compaction, transactions) may be left out here.

        Returns:
            What to call `done()` with; `Outgoing(key=mark)` carries it there.

        Raises:
            ValueError: The offset is negative, or not above the last of this partition: after a seek or a rebalance
                `revoke()` comes first.
        """
        assignment = self._assignments.get(partition)
        if offset < 0:
            raise ValueError(f"an offset is not negative: {offset}")
        if assignment is None:
            assignment = self._assignments[partition] = _Assignment(first=offset, last=offset)
        elif offset <= assignment.last:
            raise ValueError(
                f"offset {offset} of partition {partition!r} comes after {assignment.last}: "
                "revoke the partition before reading it again"
            )
        assignment.last = offset
        assignment.undone[offset] = assignment.begun
        assignment.begun += 1
        return Mark(partition, offset, assignment)

    def done(self, mark: Mark[P] | None) -> bool:
        """Say that a message needs nothing more: it was accepted, or refused and that was written down somewhere.

        Args:
            mark: What `begin()` gave. None is refused; it is in the type because `Outcome.key` has it there.

        Returns:
            False if its partition was revoked meanwhile: nothing has changed then, also if it was assigned again.

        Raises:
            TypeError: It is None.
            ValueError: It was done before, or is a mark of other watermarks.
        """
        if mark is None:
            raise TypeError("done() needs what begin() gave: send the message with key=mark")
        assignment = mark.assignment
        if assignment.is_revoked:
            return False
        if self._assignments.get(mark.partition) is not assignment:
            raise ValueError(f"{mark!r} is a mark of other watermarks")
        if mark.offset not in assignment.undone:
            raise ValueError(f"{mark!r} was done before")
        del assignment.undone[mark.offset]
        return True

    def committable(self) -> dict[P, int]:
        """For each partition the next offset to read, as Kafka commits it; those without progress are left out.

        Asking changes nothing and the answer is complete each time, so that a commit that failed is made up for by
        the next one, and a commit made twice is the same commit.
        """
        return {
            partition: assignment.next_offset
            for partition, assignment in self._assignments.items()
            if assignment.next_offset > assignment.first
        }

    def revoke(self, partition: P) -> int | None:
        """Forget a partition that was taken away, or that is to be read again; what is under way no longer counts.

        Returns:
            What can be committed for it, where the broker still lets you; None if there was no progress.
        """
        assignment = self._assignments.pop(partition, None)
        if assignment is None:
            return None
        assignment.is_revoked = True
        return assignment.next_offset if assignment.next_offset > assignment.first else None

    @property
    def outstanding(self) -> int:
        """Messages begun and not done, in all partitions."""
        return sum(len(assignment.undone) for assignment in self._assignments.values())

    @property
    def ahead(self) -> int:
        """Messages done that cannot be committed yet, for one before them is not: what a crash would bring again.

        Stop reading while it is above what you would see twice.
        """
        return sum(assignment.ahead for assignment in self._assignments.values())

    def __repr__(self) -> str:
        return f"Watermarks({len(self._assignments)} partitions, {self.outstanding} outstanding, {self.ahead} ahead)"
