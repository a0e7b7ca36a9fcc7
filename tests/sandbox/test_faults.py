"""Scripted faults: which requests they hit, what they do in process and on a socket, and how a bad file is told."""

from __future__ import annotations

import contextlib
import itertools
import json
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from connector_async.errors import ConfigurationError
from connector_async.sandbox import (
    PRESETS,
    Drip,
    FaultPlan,
    FaultRule,
    Latency,
    Malformed,
    Reorder,
    ReqId,
    Reset,
    Revoke,
    Sandbox,
    Silence,
    Status,
    Unauthorized,
    load_faults,
)
from tests.sandbox.caller import Caller, calling
from tests.sandbox.conftest import Opener, in_process, on_socket

pytestmark = pytest.mark.anyio


def _hits(rule: FaultRule, times: int, *, step: float = 0.0, seed: int = 0) -> list[int]:
    plan = FaultPlan([rule], seed=seed)
    return [n for n in range(1, times + 1) if plan.decide("send", ("ms.PublishEvent",), "c", (n - 1) * step)]


@pytest.mark.parametrize(
    ("selector", "numbers"),
    [
        ({}, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
        ({"nth": [2, 5]}, [2, 5]),
        ({"every": 4}, [4, 8]),
        ({"every": 4, "burst": 2}, [4, 5, 8, 9]),
        ({"count": 2}, [1, 2]),
        ({"count": 0}, []),
        ({"probability": 0}, []),
        ({"after": 3, "until": 5}, [4, 5]),
        ({"endpoint": "token"}, []),
        ({"endpoint": "webhook"}, []),
        ({"type": "cm.UpdateConversationField"}, []),
        ({"type": "ms.PublishEvent", "consumer": "c", "nth": [1]}, [1]),
        ({"consumer": "d"}, []),
    ],
)
def test_selector_picks(selector: dict[str, Any], numbers: list[int]) -> None:
    """The selector's keys as the module documents them."""
    assert _hits(FaultRule(action=Revoke(), **selector), 10, step=1) == numbers


def test_chance_repeats_with_the_seed() -> None:
    """A storm can be replayed."""
    rule = FaultRule(action=Revoke(), probability=0.3)
    assert _hits(rule, 200, seed=5) == _hits(rule, 200, seed=5) != _hits(rule, 200, seed=6)
    assert 30 < len(_hits(rule, 200)) < 90


def test_a_rule_for_any_endpoint_leaves_webhooks_alone() -> None:
    """`*` means the requests of clients; webhooks are asked for by name."""
    plan = FaultPlan([FaultRule(action=Revoke())])
    assert not plan.decide("webhook", ("x",), None, 0)


def test_time_counts_from_the_first_request_or_from_the_moment_set() -> None:
    """`after` and `until` are seconds since the plan began."""
    plan = FaultPlan([FaultRule(action=Revoke(), after=10)])
    plan.begin(100)
    assert not plan.decide("send", (), None, 109)
    assert plan.decide("send", (), None, 110)


def test_two_equal_rules_are_two_and_a_spent_one_is_gone() -> None:
    """`fail_next()` twice lets two requests fail, each by one rule."""
    plan = FaultPlan()
    for _ in range(2):
        plan.add(FaultRule(action=Revoke(), nth=[1], count=1))
    assert len(plan.decide("send", (), None, 0)) == 2
    assert plan.is_idle
    assert plan.hits == {"revoke": 2}


async def _state(call: Caller) -> tuple[dict[str, str], str]:
    headers = await call.headers()
    return headers, await call.open(headers)


@pytest.mark.parametrize("retry_after", ["2", 2, "Wed, 21 Oct 2015 07:28:00 GMT", "soon", None])
async def test_429_with_any_retry_after(cloud_of: Opener, retry_after: Any) -> None:
    """our fault tables C9."""
    async with cloud_of() as call:
        headers, conversation_id = await _state(call)
        call.cloud.fail_next(status=429, retry_after=retry_after)
        answer = await call.say(headers, conversation_id, request_id="m")
        assert answer.status_code == 429
        assert answer.headers.get("retry-after") == (None if retry_after is None else str(retry_after))
        assert (await call.say(headers, conversation_id, request_id="m")).json()["body"] == {"sequence": 2}
        first, second = call.cloud.ledger.entries[-2:]
        assert (first.applied, first.status, first.fault) == (False, 429, "status")
        assert (second.applied, second.status, second.fault, second.count) == (True, 200, None, 2)


@pytest.mark.parametrize("status", [204, 304])
async def test_a_status_without_a_body_leaves_the_connection_fit_for_the_next(status: int, cloud_of: Opener) -> None:
    """Locks a bug: a 204 came with a body, which the next request on the connection found in its way."""
    async with cloud_of() as call:
        headers = await call.headers()
        conversation_id = await call.open(headers)
        call.cloud.fail_next(status=status)
        answer = await call.say(headers, conversation_id)
        assert (answer.status_code, answer.content) == (status, b"")
        assert "content-length" not in answer.headers
        assert (await call.say(headers, conversation_id)).json()["code"] == "OK"


async def test_status_may_hide_that_the_request_was_applied() -> None:
    """An unknown outcome by status: applied, and a 503 all the same."""
    async with in_process() as call:
        headers, conversation_id = await _state(call)
        call.cloud.fail_next(Status(status=503, applied=True, body={"x": 1}, headers={"X-Why": "test"}))
        answer = await call.say(headers, conversation_id)
        assert (answer.status_code, answer.json(), answer.headers["x-why"]) == (503, {"x": 1}, "test")
        call.cloud.fail_next(Status(status=400, keep_body=True))
        answer = await call.say(headers, conversation_id)
        assert (answer.status_code, answer.json()["code"]) == (400, "OK")
        call.cloud.fail_next(Status(status=599))
        assert (await call.say(headers, conversation_id)).json() == {"code": 599, "message": "Fault"}
        assert [entry.applied for entry in call.cloud.ledger.entries[-3:]] == [True, True, False]


@pytest.mark.parametrize("code", [40001, 40102, 40103, 40104, 40105, 40199])
async def test_every_authorization_error_can_be_asked_for(code: int) -> None:
    """Connector API, authorization."""
    async with in_process() as call:
        headers, conversation_id = await _state(call)
        call.cloud.fail_next(error_code=code)
        answer = await call.say(headers, conversation_id)
        assert (answer.status_code, answer.json()["body"]["errorCode"]) == (code // 100, code)
        call.cloud.fail_next(Unauthorized(), endpoint="conversation")
        assert (await call.batch(headers)).status_code == 401


async def test_revocation_hits_the_very_request() -> None:
    """our fault tables C5."""
    async with in_process() as call:
        headers, conversation_id = await _state(call)
        call.cloud.fail_next(Revoke())
        assert (await call.say(headers, conversation_id)).json()["body"]["errorCode"] == 40102
        headers["Authorization"] = await call.token()
        assert (await call.say(headers, conversation_id)).status_code == 200
        call.cloud.fail_next(Revoke(), endpoint="domain")
        assert (await call.http.get("/api/account/nobody/service/idp/baseURI")).status_code == 401


RESETS = [
    (at, applied, how) for at, applied, how in itertools.product(("before", "in"), (False, True), ("reset", "close"))
]


@pytest.mark.parametrize(("at", "applied", "how"), RESETS)
async def test_resets_break_the_connection_and_the_ledger_knows_what_was_applied(
    cloud_of: Opener, at: Any, applied: bool, how: Any
) -> None:
    """our fault tables section 2: real resets on sockets, an exception of the ASGI call in process."""
    async with cloud_of() as call:
        headers, conversation_id = await _state(call)
        call.cloud.fail_next(Reset(at=at, applied=applied, how=how))
        with pytest.raises((httpx.TransportError, ConnectionResetError)):
            await call.say(headers, conversation_id)
        entry = call.cloud.ledger.entries[-1]
        assert (entry.applied, entry.status, entry.fault) == (applied, None, "reset")
        assert (await call.say(headers, conversation_id)).status_code == 200


async def test_a_reset_is_one_and_a_close_is_none() -> None:
    """What the peer sees: ECONNRESET, or an orderly end of stream."""
    async with on_socket() as call:
        headers, conversation_id = await _state(call)
        call.cloud.fail_next()
        with pytest.raises(httpx.ReadError):
            await call.say(headers, conversation_id)
        call.cloud.fail_next(Reset(how="close"))
        with pytest.raises(httpx.RemoteProtocolError, match="without sending a response"):
            await call.say(headers, conversation_id)
        call.cloud.fail_next(Reset(at="in", bytes=20, how="close"))
        with pytest.raises(httpx.RemoteProtocolError):
            await call.say(headers, conversation_id)


async def test_a_reset_after_the_answer_spoils_only_the_connection(cloud_of: Opener) -> None:
    """The answer was complete; it is the next request that would find the connection broken."""
    async with cloud_of() as call:
        headers, conversation_id = await _state(call)
        call.cloud.fail_next(Reset(at="after", how="close"))
        assert (await call.say(headers, conversation_id)).status_code == 200
        assert call.cloud.ledger.entries[-1].status == 200
        with contextlib.suppress(httpx.RemoteProtocolError):  # where the client had not yet seen the end coming
            await call.say(headers, conversation_id)
        assert (await call.say(headers, conversation_id)).status_code == 200


@pytest.mark.parametrize(
    "action", [Silence(), Silence(applied=True), Reset(at="in", how="stall"), Reset(how="stall")], ids=repr
)
async def test_an_answer_that_never_comes_lasts_until_the_client_leaves(cloud_of: Opener, action: Any) -> None:
    """our fault tables section 2: no response."""
    async with cloud_of() as call:
        headers, conversation_id = await _state(call)
        call.cloud.fail_next(action)
        entries, answers = call.cloud.ledger.entries, []
        before = len(entries)

        async def say() -> None:
            answers.append(await call.say(headers, conversation_id))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(say)
            while len(entries) == before:  # noqa: ASYNC110 - nothing tells that it has come
                await anyio.sleep(0.001)
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
        assert not answers
        entry = entries[-1]
        assert entry.status is None
        assert entry.applied == (action.applied if isinstance(action, Silence) else action.applies)


@pytest.mark.parametrize(
    ("how", "answered"),
    [("wrong", "not-m"), ("missing", None), ("doubled", "m")],
    ids=["wrong", "missing", "doubled"],
)
async def test_req_id_can_be_wrong_or_missing(cloud_of: Opener, how: Any, answered: str | None) -> None:
    """our fault tables C15."""
    async with cloud_of() as call:
        headers, conversation_id = await _state(call)
        call.cloud.fail_next(ReqId(how=how))
        answer = await call.say(headers, conversation_id, request_id="m")
        assert answer.json().get("reqId") == answered


async def test_req_id_of_the_faulty_request_before() -> None:
    """our fault tables C15: the reply of A served to B."""
    async with in_process() as call:
        headers, conversation_id = await _state(call)
        call.cloud.fail_next(ReqId(how="previous"), times=2)
        await call.say(headers, conversation_id, request_id="a")
        assert (await call.say(headers, conversation_id, request_id="b")).json()["reqId"] == "a"


async def test_batches_come_reordered_or_with_an_item_twice() -> None:
    """Connector API, "Create conversation": correlate by `reqId`, not by position."""
    async with in_process() as call:
        call.cloud.fail_next(Reorder(), endpoint="conversation")
        items = (await call.batch(await call.headers("a"))).json()
        assert "conversationId" in items[0]["body"]
        call.cloud.fail_next(ReqId(how="doubled"), endpoint="conversation")
        items = (await call.batch(await call.headers("b"))).json()
        assert [item["reqId"] for item in items] == [items[0]["reqId"], items[1]["reqId"], items[0]["reqId"]]
        call.cloud.fail_next(ReqId(), endpoint="domain")
        answer = await call.http.get(f"{call.account}/service/idp/baseURI")
        assert answer.json()["reqId"] == "not-None"


async def test_a_doubled_answer_is_left_over_on_the_connection() -> None:
    """our fault tables rule 3: a surplus answer that the next request on the connection could take for its own."""
    async with Sandbox() as cloud, calling(cloud) as call:
        headers, conversation_id = await _state(call)
        cloud.fail_next(ReqId(how="doubled"))
        envelope = call.envelope("ms.PublishEvent", {"dialogId": conversation_id, "event": _text()}, request_id="m")
        body = json.dumps(envelope).encode()
        head = f"POST {call.account}/messaging/consumer/conversation/send HTTP/1.1\r\nHost: x\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        with anyio.fail_after(5):
            async with await anyio.connect_tcp("127.0.0.1", int(cloud.url.rpartition(":")[2])) as stream:
                await stream.send(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
                received = b""
                while received.count(b'"reqId":"m"') < 2:
                    received += await stream.receive()
        assert received.count(b"HTTP/1.1 200 OK\r\n") == 2


def _text() -> dict[str, str]:
    return {"type": "ContentEvent", "contentType": "text/plain", "message": "hi"}


async def test_token_endpoint_can_be_down_slow_and_malformed(cloud_of: Opener) -> None:
    """our fault tables C7."""
    async with cloud_of() as call:
        call.cloud.fail_next(status=503, endpoint="token")
        assert (await call.ask_for_token()).status_code == 503
        call.cloud.fail_next(Malformed(), endpoint="token")
        answer = await call.ask_for_token()
        assert answer.status_code == 200
        with pytest.raises(json.JSONDecodeError):
            answer.json()
        call.cloud.fail_next(Latency(seconds=0.0, jitter=0.001), endpoint="token")
        assert (await call.ask_for_token()).status_code == 200
        call.cloud.fail_next(endpoint="domain")
        with pytest.raises((httpx.TransportError, ConnectionResetError)):
            await call.http.get(f"{call.account}/service/idp/baseURI.json")
        assert call.cloud.ledger.token_calls == 3


async def test_an_answer_can_be_dripped(cloud_of: Opener) -> None:
    """our fault tables C4."""
    async with cloud_of() as call:
        headers, conversation_id = await _state(call)
        call.cloud.fail_next(Drip(seconds=0, size=7))
        assert (await call.say(headers, conversation_id)).json()["code"] == "OK"


async def test_faults_of_one_request_add_up() -> None:
    """All rules that hit are applied: waits add up, the first answer wins."""
    async with in_process() as call:
        headers, conversation_id = await _state(call)
        for action in (Latency(seconds=0), Status(status=500), Status(status=501)):
            call.cloud.fail_next(action)
        assert (await call.say(headers, conversation_id)).status_code == 500
        assert call.cloud.ledger.entries[-1].fault == "latency+status+status"
        assert call.cloud.ledger.summary()["faults"] == {"latency+status+status": 1}


async def test_storm_ends_with_a_ledger_that_adds_up() -> None:
    """Issue 3: revocation, resets, throttling and unanswered sends, each of them counted."""
    async with in_process(faults="storm", agent="silent") as call:
        headers, conversation_id = await _state(call)
        for number in range(600):
            try:
                answer = await call.say(headers, conversation_id, request_id=f"m-{number}")
            except ConnectionResetError:
                continue
            if answer.status_code == 401:
                headers["Authorization"] = await call.token()
        ledger = call.cloud.ledger
        published = [entry for entry in ledger.entries if entry.type == "ms.PublishEvent"]
        assert len(published) == 600
        lost = ledger.lost(entry.request_id for entry in published)
        assert len(lost) == sum(not entry.applied for entry in published)
        assert set(call.cloud.faults.hits) == {"revocation", "reset", "throttled", "unanswered"}
        assert call.cloud.faults.hits["throttled"] == 20
        assert 10 < call.cloud.faults.hits["reset"] < 60
        unanswered = [entry for entry in published if entry.applied and entry.status is None]
        assert len(unanswered) >= 1
        assert ledger.order(conversation_id) == [entry.request_id for entry in published if entry.applied]
        assert ledger.orders() == {conversation_id: ledger.order(conversation_id)}


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_presets_load_by_name_and_survive_their_json_shape(name: str) -> None:
    """A preset can be printed, changed and put in force again."""
    plan = load_faults(name)
    shape = plan.as_json()
    assert shape.pop("hits") == {}
    again = FaultPlan.from_json(json.loads(json.dumps(shape)))
    assert again.rules == plan.rules
    assert again.seed == plan.seed


def test_a_fault_file_is_read(tmp_path: Path) -> None:
    """`--faults FILE`; a bare array of rules will do."""
    path = tmp_path / "faults.json"
    path.write_text('[{"endpoint": "send", "nth": [3], "action": {"kind": "status", "status": 503}}]')
    assert load_faults(str(path)).rules == (FaultRule(endpoint="send", nth=[3], action=Status(status=503)),)


BAD = [
    ("{", "is not JSON"),
    ("7", "must be a JSON object such as"),
    ('{"rules": 7}', "rules must be a JSON array"),
    ('{"rules": [], "seed": "x"}', "seed must be a whole number"),
    ('{"rulez": []}', "'rulez' is not known; known are seed, rules, comment"),
    ("[7]", "rule 1: must be a JSON object"),
    ('[{"action": 7}]', "rule 1: action must be a JSON object"),
    ('[{"action": {"kind": "explode"}}]', "action kind 'explode' is not known; known are latency, status"),
    ('[{"action": {"kind": 7}}]', "action kind 7 is not known"),
    ('[{"action": {"kind": "revoke"}, "often": 1}]', "rule 1: 'often' is not known; known are action, endpoint"),
    ('[{"action": {"kind": "revoke", "x": 1}}]', "action revoke: 'x' is not known"),
    ('[{"action": {"kind": "status", "status": "x"}}]', "status must be a whole number from 200 to 599, not 'x'"),
    ('[{"action": {"kind": "latency", "seconds": -1}}]', "seconds must be a number of 0 or more, not -1"),
    ('[{"action": {"kind": "reset", "at": "noon"}}]', "at must be one of before, in, after, not 'noon'"),
    ('[{"action": {"kind": "reset", "applied": 1}}]', "applied must be true or false, not 1"),
    ('[{"action": {"kind": "malformed", "text": 1}}]', "text must be text, not 1"),
    ('[{"action": {"kind": "revoke"}, "nth": 3}]', "nth must be a list of whole numbers from 1 on"),
    ('[{"action": {"kind": "revoke"}, "nth": [0]}]', "nth must be a list of whole numbers from 1 on"),
    ('[{"action": {"kind": "revoke"}, "endpoint": "moon"}]', "endpoint must be one of domain, token"),
    ('[{"action": {"kind": "status"}}]', "rule 1: action status needs status"),
    ('[{"action": {"kind": "revoke"}, "type": 5}]', "type must be text, not 5"),
    ('[{"action": {"kind": "revoke"}, "consumer": []}]', "consumer must be text, not []"),
    ('[{"action": {"kind": "revoke"}, "name": 5}]', "name must be text, not 5"),
    ('[{"action": {"kind": "revoke"}, "every": 1.5}]', "every must be a whole number from 1"),
    ('[{"action": {"kind": "revoke"}, "burst": 1.5}]', "burst must be a whole number from 1"),
    ('[{"action": {"kind": "revoke"}, "count": 1.5}]', "count must be a whole number from 0"),
    ('[{"action": {"kind": "revoke"}, "probability": 2}]', "probability must be a number from 0 to 1, not 2"),
    ('[{"action": {"kind": "status", "status": 429, "retry_after": [1]}}]', "retry_after must be text that fits"),
    ('[{"action": {"kind": "status", "status": 429, "retry_after": "\\n"}}]', "retry_after must be text that fits"),
    ('[{"action": {"kind": "status", "status": 429, "headers": ["a"]}}]', "headers must be an object of header"),
    ('[{"action": {"kind": "status", "status": 429, "headers": {"a": 1}}}]', "headers must be an object of header"),
    ('[{"action": {"kind": "status", "status": 429, "headers": {"a b": ""}}}]', "headers must be an object of"),
    ('[{"action": {"kind": "status", "status": 429, "headers": {"a": "\\r\\nb"}}}]', "headers must be an object of"),
    ('[{"action": {"kind": "malformed", "content_type": "\u20ac"}}]', "content_type must be text that fits"),
    ('[{"action": {"kind": "drop"}}]', 'action drop happens to webhooks only: say "endpoint": "webhook"'),
    ('[{"action": {"kind": "status", "status": 500}, "endpoint": "webhook"}]', "status cannot happen to a webhook"),
]


@pytest.mark.parametrize(("text", "sentence"), BAD)
def test_a_wrong_fault_file_gives_one_clear_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    """Issue 3, item 6."""
    path = tmp_path / "faults.json"
    path.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        load_faults(str(path))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_missing_fault_file_names_the_presets(tmp_path: Path) -> None:
    """Issue 3, item 6."""
    with pytest.raises(ConfigurationError, match=r"no such file.*give a JSON file or one of storm"):
        Sandbox(faults=str(tmp_path / "none.json"))
