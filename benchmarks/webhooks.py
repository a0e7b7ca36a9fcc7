"""`webhooks`: a verified, parsed, ordered and handled notification beside an endpoint that only checks the HMAC."""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import hmac
import time
from collections.abc import Awaitable, Callable
from statistics import median
from typing import Any

import orjson

from benchmarks.report import Result, table
from benchmarks.targets import judge

TARGET = 0.7
"""Rate of ours against the bare endpoint's."""
_ACCOUNT, _CLIENT, _SECRET = "12345678", "client", "secret"

App = Callable[[Any, Any, Any], Awaitable[None]]


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `webhooks`."""
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--messages", type=int, default=3_000, help="notifications in each round")
    parser.add_argument("--conversations", type=int, default=200)


def run(options: argparse.Namespace) -> Result:
    """Measure both in turn, without sockets: the server beneath is the same for both."""
    rows = asyncio.run(_measure(options.rounds, options.messages, options.conversations))
    bare = median(row["bare"] for row in rows)
    ours = median(row["ours"] for row in rows)
    ratio = median(row["bare"] / row["ours"] for row in rows)
    lines = [
        ("Starlette, HMAC only", f"{bare:.1f}", f"{1e6 / bare:,.0f}"),
        ("webhook_app, verified, parsed, in order, handled", f"{ours:.1f}", f"{1e6 / ours:,.0f}"),
    ]
    return {
        "title": "webhooks: one notification, CPU",
        "tables": [table(("endpoint", "CPU us", "notifications/s"), lines)],
        "rows": rows,
        "targets": [judge("rate of webhook_app / bare endpoint", ratio, TARGET, at_least=True)],
        "problems": [],
        "settings": {"rounds": options.rounds, "messages": options.messages, "conversations": options.conversations},
    }


async def _measure(rounds: int, messages: int, conversations: int) -> list[dict[str, float]]:
    from connector_async import AppCredentials, ConnectorSession, ContentEvent, Incoming, MemoryStore, Router
    from connector_async.store import ConversationRecord

    handled = wanted = 0
    done = asyncio.Event()
    router = Router()

    @router.on(ContentEvent)
    async def count(_message: Incoming[ContentEvent]) -> None:
        nonlocal handled
        handled += 1
        if handled == wanted:
            done.set()

    store = MemoryStore()
    for number in range(conversations):
        record = ConversationRecord(
            account_id=_ACCOUNT, conversation_id=f"conversation-{number}", ext_consumer_id=f"customer-{number}"
        )
        await store.put_conversation(record)
    rows = []
    domains = {
        "sentinel": "http://127.0.0.1:9",
        "idp": "http://127.0.0.1:9",
        "asyncMessagingEnt": "http://127.0.0.1:9",
    }
    session = ConnectorSession(
        _ACCOUNT, AppCredentials(_CLIENT, _SECRET), domains=domains, store=store, router=router
    )
    async with session:
        ours, bare = session.webhook_app(ack="queued"), _bare_app()
        keep = [await session.find_conversation(f"conversation-{number}") for number in range(conversations)]
        for turn in range(rounds + 1):
            requests = [_delivery(turn * messages + number, conversations) for number in range(messages)]
            before = time.process_time()
            await _deliver(bare, requests)
            between = time.process_time()
            wanted += messages
            done.clear()
            await _deliver(ours, requests)
            await done.wait()
            after = time.process_time()
            each = 1e6 / messages
            rows.append({"bare": (between - before) * each, "ours": (after - between) * each})
        del keep
    return rows[1:]  # the first round warms up


def _bare_app() -> App:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    async def endpoint(request: Request) -> Response:
        body = await request.body()
        digest = base64.b64encode(hmac.new(_SECRET.encode(), body, hashlib.sha1).digest()).decode()
        fits = hmac.compare_digest(request.headers["x-liveperson-signature"], f"sha1={digest}")
        return Response(status_code=200 if fits else 401)

    return Starlette(routes=[Route("/", endpoint, methods=["POST"])])


def _delivery(number: int, conversations: int) -> tuple[dict[str, Any], bytes]:
    conversation = f"conversation-{number % conversations}"
    change = {
        "sequence": number // conversations,
        "originatorId": "agent",
        "originatorMetadata": {"id": "agent", "role": "ASSIGNED_AGENT"},
        "serverTimestamp": 1_700_000_000_000 + number,
        "event": {"type": "ContentEvent", "contentType": "text/plain", "message": f"It leaves today ({number})."},
        "conversationId": conversation,
        "dialogId": conversation,
        "messageAudience": "ALL",
    }
    body = orjson.dumps(
        {"kind": "notification", "type": "ms.MessagingEventNotification", "body": {"changes": [change]}}
    )
    signature = base64.b64encode(hmac.new(_SECRET.encode(), body, hashlib.sha1).digest())
    headers = [
        (b"host", b"127.0.0.1"),
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"x-liveperson-account-id", _ACCOUNT.encode()),
        (b"x-liveperson-client-id", _CLIENT.encode()),
        (b"x-liveperson-signature", b"sha1=" + signature),
    ]
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "path": "/",
        "raw_path": b"/",
        "query_string": b"",
        "root_path": "",
        "scheme": "http",
        "headers": headers,
    }
    return scope, body


async def _deliver(app: App, requests: list[tuple[dict[str, Any], bytes]]) -> None:
    statuses: list[int] = []
    for scope, body in requests:
        left = [body]

        async def receive(left: list[bytes] = left) -> dict[str, Any]:
            return {"type": "http.request", "body": left.pop(), "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        await app(dict(scope), receive, send)
    if set(statuses) != {200}:
        raise RuntimeError(f"not every delivery was taken: {sorted(set(statuses))}")
