"""The session as its webhooks see it: what they may ask and what they tell."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from connector_async.auth import AppCredentials
from connector_async.conversation import Conversation
from connector_async.hooks import Event, Hooks
from connector_async.protocol.inbox import event_digest
from connector_async.session._handles import Handles
from connector_async.session._parts import Parts
from connector_async.store import ConsumerRecord, ConversationRecord, Store
from connector_async.webhooks import AppRecord, Incoming
from connector_async.webhooks._ports import FoundConversation
from connector_async.wire import AcceptStatusEvent, ContentEvent, ConversationChange, to_wire

if TYPE_CHECKING:
    from connector_async.session._session import ConnectorSession

__all__ = ["WebhookPort"]

logger = logging.getLogger("connector_async.webhooks")


class WebhookPort:
    """Implements `webhooks.SessionPort` for one entered session."""

    def __init__(
        self, session: ConnectorSession, *, handles: Handles, parts: Parts, store: Store, hooks: Hooks
    ) -> None:
        self._session = session
        self._handles = handles
        self._parts = parts
        self._store = store
        self._hooks = hooks
        self._records: tuple[AppCredentials, tuple[AppRecord, ...]] | None = None

    @property
    def account_id(self) -> str:
        """The account."""
        return self._session.account_id

    @property
    def session(self) -> ConnectorSession:
        """What handlers get."""
        return self._session

    @property
    def store(self) -> Store:
        """The session's store."""
        return self._store

    def app_records(self) -> Sequence[AppRecord]:
        """The app whose deliveries are believed; none before a credentials callable was first asked."""
        credentials: AppCredentials | None = self._parts.source.credentials
        if credentials is None:
            return ()
        if self._records is None or self._records[0] is not credentials:
            record = AppRecord(
                account_id=self.account_id,
                client_id=credentials.client_id,
                secret=credentials.client_secret,
                previous_secrets=credentials.previous_secrets,
            )
            self._records = (credentials, (record,))
        return self._records[1]

    def start_soon(self, work: Callable[..., Coroutine[Any, Any, None]], /, *args: object) -> None:
        """Run a task of the session's."""
        self._parts.task_group.start_soon(work, *args)

    def emit(self, event: Event) -> None:
        """Tell the hooks."""
        self._hooks.emit(event)

    def conversation_in_use(self, conversation_id: str) -> Conversation | None:
        """The handle of a conversation that is kept, or that somebody holds."""
        return self._handles.in_use(conversation_id)

    async def find_conversation(
        self, conversation_id: str, *, lp_consumer_id: str | None = None, is_told_apart: bool = False
    ) -> FoundConversation | None:
        """The handle of a conversation of ours; the consumer's id tells where its own is not known yet."""
        conversation = await self._handles.find(conversation_id)
        if conversation is not None:
            if lp_consumer_id is None and not is_told_apart:
                # Old feeds name no roles: then the cloud's id of our consumer is what tells an echo.
                known = await self._store.get_consumer(self.account_id, conversation.ext_consumer_id)
                lp_consumer_id = None if known is None else known.lp_consumer_id
            return FoundConversation(conversation=conversation, lp_consumer_id=lp_consumer_id)
        if lp_consumer_id is None:
            return None
        record = await self._store.find_consumer(self.account_id, lp_consumer_id)
        if record is None:
            return None
        return await self._adopt(conversation_id, record)

    async def adopt_conversation(self, conversation_id: str, ext_consumer_id: str) -> FoundConversation:
        """Take up a conversation whose consumer a handler has named."""
        record = await self._store.get_consumer(self.account_id, ext_consumer_id)
        known = record or ConsumerRecord(
            account_id=self.account_id, ext_consumer_id=ext_consumer_id, lp_consumer_id=None, token=""
        )
        return await self._adopt(conversation_id, known)

    async def _adopt(self, conversation_id: str, record: ConsumerRecord) -> FoundConversation:
        properties = self._handles.opened_with(record.ext_consumer_id)
        await self._store.put_conversation(
            ConversationRecord(
                account_id=self.account_id,
                conversation_id=conversation_id,
                ext_consumer_id=record.ext_consumer_id,
                client_properties=None if properties is None else properties.text,
                opened_at=self._parts.desk.wall(),
            )
        )
        consumer = self._handles.consumer(record.ext_consumer_id)
        conversation = self._handles.conversation(conversation_id, consumer, properties=properties)
        return FoundConversation(conversation=conversation, lp_consumer_id=record.lp_consumer_id)

    def observe(self, incoming: Incoming[Any]) -> bool:
        """Let receipts, echoes and states take effect, then feed who listens to the conversation."""
        event = incoming.event
        awaited = False
        if isinstance(event, ConversationChange):
            self._follow(incoming.conversation, event)
        elif isinstance(event, AcceptStatusEvent):
            if not incoming.is_echo and incoming.dialog_id is not None:
                awaited = self._parts.desk.receipts.receipt(incoming.dialog_id, event.sequence_list, event.status)
            incoming.conversation.tell(incoming)
            return awaited
        elif isinstance(event, ContentEvent) and incoming.is_echo and incoming.dialog_id is not None:
            digest = event_digest(to_wire(event))
            awaited = self._parts.desk.receipts.echo(incoming.dialog_id, digest, incoming.sequence)
        return incoming.conversation.tell(incoming) or awaited

    def _follow(self, conversation: Conversation, change: ConversationChange) -> None:
        if not change.is_closed:
            if not conversation.is_closed:
                conversation.consumer.adopt(conversation)
            return
        conversation.mark_closed()
        conversation.consumer.note_closed(conversation.conversation_id)
        self.start_soon(self._close_in_store, conversation.conversation_id)

    async def _close_in_store(self, conversation_id: str) -> None:
        try:
            await self._store.close_conversation(self.account_id, conversation_id)
        except Exception:
            # A store that fails must not end the session; the cloud refuses the next message, and we learn it then.
            logger.exception("the store did not take the close of a conversation")
