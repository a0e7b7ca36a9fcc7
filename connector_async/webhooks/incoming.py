"""What a handler gets: one event, with its conversation at hand."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import attrs

from connector_async import wire
from connector_async.wire import ContentEvent, DialogType, MessageAudience, MetadataItem, Role

if TYPE_CHECKING:
    from connector_async._send_result import SendResult
    from connector_async.consumer import Consumer
    from connector_async.conversation import Conversation
    from connector_async.session import ConnectorSession
    from connector_async.webhooks._parts import Part
    from connector_async.webhooks._ports import SessionPort
    from connector_async.wire import ConversationChange, MessagingEvent, Notification

__all__ = ["Incoming", "Unclaimed"]

E_co = TypeVar("E_co", covariant=True)

_CONSUMER, _ALL = Role.CONSUMER.value, MessageAudience.ALL.value


@attrs.frozen(kw_only=True)
class Turn:
    """The circumstances in which an event is handed out."""

    after_gap: bool = False
    is_late: bool = False
    attempt: int = 1
    done: Collection[Callable[[Incoming[Any]], Awaitable[object]]] = ()
    """Handlers that succeeded with it at an earlier attempt."""


class Incoming(Generic[E_co]):
    """One event of a conversation of ours."""

    __slots__ = ("_conversation", "_dialog_type", "_is_echo", "_part", "_port", "_turn")

    def __init__(  # noqa: PLR0917 - made in one place, for each event: keywords would cost as much again
        self,
        part: Part,
        turn: Turn,
        conversation: Conversation,
        port: SessionPort,
        dialog_type: str | None,
        is_echo: bool,  # noqa: FBT001 - as above
    ) -> None:
        self._part = part
        self._turn = turn
        self._conversation = conversation
        self._port = port
        self._dialog_type = dialog_type
        self._is_echo = is_echo

    @property
    def event(self) -> E_co:
        """What happened, typed: `ContentEvent`, `AcceptStatusEvent`, `ConversationChange` …, or `UnknownEvent`."""
        return self._part.event  # type: ignore[return-value]  # the router asked for it

    @property
    def conversation(self) -> Conversation:
        """Where it happened."""
        return self._conversation

    @property
    def consumer(self) -> Consumer:
        """Whose conversation it is."""
        return self._conversation.consumer

    @property
    def session(self) -> ConnectorSession:
        """The session that got it."""
        return self._port.session

    @property
    def account_id(self) -> str:
        """The account."""
        return self._port.account_id

    @property
    def conversation_id(self) -> str:
        """The conversation's id."""
        return self._part.conversation_id

    @property
    def dialog_id(self) -> str | None:
        """The dialog's id; None for a conversation change, which is about all of them."""
        return self._part.dialog_id

    @property
    def dialog_type(self) -> str | None:
        """`MAIN`, `POST_SURVEY` …; None where it is not known."""
        return self._dialog_type

    @property
    def sequence(self) -> int | None:
        """Its number in the dialog; None for chat states and conversation changes."""
        return self._part.sequence

    @property
    def role(self) -> str | None:
        """As what its originator takes part (see `Role`), or None where the feed does not say."""
        return self._part.role

    @property
    def originator_id(self) -> str | None:
        """Who caused it, as the cloud knows them."""
        return self.change.originator_id if isinstance(self.change, wire.MessagingEvent) else None

    @property
    def is_echo(self) -> bool:
        """The consumer caused it: it is what we sent."""
        return self._is_echo

    @property
    def after_gap(self) -> bool:
        """Numbers before it in the dialog are missing; they may still come, then with `is_late`."""
        return self._turn.after_gap

    @property
    def is_late(self) -> bool:
        """Events after it were handed out before it."""
        return self._turn.is_late

    @property
    def attempt(self) -> int:
        """1, or more when a handler failed and the durable store delivers it again."""
        return self._turn.attempt

    @property
    def change(self) -> MessagingEvent | ConversationChange:
        """The entry of the notification's `changes`, with all that came."""
        return self._part.change

    @property
    def notification(self) -> Notification[Any]:
        """The whole notification."""
        return self._part.notification

    @property
    def text(self) -> str:
        """What was said; empty where it is no text."""
        return (self.event.text or "") if isinstance(self.event, ContentEvent) else ""

    @property
    def sent_at(self) -> datetime | None:
        """When the cloud took it, or None: chat states do not say."""
        return self.change.sent_at if isinstance(self.change, wire.MessagingEvent) else None

    @property
    def metadata(self) -> tuple[MetadataItem, ...]:
        """Items about the event, such as the question of a survey."""
        return (self.change.metadata or ()) if isinstance(self.change, wire.MessagingEvent) else ()

    @property
    def audience(self) -> str:
        """Who may see it; anything but ALL must not be shown to the consumer."""
        change = self._part.change
        return (change.message_audience if isinstance(change, wire.MessagingEvent) else None) or _ALL

    async def reply(self, text: str, **options: Any) -> SendResult:
        """Say something in the same dialog, as its consumer.

        Args:
            text: What to say.
            options: As for `Conversation.send_text`.

        Raises:
            RequestError: As `Conversation.send_text`.
        """
        options.setdefault("dialog_id", self.dialog_id)
        return await self.conversation.send_text(text, **options)

    def __repr__(self) -> str:
        return (
            f"Incoming(event={self.event!r}, conversation_id={self.conversation_id!r}, dialog_id={self.dialog_id!r}, "
            f"sequence={self.sequence!r}, role={self.role!r}, attempt={self.attempt!r})"
        )


@attrs.frozen(kw_only=True, eq=False)
class Unclaimed:
    """An event of a conversation that no store knows: of another channel of the account, or of a lost store.

    Attributes:
        account_id: The account.
        conversation_id: The conversation.
        lp_consumer_id: The cloud's id of its consumer, where the notification names it.
        event: What happened.
        notification: The whole notification.
    """

    account_id: str
    conversation_id: str
    lp_consumer_id: str | None
    event: object
    notification: Notification[Any] = attrs.field(repr=False)


def guess_dialog_type(conversation_id: str, dialog_id: str) -> str | None:
    """The MAIN dialog has the id of its conversation; of the others only a conversation change tells more."""
    return DialogType.MAIN if dialog_id == conversation_id else None


def is_from_consumer(role: str | None, originator_id: str | None, lp_consumer_id: str | None) -> bool:
    """Whether an event is an echo of ours.

    Feeds without roles name only the originator. Where even our consumer's id is not known, it counts as an echo: a
    bot that missed a message is better than one that answers itself.
    """
    if role is not None:
        return role == _CONSUMER
    return lp_consumer_id is None or originator_id in (None, lp_consumer_id)
