"""The benchmarks' own cloud: it must answer rightly, or the numbers are of something else."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from benchmarks.server import Cloud, Connection

pytestmark = pytest.mark.anyio
SEND = "/api/account/12345678/messaging/consumer/conversation/send?v=3"


class RecordingTransport(asyncio.Transport):
    """Keeps what is written; cannot be closed and never pushes back."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def answers(self) -> list[tuple[int, Any]]:
        """Status and JSON of every answer so far."""
        found = []
        rest = self.written
        while rest:
            head, _, rest = rest.partition(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
            found.append((int(head.split()[1]), json.loads(rest[:length])))
            rest = rest[length:]
        return found


def request(path: str, payload: object, *, authorization: str = "token", length: str = "Content-Length") -> bytes:
    body = json.dumps(payload).encode()
    return f"POST {path} HTTP/1.1\r\nAuthorization: {authorization}\r\n{length}: {len(body)}\r\n\r\n".encode() + body


def connected(cloud: Cloud) -> tuple[Connection, RecordingTransport]:
    connection, transport = Connection(cloud), RecordingTransport()
    connection.connection_made(transport)
    return connection, transport


@pytest.fixture
async def answering() -> tuple[Cloud, Connection, RecordingTransport]:
    cloud = Cloud(asyncio.get_running_loop(), latency=0.0, token_lifetime=60.0)
    return cloud, *connected(cloud)


Answering = tuple[Cloud, Connection, RecordingTransport]


@pytest.mark.parametrize("request_id", ["m-1", 'a"quoted\\id', "é", 5])
async def test_a_send_is_answered_with_its_own_id(answering: Answering, request_id: object) -> None:
    """Connector API, responses: `reqId` echoes the id."""
    cloud, connection, transport = answering
    connection.data_received(request(SEND, {"body": {"id": "not this"}, "id": request_id}))
    [(status, answer)] = transport.answers()
    assert (status, answer["reqId"], answer["code"]) == (200, request_id, "OK")
    assert cloud.control()["sends"] == 1


async def test_requests_in_pieces_and_back_to_back_are_all_answered(answering: Answering) -> None:
    """TCP keeps no borders: any cut must give the same answers."""
    _, connection, transport = answering
    stream = b"".join(request(SEND, {"id": str(number)}, length="content-length") for number in range(3))
    for at in range(0, len(stream), 7):
        connection.data_received(stream[at : at + 7])
    connection.data_received(stream)
    assert [answer["reqId"] for _, answer in transport.answers()] == ["0", "1", "2"] * 2


async def test_tokens_and_conversations_have_the_shapes_of_the_api(answering: Answering) -> None:
    """Connector API, authorization and CONVERSATION."""
    cloud, connection, transport = answering
    account = "/api/account/12345678"
    connection.data_received(request(f"{account}/consumer?v=1.0", {"ext_consumer_id": "c"}))
    opening = [
        {"kind": "req", "id": "p", "type": "userprofile.SetUserProfile", "body": {}},
        {"kind": "req", "id": "c", "type": "cm.ConsumerRequestConversation", "body": {}},
    ]
    connection.data_received(request(f"{account}/messaging/consumer/conversation?v=3", opening))
    connection.data_received(request(f"{account}/service/idp/baseURI.json?version=1.0", {}))
    (created, consumer), (_, opened), (_, domains) = transport.answers()
    assert created == 201
    assert consumer["token"].count(".") == 2
    assert [item["reqId"] for item in opened] == ["p", "c"]
    assert opened[1]["body"]["conversationId"]
    assert [entry["service"] for entry in domains["baseURIs"]] == ["idp"]
    assert cloud.control()["consumers"] == 1


async def test_a_revoked_token_is_refused_and_a_new_one_is_not(answering: Answering) -> None:
    """Connector API, authorization errors: 40102 means that the AppJWT has to be renewed."""
    cloud, connection, transport = answering
    tokens = []
    for _ in range(2):
        connection.data_received(request("/sentinel/api/account/12345678/app/token?v=1.0", {}))
        tokens.append(transport.answers()[-1][1]["access_token"])
        if len(tokens) == 1:
            cloud.control(revoke=True)
    for token in tokens:
        connection.data_received(request(SEND, {"id": "x"}, authorization=token))
    (refused, error), (accepted, _) = transport.answers()[2:]
    assert (refused, error["body"]["errorCode"], accepted) == (401, 40102, 200)
    assert cloud.control()["tokens"] == 2


async def test_held_messages_are_answered_when_let_go(answering: Answering) -> None:
    """What the memory benchmark stands on: nothing is answered before."""
    cloud, connection, transport = answering
    cloud.control(hold=True)
    connection.data_received(request(SEND, {"id": "x"}))
    assert transport.answers() == []
    assert cloud.control()["held"] == 1
    cloud.control(hold=False)
    assert transport.answers()[0][1]["reqId"] == "x"
