"""What is published to a dialog and notified from it: text, files, cards, receipts, chat states.

Events of kinds that are new to us become `UnknownEvent`. Texts are left out of every repr.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

import attrs

from connector_async.wire._base import Family, Message
from connector_async.wire._checks import Check, each, instance, integers, maybe, text, whole
from connector_async.wire._converter import readers
from connector_async.wire._reading import ABSENT, Malformed, is_object
from connector_async.wire.content import Element, QuickReplies, read_content

__all__ = [
    "FILE",
    "MAX_PREVIEW_BYTES",
    "MAX_TEXT",
    "PLAIN_TEXT",
    "SECURE_INVITATION",
    "SECURE_SUBMISSION",
    "AcceptStatusEvent",
    "ChatStateEvent",
    "ContentEvent",
    "Event",
    "HostedFile",
    "RichContentEvent",
    "SecureForm",
    "UnknownEvent",
]

PLAIN_TEXT: Final = "text/plain"
FILE: Final = "hosted/file"
SECURE_INVITATION: Final = "forms/secure-invitation"
SECURE_SUBMISSION: Final = "forms/secure-submission"

MAX_TEXT: Final = 5_000  # characters; a longer request is refused as a whole (how-to guide, "message too large")
MAX_PREVIEW_BYTES: Final = 30 * 1024  # of the data URL (Connector API examples, "File sharing")


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Event(Family):
    """Base of all events; `type` says which one it is."""

    KEY: ClassVar[str] = "type"


def _check_preview(owner: object, attribute: attrs.Attribute[Any], value: str | None) -> None:
    maybe(text())(owner, attribute, value)
    if value and len(value) >= MAX_PREVIEW_BYTES:
        msg = f"HostedFile.preview must be smaller than {MAX_PREVIEW_BYTES} bytes, not {len(value)}"
        raise ValueError(msg)
    if value and not value.startswith("data:image/"):
        msg = "HostedFile.preview must be a data URL: data:image/<type>;base64,…"
        raise ValueError(msg)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class HostedFile(Message):
    """A file in the storage, as the message of a `ContentEvent`.

    Attributes:
        relative_path: From the answer to `GenerateURLForUploadFile`.
        file_type: See `FileType`; JPG, JPEG, PNG and GIF can be sent.
        caption: Text under the file; `""` for none.
        preview: A data URL of an image below 30 KB, or None.

    Source: Connector API examples, "File sharing".
    """

    relative_path: str = attrs.field(repr=False, validator=text(minimum=1))
    file_type: str = attrs.field(validator=text(minimum=1))
    caption: str | None = attrs.field(default="", repr=False, validator=maybe(text(maximum=MAX_TEXT)))
    preview: str | None = attrs.field(default=None, repr=False, validator=_check_preview)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class SecureForm(Message):
    """A secure form: the agent's invitation, or the word that the consumer has sent it in. Only received."""

    invitation_id: str
    title: str | None = attrs.field(default=None, repr=False)
    form_id: str | None = None


_MESSAGES: Final[Mapping[str, type[Message]]] = {
    FILE: HostedFile,
    SECURE_INVITATION: SecureForm,
    SECURE_SUBMISSION: SecureForm,
}


def _read_message(raw: Any, source: Mapping[str, Any], _arg: object) -> object:
    """Choose by `contentType`; what does not fit, or is new, stays the JSON value that it is."""
    if raw is ABSENT:
        raise Malformed
    content_type = source.get("contentType")
    cls = _MESSAGES.get(content_type) if isinstance(content_type, str) else None
    if cls is None or not is_object(raw):
        return raw
    try:
        return readers[cls](raw)
    except Malformed:
        return raw


_TEXT: Final[Check] = text(
    minimum=1,
    maximum=MAX_TEXT,
    if_longer="; the whole request as JSON may have no more either, so that some 4700 are left for the text",
)


def _check_message(event: ContentEvent, attribute: attrs.Attribute[Any], value: object) -> None:
    if event.content_type == PLAIN_TEXT:
        _TEXT(event, attribute, value)
    elif event.content_type == FILE:
        instance(HostedFile)(event, attribute, value)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ContentEvent(Event):
    """Something said: a text, a file, or a form.

    Make one with `ContentEvent.text_of("…")` or `ContentEvent.file(…)`.

    Attributes:
        message: The text; a `HostedFile` or `SecureForm` where `content_type` says so; otherwise the JSON value that
            came.
        content_type: `text/plain`, `hosted/file`, `forms/…`.
        quick_replies: What the consumer may choose as an answer.

    Source: Connector API, "Send" (ContentEvent).
    """

    TYPE: ClassVar[str] = "ContentEvent"

    message: object = attrs.field(
        repr=False, hash=False, validator=_check_message, metadata={"read": _read_message, "kind": "content"}
    )
    content_type: str = PLAIN_TEXT
    quick_replies: QuickReplies | None = attrs.field(default=None, repr=False)

    @classmethod
    def text_of(cls, words: str, *, quick_replies: QuickReplies | None = None) -> ContentEvent:
        """A text of 1 to some 4,700 characters: the whole request may have 5,000 as JSON.

        Raises:
            ValueError: It is empty or too long, or holds half a surrogate pair.
        """
        return cls(message=words, quick_replies=quick_replies)

    @classmethod
    def file(
        cls, relative_path: str, file_type: str, *, caption: str = "", preview: str | None = None
    ) -> ContentEvent:
        """A file that has been put into the storage.

        Raises:
            ValueError: A field breaks its limit; see `HostedFile`.
        """
        message = HostedFile(relative_path=relative_path, file_type=file_type, caption=caption, preview=preview)
        return cls(message=message, content_type=FILE)

    @property
    def text(self) -> str | None:
        """The text, or None where the message is none."""
        return self.message if isinstance(self.message, str) else None

    @property
    def hosted_file(self) -> HostedFile | None:
        """The file, or None where the message is none."""
        return self.message if isinstance(self.message, HostedFile) else None


@attrs.frozen(eq=False, repr=False)
class RichContentEvent(Event):
    """Structured content: a card, carousel, list …

    Attributes:
        content: Its outermost element. History answers carry it as JSON text and an old schema names it `message`;
            both are understood.
        quick_replies: What the consumer may choose as an answer.
    """

    TYPE: ClassVar[str] = "RichContentEvent"

    content: Element = attrs.field(repr=False, validator=instance(Element), metadata={"read": read_content})
    quick_replies: QuickReplies | None = attrs.field(default=None, repr=False, kw_only=True)


_EACH_SEQUENCE: Final = each(whole(minimum=0))


def _check_sequences(owner: object, attribute: attrs.Attribute[Any], value: tuple[object, ...]) -> None:
    if value == ():
        msg = "AcceptStatusEvent.sequence_list must name at least one message"
        raise ValueError(msg)
    _EACH_SEQUENCE(owner, attribute, value)


@attrs.frozen(eq=False, repr=False)
class AcceptStatusEvent(Event):
    """A receipt.

    Attributes:
        status: What happened to the messages; see `AcceptStatus`.
        sequence_list: Their `sequence` values in notifications of the same dialog.

    Source: Connector API, "Send" (AcceptStatusEvent).
    """

    TYPE: ClassVar[str] = "AcceptStatusEvent"

    status: str = attrs.field(validator=text(minimum=1))
    sequence_list: tuple[int, ...] = attrs.field(converter=integers, validator=_check_sequences)


@attrs.frozen(eq=False, repr=False)
class ChatStateEvent(Event):
    """What the sender is doing; see `ChatState`.

    Source: Connector API, "Send" (ChatStateEvent).
    """

    TYPE: ClassVar[str] = "ChatStateEvent"

    chat_state: str = attrs.field(validator=text(minimum=1))


@attrs.frozen(eq=False, repr=False)
class UnknownEvent(Event):
    """An event of a type that this version does not know; its fields are in `extra`."""

    type: str | None = None

    @property
    def wire_type(self) -> str:
        """The type that it came with."""
        return self.type or ""
