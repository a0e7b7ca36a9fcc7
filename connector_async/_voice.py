"""Everything that is published to a dialog: texts, files, choices, receipts, chat states."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Protocol, cast

import anyio

from connector_async._arguments import check_kind
from connector_async._files import FileDownload, FileSource, download, file_type_of, read_file, upload
from connector_async._receipts import SentMessage
from connector_async._register import Register
from connector_async._send_result import SendResult
from connector_async.errors import ConversationClosed, DeadlineExceeded, Landed, RequestError
from connector_async.exchange import Response, Superseded
from connector_async.exchange.desk import ClientPropertiesHeader, Desk
from connector_async.protocol.inbox import event_digest
from connector_async.protocol.retry import RetryPolicy
from connector_async.wire import (
    AcceptStatus,
    AcceptStatusEvent,
    ChatState,
    ChatStateEvent,
    ContentEvent,
    Element,
    Event,
    EventPublished,
    Feature,
    GenerateURLForDownloadFile,
    GenerateURLForUploadFile,
    HostedFile,
    MetadataItem,
    PublishEvent,
    TransferUrl,
    to_wire,
)
from connector_async.wire.codec import main_event

if TYPE_CHECKING:
    from connector_async._feed import Feed
    from connector_async.consumer import Consumer

__all__ = ["Offer", "Voice"]

logger = logging.getLogger("connector_async.conversation")

Metadata = Iterable[MetadataItem | Mapping[str, object]]

AUTO_MESSAGES_WITHIN = 10.0
"""Seconds after opening within which the first message must come under AUTO_MESSAGES (Connector API examples)."""

ECHO_WITHIN = 5.0
"""Seconds that a message of unknown outcome waits for its echo, where webhooks are connected."""

_STOP_TYPING_WITHIN = 5.0  # the stop is sent even while the caller is being cancelled, but not for ever


class Offer(Protocol):
    """A message that offers elements to choose from, such as what a handler gets."""

    @property
    def sequence(self) -> int | None:
        """Its number in its dialog."""
        ...

    @property
    def dialog_id(self) -> str | None:
        """Its dialog."""
        ...


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


class Voice:
    """The consumer's voice in one conversation; `Conversation` is made of it.

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

    # Files and choices

    async def send_file(
        self,
        source: FileSource,
        *,
        caption: str = "",
        preview: str | None = None,
        file_type: str | None = None,
        metadata: Metadata | None = None,
        timeout: float | None = None,
        dialog_id: str | None = None,
    ) -> SendResult:
        """Send an image: ask for a URL, put the bytes into the storage, publish the event.

        The URL lives about a minute; when it lapses on the way a new one is asked for.

        Args:
            source: The bytes, a path, or an async stream of bytes; at most 3 MB.
            preview: A data URL of an image, below 30 KB.
            file_type: JPG, JPEG, PNG or GIF; told from the first bytes if None.
            timeout: Seconds for all of it; the session's default if None.

        Raises:
            ValueError: It is empty, too large, or of another type.
            NotSent: The storage does not take it; nothing was published.
            DeadlineExceeded: It took too long.

        Source: Connector API examples, "File sharing".
        """
        self._check_open()
        deadline = self._desk.deadline(timeout)
        kind = file_type or ""
        path: str | None = None
        with anyio.CancelScope(deadline=deadline):
            content = await read_file(source)
            kind = kind or file_type_of(content)
            path = await upload(self._desk, self._ask_url, content, kind)
        if path is None:
            raise DeadlineExceeded("the time ran out while the file was put into the storage", landed=Landed.NO)
        return await self.publish(
            ContentEvent.file(path, kind, caption=caption, preview=preview),
            metadata=metadata,
            timeout=None if timeout is None else max(0.0, deadline - self._desk.clock.time()),
            dialog_id=dialog_id,
        )

    @asynccontextmanager
    async def download_file(
        self, file: HostedFile | str, *, max_bytes: int = 16 * 1024 * 1024, timeout: float | None = None
    ) -> AsyncGenerator[FileDownload]:
        """Fetch a file that was shared in this conversation.

            async with conversation.download_file(event.hosted_file) as download:
                async for chunk in download: ...

        Args:
            file: The event's `HostedFile`, or its relative path.
            max_bytes: Where to stop.
            timeout: Seconds from now until all of it must have come; the session's default if None.

        Raises:
            ResponseTooLarge: It exceeds `max_bytes`.
            NotSent: The storage does not give it.
            DeadlineExceeded: It took too long.
        """
        path = file if isinstance(file, str) else file.relative_path
        deadline = self._desk.deadline(timeout)
        async with download(self._desk, self._ask_url, path, max_bytes=max_bytes, deadline=deadline) as found:
            yield found

    async def _ask_url(self, body: GenerateURLForUploadFile | GenerateURLForDownloadFile) -> TransferUrl:
        response = await self._desk.request(body, consumer_id=self.ext_consumer_id, properties=self._properties)
        return response.body

    async def choose(
        self, element: Element, *, of: Offer | int, timeout: float | None = None, dialog_id: str | None = None
    ) -> SendResult:
        """Use an element of structured content, or a quick reply, in the consumer's name.

        Sends the ACTION receipt, then, where the element publishes a text, that text; both with the element's
        metadata. A link or a place is the consumer's device's business.

        Args:
            element: Of the message's content or quick replies.
            of: The message that brought it (what a handler gets), or its sequence number.
            dialog_id: Its dialog, if `of` is a number and it is not the MAIN one.

        Returns:
            The receipt of the text, or of the ACTION receipt where no text follows.

        Raises:
            ValueError: The element has no click, or the message no sequence number.

        Source: "Getting started with rich messaging"; post-conversation survey tutorial.
        """
        sequence, dialog = (of, dialog_id) if isinstance(of, int) else (of.sequence, of.dialog_id)
        click = element.click
        if click is None or sequence is None:
            raise ValueError("only an element with a click, of a message with a sequence number, can be chosen")
        deadline = self._desk.deadline(timeout)
        action = AcceptStatusEvent(AcceptStatus.ACTION, (sequence,))
        result = await self.publish(action, metadata=click.metadata, timeout=timeout, dialog_id=dialog)
        if click.publish_text is None:
            return result
        left = None if timeout is None else max(0.0, deadline - self._desk.clock.time())
        return await self.send_text(click.publish_text, metadata=click.metadata, timeout=left, dialog_id=dialog)

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
        for number in sequences:
            check_kind("a sequence", number, int, "a whole number, one by one as in `mark_read(4, 6)`")
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
    async def typing(self, *, dialog_id: str | None = None) -> AsyncGenerator[None]:
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
