"""Webhooks out: signed, in order, retried by the vendor's two laws, and spoilt on request (protocol.md 9)."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import ssl
from collections.abc import AsyncGenerator
from typing import Any

import anyio
import anyio.lowlevel
import httptools
import pytest
import trustme

from connector_async.errors import ConfigurationError
from connector_async.sandbox import BadSignature, Double, Drop, FaultRule, Latency, Reorder, Sandbox
from connector_async.sandbox._post import AsgiTarget, HttpTarget
from connector_async.sandbox._retention import RetentionLaw
from connector_async.sandbox.webhooks import EVENT_KEYS, sign_body, webhooks_of_manifest
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
    """protocol.md 9.2 to 9.4: own echoes too; verified with an independent HMAC."""
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
    """protocol.md 9.7 and 9.8."""
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
    """protocol.md 9.8: by count."""
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
    """protocol.md 9.8: by time to live; 2, 4, 8 … seconds, then the rest after a transition of 4."""
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
    """protocol.md 9.8: the others wait behind what is kept."""
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
async def test_a_failure_while_draining_begins_the_outage_again_and_time_drops_what_is_too_old() -> None:
    """protocol.md 9.8."""
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
    """protocol.md 9.8: `max_retries: 0` beside a retention time."""
    endpoint = Endpoint()
    async with connected(endpoint, retention_time=60, max_retries=0) as call:
        endpoint.answers = [500]
        await call.open(await call.headers())
        await call.cloud.settle()
        assert call.cloud.webhooks.state == "UP"
        assert call.cloud.webhooks.counts() == {"lost": 1}


def test_pauses_of_the_retention_law_end_at_five_minutes() -> None:
    """protocol.md 9.8."""
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


MANIFEST = {
    "client_name": "x",
    "capabilities": {
        "webhooks": {
            "ms.MessagingEventNotification.ContentEvent": {
                "endpoint": "http://127.0.0.1:1/a?b=c",
                "max_retries": 3,
                "headers": [{"header_name": "x-mine", "header_value": "1"}],
            },
            "cqm.ExConversationChangeNotification": {"endpoint": "http://127.0.0.1:1/a?b=c"},
            "retry": {"retention_time": 60},
        }
    },
}


def test_a_manifest_says_where_and_how() -> None:
    """protocol.md 9.1: several kinds may share one URL."""
    endpoints, retention = webhooks_of_manifest(MANIFEST)
    assert retention == 60
    content, change = endpoints[EVENT_KEYS[0]], endpoints[EVENT_KEYS[4]]
    assert content.target is change.target
    assert (content.max_retries, change.max_retries) == (3, None)
    assert content.headers == ((b"x-mine", b"1"),)
    assert webhooks_of_manifest(MANIFEST["capabilities"]["webhooks"])[1] == 60  # type: ignore[index]  # a literal


@pytest.mark.parametrize(
    ("hooks", "sentence"),
    [
        (7, "capabilities.webhooks must be a JSON object"),
        ({"retry": {"retention_time": 1}}, "retention_time must be from 2 to 259200"),
        ({"other": {"endpoint": "http://x"}}, "webhook 'other' is not known; known are"),
        ({EVENT_KEYS[0]: {}}, "needs an endpoint"),
        ({EVENT_KEYS[0]: {"endpoint": "http://x", "max_retries": 6}}, "max_retries must be from 0 to 5"),
        ({EVENT_KEYS[0]: {"endpoint": "http://x", "headers": [1]}}, "headers must be a list"),
        ({EVENT_KEYS[0]: {"endpoint": "ftp://x"}}, "must be a URL that begins with http"),
    ],
)
def test_a_wrong_manifest_gives_one_clear_sentence(hooks: Any, sentence: str) -> None:
    """Issue 6, item 5."""
    with pytest.raises(ConfigurationError, match=sentence):
        webhooks_of_manifest({"capabilities": {"webhooks": hooks}})


# -- the HTTP client


class Server:
    """A raw server that answers each request on a connection with the next of its scripts."""

    def __init__(self, *scripts: bytes, close: bool = False) -> None:
        self.scripts = list(scripts)
        self.requests: list[bytes] = []
        self.connections = 0
        self.close = close

    async def __call__(self, stream: Any) -> None:
        self.connections += 1
        async with stream:
            while self.scripts:
                with contextlib.suppress(anyio.EndOfStream):
                    request = await self._request(stream)
                    self.requests.append(request)
                    await stream.send(self.scripts.pop(0))
                    if not self.close:
                        continue
                return

    async def _request(self, stream: Any) -> bytes:
        request = b""
        while not request.endswith(b"body"):
            request += await stream.receive()
        return request


@contextlib.asynccontextmanager
async def serving(server: Server, *, tls: ssl.SSLContext | None = None) -> AsyncGenerator[int]:
    """Serve on a free port for as long as the block lasts."""
    listener: Any = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    if tls is not None:
        from anyio.streams.tls import TLSListener

        listener = TLSListener(listener, tls, standard_compatible=False)
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, server)
        with anyio.fail_after(5):
            yield port
        tasks.cancel_scope.cancel()


OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


async def test_connections_are_used_again_and_replaced_when_the_endpoint_closed_them() -> None:
    """An idle connection that the endpoint has closed is no failure of the delivery."""
    server = Server(OK, OK, b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n")
    async with serving(server) as port:
        target = HttpTarget(f"http://127.0.0.1:{port}/hook?a=b")
        headers = ((b"x-one", b"1"),)
        assert await target.post(headers, b"body") == 200
        assert await target.post(headers, b"body") == 200
        assert server.connections == 1
        assert await target.post(headers, b"body") == 201
        server.scripts = [OK]
        assert await target.post(headers, b"body") == 200
        assert server.connections == 2
        await target.aclose()
    assert server.requests[0] == (
        f"POST /hook?a=b HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nx-one: 1\r\ncontent-length: 4\r\n\r\nbody".encode()
    )


async def test_answers_that_end_with_the_connection_are_read() -> None:
    """HTTP/1.1 without a length."""
    server = Server(b"HTTP/1.1 200 OK\r\n\r\nok", OK, close=True)
    async with serving(server) as port:
        target = HttpTarget(f"http://127.0.0.1:{port}")
        assert await target.post((), b"body") == 200
        assert await target.post((), b"body") == 200
        assert server.connections == 2
        await target.aclose()


@pytest.mark.parametrize(
    ("script", "error"),
    [
        (b"", anyio.EndOfStream),
        (b"HTTP/1.1 200 OK\r\nconte", anyio.EndOfStream),
        (b"rubbish\r\n\r\n", httptools.HttpParserError),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 99999\r\n\r\n" + b"x" * 99_999, Exception),
    ],
)
async def test_answers_that_are_none_raise(script: bytes, error: type[Exception]) -> None:
    """Each is a failed attempt."""
    async with serving(Server(script, close=True)) as port:
        with pytest.raises(error):
            await HttpTarget(f"http://127.0.0.1:{port}").post((), b"body")


async def test_a_reused_connection_that_breaks_inside_the_answer_is_a_failure() -> None:
    """Bytes of an answer came: the endpoint has had the event."""
    server = Server(OK, b"HTTP/1.1 200 OK\r\nconte")
    async with serving(server) as port:
        target = HttpTarget(f"http://127.0.0.1:{port}")
        assert await target.post((), b"body") == 200
        with pytest.raises(anyio.EndOfStream):
            await target.post((), b"body")


async def test_https_endpoints_are_verified() -> None:
    """protocol.md 9.3: valid certificate."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    async with serving(Server(OK), tls=context) as port:
        target = HttpTarget(f"https://127.0.0.1:{port}/", ssl_context=trusting)
        assert await target.post((), b"body") == 200
        await target.aclose()


async def test_untrusted_and_absent_endpoints_are_failed_attempts() -> None:
    """What a delivery's record says then."""
    async with Sandbox(tls=True) as other, Sandbox(in_process=True, agent="silent") as cloud, calling(cloud) as call:
        cloud.deliver_to_url(f"{other.url}/")
        await call.open(await call.headers())
        await cloud.settle()
        assert cloud.webhooks.deliveries[0].attempts[0] in ("SSLCertVerificationError", "SSLError")
        cloud.use_manifest(MANIFEST)
        await call.open(await call.headers("second"))
        while not cloud.webhooks.deliveries[-1].attempts:
            await anyio.lowlevel.checkpoint()
        assert cloud.webhooks.state == "FAILED"
        assert cloud.webhooks.as_json()["state"] == "FAILED"


async def test_webhook_url_of_the_constructor_reaches_another_process_like_server() -> None:
    """`--webhook-url`: one real socket talks to another."""
    server = Server(*[OK.replace(b"200 OK", b"500 Oh")] * 3)
    server._request = _any_request  # type: ignore[method-assign]  # a webhook's body does not end with "body"
    async with serving(server) as port:
        url = f"http://127.0.0.1:{port}/"
        async with (
            Sandbox(webhook_url=url, webhook_signature="sha256", agent="silent") as cloud,
            calling(cloud) as call,
        ):
            await call.open(await call.headers())
            await cloud.settle()
        assert cloud.webhooks.deliveries[0].attempts == [500]
    assert b"x-liveperson-signature: sha256=" in server.requests[0]


async def _any_request(stream: Any) -> bytes:
    request = b""
    while not request.endswith(b"}"):
        request += await stream.receive()
    return request


async def test_asgi_target_hands_over_path_and_query() -> None:
    """`deliver_to(app, path)`."""
    seen: dict[str, Any] = {}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.update(scope)
        await send({"type": "http.response.start", "status": 200, "headers": []})

    target = AsgiTarget(app, "/a/b?c=d")
    assert await target.post(((b"x", b"y"),), b"{}") == 200
    assert (seen["path"], seen["query_string"], seen["method"]) == ("/a/b", b"c=d", "POST")
    await target.aclose()
