"""The agent whom a test plays, and those who answer by themselves."""

from __future__ import annotations

import json
from typing import Any

import anyio
import pytest

from connector_async.errors import ConfigurationError
from connector_async.sandbox import Sandbox
from tests.backends import VIRTUAL
from tests.sandbox.caller import Caller
from tests.sandbox.conftest import in_process

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", [VIRTUAL])]

SURVEY = {"Client-Properties": json.dumps({"type": ".ClientProperties", "features": ["MULTI_DIALOG"]})}


def _said(call: Caller, conversation_id: str, number: int = 0) -> list[tuple[str, str]]:
    """Role and what, for each event of a dialog."""
    dialog = call.cloud.agent.conversation(conversation_id).dialogs[number]
    return [
        (change["originatorMetadata"]["role"], str(event.get("message", event.get("status", "card"))))
        for change in dialog.transcript
        for event in [change["event"]]
    ]


async def test_echo_joins_receives_reads_and_says_the_same() -> None:
    """Issue 6, item 5."""
    async with in_process() as call:
        headers = await call.headers()
        conversation_id = await call.open(headers)
        await call.cloud.settle()
        assert call.cloud.agent.conversation(conversation_id).agent_id == "sandbox-agent"
        await call.say(headers, conversation_id, "hi")
        await call.cloud.settle()
        agent = "ASSIGNED_AGENT"
        assert _said(call, conversation_id) == [
            ("CONSUMER", "hi"), (agent, "ACCEPT"), (agent, "READ"), (agent, "hi"),
        ]  # fmt: skip
        await call.close(headers, conversation_id)
        await call.cloud.settle()
        assert len(_said(call, conversation_id)) == 4


async def test_echo_answers_a_file_by_its_caption_and_nobody_after_the_close() -> None:
    """The close may come at any moment between the steps."""
    async with in_process() as call:
        headers = await call.headers()
        conversation_id = await call.open(headers)
        url = await call.send(headers, "ms.GenerateURLForUploadFile", {"fileSize": 3, "fileType": "PNG"})
        body = url.json()["body"]
        await call.http.put(body["relativePath"], params=body["queryParams"], content=b"abc")
        message = {"caption": "receipt", "relativePath": body["relativePath"], "fileType": "PNG"}
        event = {"type": "ContentEvent", "contentType": "hosted/file", "message": message}
        await call.publish(headers, conversation_id, event)
        assert await call.cloud.agent.hears() == "receipt"
        await call.cloud.settle()
        assert _said(call, conversation_id)[-1] == ("ASSIGNED_AGENT", "receipt")
        for steps in (0, 1):
            await call.say(headers, conversation_id, "again")
            await anyio.sleep(0.06 * steps)
            await call.close(headers, conversation_id)
            await call.cloud.settle()
            assert _said(call, conversation_id)[-1][1] == ("READ" if steps else "again")
            conversation_id = await call.open(headers)
        await call.close(headers, conversation_id)
        await call.cloud.settle()
        assert call.cloud.agent.conversation(conversation_id).agent_id is None


async def test_menu_offers_replies_shows_a_card_and_closes() -> None:
    """Rich messaging introduction."""
    async with in_process(agent="menu") as call:
        headers = await call.headers()
        conversation_id = await call.open(headers)
        for text in ("hello", "Where is my order?", "That is all"):
            await call.say(headers, conversation_id, text)
            await call.cloud.settle()
        conversation = call.cloud.agent.conversation(conversation_id)
        events = [change["event"] for change in conversation.main.transcript]
        offered = next(event for event in events if "quickReplies" in event)["quickReplies"]
        assert [reply["title"] for reply in offered["replies"]][1] == "When do you open?"
        assert offered["replies"][0]["click"]["metadata"] == [{"type": "ExternalId", "id": "order"}]
        assert next(event for event in events if event["type"] == "RichContentEvent")["content"]["type"] == "vertical"
        assert events[-1]["message"] == "Good bye."
        assert not conversation.is_open
        assert conversation.close_reason == "AGENT"


async def test_slow_takes_its_time_and_silent_says_nothing() -> None:
    """Issue 6, item 5."""
    async with in_process(agent="slow") as call:
        headers = await call.headers()
        conversation_id = await call.open(headers)
        began = anyio.current_time()
        await call.say(headers, conversation_id, "hi")
        await call.cloud.settle()
        assert anyio.current_time() - began == pytest.approx(4)
    async with in_process(agent="silent") as call:
        headers = await call.headers()
        conversation_id = await call.open(headers)
        await call.say(headers, conversation_id, "hi")
        await call.cloud.settle()
        assert _said(call, conversation_id) == [("CONSUMER", "hi")]


async def _into_the_survey(call: Caller) -> tuple[dict[str, str], str, str]:
    headers = {**await call.headers(), **SURVEY}
    conversation_id = await call.open(headers)
    await call.cloud.settle()
    dialog = {"dialogId": conversation_id, "state": "CLOSE"}
    await call.field(headers, conversation_id, {"field": "DialogChange", "type": "UPDATE", "dialog": dialog})
    survey = call.cloud.agent.conversation(conversation_id).survey
    assert survey is not None
    await call.cloud.settle()
    return headers, conversation_id, survey.dialog_id


async def test_survey_asks_takes_answers_thanks_and_closes() -> None:
    """Survey tutorial: own sequence, quick replies with Question metadata, `closedCause` Completed."""
    async with in_process(agent="survey") as call:
        headers, conversation_id, dialog_id = await _into_the_survey(call)
        conversation = call.cloud.agent.conversation(conversation_id)
        greeting, question = conversation.dialogs[1].transcript
        assert (greeting["sequence"], question["sequence"]) == (0, 1)
        assert greeting["originatorMetadata"]["role"] == "AGENT"
        assert question["metadata"][0]["type"] == "Question"
        reply = question["event"]["quickReplies"]["replies"][4]
        action = {"type": "AcceptStatusEvent", "status": "ACTION", "sequenceList": [1]}
        await call.publish(headers, dialog_id, action, metadata=reply["click"]["metadata"])
        await call.say(headers, dialog_id, "5", metadata=reply["click"]["metadata"])
        await call.cloud.settle()
        assert conversation.stage == "OPEN"
        await call.say(headers, dialog_id, "Yes")
        await call.cloud.settle()
        assert _said(call, conversation_id, 1)[-1] == ("AGENT", "Thank you for your time.")
        assert call.cloud.agent.conversation(conversation_id).stage == "CLOSE"
        assert conversation.dialogs[1].closed_cause == "Completed"
        # The close of MAIN by the consumer stays the reason.
        assert conversation.close_reason == "CONSUMER"


async def test_survey_is_skipped_on_request_and_ends_with_the_conversation() -> None:
    """Post-conversation survey tutorial."""
    async with in_process(agent="survey") as call:
        headers, conversation_id, dialog_id = await _into_the_survey(call)
        await call.say(headers, dialog_id, "Skip")
        await call.cloud.settle()
        assert not call.cloud.agent.conversation(conversation_id).is_open
        headers, conversation_id, dialog_id = await _into_the_survey(call)
        await call.say(headers, dialog_id, "3")
        await call.close(headers, conversation_id)
        await call.cloud.settle()
        assert _said(call, conversation_id, 1)[-1] == ("CONSUMER", "3")


async def test_survey_that_is_closed_before_its_greeting_stays_empty() -> None:
    """The close may come at any moment."""
    async with in_process(agent="survey") as call:
        headers = {**await call.headers(), **SURVEY}
        conversation_id = await call.open(headers)
        await call.cloud.settle()
        call.cloud.agent.closes(conversation_id)
        await call.close(headers, conversation_id)
        await call.cloud.settle()
        assert _said(call, conversation_id, 1) == []


async def test_a_test_plays_the_agent() -> None:
    """our design, 6 and issue 6: says, reads, types, joins, transfers, leaves, closes."""
    async with in_process(agent="silent", survey=True) as call:
        headers = {**await call.headers(), **SURVEY}
        conversation_id = await call.open(headers)
        agent = call.cloud.agent
        await call.say(headers, conversation_id, "one")
        await call.say(headers, conversation_id, "two")
        assert await agent.hears(conversation_id) == "one"
        assert (await agent.meets(event_type="ContentEvent")).change["event"]["message"] == "two"
        with pytest.raises(TimeoutError):
            await agent.hears(timeout=1)
        agent.joins(conversation_id, "ann")
        assert agent.accepts(conversation_id) == 2
        assert agent.reads(conversation_id, [1]) == 3
        assert agent.reads(conversation_id) == 4
        assert agent.reads(conversation_id) is None
        agent.types(conversation_id)
        assert agent.says(conversation_id, "hidden", audience="AGENTS_AND_MANAGERS", role="MANAGER") == 5
        assert agent.publishes(conversation_id, {"type": "NewEvent"}, metadata={"type": "X"}) == 6
        conversation = agent.conversation(conversation_id)
        last = conversation.main.transcript[-1]
        assert (last["originatorId"], last["metadata"]) == ("ann", [{"type": "X"}])
        agent.transfers(conversation_id, "88")
        assert (conversation.agent_id, conversation.skill_id) == (None, "88")
        agent.leaves(conversation_id)
        agent.joins(conversation_id, "bob")
        agent.leaves(conversation_id, "bob")
        assert agent.says(conversation_id, "still here") == 7
        agent.closes(conversation_id)
        assert conversation.survey is not None
        agent.closes(conversation_id, by="SYSTEM", survey=False)
        assert not conversation.is_open
        agent.closes(conversation_id)
        with pytest.raises(LookupError, match="no conversation nothing"):
            agent.says("nothing", "x")


async def test_waiting_to_hear_ends_with_the_message() -> None:
    """`hears()` may be called before the consumer speaks."""
    async with in_process(agent="silent") as call, anyio.create_task_group() as tasks:
        headers = await call.headers()
        conversation_id = await call.open(headers)
        heard: list[str] = []

        async def listen() -> None:
            heard.append(await call.cloud.agent.hears(conversation_id))

        tasks.start_soon(listen)
        await anyio.wait_all_tasks_blocked()
        other = await call.headers("other")
        await call.say(other, await call.open(other), "not this")
        await call.say(headers, conversation_id, "this")
        await anyio.wait_all_tasks_blocked()
        assert heard == ["this"]


async def test_a_script_of_ones_own_that_fails_costs_nothing_but_a_log_line(caplog: pytest.LogCaptureFixture) -> None:
    """our style 5.5."""

    def agent(desk: Any, happening: Any) -> None:
        def fail() -> None:
            raise KeyError("mine")

        async def fail_later() -> None:
            raise KeyError("mine")

        desk.later(0.1, fail)
        cloud._background.spawn(fail_later)

    async with Sandbox(in_process=True, agent=agent) as cloud:
        consumer = cloud._api._consumer_of(cloud.account, "x")
        cloud.model.open(
            cloud.account, consumer, skill_id="-1", ttr=("NORMAL", 1), campaign=None, context=None,
            features=frozenset(), now=1.0,
        )  # fmt: skip
        await cloud.settle()
    assert [record.getMessage() for record in caplog.records if record.name.endswith("_background")] == [
        "the sandbox's background work failed"
    ] * 2


async def test_outside_of_its_context_the_sandbox_does_nothing_by_itself() -> None:
    """Building one needs no loop, and a closed one starts no work."""
    cloud = Sandbox(in_process=True)
    consumer = cloud._api._consumer_of(cloud.account, "x")
    cloud.model.open(
        cloud.account, consumer, skill_id="-1", ttr=("NORMAL", 1), campaign=None, context=None,
        features=frozenset(), now=1.0,
    )  # fmt: skip
    cloud.agent.later(0, lambda: None)
    await cloud.settle()


async def test_an_unknown_agent_is_told() -> None:
    """`--agent`."""
    with pytest.raises(ConfigurationError, match="agent 'bob' is not known; known are echo, menu"):
        Sandbox(agent="bob")
