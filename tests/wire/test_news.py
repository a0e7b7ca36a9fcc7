"""The questions that a person asks a notification, answered from new and old feeds."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from connector_async.wire import (
    ChatStateEvent,
    ContentEvent,
    ConversationChange,
    ConversationDetails,
    ConversationResult,
    Csat,
    Dialog,
    MessagingEvent,
    Notification,
    Originator,
    Participant,
    parse_notification,
    to_wire,
)
from connector_async.wire._converter import readers
from tests.wire.vectors import NOTIFICATIONS


def change_of(name: str) -> ConversationChange:
    """The one change of a recorded notification."""
    notification = parse_notification(NOTIFICATIONS[name])
    assert isinstance(notification, Notification)
    change: ConversationChange = notification.body.changes[0]
    return change


def event_of(**members: Any) -> MessagingEvent:
    """An event with what is not of interest filled in."""
    obj = {"dialogId": "d", "event": {"type": "ContentEvent", "message": "hi"}} | members
    event: MessagingEvent = readers[MessagingEvent](obj)
    assert to_wire(event) == obj
    return event


def details_of(**members: Any) -> ConversationDetails:
    """The state of a conversation."""
    details: ConversationDetails = readers[ConversationDetails](members)
    assert to_wire(details) == members
    return details


def test_open_conversation_with_an_agent() -> None:
    """Vectors: "agent joined (how-to)"."""
    change = change_of("agent joined (how-to)")
    assert change.conversation_id == "f2384f56-57d5-4087-bd47-8df0ec3102f6"
    assert not change.is_closed
    assert change.close_reason is None
    assert change.main_dialog is not None
    assert change.main_dialog.is_main
    assert change.main_dialog.is_open
    assert change.dialog(change.conversation_id) is change.main_dialog
    assert change.dialog("other") is None
    assert change.survey_dialog is None
    assert not change.details.is_in_survey
    assert change.assigned_agent == Participant(
        id="e9b2867c-f984-5727-b034-fc9c6800bd9c", role="ASSIGNED_AGENT", state="ACTIVE"
    )
    assert change.consumer is not None
    assert change.consumer.id.startswith("5b0f3b35")
    assert change.updated_ts == 1553590954025


def test_closed_conversation() -> None:
    """Vectors: "conversation closed by agent (how-to)"."""
    change = change_of("conversation closed by agent (how-to)")
    assert change.is_closed
    assert change.close_reason == "AGENT"
    assert change.result.effective_ttr == -1


def test_conversation_in_its_survey_is_not_closed() -> None:
    """Protocol 11.4: state CLOSE, stage OPEN, a POST_SURVEY dialog OPEN."""
    change = change_of("MAIN dialog closed, survey dialog opened")
    assert not change.is_closed
    assert change.details.is_in_survey
    assert change.survey_dialog is not None
    assert change.survey_dialog.is_survey
    assert change.survey_dialog.dialog_id == "__YOUR_POST_SURVEY_DIALOG_ID__"
    assert change.main_dialog is not None
    assert not change.main_dialog.is_open


def test_oldest_feed_is_understood() -> None:
    """Gotcha 17: no stage, no dialogs, participants by role."""
    change = change_of("legacy shape: participantsPId, agent joined")
    assert not change.is_closed
    assert change.main_dialog is None
    assert change.assigned_agent == Participant(id="734d9867-40e3-52b9-a401-07e877676d64", role="ASSIGNED_AGENT")
    assert change.consumer is not None
    assert change.updated_ts == 1477840967209


def test_closed_is_told_by_stage_and_by_state_only_without_one() -> None:
    """Gotcha 11."""
    assert details_of(state="CLOSE").is_closed
    assert not details_of(state="CLOSE", stage="OPEN").is_closed
    assert details_of(state="OPEN", stage="CLOSE").is_closed
    assert not details_of().is_closed


def test_agent_who_was_only_suggested_is_not_assigned() -> None:
    """Gotcha 12: the plain list names such an agent without a state."""
    agent = {"id": "a", "role": "ASSIGNED_AGENT"}
    main = {"dialogId": "c", "dialogType": "MAIN", "participantsDetails": [{**agent, "state": "SUGGESTED"}]}
    assert details_of(participants=[agent], dialogs=[main]).assigned_agent is None
    other = {"id": "b", "role": "ASSIGNED_AGENT"}
    details = details_of(participants=[agent, other], dialogs=[main])
    assert details.assigned_agent == Participant(id="b", role="ASSIGNED_AGENT")


@pytest.mark.parametrize(
    "participants",
    [
        {"CONSUMER": ["c"], "ASSIGNED_AGENT": ["a"]},
        {"CONSUMER": "c", "ASSIGNED_AGENT": "a"},
        [{"id": "c", "role": "CONSUMER"}, {"id": "a", "role": "ASSIGNED_AGENT"}],
    ],
)
def test_participants_may_be_a_list_or_an_object_of_roles(participants: Any) -> None:
    """Protocol 9.5: an older feed has a map of roles to ids."""
    details = details_of(participants=participants)
    assert details.consumer == Participant(id="c", role="CONSUMER")
    assert details.assigned_agent == Participant(id="a", role="ASSIGNED_AGENT")


def test_one_participant_may_come_bare() -> None:
    """One-element arrays may arrive as the bare element."""
    assert details_of(participants={"id": "c", "role": "CONSUMER"}).participants == (
        Participant(id="c", role="CONSUMER"),
    )


@pytest.mark.parametrize("participants", ["c", 5, {"CONSUMER": [5]}, [{"role": "CONSUMER"}]])
def test_participants_that_cannot_be_read_are_kept(participants: Any) -> None:
    """A strange list costs nothing but itself."""
    details = details_of(participants=participants)
    assert details.participants == ()
    assert details.extra == {"participants": participants}


def test_oldest_form_that_cannot_be_read_names_nobody() -> None:
    """A question has an answer whatever came."""
    assert details_of(participantsPId={"CONSUMER": [5]}).consumer is None


@pytest.mark.parametrize(
    ("csat", "typed"),
    [
        ({"csatRate": 4, "csatResolutionConfirmation": True, "status": "FILLED"}, 4),
        (4, 4),
        ("4 of 5", None),
        (True, None),
    ],
)
def test_csat_may_be_an_object_or_a_number(csat: Any, typed: int | None) -> None:
    """Protocol 9.5: `csatRate` as a number is also seen."""
    details = details_of(csat=csat)
    assert (details.csat or Csat()).csat_rate == typed


def test_survey_is_the_open_one_or_the_latest() -> None:
    """The order of the dialogs is not fixed."""
    old = {"dialogId": "s1", "dialogType": "POST_SURVEY", "state": "OPEN", "creationTs": 1}
    new = {"dialogId": "s2", "dialogType": "POST_SURVEY", "state": "CLOSE", "creationTs": 2}
    survey = details_of(dialogs=[new, old]).survey_dialog
    assert survey is not None
    assert survey.dialog_id == "s1"
    latest = details_of(dialogs=[{**old, "state": "CLOSE"}, new]).survey_dialog
    assert latest is not None
    assert latest.dialog_id == "s2"


def test_change_without_details_answers_every_question() -> None:
    """A DELETE may bring the id alone."""
    change = readers[ConversationChange]({"type": "DELETE", "result": {"convId": "c"}})
    assert change.details == ConversationDetails()
    assert not change.is_closed
    assert change.main_dialog is change.survey_dialog is change.assigned_agent is change.consumer is None
    assert change.updated_ts is None


def test_change_is_built_with_lists() -> None:
    """The sandbox builds them."""
    dialog = Dialog(dialog_id="c", dialog_type="MAIN", participants_details=[Participant(id="a")])  # type: ignore[arg-type]  # a plain id
    details = ConversationDetails(participants=[Participant(id="a")], dialogs=[dialog])
    change = ConversationChange(result=ConversationResult(conv_id="c", conversation_details=details))  # type: ignore[arg-type]  # a plain id
    assert to_wire(change) == {
        "type": "UPSERT",
        "result": {
            "convId": "c",
            "conversationDetails": {
                "participants": [{"id": "a"}],
                "dialogs": [{"dialogId": "c", "dialogType": "MAIN", "participantsDetails": [{"id": "a"}]}],
            },
        },
    }


def test_event_of_an_agent() -> None:
    """Protocol 9.6, the current form."""
    event = event_of(
        sequence=6,
        originatorMetadata={"id": "a", "role": "ASSIGNED_AGENT"},
        serverTimestamp=1700000123456,
        conversationId="c",
        messageAudience="ALL",
    )
    assert event.conversation == "c"
    assert event.role == "ASSIGNED_AGENT"
    assert event.text == "hi"
    assert event.is_for_consumer
    assert not event.is_from_consumer
    assert event.sent_at == datetime(2023, 11, 14, 22, 15, 23, 456000, UTC)


def test_event_of_an_old_feed() -> None:
    """Gotcha 17: no conversation id, no role, no audience."""
    event = event_of()
    assert event.conversation == "d"
    assert event.role is None
    assert event.is_for_consumer
    assert not event.is_from_consumer
    assert event.sent_at is None


def test_echo_and_private_words_are_told() -> None:
    """Protocol 9.2 and 9.6."""
    assert event_of(originatorMetadata={"role": "CONSUMER"}).is_from_consumer
    assert not event_of(messageAudience="AGENTS_AND_MANAGERS").is_for_consumer
    assert not event_of(messageAudience="NEW_AUDIENCE").is_for_consumer


def test_event_that_is_no_text_has_none() -> None:
    """Only content has a text."""
    event = MessagingEvent(event=ChatStateEvent("ACTIVE"), dialog_id="d", originator_metadata=Originator(id="a"))  # type: ignore[arg-type]  # a plain id
    assert event.text is None
    file = ContentEvent.file("/a", "PNG")
    assert MessagingEvent(event=file, dialog_id="d").text is None  # type: ignore[arg-type]  # a plain id


@pytest.mark.parametrize("timestamp", [10**18, -(10**18)])
def test_time_beyond_the_calendar_is_none(timestamp: int) -> None:
    """A number is kept even where it is no time."""
    event = event_of(serverTimestamp=timestamp)
    assert event.server_timestamp == timestamp
    assert event.sent_at is None
