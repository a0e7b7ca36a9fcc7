"""The admin API under `/sandbox/`: a person or a test in another language does what Python can."""

from __future__ import annotations

from typing import Any

import pytest

from tests.sandbox.conftest import Opener, in_process

pytestmark = pytest.mark.anyio


async def test_a_person_plays_the_agent_over_http(cloud_of: Opener) -> None:
    """Issue 6, item 5."""
    async with cloud_of(agent="silent") as call:
        headers = await call.headers()
        conversation_id = await call.open(headers)
        await call.say(headers, conversation_id, "hi")
        where = {"conversation_id": conversation_id}
        heard = await call.http.post("/sandbox/agent/hears", json=where)
        assert heard.json() == {"text": "hi"}
        said = await call.http.post("/sandbox/agent/says", json={**where, "text": "hello"})
        assert said.json() == {"sequence": 1}
        assert (await call.http.post("/sandbox/agent/closes", json=where)).status_code == 200
        seen = (await call.http.get(f"/sandbox/conversations/{conversation_id}")).json()
        assert seen["conversationDetails"]["stage"] == "CLOSE"
        assert [change["event"]["message"] for change in seen["transcripts"][conversation_id]] == ["hi", "hello"]
        every = (await call.http.get("/sandbox/conversations")).json()
        assert [one["convId"] for one in every["conversations"]] == [conversation_id]
        assert (await call.http.post("/sandbox/settle")).json() == {"settled": True}


async def test_mistakes_are_told() -> None:
    """Each in one sentence, with a status that says whose it is."""
    async with in_process(agent="silent") as call:

        async def error(path: str, body: Any, status: int, method: str = "POST") -> str:
            answer = await call.http.request(method, path, json=body)
            assert answer.status_code == status, answer.text
            return str(answer.json()["error"])

        assert "cannot 'dances'" in await error("/sandbox/agent/dances", {}, 404)
        assert "no conversation x" in await error("/sandbox/agent/closes", {"conversation_id": "x"}, 404)
        assert "missing a required argument" in await error("/sandbox/agent/says", {}, 400)
        assert "JSON object" in await error("/sandbox/agent/says", [1], 400)
        assert "in time" in await error("/sandbox/agent/hears", {"timeout": 0}, 408)
        assert "no account 1" in await error("/sandbox/revoke?account_id=1", {}, 404)
        assert "'x' is not known" in await error("/sandbox/faults", [{"action": {"kind": "x"}}], 400)
        assert "signature" in await error("/sandbox/webhooks", {"signature": "md5"}, 400, "PUT")
        assert "needs an endpoint" in await error(
            "/sandbox/webhooks", {"cqm.ExConversationChangeNotification": {}}, 400, "PUT"
        )
        assert (await call.http.get("/sandbox/nothing")).status_code == 404
        assert (await call.http.get("/sandbox/")).json()["account_id"] == call.cloud.account_id


async def test_faults_are_listed_replaced_added_and_lifted() -> None:
    """Issue 3, item 6."""
    async with in_process() as call:
        rules = {"seed": 3, "rules": [{"endpoint": "send", "action": {"kind": "status", "status": 503}}]}
        shown = (await call.http.put("/sandbox/faults", json=rules)).json()
        assert shown["seed"] == 3
        assert shown["rules"][0]["action"]["status"] == 503
        more = [{"endpoint": "domain", "action": {"kind": "reset"}}]
        assert len((await call.http.post("/sandbox/faults", json=more)).json()["rules"]) == 2
        headers = await call.headers()
        assert (await call.say(headers, "x")).status_code == 503
        assert (await call.http.get("/sandbox/faults")).json()["hits"] == {"status": 1}
        assert (await call.http.delete("/sandbox/faults")).json()["rules"] == []
        assert (await call.say(headers, "x")).status_code == 400


async def test_ledger_and_counters_are_read_and_cleared() -> None:
    """Issue 3, item 6."""
    async with in_process() as call:
        headers = await call.headers()
        conversation_id = await call.open(headers)
        await call.say(headers, conversation_id, request_id="m")
        assert (await call.http.get("/sandbox/ledger")).json()["arrivals"] == 3
        entries = (await call.http.get("/sandbox/ledger?request_id=m")).json()["entries"]
        assert [(entry["dialog_id"], entry["applied"]) for entry in entries] == [(conversation_id, True)]
        assert len((await call.http.get("/sandbox/ledger?entries=2")).json()["entries"]) == 2
        of_dialog = await call.http.get(f"/sandbox/ledger?dialog_id={conversation_id}")
        assert len(of_dialog.json()["entries"]) == 1
        stats = (await call.http.get("/sandbox/stats")).json()
        assert stats["accounts"][call.cloud.account_id] == {
            "consumers": 1, "conversations": 1, "open": 1, "tokens": 1,
        }  # fmt: skip
        assert (await call.http.post("/sandbox/revoke")).json() == {"generation": 1}
        assert (await call.say(headers, conversation_id)).status_code == 401
        assert (await call.http.delete("/sandbox/ledger")).json()["requests"] == 0


async def test_webhooks_are_pointed_elsewhere() -> None:
    """Issue 6, item 5: a URL for everything, or a manifest."""
    async with in_process() as call:
        answer = await call.http.put("/sandbox/webhooks", json={"url": "http://127.0.0.1:1/", "signature": "sha256"})
        assert len(answer.json()["endpoints"]) == 5
        assert call.cloud.webhooks.algorithm == "sha256"
        manifest = {"cqm.ExConversationChangeNotification": {"endpoint": "http://127.0.0.1:1/"}}
        answer = await call.http.put("/sandbox/webhooks", json=manifest)
        assert answer.json()["endpoints"] == ["cqm.ExConversationChangeNotification"]
        assert (await call.http.get("/sandbox/webhooks")).json()["state"] == "UP"


@pytest.mark.parametrize(
    ("path", "body", "sentence"),
    [
        ("agent/says", {"text": "x", "quick_replies": 5}, "a value is of the wrong kind"),
        ("agent/closes", {"by": 5}, "a value is of the wrong kind"),
        ("agent/joins", {"agent_id": []}, "a value is of the wrong kind"),
        ("agent/publishes", {"event": "x"}, "a value is of the wrong kind"),
        ("agent/publishes", {"event": {}}, "'type' is missing"),
        ("agent/reads", {"sequences": 5}, "a value is of the wrong kind"),
        ("agent/hears", {"timeout": "soon"}, "timeout must be a number of seconds"),
        ("agent/hears", {"timeout": True}, "timeout must be a number of seconds"),
        ("settle", {"timeout": -1}, "timeout must be from 0 to"),
    ],
)
async def test_a_value_of_the_wrong_kind_is_told(path: str, body: dict[str, object], sentence: str) -> None:
    """Locks a bug: the sandbox answered 500, and waited for ever where a timeout was null."""
    async with in_process() as call:
        conversation_id = await call.open(await call.headers())
        given = body if path == "settle" else {"conversation_id": conversation_id, **body}
        answer = await call.http.post(f"/sandbox/{path}", json=given)
        assert (answer.status_code, sentence in answer.json()["error"]) == (400, True)
        waited = await call.http.post("/sandbox/agent/hears", json={"timeout": None})
        assert waited.status_code == 408


async def test_a_retention_time_must_be_one_that_a_manifest_may_ask_for() -> None:
    """Webhooks retry policy: 2 seconds to 3 days."""
    async with in_process() as call:
        for wrong in ("x", 1, 259_201):
            body = {"url": "http://127.0.0.1:1/", "retention_time": wrong}
            answer = await call.http.put("/sandbox/webhooks", json=body)
            assert answer.status_code == 400
            assert "retention_time must be" in answer.json()["error"]
