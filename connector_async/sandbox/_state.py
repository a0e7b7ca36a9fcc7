"""The objects whose state the cloud keeps: accounts, consumers, conversations, dialogs.

They hold data and answer questions about it; the rules for changing them are in `model`. Times are wall-clock
seconds.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

import attrs

from connector_async.sandbox._json import Json
from connector_async.sandbox.tokens import AppToken

__all__ = ["Account", "Consumer", "Conversation", "Dialog", "Happening", "StoredFile", "millis"]

# A dialog's transcript is for people and tests to look at; a bound keeps a soak from growing without end.
_TRANSCRIPT: Final = 500


def millis(at: float) -> int:
    """Wall-clock seconds as the API's integer milliseconds."""
    return int(at * 1000)


@attrs.define(eq=False)
class Dialog:
    """One dialog of a conversation, with the counter that numbers its content and receipts.

    Attributes:
        unaccepted, unread: Numbers of the consumer's messages that lack such a receipt of the brand's side.
    """

    dialog_id: str
    dialog_type: str
    created_at: float
    channel_type: str = "MESSAGING"
    is_open: bool = True
    ended_at: float | None = None
    closed_by: str | None = None
    closed_cause: str | None = None
    next_sequence: int = 0
    participants: dict[str, str] = attrs.field(factory=dict[str, str])
    unaccepted: deque[int] = attrs.field(factory=lambda: deque[int](maxlen=_TRANSCRIPT))
    unread: deque[int] = attrs.field(factory=lambda: deque[int](maxlen=_TRANSCRIPT))
    transcript: deque[Json] = attrs.field(factory=lambda: deque[Json](maxlen=_TRANSCRIPT))

    def take_sequence(self) -> int:
        """The next number of this dialog."""
        number = self.next_sequence
        self.next_sequence = number + 1
        return number

    def describe(self, changed_ms: int) -> Json:
        """The dialog as it stands in `conversationDetails.dialogs[]`."""
        described: Json = {
            "dialogId": self.dialog_id,
            "participantsDetails": [
                {"id": identity, "role": role, "state": "ACTIVE"} for identity, role in self.participants.items()
            ],
            "dialogType": self.dialog_type,
            "channelType": self.channel_type,
            "state": "OPEN" if self.is_open else "CLOSE",
            "creationTs": millis(self.created_at),
            "metaDataLastUpdateTs": changed_ms,
        }
        if self.ended_at is not None:
            described |= {
                "endTs": millis(self.ended_at),
                "closedBy": self.closed_by,
                "closedCause": self.closed_cause,
            }
        return described


@attrs.define(eq=False)
class Conversation:
    """One conversation; its MAIN dialog has the same id."""

    conversation_id: str
    account: Account = attrs.field(repr=False)
    consumer: Consumer = attrs.field(repr=False)
    started_at: float
    skill_id: str = "-1"
    ttr_type: str = "NORMAL"
    ttr_seconds: int = 3600
    campaign: Json | None = None
    context: Json | None = None
    features: frozenset[str] = frozenset()
    dialogs: list[Dialog] = attrs.field(factory=list[Dialog])
    participants: dict[str, str] = attrs.field(factory=dict[str, str])
    stage: str = "OPEN"
    close_reason: str | None = None
    ended_at: float | None = None
    csat: Json | None = None
    is_first: bool = True
    changed_ms: int = 0
    greeted: bool = False

    @property
    def is_open(self) -> bool:
        """Whether the conversation as a whole is open; a survey keeps it so."""
        return self.stage == "OPEN"

    @property
    def main(self) -> Dialog:
        """The MAIN dialog."""
        return self.dialogs[0]

    @property
    def survey(self) -> Dialog | None:
        """The open survey dialog."""
        return next((d for d in self.dialogs if d.dialog_type == "POST_SURVEY" and d.is_open), None)

    @property
    def current(self) -> Dialog:
        """The dialog that is spoken in now."""
        return self.survey or self.main

    @property
    def agent_id(self) -> str | None:
        """The assigned agent."""
        return next((one for one, role in self.participants.items() if role == "ASSIGNED_AGENT"), None)

    def touch(self, now: float) -> None:
        """Move `metaDataLastUpdateTs` on, also within one millisecond: clients order changes by it."""
        self.changed_ms = max(millis(now), self.changed_ms + 1)

    def describe(self) -> Json:
        """`result` of an ExConversationChange: the complete state."""
        details: Json = {
            "skillId": self.skill_id,
            "participants": [{"id": identity, "role": role} for identity, role in self.participants.items()],
            "dialogs": [dialog.describe(self.changed_ms) for dialog in self.dialogs],
            "brandId": self.account.account_id,
            "state": "OPEN" if self.main.is_open else "CLOSE",
            "stage": self.stage,
            "startTs": millis(self.started_at),
            "metaDataLastUpdateTs": self.changed_ms,
            "firstConversation": self.is_first,
            "ttr": {"ttrType": self.ttr_type, "value": self.ttr_seconds},
        }
        optional = {
            "closeReason": self.close_reason,
            "endTs": None if self.ended_at is None else millis(self.ended_at),
            "csat": self.csat,
            "campaignInfo": self.campaign,
            "context": self.context,
        }
        details |= {key: value for key, value in optional.items() if value is not None}
        effective = -1 if not self.main.is_open else millis(self.started_at) + self.ttr_seconds * 1000
        return {"convId": self.conversation_id, "effectiveTTR": effective, "conversationDetails": details}


@attrs.define(eq=False)
class Consumer:
    """One consumer of an account."""

    lp_id: str
    ext_id: str = attrs.field(repr=False)
    token: str = attrs.field(repr=False)
    profile: Json | None = attrs.field(default=None, repr=False)
    open_conversation: Conversation | None = attrs.field(default=None, repr=False)
    has_conversed: bool = False


@attrs.frozen
class StoredFile:
    """What was PUT into the file storage."""

    data: bytes = attrs.field(repr=False)
    content_type: str


@attrs.define(eq=False)
class Account:
    """One account, with the one app that is installed in it.

    Attributes:
        survey: Whether closing a MAIN dialog starts a survey where the client announces MULTI_DIALOG.
        file_sharing: The account's `messaging.file.sharing.enabled`.
    """

    account_id: str
    client_id: str
    client_secret: str = attrs.field(repr=False)
    survey: bool = False
    file_sharing: bool = True
    generation: int = 0
    app_tokens: dict[bytes, AppToken] = attrs.field(factory=dict[bytes, AppToken], repr=False)
    consumers: dict[str, Consumer] = attrs.field(factory=dict[str, Consumer], repr=False)
    consumer_tokens: dict[bytes, Consumer] = attrs.field(factory=dict[bytes, Consumer], repr=False)
    conversations: dict[str, Conversation] = attrs.field(factory=dict[str, Conversation], repr=False)
    dialogs: dict[str, tuple[Conversation, Dialog]] = attrs.field(
        factory=dict[str, tuple[Conversation, Dialog]], repr=False
    )
    uploads: dict[str, int] = attrs.field(factory=dict[str, int], repr=False)
    files: dict[str, StoredFile] = attrs.field(factory=dict[str, StoredFile], repr=False)


@attrs.frozen(eq=False)
class Happening:
    """One thing that a webhook tells: a change of a conversation, or an event in a dialog.

    Attributes:
        key: The manifest's name for it, such as `ms.MessagingEventNotification.ContentEvent`.
        change: The one entry of `changes[]`.
        at: Wall-clock seconds.
    """

    account: Account
    conversation: Conversation
    dialog: Dialog
    key: str
    change: dict[str, Any]
    at: float

    @property
    def event(self) -> Json | None:
        """The event of a message; None for a change of the conversation."""
        return self.change.get("event")

    @property
    def role(self) -> str | None:
        """Who caused it; None for a change of the conversation."""
        originator = self.change.get("originatorMetadata")
        return None if originator is None else originator["role"]

    def notification(self) -> Json:
        """The envelope as it is delivered."""
        kind, _, event = self.key.rpartition(".")
        if event == "ExConversationChangeNotification":
            body = {"sentTs": millis(self.at), "changes": [self.change]}
            return {"kind": "notification", "body": body, "type": self.key}
        return {"kind": "notification", "body": {"changes": [self.change]}, "type": kind}
