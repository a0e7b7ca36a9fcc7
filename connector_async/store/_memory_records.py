"""Consumers and conversations in memory, in little of it: there may be a million of them, nearly all silent.

So what is kept is smaller than the records that are put and given: it names its neighbours instead of repeating their
ids, and carries its own place in the order of use.
"""

from __future__ import annotations

from collections.abc import Iterator

from connector_async.store._order import Entry, Order
from connector_async.store.base import ConsumerRecord, ConversationRecord

__all__ = ["MemoryRecords"]


class _Account:
    __slots__ = ("account_id", "by_lp_id", "consumers", "conversations")

    def __init__(self, account_id: str) -> None:
        self.account_id = account_id
        self.consumers: dict[str, _Consumer] = {}
        self.by_lp_id: dict[str | int, _Consumer] = {}
        self.conversations: dict[str, _Conversation] = {}


class _Consumer(Entry):
    __slots__ = ("account", "ext_consumer_id", "lp_consumer_id", "newest", "token")

    def __init__(self, account: _Account, ext_consumer_id: str) -> None:
        self.account = account
        self.ext_consumer_id = ext_consumer_id
        self.lp_consumer_id: str | int | None = None
        self.token: str | None = None  # while there is no record of it, but of its conversations
        self.newest: _Conversation | None = None

    def record(self, token: str) -> ConsumerRecord:
        lp_consumer_id = self.lp_consumer_id
        return ConsumerRecord(
            account_id=self.account.account_id,
            ext_consumer_id=self.ext_consumer_id,
            lp_consumer_id=None if lp_consumer_id is None else _unpacked(lp_consumer_id),
            token=token,
        )


class _Conversation(Entry):
    __slots__ = ("client_properties", "consumer", "conversation_id", "elder", "is_closed", "opened_at")

    def __init__(self, consumer: _Consumer, record: ConversationRecord) -> None:
        self.conversation_id = record.conversation_id
        self.consumer = consumer
        self.client_properties = record.client_properties
        self.opened_at = record.opened_at
        self.is_closed = record.is_closed
        self.elder = consumer.newest  # the one of the same consumer that was put before

    def record(self) -> ConversationRecord:
        return ConversationRecord(
            account_id=self.consumer.account.account_id,
            conversation_id=self.conversation_id,
            ext_consumer_id=self.consumer.ext_consumer_id,
            client_properties=self.client_properties,
            opened_at=self.opened_at,
            is_closed=self.is_closed,
        )


class MemoryRecords:
    """What `Store` promises about consumers and conversations; of each kind the least recently used go first.

    Args:
        max_entries: How many consumers, and how many conversations, are kept.
    """

    __slots__ = ("_accounts", "_consumers", "_conversations", "_max_entries")

    def __init__(self, max_entries: int) -> None:
        self._max_entries = max_entries
        self._accounts: dict[str, _Account] = {}
        self._consumers: Order[_Consumer] = Order()
        self._conversations: Order[_Conversation] = Order()

    def put_consumer(self, record: ConsumerRecord) -> None:
        """Keep a consumer."""
        consumer = self._enter(record.account_id, record.ext_consumer_id)
        if consumer.token is not None:
            self._take_out(consumer)
        consumer.token = record.token
        self._consumers.add(consumer)
        if record.lp_consumer_id is not None:
            consumer.lp_consumer_id = _packed(record.lp_consumer_id)
            consumer.account.by_lp_id[consumer.lp_consumer_id] = consumer
        if self._consumers.count > self._max_entries:
            self._drop_consumer(self._consumers.oldest)

    def get_consumer(self, account_id: str, ext_consumer_id: str) -> ConsumerRecord | None:
        """The consumer with this channel id."""
        return self._given(self._find(account_id, ext_consumer_id))

    def find_consumer(self, account_id: str, lp_consumer_id: str) -> ConsumerRecord | None:
        """The consumer with the cloud's id."""
        account = self._accounts.get(account_id)
        return None if account is None else self._given(account.by_lp_id.get(_packed(lp_consumer_id)))

    def drop_token(self, account_id: str, ext_consumer_id: str) -> None:
        """Forget a token that was refused."""
        consumer = self._find(account_id, ext_consumer_id)
        if consumer is not None and consumer.token is not None:
            consumer.token = ""

    def put_conversation(self, record: ConversationRecord) -> None:
        """Keep a conversation."""
        known = self._find_conversation(record.account_id, record.conversation_id)
        if known is not None:
            self._drop_conversation(known)
        consumer = self._enter(record.account_id, record.ext_consumer_id)
        conversation = _Conversation(consumer, record)
        if known is not None and record.client_properties is None:
            conversation.client_properties = known.client_properties
        consumer.newest = consumer.account.conversations[record.conversation_id] = conversation
        self._conversations.add(conversation)
        if self._conversations.count > self._max_entries:
            self._drop_conversation(self._conversations.oldest)

    def get_conversation(self, account_id: str, conversation_id: str) -> ConversationRecord | None:
        """The conversation with this id."""
        conversation = self._find_conversation(account_id, conversation_id)
        if conversation is None:
            return None
        self._conversations.touch(conversation)
        return conversation.record()

    def get_open_conversation(self, account_id: str, ext_consumer_id: str) -> ConversationRecord | None:
        """The consumer's newest conversation that is not closed."""
        consumer = self._find(account_id, ext_consumer_id)
        is_open = [] if consumer is None else [one for one in _conversations_of(consumer) if not one.is_closed]
        found = max(is_open, key=lambda one: one.opened_at, default=None)
        return None if found is None else found.record()

    def close_conversation(self, account_id: str, conversation_id: str) -> None:
        """Mark it closed."""
        conversation = self._find_conversation(account_id, conversation_id)
        if conversation is not None:
            conversation.is_closed = True

    def forget(self, account_id: str, ext_consumer_id: str) -> list[str]:
        """Erase the consumer and all conversations; returns the ids of these."""
        consumer = self._find(account_id, ext_consumer_id)
        if consumer is None:
            return []
        ids: list[str] = []
        for conversation in _conversations_of(consumer):
            self._remove(conversation)
            ids.append(conversation.conversation_id)
        consumer.newest = None
        if consumer.token is not None:
            self._take_out(consumer)
        self._leave(consumer)
        return ids

    def _enter(self, account_id: str, ext_consumer_id: str) -> _Consumer:
        account = self._accounts.get(account_id)
        if account is None:
            account = self._accounts[account_id] = _Account(account_id)
        consumer = account.consumers.get(ext_consumer_id)
        if consumer is None:
            consumer = account.consumers[ext_consumer_id] = _Consumer(account, ext_consumer_id)
        return consumer

    def _find(self, account_id: str, ext_consumer_id: str) -> _Consumer | None:
        account = self._accounts.get(account_id)
        return None if account is None else account.consumers.get(ext_consumer_id)

    def _find_conversation(self, account_id: str, conversation_id: str) -> _Conversation | None:
        account = self._accounts.get(account_id)
        return None if account is None else account.conversations.get(conversation_id)

    def _given(self, consumer: _Consumer | None) -> ConsumerRecord | None:
        if consumer is None or consumer.token is None:
            return None
        self._consumers.touch(consumer)
        return consumer.record(consumer.token)

    def _take_out(self, consumer: _Consumer) -> None:
        self._consumers.remove(consumer)
        by_lp_id, lp_consumer_id = consumer.account.by_lp_id, consumer.lp_consumer_id
        if lp_consumer_id is not None and by_lp_id.get(lp_consumer_id) is consumer:
            del by_lp_id[lp_consumer_id]
        consumer.token = consumer.lp_consumer_id = None

    def _drop_consumer(self, consumer: _Consumer) -> None:
        self._take_out(consumer)
        self._leave(consumer)

    def _drop_conversation(self, conversation: _Conversation) -> None:
        self._remove(conversation)
        consumer = conversation.consumer
        younger = next((one for one in _conversations_of(consumer) if one.elder is conversation), None)
        if younger is None:
            consumer.newest = conversation.elder
        else:
            younger.elder = conversation.elder
        self._leave(consumer)

    def _remove(self, conversation: _Conversation) -> None:
        self._conversations.remove(conversation)
        del conversation.consumer.account.conversations[conversation.conversation_id]

    def _leave(self, consumer: _Consumer) -> None:
        """Nothing is kept of whom nothing is known."""
        if consumer.token is None and consumer.newest is None:
            del consumer.account.consumers[consumer.ext_consumer_id]


def _conversations_of(consumer: _Consumer) -> Iterator[_Conversation]:
    """All of them, the one put last first."""
    conversation = consumer.newest
    while conversation is not None:
        yield conversation
        conversation = conversation.elder


def _packed(lp_consumer_id: str) -> str | int:
    """The cloud's ids are 64 hexadecimal digits: as a number they take half the memory. Any other stays as it is."""
    try:
        packed = int(lp_consumer_id, 16)
    except ValueError:
        return lp_consumer_id
    return packed if _unpacked(packed) == lp_consumer_id else lp_consumer_id


def _unpacked(packed: str | int) -> str:
    return packed if isinstance(packed, str) else f"{packed:064x}"
