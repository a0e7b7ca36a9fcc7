"""What a pump says of itself and of its outbox."""

from __future__ import annotations

from typing import Any

import attrs

from connector_async.store.outbox import OutboxCounts, OutboxEntry

__all__ = ["PumpReport", "PumpStats"]


@attrs.define(kw_only=True)
class PumpStats:
    """Counters of one pump since it was entered, and two gauges. What `Pump.stats` gives is a copy of that moment.

    Attributes:
        put: Messages that were added to the outbox through this pump.
        claimed: Messages it took on.
        sent: Deliveries begun, those of the same message again included.
        accepted: Messages the cloud said OK to.
        refused: Messages that can never succeed as they are.
        not_sent: Messages given up without having landed.
        unknown: Messages that may have landed and are left.
        maybe_duplicate: Accepted ones that may have landed twice.
        retried: Times that a message was put off, to be sent again.
        reopened: Conversations opened because one turned out to be closed.
        released: Messages given back unsent.
        lease_lost: Ends that could not be written down because another pump had the lane by then.
        store_failures: Calls of the outbox that failed.
        in_flight: Messages under way.
        unwritten: Ends that wait for being written down.
    """

    put: int = 0
    claimed: int = 0
    sent: int = 0
    accepted: int = 0
    refused: int = 0
    not_sent: int = 0
    unknown: int = 0
    maybe_duplicate: int = 0
    retried: int = 0
    reopened: int = 0
    released: int = 0
    lease_lost: int = 0
    store_failures: int = 0
    in_flight: int = 0
    unwritten: int = 0


@attrs.frozen(kw_only=True)
class PumpReport:
    """How it stands, over the whole outbox of the account.

    Attributes:
        counts: How many messages are where, whoever sent them; as last known while `store_failure` is set.
        exceptions: Messages that ended refused, not sent or unknown, and accepted ones that may have landed twice.
        has_more_exceptions: There are more of them than were asked for.
        stats: What this pump did.
        store_failure: Why the outbox cannot be used at the moment; None if it can.
    """

    counts: OutboxCounts
    exceptions: tuple[OutboxEntry, ...] = ()
    has_more_exceptions: bool = False
    stats: PumpStats = attrs.field(factory=PumpStats)
    store_failure: str | None = None

    @property
    def oldest_age(self) -> float | None:
        """Seconds since the oldest unsettled message was put."""
        return self.counts.oldest_age

    @property
    def sent(self) -> int:
        """Deliveries that this pump began."""
        return self.stats.sent

    @property
    def lease_lost(self) -> int:
        """Ends that this pump could not write down because another had the lane by then."""
        return self.stats.lease_lost

    @property
    def reopened(self) -> int:
        """Conversations that this pump opened because one turned out to be closed."""
        return self.stats.reopened

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; no message text."""
        return {
            "counts": {**attrs.asdict(self.counts), "unsettled": self.counts.unsettled},
            "oldest_age": self.oldest_age,
            "exceptions": [_entry(entry) for entry in self.exceptions],
            "has_more_exceptions": self.has_more_exceptions,
            "store_failure": self.store_failure,
            "stats": attrs.asdict(self.stats),
        }


def _entry(entry: OutboxEntry) -> dict[str, Any]:
    return {
        "id": entry.message.id,
        "consumer": entry.message.consumer,
        "request_id": entry.message.request_id,
        "state": entry.state.value,
        "attempts": entry.attempts,
        "sequence": entry.sequence,
        "conversation_id": entry.conversation_id,
        "reason": entry.reason,
        "maybe_duplicate": entry.maybe_duplicate,
        "put_at": entry.put_at,
        "settled_at": entry.settled_at,
    }
