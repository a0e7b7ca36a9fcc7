"""What a session shows of itself."""

from __future__ import annotations

from typing import Any

import attrs

__all__ = ["Health", "SessionStats"]


@attrs.frozen(kw_only=True)
class SessionStats:
    """Totals since the session was entered, and gauges of this moment.

    `accepted + refused + not_sent + unknown + cancelled + in_flight` is `requests`, where a batch counts as one.

    Attributes:
        requests: Requests admitted.
        accepted: Answered with the cloud's OK.
        refused: Answered with its no.
        not_sent: Ended without having reached the cloud; safe to send again.
        unknown: Sent, and no usable answer came.
        cancelled: Their caller was cancelled.
        attempts: Times a request was sent; `retries` of them were not the first.
        throttled: Answers with status 429.
        sequence_agrees, sequence_saw_more, sequence_saw_fewer: What the server's `sequence` said beside our own
            counter: the same, more sends than we made (something doubled them), fewer (some were lost). Meaningful
            where the server follows the documentation.
        orphans_late, orphans_doubled, orphans_foreign, orphans_missing: Answers that fit no request.
        dropped_chat_states: Chat states replaced by a newer one before they were sent.
        tokens_fetched, consumer_tokens_fetched: AppJWT and ConsumerJWS fetched.
        in_flight: Requests under way: queued, sending, or between two attempts.
        queued: Those of them that wait for their turn.
        width: How many may be sent at once at present.
        retry_budget: What is left of it.
    """

    requests: int
    accepted: int
    refused: int
    not_sent: int
    unknown: int
    cancelled: int
    attempts: int
    retries: int
    throttled: int
    sequence_agrees: int
    sequence_saw_more: int
    sequence_saw_fewer: int
    orphans_late: int
    orphans_doubled: int
    orphans_foreign: int
    orphans_missing: int
    dropped_chat_states: int
    tokens_fetched: int
    consumer_tokens_fetched: int
    in_flight: int
    queued: int
    width: int
    retry_budget: int

    def as_dict(self) -> dict[str, Any]:
        """The same as a plain dict."""
        return attrs.asdict(self)


@attrs.frozen(kw_only=True)
class Health:
    """How a session is.

    Attributes:
        live: It is entered and not closed.
        ready: Nothing known keeps a request from being sent.
        problems: One clause for each thing that is wrong.
    """

    live: bool
    ready: bool
    problems: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The same as a plain dict."""
        return attrs.asdict(self)
