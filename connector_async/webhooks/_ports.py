"""What the webhooks need of a session, and nothing more.

The session implements `SessionPort`; the webhooks never import it. Tasks are started through the port only: they
belong to the session's task group and end with it.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import attrs

from connector_async.hooks import Event
from connector_async.store.base import Store
from connector_async.webhooks.incoming import Incoming
from connector_async.webhooks.receiver import AppRecord

if TYPE_CHECKING:
    from connector_async.conversation import Conversation
    from connector_async.session import ConnectorSession

__all__ = ["FoundConversation", "SessionPort"]


@attrs.define(kw_only=True, eq=False)
class FoundConversation:
    """A conversation of ours, as the session hands it out."""

    conversation: Conversation
    lp_consumer_id: str | None = None
    """The cloud's id of the consumer: tells an echo from an agent's event in feeds without roles."""


class SessionPort(Protocol):
    """One session, seen from the webhooks."""

    @property
    def account_id(self) -> str:
        """The account whose deliveries this is about."""
        ...

    @property
    def session(self) -> ConnectorSession:
        """What handlers get as `incoming.session`."""
        ...

    @property
    def store(self) -> Store:
        """Where conversations, seen events and undelivered events are kept."""
        ...

    def app_records(self) -> Sequence[AppRecord]:
        """The secrets to believe, the current ones first. Asked again whenever credentials may have changed."""
        ...

    def start_soon(self, work: Callable[..., Coroutine[Any, Any, None]], /, *args: object) -> None:
        """Run a task in the session's task group. The session cancels it at its end, after `Dispatcher.drain`."""
        ...

    def emit(self, event: Event) -> None:
        """Tell the hooks."""
        ...

    def conversation_in_use(self, conversation_id: str) -> Conversation | None:
        """The handle of a conversation of ours that is in memory: then nobody need be asked."""
        ...

    async def find_conversation(
        self, conversation_id: str, *, lp_consumer_id: str | None = None, is_told_apart: bool = False
    ) -> FoundConversation | None:
        """The handle of a conversation of ours, or None.

        `is_told_apart`: the event says as what its originator takes part, so `FoundConversation.lp_consumer_id` need
        not be looked up.

        Asks the store; when it does not know the id, the consumer's id, where the event names it, may tell: a
        notification can overtake the answer that tells us the id of the conversation we have just opened.
        """
        ...

    async def adopt_conversation(self, conversation_id: str, ext_consumer_id: str) -> FoundConversation:
        """Remember a conversation that nobody knew, since `on_unclaimed` named its consumer."""
        ...

    def observe(self, incoming: Incoming[Any]) -> bool:
        """Take note of an event of a conversation of ours; called for every one, in order, before the handlers.

        Receipts settle `delivered()` and `read()`; conversation changes move the state of handles; `wait_for` and
        `events()` are fed; an echo (`incoming.is_echo`) settles an unknown send.

        Returns:
            Whether somebody was waiting for exactly this. An echo that nobody waited for goes to a durable store,
            where the worker that sent it finds it (`Store.take_echo`, `event_digest`).
        """
        ...
