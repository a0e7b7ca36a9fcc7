"""The brand's side: an agent whom a test or a person plays, and scripted agents that answer by themselves.

Everything an agent does is a plain call that has its effect at once; only `hears()` waits. The scripts listen to what
happens and let the desk act after a moment.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

import anyio

from connector_async.sandbox._background import Background
from connector_async.sandbox._json import Json
from connector_async.sandbox._state import Account, Conversation, Dialog, Happening
from connector_async.sandbox.model import CloudModel

__all__ = ["AgentDesk", "Script"]

Script = Callable[["AgentDesk", Happening], None]
"""Called with everything that happens; acts through the desk."""

AGENT: Final = "sandbox-agent"
_HEARD: Final = 10_000


class AgentDesk:
    """Plays the agents of an account.

    Every method takes a conversation id and works in the dialog that is open (the survey, once that has begun).
    `LookupError` for a conversation that does not exist.
    """

    def __init__(
        self, model: CloudModel, account: Account, background: Background, clock: Callable[[], float]
    ) -> None:
        self._model = model
        self._account = account
        self._background = background
        self._clock = clock
        self._heard: deque[Happening] = deque(maxlen=_HEARD)
        self._hearing = anyio.Event()

    def later(self, seconds: float, act: Callable[[], None]) -> None:
        """Do something after so many seconds."""
        self._background.later(seconds, act)

    def on_happening(self, happening: Happening) -> None:
        """Take note of what a consumer says."""
        if happening.account is self._account and happening.role == "CONSUMER":
            self._heard.append(happening)
            self._hearing.set()

    def conversation(self, conversation_id: str) -> Conversation:
        """The conversation of that id."""
        try:
            return self._account.conversations[conversation_id]
        except KeyError:
            raise LookupError(f"no conversation {conversation_id} in account {self._account.account_id}") from None

    def _publish(
        self, conversation_id: str, event: Json, *, metadata: object = None, audience: str = "ALL", role: str = ""
    ) -> int | None:
        conversation = self.conversation(conversation_id)
        dialog = conversation.current
        identity = self._identity(conversation, dialog)
        role = role or ("AGENT" if dialog.dialog_type == "POST_SURVEY" else "ASSIGNED_AGENT")
        return self._model.publish(
            conversation, dialog, identity, role, event, now=self._clock(), metadata=metadata, audience=audience
        )

    def _identity(self, conversation: Conversation, dialog: Dialog) -> str:
        if dialog.dialog_type == "POST_SURVEY":
            return "survey-bot"
        if conversation.agent_id is None:
            self.joins(conversation.conversation_id)
        return conversation.agent_id or AGENT

    def joins(self, conversation_id: str, agent_id: str = AGENT, role: str = "ASSIGNED_AGENT") -> None:
        """An agent (or a manager, a reader) takes part."""
        self._model.join(self.conversation(conversation_id), agent_id, role, self._clock())

    def leaves(self, conversation_id: str, agent_id: str | None = None) -> None:
        """The assigned agent, or somebody else, goes."""
        conversation = self.conversation(conversation_id)
        identity = agent_id or conversation.agent_id
        if identity is not None:
            self._model.leave(conversation, identity, self._clock())

    def transfers(self, conversation_id: str, skill_id: str) -> None:
        """The conversation goes to another skill; the agent leaves it."""
        self._model.transfer(self.conversation(conversation_id), skill_id, self._clock())

    def says(
        self,
        conversation_id: str,
        text: str,
        *,
        quick_replies: Sequence[Json] | None = None,
        metadata: object = None,
        audience: str = "ALL",
        role: str = "",
    ) -> int | None:
        """The agent writes a text; returns its number in the dialog."""
        event: Json = {"type": "ContentEvent", "contentType": "text/plain", "message": text}
        if quick_replies is not None:
            event["quickReplies"] = {"type": "quickReplies", "itemsPerRow": 8, "replies": list(quick_replies)}
        return self._publish(conversation_id, event, metadata=metadata, audience=audience, role=role)

    def shows(self, conversation_id: str, content: Json, *, metadata: object = None) -> int | None:
        """The agent sends structured content; returns its number in the dialog."""
        return self._publish(conversation_id, {"type": "RichContentEvent", "content": content}, metadata=metadata)

    def publishes(self, conversation_id: str, event: Json, **options: Any) -> int | None:
        """The agent publishes any event, such as one that no client knows yet."""
        return self._publish(conversation_id, event, **options)

    def types(self, conversation_id: str, state: str = "COMPOSING") -> None:
        """The agent's chat state."""
        self._publish(conversation_id, {"type": "ChatStateEvent", "chatState": state})

    def accepts(self, conversation_id: str, sequences: Sequence[int] | None = None) -> int | None:
        """The agent's side has got messages; by default all of the consumer's that have no such receipt."""
        return self._acknowledge(conversation_id, "ACCEPT", sequences)

    def reads(self, conversation_id: str, sequences: Sequence[int] | None = None) -> int | None:
        """The agent has read messages; by default all of the consumer's that have no such receipt."""
        return self._acknowledge(conversation_id, "READ", sequences)

    def _acknowledge(self, conversation_id: str, status: str, sequences: Sequence[int] | None) -> int | None:
        dialog = self.conversation(conversation_id).current
        open_numbers = dialog.unread if status == "READ" else dialog.unaccepted
        if sequences is None:
            sequences = list(open_numbers)
            open_numbers.clear()
        if not sequences:
            return None
        event = {"type": "AcceptStatusEvent", "status": status, "sequenceList": list(sequences)}
        return self._publish(conversation_id, event)

    def closes(self, conversation_id: str, *, by: str = "AGENT", survey: bool = True) -> None:
        """The agent (or `SYSTEM`) closes the conversation; a survey that is due follows unless `survey=False`."""
        conversation = self.conversation(conversation_id)
        cause = f"Closed by {by.lower()}"
        if survey and conversation.current.is_open:
            self._model.close_dialog(conversation, conversation.current, by=by, cause=cause, now=self._clock())
        elif conversation.is_open:
            self._model.close(conversation, by=by, cause=cause, now=self._clock())

    def completes_survey(self, conversation_id: str) -> None:
        """The survey has come to its end; with it the conversation."""
        conversation = self.conversation(conversation_id)
        self._model.close_dialog(conversation, conversation.current, by="AGENT", cause="Completed", now=self._clock())

    async def hears(self, conversation_id: str | None = None, *, timeout: float = 5.0) -> str:
        """The next text of a consumer that was not heard yet, waiting for it.

        Raises:
            TimeoutError: Nothing came in time.
        """
        happening = await self.meets(conversation_id, "ContentEvent", timeout=timeout)
        message = happening.change["event"]["message"]
        return message if isinstance(message, str) else str(message.get("caption", ""))

    async def meets(
        self, conversation_id: str | None = None, event_type: str | None = None, *, timeout: float = 5.0
    ) -> Happening:
        """The next event of a consumer, receipts and chat states included, or only those of one type."""
        with anyio.fail_after(timeout):
            while True:
                for happening in self._heard:
                    fits = conversation_id in (None, happening.conversation.conversation_id)
                    if fits and event_type in (None, happening.change["event"]["type"]):
                        self._heard.remove(happening)
                        return happening
                self._hearing = anyio.Event()
                await self._hearing.wait()
