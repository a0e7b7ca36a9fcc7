"""The endpoints, as a client that nobody here wrote would meet them: in process, on a socket, and on one with TLS."""

from __future__ import annotations

from typing import Any

import anyio
import anyio.lowlevel
import httpx
import jwt
import pytest
from trio.testing import MockClock

from connector_async.sandbox import Latency, Sandbox, Silence
from connector_async.sandbox.tokens import sign
from tests.sandbox.caller import calling
from tests.sandbox.conftest import Opener, in_process

pytestmark = pytest.mark.anyio


async def test_a_conversation_from_the_domain_api_to_its_close(cloud_of: Opener) -> None:
    """How-to guide."""
    async with cloud_of() as call:
        host = call.cloud.url.partition("//")[2]
        found = await call.http.get(f"{call.account}/service/asyncMessagingEnt/baseURI.json?version=1.0")
        assert (found.status_code, found.json()["baseURI"]) == (200, host)
        headers = await call.headers()
        opened = await call.batch(headers)
        assert opened.status_code == 200
        assert [item["code"] for item in opened.json()] == ["OK", "OK"]
        conversation_id = opened.json()[1]["body"]["conversationId"]
        said = await call.say(headers, conversation_id, request_id="m-1")
        assert said.json() == {"code": "OK", "body": {"sequence": 0}, "reqId": "m-1"}
        closed = await call.close(headers, conversation_id)
        assert closed.json()["body"] == {"msg": "OK Conversation resolved successfully"}
        late = await call.say(headers, conversation_id)
        assert late.status_code == 400
        assert late.json()["code"] == "BAD_REQUEST"
        assert late.json()["body"]["msg"] == "Bad Request, Conversation is close"


@pytest.mark.parametrize("path", ["idp/baseURI.json?version=1.0", "idp/baseURI?version=1.0", "idp/baseURI.json"])
async def test_domain_api_takes_the_forms_seen_in_the_field(path: str) -> None:
    """Domain API page: with and without `.json` and `version`."""
    async with in_process() as call:
        assert (await call.http.get(f"{call.account}/service/{path}")).status_code == 200


@pytest.mark.parametrize(
    ("shape", "keys"), [("flat", {"service", "account", "baseURI"}), ("list", {"baseURIs"})], ids=["flat", "list"]
)
async def test_domain_api_answers_in_the_shape_asked_for(shape: Any, keys: set[str]) -> None:
    """Domain API page: both shapes occur."""
    async with in_process(domain_shape=shape) as call:
        answer = (await call.http.get(f"{call.account}/service/idp/baseURI.json")).json()
        assert set(answer) == keys


async def test_head_is_answered_as_get_without_the_body(cloud_of: Opener) -> None:
    """RFC 9110, 9.3.2."""
    async with cloud_of() as call:
        answer = await call.http.head(f"{call.account}/service/idp/baseURI.json")
        assert answer.status_code == 200
        assert int(answer.headers["content-length"]) > 0
        assert (await call.http.get(f"{call.account}/service/idp/baseURI.json")).status_code == 200


async def test_a_wrong_method_is_told_the_right_ones() -> None:
    """RFC 9110, 15.5.6: a 405 names what is allowed."""
    async with in_process() as call:
        answer = await call.http.put(f"{call.account}/messaging/consumer/conversation/send", content=b"{}")
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


async def test_without_a_host_the_domain_api_names_its_own_address() -> None:
    """Locks a bug: an HTTP/1.0 client, which names no host, was told to use an empty one."""
    async with Sandbox() as cloud:
        port = cloud.url.rpartition(":")[2]
        with anyio.fail_after(60):
            async with await anyio.connect_tcp("127.0.0.1", int(port)) as stream:
                path = f"/api/account/{cloud.account_id}/service/idp/baseURI.json"
                await stream.send(f"GET {path} HTTP/1.0\r\n\r\n".encode())
                answer = b"".join([part async for part in stream])
        assert f'"baseURI":"127.0.0.1:{port}"'.encode() in answer


async def test_a_token_that_is_sent_twice_is_none() -> None:
    """RFC 9110, 5.3: repeated headers are one list; the sandbox took the last and hid the mistake."""
    async with in_process() as call:
        headers = await call.headers()
        conversation_id = await call.open(headers)
        payload = call.envelope("ms.PublishEvent", {"dialogId": conversation_id})
        path = f"{call.account}/messaging/consumer/conversation/send"
        for name, code in (("Authorization", 40102), ("X-LP-ON-BEHALF", 40103)):
            doubled = [*headers.items(), (name, headers[name])]
            answer = await call.http.post(path, headers=doubled, json=payload)
            assert answer.json()["body"]["errorCode"] == code


async def test_domain_api_lists_all_services() -> None:
    """Domain API page."""
    async with in_process() as call:
        answer = (await call.http.get(f"{call.account}/service/baseURI.json")).json()
        services = {entry["service"]: entry["baseURI"] for entry in answer["baseURIs"]}
        assert {"sentinel", "idp", "asyncMessagingEnt", "swift"} <= set(services)
        assert set(services.values()) == {"127.0.0.1"}


async def test_domain_api_refuses_unknown_accounts_and_services() -> None:
    """Domain API page."""
    async with in_process() as call:
        assert (await call.http.get("/api/account/nobody/service/idp/baseURI.json")).status_code == 401
        assert (await call.http.get(f"{call.account}/service/nothing/baseURI.json")).status_code == 404


@pytest.mark.parametrize("where", ["form", "query", "mixed"])
async def test_credentials_are_taken_from_form_and_query(where: str) -> None:
    """Connector API, authorization: accepted variants."""
    async with in_process() as call:
        secret = {"client_id": call.cloud.client_id, "client_secret": call.cloud.client_secret}
        grant = {"grant_type": "client_credentials"}
        query, form = {"form": ({}, grant | secret), "query": (grant | secret, {}), "mixed": (grant, secret)}[where]
        answer = await call.http.post(f"/sentinel{call.account}/app/token", params=query, data=form)
        assert answer.status_code == 200
        assert answer.json()["token_type"] == "Bearer"
        token = answer.json()["access_token"]
        assert jwt.get_unverified_header(token)["alg"] == "RS256"
        claims = jwt.decode(token, options={"verify_signature": False})
        assert claims["aud"] == call.cloud.account_id
        assert claims["azp"] == call.cloud.client_id
        assert claims["scope"] == "msg.consumer"
        assert claims["exp"] - claims["iat"] == 3600


@pytest.mark.parametrize(
    ("form", "status"),
    [
        ({"grant_type": "client_credentials", "client_id": "x", "client_secret": "y"}, 401),
        ({"grant_type": "client_credentials"}, 400),
        ({"grant_type": "password"}, 400),
        ({}, 400),
    ],
)
async def test_token_endpoint_says_what_is_wrong(form: dict[str, str], status: int) -> None:
    """Connector API, authorization: errors."""
    async with in_process() as call:
        answer = await call.http.post(f"/sentinel{call.account}/app/token", data=form)
        assert answer.status_code == status
        assert "internalErrorCode" in answer.json()
        unknown = await call.http.post("/sentinel/api/account/nobody/app/token", data=form)
        assert unknown.status_code == 401


async def test_consumer_token_names_the_same_consumer_each_time() -> None:
    """Connector API, authorization."""
    async with in_process() as call, in_process() as other:
        first = await call.headers("customer-42")
        claims = jwt.decode(first["X-LP-ON-BEHALF"], options={"verify_signature": False})
        assert claims["ext_consumer_id"] == "customer-42"
        assert len(bytes.fromhex(claims["lp_consumer_id"])) == 32
        assert "exp" not in claims
        again = await other.headers("customer-42")
        assert jwt.decode(again["X-LP-ON-BEHALF"], options={"verify_signature": False}) == claims
        token = await other.token()
        assert await other.open({**first, "Authorization": token})  # it never expires, not even with the sandbox


@pytest.mark.parametrize("body", [b"{}", b"[]", b"no", b'{"ext_consumer_id": 5}', b'{"ext_consumer_id": ""}'])
async def test_consumer_endpoint_refuses_a_bad_body(body: bytes) -> None:
    """Connector API, authorization."""
    async with in_process() as call:
        token = await call.token()
        answer = await call.http.post(f"{call.account}/consumer", headers={"Authorization": token}, content=body)
        assert answer.status_code == 400


async def _error(answer: httpx.Response) -> tuple[int, int]:
    body = answer.json()
    assert body["kind"] == "resp"
    assert body["type"] == ".ReqBody$ErrorResp"
    assert body["code"] == answer.status_code
    return answer.status_code, body["body"]["errorCode"]


async def test_missing_and_bad_tokens_are_told_apart() -> None:
    """Connector API, authorization."""
    async with in_process() as call:
        good = await call.headers()
        conversation_id = await call.open(good)

        async def code(**change: str) -> int:
            headers = {name: value for name, value in {**good, **change}.items() if value}
            status, error_code = await _error(await call.say(headers, conversation_id))
            assert status == error_code // 100
            return error_code

        assert await code(Authorization="") == 40105
        assert await code(Authorization="nonsense") == 40102
        assert await code(Authorization=f"Bearer {good['Authorization']}") == 40102
        assert await code(Authorization=sign({"aud": call.cloud.account_id, "azp": "x", "exp": 1})) == 40001
        foreign = {"iss": "Sentinel", "azp": "x", "exp": 2**40}
        assert await code(Authorization=sign({**foreign, "aud": "other"})) == 40102
        assert await code(Authorization=sign({**foreign, "aud": call.cloud.account_id, "exp": 1})) == 40102
        assert await code(**{"X-LP-ON-BEHALF": ""}) == 40104
        assert await code(**{"X-LP-ON-BEHALF": "nonsense"}) == 40103
        assert await code(**{"X-LP-ON-BEHALF": sign({"account_id": "other", "ext_consumer_id": "x"})}) == 40103
        own = sign({**foreign, "aud": call.cloud.account_id})
        assert (await call.say({**good, "Authorization": own}, conversation_id)).status_code == 200
        assert (await call.http.post("/api/account/nobody/consumer", json={})).status_code == 401


async def test_expired_and_revoked_tokens_are_refused_until_renewed() -> None:
    """Connector API, authorization: 40102."""
    now = 1_700_000_000.0

    def clock() -> float:
        return now

    async with in_process(token_lifetime=2.5, clock=clock) as call:
        headers = await call.headers()
        conversation_id = await call.open(headers)
        now += 2.4
        assert (await call.say(headers, conversation_id)).status_code == 200
        now += 0.2
        assert await _error(await call.say(headers, conversation_id)) == (401, 40102)
        headers["Authorization"] = await call.token()
        assert (await call.say(headers, conversation_id)).status_code == 200
        assert call.cloud.revoke_tokens() == 2
        assert await _error(await call.say(headers, conversation_id)) == (401, 40102)
        assert call.cloud.ledger.token_calls == 2
        assert [entry.generation for entry in call.cloud.ledger.entries][-4:] == [1, 1, 2, 2]


async def test_consumer_cannot_touch_the_conversation_of_another() -> None:
    """Connector API, authorization: 401 semantics of the seed page."""
    async with in_process() as call:
        mine, theirs = await call.headers("a"), await call.headers("b")
        conversation_id = await call.open(mine)
        assert await _error(await call.say(theirs, conversation_id)) == (401, 40103)
        assert await _error(await call.close(theirs, conversation_id)) == (401, 40103)
        assert call.cloud.ledger.entries[-1].code == "40103"
        assert (await call.say(mine, conversation_id)).status_code == 200


async def test_a_client_is_pointed_here_by_environment_or_overrides() -> None:
    """our design, 2: `from_env` and `domains`."""
    async with in_process() as call:
        assert call.cloud.environ() == {
            "LP_ACCOUNT_ID": call.cloud.account_id,
            "LP_CLIENT_ID": call.cloud.client_id,
            "LP_CLIENT_SECRET": call.cloud.client_secret,
            "LP_DOMAIN_API": call.cloud.url,
        }
        assert set(call.cloud.domains.values()) == {call.cloud.url}
        assert {"sentinel", "idp", "asyncMessagingEnt", "swift"} <= set(call.cloud.domains)
        await call.headers()
        assert call.cloud.ledger.consumer_calls == 1


async def test_accounts_are_apart() -> None:
    """A token of one account opens nothing in another."""
    async with in_process() as call:
        call.cloud.add_account("87654321", "other-client", "other-secret")
        headers = await call.headers()
        answer = await call.http.post(
            "/api/account/87654321/consumer", headers=headers, json={"ext_consumer_id": "x"}
        )
        assert await _error(answer) == (401, 40102)


async def test_unknown_paths_methods_and_protocols_are_told() -> None:
    """A client's mistake in a URL is answered truthfully."""
    async with in_process() as call:
        for path in ("/", "/v1/AUTH_async-images/12345678", f"{call.account}/nothing", "/sentinel/api/account/1/x"):
            assert (await call.http.get(path)).status_code == 404
        for path in (f"{call.account}/service/a/b/baseURI", f"{call.account}/service/idp/other"):
            assert (await call.http.get(path)).status_code == 404
        answer = await call.http.get(f"{call.account}/messaging/consumer/conversation/send")
        assert answer.status_code == 405
        assert answer.json()["message"] == "the method must be POST"
        with pytest.raises(RuntimeError, match="HTTP only"):
            await call.cloud.app({"type": "websocket"}, _never, _never)


async def _never(*_: Any) -> Any:
    raise AssertionError


async def test_head_and_odd_requests_on_a_socket_do_not_stall_the_connection() -> None:
    """Head and body of an answer are joined on the wire; a head without a body must not be held back."""
    async with Sandbox() as cloud, calling(cloud) as call:
        with anyio.fail_after(60):
            assert (await call.http.head("/")).status_code == 404
            assert (await call.http.get("/")).status_code == 404
            answer = await call.http.get("/", headers={"Connection": "close"})
            assert answer.headers["connection"] == "close"


async def test_large_bodies_arrive_in_pieces_and_are_read_to_the_end() -> None:
    """A body beyond the limit is cut, not kept."""
    async with Sandbox() as cloud, calling(cloud) as call:
        with anyio.fail_after(60):
            headers = await call.headers()
            answer = await call.http.post(
                f"{call.account}/messaging/consumer/conversation/send", headers=headers, content=b"x" * 5_000_000
            )
            assert answer.status_code == 400
            assert answer.json()["code"] == 400


async def test_a_failing_body_leaves_the_sandbox_as_itself() -> None:
    """our style 5.8: not inside a group of one."""
    for options in ({"in_process": True}, {}):
        with pytest.raises(KeyError, match="mine"):
            async with Sandbox(**options):  # type: ignore[arg-type]  # two flags in a dict
                raise KeyError("mine")


async def test_requests_in_hand_are_cut_when_the_sandbox_closes() -> None:
    """Closing takes a bounded time, whatever the clients do."""
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks, Sandbox() as cloud:
            cloud.fail_next(Silence(), endpoint="domain")
            tasks.start_soon(_expect_a_broken_connection, cloud)
            while not cloud.ledger.domain_calls:
                await anyio.lowlevel.checkpoint()


async def _expect_a_broken_connection(cloud: Sandbox) -> None:
    async with calling(cloud) as call:
        with pytest.raises(httpx.RemoteProtocolError):
            await call.http.get(f"{call.account}/service/idp/baseURI.json")


def test_a_socket_needs_asyncio() -> None:
    """Under trio the sandbox runs in process only."""

    async def main() -> None:
        with pytest.raises(RuntimeError, match="in_process=True"):
            async with Sandbox():
                raise AssertionError

    anyio.run(main, backend="trio")


def test_in_process_it_runs_on_trio_and_a_virtual_clock() -> None:
    """our fault tables 4.3: an hour of latency passes at once."""

    async def main() -> None:
        async with (
            Sandbox(in_process=True, clock=lambda: 1e9 + anyio.current_time()) as cloud,
            calling(cloud) as call,
        ):
            headers = await call.headers()
            conversation_id = await call.open(headers)
            cloud.fail_next(Latency(seconds=3601))
            assert await _error(await call.say(headers, conversation_id)) == (401, 40102)

    anyio.run(main, backend="trio", backend_options={"clock": MockClock(autojump_threshold=0)})
