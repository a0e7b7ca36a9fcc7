"""What reached the sandbox, in order: the oracle from which loss, doubling and order are counted.

The ledger knows nothing of HTTP. An entry is opened for every envelope that reaches the application and is completed
when its fate is known; what an entry says is what happened, whatever the client was told.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

import attrs

__all__ = ["Ledger", "LedgerEntry"]


@attrs.define(eq=False)
class LedgerEntry:
    """One arrival of one envelope.

    Attributes:
        number: The arrival number, counted over the whole sandbox from 1.
        count: The how-manieth arrival of this request id.
        generation: The generation of the AppJWT it carried, 0 where that was missing or never given out.
        applied: Whether it had its effect.
        status: The HTTP status that was sent, or None when no answer was.
        code: The envelope's code in the answer.
        fault: The name of the scripted fault that met it.
        at: Wall-clock seconds of the arrival.
    """

    number: int
    request_id: str
    count: int
    endpoint: str
    account_id: str
    type: str
    dialog_id: str | None
    consumer: str | None
    generation: int
    at: float
    applied: bool = False
    status: int | None = None
    code: str | None = None
    fault: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The entry as a JSON object."""
        return attrs.asdict(self)


@attrs.define(eq=False)
class Ledger:
    """All entries, and counts of the calls that carry no envelope.

    Attributes:
        entries: The entries in order of arrival, the newest `limit` of them.
        calls: How often each endpoint was called, by name: `domain`, `token`, `consumer`, `conversation`, `send`,
            `upload`, `download`.
        forgotten: How many entries were dropped because of `limit`.
    """

    limit: int = 2_000_000
    entries: list[LedgerEntry] = attrs.field(init=False, factory=list[LedgerEntry])
    calls: Counter[str] = attrs.field(init=False, factory=Counter[str])
    forgotten: int = attrs.field(init=False, default=0)
    _counts: dict[tuple[str, str], int] = attrs.field(init=False, factory=dict[tuple[str, str], int])
    _arrivals: int = attrs.field(init=False, default=0)

    def arrive(
        self,
        *,
        endpoint: str,
        account_id: str,
        request_id: str,
        type: str,  # noqa: A002 - the API's word
        dialog_id: str | None,
        consumer: str | None,
        generation: int,
        at: float,
    ) -> LedgerEntry:
        """Open the entry of an envelope that has just arrived."""
        key = (account_id, request_id)
        self._counts[key] = count = self._counts.get(key, 0) + 1
        self._arrivals += 1
        entry = LedgerEntry(
            self._arrivals, request_id, count, endpoint, account_id, type, dialog_id, consumer, generation, at
        )
        self.entries.append(entry)
        if len(self.entries) > self.limit:
            self._forget_oldest()
        return entry

    def _forget_oldest(self) -> None:
        dropped = max(1, self.limit // 10)  # in slices, since deleting at the front moves all the rest
        del self.entries[:dropped]
        self.forgotten += dropped

    @property
    def token_calls(self) -> int:
        """How often the token endpoint (Sentinel) was called, failures included."""
        return self.calls["token"]

    @property
    def consumer_calls(self) -> int:
        """How often the consumer endpoint (IDP) was called, failures included."""
        return self.calls["consumer"]

    @property
    def domain_calls(self) -> int:
        """How often the Domain API was called, failures included."""
        return self.calls["domain"]

    def arrivals(self, request_id: str) -> int:
        """How often a request id arrived, whatever came of it."""
        return sum(entry.request_id == request_id for entry in self.entries)

    def applied(self, request_id: str) -> int:
        """How often a request id had its effect: 0 is lost, more than 1 is doubled."""
        return sum(entry.applied for entry in self.entries if entry.request_id == request_id)

    def applied_counts(self, type: str | None = None) -> Counter[str]:  # noqa: A002 - the API's word
        """For each request id, how often it had its effect; ids without effect stand with 0."""
        counts: Counter[str] = Counter()
        for entry in self.entries:
            if type is None or entry.type == type:
                counts[entry.request_id] += entry.applied
        return counts

    def doubled(self, type: str | None = None) -> dict[str, int]:  # noqa: A002 - the API's word
        """The request ids that had their effect more than once, with how often."""
        return {key: count for key, count in self.applied_counts(type).items() if count > 1}

    def lost(self, request_ids: Iterable[str]) -> list[str]:
        """Those of the given ids that never had their effect."""
        counts = self.applied_counts()
        return [request_id for request_id in request_ids if not counts[request_id]]

    def order(self, dialog_id: str, type: str = "ms.PublishEvent") -> list[str]:  # noqa: A002 - the API's word
        """The request ids that had their effect in a dialog, in that order."""
        return [e.request_id for e in self.entries if e.applied and e.dialog_id == dialog_id and e.type == type]

    def orders(self, type: str = "ms.PublishEvent") -> dict[str, list[str]]:  # noqa: A002 - the API's word
        """`order()` of every dialog in one pass."""
        orders: defaultdict[str, list[str]] = defaultdict(list)
        for entry in self.entries:
            if entry.applied and entry.dialog_id is not None and entry.type == type:
                orders[entry.dialog_id].append(entry.request_id)
        return dict(orders)

    def summary(self) -> dict[str, Any]:
        """The totals as a JSON object."""
        statuses = Counter("none" if entry.status is None else str(entry.status) for entry in self.entries)
        types = Counter(entry.type for entry in self.entries if entry.applied)
        return {
            "arrivals": self._arrivals,
            "applied": sum(entry.applied for entry in self.entries),
            "applied_by_type": dict(types),
            "doubled": len(self.doubled()),
            "requests": len(self._counts),
            "repeated": sum(count > 1 for count in self._counts.values()),
            "statuses": dict(statuses),
            "faults": dict(Counter(entry.fault for entry in self.entries if entry.fault)),
            "calls": dict(self.calls),
            "forgotten": self.forgotten,
        }

    def clear(self) -> None:
        """Forget everything; arrival numbers go on."""
        self.entries.clear()
        self.calls.clear()
        self._counts.clear()
        self.forgotten = 0
