"""What happens in one conversation, for whoever waits for it there and then."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Generator, Iterable
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Self
from weakref import WeakSet

import anyio

from connector_async._arguments import kind_of
from connector_async.errors import SessionClosed

if TYPE_CHECKING:
    from connector_async.webhooks import Incoming

__all__ = ["Feed", "Hearing", "Listener", "check_event_types", "handled", "task_here"]

Waiting = Callable[[], AbstractContextManager[None]]
"""`Hearing.waiting` of one conversation."""

_MAX_WAITING = 1_000  # events that an iterator may lag behind; of more, the oldest are dropped


handled: ContextVar[tuple[object, str] | None] = ContextVar("connector_async_handled", default=None)
"""The task that runs a handler, and the conversation whose next event comes after it."""


def check_event_types(name: str, values: Iterable[object]) -> None:
    """Nothing but classes that an event may have, or a base of theirs.

    Raises:
        TypeError: One is none; left alone, it would be found out by `isinstance`, far away and for each event anew,
            or never, of a class that no event has.
    """
    for value in values:
        if not _is_event_type(value):
            raise TypeError(f"{name} must be classes of events, such as ContentEvent, not {kind_of(value)}")


def _is_event_type(value: object) -> bool:
    from connector_async.wire import ConversationChange, Event  # who hears nothing does not load them

    kinds = (Event, ConversationChange)
    return isinstance(value, type) and (issubclass(value, kinds) or any(value in kind.__mro__ for kind in kinds))


def task_here() -> object:
    """The task that runs, whichever loop it is in."""
    try:
        task = asyncio.current_task()
    except RuntimeError:
        task = None
    return anyio.get_current_task().id if task is None else task


class Hearing:
    """Everybody in one session who waits for what webhooks bring: when the session ends, nothing more will come."""

    __slots__ = ("_ended", "_scopes")

    def __init__(self) -> None:
        self._ended = False
        self._scopes: set[anyio.CancelScope] = set()

    @contextmanager
    def waiting(self, conversation_id: str) -> Generator[None]:
        """Wait inside for something in this conversation; the end of the session ends it.

        Raises:
            SessionClosed: The session has closed, or closes while the block waits.
            RuntimeError: A handler of the conversation would wait for what is handled after it.
        """
        handling = handled.get()
        # A task that a handler has started inherits the note, and may wait.
        if handling is not None and handling[1] == conversation_id and handling[0] == task_here():
            raise RuntimeError(
                "a handler cannot wait for what comes next in its conversation: events are handled one after the "
                "other, so it would come after the handler; start a task and wait there"
            )
        if self._ended:
            raise SessionClosed(_NOTHING_COMES, hint=_HOW_TO_HEAR)
        scope = anyio.CancelScope()
        self._scopes.add(scope)
        try:
            with scope:
                yield
        finally:
            self._scopes.discard(scope)
        if scope.cancelled_caught:
            raise SessionClosed(_NOTHING_COMES, hint=_HOW_TO_HEAR)

    def end(self) -> None:
        """Let all go with SessionClosed; idempotent."""
        self._ended = True
        for scope in tuple(self._scopes):
            scope.cancel()


_NOTHING_COMES = "the session closed, and no webhook reaches it any more"
_HOW_TO_HEAR = "wait inside the block of the session"


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

    def listen(self, wants: Callable[[Incoming[Any]], bool], waiting: Waiting) -> Listener:
        """What is wanted, from this call on, as it happens."""
        listener = Listener(wants, waiting)
        self._listeners.add(listener)
        return listener


class Listener:
    """An iterator over events; those that nobody takes are kept, up to a bound. Ends with SessionClosed."""

    __slots__ = ("__weakref__", "_come", "_news", "_waiting", "wants")

    def __init__(self, wants: Callable[[Incoming[Any]], bool], waiting: Waiting) -> None:
        self.wants = wants
        self._waiting = waiting
        self._come: deque[Incoming[Any]] = deque(maxlen=_MAX_WAITING)
        self._news = anyio.Event()

    def take(self, incoming: Incoming[Any]) -> None:
        """Keep it for whoever iterates."""
        self._come.append(incoming)
        self._news.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Incoming[Any]:
        while not self._come:
            self._news = anyio.Event()
            with self._waiting():
                await self._news.wait()
        return self._come.popleft()
