"""What a session tells about itself: frozen events, handed to plain callables.

    def on_event(event: hooks.Event) -> None:
        if isinstance(event, hooks.Throttled):
            metrics.gauge("connector.width", event.width)

    ConnectorSession(..., hooks=[on_event])

A hook is called in the event loop, at once, and must not block. One that fails costs a log line and nothing else.
Hooks tell about us; the router of webhooks tells about the cloud. No event holds a token or a message's text.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Literal

import attrs

from connector_async.errors import Landed, RequestError
from connector_async.protocol.correlation import OrphanKind
from connector_async.protocol.retry import Attempt

__all__ = [
    "AttemptFailed",
    "Drained",
    "Event",
    "Hook",
    "Hooks",
    "LoopSuspected",
    "Orphan",
    "RequestFinished",
    "Throttled",
    "TokenRefreshFailed",
    "TokenRefreshed",
]

logger = logging.getLogger("connector_async.hooks")


@attrs.frozen(kw_only=True)
class Event:
    """Base of all events."""


@attrs.frozen(kw_only=True)
class RequestFinished(Event):
    """A request ended, on whichever path.

    Attributes:
        outcome: `cancelled` when its caller was cancelled; `landed` then says what is known of it.
        duration: Seconds from admission to the end.
    """

    request_ids: tuple[str, ...]
    type: str
    outcome: Literal["accepted", "refused", "not_sent", "unknown", "cancelled"]
    landed: Landed
    attempts: tuple[Attempt, ...]
    duration: float
    error: RequestError | None = None


@attrs.frozen(kw_only=True)
class AttemptFailed(Event):
    """One send of a request failed; `wait` is the pause before the next, None if there is none."""

    request_ids: tuple[str, ...]
    type: str
    attempt: Attempt
    wait: float | None


@attrs.frozen(kw_only=True)
class TokenRefreshed(Event):
    """A new AppJWT is in use; `lifetime` in seconds."""

    generation: int
    lifetime: float


@attrs.frozen(kw_only=True)
class TokenRefreshFailed(Event):
    """The token service gave no AppJWT; the next try follows after `wait` seconds, or on demand if None."""

    cause: str
    wait: float | None


@attrs.frozen(kw_only=True)
class Throttled(Event):
    """The cloud said 429; `width` is how many requests may now be in flight."""

    width: int
    retry_after: float | None


@attrs.frozen(kw_only=True)
class Orphan(Event):
    """An answer that fits no request of its exchange; it was given to nobody."""

    kind: OrphanKind
    req_id: str | None


@attrs.frozen(kw_only=True)
class Drained(Event):
    """The session closed: requests that ended while it waited, and those it had to give up on.

    `unhandled` counts the events of webhooks that no handler has seen and no durable store keeps.
    """

    done: int
    unknown: int
    unsent: int
    unhandled: int
    seconds: float


@attrs.frozen(kw_only=True)
class LoopSuspected(Event):
    """Messages of one conversation come so fast that two bots may be answering each other; handling pauses."""

    conversation_id: str
    pause: float


Hook = Callable[[Event], object]


class Hooks:
    """The hooks of one session."""

    __slots__ = ("_hooks",)

    def __init__(self, hooks: Iterable[Hook] = ()) -> None:
        self._hooks = tuple(hooks)

    def __bool__(self) -> bool:
        """Whether anybody listens: events are not even made if not."""
        return bool(self._hooks)

    def emit(self, event: Event) -> None:
        """Tell every hook."""
        for hook in self._hooks:
            try:
                hook(event)
            except (Exception, asyncio.CancelledError):  # nothing is awaited here: it made that one up
                logger.exception("hook %r failed", hook, extra={"event": type(event).__name__})
