"""AppJWT and ConsumerJWS: made with a key pair of this process, known by their text once made.

A token that this process made is found in a dictionary by its bytes; only one that is not known is verified with
the public key, so that the SEND path pays nothing for RS256.
"""

from __future__ import annotations

import functools
import hashlib
from typing import Final

import attrs
import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

from connector_async.sandbox._json import Json

__all__ = ["AppToken", "lp_consumer_id", "sign", "signing_key", "verify"]

_KEY_ID: Final = "appjwt-sandbox"
_ALGORITHM: Final = "RS256"


@attrs.define(eq=False, repr=False)
class AppToken:
    """An AppJWT that was handed out.

    Attributes:
        generation: 1 for the first token of the account, 2 for the next …
        expires_at: Wall-clock seconds at which it stops being accepted.
    """

    text: str
    generation: int
    expires_at: float
    revoked: bool = False

    def holds(self, now: float) -> bool:
        """Whether the token is accepted at that time."""
        return not self.revoked and now < self.expires_at


@functools.cache
def signing_key() -> rsa.RSAPrivateKey:
    """The key pair of this process: made once, since making it takes a tenth of a second."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def sign(claims: Json) -> str:
    """A signed token with these claims."""
    return jwt.encode(claims, signing_key(), algorithm=_ALGORITHM, headers={"kid": _KEY_ID})


def verify(token: bytes) -> Json | None:
    """The claims of a token that this process signed, else None; times are judged by the model's own clock."""
    try:
        return jwt.decode(
            token,
            signing_key().public_key(),
            algorithms=[_ALGORITHM],
            options={"verify_exp": False, "verify_iat": False, "verify_aud": False, "verify_nbf": False},
        )
    except jwt.PyJWTError:
        return None


def lp_consumer_id(account_id: str, ext_consumer_id: str) -> str:
    """The cloud's own id of a consumer: 64 hex digits, the same after every restart."""
    return hashlib.sha256(f"{account_id}\0{ext_consumer_id}".encode()).hexdigest()
