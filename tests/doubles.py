"""Test doubles: a transport that answers as the test says, and a small cloud to put behind it.

What they cannot do: framing, connections, TLS. Where the truth about the API matters, use the sandbox.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs

import anyio
import attrs
import httpx

from connector_async.errors import Phase, TransportError
from connector_async.transport.base import Answer, Target, header_pairs

__all__ = ["FakeCloud", "Post", "ScriptedTransport", "answer", "lost", "not_sent", "ok", "unauthorized"]

BASE = "http://127.0.0.1:9"


@attrs.frozen(eq=False)
class Post:
    """One exchange as the transport saw it."""

    target: Target
    headers: bytes
    body: bytes
    deadline: float
    at: float

    @property
    def fields(self) -> list[tuple[str, str]]:
        """The headers as they were given."""
        return header_pairs(self.headers)

    def header(self, name: str) -> str | None:
        """The value of a header as it was given."""
        return next((value for key, value in self.fields if key == name), None)

    @property
    def json(self) -> Any:
        """The body, read."""
        return json.loads(self.body)

    @property
    def ids(self) -> list[str]:
        """The ids of the requests in it."""
        payload = self.json
        return [item["id"] for item in (payload if isinstance(payload, list) else [payload])]


Handler = Callable[[Post], Awaitable[Answer]]


class ScriptedTransport:
    """Answers each post with what `handler` returns or raises; knows deadlines and aborts; has no connections."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.posts: list[Post] = []
        self.discarded: list[Answer] = []
        self.open: dict[anyio.CancelScope, Target] = {}
        self.most_open = 0
        self._client = httpx.AsyncClient(transport=httpx.MockTransport(lambda _request: httpx.Response(503)))

    async def post(self, target: Target, headers: bytes, body: bytes, deadline: float) -> Answer:
        post = Post(target, headers, body, deadline, anyio.current_time())
        if post.at >= deadline:
            raise TransportError("the deadline passed", phase=Phase.POOL, sent=False, timed_out=True)
        self.posts.append(post)
        scope = anyio.CancelScope(deadline=deadline)
        self.open[scope] = target
        self.most_open = max(self.most_open, len(self.open))
        try:
            with scope:
                return await self.handler(post)
        finally:
            aborted = scope not in self.open
            self.open.pop(scope, None)
        if aborted:
            raise TransportError("the exchange was aborted", phase=Phase.WAIT)
        raise TransportError("the deadline passed", phase=Phase.WAIT, timed_out=True)

    def discard(self, answer: Answer) -> None:
        self.discarded.append(answer)

    def abort(self, target: Target) -> None:
        for scope in [scope for scope, one in self.open.items() if one is target]:
            del self.open[scope]
            scope.cancel()

    @property
    def client(self) -> httpx.AsyncClient:
        return self._client

    async def aclose(self) -> None:
        await self._client.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()


def answer(status: int, payload: object = None, headers: Mapping[str, str] | None = None) -> Answer:
    """An HTTP answer; `payload` is JSON, or bytes as they are."""
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    fields = tuple((name.lower().encode(), value.encode()) for name, value in (headers or {}).items())
    return Answer(status, fields, body)


def ok(post: Post, sequence: int | None = 0, *, status: int = 200) -> Answer:
    """The cloud's OK to everything in it."""
    payload = post.json
    if isinstance(payload, list):
        return answer(status, [_item(item, sequence) for item in payload])
    return answer(status, _item(payload, sequence))


def _item(request: dict[str, Any], sequence: int | None) -> dict[str, Any]:
    body: dict[str, Any] = {"msg": "done"}
    if request["type"] == "ms.PublishEvent":
        body = {} if sequence is None else {"sequence": sequence}
    elif request["type"] == "cm.ConsumerRequestConversation":
        body = {"conversationId": f"conversation-{request['id']}"}
    return {"code": "OK", "body": body, "reqId": request["id"]}


def unauthorized(error_code: int | None, status: int = 401) -> Answer:
    """An authorization error as the front door makes it: without a reqId."""
    body: dict[str, Any] = {"title": "Unauthorized", "details": "expired or invalid"}
    if error_code is not None:
        body["errorCode"] = error_code
    return answer(status, {"kind": "resp", "code": status, "type": ".ReqBody$ErrorResp", "body": body})


def lost(**facts: Any) -> TransportError:
    """Sent, and nothing came back."""
    facts.setdefault("phase", Phase.WAIT)
    return TransportError("the connection was reset", **facts)


def not_sent(**facts: Any) -> TransportError:
    """Nobody listens."""
    facts.setdefault("phase", Phase.CONNECT)
    facts.setdefault("sent", False)
    return TransportError("connection refused", **facts)


class FakeCloud:
    """Token service, identity service and message endpoints of one account.

    `on_token`, `on_consumer` and `on_message` may be replaced; `script` holds replies to messages that go first: an
    answer, an error to raise, or a callable. `revoke` ends all AppJWTs given out so far.
    """

    def __init__(self, *, lifetime: float = 3600.0, latency: float = 0.0) -> None:
        self.lifetime = lifetime
        self.latency = latency
        self.script: list[Answer | Exception | Handler] = []
        self.on_token: Handler = self.give_token
        self.on_consumer: Handler = self.give_consumer
        self.on_message: Handler = self.take_message
        self.token_posts: list[Post] = []
        self.consumer_posts: list[Post] = []
        self.message_posts: list[Post] = []
        self.accepted: Counter[str] = Counter()
        self._given = 0
        self._revoked = 0

    async def __call__(self, post: Post) -> Answer:
        path = post.target.path
        if path.startswith("/sentinel/"):
            self.token_posts.append(post)
            return await self.on_token(post)
        if path.endswith("/consumer?v=1.0"):
            self.consumer_posts.append(post)
            return await self.on_consumer(post)
        self.message_posts.append(post)
        if self.script:
            step = self.script.pop(0)
            if isinstance(step, Exception):
                raise step
            return step if isinstance(step, Answer) else await step(post)
        return await self.on_message(post)

    def revoke(self) -> None:
        self._revoked = self._given

    def holds(self, post: Post) -> bool:
        """Whether the AppJWT of a post is a valid one."""
        kind, _, number = (post.header("Authorization") or "").partition(".")
        return kind == "app" and number.isdigit() and int(number) > self._revoked

    async def give_token(self, post: Post) -> Answer:
        assert parse_qs(post.body.decode())["client_id"] == ["client"]
        await self._pass()
        self._given += 1
        return answer(200, {"access_token": f"app.{self._given}", "expires_in": self.lifetime})

    async def give_consumer(self, post: Post) -> Answer:
        await self._pass()
        if not self.holds(post):
            return unauthorized(40102)
        return answer(201, {"token": f"jws.{post.json['ext_consumer_id']}"})

    async def take_message(self, post: Post) -> Answer:
        await self._pass()
        if not self.holds(post):
            return unauthorized(40102)
        if not (post.header("X-LP-ON-BEHALF") or "").startswith("jws."):
            return unauthorized(40103)
        self.accepted.update(post.ids)
        return ok(post)

    async def _pass(self) -> None:
        # Even without latency others get their turn, as on a real wire.
        await (anyio.sleep(self.latency) if self.latency else anyio.lowlevel.checkpoint())
