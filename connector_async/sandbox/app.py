"""The ASGI application: HTTP in and out around `CloudApi`, with the scripted faults between the two.

The endpoints of the API are served by plain ASGI, since SEND has to carry thousands of requests a second; what lies
under `/sandbox/` (the admin API) is a Starlette application.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final
from urllib.parse import unquote

import anyio
import attrs
from starlette.types import ASGIApp, Receive, Scope, Send

from connector_async.sandbox._faulty import FaultyExchange, latency, write_reply
from connector_async.sandbox._replies import Reply, json_reply
from connector_async.sandbox.api import Arrival, CloudApi, Endpoint
from connector_async.sandbox.faults import FaultPlan, FaultRule

__all__ = ["MAX_BODY_BYTES", "CloudApp"]

# One more than a file may have, so that one that is too large is told so and not cut off.
MAX_BODY_BYTES: Final = 4 * 1024 * 1024
_PREFIX: Final = "/api/account/"
_SENTINEL: Final = "/sentinel/api/account/"
_STORAGE: Final = "/v1/AUTH_async-images/"
_SEND: Final = "/messaging/consumer/conversation/send"
_CONVERSATION: Final = "/messaging/consumer/conversation"

_Route = tuple[Endpoint, str, str]


def route(method: str, path: str) -> _Route | Reply:
    """The endpoint, the account and the rest of a path; a reply where there is none."""
    found = _find(path)
    if found is None:
        return json_reply(404, {"code": 404, "message": "the path is not part of the API"})
    allowed, target = found
    if method == "HEAD":
        method = "GET"  # the server leaves the body away
    if method not in allowed:
        refusal = json_reply(405, {"code": 405, "message": f"the method must be {' or '.join(allowed)}"})
        return attrs.evolve(refusal, headers=((b"allow", ", ".join(allowed).encode()),))
    if target[0] == "upload" and method == "GET":
        return ("download", target[1], target[2])
    return target


def _find(path: str) -> tuple[tuple[str, ...], _Route] | None:
    if path.startswith(_PREFIX):
        account, _, rest = path[len(_PREFIX) :].partition("/")
        return _find_in_account(account, "/" + rest)
    if path.startswith(_SENTINEL):
        account, _, rest = path[len(_SENTINEL) :].partition("/")
        return (("POST",), ("token", account, "")) if rest == "app/token" else None
    if path.startswith(_STORAGE):
        account, _, name = path[len(_STORAGE) :].partition("/")
        return (("PUT", "GET"), ("upload", account, path)) if name else None
    return None


def _find_in_account(account: str, rest: str) -> tuple[tuple[str, ...], _Route] | None:
    if rest == _SEND:
        return ("POST",), ("send", account, "")
    if rest == _CONVERSATION:
        return ("POST",), ("conversation", account, "")
    if rest == "/consumer":
        return ("POST",), ("consumer", account, "")
    if rest.startswith("/service/"):
        service, _, last = rest[len("/service/") :].rpartition("/")
        if last in ("baseURI.json", "baseURI") and "/" not in service:
            return ("GET",), ("domain", account, service)
    return None


class CloudApp:
    """The cloud as an ASGI application.

    Args:
        clock: Wall-clock seconds; everything that expires is judged by it.
        admin: The application for `/sandbox/` paths.
        faults: The scripted faults; the plan may change while the application runs.
    """

    def __init__(
        self,
        api: CloudApi,
        *,
        clock: Callable[[], float] = time.time,
        admin: ASGIApp | None = None,
        faults: FaultPlan | None = None,
    ) -> None:
        self._api = api
        self._clock = clock
        self._admin = admin
        self.faults = FaultPlan() if faults is None else faults
        self._previous_id = ""
        self._routes: dict[tuple[str, str], _Route | Reply] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"the sandbox serves HTTP only, not {scope['type']}")
        method, path = scope["method"], scope["path"]
        target = self._routes.get((method, path))
        if target is None:
            if self._admin is not None and path.startswith("/sandbox/"):
                await self._admin(scope, receive, send)
                return
            target = self._remember(method, path)
        if isinstance(target, Reply):
            await write_reply(send, target)
            return
        body = await read_body(receive)
        arrival = self._api.arrive(self._arrival(scope, target, body))
        if not self.faults.is_idle:
            hit = self._hit(arrival)
            if hit:
                await self._misbehave(hit, arrival, scope, receive, send)
                return
        reply = self._api.perform(arrival)
        for entry in arrival.entries:
            entry.status = reply.status
        await write_reply(send, reply)

    def _hit(self, arrival: Arrival) -> list[FaultRule]:
        consumer = arrival.entries[0].consumer if arrival.entries else None
        hit = self.faults.decide(arrival.endpoint, arrival.types, consumer, arrival.now)
        for entry in arrival.entries:
            entry.fault = "+".join(rule.label for rule in hit) or None
        return hit

    async def _misbehave(
        self, hit: list[FaultRule], arrival: Arrival, scope: Scope, receive: Receive, send: Send
    ) -> None:
        actions = [rule.action for rule in hit]
        for wait in latency(actions):
            await anyio.sleep(wait.seconds + self.faults.roll(wait.jitter))
        arrival.now = self._clock()  # a token may have expired meanwhile
        previous, self._previous_id = self._previous_id, arrival.entries[0].request_id if arrival.entries else ""
        await FaultyExchange(self._api, actions, arrival, scope, receive, send, previous).run()

    def _remember(self, method: str, path: str) -> _Route | Reply:
        target = route(method, path)
        if len(self._routes) < 10_000 and not path.startswith(_STORAGE):
            self._routes[method, path] = target
        return target

    def _arrival(self, scope: Scope, target: _Route, body: bytes) -> Arrival:
        endpoint, account_id, name = target
        arrival = Arrival(endpoint, unquote(account_id), name, body=body, now=self._clock())
        for header, value in scope["headers"]:
            if header == b"authorization":
                arrival.authorization = _joined(arrival.authorization, value)
            elif header == b"x-lp-on-behalf":
                arrival.on_behalf = _joined(arrival.on_behalf, value)
            elif header == b"client-properties":
                arrival.client_properties = _joined(arrival.client_properties, value)
            elif header == b"content-type":
                arrival.content_type = value
            elif header == b"host":
                arrival.host = value.decode("latin-1")
        arrival.query = scope["query_string"].decode("latin-1")
        if not arrival.host and scope.get("server"):  # HTTP/1.0 asks without naming a host
            host, port = scope["server"]
            arrival.host = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        return arrival


def _joined(before: bytes, value: bytes) -> bytes:
    """A header that comes several times means its values in a list (RFC 9110, 5.3), and no token is one."""
    return value if not before else before + b", " + value


async def read_body(receive: Receive) -> bytes:
    """The whole body of a request, cut at `MAX_BODY_BYTES`."""
    message = await receive()
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False):
        return body
    parts, size = [body], len(body)
    while message.get("more_body", False):
        message = await receive()
        part = message.get("body", b"")
        size += len(part)
        if size <= MAX_BODY_BYTES:
            parts.append(part)
    return b"".join(parts)
