"""What the webhooks tell the hooks of a session. No event holds a message's text."""

from __future__ import annotations

import attrs

from connector_async.hooks import Event

__all__ = [
    "AnswersSlow",
    "DeliveryDead",
    "DeliveryRefused",
    "DeliveryShed",
    "HandlerFailed",
    "OrderGap",
    "PreviousSecretNeeded",
]


@attrs.frozen(kw_only=True)
class DeliveryRefused(Event):
    """A delivery was answered with an error; `reason` is for people: its kind, and why a signature does not fit."""

    status: int
    reason: str


@attrs.frozen(kw_only=True)
class PreviousSecretNeeded(Event):
    """A delivery was signed with an old secret: it cannot go yet."""

    account_id: str
    client_id: str


@attrs.frozen(kw_only=True)
class DeliveryShed(Event):
    """The queue is full: an event was dropped (a chat state), or left to the vendor to deliver again (others)."""

    conversation_id: str
    is_lost: bool


@attrs.frozen(kw_only=True)
class HandlerFailed(Event):
    """A handler raised; `wait`: seconds until it is tried again, None if it is not."""

    conversation_id: str
    handler: str
    attempt: int
    error: Exception
    wait: float | None


@attrs.frozen(kw_only=True)
class DeliveryDead(Event):
    """An event was given up after `attempts`; the durable store keeps it aside (`Store.dead_deliveries`)."""

    conversation_id: str
    key: str
    attempts: int
    reason: str


@attrs.frozen(kw_only=True)
class OrderGap(Event):
    """An event was handed out although numbers before it are missing."""

    conversation_id: str
    dialog_id: str
    sequence: int


@attrs.frozen(kw_only=True)
class AnswersSlow(Event):
    """Deliveries are answered slowly; at 2.5 s over 2 minutes the vendor may disable the app.

    Attributes:
        mean: Seconds, over the last `window` seconds.
    """

    mean: float
    window: float
