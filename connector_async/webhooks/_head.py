"""What the headers of a delivery say, read once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import cast

import attrs

from connector_async.errors import InvalidSignature, MissingHeader, WebhookError, WrongAccount, WrongClient

__all__ = ["Head", "Headers", "read_head"]

Headers = Mapping[str, str] | Mapping[str, bytes] | Iterable[tuple[str | bytes, str | bytes]]
"""Header names in any case; a mapping, or pairs as ASGI and http.client have them."""

_ACCOUNT, _CLIENT, _SIGNATURE = b"x-liveperson-account-id", b"x-liveperson-client-id", b"x-liveperson-signature"
_LENGTH, _ENCODING = b"content-length", b"content-encoding"
_REFUSE_TWICE: Mapping[bytes, type[WebhookError]] = {
    _ACCOUNT: WrongAccount,
    _CLIENT: WrongClient,
    _SIGNATURE: InvalidSignature,
}
_WANTED = frozenset((*_REFUSE_TWICE, _LENGTH, _ENCODING))


@attrs.define(eq=False)
class Head:
    """The headers that matter.

    Attributes:
        length: What the client says about its body; None if it says nothing.
        is_plain: The body comes as it was signed, and its length is a number.
    """

    account_id: str
    client_id: str
    signature: bytes = attrs.field(repr=False)
    length: int | None
    is_plain: bool


def read_head(headers: Headers) -> Head:
    """The three headers of a delivery, each exactly once, and what is said about its body.

    Raises:
        MissingHeader: One of the three is absent.
        WrongAccount: The account is named twice; likewise WrongClient and InvalidSignature.
    """
    if headers.__class__ is list:
        pairs = cast("list[tuple[bytes, bytes]]", headers)
        try:
            found = dict(pairs)
            # As ASGI servers have them: bytes, in lower case, and nearly always each but once.
            if len(found) == len(pairs) and b"".join(found).islower():
                return _head_of(found)
        except (KeyError, TypeError, ValueError, AttributeError):
            return _read_carefully(headers)
    return _read_carefully(headers)


def _read_carefully(headers: Headers) -> Head:
    """The same for any kind of headers."""
    found: dict[bytes, bytes] = {}
    for raw_name, raw_value in _pairs(headers):
        name = _as_bytes(raw_name).lower()
        if name not in _WANTED:
            continue
        if name in found and name in _REFUSE_TWICE:
            # Which of the two another program in front of us looked at is anybody's guess.
            raise _REFUSE_TWICE[name](f"the header {name.decode()} comes twice")
        value = _as_bytes(raw_value)
        found[name] = value if name not in found else found[name] + b", " + value
    for name in _REFUSE_TWICE:
        if name not in found:
            raise MissingHeader(f"the header {name.decode()} is missing", header=name.decode())
    return _head_of(found)


def _head_of(found: Mapping[bytes, bytes]) -> Head:
    length = found.get(_LENGTH)
    # More than 18 digits are a lie that costs time to read.
    is_number = length is None or (length.isdigit() and len(length) <= 18)
    return Head(
        found[_ACCOUNT].decode("latin-1"),
        found[_CLIENT].decode("latin-1"),
        found[_SIGNATURE],
        int(length) if length is not None and is_number else None,
        is_number and found.get(_ENCODING, b"") in {b"", b"identity"},
    )


def _as_bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode("latin-1", "replace")


def _pairs(headers: Headers) -> Iterable[tuple[str | bytes, str | bytes]]:
    if isinstance(headers, Mapping):
        return cast("Mapping[str | bytes, str | bytes]", headers).items()
    return headers
