"""What the handles of one session have in common, and how they find each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from connector_async._concurrency import Slot
from connector_async.exchange.desk import ClientPropertiesHeader, Desk

if TYPE_CHECKING:
    from connector_async.consumer import Consumer
    from connector_async.conversation import Conversation

__all__ = ["Register"]


class Register(Protocol):
    """Finds the handles in use, makes others, and knows of each consumer the conversation that is open.

    Handles name each other by id and look here: one that held the other would keep it alive, and there may be a
    million of them.

    Attributes:
        desk: Sends what they have to say.
        client_properties: Of the conversations that were given none of their own.
        ears: Who waits, by `ext_consumer_id`, for a webhook to name the open conversation.
    """

    desk: Desk
    client_properties: ClientPropertiesHeader | None
    ears: dict[str, Slot]

    def consumer(self, ext_consumer_id: str) -> Consumer:
        """The handle of a consumer."""
        ...

    def conversation(
        self,
        conversation_id: str,
        consumer: Consumer,
        *,
        properties: ClientPropertiesHeader | None = None,
        opened_at: float | None = None,
    ) -> Conversation:
        """The handle of a conversation."""
        ...

    def note_opening(self, ext_consumer_id: str, properties: ClientPropertiesHeader | None) -> None:
        """With what a conversation is being opened; a webhook may name it before the answer does, or instead."""
        ...

    def current(self, ext_consumer_id: str) -> Conversation | None:
        """The consumer's conversation that is known to be open."""
        ...

    def adopt(self, conversation: Conversation) -> None:
        """This is the open conversation of its consumer."""
        ...

    def leave(self, conversation: Conversation) -> None:
        """This one is not, or not any more."""
        ...
