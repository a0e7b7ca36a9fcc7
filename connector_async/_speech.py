"""What is published to a dialog: how it is sent, and how it is known that it landed or that the dialog is over."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, cast

import anyio

from connector_async._receipts import SentMessage
from connector_async._register import Register
from connector_async._send_result import SendResult
from connector_async.errors import ConversationClosed, Landed, RequestError
from connector_async.exchange import Response
from connector_async.exchange.desk import ClientPropertiesHeader, Desk
from connector_async.protocol.inbox import event_digest
from connector_async.protocol.retry import RetryPolicy
from connector_async.wire import ContentEvent, Event, EventPublished, Feature, MetadataItem, PublishEvent, to_wire
from connector_async.wire.codec import main_event

if TYPE_CHECKING:
    from connector_async._feed import Feed
    from connector_async.consumer import Consumer

__all__ = ["Metadata", "Speech"]

logger = logging.getLogger("connector_async.conversation")

Metadata = Iterable[MetadataItem | Mapping[str, object]]

AUTO_MESSAGES_WITHIN = 10.0
"""Seconds after opening within which the first message must come under AUTO_MESSAGES (Connector API examples)."""

ECHO_WITHIN = 5.0
"""Seconds that a message of unknown outcome waits for its echo, where webhooks are connected."""


class Rare:
    """What few conversations have: a place of its own in each of the others would be most of what they take."""

    __slots__ = ("feed", "is_closed", "opened_at", "profile_error", "properties", "shut")

    def __init__(self, properties: ClientPropertiesHeader | None) -> None:
        self.properties = properties
        self.is_closed = False
        self.feed: Feed | None = None
        self.opened_at: float | None = None
        self.profile_error: RequestError | None = None
        self.shut: anyio.Event | None = None


class Speech:
    """What the consumer says in one conversation, and whether it has landed; `Voice` is made of it.

    Attributes:
        published: Events published through this handle.
    """

    __slots__ = ("_rare", "_register", "conversation_id", "ext_consumer_id", "published")

    def __init__(
        self,
        conversation_id: str,
        ext_consumer_id: str,
        register: Register,
        *,
        properties: ClientPropertiesHeader | None,
        opened_at: float | None = None,
    ) -> None:
        self.conversation_id = conversation_id
        self.ext_consumer_id = ext_consumer_id
        self._register = register
        self._rare: Rare | None = None
        self.published = 0
        if properties is not None:
            self._rarely.properties = properties
        effective = self._properties
        if opened_at is not None and effective is not None and Feature.AUTO_MESSAGES in effective.text:
            self._rarely.opened_at = opened_at

    @property
    def consumer(self) -> Consumer:
        """Whose conversation it is."""
        return self._register.consumer(self.ext_consumer_id)

    @property
    def _desk(self) -> Desk:
        return self._register.desk

    @property
    def _rarely(self) -> Rare:
        if self._rare is None:
            self._rare = Rare(self._register.client_properties)
        return self._rare

    @property
    def _properties(self) -> ClientPropertiesHeader | None:
        return self._register.client_properties if self._rare is None else self._rare.properties

    @property
    def is_closed(self) -> bool:
        """Whether it is known to be closed, by us, by an answer or by a webhook. A closed one cannot be resumed."""
        return self._rare is not None and self._rare.is_closed

    async def send_text(
        self,
        text: str,
        *,
        metadata: Metadata | None = None,
        request_id: str | None = None,
        retry: RetryPolicy | None = None,
        timeout: float | None = None,
        dialog_id: str | None = None,
    ) -> SendResult:
        """Send a text of 1 to some 4,700 characters and wait for the cloud's OK.

        Texts of one dialog arrive in the order of the calls, retries included.

        Args:
            metadata: Items beside the event, such as the answer's `ExternalId`.
            request_id: The id to send it under, at most 64 characters; made if None. While a request is in flight,
                another one under its id is refused.
            retry: Another policy for this message.
            dialog_id: Another dialog, such as a survey's; the MAIN one if None.

        Raises:
            ValueError: The text is empty or too long.
            LocalProtocolError: The request is too long as JSON, or its id is in flight already.
            ConversationClosed: It is closed; open another.
            OutcomeUnknown: It was sent, no answer came, and the policy does not resend.

        Source: Connector API, "Send" (ms.PublishEvent, ContentEvent).
        """
        self._check_open()
        if self._rare is not None and not self.published:
            self._check_auto_messages(self._rare.opened_at)
        return await self.publish(
            ContentEvent.text_of(text),
            metadata=metadata,
            request_id=request_id,
            retry=retry,
            timeout=timeout,
            dialog_id=dialog_id,
        )

    async def publish(
        self,
        event: Event,
        *,
        metadata: Metadata | None = None,
        encoded_metadata: str | None = None,
        request_id: str | None = None,
        retry: RetryPolicy | None = None,
        timeout: float | None = None,
        dialog_id: str | None = None,
        prior_attempts: int = 0,
    ) -> SendResult:
        """Publish any event; the other methods are made of this.

        Args:
            prior_attempts: How often an earlier process has sent this `request_id`: the counter goes on from there.
        """
        dialog = dialog_id or self.conversation_id
        if dialog_id is None and self.published:
            body = main_event(dialog, event)  # the first one had the id checked
        else:
            body = PublishEvent(dialog_id=dialog, event=event, conversation_id=self.conversation_id)
        desk = self._register.desk
        call = desk.call(
            body,
            consumer_id=self.ext_consumer_id,
            properties=self._properties,
            metadata=metadata,
            encoded_metadata=encoded_metadata,
            request_id=request_id,
            retry=retry,
            prior_attempts=prior_attempts,
        )
        sent = None
        if desk.hears and isinstance(event, ContentEvent):
            sent = desk.receipts.expect(self.conversation_id, dialog, event_digest(to_wire(event)))
            call.proof = sent.echoed.is_set
        del body, event  # not needed while it is in flight; see `Call`
        try:
            results = await desk.engine.run(call, timeout)
        except RequestError as error:
            if isinstance(error, ConversationClosed) and dialog == self.conversation_id:
                await self._note_closed()
            if sent is None or not await self._has_landed(sent, error):
                raise
            return SendResult(
                error.request_id or "", dialog, error.attempts, None, len(error.attempts) > 1, desk.receipts, sent
            )
        except BaseException:
            if sent is not None and not call.is_in_doubt:
                desk.receipts.forget(sent)  # it was never sent: no echo will come
            raise
        response = cast("Response[EventPublished]", results[0])
        self.published += 1
        return SendResult(
            response.request_id,
            dialog,
            response.attempts,
            response,
            response.maybe_duplicate,
            None if sent is None else desk.receipts,
            sent,
        )

    async def _has_landed(self, sent: SentMessage, error: RequestError) -> bool:
        """Whether the message's own echo proves that it landed. A missing echo proves nothing."""
        if error.landed is Landed.UNKNOWN:
            with anyio.move_on_after(ECHO_WITHIN):
                await sent.echoed.wait()
            if not sent.echoed.is_set():
                # The webhook may have gone to another worker of the same store.
                await self._desk.receipts.look_for(sent)
        if error.landed is Landed.NO:
            self._desk.receipts.forget(sent)
        elif error.landed is Landed.UNKNOWN and sent.echoed.is_set():
            self._desk.engine.proven()
        # Else its echo may still come, and must not prove that a later message with the same words has landed.
        return sent.echoed.is_set()

    # The end of it

    def mark_closed(self) -> None:
        """Note that it is closed."""
        self._rarely.is_closed = True

    async def _note_closed(self) -> None:
        self.mark_closed()
        self.consumer.note_closed(self.conversation_id)
        try:
            await self._desk.store.close_conversation(self._desk.account_id, self.conversation_id)
        except Exception:
            # It is closed all the same, and the caller must hear that; a store that missed it learns it next time.
            logger.exception("the store did not take the close of a conversation")

    def _check_open(self) -> None:
        if self.is_closed:
            raise ConversationClosed("the conversation is closed", type=PublishEvent.TYPE)

    def _check_auto_messages(self, opened_at: float | None) -> None:
        waited = 0.0 if opened_at is None else self._desk.clock.time() - opened_at
        if waited > AUTO_MESSAGES_WITHIN:
            logger.warning(
                "AUTO_MESSAGES: the first message comes %.0f s after opening, the cloud wants it within %.0f s",
                waited,
                AUTO_MESSAGES_WITHIN,
            )
