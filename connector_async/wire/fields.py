"""What can be changed about a conversation with `UpdateConversationField`; `field` says which.

Source: Connector API, "Send" (cm.UpdateConversationField); published schema.
"""

from __future__ import annotations

from typing import ClassVar

import attrs

from connector_async.wire._base import Family, Message
from connector_async.wire._checks import identifier, instance, maybe, text, truth, whole

__all__ = [
    "CSATRate",
    "ConversationField",
    "ConversationStateField",
    "DialogChange",
    "DialogUpdate",
    "ParticipantsChange",
    "SkillChange",
    "StageField",
    "TTRField",
    "UnknownField",
]


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ConversationField(Family):
    """Base of all fields."""

    KEY: ClassVar[str] = "field"


@attrs.frozen(eq=False, repr=False)
class ConversationStateField(ConversationField):
    """Close everything at once; no survey follows."""

    TYPE: ClassVar[str] = "ConversationStateField"

    conversation_state: str = attrs.field(default="CLOSE", validator=text(minimum=1))


@attrs.frozen(eq=False, repr=False)
class StageField(ConversationField):
    """Close the whole conversation with all its dialogs; a survey is skipped."""

    TYPE: ClassVar[str] = "Stage"

    conversation_state: str = attrs.field(default="CLOSE", validator=text(minimum=1))


@attrs.frozen(kw_only=True, eq=False, repr=False)
class DialogUpdate(Message):
    """What a `DialogChange` says about its dialog.

    Attributes:
        dialog_id: Which.
        state: `CLOSE`.
        closed_cause: Free text, by custom `Closed by consumer`.
        closed_by: Who closed it.
    """

    dialog_id: str = attrs.field(validator=text(minimum=1, maximum=64))
    state: str | None = attrs.field(default="CLOSE", validator=maybe(text(minimum=1)))
    closed_cause: str | None = attrs.field(default=None, validator=maybe(text()))
    closed_by: str | None = attrs.field(default=None, validator=maybe(text()))


@attrs.frozen(kw_only=True, eq=False, repr=False)
class DialogChange(ConversationField):
    """Close one dialog; closing the MAIN one starts the survey where one is configured.

    `DialogChange.close(dialog_id)` makes the one that a connector needs.
    """

    TYPE: ClassVar[str] = "DialogChange"

    dialog: DialogUpdate = attrs.field(validator=instance(DialogUpdate))
    type: str = attrs.field(default="UPDATE", validator=text(minimum=1))

    @classmethod
    def close(cls, dialog_id: str, *, cause: str | None = "Closed by consumer") -> DialogChange:
        """Close this dialog."""
        return cls(dialog=DialogUpdate(dialog_id=dialog_id, closed_cause=cause))


@attrs.frozen(kw_only=True, eq=False, repr=False)
class CSATRate(ConversationField):
    """How satisfied the consumer was; sent after the close.

    Attributes:
        csat_rate: 1 to 5, or None.
        csat_resolution_confirmation: Whether the matter was settled, or None.
        status: See `CsatStatus`.
    """

    TYPE: ClassVar[str] = "CSATRate"

    csat_rate: int | None = attrs.field(default=None, validator=maybe(whole(minimum=1, maximum=5)))
    csat_resolution_confirmation: bool | None = attrs.field(default=None, validator=maybe(truth))
    status: str = attrs.field(default="FILLED", validator=text(minimum=1))


@attrs.frozen(kw_only=True, eq=False, repr=False)
class TTRField(ConversationField):
    """How urgent the conversation is.

    Attributes:
        ttr_type: See `TtrType`.
        value: Seconds, 0 or more, or None.
    """

    TYPE: ClassVar[str] = "TTRField"

    ttr_type: str = attrs.field(validator=text(minimum=1))
    value: int | None = attrs.field(default=None, validator=maybe(whole(minimum=0)))


@attrs.frozen(kw_only=True, eq=False, repr=False)
class SkillChange(ConversationField):
    """Transfer to another skill. For agents; passed through."""

    TYPE: ClassVar[str] = "Skill"

    skill: int | str = attrs.field(validator=identifier)
    type: str = attrs.field(default="UPDATE", validator=text(minimum=1))


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ParticipantsChange(ConversationField):
    """Join, leave or transfer. For agents; passed through.

    Attributes:
        type: `ADD`, `REMOVE`, `UPDATE` or `SUGGEST`.
        role: `MANAGER`, `READER` or `ASSIGNED_AGENT`.
        user_id: Whom it concerns; oneself where None.
    """

    TYPE: ClassVar[str] = "ParticipantsChange"

    type: str = attrs.field(validator=text(minimum=1))
    role: str = attrs.field(validator=text(minimum=1))
    user_id: str | None = attrs.field(default=None, validator=maybe(text(minimum=1)))


@attrs.frozen(eq=False, repr=False)
class UnknownField(ConversationField):
    """A field that this version does not know; what else it holds is in `extra`.

    `UnknownField("NewField", extra={"value": 1})` sends one.
    """

    field: str | None = None

    @property
    def wire_type(self) -> str:
        """The name that it came with."""
        return self.field or ""
