"""The state of a conversation, as notifications carry it, with the questions that a person would ask.

Source: Connector API, "Webhooks: events" (ExConversationChangeNotification); Messaging Window API, "Conversation
metadata"; published schema.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from connector_async.wire._base import Message
from connector_async.wire._converter import readers
from connector_async.wire._reading import Malformed, is_array, is_object
from connector_async.wire.context import CampaignInfo, ConversationContext
from connector_async.wire.ids import DialogId
from connector_async.wire.vocabulary import DialogType, ParticipantState, Role, Stage

__all__ = [
    "ConversationDetails",
    "ConversationHandler",
    "Csat",
    "Delay",
    "Dialog",
    "Participant",
    "Ttr",
]


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Participant(Message):
    """Somebody who takes part.

    Attributes:
        id: Who.
        role: As what; see `Role`.
        state: See `ParticipantState`; absent where the feed does not say.
    """

    id: str
    role: str | None = None
    state: str | None = None

    @property
    def is_suggested(self) -> bool:
        """Whether the conversation was offered to them and not accepted yet."""
        return self.state == ParticipantState.SUGGESTED


def _by_role(mapping: Mapping[Any, object]) -> tuple[Participant, ...]:
    """Flatten the older form, role → ids."""
    found: list[Participant] = []
    for role, ids in mapping.items():
        for each in ids if is_array(ids) else [ids]:
            if not isinstance(role, str) or not isinstance(each, str):
                msg = "must be a list of participants, or an object of roles and ids"
                raise Malformed(msg)
            found.append(Participant(id=each, role=role))
    return tuple(found)


def _other_participants(raw: Any) -> tuple[Participant, ...]:
    """Read what is no list: an object from role to ids, or one participant."""
    return _by_role(raw) if is_object(raw) and "id" not in raw else (readers[Participant](raw),)


def _as_participants(participants: Iterable[Participant]) -> tuple[Participant, ...]:
    return tuple(participants)


def _find(participants: Iterable[Participant], role: Role) -> Participant | None:
    return next((one for one in participants if one.role == role and not one.is_suggested), None)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Dialog(Message):
    """One dialog of a conversation.

    Attributes:
        dialog_id: For the MAIN one, the id of the conversation.
        dialog_type: See `DialogType`.
        channel_type: See `ChannelType`.
        participants_details: Who takes part.
        participants: Ids only, in co-browse dialogs.
        state: `OPEN` or `CLOSE`.
        creation_ts, end_ts, meta_data_last_update_ts: Milliseconds since 1970.
        closed_by: Who closed it.
        closed_cause: Free text, such as `Closed by consumer`, `Completed`.
        meta_data: What surveys and co-browse add.
    """

    dialog_id: DialogId
    dialog_type: str | None = None
    channel_type: str | None = None
    participants_details: tuple[Participant, ...] = attrs.field(default=(), converter=_as_participants)
    participants: tuple[object, ...] | None = None
    state: str | None = None
    creation_ts: int | None = None
    end_ts: int | None = None
    meta_data_last_update_ts: int | None = None
    closed_by: str | None = None
    closed_cause: str | None = None
    meta_data: Mapping[str, object] | None = attrs.field(default=None, repr=False, hash=False)

    @property
    def is_open(self) -> bool:
        """Whether something can be published to it."""
        return self.state == "OPEN"

    @property
    def is_main(self) -> bool:
        """Whether it is the dialog with the agent."""
        return self.dialog_type == DialogType.MAIN

    @property
    def is_survey(self) -> bool:
        """Whether it is a survey after the conversation."""
        return self.dialog_type == DialogType.POST_SURVEY


def _as_dialogs(dialogs: Iterable[Dialog]) -> tuple[Dialog, ...]:
    return tuple(dialogs)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Ttr(Message):
    """How urgent a conversation is.

    Attributes:
        ttr_type: See `TtrType`; may be empty.
        value: Seconds.
    """

    ttr_type: str | None = None
    value: int | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Delay(Message):
    """The contact centre is closed.

    Attributes:
        type: `NIGHT`, `WEEKEND`, `HOLIDAY` …
        till_when: Milliseconds since 1970.
    """

    type: str | None = None
    till_when: int | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Csat(Message):
    """How satisfied the consumer was: 1 to 5, and whether the matter was settled. A bare number is the rate."""

    csat_rate: int | None = None
    csat_resolution_confirmation: bool | None = None
    status: str | None = None


def _rate_alone(raw: Any) -> Csat:
    if isinstance(raw, int) and not isinstance(raw, bool):
        return Csat(csat_rate=raw)
    msg = "must be an object or a whole number"
    raise Malformed(msg)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ConversationHandler(Message):
    """Which account and skill have the conversation."""

    account_id: str | None = None
    skill_id: int | str | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ConversationDetails(Message):
    """The state of a conversation.

    Attributes:
        state: Whether the MAIN dialog is open.
        stage: Whether the whole conversation is open; absent in the oldest feeds.
        skill_id: `"-1"` for none.
        participants: Who takes part; the older forms by role are understood.
        participants_pid: The oldest form, from role to ids, as it came.
        dialogs: In no fixed order: use `main_dialog` and `survey_dialog`.
        brand_id: The account.
        close_reason: Who closed it.
        start_ts, end_ts: Milliseconds since 1970.
        meta_data_last_update_ts: Milliseconds since 1970; orders the changes of one conversation.
        first_conversation: Whether it is the consumer's first.
        ttr: How urgent.
        delay: Until when the contact centre is closed.
        manual_ettr: When an agent promised to answer, in milliseconds since 1970.
        csat: How satisfied the consumer was.
        note: An agent's note.
        campaign_info: Where it came from.
        context: Where on the brand's side it began.
        conversation_handler_details: Who has it.
    """

    state: str | None = None
    stage: str | None = None
    skill_id: int | str | None = None
    participants: tuple[Participant, ...] = attrs.field(
        default=(), converter=_as_participants, metadata={"other": _other_participants}
    )
    participants_pid: Mapping[str, object] | None = attrs.field(
        default=None, hash=False, metadata={"wire": "participantsPId"}
    )
    dialogs: tuple[Dialog, ...] = attrs.field(default=(), converter=_as_dialogs)
    brand_id: str | None = None
    close_reason: str | None = None
    start_ts: int | None = None
    end_ts: int | None = None
    meta_data_last_update_ts: int | None = None
    first_conversation: bool | None = None
    ttr: Ttr | None = None
    delay: Delay | None = None
    manual_ettr: int | None = attrs.field(default=None, metadata={"wire": "manualETTR"})
    csat: Csat | None = attrs.field(default=None, metadata={"other": _rate_alone})
    note: str | None = attrs.field(default=None, repr=False)
    campaign_info: CampaignInfo | None = None
    context: ConversationContext | None = attrs.field(default=None, repr=False)
    conversation_handler_details: ConversationHandler | None = None

    @property
    def is_closed(self) -> bool:
        """Whether the whole conversation is over: by `stage`, or by `state` where there is no stage."""
        return (self.stage if self.stage is not None else self.state) == Stage.CLOSE

    @property
    def is_in_survey(self) -> bool:
        """Whether the MAIN dialog is over and a survey is open."""
        survey = self.survey_dialog
        return not self.is_closed and survey is not None and survey.is_open

    @property
    def main_dialog(self) -> Dialog | None:
        """The dialog with the agent, or None in feeds without dialogs."""
        return next((dialog for dialog in self.dialogs if dialog.is_main), None)

    @property
    def survey_dialog(self) -> Dialog | None:
        """The survey: the open one, else the latest; None where there is none."""
        surveys = [dialog for dialog in self.dialogs if dialog.is_survey]
        return max(surveys, key=lambda dialog: (dialog.is_open, dialog.creation_ts or 0), default=None)

    def dialog(self, dialog_id: str) -> Dialog | None:
        """Find a dialog by its id, or None."""
        return next((dialog for dialog in self.dialogs if dialog.dialog_id == dialog_id), None)

    @property
    def everybody(self) -> tuple[Participant, ...]:
        """All who take part, with their state where the MAIN dialog tells it, in whichever form the feed has."""
        main = self.main_dialog
        detailed = main.participants_details if main is not None else ()
        legacy = _legacy(self.participants_pid)
        return detailed + self.participants + legacy

    @property
    def assigned_agent(self) -> Participant | None:
        """The agent who has accepted the conversation; None while it is only offered to one."""
        suggested = {one.id for one in self.everybody if one.is_suggested}
        return _find([one for one in self.everybody if one.id not in suggested], Role.ASSIGNED_AGENT)

    @property
    def consumer(self) -> Participant | None:
        """The consumer as the cloud knows them (`lp_consumer_id`), or None."""
        return _find(self.everybody, Role.CONSUMER)


def _legacy(by_role: Mapping[str, object] | None) -> tuple[Participant, ...]:
    try:
        return _by_role(by_role or {})
    except Malformed:
        return ()
