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

_LIMIT = 30  # messages of the brand's side in one conversation within the window: no person types so fast
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
        self._seen: OrderedDict[str, deque[tuple[float, object]]] = OrderedDict()

    async def __call__(
        self, incoming: Incoming[Any], call_next: Callable[[Incoming[Any]], Awaitable[object]]
    ) -> object:
        """Pass it on, perhaps later."""
        is_message = isinstance(incoming.event, (ContentEvent, RichContentEvent)) and not incoming.is_echo
        if is_message and self._is_too_fast(incoming.conversation_id, incoming.change):
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

    def _is_too_fast(self, conversation_id: str, change: object) -> bool:
        now = anyio.current_time()
        seen = self._seen.setdefault(conversation_id, deque(maxlen=_LIMIT))
        self._seen.move_to_end(conversation_id)
        if len(self._seen) > _MAX_CONVERSATIONS:
            self._seen.popitem(last=False)
        # An event passes here once for each handler that wants it.
        if seen and seen[-1][1] is change:
            return False
        seen.append((now, change))
        if len(seen) < _LIMIT or now - seen[0][0] > _WINDOW:
            return False
        seen.clear()
        return True
