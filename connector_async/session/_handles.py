"""The handles of a session: one for each consumer and conversation in use, so that all who hold it see the same."""

from __future__ import annotations

from collections.abc import Callable
from weakref import WeakValueDictionary

from connector_async._concurrency import Slot
from connector_async._recent import Recent
from connector_async.consumer import Consumer
from connector_async.conversation import Conversation
from connector_async.exchange.desk import ClientPropertiesHeader, Desk
from connector_async.store import Store

__all__ = ["Handles"]


class Handles:
    """Makes handles, and finds those in use again: the `Register` of a session.

    Kept alive are the open conversations of the consumers that were used last, so that their next message needs no
    look into the store. Every other handle lives as long as somebody holds it.

    Args:
        desk: Gives the desk of the entered session, or raises.
        max_current: Most consumers whose open conversation is kept.
    """

    desk: Desk

    def __init__(
        self,
        account_id: str,
        *,
        store: Store,
        desk: Callable[[], Desk],
        client_properties: ClientPropertiesHeader | None,
        max_current: int,
    ) -> None:
        self._account_id = account_id
        self._store = store
        self._entered_desk = desk
        self.client_properties = client_properties
        self._max_current = max_current
        self.ears: dict[str, Slot] = {}
        self._consumers: WeakValueDictionary[str, Consumer] = WeakValueDictionary()
        self._current: Recent[str, Conversation] = Recent(max_current)  # by consumer
        self._current_by_id: dict[str, Conversation] = {}
        self._others: WeakValueDictionary[str, Conversation] = WeakValueDictionary()
        self._openings: dict[str, ClientPropertiesHeader] = {}  # by consumer, until its conversation has a handle

    def consumer(self, ext_consumer_id: str) -> Consumer:
        """The handle of a consumer.

        Raises:
            ValueError: The id is empty or no text.
            RuntimeError: The session is not entered yet.
        """
        consumer = self._consumers.get(ext_consumer_id)
        if consumer is None:
            if not _is_text(ext_consumer_id) or not ext_consumer_id.strip():
                raise ValueError("an ext_consumer_id is a text that is not empty")
            self.desk = self._entered_desk()
            consumer = Consumer(ext_consumer_id, self)
            self._consumers[ext_consumer_id] = consumer
        return consumer

    def conversation(
        self,
        conversation_id: str,
        consumer: Consumer,
        *,
        properties: ClientPropertiesHeader | None = None,
        opened_at: float | None = None,
    ) -> Conversation:
        """The handle of a conversation.

        Raises:
            ValueError: The id is no text of 1 to 64 characters.
        """
        if not _is_text(conversation_id) or not 1 <= len(conversation_id) <= 64:
            raise ValueError("a conversation id is a text of 1 to 64 characters")
        known = self.in_use(conversation_id)
        if known is not None:
            if known.ext_consumer_id == consumer.ext_consumer_id:
                if properties is not None:
                    known.note_properties(properties)
                return known
            self.leave(known)
        self.desk = self._entered_desk()
        conversation = Conversation(
            conversation_id,
            consumer.ext_consumer_id,
            self,
            properties=properties,
            opened_at=opened_at,
        )
        self._others[conversation_id] = conversation
        return conversation

    def note_opening(self, ext_consumer_id: str, properties: ClientPropertiesHeader | None) -> None:
        """With what a conversation is being opened; a webhook may name it before the answer does, or instead."""
        self._openings.pop(ext_consumer_id, None)
        if properties is not None:
            self._openings[ext_consumer_id] = properties
            if len(self._openings) > self._max_current:
                del self._openings[next(iter(self._openings))]

    def opened_with(self, ext_consumer_id: str) -> ClientPropertiesHeader | None:
        """What was noted for a conversation of this consumer that had no handle yet."""
        return self._openings.get(ext_consumer_id)

    def current(self, ext_consumer_id: str) -> Conversation | None:
        """The consumer's conversation that is known to be open."""
        return self._current.get(ext_consumer_id)

    def adopt(self, conversation: Conversation) -> None:
        """This is the open conversation of its consumer."""
        before = self.current(conversation.ext_consumer_id)
        if before is conversation:
            return
        if before is not None:
            self.leave(before)
        self._openings.pop(conversation.ext_consumer_id, None)
        dropped = self._current.put(conversation.ext_consumer_id, conversation)
        if dropped is not None:
            self._keep_no_more(dropped)
        self._current_by_id[conversation.conversation_id] = conversation
        self._others.pop(conversation.conversation_id, None)

    def leave(self, conversation: Conversation) -> None:
        """This one is not, or not any more: from now on it lives as long as somebody holds it."""
        if self._current.get(conversation.ext_consumer_id) is conversation:
            self._current.pop(conversation.ext_consumer_id)
            self._keep_no_more(conversation)

    def _keep_no_more(self, conversation: Conversation) -> None:
        del self._current_by_id[conversation.conversation_id]
        self._others[conversation.conversation_id] = conversation

    def in_use(self, conversation_id: str) -> Conversation | None:
        """The handle of a conversation that is kept, or that somebody holds."""
        return self._current_by_id.get(conversation_id) or self._others.get(conversation_id)

    async def find(self, conversation_id: str) -> Conversation | None:
        """The handle of a conversation that is in use, or that the store knows."""
        known = self.in_use(conversation_id)
        if known is not None:
            return known
        record = await self._store.get_conversation(self._account_id, conversation_id)
        if record is None:
            return None
        conversation = self.conversation(
            conversation_id,
            self.consumer(record.ext_consumer_id),
            properties=ClientPropertiesHeader.of(record.client_properties),
        )
        if record.is_closed:
            conversation.mark_closed()
        return conversation


def _is_text(value: object) -> bool:
    return isinstance(value, str)
