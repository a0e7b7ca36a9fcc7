"""Which answer belongs to which request.

Owns the table of requests in flight. Every path that ends a request takes its ids out again: after any run the table
is empty. An answer is only ever matched against the ids that its own exchange carried, so that no answer can reach
another request; one that fits none of them is told apart here (late, doubled, foreign, missing) and given to nobody.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
from enum import Enum
from typing import Generic, TypeVar

from connector_async.errors import LocalProtocolError

__all__ = ["MAX_REQUEST_ID", "OrphanKind", "PendingTable", "RequestIds"]

E = TypeVar("E")

MAX_REQUEST_ID = 64
"""Characters in a request id (the API's published schema: 1 to 64)."""

_LAST_COUNT = 0xFFFFFF
_TOO_LONG = 10**MAX_REQUEST_ID


class OrphanKind(Enum):
    """Why an answer has no taker."""

    LATE = "late"
    """Its request has ended already: it timed out or was cancelled."""
    DOUBLED = "doubled"
    """The same exchange has answered this id before."""
    FOREIGN = "foreign"
    """It names a request of another exchange, or one this session never made."""
    MISSING = "missing"
    """It names no request at all."""


class RequestIds:
    """Makes request ids that are unique and sort by time: milliseconds, a counter, then the maker's own mark.

    Args:
        mark: Random text that tells this maker from all others (at most 40 characters).
    """

    __slots__ = ("_counter", "_last", "_mark")

    def __init__(self, mark: str) -> None:
        if not 1 <= len(mark) <= 40:
            raise ValueError("the mark of a request id has 1 to 40 characters")
        self._mark = mark
        self._last = 0
        self._counter = 0

    def next(self, wall: float) -> str:
        """A new id; `wall` is wall-clock seconds. A clock that steps back does not repeat an id."""
        milliseconds = int(wall * 1000)
        if milliseconds > self._last:
            self._last = milliseconds
            self._counter = 0
        else:
            self._counter += 1
            if self._counter > _LAST_COUNT:
                # A seventh digit would sort before the sixth; a millisecond borrowed from the future does not.
                self._last += 1
                self._counter = 0
        return f"{self._last:011x}{self._counter:06x}-{self._mark}"


class PendingTable(Generic[E]):
    """The requests in flight: id (as text) to entry.

    Args:
        remember: How many finished ids are kept at least, to tell late answers from foreign ones. At most twice as
            many are held.
    """

    __slots__ = ("_entries", "_finished", "_finished_before", "_remember")

    def __init__(self, remember: int = 10_000) -> None:
        if remember < 1:
            raise ValueError(f"at least one finished id must be remembered, got {remember}")
        self._entries: dict[str, E] = {}
        self._remember = remember
        # Two generations instead of a queue: forgetting the older half costs nothing per message.
        self._finished: set[str] = set()
        self._finished_before: set[str] = set()

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[E]:
        """Each entry once, oldest claim first; a batch that claimed several ids counts as one."""
        # By identity: two requests that look alike are still two, and each of them is waited for.
        return iter({id(entry): entry for entry in self._entries.values()}.values())

    def __contains__(self, request_id: object) -> bool:
        return request_id in self._entries

    def claim(self, request_ids: Sequence[str], entry: E) -> None:
        """Enter one request, or the several of a batch: all of the ids, or none.

        Raises:
            LocalProtocolError: An id is empty, too long, given twice, or in flight already.
        """
        entries = self._entries
        for request_id in request_ids:
            if not 1 <= len(request_id) <= MAX_REQUEST_ID:
                raise LocalProtocolError(
                    f"a request id has 1 to {MAX_REQUEST_ID} characters, this one has {len(request_id)}"
                )
            if request_id in entries:
                raise LocalProtocolError(
                    f"request id {request_id!r} is in flight already: nothing was sent a second time; wait for the "
                    "outcome of the first, or give another message another id"
                )
        if len(request_ids) > 1 and len(set(request_ids)) != len(request_ids):
            raise LocalProtocolError("two requests of a batch have the same id")
        for request_id in request_ids:
            entries[request_id] = entry

    def release(self, request_ids: Iterable[str]) -> None:
        """Take requests out, on whichever path they ended; ids that are out already are ignored."""
        for request_id in request_ids:
            if request_id not in self._entries:
                continue
            del self._entries[request_id]
            self._finished.add(request_id)
            if len(self._finished) >= self._remember:
                self._finished_before = self._finished
                self._finished = set()

    def orphan(self, req_id: object, answered: Container[str]) -> OrphanKind:
        """Say why an answer fits none of the ids that its exchange still waits for.

        Args:
            req_id: The `reqId` as it came; compared as text.
            answered: The ids of the exchange that have had their answer.
        """
        if isinstance(req_id, bool) or not isinstance(req_id, (str, int)) or req_id == "":
            return OrphanKind.MISSING
        if isinstance(req_id, int) and abs(req_id) >= _TOO_LONG:
            # No id of ours, and Python refuses to print a number of more than 4,300 digits.
            return OrphanKind.FOREIGN
        text = str(req_id)
        if text in answered:
            return OrphanKind.DOUBLED
        # An id that was finished and claimed again belongs to the exchange it is in now.
        if text not in self._entries and (text in self._finished or text in self._finished_before):
            return OrphanKind.LATE
        return OrphanKind.FOREIGN

    def drain(self) -> list[E]:
        """Take everything out and return the entries, each once; idempotent."""
        entries = list(self)
        self.release(list(self._entries))
        return entries
