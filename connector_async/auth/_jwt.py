"""Reading what a token says of itself. No trust is put into it: the cloud checks its own signatures."""

from __future__ import annotations

import base64
import re
from typing import Any, TypeGuard

import orjson

from connector_async.wire._reading import is_object

__all__ = ["is_token", "read_claims"]

_MAX_TOKEN = 16_384
# Base64url parts and dots. A token becomes a header value: nothing else may get in there.
_TOKEN = re.compile(r"[0-9A-Za-z._~+/=-]+")


def is_token(value: object) -> TypeGuard[str]:
    """Whether it can be sent as a token: text of a sane length, in the characters of one."""
    return isinstance(value, str) and len(value) <= _MAX_TOKEN and _TOKEN.fullmatch(value) is not None


def read_claims(token: str) -> dict[str, Any]:
    """The claims, unverified; empty if the token cannot be read, which is no error: it may be opaque.

    PyJWT would say the same; without verifying there is nothing else in it for us, and where cryptography is
    installed its import takes a third of that of httpx, in the loop that builds the session.
    """
    parts = token.split(".")
    if len(parts) != 3:
        return {}
    try:
        claims = orjson.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except ValueError:  # neither base64 nor JSON
        return {}
    return claims if is_object(claims) else {}
