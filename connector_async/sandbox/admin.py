"""The admin API under `/sandbox/`: faults, ledger, webhooks, and the agent whom a test or a person plays."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from connector_async.errors import ConfigurationError
from connector_async.sandbox._json import Json, dumps, is_object, loads
from connector_async.sandbox.faults import FaultPlan

if TYPE_CHECKING:
    from connector_async.sandbox.cloud import Sandbox

__all__ = ["AGENT_VERBS", "make_admin"]

AGENT_VERBS = (
    "accepts",
    "closes",
    "completes_survey",
    "joins",
    "leaves",
    "publishes",
    "reads",
    "says",
    "shows",
    "transfers",
    "types",
)
_PATHS = {
    "GET /sandbox/": "this list",
    "GET /sandbox/ledger": "totals; with ?request_id=, ?dialog_id= or ?entries=N the entries themselves",
    "DELETE /sandbox/ledger": "forget them",
    "GET /sandbox/stats": "everything that is counted",
    "GET /sandbox/faults": "the rules in force and their hits",
    "PUT /sandbox/faults": "other rules: the JSON of a fault file",
    "POST /sandbox/faults": "more rules",
    "DELETE /sandbox/faults": "no rules",
    "POST /sandbox/revoke": "revoke every AppJWT given out so far",
    "GET /sandbox/conversations": "the account's conversations",
    "GET /sandbox/conversations/{id}": "one of them, with what was said",
    "GET /sandbox/webhooks": "the state of the deliveries",
    "PUT /sandbox/webhooks": 'where to deliver: {"url": "..."} or an app manifest',
    f"POST /sandbox/agent/{{{'|'.join(AGENT_VERBS)}}}": 'play the agent: {"conversation_id": "...", "text": "..."}',
    "POST /sandbox/agent/hears": "wait for the next text of a consumer",
    "POST /sandbox/settle": "wait until the sandbox has nothing left to do",
}


_LONGEST = 259_200.0  # seconds: three days, as a manifest may ask for


class _Json(JSONResponse):
    def render(self, content: Any) -> bytes:
        return dumps(content)


async def _body(request: Request) -> Json:
    raw = await request.body()
    value: object = loads(raw) if raw else {}
    if not is_object(value):
        raise HTTPException(400, "the body must be a JSON object")
    return value


def _refuse(_request: Request, error: Exception) -> Response:
    if isinstance(error, TimeoutError):
        return _Json({"error": "it did not come in time"}, 408)
    return _Json({"error": str(error)}, 404 if isinstance(error, LookupError) else 400)


def _refuse_http(_request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise TypeError("registered for HTTPException only")
    return _Json({"error": error.detail}, error.status_code)


class _Admin:
    def __init__(self, cloud: Sandbox) -> None:
        self._cloud = cloud

    def _account_id(self, request: Request) -> str:
        account_id = request.query_params.get("account_id", self._cloud.account_id)
        if account_id not in self._cloud.model.accounts:
            raise LookupError(f"no account {account_id}")
        return account_id

    async def index(self, _request: Request) -> Response:
        return _Json({"url": self._cloud.url, "account_id": self._cloud.account_id, "paths": _PATHS})

    async def ledger(self, request: Request) -> Response:
        ledger, query = self._cloud.ledger, request.query_params
        if request.method == "DELETE":
            ledger.clear()
            return _Json(ledger.summary())
        if not {"request_id", "dialog_id", "entries"} & set(query):
            return _Json(ledger.summary())
        entries = [
            entry.as_dict()
            for entry in ledger.entries
            if query.get("request_id") in (None, entry.request_id)
            and query.get("dialog_id") in (None, entry.dialog_id)
        ]
        return _Json({"entries": entries[-int(query.get("entries", "1000")) :]})

    async def stats(self, _request: Request) -> Response:
        return _Json(self._cloud.stats())

    async def faults(self, request: Request) -> Response:
        plan = self._cloud.faults
        if request.method == "DELETE":
            plan.replace(FaultPlan())
        elif request.method != "GET":
            given = FaultPlan.from_json(loads(await request.body()))
            if request.method == "PUT":
                plan.replace(given)
            else:
                for rule in given.rules:
                    plan.add(rule)
        return _Json(plan.as_json())

    async def revoke(self, request: Request) -> Response:
        return _Json({"generation": self._cloud.revoke_tokens(self._account_id(request))})

    async def conversations(self, request: Request) -> Response:
        account = self._cloud.model.accounts[self._account_id(request)]
        return _Json(self._cloud.model.describe(account))

    async def conversation(self, request: Request) -> Response:
        desk = self._cloud.agent_of(self._account_id(request))
        conversation = desk.conversation(request.path_params["id"])
        said = {dialog.dialog_id: list(dialog.transcript) for dialog in conversation.dialogs}
        return _Json({**conversation.describe(), "transcripts": said})

    async def webhooks(self, request: Request) -> Response:
        account_id = self._account_id(request)
        if request.method == "PUT":
            body = await _body(request)
            retention, algorithm = _seconds(body, "retention_time", None, lowest=2), body.get("signature", "sha1")
            if algorithm not in ("sha1", "sha256"):
                raise HTTPException(400, "signature must be sha1 or sha256")
            if isinstance(body.get("url"), str):
                self._cloud.deliver_to_url(
                    body["url"], account_id=account_id, retention_time=retention, algorithm=algorithm
                )
            else:
                self._cloud.use_manifest(body, account_id=account_id, algorithm=algorithm)
        return _Json(self._cloud.webhooks_of(account_id).as_json())

    async def agent(self, request: Request) -> Response:
        verb, body = request.path_params["verb"], await _body(request)
        desk = self._cloud.agent_of(self._account_id(request))
        if verb == "hears":
            timeout = _seconds(body, "timeout", 5.0) or 0.0
            return _Json({"text": await desk.hears(body.get("conversation_id"), timeout=timeout)})
        if verb not in AGENT_VERBS:
            raise LookupError(f"an agent cannot {verb!r}; known are {', '.join(AGENT_VERBS)}, hears")
        return _Json({"sequence": _call(getattr(desk, verb), body)})

    async def settle(self, request: Request) -> Response:
        body = await _body(request)
        await self._cloud.settle(timeout=_seconds(body, "timeout", 10.0) or 0.0)
        return _Json({"settled": True})


def _call(act: Callable[..., int | None], body: Json) -> int | None:
    try:
        inspect.signature(act).bind(**body)
        return act(**body)
    except KeyError as error:
        raise HTTPException(400, f"{error} is missing") from error
    except (TypeError, AttributeError) as error:
        raise HTTPException(400, f"a value is of the wrong kind: {error}") from error


def _seconds(body: Json, name: str, default: float | None, *, lowest: float = 0.0) -> float | None:
    """A number of seconds among the settings of a call, up to the longest retention time."""
    value = body.get(name, default)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise HTTPException(400, f"{name} must be a number of seconds")
    if value is not None and not lowest <= value <= _LONGEST:
        raise HTTPException(400, f"{name} must be from {lowest:g} to {_LONGEST:g} seconds")
    return value


def make_admin(cloud: Sandbox) -> Starlette:
    """The admin API of a sandbox, as an ASGI application."""
    admin = _Admin(cloud)
    routes = [
        Route("/sandbox/", admin.index),
        Route("/sandbox/ledger", admin.ledger, methods=["GET", "DELETE"]),
        Route("/sandbox/stats", admin.stats),
        Route("/sandbox/faults", admin.faults, methods=["GET", "PUT", "POST", "DELETE"]),
        Route("/sandbox/revoke", admin.revoke, methods=["POST"]),
        Route("/sandbox/conversations", admin.conversations),
        Route("/sandbox/conversations/{id}", admin.conversation),
        Route("/sandbox/webhooks", admin.webhooks, methods=["GET", "PUT"]),
        Route("/sandbox/agent/{verb}", admin.agent, methods=["POST"]),
        Route("/sandbox/settle", admin.settle, methods=["POST"]),
    ]
    refusals: dict[Any, Any] = dict.fromkeys((ConfigurationError, LookupError, ValueError, TimeoutError), _refuse)
    return Starlette(routes=routes, exception_handlers={**refusals, HTTPException: _refuse_http})
