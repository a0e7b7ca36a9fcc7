"""What `webhooks` compares: an endpoint that only checks the HMAC, and ours with all that a notification needs."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import attrs
import orjson

__all__ = ["App", "Ours", "bare_endpoint", "delivery", "ours"]

_ACCOUNT, _CLIENT, _SECRET = "12345678", "client", "secret"

App = Callable[[Any, Any, Any], Awaitable[None]]


@attrs.define(eq=False)
class Ours:
    """A session's webhook app, and how many notifications its handler has seen."""

    app: App
    handled: int = 0
    _wanted: int = 0
    _done: asyncio.Event = attrs.field(factory=asyncio.Event)

    def expect(self, more: int) -> None:
        """So many are about to come."""
        self._wanted += more
        self._done.clear()

    def count(self) -> None:
        """One was handled."""
        self.handled += 1
        if self.handled == self._wanted:
            self._done.set()

    async def all_handled(self) -> None:
        """Wait for those that were expected."""
        await self._done.wait()


@contextlib.asynccontextmanager
async def ours(conversations: int) -> AsyncIterator[Ours]:
    """Verified, parsed, put in order, handled; answered when queued."""
    from connector_async import AppCredentials, ConnectorSession, ContentEvent, Incoming, MemoryStore, Router
    from connector_async.store import ConversationRecord

    router, store = Router(), MemoryStore()
    names = [f"conversation-{number}" for number in range(conversations)]
    for number, name in enumerate(names):
        record = ConversationRecord(account_id=_ACCOUNT, conversation_id=name, ext_consumer_id=f"customer-{number}")
        await store.put_conversation(record)
    nowhere: dict[str, str] = dict.fromkeys(("sentinel", "idp", "asyncMessagingEnt"), "http://127.0.0.1:9")
    session = ConnectorSession(
        _ACCOUNT, AppCredentials(_CLIENT, _SECRET), domains=nowhere, store=store, router=router
    )
    async with session:
        subject = Ours(session.webhook_app(ack="queued"))

        @router.on(ContentEvent)
        async def count(_message: Incoming[ContentEvent]) -> None:
            subject.count()

        # Held, as by an application that is at work with them.
        keep = [await session.find_conversation(name) for name in names]
        yield subject
        del keep


async def bare_endpoint(request: Any) -> Any:
    """The least that is right: the HMAC over the raw body, and nothing else."""
    from starlette.responses import Response

    body = await request.body()
    digest = base64.b64encode(hmac.new(_SECRET.encode(), body, hashlib.sha1).digest()).decode()
    fits = hmac.compare_digest(request.headers["x-liveperson-signature"], f"sha1={digest}")
    return Response(status_code=200 if fits else 401)


def delivery(number: int, conversations: int) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Headers and body of the notification with this number; conversations take turns."""
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
    return headers, body
