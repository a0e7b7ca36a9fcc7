"""What the consumer does in a conversation beside saying a text: files, choices, receipts, chat states."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Protocol

import anyio

from connector_async._arguments import check_kind
from connector_async._files import FileDownload, FileSource, download, file_type_of, read_file, upload
from connector_async._send_result import SendResult
from connector_async._speech import Metadata, Speech
from connector_async.errors import DeadlineExceeded, Landed, RequestError
from connector_async.exchange import Superseded
from connector_async.wire import (
    AcceptStatus,
    AcceptStatusEvent,
    ChatState,
    ChatStateEvent,
    ContentEvent,
    Element,
    GenerateURLForDownloadFile,
    GenerateURLForUploadFile,
    HostedFile,
    TransferUrl,
)

__all__ = ["Offer", "Voice"]

logger = logging.getLogger("connector_async.conversation")

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


class Voice(Speech):
    """The consumer's voice in one conversation; `Conversation` is made of it."""

    __slots__ = ()

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
