"""Two bots that answer each other never stop: the guard slows such a conversation down, and says so."""

from __future__ import annotations

import logging
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from typing import Any

import anyio

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


class LoopGuard:
    """Middleware: pauses the handling of a conversation whose messages come faster than people write.

    Nothing is lost: what has come is handled after the pause, and in order.
    """

    __slots__ = ("_hooks", "_seen")

    def __init__(self, hooks: Hooks) -> None:
        self._hooks = hooks
        # When it was taken by the cloud, how much we had said by then, and the event itself.
        self._seen: OrderedDict[str, deque[tuple[float, int, object]]] = OrderedDict()

    async def __call__(
        self, incoming: Incoming[Any], call_next: Callable[[Incoming[Any]], Awaitable[object]]
    ) -> object:
        """Pass it on, perhaps later."""
        is_message = isinstance(incoming.event, (ContentEvent, RichContentEvent)) and not incoming.is_echo
        if is_message and self._is_too_fast(incoming):
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

    def _is_too_fast(self, incoming: Incoming[Any]) -> bool:
        seen = self._seen.get(incoming.conversation_id)
        if seen is None:
            seen = self._seen[incoming.conversation_id] = deque(maxlen=_LIMIT)
        self._seen.move_to_end(incoming.conversation_id)
        if len(self._seen) > _MAX_CONVERSATIONS:
            self._seen.popitem(last=False)
        # An event passes here once for each handler that wants it.
        if seen and seen[-1][2] is incoming.change:
            return False
        # By the cloud's time: what was stored during an outage comes in a burst, but was not written in one.
        sent_at = incoming.sent_at
        when = anyio.current_time() if sent_at is None else sent_at.timestamp()
        said = incoming.conversation.published
        seen.append((when, said, incoming.change))
        if len(seen) < _LIMIT or when - seen[0][0] > _WINDOW or said - seen[0][1] < _ANSWERS:
            return False
        seen.clear()
        return True
