"""A conversation, as the consumer's side handles it: what a person wants to do, in the API's words."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Literal

import anyio

from connector_async._send_result import ReceiptBook, SendResult
from connector_async.errors import ConversationClosed, RequestError
from connector_async.exchange import Response, Superseded
from connector_async.exchange.desk import ClientPropertiesHeader, Desk
from connector_async.protocol.retry import RetryPolicy
from connector_async.wire import (
    AcceptStatus,
    AcceptStatusEvent,
    ChatState,
    ChatStateEvent,
    Confirmation,
    ContentEvent,
    ConversationField,
    ConversationStateField,
    CSATRate,
    CsatStatus,
    DialogChange,
    Event,
    EventPublished,
    Feature,
    MetadataItem,
    PublishEvent,
    SetUserProfile,
    StageField,
    TTRField,
    UpdateConversationField,
)

if TYPE_CHECKING:
    from connector_async.consumer import Consumer

__all__ = ["Conversation"]

logger = logging.getLogger("connector_async.conversation")

Metadata = Iterable[MetadataItem | Mapping[str, object]]

AUTO_MESSAGES_WITHIN = 10.0
"""Seconds after opening within which the first message must come under AUTO_MESSAGES (Connector API examples)."""

_STOP_TYPING_WITHIN = 5.0  # the stop is sent even while the caller is being cancelled, but not for ever


class Conversation:
    """A handle to one conversation. Handed out by `Consumer.open_conversation` and `ConnectorSession.conversation`.

    Every method that sends raises `RequestError` when the request fails (see `errors` for the kinds),
    `LocalProtocolError` when it does not fit the API, and takes `timeout`: seconds for everything, queue, tokens,
    attempts and pauses included; the session's default when None. All are safe to cancel: what was not sent is not
    sent, what was sent is reported as unknown.

    Attributes:
        conversation_id: The id; its MAIN dialog has the same.
        consumer: Whose conversation it is.
        profile_error: Set if the conversation was opened but the profile that came with it was refused.
    """

    __slots__ = (
        "__weakref__",
        "_closed",
        "_desk",
        "_opened_at",
        "_properties",
        "_receipts",
        "_spoken",
        "consumer",
        "conversation_id",
        "profile_error",
    )

    def __init__(
        self,
        conversation_id: str,
        consumer: Consumer,
        desk: Desk,
        *,
        properties: ClientPropertiesHeader | None,
        receipts: ReceiptBook | None = None,
        opened_at: float | None = None,
    ) -> None:
        self.conversation_id = conversation_id
        self.consumer = consumer
        self.profile_error: RequestError | None = None
        self._desk = desk
        self._properties = properties
        self._receipts = receipts
        self._opened_at = opened_at
        self._spoken = False
        self._closed = False

    @property
    def dialog_id(self) -> str:
        """The MAIN dialog, which has the conversation's id (protocol.md 1.2)."""
        return self.conversation_id

    @property
    def is_closed(self) -> bool:
        """Whether it is known to be closed, by us, by an answer or by a webhook. A closed one cannot be resumed."""
        return self._closed

    def mark_closed(self) -> None:
        """Note that it is closed: sending content fails from now on, without asking the cloud."""
        self._closed = True

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
        """Send a text of 1 to 5,000 characters and wait for the cloud's OK.

        Texts of one dialog arrive in the order of the calls, retries included.

        Args:
            metadata: Items beside the event, such as the answer's `ExternalId`.
            request_id: The id to send it under, at most 64 characters; made if None.
            retry: Another policy for this message.
            dialog_id: Another dialog, such as a survey's; the MAIN one if None.

        Raises:
            ValueError: The text is empty or too long.
            ConversationClosed: It is closed; open another.
            OutcomeUnknown: It was sent, no answer came, and the policy does not resend.

        Source: Connector API, "Send" (ms.PublishEvent, ContentEvent).
        """
        self._check_open()
        if self._opened_at is not None and not self._spoken:
            self._check_auto_messages()
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
        body = PublishEvent(dialog_id=dialog, event=event, conversation_id=self.conversation_id)
        try:
            response: Response[EventPublished] = await self._desk.request(
                body,
                consumer_id=self.consumer.ext_consumer_id,
                properties=self._properties,
                metadata=metadata,
                encoded_metadata=encoded_metadata,
                request_id=request_id,
                retry=retry,
                timeout=timeout,
                prior_attempts=prior_attempts,
            )
        except ConversationClosed:
            if dialog == self.conversation_id:
                await self._note_closed()
            raise
        self._spoken = True
        return SendResult(response.request_id, dialog, response, self._receipts)

    # Receipts and typing

    async def mark_accepted(
        self, *sequences: int, dialog_id: str | None = None, timeout: float | None = None
    ) -> SendResult:
        """Tell the agent that messages were delivered to the consumer (receipt ACCEPT).

        Args:
            sequences: The numbers of the notifications that brought them.
        """
        return await self._receipt(AcceptStatus.ACCEPT, sequences, dialog_id, timeout)

    async def mark_read(
        self, *sequences: int, dialog_id: str | None = None, timeout: float | None = None
    ) -> SendResult:
        """Tell the agent that the consumer has read messages (receipt READ); arguments as `mark_accepted`."""
        return await self._receipt(AcceptStatus.READ, sequences, dialog_id, timeout)

    async def _receipt(
        self, status: AcceptStatus, sequences: tuple[int, ...], dialog_id: str | None, timeout: float | None
    ) -> SendResult:
        if not sequences:
            raise ValueError("a receipt names at least one sequence")
        event = AcceptStatusEvent(status=status, sequence_list=tuple(sorted(set(sequences))))
        return await self.publish(event, dialog_id=dialog_id, timeout=timeout)

    async def set_chat_state(
        self, state: ChatState | str, *, dialog_id: str | None = None, timeout: float | None = None
    ) -> SendResult | None:
        """Show what the consumer is doing: `COMPOSING`, `PAUSE`, `ACTIVE`, `INACTIVE`, `GONE`.

        `COMPOSING` sticks until another state is sent; `typing()` takes care of that.

        Returns:
            None if a newer state of the dialog replaced this one before it was sent.
        """
        try:
            return await self.publish(ChatStateEvent(chat_state=state), dialog_id=dialog_id, timeout=timeout)
        except Superseded:
            return None

    @asynccontextmanager
    async def typing(self, *, dialog_id: str | None = None) -> AsyncIterator[None]:
        """Show the consumer as typing while the block runs; the stop is always sent, also on error and cancellation.

        A state that cannot be shown is logged, and costs the block nothing.
        """
        await self._show(ChatState.COMPOSING, dialog_id)
        try:
            yield
        finally:
            with anyio.move_on_after(_STOP_TYPING_WITHIN, shield=True):
                await self._show(ChatState.PAUSE, dialog_id)

    async def _show(self, state: ChatState, dialog_id: str | None) -> None:
        try:
            await self.set_chat_state(state, dialog_id=dialog_id, timeout=_STOP_TYPING_WITHIN)
        except RequestError as error:
            logger.info("chat state not shown: %s", error, extra={"state": state.value})

    # The conversation itself

    async def update_profile(
        self, profile: SetUserProfile, *, timeout: float | None = None
    ) -> Response[Confirmation]:
        """Tell the brand who the consumer is."""
        return await self._desk.request(
            profile, consumer_id=self.consumer.ext_consumer_id, properties=self._properties, timeout=timeout
        )

    async def update_field(
        self, field: ConversationField | Iterable[ConversationField], *, timeout: float | None = None
    ) -> Response[Confirmation]:
        """Change any field of the conversation; the methods below are made of this."""
        fields = field if isinstance(field, ConversationField) else tuple(field)
        body = UpdateConversationField(conversation_id=self.conversation_id, conversation_field=fields)
        return await self._desk.request(
            body, consumer_id=self.consumer.ext_consumer_id, properties=self._properties, timeout=timeout
        )

    async def set_ttr(
        self, ttr_type: str, *, value: int | None = None, timeout: float | None = None
    ) -> Response[Confirmation]:
        """Say how urgent it is: a `TtrType`, and seconds for `CUSTOM`."""
        return await self.update_field(TTRField(ttr_type=ttr_type, value=value), timeout=timeout)

    async def submit_csat(
        self,
        rate: int | None = None,
        *,
        resolved: bool | None = None,
        status: CsatStatus | str | None = None,
        timeout: float | None = None,
    ) -> Response[Confirmation]:
        """Hand in the consumer's satisfaction, after the close.

        Args:
            rate: 1 to 5.
            resolved: Whether the matter was settled.
            status: FILLED, PARTIALLY_FILLED or SKIPPED; told from what is given if None.
        """
        given = (rate is not None) + (resolved is not None)
        told = (CsatStatus.SKIPPED, CsatStatus.PARTIALLY_FILLED, CsatStatus.FILLED)[given]
        field = CSATRate(csat_rate=rate, csat_resolution_confirmation=resolved, status=status or told)
        return await self.update_field(field, timeout=timeout)

    async def close_dialog(
        self, dialog_id: str | None = None, *, timeout: float | None = None
    ) -> Response[Confirmation]:
        """Close one dialog. Closing the MAIN one (None) starts the survey, where one is configured."""
        return await self.update_field(DialogChange.close(dialog_id or self.conversation_id), timeout=timeout)

    async def close(
        self, *, by: Literal["state", "stage"] = "state", timeout: float | None = None
    ) -> Response[Confirmation] | None:
        """Close the conversation with all its dialogs; no survey follows. Closing a closed one does nothing.

        Args:
            by: Which of the two documented fields to set; they are not known to differ.

        Returns:
            The answer, or None if it was closed already.
        """
        if self._closed:
            return None
        try:
            response = await self.update_field(
                ConversationStateField() if by == "state" else StageField(), timeout=timeout
            )
        except ConversationClosed:
            await self._note_closed()
            return None
        await self._note_closed()
        return response

    async def _note_closed(self) -> None:
        self._closed = True
        self.consumer.note_closed(self.conversation_id)
        await self._desk.store.close_conversation(self._desk.account_id, self.conversation_id)

    def _check_open(self) -> None:
        if self._closed:
            raise ConversationClosed("the conversation is closed", type=PublishEvent.TYPE)

    def _check_auto_messages(self) -> None:
        properties = self._properties
        if properties is None or Feature.AUTO_MESSAGES not in properties.text:
            return
        waited = self._desk.clock.time() - (self._opened_at or 0.0)
        if waited > AUTO_MESSAGES_WITHIN:
            logger.warning(
                "AUTO_MESSAGES: the first message comes %.0f s after opening, the cloud wants it within %.0f s",
                waited,
                AUTO_MESSAGES_WITHIN,
            )

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open"
        return f"Conversation({self.conversation_id!r}, {state})"
