"""What a session counts."""

from __future__ import annotations

import attrs

__all__ = ["Counters"]


@attrs.define
class Counters:
    """Running totals. `accepted + refused + not_sent + unknown + cancelled` is the number of requests that ended.

    Attributes:
        requests: Requests admitted; a batch counts as one.
        attempts: Times a request was sent.
        retries: Attempts after the first.
        throttled: Answers with status 429.
        sequence_agrees, sequence_saw_more, sequence_saw_fewer: What the server's `sequence` counter said beside ours;
            meaningful where the server follows the documentation (it counts sends of the same request).
        orphans_late, orphans_doubled, orphans_foreign, orphans_missing: Answers that fit no request.
        dropped_chat_states: Chat states replaced by a newer one before they were sent.
    """

    requests: int = 0
    accepted: int = 0
    refused: int = 0
    not_sent: int = 0
    unknown: int = 0
    cancelled: int = 0
    attempts: int = 0
    retries: int = 0
    throttled: int = 0
    sequence_agrees: int = 0
    sequence_saw_more: int = 0
    sequence_saw_fewer: int = 0
    orphans_late: int = 0
    orphans_doubled: int = 0
    orphans_foreign: int = 0
    orphans_missing: int = 0
    dropped_chat_states: int = 0
