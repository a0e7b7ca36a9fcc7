"""Webhooks out: signed, in order, retried by the vendor's two laws, and spoilt on request."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
from collections.abc import AsyncGenerator
from typing import Any

import anyio
import pytest

from connector_async.sandbox import BadSignature, Double, Drop, FaultRule, Latency, Reorder, Sandbox
from connector_async.sandbox._retention import RetentionLaw
from connector_async.sandbox.webhooks import sign_body
from tests.backends import VIRTUAL
from tests.sandbox.caller import Caller, calling

pytestmark = pytest.mark.anyio


class Endpoint:
    """An ASGI application that takes webhooks: answers what it is told to, and keeps what came."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[bytes, bytes]] = []
        self.raw: list[bytes] = []
        self.times: list[float] = []
        self.answers: list[Any] = []
        self.usual: Any = 200

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        self.raw.append(message["body"])
        self.bodies.append(json.loads(message["body"]))
        self.headers.append(dict(scope["headers"]))
        self.times.append(anyio.current_time())
        assert (await receive())["type"] == "http.disconnect"
        answer = self.answers.pop(0) if self.answers else self.usual
        if isinstance(answer, Exception):
            raise answer
        if answer == "stall":
            await anyio.sleep(60)
        if answer == "slow":
            await anyio.sleep(3)
            answer = 200
        if answer is not None:
            await send({"type": "http.response.start", "status": answer, "headers": []})
            await send({"type": "http.response.body", "body": b""})

    def texts(self) -> list[str]:
        """The texts that came, in order."""
        changes = [body["body"]["changes"][0] for body in self.bodies]
        return [change["event"]["message"] for change in changes if change.get("event", {}).get("message")]


@contextlib.asynccontextmanager
async def connected(endpoint: Any, *, agent: Any = "silent", **options: Any) -> AsyncGenerator[Caller]:
    """A sandbox in process that delivers to the endpoint, with a caller."""
    async with Sandbox(in_process=True, agent=agent) as cloud, calling(cloud) as call:
        cloud.deliver_to(endpoint, "/hook?x=1", **options)
        yield call


@pytest.mark.parametrize("algorithm", ["sha1", "sha256"])
async def test_everything_that_happens_is_delivered_signed(algorithm: Any) -> None:
    """How-to guide: own echoes too; verified with an independent HMAC."""
    endpoint = Endpoint()
    async with connected(endpoint, algorithm=algorithm) as call:
        headers = await call.headers()
        conversation_id = await call.open(headers)
        await call.say(headers, conversation_id, "größer 🎉")
        await call.publish(headers, conversation_id, {"type": "ChatStateEvent", "chatState": "PAUSE"})
        call.cloud.agent.says(conversation_id, "hello")
        call.cloud.agent.reads(conversation_id)
        call.cloud.agent.shows(conversation_id, {"type": "vertical", "elements": []})
        await call.close(headers, conversation_id)
        await call.cloud.settle()
        types = [body["type"].rpartition(".")[2] for body in endpoint.bodies]
        changes = [body["body"]["changes"][0] for body in endpoint.bodies]
        assert types.count("ExConversationChangeNotification") == 3
        events = [change["event"]["type"] for change in changes if "event" in change]
        assert events == ["ContentEvent", "ChatStateEvent", "ContentEvent", "AcceptStatusEvent", "RichContentEvent"]
        assert [change.get("sequence") for change in changes if "event" in change] == [0, None, 1, 2, 3]
        stamps = [c["result"]["conversationDetails"]["metaDataLastUpdateTs"] for c in changes if "result" in c]
        assert stamps == sorted(set(stamps))
        for raw, sent in zip(endpoint.raw, endpoint.headers, strict=True):
            assert sent[b"x-liveperson-account-id"] == call.cloud.account_id.encode()
            assert sent[b"x-liveperson-client-id"] == call.cloud.client_id.encode()
            digest = hmac.new(call.cloud.client_secret.encode(), raw, algorithm).digest()
            assert sent[b"x-liveperson-signature"] == f"{algorithm}=".encode() + base64.b64encode(digest)
        assert call.cloud.webhooks.counts() == {"delivered": 8}


def test_signature_reproduces_the_recorded_sample() -> None:
    """The algorithm is the one of the vendor's demo, key and body as published there."""
    body = b'{"a":1}'
    expected = base64.b64encode(hmac.new(b"secret", body, hashlib.sha1).digest()).decode()
    assert sign_body(body, "secret") == f"sha1={expected}"


@pytest.mark.parametrize("anyio_backend", [VIRTUAL])
@pytest.mark.parametrize("status", [202, 204, 400, 500, None, RuntimeError("bug")])
async def test_only_200_and_201_are_success_and_without_a_law_there_is_one_attempt(status: Any) -> None:
    """Webhooks disclaimers."""
    endpoint = Endpoint()
    endpoint.usual = 201
    async with connected(endpoint) as call:
        endpoint.answers = [status]
        await call.open(await call.headers())
        await call.open(await call.headers("second"))
        await call.cloud.settle()
        assert [delivery.outcome for delivery in call.cloud.webhooks.deliveries] == ["lost", "delivered"]
        assert len(call.cloud.webhooks.deliveries[0].attempts) == 1


@pytest.mark.parametrize("anyio_backend", [VIRTUAL])
async def test_retries_by_count_come_thirty_seconds_apart_and_lose_the_order() -> None:
    """Webhooks retry policy: by count."""
    endpoint = Endpoint()
    async with connected(endpoint, max_retries=2) as call:
        headers = await call.headers()
        conversation_id = await call.open(headers)
        await call.cloud.settle()
        endpoint.answers = [500, 200, "stall", 500]
        for text in ("one", "two"):
            await call.say(headers, conversation_id, text)
        await call.cloud.settle(timeout=300)
        assert endpoint.texts() == ["one", "two", "one", "one"]
        times = endpoint.times[1:]
        assert [round(later - times[0]) for later in times] == [0, 0, 30, 65]
        one, two = list(call.cloud.webhooks.deliveries)[1:]
        assert (one.outcome, two.outcome) == ("lost", "delivered")
        assert one.attempts == [500, "TimeoutError", 500]
        assert one.as_dict()["attempts"] == one.attempts


@pytest.mark.parametrize("anyio_backend", [VIRTUAL])
async def test_retention_keeps_everything_and_the_order_within_a_conversation() -> None:
    """Webhooks retry policy: by time to live; 2, 4, 8 … seconds, then the rest after a transition of 4."""
    endpoint = Endpoint()
    async with connected(endpoint, retention_time=3600) as call:
        headers = await call.headers()
        conversation_id = await call.open(headers)
        await call.cloud.settle()
        endpoint.answers = [500, 500, 500]
        for text in ("a", "b", "c"):
            await call.say(headers, conversation_id, text)
        await call.cloud.settle()
        assert call.cloud.webhooks.state == "UP"
        assert endpoint.texts() == ["a", "a", "a", "a", "b", "c"]
        first = endpoint.times[1]
        assert [round(at - first) for at in endpoint.times[1:]] == [0, 2, 6, 14, 18, 18]
        assert call.cloud.webhooks.counts() == {"delivered": 4}


@pytest.mark.parametrize("anyio_backend", [VIRTUAL])
async def test_while_recovering_new_conversations_are_delivered_at_once() -> None:
    """Webhooks retry policy: the others wait behind what is kept."""
    endpoint = Endpoint()
    async with connected(endpoint, retention_time=3600) as call:
        first, second = await call.headers(), await call.headers("second")
        one = await call.open(first)
        await call.cloud.settle()
        endpoint.answers = [500]
        await call.say(first, one, "kept-1")
        await call.say(first, one, "kept-2")
        while call.cloud.webhooks.state != "IN TRANSITION":  # noqa: ASYNC110 - on the virtual clock
            await anyio.sleep(0.5)
        other = await call.open(second)
        await call.say(second, other, "direct")
        await call.say(first, one, "kept-3")
        await call.cloud.settle()
        assert endpoint.texts() == ["kept-1", "kept-1", "direct", "kept-2", "kept-3"]


@pytest.mark.parametrize("anyio_backend", [VIRTUAL])
async def test_an_outage_that_begins_again_while_recovering_sends_nothing_twice_and_loses_nothing() -> None:
    """Locks a bug: the draining of the first outage went on beside that of the second."""
    endpoint = Endpoint()
    async with connected(endpoint, retention_time=3600) as call:
        first, second = await call.headers(), await call.headers("second")
        one = await call.open(first)
        await call.cloud.settle()
        endpoint.answers = [500]
        for text in "abcd":
            await call.say(first, one, text)
        while call.cloud.webhooks.state != "IN TRANSITION":  # noqa: ASYNC110 - on the virtual clock
            await anyio.sleep(0.5)
        endpoint.answers, endpoint.usual = [500], "slow"
        other = await call.open(second)
        await call.say(second, other, "x")
        await call.cloud.settle(timeout=600)
        assert endpoint.texts() == ["a", "a", "b", "c", "d", "x"]
        assert call.cloud.webhooks.counts() == {"delivered": 7}


@pytest.mark.parametrize("anyio_backend", [VIRTUAL])
async def test_a_failure_while_draining_begins_the_outage_again_and_time_drops_what_is_too_old() -> None:
    """Webhooks retry policy."""
    endpoint = Endpoint()
    cloud = Sandbox(in_process=True, agent="silent", clock=lambda: 1e9 + anyio.current_time())
    async with cloud, calling(cloud) as call:
        cloud.deliver_to(endpoint, retention_time=20)
        headers = await call.headers()
        conversation_id = await call.open(headers)
        await cloud.settle()
        endpoint.answers, endpoint.usual = [500, 200], 500
        for text in ("a", "b", "c"):
            await call.say(headers, conversation_id, text)
        await cloud.settle(timeout=600)
        assert endpoint.texts()[:3] == ["a", "a", "b"]
        assert set(endpoint.texts()[3:]) == {"b"}
        assert cloud.webhooks.state == "UP"
        assert [delivery.outcome for delivery in cloud.webhooks.deliveries][1:] == ["delivered", "lost", "lost"]


@pytest.mark.parametrize("anyio_backend", [VIRTUAL])
async def test_no_retries_for_one_kind_keep_it_from_starting_the_mechanism() -> None:
    """Webhooks retry policy: `max_retries: 0` beside a retention time."""
    endpoint = Endpoint()
    async with connected(endpoint, retention_time=60, max_retries=0) as call:
        endpoint.answers = [500]
        await call.open(await call.headers())
        await call.cloud.settle()
        assert call.cloud.webhooks.state == "UP"
        assert call.cloud.webhooks.counts() == {"lost": 1}


def test_pauses_of_the_retention_law_end_at_five_minutes() -> None:
    """Webhooks retry policy."""
    law: RetentionLaw[str] = RetentionLaw(60)
    assert law.fail()
    assert not law.fail()
    assert [law.next_pause() for _ in range(10)] == [2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
    law.hold("a", "1", 0)
    law.hold("b", "2", 10)
    law.hold("a", "3", 50)
    assert law.oldest() == ("a", "1")
    assert law.drop_expired(65) == ["1"]
    assert law.oldest() == ("b", "2")
    assert law.take("b") == "2"
    assert law.drop_expired(1000) == ["3"]
    assert law.oldest() is None


async def _said(endpoint: Endpoint, *rules: FaultRule, texts: int = 6) -> Sandbox:
    async with Sandbox(in_process=True, agent="silent") as cloud, calling(cloud) as call:
        headers = await call.headers()
        conversation_id = await call.open(headers)
        cloud.deliver_to(endpoint)
        for rule in rules:
            cloud.faults.add(rule)
        for number in range(texts):
            await call.say(headers, conversation_id, str(number))
        await cloud.settle()
        return cloud


@pytest.mark.parametrize("anyio_backend", [VIRTUAL])
async def test_deliveries_can_be_late_doubled_reordered_dropped_and_badly_signed() -> None:
    """Issue 6, item 5."""
    endpoint = Endpoint()
    await _said(endpoint, FaultRule(endpoint="webhook", type="ContentEvent", nth=[2], action=Double(times=3)))
    assert endpoint.texts() == ["0", "1", "1", "1", "2", "3", "4", "5"]
    endpoint = Endpoint()
    await _said(endpoint, FaultRule(endpoint="webhook", nth=[1], action=Latency(seconds=2)))
    assert endpoint.texts() == ["1", "2", "3", "4", "5", "0"]
    endpoint = Endpoint()
    cloud = await _said(endpoint, FaultRule(endpoint="webhook", nth=[1], action=Drop()))
    assert endpoint.texts() == ["1", "2", "3", "4", "5"]
    assert cloud.webhooks.counts() == {"lost": 1, "delivered": 5}
    endpoint = Endpoint()
    await _said(endpoint, FaultRule(endpoint="webhook", action=Reorder(window=4, seconds=1)))
    assert sorted(endpoint.texts()) == ["0", "1", "2", "3", "4", "5"]
    assert endpoint.texts() != ["0", "1", "2", "3", "4", "5"]
    endpoint = Endpoint()
    cloud = await _said(endpoint, FaultRule(endpoint="webhook", nth=[2], action=BadSignature()), texts=2)
    good = [
        sent[b"x-liveperson-signature"] == sign_body(raw, cloud.client_secret).encode()
        for raw, sent in zip(endpoint.raw, endpoint.headers, strict=True)
    ]
    assert good == [True, False]


async def test_accounts_deliver_apart() -> None:
    """One account's endpoint does not see what happens in another."""
    endpoint = Endpoint()
    async with connected(endpoint) as call:
        account = call.cloud.add_account("87654321", "other-client", "other-secret")
        consumer = call.cloud._api._consumer_of(account, "x")
        call.cloud.model.open(
            account, consumer, skill_id="-1", ttr=("NORMAL", 1), campaign=None, context=None,
            features=frozenset(), now=1.0,
        )  # fmt: skip
        await call.cloud.settle()
        assert not endpoint.bodies
