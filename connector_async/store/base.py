"""What a session remembers about consumers and conversations, and the interface to any place that keeps it.

A webhook names only the conversation and the `lp_consumer_id`; a store is what tells a restarted worker whose they
are. Every method takes the account: one store may serve many.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import attrs

__all__ = ["ConsumerRecord", "ConversationRecord", "Store"]


@attrs.frozen(kw_only=True)
class ConsumerRecord:
    """One consumer of one account, as the identity service knows it."""

    account_id: str
    ext_consumer_id: str
    lp_consumer_id: str | None
    token: str = attrs.field(repr=False)
    """The ConsumerJWS; it never expires (protocol.md 4)."""


@attrs.frozen(kw_only=True)
class ConversationRecord:
    """One conversation and the consumer it belongs to."""

    account_id: str
    conversation_id: str
    ext_consumer_id: str
    client_properties: str | None = None
    """The `Client-Properties` header that every call of this conversation must carry, or None."""
    opened_at: float = 0.0
    """Wall-clock seconds."""
    is_closed: bool = False


@runtime_checkable
class Store(Protocol):
    """Consumers, conversations and seen notifications. Safe for many tasks; every method may be cancelled."""

    @property
    def durable(self) -> bool:
        """Whether what was put survives this process."""
        ...

    async def put_consumer(self, record: ConsumerRecord) -> None:
        """Keep a consumer; an older record of the same consumer is replaced."""
        ...

    async def get_consumer(self, account_id: str, ext_consumer_id: str) -> ConsumerRecord | None:
        """The consumer with this channel id."""
        ...

    async def find_consumer(self, account_id: str, lp_consumer_id: str) -> ConsumerRecord | None:
        """The consumer with the cloud's id."""
        ...

    async def drop_consumer_token(self, account_id: str, ext_consumer_id: str) -> None:
        """Forget a token that was refused; what else is known of the consumer stays."""
        ...

    async def put_conversation(self, record: ConversationRecord) -> None:
        """Keep a conversation; an older record of the same conversation is replaced."""
        ...

    async def get_conversation(self, account_id: str, conversation_id: str) -> ConversationRecord | None:
        """The conversation with this id, open or closed."""
        ...

    async def get_open_conversation(self, account_id: str, ext_consumer_id: str) -> ConversationRecord | None:
        """The consumer's newest conversation that is not closed: there is at most one in the cloud."""
        ...

    async def close_conversation(self, account_id: str, conversation_id: str) -> None:
        """Mark it closed; unknown ids are ignored."""
        ...

    async def first_time(self, account_id: str, key: str) -> bool:
        """Whether this key was never given before (within the store's bound); remembers it."""
        ...

    async def forget(self, account_id: str, ext_consumer_id: str) -> None:
        """Erase the consumer, the token and all conversations."""
        ...

    async def aclose(self) -> None:
        """Release what the store holds open; idempotent."""
        ...
