"""How the webhooks of one session behave, and what they have counted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import attrs

__all__ = ["Ack", "WebhookSettings", "WebhookStats"]

Ack = Literal["queued", "stored", "handled"]
"""When a delivery is answered with 200: in the queue, in the store, or when its handlers are done."""

_AT_LEAST_ONE = attrs.validators.ge(1)
_POSITIVE = attrs.validators.gt(0.0)
_NOT_NEGATIVE = attrs.validators.ge(0.0)


@attrs.frozen(kw_only=True)
class WebhookSettings:
    """Limits and patience.

    Attributes:
        max_handlers: How many conversations are handled at once.
        max_queue: How many events wait in memory; beyond that the store takes them, or the vendor has to try again.
        reorder_window: How many events of one dialog wait for those before them.
        gap_timeout: Seconds that they wait. 0 keeps no order but that of arrival.
        max_dialogs: How many dialogs are remembered for order and doubles.
        max_attempts: How often an event of a durable store is handled before it is given up.
        retry_pause: Seconds before the second time; doubled for each further one, up to `max_retry_pause`.
        max_retry_pause: Seconds.
        lease: Seconds after which another worker takes over from one that has died.
        poll_interval: Seconds between two looks into the store for what others left.
        handled_timeout: Seconds that an answer with `ack="handled"` waits for the handlers. The vendor's patience
            is 5, and 2.5 over two minutes may disable the app.
        handler_timeout: Seconds after which a handler is cancelled and counts as failed; None: never.
    """

    max_handlers: int = attrs.field(default=256, validator=_AT_LEAST_ONE)
    max_queue: int = attrs.field(default=10_000, validator=_AT_LEAST_ONE)
    reorder_window: int = attrs.field(default=32, validator=_AT_LEAST_ONE)
    gap_timeout: float = attrs.field(default=1.0, validator=_NOT_NEGATIVE)
    max_dialogs: int = attrs.field(default=50_000, validator=_AT_LEAST_ONE)
    max_attempts: int = attrs.field(default=5, validator=_AT_LEAST_ONE)
    retry_pause: float = attrs.field(default=1.0, validator=_NOT_NEGATIVE)
    max_retry_pause: float = attrs.field(default=300.0, validator=_NOT_NEGATIVE)
    lease: float = attrs.field(default=60.0, validator=_POSITIVE)
    poll_interval: float = attrs.field(default=1.0, validator=_POSITIVE)
    handled_timeout: float = attrs.field(default=2.0, validator=_POSITIVE)
    handler_timeout: float | None = 600.0

    def retry_wait(self, attempt: int) -> float:
        """Seconds to wait after an attempt that failed."""
        # The exponent is capped: 2.0 ** 1024 would overflow, and the pause is capped long before.
        return min(self.retry_pause * 2.0 ** min(attempt - 1, 30), self.max_retry_pause)


@attrs.define
class WebhookStats:
    """Counters since the session began, and gauges of this moment.

    Attributes:
        received: Events of genuine deliveries.
        refused: Deliveries answered with an error.
        handled: Events that went through, with or without a handler.
        duplicates: Events dropped because they had come before.
        outdated: Conversation changes dropped because a newer one had come.
        echoes: Events that our own sends caused.
        unclaimed: Events of conversations that no store knows.
        unroutable: Notifications of types that are neither events nor conversation changes.
        unreadable: Genuine deliveries that are no notification, kept aside by a durable store (`dead`); without one
            they are refused.
        shed: Chat states dropped because the queue was full.
        busy: Events left to the vendor to deliver again.
        gaps: Events handed out with numbers missing before them.
        late: Events handed out after later ones.
        failed: Times that a handler failed.
        dead: Events given up.
        waiting: Events in memory now, those at work included.
        held: Events that wait now for those before them.
    """

    received: int = 0
    refused: int = 0
    handled: int = 0
    duplicates: int = 0
    outdated: int = 0
    echoes: int = 0
    unclaimed: int = 0
    unroutable: int = 0
    unreadable: int = 0
    shed: int = 0
    busy: int = 0
    gaps: int = 0
    late: int = 0
    failed: int = 0
    dead: int = 0
    waiting: int = 0
    held: int = 0

    def as_dict(self) -> Mapping[str, int]:
        """For metrics."""
        return attrs.asdict(self)
