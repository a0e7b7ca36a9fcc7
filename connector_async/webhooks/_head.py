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
_SIZES = frozenset(map(len, _WANTED))
"""Most headers are none of ours, and their length tells it at the least cost."""


@attrs.define(eq=False)
class Head:
    """The headers that matter.

    Attributes:
        length: What the client says about its body; None if it says nothing.
        is_plain: The body comes as it was signed, and its length is a number.
    """

    account_id: str
    client_id: str
    signature: str = attrs.field(repr=False)
    length: int | None
    is_plain: bool


def read_head(headers: Headers) -> Head:
    """The three headers of a delivery, each exactly once, and what is said about its body.

    Raises:
        MissingHeader: One of the three is absent.
        WrongAccount: The account is named twice; likewise WrongClient and InvalidSignature.
    """
    found: dict[bytes, str] = {}
    length: int | None = None
    is_plain = True
    for raw_name, raw_value in _pairs(headers):
        if len(raw_name) not in _SIZES:
            continue
        name = (raw_name if isinstance(raw_name, bytes) else raw_name.encode("latin-1", "replace")).lower()
        if name not in _WANTED:
            continue
        value = raw_value.decode("latin-1") if isinstance(raw_value, bytes) else raw_value
        if name == _LENGTH:
            # More than 18 digits are a lie that costs time to read.
            is_number = value.isascii() and value.isdigit() and len(value) <= 18
            length = int(value) if is_number else None
            is_plain = is_plain and is_number
        elif name == _ENCODING:
            is_plain = is_plain and value in {"identity", ""}
        elif name in found:
            # Which of the two another program in front of us looked at is anybody's guess.
            raise _REFUSE_TWICE[name](f"the header {name.decode()} comes twice")
        else:
            found[name] = value
    try:
        return Head(found[_ACCOUNT], found[_CLIENT], found[_SIGNATURE], length, is_plain)
    except KeyError:
        missing = next(name.decode() for name in _REFUSE_TWICE if name not in found)
        raise MissingHeader(f"the header {missing} is missing", header=missing) from None


def _pairs(headers: Headers) -> Iterable[tuple[str | bytes, str | bytes]]:
    if isinstance(headers, Mapping):
        return cast("Mapping[str | bytes, str | bytes]", headers).items()
    return headers
