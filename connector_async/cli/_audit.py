"""Whether the sandbox's ledger and the session's own numbers agree, message by message.

The ledger is an oracle: it knows what arrived and had its effect, whatever the client was told. It is read over HTTP,
from the sandbox's admin API, so that nothing but what both sides wrote down is compared.
"""

from __future__ import annotations

import json
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from connector_async.cli._crowd import Fate, Tally

__all__ = ["Audit", "Recorded", "audit", "read_ledger"]

_EVERYTHING = 2_000_000  # the ledger keeps no more entries than these
_MESSAGE = "ms.PublishEvent"


@attrs.frozen(kw_only=True)
class Recorded:
    """One message in the ledger: the status of each answer (None: none was sent), and how often it had its effect."""

    statuses: tuple[int | None, ...]
    applied: int


@attrs.frozen(kw_only=True)
class Audit:
    """The ledger's numbers, and where they contradict the session's.

    Attributes:
        messages: Messages that arrived at least once.
        arrivals: How often messages arrived in all.
        applied: Messages that had their effect.
        doubled: Messages that had it more than once.
        unknown_landed, unknown_lost: What became of those whose outcome the session does not know.
        token_calls: How often the token endpoint was called.
        faults: How often each fault hit a message.
        contradictions: One sentence each; none if both sides agree to the unit.
    """

    messages: int
    arrivals: int
    applied: int
    doubled: int
    unknown_landed: int
    unknown_lost: int
    token_calls: int
    faults: Mapping[str, int]
    contradictions: tuple[str, ...]

    @property
    def agrees(self) -> bool:
        """Whether nothing contradicts."""
        return not self.contradictions

    def as_json(self) -> dict[str, Any]:
        """The numbers as a JSON object."""
        return attrs.asdict(self, filter=attrs.filters.exclude("contradictions")) | {"faults": dict(self.faults)}


def read_ledger(url: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The entries and the totals of the sandbox at `url`."""
    # Not through a proxy: the sandbox is on this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def get(path: str) -> dict[str, Any]:
        with opener.open(f"{url}/sandbox/ledger{path}", timeout=30) as answer:
            result: dict[str, Any] = json.load(answer)
            return result

    return get(f"?entries={_EVERYTHING}")["entries"], get("")


def audit(tally: Tally, entries: Iterable[Mapping[str, Any]], totals: Mapping[str, Any]) -> Audit:
    """Compare what the crowd was told with what the ledger holds.

    Args:
        tally: What the crowd was told.
        entries: The ledger's entries in order of arrival.
        totals: The ledger's summary.
    """
    messages = [entry for entry in entries if entry["type"] == _MESSAGE]
    recorded = _by_message(messages)
    unknown = [request_id for request_id, fate in tally.fates.items() if fate.status == "unknown"]
    landed = sum(request_id in recorded and recorded[request_id].applied > 0 for request_id in unknown)
    contradictions = list(_contradictions(tally.fates, recorded))
    if totals["forgotten"]:
        contradictions.append(f"the ledger has forgotten {totals['forgotten']} entries")
    return Audit(
        messages=len(recorded),
        arrivals=len(messages),
        applied=sum(record.applied > 0 for record in recorded.values()),
        doubled=sum(record.applied > 1 for record in recorded.values()),
        unknown_landed=landed,
        unknown_lost=len(unknown) - landed,
        token_calls=totals["calls"].get("token", 0),
        faults=Counter(entry["fault"] for entry in messages if entry["fault"]),
        contradictions=tuple(contradictions),
    )


def _by_message(entries: Iterable[Mapping[str, Any]]) -> dict[str, Recorded]:
    statuses: defaultdict[str, list[int | None]] = defaultdict(list)
    applied: Counter[str] = Counter()
    for entry in entries:
        statuses[entry["request_id"]].append(entry["status"])
        applied[entry["request_id"]] += entry["applied"]
    return {key: Recorded(statuses=tuple(value), applied=applied[key]) for key, value in statuses.items()}


def _contradictions(fates: Mapping[str, Fate], recorded: Mapping[str, Recorded]) -> Iterable[str]:
    strangers = recorded.keys() - fates.keys()
    if strangers:
        yield f"{len(strangers)} messages arrived that the session does not know, such as {min(strangers)}"
    nothing = Recorded(statuses=(), applied=0)
    for request_id, fate in fates.items():
        reason = _contradiction(fate, recorded.get(request_id, nothing))
        if reason:
            yield f"message {request_id}: {reason}"


def _contradiction(fate: Fate, record: Recorded) -> str | None:
    # An attempt that met a fault before its answer has the status None on either side.
    told = tuple(attempt.status for attempt in fate.attempts)
    if told != record.statuses:
        return f"sent {len(told)} times with the answers {told}, but the ledger has {record.statuses}"
    if fate.status == "accepted" and not record.applied:
        return "accepted, but without effect"
    if fate.status in {"refused", "not_sent"} and record.applied:
        return f"{fate.status.replace('_', ' ')}, but it had its effect"
    if record.applied > 1 and not (fate.maybe_duplicate or fate.status == "unknown"):
        return f"took effect {record.applied} times without a word about it"
    return None
