"""One conversation of a person, or a pipe, with an agent: every line read has an end that is told."""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Any, Final

import anyio

from connector_async.cli._chat_view import ChatView
from connector_async.cli._console import CommandFailed, OutputLost, tell
from connector_async.cli._lines import MAX_LINE, Line, read_lines
from connector_async.cli._printable import printable
from connector_async.conversation import Conversation
from connector_async.errors import ProtocolError, RequestError
from connector_async.exchange import outcome_of
from connector_async.session import ConnectorSession
from connector_async.webhooks import Incoming, Router
from connector_async.wire import ContentEvent, ConversationChange, RichContentEvent

__all__ = ["Chat"]

_COMMANDS: Final = "there is /close and /quit; a text that begins with a slash is written with two"
_OVER: Final = "the conversation was over before"


class Chat:
    """Says what it reads, shows what it hears.

    Args:
        descriptor: Where the lines come from.
        wait: Most seconds that a line waits for the agent's answer to the one before; None: not at all.

    Attributes:
        router: For the session.
        conversation: None until it is open.
        failures: Lines that the cloud has not taken, or may not have, and a close that failed.
    """

    def __init__(self, view: ChatView, descriptor: int, *, wait: float | None) -> None:
        self.router = Router()
        self.router.on()(self._hear)
        self.conversation: Conversation | None = None
        self.failures = 0
        self._view = view
        self._descriptor = descriptor
        self._wait = wait
        # A consumer of its own, so that nobody's open conversation is in the way.
        self._consumer_id = f"connector-async-chat-{secrets.token_hex(8)}"
        self._sent = 0
        self._lines: deque[Line] = deque()
        self._rest: anyio.CancelScope | None = None
        self._answered: anyio.Event | None = None
        self._is_closed = False
        self._lost_output: OSError | OutputLost | None = None

    async def run(self, session: ConnectorSession, skill_id: str | None) -> None:
        """Open a conversation and talk until the input ends, a command ends it, or somebody closes it.

        Raises:
            CommandFailed: It cannot be opened.
            OutputLost: Standard output takes no more (BrokenPipeError: whoever read it has gone).
        """
        self._rest = rest = anyio.CancelScope()
        try:
            self.conversation = await session.consumer(self._consumer_id).open_conversation(skill_id=skill_id)
        except RequestError as error:
            raise CommandFailed(printable(str(error))) from error
        self._view.opened(self.conversation)
        with rest:
            await self._talk(self.conversation)
        if self._lost_output is not None:
            raise self._lost_output

    def tell_end(self) -> None:
        """Tell on standard error which lines were read and not sent, and whether the conversation is left open."""
        if self._lines:
            self.failures += len(self._lines)
            first, last = self._lines[0].number, self._lines[-1].number
            which = f"line {first} was" if first == last else f"lines {first} to {last} were"
            tell(f"connector-async: {which} not sent: {_OVER}")
        if self.conversation is not None and not self._is_closed:
            tell(f"conversation {printable(self.conversation.conversation_id)} is left open")

    def show_end(self) -> None:
        """Show for machines how it went."""
        for line in self._lines:
            self._view.unsent(line.number, _OVER)
        identity = None if self.conversation is None else self.conversation.conversation_id
        self._view.end(
            conversation_id=identity, closed=self._is_closed, lines_sent=self._sent, failures=self.failures
        )

    # What is read

    async def _talk(self, conversation: Conversation) -> None:
        async with aclosing(read_lines(self._descriptor)) as source:
            while (lines := await self._read(source)) is not None:
                self._lines.extend(lines)
                while self._lines:
                    if not await self._take(conversation, self._lines.popleft()):
                        return

    async def _read(self, source: AsyncGenerator[list[Line]]) -> list[Line] | None:
        try:
            return await anext(source, None)
        except OSError as error:
            self.failures += 1
            tell(f"connector-async: cannot read standard input: {error.strerror}")
            return None

    async def _take(self, conversation: Conversation, line: Line) -> bool:
        """Do what a line says; whether to go on."""
        try:
            text = _text(line)
        except ValueError as error:
            self._fail(line.number, "not_sent", str(error))
            return True
        command = text.strip()
        if command == "/quit":
            return False
        if command == "/close":
            await self._close(conversation)
            return False
        if text.startswith("/") and not text.startswith("//"):
            self._fail(line.number, "not_sent", f"{command.split()[0]} is no command; {_COMMANDS}")
            return True
        await self._say(conversation, line.number, text[1:] if text.startswith("//") else text)
        if conversation.is_closed:
            self._note_closed(None)
        return not self._is_closed

    async def _say(self, conversation: Conversation, number: int, text: str) -> None:
        answered = self._answered = anyio.Event()
        before = self._sent
        # Its outcome is waited for also where the agent closes meanwhile; the session's timeout bounds it.
        with anyio.CancelScope(shield=True):
            await self._send(conversation, number, text)
        if self._wait is not None and self._sent > before:
            with anyio.move_on_after(self._wait) as scope:
                await answered.wait()
            if scope.cancelled_caught:
                tell(f"no answer to line {number} within {self._wait:g} s")

    async def _send(self, conversation: Conversation, number: int, text: str) -> None:
        try:
            result = await conversation.send_text(text)
        except RequestError as error:
            self._fail(number, outcome_of(error), str(error))
            return
        except (ProtocolError, ValueError) as error:
            self._fail(number, "not_sent", str(error))
            return
        except anyio.get_cancelled_exc_class():
            self._fail(number, "unknown", "interrupted while it was being sent")
            raise
        self._sent += 1
        self._view.sent(
            number,
            text,
            request_id=result.request_id,
            attempts=len(result.attempts),
            maybe_duplicate=result.maybe_duplicate,
        )

    async def _close(self, conversation: Conversation) -> None:
        try:
            # The webhook that tells of the close would cancel the very call that closes.
            with anyio.CancelScope(shield=True):
                await conversation.close()
        except RequestError as error:
            self.failures += 1
            tell(f"connector-async: the conversation could not be closed: {printable(str(error))}")
        else:
            self._note_closed("CONSUMER")

    def _fail(self, number: int, status: str, reason: str) -> None:
        self.failures += 1
        self._view.failed(number, status, reason)

    # What is heard

    async def _hear(self, message: Incoming[Any]) -> None:
        if message.conversation.ext_consumer_id != self._consumer_id:
            return
        try:
            if isinstance(message.event, ConversationChange):
                if message.event.is_closed:
                    self._note_closed(message.event.close_reason)
            else:
                self._view.heard(message)
        except (BrokenPipeError, OutputLost) as error:
            # Raised here it would be a handler that failed, and the chat would go on for nobody.
            self._lost_output = error
            self._stop()
        if self._answered is not None and isinstance(message.event, ContentEvent | RichContentEvent):
            self._answered.set()
        if isinstance(message.event, ContentEvent | RichContentEvent) and message.sequence is not None:
            # As a consumer's app does; no receipt is worth an alarm, nor the end of the talk.
            with suppress(RequestError):
                await message.conversation.mark_read(message.sequence, dialog_id=message.dialog_id)

    def _note_closed(self, by: str | None) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._stop()
            self._view.closed(by)

    def _stop(self) -> None:
        # It is there while `run()` runs, and a webhook may come before and after.
        if self._rest is not None:
            self._rest.cancel()


def _text(line: Line) -> str:
    if line.raw is None:
        raise ValueError(f"longer than {MAX_LINE:,} bytes")
    try:
        return line.raw.decode("utf-8-sig" if line.number == 1 else "utf-8").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise ValueError(f"invalid UTF-8 at byte {error.start + 1}") from error
