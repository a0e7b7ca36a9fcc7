"""What happens in one conversation, for whoever waits for it there and then."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self
from weakref import WeakSet

import anyio

if TYPE_CHECKING:
    from connector_async.webhooks import Incoming

__all__ = ["Feed", "Listener"]

_MAX_WAITING = 1_000  # events that an iterator may lag behind; of more, the oldest are dropped


class Feed:
    """The listeners of one conversation; one that nobody holds any more is gone by itself."""

    __slots__ = ("_listeners",)

    def __init__(self) -> None:
        self._listeners: WeakSet[Listener] = WeakSet()

    def tell(self, incoming: Incoming[Any]) -> bool:
        """Something happened; whether anybody was waiting for it."""
        takers = [listener for listener in self._listeners if listener.wants(incoming)]
        for listener in takers:
            listener.take(incoming)
        return bool(takers)

    def listen(self, wants: Callable[[Incoming[Any]], bool]) -> Listener:
        """What is wanted, from this call on, as it happens."""
        listener = Listener(wants)
        self._listeners.add(listener)
        return listener


class Listener:
    """An endless iterator over events; those that nobody takes are kept, up to a bound."""

    __slots__ = ("__weakref__", "_news", "_waiting", "wants")

    def __init__(self, wants: Callable[[Incoming[Any]], bool]) -> None:
        self.wants = wants
        self._waiting: deque[Incoming[Any]] = deque(maxlen=_MAX_WAITING)
        self._news = anyio.Event()

    def take(self, incoming: Incoming[Any]) -> None:
        """Keep it for whoever iterates."""
        self._waiting.append(incoming)
        self._news.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Incoming[Any]:
        while not self._waiting:
            self._news = anyio.Event()
            await self._news.wait()
        return self._waiting.popleft()
