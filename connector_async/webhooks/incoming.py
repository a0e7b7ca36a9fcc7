"""What a handler gets: one event, with its conversation at hand."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import attrs

from connector_async.wire import (
    ContentEvent,
    ConversationChange,
    DialogType,
    MessageAudience,
    MessagingEvent,
    MetadataItem,
    Notification,
    Role,
)

if TYPE_CHECKING:
    from connector_async._send_result import SendResult
    from connector_async.consumer import Consumer
    from connector_async.conversation import Conversation
    from connector_async.session import ConnectorSession

__all__ = ["Incoming", "Unclaimed"]

E_co = TypeVar("E_co", covariant=True)

_CONSUMER, _ALL = Role.CONSUMER.value, MessageAudience.ALL.value


@attrs.frozen(kw_only=True, eq=False)
class Incoming(Generic[E_co]):
    """One event of a conversation of ours.

    Attributes:
        event: What happened, typed: `ContentEvent`, `RichContentEvent`, `AcceptStatusEvent`, `ChatStateEvent`,
            `ConversationChange`, or `UnknownEvent`.
        conversation: The `Conversation` that it happened in.
        consumer: The `Consumer` of that conversation.
        session: The session that got it.
        account_id: The account.
        conversation_id: The conversation's id.
        dialog_id: The dialog; None for a conversation change, which is about all of them.
        dialog_type: `MAIN`, `POST_SURVEY` …; None where it is not known.
        sequence: The event's number in its dialog; None for chat states and conversation changes.
        role: As what its originator takes part (see `Role`), or None where the feed does not say.
        originator_id: Who caused it, as the cloud knows them.
        is_echo: The consumer caused it: it is what we sent.
        after_gap: Numbers before it in the dialog are missing; they may still come, then with `is_late`.
        is_late: Events after it were handed out before it.
        attempt: 1, or more when a handler failed and the durable store delivers it again.
        change: The entry of the notification's `changes`, with all that came.
        notification: The whole notification.
    """

    event: E_co
    conversation: Conversation
    consumer: Consumer
    session: ConnectorSession = attrs.field(repr=False)
    account_id: str
    conversation_id: str
    dialog_id: str | None
    dialog_type: str | None
    sequence: int | None
    role: str | None
    originator_id: str | None
    is_echo: bool
    after_gap: bool
    is_late: bool
    attempt: int
    change: MessagingEvent | ConversationChange = attrs.field(repr=False)
    notification: Notification[Any] = attrs.field(repr=False)

    @property
    def text(self) -> str:
        """What was said; empty where it is no text."""
        return (self.event.text or "") if isinstance(self.event, ContentEvent) else ""

    @property
    def sent_at(self) -> datetime | None:
        """When the cloud took it, or None: chat states do not say."""
        return self.change.sent_at if isinstance(self.change, MessagingEvent) else None

    @property
    def metadata(self) -> tuple[MetadataItem, ...]:
        """Items about the event, such as the question of a survey."""
        return (self.change.metadata or ()) if isinstance(self.change, MessagingEvent) else ()

    @property
    def audience(self) -> str:
        """Who may see it; anything but ALL must not be shown to the consumer."""
        told = self.change.message_audience if isinstance(self.change, MessagingEvent) else None
        return told or _ALL

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


def is_from_consumer(change: MessagingEvent, lp_consumer_id: str | None) -> bool:
    """Whether an event is an echo of ours.

    Feeds without roles name only the originator. Where even our consumer's id is not known, it counts as an echo: a
    bot that missed a message is better than one that answers itself.
    """
    if change.role is not None:
        return change.role == _CONSUMER
    return lp_consumer_id is None or change.originator_id in (None, lp_consumer_id)
