"""Which handlers an event goes to. Made at module level: it holds no secret, no loop and no account."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterator
from typing import Any, TypeVar, overload
from weakref import WeakSet

import attrs

from connector_async._arguments import check_async, check_kind
from connector_async._feed import check_event_types
from connector_async.webhooks.incoming import Incoming, Unclaimed
from connector_async.wire import MessageAudience

__all__ = ["Bound", "ErrorHandler", "Handler", "Middleware", "Router", "UnclaimedHandler"]

E = TypeVar("E")
E2 = TypeVar("E2")
E3 = TypeVar("E3")
F = TypeVar("F", bound=Callable[..., Any])

Handler = Callable[[Incoming[E]], Awaitable[object]]
Decorator = Callable[[Handler[E]], Handler[E]]
CallNext = Callable[[Incoming[Any]], Awaitable[object]]
Middleware = Callable[[Incoming[Any], CallNext], Awaitable[object]]
ErrorHandler = Callable[[Incoming[Any], Exception], Awaitable[object]]
UnclaimedHandler = Callable[[Unclaimed], Awaitable[str | None]]
Predicate = Callable[[Incoming[Any]], bool]


def _as_set(value: str | Collection[str] | None) -> frozenset[str] | None:
    if value is None:
        return None
    return frozenset([str(value)] if isinstance(value, str) else map(str, value))


@attrs.frozen(kw_only=True, eq=False)
class _Route:
    """One handler and what it asked for; None stands for no condition."""

    handler: Handler[Any]
    event_types: tuple[type, ...]
    roles: frozenset[str] | None = attrs.field(converter=_as_set)
    dialog_types: frozenset[str] | None = attrs.field(converter=_as_set)
    conversation_ids: frozenset[str] | None = attrs.field(converter=_as_set)
    audiences: frozenset[str] | None = attrs.field(converter=_as_set)
    when: Predicate | None

    def wants(self, incoming: Incoming[Any]) -> bool:
        if self.event_types and not isinstance(incoming.event, self.event_types):
            return False
        if self.roles is None:
            if incoming.is_echo:
                return False
        elif incoming.role not in self.roles:
            return False
        return (
            (self.audiences is None or incoming.audience in self.audiences)
            and (self.dialog_types is None or incoming.dialog_type in self.dialog_types)
            and (self.conversation_ids is None or incoming.conversation_id in self.conversation_ids)
            and (self.when is None or self.when(incoming))
        )


@attrs.frozen(eq=False)
class Bound:
    """A handler with its middleware around it, and who hears of its failure."""

    handler: Handler[Any]
    call: CallNext
    error_handlers: tuple[ErrorHandler, ...]

    @property
    def name(self) -> str:
        """The handler's name for the log."""
        return getattr(self.handler, "__qualname__", repr(self.handler))


@attrs.define(eq=False, repr=False)
class Router:
    """Handlers of events, and what stands around them.

        router = Router()

        @router.on(ContentEvent)
        async def answer(message: Incoming[ContentEvent]) -> None:
            await message.reply("…")

    An event goes to every handler that wants it, one after the other, in the order in which they were added. The
    events of one conversation are handled one at a time and in order, those of different conversations at once.
    """

    _routes: list[_Route | Router] = attrs.field(factory=list["_Route | Router"], init=False)
    _middleware: list[Middleware] = attrs.field(factory=list[Middleware], init=False)
    _error_handlers: list[ErrorHandler] = attrs.field(factory=list[ErrorHandler], init=False)
    _unclaimed_handlers: list[UnclaimedHandler] = attrs.field(factory=list[UnclaimedHandler], init=False)
    _included_by: WeakSet[Router] = attrs.field(factory=WeakSet["Router"], init=False)
    _plan: list[tuple[_Route, Bound]] | None = attrs.field(default=None, init=False)
    """All routes, those of included routers too, with what stands around them; None: to be made anew."""

    @overload
    def on(
        self,
        event_type: type[E],
        /,
        *,
        role: str | Collection[str] | None = None,
        dialog_type: str | Collection[str] | None = None,
        conversation_id: str | Collection[str] | None = None,
        audience: str | Collection[str] | None = MessageAudience.ALL,
        when: Callable[[Incoming[E]], bool] | None = None,
    ) -> Decorator[E]: ...
    @overload
    def on(
        self,
        event_type: type[E],
        other: type[E2],
        /,
        *,
        role: str | Collection[str] | None = None,
        dialog_type: str | Collection[str] | None = None,
        conversation_id: str | Collection[str] | None = None,
        audience: str | Collection[str] | None = MessageAudience.ALL,
        when: Callable[[Incoming[E | E2]], bool] | None = None,
    ) -> Decorator[E | E2]: ...
    @overload
    def on(
        self,
        event_type: type[E],
        other: type[E2],
        third: type[E3],
        /,
        *,
        role: str | Collection[str] | None = None,
        dialog_type: str | Collection[str] | None = None,
        conversation_id: str | Collection[str] | None = None,
        audience: str | Collection[str] | None = MessageAudience.ALL,
        when: Callable[[Incoming[E | E2 | E3]], bool] | None = None,
    ) -> Decorator[E | E2 | E3]: ...
    @overload
    def on(
        self,
        *event_types: type,
        role: str | Collection[str] | None = None,
        dialog_type: str | Collection[str] | None = None,
        conversation_id: str | Collection[str] | None = None,
        audience: str | Collection[str] | None = MessageAudience.ALL,
        when: Callable[[Incoming[Any]], bool] | None = None,
    ) -> Decorator[Any]: ...
    def on(
        self,
        *event_types: type,
        role: str | Collection[str] | None = None,
        dialog_type: str | Collection[str] | None = None,
        conversation_id: str | Collection[str] | None = None,
        audience: str | Collection[str] | None = MessageAudience.ALL,
        when: Predicate | None = None,
    ) -> Decorator[Any]:
        """Add the decorated handler.

        Args:
            event_types: Of which classes the event must be; every event when there is none.
            role: As what its originator must take part; by default as anything but the consumer, which leaves out
                the echoes of what we sent.
            dialog_type: In which kinds of dialog, such as `DialogType.POST_SURVEY`.
            conversation_id: In which conversations.
            audience: For whom it must be meant; None: for whomever. What is not for ALL must not be shown to the
                consumer.
            when: Any further condition; must not block.

        Raises:
            TypeError: An event type is no class of events, as where the parentheses after `on` are missing; or,
                from the decorator, the handler is a plain `def`.
        """
        # Unchecked, `@router.on` without parentheses would take the handler for an event type, and add nothing.
        check_event_types("the arguments of `on`", event_types)

        def add(handler: Handler[Any]) -> Handler[Any]:
            check_async("a handler", handler)
            route = _Route(
                handler=handler,
                event_types=event_types,
                roles=role,
                dialog_types=dialog_type,
                conversation_ids=conversation_id,
                audiences=audience,
                when=when,
            )
            self._routes.append(route)
            self._forget_plan()
            return handler

        return add

    def on_error(self, handler: F) -> F:
        """Let the decorated handler know of each failure: `async def (incoming, error)`. Innermost router first."""
        check_async("what is told of errors", handler)
        self._error_handlers.append(handler)
        self._forget_plan()
        return handler

    def on_unclaimed(self, handler: F) -> F:
        """Ask the decorated `async def (unclaimed) -> str | None` whose a conversation is that no store knows.

        The first `ext_consumer_id` that one returns is remembered, and the event is handled. None: not ours.
        """
        check_async("who is asked", handler)
        self._unclaimed_handlers.append(handler)
        return handler

    def middleware(self, middleware: F) -> F:
        """Put the decorated `async def (incoming, call_next)` around each handler; the first is outermost."""
        check_async("middleware", middleware)
        self._middleware.append(middleware)
        self._forget_plan()
        return middleware

    def include(self, router: Router) -> None:
        """Add the handlers of another router, now and later; its middleware stays around its own handlers only.

        Raises:
            TypeError: It is no router.
            ValueError: It contains this router.
        """
        check_kind("what is included", router, Router, "a Router")
        if any(one is self for one in router.routers()):
            raise ValueError("a router cannot include itself")
        self._routes.append(router)
        router._included_by.add(self)
        self._forget_plan()

    def routers(self) -> Iterator[Router]:
        """This router and all that it includes."""
        yield self
        for route in self._routes:
            if isinstance(route, Router):
                yield from route.routers()

    def handlers_for(self, incoming: Incoming[Any]) -> list[Bound]:
        """Who wants this event, in the order in which they get it."""
        if self._plan is None:
            self._plan = list(self._flatten((), ()))
        return [bound for route, bound in self._plan if route.wants(incoming)]

    @property
    def unclaimed_handlers(self) -> list[UnclaimedHandler]:
        """All of them, those of included routers last."""
        return [handler for router in self.routers() for handler in router._unclaimed_handlers]  # noqa: SLF001 - same class

    def __repr__(self) -> str:
        handlers = sum(isinstance(route, _Route) for router in self.routers() for route in router._routes)  # noqa: SLF001 - same class
        return f"Router({handlers} handlers)"

    def _forget_plan(self) -> None:
        self._plan = None
        for router in self._included_by:
            router._forget_plan()  # noqa: SLF001 - same class

    def _flatten(
        self, middleware: tuple[Middleware, ...], error_handlers: tuple[ErrorHandler, ...]
    ) -> Iterator[tuple[_Route, Bound]]:
        middleware = (*middleware, *self._middleware)
        error_handlers = (*self._error_handlers, *error_handlers)
        for route in self._routes:
            if isinstance(route, Router):
                yield from route._flatten(middleware, error_handlers)  # noqa: SLF001 - same class
            else:
                yield route, Bound(route.handler, _wrap(route.handler, middleware), error_handlers)


def _wrap(handler: CallNext, middleware: tuple[Middleware, ...]) -> CallNext:
    for layer in reversed(middleware):
        handler = _around(layer, handler)
    return handler


def _around(layer: Middleware, call_next: CallNext) -> CallNext:
    def call(incoming: Incoming[Any]) -> Awaitable[object]:
        return layer(incoming, call_next)

    return call
