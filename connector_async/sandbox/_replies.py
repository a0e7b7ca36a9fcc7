"""What the sandbox answers: the reply itself, the vendor's error bodies, the two ways to turn a request down."""

from __future__ import annotations

from typing import Final

import attrs

from connector_async.sandbox._json import Json, dumps

__all__ = ["JSON_TYPE", "Denied", "Refused", "Reply", "authorization_error", "json_reply", "refusal_item"]

JSON_TYPE: Final = b"application/json; charset=utf-8"

# Titles and details as the authorization page prints them; clients are to branch on the number.
_AUTHORIZATION: Final[dict[int, tuple[str, str]]] = {
    40001: ("Missing parameter", "Brand id is missing"),
    40102: ("Invalid AppJWT", "AppJWT has expired or is invalid"),
    40103: ("Invalid ConsumerJWS", "ConsumerJWS is invalid"),
    40104: ("ConsumerJWS is missing", "The X-LP-ON-BEHALF header is missing"),
    40105: ("AppJWT is missing", "The Authorization header is missing"),
}


@attrs.frozen(kw_only=True)
class Reply:
    """One HTTP answer, and what it did.

    Attributes:
        applied: For each envelope of the request, whether it had its effect.
        codes: For each envelope, the `code` it was answered with.
    """

    status: int
    body: bytes = b""
    content_type: bytes = JSON_TYPE
    headers: tuple[tuple[bytes, bytes], ...] = ()
    applied: tuple[bool, ...] = ()
    codes: tuple[str, ...] = ()


class Refused(Exception):
    """The request breaks a rule of the API; the answer's `code` is BAD_REQUEST and its `msg` is the argument."""


class Denied(Exception):
    """The tokens do not allow the request."""

    def __init__(self, error_code: int, details: str | None = None) -> None:
        super().__init__(error_code)
        self.error_code = error_code
        self.details = details


def json_reply(status: int, value: object, *, applied: tuple[bool, ...] = (), codes: tuple[str, ...] = ()) -> Reply:
    """A reply with a JSON body."""
    return Reply(status=status, body=dumps(value), applied=applied, codes=codes)


def authorization_error(error_code: int, details: str | None = None) -> Reply:
    """The vendor's answer for missing or bad tokens; the first three digits of the code are the HTTP status."""
    title, usual = _AUTHORIZATION.get(error_code, ("Unauthorized", "The request is not authorized"))
    status = error_code // 100
    body = {"title": title, "details": details or usual, "errorCode": error_code}
    return json_reply(status, {"kind": "resp", "code": status, "type": ".ReqBody$ErrorResp", "body": body})


def refusal_item(request_id: str, message: str) -> Json:
    """One refused envelope, as SEND answers it and as it stands in the array of CONVERSATION."""
    return {"code": "BAD_REQUEST", "body": {"msg": message}, "reqId": request_id}
