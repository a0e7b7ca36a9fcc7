"""A notification taken apart: one part for each of its changes, with the key by which doubles are known."""

from __future__ import annotations

import hashlib
from typing import Any

import attrs
import orjson

from connector_async.wire import (
    ChatStateEvent,
    ConversationChange,
    ConversationChanges,
    MessagingEvent,
    MessagingEvents,
    Notification,
    Role,
    to_wire,
)

__all__ = ["Part", "split"]

_CONSUMER = Role.CONSUMER.value


@attrs.define(eq=False)
class Part:
    """One change of a notification.

    Attributes:
        index: Its place in the notification.
        conversation_id: What it is about; the lane in which it is handled.
        dialog_id: None for a conversation change.
        sequence: Its number in the dialog, or None.
        stamp: The time stamp by which conversation changes are ordered, or None.
        role: As what the originator of an event takes part, or None.
        event: An event in a dialog, or the conversation change itself.
        key: The same for each delivery of the same event; None for what may well come twice and is soon stale
            (chat states), and is therefore neither kept nor compared.
    """

    index: int
    conversation_id: str
    dialog_id: str | None
    sequence: int | None
    stamp: int | None
    role: str | None
    key: str | None
    event: object = attrs.field(repr=False)
    change: MessagingEvent | ConversationChange = attrs.field(repr=False)
    notification: Notification[Any] = attrs.field(repr=False)

    @property
    def lp_consumer_id(self) -> str | None:
        """The cloud's id of the consumer, where the change names it."""
        if isinstance(self.change, ConversationChange):
            return self.change.consumer.id if self.change.consumer is not None else None
        return self.change.originator_id if self.role == _CONSUMER else None

    @property
    def is_told_apart(self) -> bool:
        """It says itself whether our consumer caused it."""
        return self.role is not None or isinstance(self.change, ConversationChange)


def split(notification: Notification[Any]) -> list[Part]:
    """The parts of a notification, in its order; none for types that are neither events nor changes."""
    body = notification.body
    if isinstance(body, MessagingEvents):
        return [_event_part(index, change, notification) for index, change in enumerate(body.changes)]
    if isinstance(body, ConversationChanges):
        return [_change_part(index, change, notification) for index, change in enumerate(body.changes)]
    return []


def _event_part(index: int, change: MessagingEvent, notification: Notification[Any]) -> Part:
    event, dialog_id, sequence = change.event, str(change.dialog_id), change.sequence
    conversation_id = str(change.conversation_id or dialog_id)
    if isinstance(event, ChatStateEvent):
        key = sequence = None
    elif sequence is not None:
        key = f"event {conversation_id} {dialog_id} {sequence}"
    elif change.server_timestamp is None:
        key = None
    else:
        key = _digest_key(change)
    return Part(index, conversation_id, dialog_id, sequence, None, change.role, key, event, change, notification)


def _change_part(index: int, change: ConversationChange, notification: Notification[Any]) -> Part:
    conversation_id, stamp = str(change.conversation_id), change.updated_ts
    key = _digest_key(change) if stamp is None else f"change {conversation_id} {stamp}"
    return Part(index, conversation_id, None, None, stamp, None, key, change, change, notification)


def _digest_key(change: MessagingEvent | ConversationChange) -> str:
    """For the oldest feeds, which number nothing: the whole change."""
    canonical = orjson.dumps(to_wire(change), option=orjson.OPT_SORT_KEYS)
    return f"digest {hashlib.sha256(canonical).hexdigest()}"
