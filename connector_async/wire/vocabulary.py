"""The values that are known today. Every field takes and keeps any other text, so these are names, not gates.

Each member is a `str`: `ChatState.COMPOSING == "COMPOSING"`.
"""

from __future__ import annotations

from enum import StrEnum

__all__ = [
    "AcceptStatus",
    "ChannelType",
    "ChatState",
    "CloseReason",
    "ConversationState",
    "CsatStatus",
    "DeviceFamily",
    "DialogState",
    "DialogType",
    "Feature",
    "FileType",
    "Gender",
    "Integration",
    "MessageAudience",
    "OperatingSystem",
    "ParticipantState",
    "RequestType",
    "Role",
    "Stage",
    "TtrType",
    "WebhookEvent",
]


class ChatState(StrEnum):
    """What a participant is doing. COMPOSING sticks: a text does not end it, another state does."""

    ACTIVE = "ACTIVE"
    INACTIVE = "INACTIVE"
    GONE = "GONE"
    COMPOSING = "COMPOSING"
    PAUSE = "PAUSE"
    BACKGROUND = "BACKGROUND"


class AcceptStatus(StrEnum):
    """What a receipt says about the messages it lists."""

    ACCEPT = "ACCEPT"
    READ = "READ"
    ACCESS = "ACCESS"
    NACK = "NACK"
    ACTION = "ACTION"
    ENRICH = "ENRICH"


class TtrType(StrEnum):
    """How urgent a conversation is (time to respond)."""

    NORMAL = "NORMAL"
    PRIORITIZED = "PRIORITIZED"
    URGENT = "URGENT"
    CUSTOM = "CUSTOM"


class Role(StrEnum):
    """As what somebody takes part."""

    CONSUMER = "CONSUMER"
    ASSIGNED_AGENT = "ASSIGNED_AGENT"
    AGENT = "AGENT"
    MANAGER = "MANAGER"
    AGENT_MANAGER = "AGENT_MANAGER"
    ASSIGNED_MANAGER = "ASSIGNED_MANAGER"
    READER = "READER"
    CONTROLLER = "CONTROLLER"


class ParticipantState(StrEnum):
    """Whether a participant takes part already. SUGGESTED: offered to an agent who has not accepted yet."""

    ACTIVE = "ACTIVE"
    SUGGESTED = "SUGGESTED"


class MessageAudience(StrEnum):
    """Who may see a message. Anything but ALL must not be shown to the consumer."""

    ALL = "ALL"
    AGENTS_AND_MANAGERS = "AGENTS_AND_MANAGERS"


class Feature(StrEnum):
    """What the consumer's side can do, announced in `Client-Properties`."""

    AUTO_MESSAGES = "AUTO_MESSAGES"
    RICH_CONTENT = "RICH_CONTENT"
    QUICK_REPLIES = "QUICK_REPLIES"
    MULTI_DIALOG = "MULTI_DIALOG"
    PHOTO_SHARING = "PHOTO_SHARING"
    FILE_SHARING = "FILE_SHARING"
    CO_BROWSE = "CO_BROWSE"
    CO_APP = "CO_APP"
    SECURE_FORMS = "SECURE_FORMS"
    MARKDOWN_HYPERLINKS = "MARKDOWN_HYPERLINKS"


class DialogType(StrEnum):
    """What a dialog is for. The MAIN one has the id of its conversation."""

    MAIN = "MAIN"
    POST_SURVEY = "POST_SURVEY"
    OTHER = "OTHER"


class ChannelType(StrEnum):
    """The medium of a dialog."""

    MESSAGING = "MESSAGING"
    COBROWSE = "COBROWSE"


class ConversationState(StrEnum):
    """Whether the MAIN dialog is open (`state`); for the whole conversation see `Stage`."""

    OPEN = "OPEN"
    CLOSE = "CLOSE"
    LOCKED = "LOCKED"


class DialogState(StrEnum):
    """Whether a dialog is open."""

    OPEN = "OPEN"
    CLOSE = "CLOSE"


class Stage(StrEnum):
    """Whether the whole conversation is open, surveys included."""

    OPEN = "OPEN"
    CLOSE = "CLOSE"
    LOCKED = "LOCKED"


class CloseReason(StrEnum):
    """Who closed a conversation or dialog."""

    CONSUMER = "CONSUMER"
    AGENT = "AGENT"
    SYSTEM = "SYSTEM"


class CsatStatus(StrEnum):
    """How much of the satisfaction question was answered."""

    FILLED = "FILLED"
    PARTIALLY_FILLED = "PARTIALLY_FILLED"
    SKIPPED = "SKIPPED"


class FileType(StrEnum):
    """Kinds of file; to send: JPG, JPEG, PNG and GIF."""

    JPG = "JPG"
    JPEG = "JPEG"
    PNG = "PNG"
    GIF = "GIF"
    IMG = "IMG"
    TXT = "TXT"
    PDF = "PDF"


class Gender(StrEnum):
    """Values of the personal data's `gender`."""

    MALE = "MALE"
    FEMALE = "FEMALE"
    OTHER = "OTHER"


class DeviceFamily(StrEnum):
    """Kinds of device in `Client-Properties`."""

    DESKTOP = "DESKTOP"
    TABLET = "TABLET"
    MOBILE = "MOBILE"
    OTHER = "OTHER"


class OperatingSystem(StrEnum):
    """Values of `os` in `Client-Properties`."""

    WINDOWS = "WINDOWS"
    LINUX = "LINUX"
    OSX = "OSX"
    ANDROID = "ANDROID"
    IOS = "IOS"
    OTHER = "OTHER"


class Integration(StrEnum):
    """How the consumer's side is built, in `Client-Properties`."""

    WEB_SDK = "WEB_SDK"
    MOBILE_SDK = "MOBILE_SDK"
    BRAND_SDK = "BRAND_SDK"


class RequestType(StrEnum):
    """The types of request that a connector may send."""

    SET_USER_PROFILE = "userprofile.SetUserProfile"
    CONSUMER_REQUEST_CONVERSATION = "cm.ConsumerRequestConversation"
    PUBLISH_EVENT = "ms.PublishEvent"
    UPDATE_CONVERSATION_FIELD = "cm.UpdateConversationField"
    GENERATE_URL_FOR_UPLOAD_FILE = "ms.GenerateURLForUploadFile"
    GENERATE_URL_FOR_DOWNLOAD_FILE = "ms.GenerateURLForDownloadFile"


class WebhookEvent(StrEnum):
    """The names under which webhook endpoints are registered in the app manifest; case matters."""

    CONTENT = "ms.MessagingEventNotification.ContentEvent"
    RICH_CONTENT = "ms.MessagingEventNotification.RichContentEvent"
    ACCEPT_STATUS = "ms.MessagingEventNotification.AcceptStatusEvent"
    CHAT_STATE = "ms.MessagingEventNotification.ChatStateEvent"
    CONVERSATION_CHANGE = "cqm.ExConversationChangeNotification"
