"""What a token says of itself is read as PyJWT would read it."""

from __future__ import annotations

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector_async.auth._jwt import read_claims

KEY = "a key of thirty-two bytes or more"
UNVERIFIED = {f"verify_{what}": False for what in ("signature", "exp", "nbf", "iat", "aud", "iss", "sub", "jti")}
VALUES = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20)


@given(st.dictionaries(st.text(max_size=8), VALUES, max_size=5))
def test_claims_are_those_that_pyjwt_reads(claims: dict[str, object]) -> None:
    """Our decision: three lines of our own instead of an import of PyJWT and cryptography."""
    strange = {name: value for name, value in claims.items() if name not in {"iss", "exp", "nbf", "iat", "aud"}}
    token = jwt.encode(strange, KEY, algorithm="HS256")
    assert read_claims(token) == jwt.decode(token, options=UNVERIFIED) == strange  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "token",
    [
        "",
        "opaque",
        "a.b",
        "a.b.c.d.e",
        "aGVhZA.W10.c2ln",
        "aGVhZA.bm90IGpzb24.c2ln",
        "aGVhZA.a.c2ln",
        "aGVhZA..c2ln",
        "ü.ü.ü",
    ],
    ids=["empty", "opaque", "two parts", "encrypted", "array", "no JSON", "no base64", "nothing", "no ASCII"],
)
def test_what_holds_no_claims_has_none(token: str) -> None:
    """S4: a token may be opaque."""
    assert read_claims(token) == {}
