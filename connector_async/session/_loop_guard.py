"""Two bots that answer each other never stop: the guard slows such a conversation down, and says so."""

from __future__ import annotations

import logging
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from typing import Any

import anyio

from connector_async import wire
from connector_async.hooks import Hooks, LoopSuspected
from connector_async.webhooks import Incoming
from connector_async.wire import ContentEvent, RichContentEvent

__all__ = ["LoopGuard"]

logger = logging.getLogger("connector_async.webhooks")

_LIMIT = 30  # messages of the brand's side in one conversation within the window,
_ANSWERS = 20  # and so many of ours between them: no two people write so fast
_WINDOW = 20.0
_PAUSE = 60.0
_MAX_CONVERSATIONS = 10_000
_MESSAGES = (ContentEvent, RichContentEvent)


class _Pace:
    """How fast the messages of one conversation come."""

    __slots__ = ("last", "seen")

    def __init__(self) -> None:
        self.last: object = None
        """Number and time of the last one. Not the message, unless it has neither: thousands would stay in memory."""
        self.seen: deque[tuple[float, int]] = deque(maxlen=_LIMIT)
        """When each was taken by the cloud, and how much we had said by then."""


class LoopGuard:
    """Middleware: pauses the handling of a conversation whose messages come faster than people write.

    Nothing is lost: what has come is handled after the pause, and in order.
    """

    __slots__ = ("_hooks", "_paces")

    def __init__(self, hooks: Hooks) -> None:
        self._hooks = hooks
        self._paces: OrderedDict[str, _Pace] = OrderedDict()

    def __call__(
        self, incoming: Incoming[Any], call_next: Callable[[Incoming[Any]], Awaitable[object]]
    ) -> Awaitable[object]:
        """Pass it on, perhaps later."""
        change = incoming.change
        if (
            isinstance(change, wire.MessagingEvent)
            and isinstance(change.event, _MESSAGES)
            and not incoming.is_echo
            and self._is_too_fast(incoming, change)
        ):
            return self._pass_later(incoming, call_next)
        return call_next(incoming)

    async def _pass_later(
        self, incoming: Incoming[Any], call_next: Callable[[Incoming[Any]], Awaitable[object]]
    ) -> object:
        logger.warning(
            "handlers of a conversation pause for %.0f s: %d messages came within %.0f s, the other side may be "
            "a bot that answers ours",
            _PAUSE,
            _LIMIT,
            _WINDOW,
            extra={"conversation_id": incoming.conversation_id},
        )
        if self._hooks:
            self._hooks.emit(LoopSuspected(conversation_id=incoming.conversation_id, pause=_PAUSE))
        await anyio.sleep(_PAUSE)
        return await call_next(incoming)

    def _is_too_fast(self, incoming: Incoming[Any], change: wire.MessagingEvent) -> bool:
        conversation_id = incoming.conversation_id
        pace = self._paces.get(conversation_id)
        if pace is None:
            pace = self._paces[conversation_id] = _Pace()
            if len(self._paces) > _MAX_CONVERSATIONS:
                self._paces.popitem(last=False)
        else:
            self._paces.move_to_end(conversation_id)
        stamp, seen = change.server_timestamp, pace.seen
        # An event passes here once for each handler that wants it, and again when it is tried again.
        mark = change if stamp is None and change.sequence is None else (change.sequence, stamp)
        last, pace.last = pace.last, mark
        if last is mark or (mark is not change and last == mark) or incoming.attempt > 1:
            return False
        # By the cloud's time: what was stored during an outage comes in a burst, but was not written in one.
        when = anyio.current_time() if stamp is None else stamp / 1000
        said = incoming.conversation.published
        seen.append((when, said))
        if len(seen) < _LIMIT or when - seen[0][0] > _WINDOW or said - seen[0][1] < _ANSWERS:
            return False
        seen.clear()
        return True
