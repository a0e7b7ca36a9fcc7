"""Reading what a token says of itself. No trust is put into it: the cloud checks its own signatures."""

from __future__ import annotations

import importlib
import re
from typing import Any, TypeGuard

__all__ = ["is_token", "load", "read_claims"]

_MAX_TOKEN = 16_384
# Base64url parts and dots. A token becomes a header value: nothing else may get in there.
_TOKEN = re.compile(r"[0-9A-Za-z._~+/=-]+")
_UNVERIFIED = {
    "verify_signature": False,
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
    "verify_aud": False,
    "verify_iss": False,
}


def load() -> None:
    """Import PyJWT, and cryptography with it, when a session is built: neither importers nor a loop wait for it."""
    importlib.import_module("jwt")


def is_token(value: object) -> TypeGuard[str]:
    """Whether it can be sent as a token: text of a sane length, in the characters of one."""
    return isinstance(value, str) and len(value) <= _MAX_TOKEN and _TOKEN.fullmatch(value) is not None


def read_claims(token: str) -> dict[str, Any]:
    """The claims, unverified; empty if the token cannot be read, which is no error: it may be opaque."""
    import jwt

    try:
        return dict(jwt.decode(token, options=_UNVERIFIED))  # type: ignore[arg-type]  # plain dict of options
    except (jwt.PyJWTError, ValueError, TypeError, AttributeError, RecursionError):
        return {}
