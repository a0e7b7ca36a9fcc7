"""The bodies of answers, and what an answer's `code` means."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

import attrs

from connector_async.wire._base import Message
from connector_async.wire.ids import ConversationId

__all__ = ["Confirmation", "ConversationCreated", "EventPublished", "Refusal", "TransferUrl", "normalize_code"]


@attrs.frozen(eq=False, repr=False)
class Confirmation(Message):
    """It is done; `msg` says so in words that may change.

    The WebSocket form of the API answers with the bare text; it is understood.
    """

    msg: str | None = None


@attrs.frozen(eq=False, repr=False)
class ConversationCreated(Message):
    """A conversation was opened; its MAIN dialog has the same id."""

    conversation_id: ConversationId


@attrs.frozen(eq=False, repr=False)
class EventPublished(Message):
    """An event was taken.

    Attributes:
        sequence: The server's number as it came, or None. The documentation calls it an optional counter of how often
            the same request was sent; live systems use it as the event's number in its dialog. Never required, never
            predicted.

    Source: Connector API, "Responses".
    """

    sequence: int | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class TransferUrl(Message):
    """Where a file can be put or fetched for about a minute.

    Attributes:
        relative_path: Begins with `/`; append it to the storage's host as it is.
        query_params: `temp_url_sig` and `temp_url_expires`: whoever has them may use the URL.
    """

    relative_path: str = attrs.field(repr=False)
    query_params: Mapping[str, object] = attrs.field(repr=False, hash=False)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Refusal(Message):
    """Why a request was refused; texts may change, so branch on `error_code` or the answer's `code`.

    Attributes:
        msg: In words, for refusals of the request itself.
        title: In words, for refusals of who we are.
        details: In more words.
        error_code: Five digits whose first three are the HTTP status, such as 40102 (AppJWT expired or invalid).

    Source: Connector API, "Authorization and authentication" (error codes).
    """

    msg: str | None = None
    title: str | None = None
    details: str | None = None
    error_code: int | None = None

    @property
    def reason(self) -> str | None:
        """The most telling text, or None."""
        return self.details or self.msg or self.title


_BY_NAME: Final[Mapping[str, int]] = {status.name: status.value for status in HTTPStatus}


def normalize_code(code: object) -> int | str | None:
    """Read the `code` of an answer, which is a number, digits, or the name of an HTTP status.

    Returns:
        The HTTP status it stands for (`"OK"` → 200, `"BAD_REQUEST"` → 400, `"401"` → 401); a name that no HTTP status
        has, as it came; None for what is no code.

    Source: Connector API, "Responses": values are taken from HTTP semantics; samples show `"OK"`, `200`, `401`.
    """
    if code == "OK":
        return 200
    if isinstance(code, bool):
        return None
    if isinstance(code, int):
        return code
    if not isinstance(code, str):
        return None
    if code.isascii() and code.isdigit() and len(code) <= 9:
        return int(code)
    return _BY_NAME.get(code.strip().upper().replace(" ", "_").replace("-", "_"), code)
