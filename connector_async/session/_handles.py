"""The handles of a session: one for each consumer and conversation in use, so that all who hold it see the same."""

from __future__ import annotations

from collections.abc import Callable
from weakref import WeakValueDictionary

from connector_async.consumer import Consumer
from connector_async.conversation import Conversation
from connector_async.exchange.desk import ClientPropertiesHeader, Desk
from connector_async.store import Store

__all__ = ["Handles"]


class Handles:
    """Makes handles, and finds those in use again.

    Args:
        desk: Gives the desk of the entered session, or raises.
    """

    def __init__(
        self,
        account_id: str,
        *,
        store: Store,
        desk: Callable[[], Desk],
        client_properties: ClientPropertiesHeader | None,
    ) -> None:
        self._account_id = account_id
        self._store = store
        self._desk = desk
        self._client_properties = client_properties
        self._consumers: WeakValueDictionary[str, Consumer] = WeakValueDictionary()
        self._conversations: WeakValueDictionary[str, Conversation] = WeakValueDictionary()
        self._make = self.conversation  # one for all consumers, not one for each

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
            consumer = Consumer(ext_consumer_id, self._desk(), self._make)
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
        conversation = self._conversations.get(conversation_id)
        if conversation is None or conversation.consumer is not consumer:
            conversation = Conversation(
                conversation_id,
                consumer,
                self._desk(),
                properties=properties or self._client_properties,
                opened_at=opened_at,
            )
            self._conversations[conversation_id] = conversation
        return conversation

    async def find(self, conversation_id: str) -> Conversation | None:
        """The handle of a conversation that is in use, or that the store knows."""
        known = self._conversations.get(conversation_id)
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
