"""`cm.UpdateConversationField`: closing, CSAT, TTR, skill and participants.

Every field of a request is checked before the first of them has its effect, so that a request is done or not done.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from connector_async.sandbox._call import TTR_SECONDS, Call, check_owner, is_count
from connector_async.sandbox._json import Json, as_objects, is_object, text, word
from connector_async.sandbox._replies import Refused
from connector_async.sandbox._state import Conversation

__all__ = ["update_field"]

_CSAT_STATUS: Final = frozenset({"FILLED", "PARTIALLY_FILLED", "SKIPPED"})
_PARTICIPANT_ROLES: Final = frozenset({"MANAGER", "READER", "ASSIGNED_AGENT"})
_PARTICIPANT_CHANGES: Final = frozenset({"ADD", "REMOVE", "UPDATE", "SUGGEST"})


def update_field(call: Call) -> Json:
    """`cm.UpdateConversationField`, with one field or several."""
    body = call.body
    conversation = call.account.conversations.get(text(body.get("conversationId")) or "")
    if conversation is None:
        raise Refused("Bad Request, conversation does not exist")
    check_owner(call, conversation)
    fields = as_objects(body.get("conversationField"))
    if fields is None:
        raise Refused("Bad Request, conversationField is missing")
    plans = [_plan_field(call, conversation, field) for field in fields]  # all are checked before one has effect
    return {"msg": [plan() for plan in plans][-1]}


def _plan_field(call: Call, conversation: Conversation, field: Json) -> Callable[[], str]:
    planner = _FIELDS.get(word(field.get("field")))
    if planner is None:
        raise Refused("Bad Request, unknown field")
    if not conversation.is_open and planner is not _plan_csat:
        raise Refused("Bad Request, Conversation is close")
    return planner(call, conversation, field)


def _plan_close(call: Call, conversation: Conversation, field: Json) -> Callable[[], str]:
    if field.get("conversationState") != "CLOSE":
        raise Refused("Bad Request, conversationState must be CLOSE")

    def close() -> str:
        call.model.close(conversation, by="CONSUMER", cause="Closed by consumer", now=call.now)
        return "OK Conversation resolved successfully"

    return close


def _plan_dialog(call: Call, conversation: Conversation, field: Json) -> Callable[[], str]:
    change = field.get("dialog")
    if not is_object(change) or field.get("type") != "UPDATE" or change.get("state") != "CLOSE":
        raise Refused("Bad Request, DialogChange must update a dialog to state CLOSE")
    dialog = next((d for d in conversation.dialogs if d.dialog_id == text(change.get("dialogId"))), None)
    if dialog is None:
        raise Refused("Bad Request, dialog is not part of the conversation")
    if not dialog.is_open:
        raise Refused("Bad Request, Conversation is close")
    cause = text(change.get("closedCause")) or "Closed by consumer"

    def close() -> str:
        call.model.close_dialog(
            conversation, dialog, by="CONSUMER", cause=cause, now=call.now, features=call.features
        )
        return "OK Dialog closed successfully"

    return close


def _plan_csat(call: Call, conversation: Conversation, field: Json) -> Callable[[], str]:
    rate, confirmed, status = (
        field.get("csatRate"),
        field.get("csatResolutionConfirmation"),
        word(field.get("status")),
    )
    if conversation.is_open:
        raise Refused("Bad Request, CSAT is given after the conversation was closed")
    if status not in _CSAT_STATUS:
        raise Refused("Bad Request, unknown CSAT status")
    is_rate = isinstance(rate, int) and not isinstance(rate, bool) and 1 <= rate <= 5
    if not is_rate and (status == "FILLED" or rate is not None):
        raise Refused("Bad Request, csatRate must be an integer from 1 to 5")
    if confirmed is not None and not isinstance(confirmed, bool):
        raise Refused("Bad Request, csatResolutionConfirmation must be a boolean")

    def rate_it() -> str:
        conversation.csat = {"csatRate": rate, "csatResolutionConfirmation": confirmed, "status": status}
        call.model.changed(conversation, call.now)
        return "OK CSAT rate set successfully"

    return rate_it


def _plan_ttr(call: Call, conversation: Conversation, field: Json) -> Callable[[], str]:
    kind, value = field.get("ttrType"), field.get("value")
    if not isinstance(kind, str) or kind not in TTR_SECONDS:
        raise Refused("Bad Request, unknown ttrType")
    if value is not None and not is_count(value):
        raise Refused("Bad Request, value must be seconds >= 0")

    def set_ttr() -> str:
        conversation.ttr_type, conversation.ttr_seconds = kind, TTR_SECONDS[kind] if value is None else value
        call.model.changed(conversation, call.now)
        return "OK TTR set successfully"

    return set_ttr


def _plan_skill(call: Call, conversation: Conversation, field: Json) -> Callable[[], str]:
    skill = text(field.get("skill"))
    if field.get("type") != "UPDATE" or skill is None:
        raise Refused("Bad Request, skill is missing")

    def transfer() -> str:
        call.model.transfer(conversation, skill, call.now)
        return "OK Skill set successfully"

    return transfer


def _plan_participants(call: Call, conversation: Conversation, field: Json) -> Callable[[], str]:
    change, role = word(field.get("type")), word(field.get("role"))
    if change not in _PARTICIPANT_CHANGES or role not in _PARTICIPANT_ROLES:
        raise Refused("Bad Request, unknown participants change")
    user = text(field.get("userId")) or f"{role.lower()}-1"

    def apply() -> str:
        if change == "REMOVE":
            call.model.leave(conversation, user, call.now)
        else:
            call.model.join(conversation, user, role, call.now)
        return "OK Participants set successfully"

    return apply


_FIELDS: Final[dict[str, Callable[[Call, Conversation, Json], Callable[[], str]]]] = {
    "ConversationStateField": _plan_close,
    "Stage": _plan_close,
    "DialogChange": _plan_dialog,
    "CSATRate": _plan_csat,
    "TTRField": _plan_ttr,
    "Skill": _plan_skill,
    "ParticipantsChange": _plan_participants,
}
