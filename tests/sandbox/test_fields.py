"""`cm.UpdateConversationField`: closing, surveys, CSAT, TTR and the pass-through fields."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.sandbox.conftest import in_process

pytestmark = pytest.mark.anyio


def _features(*features: str) -> dict[str, str]:
    return {"Client-Properties": json.dumps({"type": ".ClientProperties", "features": features})}


CLOSE = {"conversationState": "CLOSE"}


@pytest.mark.parametrize("field", ["ConversationStateField", "Stage"])
async def test_closing_ends_the_conversation_for_good(field: str) -> None:
    """Connector API, `Send`."""
    async with in_process() as call:
        headers = await call.headers()
        conversation_id = await call.open(headers)
        bad = await call.field(headers, conversation_id, {"field": field, "conversationState": "OPEN"})
        assert bad.status_code == 400
        assert (await call.field(headers, conversation_id, [{"field": field, **CLOSE}])).status_code == 200
        again = await call.field(headers, conversation_id, {"field": field, **CLOSE})
        assert again.json()["body"]["msg"] == "Bad Request, Conversation is close"
        described = call.cloud.agent.conversation(conversation_id).describe()
        assert described["effectiveTTR"] == -1
        assert described["conversationDetails"]["closeReason"] == "CONSUMER"
        assert described["conversationDetails"]["dialogs"][0]["closedBy"] == "CONSUMER"


@pytest.mark.parametrize(
    ("field", "status"),
    [
        ({"field": "TTRField", "ttrType": "URGENT"}, 200),
        ({"field": "TTRField", "ttrType": "CUSTOM", "value": 5}, 200),
        ({"field": "TTRField", "ttrType": "SOON"}, 400),
        ({"field": "TTRField", "ttrType": "NORMAL", "value": -1}, 400),
        ({"field": "Skill", "type": "UPDATE", "skill": 77}, 200),
        ({"field": "Skill", "type": "UPDATE"}, 400),
        ({"field": "ParticipantsChange", "type": "ADD", "role": "MANAGER", "userId": "m"}, 200),
        ({"field": "ParticipantsChange", "type": "REMOVE", "role": "ASSIGNED_AGENT"}, 200),
        ({"field": "ParticipantsChange", "type": "ADD", "role": "CONSUMER"}, 400),
        ({"field": "CSATRate", "csatRate": 5, "status": "FILLED"}, 400),
        ({"field": "DialogChange", "type": "UPDATE", "dialog": {"dialogId": "x", "state": "CLOSE"}}, 400),
        ({"field": "DialogChange", "type": "UPDATE", "dialog": {"state": "OPEN"}}, 400),
        ({"field": "Note"}, 400),
        ([], 400),
        (None, 400),
    ],
)
async def test_fields_are_checked(field: object, status: int) -> None:
    """Connector API, `Send`."""
    async with in_process() as call:
        headers = await call.headers()
        conversation_id = await call.open(headers)
        assert (await call.field(headers, conversation_id, field)).status_code == status
        assert (await call.field(headers, "nothing", field)).status_code == 400


async def test_nothing_of_a_request_is_done_when_one_of_its_fields_is_refused() -> None:
    """A request is done or not done."""
    async with in_process() as call:
        headers = await call.headers()
        conversation_id = await call.open(headers)
        fields = [{"field": "Stage", **CLOSE}, {"field": "Note"}]
        assert (await call.field(headers, conversation_id, fields)).status_code == 400
        assert call.cloud.agent.conversation(conversation_id).is_open


@pytest.mark.parametrize(
    ("rating", "status"),
    [
        ({"csatRate": 5, "csatResolutionConfirmation": True, "status": "FILLED"}, 200),
        ({"status": "SKIPPED"}, 200),
        ({"csatRate": 6, "status": "FILLED"}, 400),
        ({"csatRate": "5", "status": "PARTIALLY_FILLED"}, 400),
        ({"csatRate": 5, "status": "DONE"}, 400),
        ({"csatRate": 5, "csatResolutionConfirmation": "yes", "status": "FILLED"}, 400),
    ],
)
async def test_csat_is_given_after_the_close(rating: dict[str, Any], status: int) -> None:
    """Post-conversation survey tutorial."""
    async with in_process() as call:
        headers = await call.headers()
        conversation_id = await call.open(headers)
        await call.close(headers, conversation_id)
        answer = await call.field(headers, conversation_id, {"field": "CSATRate", **rating})
        assert answer.status_code == status
        assert (call.cloud.agent.conversation(conversation_id).csat is None) == (status == 400)


async def _close_main(call: Any, headers: dict[str, str], conversation_id: str) -> Any:
    dialog = {"dialogId": conversation_id, "state": "CLOSE", "closedCause": "Closed by consumer"}
    change = {"field": "DialogChange", "type": "UPDATE", "dialog": dialog}
    return await call.field(headers, conversation_id, change)


async def test_closing_main_starts_a_survey_with_numbers_of_its_own() -> None:
    """Post-conversation survey tutorial."""
    async with in_process(survey=True, agent="silent", sequence="dialog") as call:
        headers = {**await call.headers(), **_features("MULTI_DIALOG")}
        conversation_id = await call.open(headers, skillId="77")
        await call.say(headers, conversation_id)
        await call.say(headers, conversation_id)
        assert (await _close_main(call, headers, conversation_id)).status_code == 200
        assert (await _close_main(call, headers, conversation_id)).status_code == 400
        conversation = call.cloud.agent.conversation(conversation_id)
        details = conversation.describe()["conversationDetails"]
        assert (details["state"], details["stage"]) == ("CLOSE", "OPEN")
        survey = conversation.survey
        assert survey is not None
        assert (await call.say(headers, conversation_id)).status_code == 400
        assert (await call.say(headers, survey.dialog_id)).json()["body"] == {"sequence": 0}
        state = {"type": "ChatStateEvent", "chatState": "ACTIVE"}
        assert (await call.publish(headers, survey.dialog_id, state)).status_code == 400
        assert "already has open" in (await call.batch(headers)).json()[1]["body"]["msg"]
        call.cloud.agent.completes_survey(conversation_id)
        assert not conversation.is_open
        assert conversation.dialogs[1].closed_cause == "Completed"
        assert (await call.say(headers, survey.dialog_id)).status_code == 400


@pytest.mark.parametrize(
    ("survey", "features", "skill"), [(False, True, "77"), (True, False, "77"), (True, True, "-1")]
)
async def test_no_survey_without_configuration_feature_or_skill(*, survey: bool, features: bool, skill: str) -> None:
    """Post-conversation survey tutorial: then closing MAIN closes the conversation."""
    async with in_process(survey=survey, agent="silent") as call:
        headers = {**await call.headers(), **(_features("MULTI_DIALOG") if features else {})}
        conversation_id = await call.open(headers, skillId=skill)
        await _close_main(call, headers, conversation_id)
        assert not call.cloud.agent.conversation(conversation_id).is_open


async def test_stage_closes_a_survey_too() -> None:
    """Connector API, "Send": `Stage` closes all dialogs."""
    async with in_process(survey=True, agent="silent") as call:
        headers = {**await call.headers(), **_features("MULTI_DIALOG")}
        conversation_id = await call.open(headers, skillId="77")
        await _close_main(call, headers, conversation_id)
        assert (await call.field(headers, conversation_id, {"field": "Stage", **CLOSE})).status_code == 200
        assert not any(dialog.is_open for dialog in call.cloud.agent.conversation(conversation_id).dialogs)
