"""What webhooks bring: events in dialogs, and changes of conversations.

Both come in several generations; whatever an older one lacks is None or empty here, and the questions answer from
what is there.

Source: Connector API, "Webhooks: events"; Messaging Window API; published schemas.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar, Final, Generic, TypeVar

import attrs

from connector_async.wire._base import Message
from connector_async.wire._converter import readers
from connector_async.wire._metadata import MetadataItem, as_metadata
from connector_async.wire._reading import ABSENT
from connector_async.wire.context import ClientProperties
from connector_async.wire.conversation import (
    ConversationDetails,
    Dialog,
    Participant,
)
from connector_async.wire.events import ContentEvent, Event
from connector_async.wire.ids import ConversationId, DialogId
from connector_async.wire.vocabulary import MessageAudience, Role

__all__ = [
    "ConversationChange",
    "ConversationChanges",
    "ConversationResult",
    "MessagingEvent",
    "MessagingEvents",
    "Notification",
    "Originator",
]

N_co = TypeVar("N_co", covariant=True)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Originator(Message):
    """Who caused an event, and as what; see `Role`."""

    id: str | None = None
    role: str | None = None
    client_properties: ClientProperties | None = attrs.field(default=None, repr=False)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class MessagingEvent(Message):
    """One event in a dialog.

    Attributes:
        event: What happened.
        dialog_id: Where. In the MAIN dialog this is also the conversation's id.
        conversation_id: Absent in older feeds; `conversation` knows what to do then.
        sequence: The event's number in its dialog; chat states have none.
        originator_id: Who caused it.
        originator_metadata: The same with the role; absent in the oldest feeds.
        server_timestamp: Milliseconds since 1970; chat states have none. `sent_at` is the same as a time.
        message_audience: Anything but ALL, or absence, must not be shown to the consumer.
        metadata: Items about the event; None where it is null or absent.
        event_id: In agent feeds.
    """

    event: Event
    dialog_id: DialogId
    conversation_id: ConversationId | None = None
    sequence: int | None = None
    originator_id: str | None = None
    originator_metadata: Originator | None = None
    originator_client_properties: ClientProperties | None = attrs.field(default=None, repr=False)
    originator_pid: str | None = attrs.field(default=None, metadata={"wire": "originatorPId"})
    server_timestamp: int | None = None
    message_audience: str | None = None
    metadata: tuple[MetadataItem, ...] | None = attrs.field(default=None, converter=as_metadata)
    event_id: str | None = None

    @property
    def conversation(self) -> ConversationId:
        """The conversation's id; where the feed does not name it, that of the dialog, right for MAIN ones only."""
        return self.conversation_id or ConversationId(self.dialog_id)

    @property
    def role(self) -> str | None:
        """As what the originator takes part, or None where the feed does not say."""
        return self.originator_metadata.role if self.originator_metadata else None

    @property
    def text(self) -> str | None:
        """The text, or None where the event is none."""
        return self.event.text if isinstance(self.event, ContentEvent) else None

    @property
    def is_from_consumer(self) -> bool:
        """Whether the consumer caused it: an echo of what the connector sent."""
        return self.role == Role.CONSUMER

    @property
    def is_for_consumer(self) -> bool:
        """Whether the consumer may see it."""
        return self.message_audience in (None, MessageAudience.ALL)

    @property
    def sent_at(self) -> datetime | None:
        """When the server took it, or None."""
        return _moment(self.server_timestamp)


def _moment(timestamp: int | None) -> datetime | None:
    """Turn milliseconds into a time; numbers beyond the calendar are none."""
    try:
        return None if timestamp is None else datetime.fromtimestamp(timestamp / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _as_events(changes: Iterable[MessagingEvent]) -> tuple[MessagingEvent, ...]:
    return tuple(changes)


@attrs.frozen(eq=False, repr=False)
class MessagingEvents(Message):
    """The body of `ms.MessagingEventNotification`: one or more events, in the order they came.

    Attributes:
        changes: The events.
        dialog_id: Beside them in agent feeds.
        subscription_id: In feeds with subscriptions.
        sent_ts: Milliseconds since 1970, where it is told.
    """

    TYPE: ClassVar[str] = "ms.MessagingEventNotification"

    changes: tuple[MessagingEvent, ...] = attrs.field(converter=_as_events)
    dialog_id: DialogId | None = attrs.field(default=None, kw_only=True)
    subscription_id: str | None = attrs.field(default=None, kw_only=True)
    sent_ts: int | None = attrs.field(default=None, kw_only=True)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ConversationResult(Message):
    """A conversation as it is now, with what only feeds for agents add.

    Attributes:
        conv_id: The conversation.
        conversation_details: Its state; complete in every change.
        effective_ttr: Until when a response is due, in milliseconds since 1970; -1 for none.
        last_update_time: Milliseconds since 1970; in older feeds.
        last_content_event_notification: A copy of the last event with content; in agent feeds.
        number_of_unread_messages: By participant; in agent feeds.
    """

    conv_id: ConversationId
    conversation_details: ConversationDetails | None = None
    effective_ttr: int | None = attrs.field(default=None, metadata={"wire": "effectiveTTR"})
    last_update_time: int | None = None
    last_content_event_notification: MessagingEvent | None = attrs.field(default=None, repr=False)
    number_of_unread_messages: Mapping[str, object] | None = attrs.field(
        default=None, hash=False, metadata={"wire": "numberOfunreadMessages"}
    )


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ConversationChange(Message):
    """One conversation that was opened, changed or closed; it carries the complete state.

    Attributes:
        result: The conversation.
        type: `UPSERT`, or `DELETE` when it leaves the feed.
    """

    result: ConversationResult
    type: str = "UPSERT"

    @property
    def conversation_id(self) -> ConversationId:
        """Which conversation."""
        return self.result.conv_id

    @property
    def details(self) -> ConversationDetails:
        """Its state; empty where the change brings none."""
        return self.result.conversation_details or _NO_DETAILS

    @property
    def updated_ts(self) -> int | None:
        """Milliseconds since 1970 by which changes of one conversation are ordered, or None."""
        return self.details.meta_data_last_update_ts or self.result.last_update_time

    @property
    def is_closed(self) -> bool:
        """Whether the whole conversation is over, surveys included."""
        return self.details.is_closed

    @property
    def close_reason(self) -> str | None:
        """Who closed it, or None; see `CloseReason`."""
        return self.details.close_reason

    @property
    def main_dialog(self) -> Dialog | None:
        """The dialog with the agent, or None in feeds without dialogs."""
        return self.details.main_dialog

    @property
    def survey_dialog(self) -> Dialog | None:
        """The survey: the open one, else the latest; None where there is none."""
        return self.details.survey_dialog

    @property
    def assigned_agent(self) -> Participant | None:
        """The agent who has accepted the conversation, or None."""
        return self.details.assigned_agent

    @property
    def consumer(self) -> Participant | None:
        """The consumer as the cloud knows them (`lp_consumer_id`), or None."""
        return self.details.consumer

    def dialog(self, dialog_id: str) -> Dialog | None:
        """Find a dialog by its id, or None."""
        return self.details.dialog(dialog_id)


_NO_DETAILS: Final = ConversationDetails()


def _as_changes(changes: Iterable[ConversationChange]) -> tuple[ConversationChange, ...]:
    return tuple(changes)


@attrs.frozen(eq=False, repr=False)
class ConversationChanges(Message):
    """The body of `cqm.ExConversationChangeNotification`: none, one or more changes.

    Attributes:
        changes: The changes.
        sent_ts: Milliseconds since 1970, where it is told.
        subscription_id: In feeds with subscriptions.
    """

    TYPE: ClassVar[str] = "cqm.ExConversationChangeNotification"

    changes: tuple[ConversationChange, ...] = attrs.field(converter=_as_changes)
    sent_ts: int | None = attrs.field(default=None, kw_only=True)
    subscription_id: str | None = attrs.field(default=None, kw_only=True)


BODIES: Final[Mapping[str, type[MessagingEvents | ConversationChanges]]] = {
    MessagingEvents.TYPE: MessagingEvents,
    ConversationChanges.TYPE: ConversationChanges,
}


def _read_news(raw: Any, source: Mapping[str, Any], _arg: object) -> object:
    kind = source.get("type")
    cls = BODIES.get(kind) if isinstance(kind, str) else None
    if cls is None:
        return None if raw is ABSENT else raw
    return readers[cls](raw if raw is not ABSENT else {})


def _type_of_news(notification: Notification[Any]) -> str:
    body: Any = notification.body
    if isinstance(body, MessagingEvents | ConversationChanges):
        return body.TYPE
    msg = "Notification.type must be given with a body that is no class of ours"
    raise TypeError(msg)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Notification(Message, Generic[N_co]):
    """One notification, as a webhook brings it.

    Attributes:
        body: `MessagingEvents` or `ConversationChanges`; for other types the JSON value as it came.
        type: The wire type.
        kind: `notification`.
    """

    body: N_co = attrs.field(metadata={"read": _read_news})
    type: str = attrs.field(default=attrs.Factory(_type_of_news, takes_self=True), metadata={"required": True})
    kind: str = "notification"
