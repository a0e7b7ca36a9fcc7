"""What the tests of the webhooks share: a session that is none, and the vendor's side of a delivery."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from types import SimpleNamespace
from typing import Any, cast

import anyio
import orjson
from anyio.abc import TaskGroup

from connector_async.hooks import Event
from connector_async.protocol.signature import Algorithm, sign
from connector_async.store import MemoryStore, Store
from connector_async.webhooks import AppRecord, Dispatcher, Incoming, Router, WebhookApp, WebhookSettings
from connector_async.webhooks._ports import FoundConversation
from tests.guards import CANARY

__all__ = [
    "ACCOUNT",
    "APP",
    "SECRET",
    "Post",
    "StubPort",
    "change",
    "chat_state",
    "content",
    "encoded",
    "headers_for",
    "notification",
    "post",
    "receipt",
    "rig",
    "until",
]

ACCOUNT, APP, SECRET = "12345678", "81fad476-app", f"{CANARY}-webhook-secret"
CONSUMER, AGENT = "lp-consumer", "agent-1"
Json = dict[str, Any]


# The vendor's side


def notification(*changes: Json, kind: str = "ms.MessagingEventNotification") -> Json:
    """A whole notification."""
    return {"kind": "notification", "body": {"changes": list(changes)}, "type": kind}


def _event(event: Json, dialog: str, sequence: int | None, role: str | None, /, **facts: Any) -> Json:
    originator = CONSUMER if role == "CONSUMER" else AGENT
    found: Json = {
        "sequence": sequence,
        "originatorId": originator,
        "originatorMetadata": {"id": originator, "role": role},
        "serverTimestamp": 1700000000000 + (sequence or 0),
        "event": event,
        "conversationId": dialog,
        "dialogId": dialog,
        "messageAudience": "ALL",
    }
    found |= facts
    return {key: value for key, value in found.items() if value is not None}


def content(
    dialog: str, sequence: int | None, text: str = "hello", role: str | None = "ASSIGNED_AGENT", **facts: Any
) -> Json:
    """A text; facts replace fields of the change, None leaves one out."""
    return _event(
        {"type": "ContentEvent", "contentType": "text/plain", "message": text}, dialog, sequence, role, **facts
    )


def receipt(dialog: str, sequence: int, *of: int, role: str = "ASSIGNED_AGENT") -> Json:
    """A READ receipt."""
    return _event({"type": "AcceptStatusEvent", "status": "READ", "sequenceList": list(of)}, dialog, sequence, role)


def chat_state(dialog: str, state: str = "COMPOSING", role: str = "ASSIGNED_AGENT") -> Json:
    """A chat state: no sequence, no time."""
    return _event({"type": "ChatStateEvent", "chatState": state}, dialog, None, role, serverTimestamp=None)


def change(conversation: str, stamp: int | None, *, stage: str = "OPEN", dialogs: Sequence[Json] = ()) -> Json:
    """A conversation as it is now."""
    details: Json = {
        "participants": [{"id": CONSUMER, "role": "CONSUMER"}],
        "dialogs": list(dialogs),
        "state": stage,
        "stage": stage,
    }
    if stamp is not None:
        details["metaDataLastUpdateTs"] = stamp
    result = {"convId": conversation, "conversationDetails": details}
    return notification({"type": "UPSERT", "result": result}, kind="cqm.ExConversationChangeNotification")


def encoded(message: Json) -> bytes:
    """The bytes of the wire."""
    return orjson.dumps(message)


def headers_for(
    body: bytes, secret: str = SECRET, *, account: str = ACCOUNT, app: str = APP, algorithm: Algorithm = "sha1"
) -> dict[str, str]:
    """As the vendor would send them."""
    return {
        "Content-Type": "application/json",
        "X-Liveperson-Account-Id": account,
        "X-Liveperson-Client-Id": app,
        "X-Liveperson-Signature": sign(body, secret, algorithm),
    }


# Our side


class StubConversation:
    """Remembers what was said; has nothing else of a `Conversation`."""

    def __init__(self, conversation_id: str) -> None:
        self.conversation_id = conversation_id
        self.consumer = SimpleNamespace(ext_consumer_id="anna")
        self.said: list[tuple[str, Json]] = []

    async def send_text(self, text: str, **options: Any) -> str:
        self.said.append((text, options))
        return "sent"


class StubPort:
    """A session of which only the port exists. Every conversation is ours unless `foreign` names it."""

    def __init__(self, tasks: TaskGroup, store: Store | None = None, *, account: str = ACCOUNT) -> None:
        self.account_id = account
        self.store: Store = store if store is not None else MemoryStore()
        self.records = [AppRecord(account_id=account, client_id=APP, secret=SECRET)]
        self.emitted: list[Event] = []
        self.observed: list[Incoming[Any]] = []
        self.foreign: set[str] = set()
        self.adopted: dict[str, str] = {}
        self.awaited = False
        self.lp_consumer_id: str | None = CONSUMER
        self.asked: list[tuple[str, str | None]] = []
        self.conversations: dict[str, StubConversation] = {}
        self._tasks = tasks

    @property
    def session(self) -> Any:
        return self

    def app_records(self) -> Sequence[AppRecord]:
        return self.records

    def start_soon(self, work: Callable[..., Coroutine[Any, Any, None]], /, *args: object) -> None:
        self._tasks.start_soon(work, *args)

    def emit(self, event: Event) -> None:
        self.emitted.append(event)

    def conversation_in_use(self, conversation_id: str) -> None:
        """Nobody holds one: `find_conversation` is asked."""

    async def find_conversation(
        self, conversation_id: str, *, lp_consumer_id: str | None = None, is_told_apart: bool = False
    ) -> FoundConversation | None:
        self.asked.append((conversation_id, lp_consumer_id))
        if conversation_id in self.foreign and conversation_id not in self.adopted:
            return None
        return self._found(conversation_id)

    async def adopt_conversation(self, conversation_id: str, ext_consumer_id: str) -> FoundConversation:
        self.adopted[conversation_id] = ext_consumer_id
        return self._found(conversation_id)

    def observe(self, incoming: Incoming[Any]) -> bool:
        self.observed.append(incoming)
        return self.awaited

    def emitted_of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.emitted if isinstance(event, kind)]

    def _found(self, conversation_id: str) -> FoundConversation:
        conversation = self.conversations.setdefault(conversation_id, StubConversation(conversation_id))
        return FoundConversation(
            conversation=cast("Any", conversation),
            lp_consumer_id=self.lp_consumer_id,
        )


class Rig:
    """One worker: port, router, dispatcher and app."""

    def __init__(self, port: StubPort, router: Router, settings: WebhookSettings, **options: Any) -> None:
        self.port = port
        self.router = router
        self.dispatcher = Dispatcher(port, router, settings)
        self.app = WebhookApp.of(self.dispatcher, **options)

    async def post(self, message: Json) -> int:
        """Deliver a signed notification through `handle`; the status."""
        body = encoded(message)
        status, _ = await self.app.handle(headers_for(body), body)
        return status

    async def deliver(self, *changes: Json) -> list[int]:
        """Deliver each change in a notification of its own."""
        return [await self.post(notification(one)) for one in changes]

    async def quiet(self) -> None:
        """Wait until nothing is left to do, in memory and in the store."""
        with anyio.fail_after(20):
            while await self._is_busy():  # noqa: ASYNC110 - another process or thread may have to act first
                await anyio.sleep(0.001)

    async def _is_busy(self) -> bool:
        counts = await self.port.store.delivery_counts(self.port.account_id)
        return bool(self.dispatcher.stats().waiting or counts.waiting or counts.claimed)


@contextlib.asynccontextmanager
async def rig(
    router: Router | None = None,
    *,
    store: Store | None = None,
    settings: WebhookSettings | None = None,
    drain: float = 5.0,
    **options: Any,
) -> AsyncIterator[Rig]:
    """A worker for as long as the block; drained at its end."""
    async with anyio.create_task_group() as tasks:
        worker = Rig(StubPort(tasks, store), router or Router(), settings or WebhookSettings(), **options)
        yield worker
        await worker.dispatcher.drain(drain)
        tasks.cancel_scope.cancel()


async def until(is_so: Callable[[], object]) -> None:
    """Wait until something is so that tells nobody."""
    with anyio.fail_after(20):
        while not is_so():  # noqa: ASYNC110 - see above
            await anyio.sleep(0.001)


# ASGI


class Post:
    """One request to an ASGI app, chunk by chunk."""

    def __init__(self, chunks: Sequence[bytes], headers: dict[str, str], *, method: str = "POST") -> None:
        self.scope: Json = {
            "type": "http",
            "method": method,
            "path": "/webhooks",
            "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()],
        }
        self.status: int | None = None
        self.headers: dict[bytes, bytes] = {}
        self.body = b""
        last = len(chunks) - 1
        self._messages = iter(
            [{"type": "http.request", "body": chunk, "more_body": at < last} for at, chunk in enumerate(chunks)]
        )

    async def receive(self) -> Any:
        for message in self._messages:
            return message
        return await anyio.sleep_forever()

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = dict(message["headers"])
        else:
            self.body += message["body"]

    async def to(self, app: Callable[..., Awaitable[None]]) -> int | None:
        """Send it; the status, or None if it was not answered."""
        await app(self.scope, self.receive, self.send)
        return self.status


async def post(app: Callable[..., Awaitable[None]], body: bytes, headers: dict[str, str] | None = None) -> int | None:
    """Post one body in one piece."""
    return await Post([body], headers if headers is not None else headers_for(body)).to(app)
