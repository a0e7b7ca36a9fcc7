"""The HTTP endpoints as plain functions: an arrival in, a reply out; no socket, no event loop, no waiting.

`CloudApi.arrive` reads what came and opens its ledger entries, `CloudApi.perform` lets it have its effect. Between
and after the two stand the scripted faults, which belong to `app`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal
from urllib.parse import parse_qsl

import attrs

from connector_async.sandbox._call import Call, Handler
from connector_async.sandbox._json import Json, is_array, is_object, loads, text
from connector_async.sandbox._replies import (
    Denied,
    Refused,
    Reply,
    authorization_error,
    json_reply,
    refusal_item,
)
from connector_async.sandbox._requests import BATCH_TYPES, MAX_FILE_BYTES, SEND_TYPES
from connector_async.sandbox._state import Account, Consumer
from connector_async.sandbox.ledger import Ledger, LedgerEntry
from connector_async.sandbox.model import CloudModel
from connector_async.sandbox.tokens import AppToken, lp_consumer_id, sign, verify

__all__ = ["SERVICES", "Arrival", "CloudApi", "Endpoint"]

Endpoint = Literal["domain", "token", "consumer", "conversation", "send", "upload", "download"]

SERVICES: Final = ("sentinel", "idp", "asyncMessagingEnt", "swift", "accountConfigReadWrite", "agentVep", "msgHist")
_MAX_CHARACTERS: Final = 5000  # of one request's JSON
_CLAIMS: Final = ("iss", "aud", "azp", "exp")
_NO_FEATURES: Final[frozenset[str]] = frozenset()
_FILE_CONTENT: Final = {b"image/jpeg", b"image/jpg", b"image/png", b"image/gif", b"application/octet-stream", b""}


@attrs.define(eq=False)
class Arrival:
    """One HTTP request, read as far as its endpoint, account and JSON."""

    endpoint: Endpoint
    account_id: str
    name: str = ""
    query: str = ""
    host: str = ""
    authorization: bytes = attrs.field(default=b"", repr=False)
    on_behalf: bytes = attrs.field(default=b"", repr=False)
    client_properties: bytes = b""
    content_type: bytes = b""
    body: bytes = attrs.field(default=b"", repr=False)
    now: float = 0.0
    payload: object = attrs.field(default=None, repr=False)
    entries: tuple[LedgerEntry, ...] = ()

    @property
    def types(self) -> tuple[str, ...]:
        """The wire types of its envelopes."""
        return tuple(entry.type for entry in self.entries)


@attrs.define(eq=False, slots=False)
class CloudApi:
    """The endpoints over one model and one ledger.

    Attributes:
        domain_shape: How the Domain API answers for one service: `flat`, `list`, or `both` in one object, which
            serves the readers of either.
    """

    model: CloudModel
    ledger: Ledger = attrs.field(factory=Ledger)
    domain_shape: Literal["flat", "list", "both"] = "both"
    _features: dict[bytes, frozenset[str]] = attrs.field(init=False, factory=dict[bytes, frozenset[str]])

    def __attrs_post_init__(self) -> None:
        self._endpoints: dict[Endpoint, Callable[[Account, Arrival], Reply]] = {
            "domain": self._domain,
            "token": self._token,
            "consumer": self._consumer,
            "conversation": self._conversation,
            "send": self._send,
            "upload": self._upload,
            "download": self._download,
        }

    # -- arriving

    def arrive(self, arrival: Arrival) -> Arrival:
        """Count the call, and open a ledger entry for each envelope it carries."""
        self.ledger.calls[arrival.endpoint] += 1
        if arrival.endpoint in ("send", "conversation"):
            arrival.payload = payload = loads(arrival.body)
            envelopes = payload if is_array(payload) else [payload]
            arrival.entries = tuple([self._open_entry(arrival, one) for one in envelopes if is_object(one)])
        return arrival

    def _open_entry(self, arrival: Arrival, envelope: Json) -> LedgerEntry:
        account = self.model.accounts.get(arrival.account_id)
        token = consumer = None
        if account is not None:
            token = account.app_tokens.get(arrival.authorization)
            consumer = account.consumer_tokens.get(arrival.on_behalf)
        body = envelope.get("body")
        dialog = (text(body.get("dialogId")) or text(body.get("conversationId"))) if is_object(body) else None
        return self.ledger.arrive(
            endpoint=arrival.endpoint,
            account_id=arrival.account_id,
            request_id=text(envelope.get("id")) or "",
            type=text(envelope.get("type")) or "",
            dialog_id=dialog,
            consumer=None if consumer is None else consumer.lp_id,
            generation=0 if token is None else token.generation,
            at=arrival.now,
        )

    def perform(self, arrival: Arrival) -> Reply:
        """Let the request have its effect and say what it is answered with."""
        account = self.model.accounts.get(arrival.account_id)
        if account is None:
            return self._unknown_account(arrival)
        try:
            reply = self._endpoints[arrival.endpoint](account, arrival)
        except Denied as denied:
            for entry in arrival.entries:
                entry.code = str(denied.error_code)
            return authorization_error(denied.error_code, denied.details)
        except Refused as refused:
            return json_reply(400, {"code": 400, "message": str(refused)})
        for entry, applied, code in zip(arrival.entries, reply.applied, reply.codes, strict=True):
            entry.applied, entry.code = applied, code
        return reply

    def _unknown_account(self, arrival: Arrival) -> Reply:
        if arrival.endpoint == "domain":  # "documented as invalid site"
            return json_reply(401, {"code": 401, "message": "account does not exist"})
        if arrival.endpoint == "token":
            return _identity_error(401, "account does not exist")
        return authorization_error(40102)

    # -- Domain API

    def _domain(self, account: Account, arrival: Arrival) -> Reply:
        def entry(service: str) -> Json:
            return {"service": service, "account": account.account_id, "baseURI": arrival.host}

        if not arrival.name:
            return json_reply(200, {"baseURIs": [entry(service) for service in SERVICES]})
        if arrival.name not in SERVICES:
            return json_reply(404, {"code": 404, "message": "service does not exist"})
        one = entry(arrival.name)
        shapes: dict[str, Json] = {
            "flat": one,
            "list": {"baseURIs": [one]},
            "both": {**one, "baseURIs": [one]},
        }
        return json_reply(200, shapes[self.domain_shape])

    # -- Sentinel

    def _token(self, account: Account, arrival: Arrival) -> Reply:
        given = dict(parse_qsl(arrival.query)) | dict(parse_qsl(arrival.body.decode(errors="replace")))
        if given.get("grant_type") != "client_credentials":
            return _identity_error(400, "grant_type must be client_credentials")
        if not given.get("client_id") or not given.get("client_secret"):
            return _identity_error(400, "client_id and client_secret are needed, in the form body or in the query")
        if (given["client_id"], given["client_secret"]) != (account.client_id, account.client_secret):
            return _identity_error(401, "client_id or client_secret is wrong")
        token = self.mint_app_token(account, arrival.now)
        return json_reply(200, {"access_token": token.text, "token_type": "Bearer"})

    def mint_app_token(self, account: Account, now: float) -> AppToken:
        """A new AppJWT, of the next generation."""
        account.generation += 1
        lifetime = self.model.token_lifetime
        issued = int(now)
        expires = issued + (int(lifetime) if lifetime == int(lifetime) else lifetime)
        claims: Json = {
            "aud": account.account_id,
            "azp": account.client_id,
            "scope": "msg.consumer",
            "iss": "Sentinel",
            "exp": expires,
            "iat": issued,
            # RS256 gives the same token for the same claims; two of one second must be told apart.
            "jti": f"{account.generation}",
        }
        token = AppToken(sign(claims), account.generation, now + lifetime)
        account.app_tokens[token.text.encode()] = token
        return token

    def revoke_tokens(self, account: Account) -> int:
        """Refuse from now on every AppJWT given out so far; the generation that follows is accepted."""
        for token in account.app_tokens.values():
            token.revoked = True
        return account.generation

    def _check_app_token(self, account: Account, arrival: Arrival) -> None:
        token = account.app_tokens.get(arrival.authorization)
        if token is None:
            token = self._foreign_app_token(account, arrival.authorization)
        if not token.holds(arrival.now):
            raise Denied(40102)

    def _foreign_app_token(self, account: Account, given: bytes) -> AppToken:
        if not given:
            raise Denied(40105)
        if given[:7].lower() == b"bearer ":
            raise Denied(40102, "The Authorization header takes the bare AppJWT, without 'Bearer'")
        claims = verify(given)
        if claims is None:
            raise Denied(40102)
        if any(claim not in claims for claim in _CLAIMS):
            raise Denied(40001, "AppJWT lacks a mandatory claim")
        if claims["aud"] != account.account_id or not isinstance(claims["exp"], int | float):
            raise Denied(40102)
        return AppToken(given.decode(), 0, claims["exp"])

    # -- IDP

    def _consumer(self, account: Account, arrival: Arrival) -> Reply:
        self._check_app_token(account, arrival)
        payload = loads(arrival.body)
        ext_id = payload.get("ext_consumer_id") if is_object(payload) else None
        if not isinstance(ext_id, str) or not ext_id:
            return _identity_error(400, "ext_consumer_id must be a non-empty string")
        return json_reply(201, {"token": self._consumer_of(account, ext_id).token})

    def _consumer_of(self, account: Account, ext_id: str) -> Consumer:
        lp_id = lp_consumer_id(account.account_id, ext_id)
        consumer = account.consumers.get(lp_id)
        if consumer is None:
            claims = {"account_id": account.account_id, "ext_consumer_id": ext_id, "lp_consumer_id": lp_id}
            consumer = Consumer(lp_id, ext_id, sign(claims))
            account.consumers[lp_id] = consumer
            account.consumer_tokens[consumer.token.encode()] = consumer
        return consumer

    def _check_consumer(self, account: Account, arrival: Arrival) -> Consumer:
        given = arrival.on_behalf
        consumer = account.consumer_tokens.get(given)
        if consumer is not None:
            return consumer
        if not given:
            raise Denied(40104)
        # One that an earlier sandbox of this process gave out: it never expires and still names the consumer.
        claims = verify(given)
        ext_id = None if claims is None else claims.get("ext_consumer_id")
        if claims is None or claims.get("account_id") != account.account_id or not isinstance(ext_id, str):
            raise Denied(40103)
        consumer = self._consumer_of(account, ext_id)
        account.consumer_tokens[given] = consumer
        return consumer

    # -- CONVERSATION and SEND

    def _send(self, account: Account, arrival: Arrival) -> Reply:
        self._check_app_token(account, arrival)
        consumer = self._check_consumer(account, arrival)
        payload = arrival.payload
        if not is_object(payload):
            raise Refused("the body must be one JSON object")
        _check_envelope(payload)
        features = self._features_of(arrival.client_properties)
        entry = arrival.entries[0]
        call = Call(self.model, account, consumer, features, entry.request_id, payload, entry.count, arrival.now)
        if len(arrival.body) > _MAX_CHARACTERS and _is_too_long(arrival.body, payload):
            item, done = refusal_item(call.request_id, "Bad Request"), False
        else:
            item, done = _run(call, SEND_TYPES)
        return json_reply(200 if done else 400, item, applied=(done,), codes=(item["code"],))

    def _conversation(self, account: Account, arrival: Arrival) -> Reply:
        self._check_app_token(account, arrival)
        consumer = self._check_consumer(account, arrival)
        batch = arrival.payload
        if not is_array(batch) or not all(is_object(one) for one in batch):
            raise Refused("the body must be a JSON array of objects")
        for payload in batch:
            _check_envelope(payload)
        types = [payload["type"] for payload in batch]
        if types[:2] != ["userprofile.SetUserProfile", "cm.ConsumerRequestConversation"]:
            raise Refused("the batch must be SetUserProfile, then ConsumerRequestConversation")
        if not is_object(batch[1].get("body")) or text(batch[1]["body"].get("brandId")) is None:
            raise Denied(40001)
        features = self._features_of(arrival.client_properties)
        results = [
            _run(
                Call(self.model, account, consumer, features, e.request_id, payload, e.count, arrival.now),
                BATCH_TYPES,
            )
            for payload, e in zip(batch, arrival.entries, strict=True)
        ]
        items, done = [item for item, _ in results], tuple(done for _, done in results)
        return json_reply(200, items, applied=done, codes=tuple(item["code"] for item in items))

    def _features_of(self, header: bytes) -> frozenset[str]:
        if not header:
            return _NO_FEATURES
        features = self._features.get(header)
        if features is None:
            properties = loads(header)
            if not is_object(properties):
                raise Refused("Client-Properties must be a JSON object")
            listed: object = properties.get("features") or []
            if not is_array(listed) or not all(isinstance(one, str) for one in listed):
                raise Refused("Client-Properties: features must be an array of strings")
            features = frozenset(listed)
            if len(self._features) < 1000:  # a client has a handful; one that varies it per message must not grow us
                self._features[header] = features
        return features

    # -- file storage

    def _upload(self, account: Account, arrival: Arrival) -> Reply:
        path = arrival.name
        if not self.model.may_use("PUT", path, arrival.query, arrival.now):
            return _storage_error(401, "Temp URL invalid")
        if len(arrival.body) > MAX_FILE_BYTES:
            return _storage_error(413, "file exceeds 3 MB")
        if not arrival.body:
            return _storage_error(400, "file is empty")
        if arrival.content_type.partition(b";")[0].strip().lower() not in _FILE_CONTENT:
            return _storage_error(415, "file must be JPG, JPEG, PNG or GIF")
        self.model.store(account, path, arrival.body, arrival.content_type.decode("latin-1"))
        return Reply(status=201)

    def _download(self, account: Account, arrival: Arrival) -> Reply:
        path = arrival.name
        if not self.model.may_use("GET", path, arrival.query, arrival.now):
            return _storage_error(401, "Temp URL invalid")
        file = account.files.get(path)
        if file is None:
            return _storage_error(404, "not found")
        return Reply(status=200, body=file.data, content_type=(file.content_type or "image/png").encode("latin-1"))


def _run(call: Call, handlers: dict[str, Handler]) -> tuple[Json, bool]:
    handler = handlers.get(call.payload["type"])
    try:
        if handler is None:
            raise Refused("Bad Request, the type is not known here")
        return {"code": "OK", "body": handler(call), "reqId": call.request_id}, True
    except Refused as refused:
        return refusal_item(call.request_id, str(refused)), False


def _check_envelope(payload: Json) -> None:
    request_id = text(payload.get("id"))
    if request_id is None or len(request_id) > 64:
        raise Refused("id must be a string of 1 to 64 characters")
    if not isinstance(payload.get("type"), str):
        raise Refused("type is missing")
    if payload.get("kind", "req") != "req":  # documented samples lack it at times
        raise Refused("kind must be req")


def _is_too_long(body: bytes, payload: Json) -> bool:
    # The cap counts characters, and it cannot hold for files: a preview alone may have 30 KB.
    event = payload["body"].get("event") if is_object(payload.get("body")) else None
    is_file = is_object(event) and event.get("contentType") == "hosted/file"
    return not is_file and len(body.decode()) > _MAX_CHARACTERS


def _identity_error(status: int, message: str) -> Reply:
    return json_reply(status, {"internalErrorCode": f"{status}00", "message": message})


def _storage_error(status: int, message: str) -> Reply:
    return Reply(status=status, body=message.encode(), content_type=b"text/plain; charset=utf-8")
