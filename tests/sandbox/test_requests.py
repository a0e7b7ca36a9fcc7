"""What the sandbox takes, what it refuses, and in which words: one row for each rule."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.sandbox.conftest import in_process

pytestmark = pytest.mark.anyio

TEXT = {"type": "ContentEvent", "contentType": "text/plain", "message": "hi"}


async def test_second_create_is_refused_while_one_is_open_and_told_in_a_200_array() -> None:
    """How-to guide."""
    async with in_process() as call:
        headers = await call.headers()
        first = await call.open(headers)
        answer = await call.batch(headers)
        assert answer.status_code == 200
        profile, refused = answer.json()
        assert profile["code"] == "OK"
        assert refused["code"] == "BAD_REQUEST"
        lp_id = next(iter(call.cloud.account.consumers))
        assert refused["body"]["msg"] == (
            f"Consumer request conversation failed: User {lp_id} already has open conversation. "
            "Can't open another one."
        )
        await call.close(headers, first)
        assert await call.open(headers) != first


async def test_a_refused_profile_does_not_keep_the_conversation_from_opening() -> None:
    """Connector API, "Create conversation": partial failure."""
    async with in_process() as call:
        headers = await call.headers()
        answer = await call.batch(headers, profile={"authenticatedData": {"lp_sdes": [{"type": "cart"}]}})
        assert [item["code"] for item in answer.json()] == ["BAD_REQUEST", "OK"]
        assert [entry.applied for entry in call.cloud.ledger.entries] == [False, True]


@pytest.mark.parametrize(
    ("profile", "code"),
    [
        ({"firstName": "Ann"}, "OK"),
        ({"authenticatedData": {"lp_sdes": []}}, "OK"),
        ({"authenticatedData": {"lp_sdes": [{"type": "ctmrinfo", "info": {"socialId": "1"}}]}}, "OK"),
        ({"authenticatedData": {"lp_sdes": {"type": "personal", "personal": {"firstname": "A"}}}}, "OK"),
        ({"authenticatedData": []}, "BAD_REQUEST"),
        ({"authenticatedData": {"lp_sdes": "x"}}, "BAD_REQUEST"),
        ({"authenticatedData": {"lp_sdes": [{"type": "ctmrinfo"}]}}, "BAD_REQUEST"),
    ],
)
async def test_profile_is_checked_on_send_as_well(profile: object, code: str) -> None:
    """Connector API, `Create conversation`."""
    async with in_process() as call:
        answer = await call.send(await call.headers(), "userprofile.SetUserProfile", profile)
        assert answer.json()["code"] == code
        consumer = next(iter(call.cloud.account.consumers.values()))
        assert consumer.profile == (profile if code == "OK" else None)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"skillId": 77, "ttrDefName": "URGENT"}, "OK"),
        ({"skillId": "-1", "ttrDefName": None}, "OK"),
        ({"campaignInfo": {"campaignId": "99999", "engagementId": 5}, "conversationContext": {"lang": "en"}}, "OK"),
        ({"channelType": "COBROWSE"}, "BAD_REQUEST"),
        ({"ttrDefName": "SOON"}, "BAD_REQUEST"),
        ({"skillId": True}, "BAD_REQUEST"),
        ({"campaignInfo": {"campaignId": "1"}}, "BAD_REQUEST"),
        ({"campaignInfo": "1"}, "BAD_REQUEST"),
        ({"conversationContext": "x"}, "BAD_REQUEST"),
        ({"brandId": "other"}, "BAD_REQUEST"),
    ],
)
async def test_opening_is_checked(body: dict[str, Any], code: str) -> None:
    """Connector API, `Create conversation`."""
    async with in_process() as call:
        answer = await call.batch(await call.headers(), **body)
        assert answer.json()[1]["code"] == code


async def test_opening_is_remembered_as_notifications_show_it() -> None:
    """Webhooks events: campaign ids as numbers."""
    async with in_process() as call:
        campaign = {"campaignId": "99999", "engagementId": "e-5"}
        conversation_id = await call.open(
            await call.headers(), skillId=77, ttrDefName="URGENT", campaignInfo=campaign
        )
        details = call.cloud.agent.conversation(conversation_id).describe()["conversationDetails"]
        assert details["skillId"] == "77"
        assert details["ttr"] == {"ttrType": "URGENT", "value": 120}
        assert details["campaignInfo"] == {"campaignId": 99999, "engagementId": "e-5"}
        assert details["dialogs"][0]["dialogId"] == conversation_id


@pytest.mark.parametrize("brand", [None, "", {}])
async def test_missing_brand_is_the_documented_40001(brand: object) -> None:
    """Connector API, authorization."""
    async with in_process() as call:
        answer = await call.batch(await call.headers(), brandId=brand)
        assert (answer.status_code, answer.json()["body"]["errorCode"]) == (400, 40001)


async def test_batch_must_be_an_array_in_the_documented_order() -> None:
    """Connector API, `Create conversation`."""
    async with in_process() as call:
        headers = await call.headers()
        profile = call.envelope("userprofile.SetUserProfile", {})
        opening = call.envelope("cm.ConsumerRequestConversation", {"brandId": call.cloud.account_id})
        for payload in (profile, [profile], [opening, profile], [1], "x", [{**profile, "id": None}, opening]):
            answer = await call.post(headers, payload, path="")
            assert answer.status_code == 400, payload
            assert answer.json()["code"] == 400
        no_body = {**opening, "body": 1}
        assert (await call.post(headers, [profile, no_body], path="")).json()["body"]["errorCode"] == 40001


async def test_first_message_may_come_with_the_batch() -> None:
    """Connector API, "Create conversation": the three-item form of the old description."""
    async with in_process() as call:
        headers = await call.headers()
        envelopes = [
            call.envelope("userprofile.SetUserProfile", {}, request_id=1),
            call.envelope("cm.ConsumerRequestConversation", {"brandId": call.cloud.account_id}, request_id=2),
            call.envelope("ms.PublishEvent", {"dialogId": "", "event": TEXT}, request_id=3),
        ]
        answer = (await call.post(headers, envelopes, path="")).json()
        assert [(item["code"], item["reqId"]) for item in answer] == [("OK", "1"), ("OK", "2"), ("OK", "3")]
        assert answer[2]["body"] == {"sequence": 0}
        envelopes[1]["body"] = {"brandId": "other"}
        answer = (await call.post(await call.headers("second"), envelopes, path="")).json()
        assert [item["code"] for item in answer] == ["OK", "BAD_REQUEST", "BAD_REQUEST"]


@pytest.mark.parametrize(
    "change",
    [
        {"id": ""},
        {"id": "x" * 65},
        {"id": True},
        {"id": 1.5},
        {"type": None},
        {"kind": "resp"},
    ],
)
async def test_envelope_is_checked(change: dict[str, Any]) -> None:
    """Connector API overview, `Responses`."""
    async with in_process() as call:
        headers = await call.headers()
        conversation_id = await call.open(headers)
        envelope = call.envelope("ms.PublishEvent", {"dialogId": conversation_id, "event": TEXT})
        answer = await call.post(headers, {**envelope, **change})
        assert (answer.status_code, answer.json()["code"]) == (400, 400)


async def test_numeric_ids_are_echoed_as_text_and_kind_may_be_missing() -> None:
    """Connector API overview, "Responses": `reqId` came back as a string even for an integer id."""
    async with in_process() as call:
        headers = await call.headers()
        conversation_id = await call.open(headers)
        envelope = call.envelope("ms.PublishEvent", {"dialogId": conversation_id, "event": TEXT}, request_id=5)
        del envelope["kind"]
        assert (await call.post(headers, envelope)).json()["reqId"] == "5"
        assert call.cloud.ledger.arrivals("5") == 1


@pytest.mark.parametrize("payload", ["[]", "3", "no", '{"id": "1", "type": "ms.PublishEvent", "body": 7}'])
async def test_send_takes_one_object(payload: str) -> None:
    """Connector API, `Send`."""
    async with in_process() as call:
        answer = await call.http.post(
            f"{call.account}/messaging/consumer/conversation/send",
            headers=await call.headers(),
            content=payload.encode(),
        )
        assert answer.status_code == 400


@pytest.mark.parametrize("wire_type", ["cqm.SubscribeExConversations", "cm.ConsumerRequestConversation", "x"])
async def test_types_of_other_endpoints_are_refused(wire_type: str) -> None:
    """Connector API, "Send": WebSocket-only types and those of the batch."""
    async with in_process() as call:
        answer = await call.send(await call.headers(), wire_type, {})
        assert (answer.status_code, answer.json()["code"]) == (400, "BAD_REQUEST")


GOOD_EVENTS: list[Any] = [
    TEXT,
    {"type": "AcceptStatusEvent", "status": "ACTION", "sequenceList": [0]},
    {"type": "AcceptStatusEvent", "status": "READ", "sequenceList": [1, 2]},
    {"type": "ChatStateEvent", "chatState": "COMPOSING"},
    {**TEXT, "message": ""},
]
BAD_EVENTS: list[Any] = [
    None,
    {},
    {"type": "Reaction"},
    {"type": "RichContentEvent", "content": {}},
    {**TEXT, "message": 5},
    {**TEXT, "contentType": "text/html"},
    {"type": "AcceptStatusEvent", "status": "SEEN", "sequenceList": [0]},
    {"type": "AcceptStatusEvent", "status": "READ", "sequenceList": []},
    {"type": "AcceptStatusEvent", "status": "READ", "sequenceList": 4},
    {"type": "AcceptStatusEvent", "status": "READ", "sequenceList": ["1"]},
    {"type": "AcceptStatusEvent", "status": "READ", "sequenceList": [-1]},
    {"type": "ChatStateEvent", "chatState": "DANCING"},
    {**TEXT, "contentType": "hosted/file", "message": "x"},
    {**TEXT, "contentType": "hosted/file", "message": {"relativePath": "/nowhere", "fileType": "PNG"}},
]


@pytest.mark.parametrize("event", GOOD_EVENTS)
async def test_events_of_the_page_are_taken(event: object) -> None:
    """Connector API, `Send`."""
    async with in_process() as call:
        headers = await call.headers()
        conversation_id = await call.open(headers)
        metadata = [{"type": "ExternalId", "id": "x"}]
        answer = await call.publish(headers, conversation_id, event, metadata=metadata)
        assert answer.json()["code"] == "OK"


@pytest.mark.parametrize("event", BAD_EVENTS)
async def test_events_that_break_a_rule_are_refused(event: object) -> None:
    """Connector API, `Send`."""
    async with in_process() as call:
        headers = await call.headers()
        conversation_id = await call.open(headers)
        answer = await call.publish(headers, conversation_id, event)
        assert (answer.status_code, answer.json()["code"]) == (400, "BAD_REQUEST")
        assert not call.cloud.ledger.entries[-1].applied


async def test_dialog_must_exist_and_be_of_the_conversation() -> None:
    """Connector API, `Send`."""
    async with in_process() as call:
        headers = await call.headers()
        conversation_id = await call.open(headers)
        for body in (
            {"event": TEXT},
            {"dialogId": "nothing", "event": TEXT},
            {"dialogId": conversation_id, "conversationId": "other", "event": TEXT},
        ):
            assert (await call.send(headers, "ms.PublishEvent", body)).status_code == 400
        both = {"dialogId": conversation_id, "conversationId": conversation_id, "event": TEXT}
        assert (await call.send(headers, "ms.PublishEvent", both)).status_code == 200
        answer = await call.say(headers, conversation_id, metadata="x")
        assert answer.status_code == 400


async def test_a_request_over_5000_characters_is_refused_and_a_character_is_not_a_byte() -> None:
    """Connector API, `Send`."""
    async with in_process() as call:
        headers = await call.headers()
        conversation_id = await call.open(headers)
        answer = await call.say(headers, conversation_id, "x" * 4990)
        assert (answer.status_code, answer.json()["body"]["msg"]) == (400, "Bad Request")
        envelope = call.envelope("ms.PublishEvent", {"dialogId": conversation_id, "event": {**TEXT, "message": "€"}})
        room = 5000 - len(json.dumps(envelope, ensure_ascii=False))
        envelope["body"]["event"]["message"] = "€" * (room + 1)
        for more, status in ((0, 200), (1, 400)):
            envelope["body"]["event"]["message"] += "€" * more
            answer = await call.http.post(
                f"{call.account}/messaging/consumer/conversation/send",
                headers=headers,
                content=json.dumps(envelope, ensure_ascii=False).encode(),
            )
            assert answer.status_code == status


async def test_sequence_counts_the_arrivals_of_a_request_id() -> None:
    """Connector API overview: 0, 2, 4, doubling; a repeated publish is applied again (Q2)."""
    async with in_process(agent="silent") as call:
        headers = await call.headers()
        conversation_id = await call.open(headers)
        answers = [await call.say(headers, conversation_id, request_id="m-1") for _ in range(5)]
        assert [answer.json()["body"]["sequence"] for answer in answers] == [0, 2, 4, 8, 16]
        state = {"type": "ChatStateEvent", "chatState": "PAUSE"}
        assert (await call.publish(headers, conversation_id, state)).json()["body"] == {"sequence": 0}
        assert call.cloud.ledger.applied("m-1") == 5
        assert call.cloud.ledger.doubled() == {"m-1": 5}


async def test_sequence_numbers_the_events_of_a_dialog_when_asked_to() -> None:
    """Connector API overview, "Responses": chat states are answered with 0 and take no number."""
    async with in_process(sequence="dialog", agent="silent") as call:
        headers = await call.headers()
        conversation_id = await call.open(headers)
        receipt = {"type": "AcceptStatusEvent", "status": "READ", "sequenceList": [0]}
        state = {"type": "ChatStateEvent", "chatState": "PAUSE"}
        answers = [
            await call.say(headers, conversation_id, request_id="m-1"),
            await call.say(headers, conversation_id, request_id="m-1"),
            await call.publish(headers, conversation_id, receipt),
            await call.publish(headers, conversation_id, state),
            await call.say(headers, conversation_id),
        ]
        assert [answer.json()["body"]["sequence"] for answer in answers] == [0, 1, 2, 0, 3]


@pytest.mark.parametrize("header", ["no json", "[]", '{"features": "X"}', '{"features": [1]}'])
async def test_client_properties_must_be_readable(header: str) -> None:
    """Connector API examples, `Client-Properties`."""
    async with in_process() as call:
        headers = await call.headers()
        answer = await call.batch({**headers, "Client-Properties": header})
        assert answer.status_code == 400
        assert "Client-Properties" in answer.json()["message"]


async def test_client_properties_without_features_are_fine_and_the_cache_is_bounded() -> None:
    """Connector API examples, "Client-Properties": only `type` is required."""
    async with in_process() as call:
        headers = await call.headers()
        for number in range(1010):
            properties = json.dumps({"type": ".ClientProperties", "appVersion": str(number)})
            await call.send({**headers, "Client-Properties": properties}, "userprofile.SetUserProfile", {})
        assert len(call.cloud._api._features) == 1000


def _features(*features: str) -> dict[str, str]:
    return {"Client-Properties": json.dumps({"type": ".ClientProperties", "features": features})}


@pytest.mark.parametrize(
    ("on_create", "on_send", "wait", "greeted"),
    [(True, True, 9.9, True), (True, True, 10.1, False), (True, False, 0, False), (False, True, 0, False)],
)
async def test_automatic_message_needs_the_feature_on_both_requests_within_ten_seconds(
    *, on_create: bool, on_send: bool, wait: float, greeted: bool
) -> None:
    """Connector API examples, auto messages."""
    now = 1_700_000_000.0
    async with in_process(clock=lambda: now, agent="silent") as call:
        headers, feature = await call.headers(), _features("AUTO_MESSAGES")
        conversation_id = await call.open({**headers, **(feature if on_create else {})})
        now += wait
        for _ in range(2):
            await call.say({**headers, **(feature if on_send else {})}, conversation_id)
        roles = [
            change["originatorMetadata"]["role"]
            for change in call.cloud.agent.conversation(conversation_id).main.transcript
        ]
        assert roles == ["CONSUMER", *(["CONTROLLER"] if greeted else []), "CONSUMER"]


VECTORS = Path(__file__).parents[1] / "vectors" / "requests.json"


@pytest.mark.skipif(not VECTORS.exists(), reason="the recorded payloads are not laid out here")
async def test_every_documented_single_request_is_understood() -> None:
    """The recorded requests of the documentation: none is turned down for its form."""
    async with in_process(survey=True, agent="silent") as call:
        headers = await call.headers()
        seen = 0
        for vector in json.loads(VECTORS.read_text()):
            payload = vector["payload"]
            if not isinstance(payload, dict) or payload.get("type") not in (
                "ms.PublishEvent",
                "cm.UpdateConversationField",
            ):
                continue
            if "WebSocket" in vector["name"] or payload["body"].get("event", {}).get("contentType") == "hosted/file":
                continue
            await _understood(call, headers, vector["name"], payload)
            seen += 1
        assert seen >= 15


async def _understood(call: Any, headers: dict[str, str], name: str, payload: dict[str, Any]) -> None:
    conversation_id = await call.open(headers)
    body = dict(payload["body"])
    for key in ("dialogId", "conversationId"):
        if key in body:
            body[key] = conversation_id
    fields = body.get("conversationField")
    if isinstance(fields, dict) and "dialog" in fields:
        body["conversationField"] = {**fields, "dialog": {**fields["dialog"], "dialogId": conversation_id}}
    if "CSAT" in name:
        await call.close(headers, conversation_id)
    answer = await call.post(headers, {**payload, "body": body})
    assert answer.status_code == 200, (name, answer.text)
    if call.cloud.agent.conversation(conversation_id).is_open:
        await call.close(headers, conversation_id)


async def test_numbers_of_many_digits_are_no_failure_of_the_sandbox() -> None:
    """Locks a bug: Python refuses to convert more than 4,300 digits, and the sandbox answered 500."""
    async with in_process() as call:
        headers = await call.headers()
        opened = await call.batch(headers, campaignInfo={"campaignId": "9" * 5000, "engagementId": "5"})
        assert opened.json()[1]["code"] == "OK"
        for size in ("9" * 4500, "\u0661"):
            answer = await call.send(headers, "ms.GenerateURLForUploadFile", {"fileSize": size, "fileType": "PNG"})
            assert (answer.status_code, answer.json()["code"]) == (400, "BAD_REQUEST")
        stored = await call.http.put(
            f"/v1/AUTH_async-images/{call.cloud.account_id}/x.PNG?temp_url_sig=x&temp_url_expires={'9' * 5000}"
        )
        assert stored.status_code == 401
