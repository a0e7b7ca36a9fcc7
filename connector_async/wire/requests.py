"""One body class for each type of request, generic in the class of its answer's body.

`metadata` and `encodedMetadata` stand beside the body, on the `Request`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Final, Generic, TypeVar

import attrs

from connector_async.wire._base import Message
from connector_async.wire._checks import identifier, instance, maybe, several_of, text, whole
from connector_async.wire._converter import makers, readers
from connector_async.wire._reading import ABSENT, is_array
from connector_async.wire.context import CampaignInfo, ConversationContext
from connector_async.wire.events import Event
from connector_async.wire.fields import ConversationField
from connector_async.wire.profile import AuthenticatedData, CustomerInfo, PersonalInfo, PrivateData, Sde
from connector_async.wire.responses import Confirmation, ConversationCreated, EventPublished, TransferUrl

__all__ = [
    "MAX_FILE_BYTES",
    "ConsumerRequestConversation",
    "GenerateURLForDownloadFile",
    "GenerateURLForUploadFile",
    "PublishEvent",
    "RawBody",
    "RequestBody",
    "SetUserProfile",
    "UpdateConversationField",
    "read_body",
]

R_co = TypeVar("R_co", covariant=True)

MAX_FILE_BYTES: Final = 3 * 1024 * 1024  # Connector API examples, "File sharing": at most 3 MB

_ID: Final = text(minimum=1, maximum=64)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class RequestBody(Message, Generic[R_co]):
    """Base of all request bodies.

    Attributes:
        TYPE: The `type` of the envelope.
        ANSWER: The class of the body that a good answer has.
    """

    TYPE: ClassVar[str] = ""
    ANSWER: ClassVar[type[Message] | None] = None

    @property
    def wire_type(self) -> str:
        """The `type` of the envelope."""
        return self.TYPE


@attrs.frozen(kw_only=True, eq=False, repr=False)
class SetUserProfile(RequestBody[Confirmation]):
    """Tell the brand who the consumer is; also the mandatory first item when a conversation is opened.

    Without authenticated data the agent sees nothing about the consumer. All fields are optional.

    Source: Connector API, "Create conversation" (userprofile.SetUserProfile).
    """

    TYPE: ClassVar[str] = "userprofile.SetUserProfile"
    ANSWER: ClassVar[type[Message] | None] = Confirmation

    authenticated_data: AuthenticatedData | None = attrs.field(
        default=None, repr=False, validator=maybe(instance(AuthenticatedData))
    )
    first_name: str | None = attrs.field(default=None, repr=False, validator=maybe(text()))
    last_name: str | None = attrs.field(default=None, repr=False, validator=maybe(text()))
    user_id: str | None = attrs.field(default=None, repr=False, validator=maybe(text()))
    avatar_url: str | None = attrs.field(default=None, repr=False, validator=maybe(text()))
    role: str | None = attrs.field(default=None, validator=maybe(text()))
    backgnd_img_uri: str | None = attrs.field(default=None, repr=False, validator=maybe(text()))
    description: str | None = attrs.field(default=None, repr=False, validator=maybe(text()))
    private_data: PrivateData | None = attrs.field(default=None, repr=False, validator=maybe(instance(PrivateData)))

    @classmethod
    def of(cls, *sdes: Sde | CustomerInfo | PersonalInfo) -> SetUserProfile:
        """A profile of engagement attributes: `CustomerInfo`, `PersonalInfo`."""
        return cls(authenticated_data=AuthenticatedData(sdes))


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ConsumerRequestConversation(RequestBody[ConversationCreated]):
    """Open a conversation. A consumer may have one open conversation only.

    Attributes:
        brand_id: The account.
        channel_type: Always `MESSAGING`.
        ttr_def_name: How urgent; see `TtrType`.
        skill_id: Direct routing, discouraged in favour of campaigns; `"-1"` is any skill.
        campaign_info: Campaign routing.
        conversation_context: Needed with values from Monitoring.

    Source: Connector API, "Create conversation" (cm.ConsumerRequestConversation).
    """

    TYPE: ClassVar[str] = "cm.ConsumerRequestConversation"
    ANSWER: ClassVar[type[Message] | None] = ConversationCreated

    brand_id: str | None = attrs.field(default=None, validator=maybe(text(minimum=1)))
    channel_type: str | None = attrs.field(default="MESSAGING", validator=maybe(text(minimum=1)))
    ttr_def_name: str | None = attrs.field(default=None, validator=maybe(text()))
    skill_id: int | str | None = attrs.field(default=None, validator=maybe(identifier))
    campaign_info: CampaignInfo | None = attrs.field(default=None, validator=maybe(instance(CampaignInfo)))
    conversation_context: ConversationContext | None = attrs.field(
        default=None, validator=maybe(instance(ConversationContext))
    )


@attrs.frozen(eq=False, repr=False)
class PublishEvent(RequestBody[EventPublished]):
    """Publish an event to a dialog.

    Attributes:
        dialog_id: The MAIN dialog has the id of its conversation.
        event: What to publish.
        conversation_id: May be left out for the MAIN dialog, is needed for others.

    Source: Connector API, "Send" (ms.PublishEvent).
    """

    TYPE: ClassVar[str] = "ms.PublishEvent"
    ANSWER: ClassVar[type[Message] | None] = EventPublished

    dialog_id: str = attrs.field(validator=_ID)
    event: Event = attrs.field(validator=instance(Event))
    conversation_id: str | None = attrs.field(default=None, validator=maybe(_ID))


def _read_fields(raw: Any, _source: Mapping[str, Any], _arg: object) -> object:
    read = readers[ConversationField]
    return tuple([read(item) for item in raw]) if is_array(raw) else read(raw)


def _one_or_several(
    value: ConversationField | Iterable[ConversationField],
) -> ConversationField | tuple[ConversationField, ...]:
    several: ConversationField | tuple[ConversationField, ...] = (
        value if isinstance(value, ConversationField) else several_of(ConversationField, value)
    )
    return several


def _check_fields(
    owner: object, attribute: attrs.Attribute[Any], value: ConversationField | tuple[ConversationField, ...]
) -> None:
    if value == ():
        msg = "UpdateConversationField.conversation_field must name at least one field"
        raise ValueError(msg)
    for field in value if isinstance(value, tuple) else (value,):
        instance(ConversationField)(owner, attribute, field)


@attrs.frozen(eq=False, repr=False)
class UpdateConversationField(RequestBody[Confirmation]):
    """Change something about a conversation: close it, close a dialog, rate it, say how urgent it is.

    Attributes:
        conversation_id: Which.
        conversation_field: One field, or several as a tuple.

    Source: Connector API, "Send" (cm.UpdateConversationField); samples show the object, the schema an array.
    """

    TYPE: ClassVar[str] = "cm.UpdateConversationField"
    ANSWER: ClassVar[type[Message] | None] = Confirmation

    conversation_id: str = attrs.field(validator=_ID)
    conversation_field: ConversationField | tuple[ConversationField, ...] = attrs.field(
        converter=_one_or_several, validator=_check_fields, metadata={"read": _read_fields}
    )

    @property
    def fields(self) -> tuple[ConversationField, ...]:
        """The fields, one or several."""
        value = self.conversation_field
        return value if isinstance(value, tuple) else (value,)


def _check_size(owner: object, attribute: attrs.Attribute[Any], value: object) -> None:
    size = value
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 18:
        size = int(value)
    whole(minimum=1, maximum=MAX_FILE_BYTES)(owner, attribute, size)


_FILE_TYPES: Final = ("JPG", "JPEG", "PNG", "GIF")


def _check_file_type(owner: object, attribute: attrs.Attribute[Any], value: str) -> None:
    text()(owner, attribute, value)
    if value not in _FILE_TYPES:
        msg = f"GenerateURLForUploadFile.file_type must be one of {', '.join(_FILE_TYPES)}"
        raise ValueError(msg)


def _as_digits(value: int | str) -> int | str:
    # The schema and the connector's page want text; `True` is left for the validator to refuse.
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


@attrs.frozen(eq=False, repr=False)
class GenerateURLForUploadFile(RequestBody[TransferUrl]):
    """Ask where to put a file.

    Attributes:
        file_size: Bytes, 1 to 3 MB; written as text.
        file_type: JPG, JPEG, PNG or GIF.

    Source: Connector API examples, "File sharing".
    """

    TYPE: ClassVar[str] = "ms.GenerateURLForUploadFile"
    ANSWER: ClassVar[type[Message] | None] = TransferUrl

    file_size: int | str = attrs.field(converter=_as_digits, validator=_check_size)
    file_type: str = attrs.field(validator=_check_file_type)


@attrs.frozen(eq=False, repr=False)
class GenerateURLForDownloadFile(RequestBody[TransferUrl]):
    """Ask where to fetch the file of a `HostedFile`.

    Source: Connector API examples, "File sharing".
    """

    TYPE: ClassVar[str] = "ms.GenerateURLForDownloadFile"
    ANSWER: ClassVar[type[Message] | None] = TransferUrl

    relative_path: str = attrs.field(repr=False, validator=text(minimum=1))


@attrs.frozen(eq=False, repr=False)
class RawBody(RequestBody[object]):
    """The escape hatch: any type of request with any JSON value as its body, both sent as they are."""

    VERBATIM: ClassVar[str] = "body"

    type: str = attrs.field(validator=text(minimum=1))
    body: object = attrs.field(repr=False, hash=False)

    @property
    def wire_type(self) -> str:
        """The `type` of the envelope."""
        return self.type


BODIES: Final[Mapping[str, type[RequestBody[Any]]]] = {
    cls.TYPE: cls
    for cls in (
        SetUserProfile,
        ConsumerRequestConversation,
        PublishEvent,
        UpdateConversationField,
        GenerateURLForUploadFile,
        GenerateURLForDownloadFile,
    )
}


class _BodyReaders(dict[str, Callable[[Any], RequestBody[Any]]]):
    """The reader of the body for each type of request; a type that is new to us keeps its JSON value."""

    def __missing__(self, kind: str) -> Callable[[Any], RequestBody[Any]]:
        if kind not in BODIES:  # not kept: whoever sends us requests could fill the memory with types
            make: Callable[[str, object], RequestBody[Any]] = makers[RawBody]
            return lambda raw: make(kind, None if raw is ABSENT else raw)
        self[kind] = readers[BODIES[kind]]
        return self[kind]


_body_readers: Final = _BodyReaders()


def read_body(raw: Any, source: Mapping[str, Any], _arg: object) -> RequestBody[Any]:
    """Read the body by the envelope's `type`."""
    kind = source.get("type")
    return _body_readers[kind if isinstance(kind, str) else ""](raw)
