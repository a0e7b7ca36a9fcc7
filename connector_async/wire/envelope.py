"""The envelopes of requests and answers; a batch is a list of them. That of webhooks is in `notifications`.

Source: Connector API, "Overview" (request and response JSON).
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, Final, Generic, TypeVar

import attrs

from connector_async.wire._base import Message
from connector_async.wire._checks import instance, maybe, request_id, text
from connector_async.wire._converter import readers
from connector_async.wire._metadata import MetadataItem, as_metadata
from connector_async.wire._reading import ABSENT, Malformed, is_object
from connector_async.wire.ids import same_id
from connector_async.wire.requests import RequestBody, read_body
from connector_async.wire.responses import (
    Confirmation,
    ConversationCreated,
    EventPublished,
    Refusal,
    TransferUrl,
    normalize_code,
)

__all__ = ["MAX_ENCODED_METADATA", "Request", "Response", "class_by_shape"]

B_co = TypeVar("B_co", bound="RequestBody[Any]", covariant=True)
R_co = TypeVar("R_co", covariant=True)

MAX_ENCODED_METADATA: Final = 5 * 1024  # bytes of base64 (third-party bots: encodedMetadata, "5 kB")


def _type_of_body(request: Request[Any]) -> str:
    body: object = request.body
    return body.wire_type if isinstance(body, RequestBody) else ""  # anything else is refused right after


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Request(Message, Generic[B_co]):
    """One request.

    Attributes:
        id: Unique among the requests in flight; 1 to 64 characters. The API answers with it as text.
        body: What is asked.
        type: The wire type; the body's own unless given.
        kind: `req`.
        metadata: Items about the event, beside the body; plain mappings with a `type` are taken too.
        encoded_metadata: Base64, at most 5 kB, for accounts that have the feature.
    """

    id: int | str = attrs.field(validator=request_id)
    body: B_co = attrs.field(validator=instance(RequestBody), metadata={"read": read_body})
    type: str = attrs.field(
        default=attrs.Factory(_type_of_body, takes_self=True), validator=text(minimum=1), metadata={"required": True}
    )
    kind: str = attrs.field(default="req", validator=text(minimum=1))
    metadata: tuple[MetadataItem, ...] | None = attrs.field(default=None, converter=as_metadata)
    encoded_metadata: str | None = attrs.field(
        default=None, repr=False, validator=maybe(text(maximum=MAX_ENCODED_METADATA))
    )


def _read_answer(raw: Any, source: Mapping[str, Any], answer: object) -> object:
    """Read the body of an answer.

    A good answer to a known request has the class that this request promises. Where that class needs nothing, a body
    that is absent, a bare text or something else still says that the request was done: it becomes the class with
    nothing, or the text, in it. A refusal is a `Refusal`. Without a request the shape decides.
    """
    code = normalize_code(source.get("code"))
    refused = source.get("type") == ".ReqBody$ErrorResp" or (code is not None and not _is_good(code))
    if refused:
        return readers[Refusal](raw) if is_object(raw) else _as_it_is(raw)
    if answer is None:
        return _by_shape(raw)
    if answer in _NEED_NOTHING and not is_object(raw):
        return readers[answer]({"msg": raw} if isinstance(raw, str) and answer is Confirmation else {})
    return readers[answer](raw)


_NEED_NOTHING: Final[tuple[object, ...]] = (Confirmation, EventPublished)


def _is_good(code: int | str | None) -> bool:
    return isinstance(code, int) and 200 <= code < 300


def _as_it_is(raw: Any) -> object:
    return None if raw is ABSENT else raw


_SHAPES: Final[tuple[tuple[frozenset[str], type[Message]], ...]] = (
    (frozenset({"conversationId"}), ConversationCreated),
    (frozenset({"relativePath", "queryParams"}), TransferUrl),
    (frozenset({"sequence"}), EventPublished),
    (frozenset({"errorCode"}), Refusal),
    (frozenset({"msg"}), Confirmation),
)


def class_by_shape(raw: object) -> type[Message] | None:
    """The class that the members of a body speak for, or None."""
    if not is_object(raw):
        return None
    return next((cls for names, cls in _SHAPES if names <= raw.keys()), None)


def _by_shape(raw: Any) -> object:
    cls = class_by_shape(raw)
    if cls is not None:
        with contextlib.suppress(Malformed):
            return readers[cls](raw)
    return _as_it_is(raw)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Response(Message, Generic[R_co]):
    """One answer.

    Attributes:
        code: As it came: `"OK"`, `"BAD_REQUEST"`, a number. `status` is the same as a number.
        body: What the request's body class promises, a `Refusal` where it was refused, or the JSON value as it came;
            None where there is none.
        req_id: The id of the request, as text or as a number; absent where who we are was refused.
        kind: `resp`, or absent.
        type: Absent on good answers over HTTP.
    """

    code: int | str | None = attrs.field(default=None, validator=maybe(request_id))
    body: R_co = attrs.field(default=None, metadata={"read": _read_answer, "strict": True})
    req_id: int | str | None = attrs.field(default=None, validator=maybe(request_id))
    kind: str | None = attrs.field(default=None, validator=maybe(text(minimum=1)))
    type: str | None = attrs.field(default=None, validator=maybe(text(minimum=1)))

    @property
    def status(self) -> int | str | None:
        """The code as an HTTP status where it names one, else as it came."""
        return normalize_code(self.code)

    @property
    def is_ok(self) -> bool:
        """Whether the request was done."""
        return _is_good(self.status)

    @property
    def reason(self) -> str | None:
        """What the answer says in words, or None; for people and logs, never to branch on."""
        body: object = self.body
        if isinstance(body, Refusal):
            return body.reason
        return body.msg if isinstance(body, Confirmation) else body if isinstance(body, str) else None

    @property
    def error_code(self) -> int | None:
        """The five digits of an authorization error, or None."""
        body: object = self.body
        return body.error_code if isinstance(body, Refusal) else None

    def answers(self, request: int | str) -> bool:
        """Whether this answers the request with that id, compared as text."""
        return same_id(self.req_id, request)
