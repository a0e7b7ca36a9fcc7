"""How a conversation is shown: lines for a person, or JSON lines."""

from __future__ import annotations

import sys
from typing import Any, Final, TextIO, cast

import attrs

from connector_async.cli._console import emit, say, tell
from connector_async.cli._printable import choices_of, printable, words_of
from connector_async.conversation import Conversation
from connector_async.webhooks import Incoming
from connector_async.wire import AcceptStatusEvent, ChatState, ChatStateEvent, ContentEvent, RichContentEvent, to_wire

__all__ = ["ChatView"]

_WIDTH: Final = 8
_RECEIPTS: Final = {"ACCEPT": "delivered", "READ": "read"}
_OUTCOMES: Final = {"refused": "was refused", "not_sent": "was not sent", "unknown": "may have arrived or not"}


@attrs.frozen
class ChatView:
    """Words go to standard output; what is beside them, such as receipts, to standard error.

    Attributes:
        as_json: One JSON object for each thing that happens instead, all on standard output; `event` says what it is.
        is_echoed: The terminal shows already what its user typed.
    """

    as_json: bool
    is_echoed: bool

    def opened(self, conversation: Conversation) -> None:
        """It begins."""
        self._emit("opened", conversation_id=conversation.conversation_id)
        tell(f"conversation {printable(conversation.conversation_id)} is open")
        if self.is_echoed:
            tell("type a line to say it; /close closes the conversation and ends, /quit ends and leaves it open")

    def sent(self, line: int, text: str, *, request_id: str, attempts: int, maybe_duplicate: bool) -> None:
        """The cloud has taken a line."""
        self._emit(
            "sent",
            line=line,
            text=text,
            request_id=request_id,
            attempts=attempts,
            maybe_duplicate=maybe_duplicate,
        )
        if not self.as_json and not self.is_echoed:
            _say("you:", text)
        if maybe_duplicate:
            tell(f"line {line} was sent {attempts} times and may have arrived more than once")

    def failed(self, line: int, status: str, reason: str) -> None:
        """A line that the cloud has not taken, or that it may not have."""
        tell(f"connector-async: line {line} {_OUTCOMES[status]}: {printable(reason)}")
        self._emit("failed", line=line, status=status, reason=reason)

    def unsent(self, line: int, reason: str) -> None:
        """A line that was read and never sent; a person is told of all of them in one sentence."""
        self._emit("failed", line=line, status="not_sent", reason=reason)

    def heard(self, message: Incoming[Any]) -> None:
        """The brand's side says or does something."""
        event = message.event
        if isinstance(event, ContentEvent | RichContentEvent):
            self._message(message, event)
        elif isinstance(event, AcceptStatusEvent):
            self._emit("receipt", status=event.status, sequences=list(event.sequence_list))
            self._aside(_RECEIPTS.get(event.status, event.status))
        elif isinstance(event, ChatStateEvent):
            self._emit("chat_state", state=event.chat_state)
            if event.chat_state == ChatState.COMPOSING:
                self._aside("the agent is typing")

    def closed(self, by: str | None) -> None:
        """The conversation is over."""
        self._emit("closed", by=by)
        self._aside(f"the conversation is closed{f' by {by.lower()}' if by else ''}")

    def end(self, **facts: Any) -> None:
        """The last of all lines, for machines."""
        self._emit("end", **facts)

    def _message(self, message: Incoming[Any], event: ContentEvent | RichContentEvent) -> None:
        words = words_of(event)
        self._emit("message", role=message.role, sequence=message.sequence, text=words, content=to_wire(event))
        if not self.as_json:
            _say("agent:", "\n".join(filter(None, (words, choices_of(event)))))

    def _emit(self, event: str, **facts: Any) -> None:
        if self.as_json:
            emit({"event": event, **facts})

    def _aside(self, words: str) -> None:
        if not self.as_json:
            tell(f"{'':{_WIDTH}}({printable(words)})")


def _say(who: str, words: str) -> None:
    """Say it with the name before the first line only: no further line can pretend to be somebody else's."""
    lines = [printable(line) for line in words.replace("\r\n", "\n").split("\n")]
    text = f"{who:<{_WIDTH}}" + f"\n{'':{_WIDTH}}".join(lines)
    stream = cast("TextIO | None", sys.stdout)
    encoding = getattr(stream, "encoding", None) or "utf-8"
    say(text.encode(encoding, "backslashreplace").decode(encoding))
