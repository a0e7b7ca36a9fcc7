"""Carries out scripted faults around one request: for real on a socket, as an exception of the call in process."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Final, TypeVar

import anyio
import attrs
from starlette.types import Receive, Scope, Send

from connector_async.sandbox._fault_actions import (
    Action,
    Drip,
    Latency,
    Malformed,
    Reorder,
    ReqId,
    Reset,
    Revoke,
    Silence,
    Status,
    Unauthorized,
)
from connector_async.sandbox._json import Json, dumps, is_array, is_object, loads
from connector_async.sandbox._replies import Reply, authorization_error
from connector_async.sandbox._socket_server import WIRE, Wire
from connector_async.sandbox.api import Arrival, CloudApi

__all__ = ["FaultyExchange", "latency", "raw_answer", "write_reply"]

A = TypeVar("A")

_WITHOUT_BODY: Final = frozenset({204, 304})


async def write_reply(send: Send, reply: Reply) -> None:
    """Send a reply as ASGI messages."""
    await send({"type": "http.response.start", "status": reply.status, "headers": _headers(reply)})
    await send({"type": "http.response.body", "body": reply.body})


def _headers(reply: Reply) -> list[tuple[bytes, bytes]]:
    if reply.status in _WITHOUT_BODY and not reply.body:
        return [*reply.headers]
    return [
        (b"content-type", reply.content_type),
        (b"content-length", b"%d" % len(reply.body)),
        *reply.headers,
    ]


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Fault"


def raw_answer(reply: Reply) -> bytes:
    """A reply as the bytes of an HTTP/1.1 answer."""
    lines = [
        f"HTTP/1.1 {reply.status} {_phrase(reply.status)}".encode(),
        *(name + b": " + value for name, value in _headers(reply)),
    ]
    return b"\r\n".join([*lines, b"", reply.body])


def _find(actions: Sequence[Action], kind: type[A]) -> A | None:
    return next((action for action in actions if isinstance(action, kind)), None)


@attrs.define(eq=False)
class FaultyExchange:
    """One request that at least one rule hits."""

    api: CloudApi
    actions: Sequence[Action]
    arrival: Arrival
    scope: Scope
    receive: Receive
    send: Send
    previous_id: str

    @property
    def _wire(self) -> Wire | None:
        extensions: dict[str, Any] = self.scope.get("extensions") or {}
        return extensions.get(WIRE)

    async def run(self) -> None:
        """Answer the request, or leave it without an answer, as the actions say."""
        reset, silence = _find(self.actions, Reset), _find(self.actions, Silence)
        self._revoke()
        if silence is not None:
            if silence.applied:
                self.api.perform(self.arrival)
            await self._until_the_client_leaves()
            return
        if reset is not None and not reset.applies:
            await self._break(reset, None)
            return
        reply = self._reply()
        if reset is None or reset.at == "after":
            for entry in self.arrival.entries:
                entry.status = reply.status
        if reset is not None:
            await self._break(reset, reply)
            return
        await self._answer(reply)

    def _revoke(self) -> None:
        account = self.api.model.accounts.get(self.arrival.account_id)
        if account is not None and any(isinstance(action, Revoke) for action in self.actions):
            self.api.revoke_tokens(account)

    # -- what is answered

    def _reply(self) -> Reply:
        denied, status = _find(self.actions, Unauthorized), _find(self.actions, Status)
        if denied is not None:
            return authorization_error(denied.error_code)
        if status is not None:
            return self._with_status(status)
        reply = self.api.perform(self.arrival)
        malformed = _find(self.actions, Malformed)
        if malformed is not None:
            return attrs.evolve(
                reply, body=malformed.text.encode(), content_type=malformed.content_type.encode("latin-1")
            )
        if _find(self.actions, Reorder) or _find(self.actions, ReqId):
            return attrs.evolve(reply, body=self._with_other_ids(reply.body))
        return reply

    def _with_status(self, status: Status) -> Reply:
        done = self.api.perform(self.arrival) if status.applied or status.keep_body else None
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in status.headers.items()]
        if status.retry_after is not None:
            headers.append((b"retry-after", str(status.retry_after).encode("latin-1")))
        if done is not None and status.keep_body:
            body = done.body
        elif status.body is None and status.status in _WITHOUT_BODY:
            body = b""
        else:
            usual = {"code": status.status, "message": _phrase(status.status)}
            body = dumps(usual if status.body is None else status.body)
        return Reply(status=status.status, body=body, headers=tuple(headers))

    def _with_other_ids(self, body: bytes) -> bytes:
        answer = loads(body)
        items: list[Any] = answer if is_array(answer) else [answer]
        change = _find(self.actions, ReqId)
        if change is not None:
            items = [self._with_other_id(item, change) for item in items]
            if change.how == "doubled" and is_array(answer):
                items = [*items, items[0]]
        if _find(self.actions, Reorder):
            items.reverse()
        return dumps(items if is_array(answer) else items[0])

    def _with_other_id(self, item: object, change: ReqId) -> object:
        if not is_object(item):
            return item
        changed: Json = dict(item)
        if change.how == "missing":
            changed.pop("reqId", None)
        elif change.how == "wrong":
            changed["reqId"] = f"not-{item.get('reqId')}"[:64]
        elif change.how == "previous":
            changed["reqId"] = self.previous_id
        return changed

    # -- how it gets there

    async def _answer(self, reply: Reply) -> None:
        drip, change = _find(self.actions, Drip), _find(self.actions, ReqId)
        if drip is not None:
            await self._drip(reply, drip)
            return
        await write_reply(self.send, reply)
        is_single = not is_array(loads(reply.body))
        if change is not None and change.how == "doubled" and is_single and self._wire is not None:
            self._wire.write(raw_answer(reply))

    async def _drip(self, reply: Reply, drip: Drip) -> None:
        await self.send({"type": "http.response.start", "status": reply.status, "headers": _headers(reply)})
        for start in range(0, len(reply.body), drip.size):
            await anyio.sleep(drip.seconds)
            part = reply.body[start : start + drip.size]
            await self.send({"type": "http.response.body", "body": part, "more_body": True})
        await self.send({"type": "http.response.body", "body": b""})

    async def _break(self, reset: Reset, reply: Reply | None) -> None:
        if self._wire is None:
            await self._break_in_process(reset, reply)
            return
        raw = b"" if reply is None or reset.at == "before" else raw_answer(reply)
        if reset.at == "in":
            raw = raw[: len(raw) // 2 if reset.bytes is None else reset.bytes]
        self._wire.write(raw)
        if reset.how == "reset":
            self._wire.reset()
        elif reset.how == "close":
            self._wire.close()
        await self._until_the_client_leaves()

    async def _break_in_process(self, reset: Reset, reply: Reply | None) -> None:
        if reply is not None and reset.at == "after":
            await write_reply(self.send, reply)
            return  # nothing outlives the answer here: there is no connection that the next request could find broken
        if reply is not None and reset.at == "in":
            await self.send({"type": "http.response.start", "status": reply.status, "headers": _headers(reply)})
            part = reply.body[: len(reply.body) // 2 if reset.bytes is None else reset.bytes]
            await self.send({"type": "http.response.body", "body": part, "more_body": True})
        if reset.how == "stall":
            await self._until_the_client_leaves()
        raise ConnectionResetError("the sandbox broke the connection, as its faults say")

    async def _until_the_client_leaves(self) -> None:
        # uvicorn answers 500 by itself for an application that returns without an answer while the client is there.
        while (await self.receive())["type"] != "http.disconnect":
            pass


def latency(actions: Sequence[Action]) -> list[Latency]:
    """The waits among some actions; they add up."""
    return [action for action in actions if isinstance(action, Latency)]
