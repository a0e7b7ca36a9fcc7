"""What a scripted fault does, one class for each `kind`. Data only: `app` and `webhooks` carry them out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final, Literal, TypeAlias

import attrs

from connector_async.sandbox._fault_checks import (
    a_flag,
    at_least,
    header_value,
    header_values,
    one_of,
    some_text,
    whole,
)

__all__ = [
    "ACTIONS",
    "OF_REQUESTS",
    "OF_WEBHOOKS",
    "Action",
    "BadSignature",
    "Double",
    "Drip",
    "Drop",
    "Latency",
    "Malformed",
    "Reorder",
    "ReqId",
    "Reset",
    "Revoke",
    "Silence",
    "Status",
    "Unauthorized",
]

optional = attrs.validators.optional


@attrs.frozen(kw_only=True)
class Latency:
    """Wait before the request is looked at, or the webhook delivered: `seconds` and up to `jitter` more."""

    kind: ClassVar[str] = "latency"
    seconds: float = attrs.field(validator=at_least(0))
    jitter: float = attrs.field(default=0.0, validator=at_least(0))


@attrs.frozen(kw_only=True)
class Status:
    """Answer with a status, such as 429 or 503.

    Attributes:
        retry_after: The header's value, whatever it is: seconds, a date, or garbage.
        body: A JSON value to answer with; by default a short one that names the status.
        applied: Let the request have its effect first.
        keep_body: Answer with the body of the true answer (which implies `applied`).
    """

    kind: ClassVar[str] = "status"
    status: int = attrs.field(validator=whole(200, 599))
    retry_after: str | float | None = attrs.field(default=None, validator=optional(header_value))
    body: Any = None
    headers: Mapping[str, str] = attrs.field(factory=dict[str, str], validator=header_values)
    applied: bool = attrs.field(default=False, validator=a_flag)
    keep_body: bool = attrs.field(default=False, validator=a_flag)


@attrs.frozen(kw_only=True)
class Unauthorized:
    """Answer with one of the vendor's authorization errors; nothing is applied."""

    kind: ClassVar[str] = "unauthorized"
    error_code: int = attrs.field(default=40102, validator=whole(40000, 40199))


@attrs.frozen(kw_only=True)
class Reset:
    """Break the connection.

    Attributes:
        at: `before` a byte of the answer is sent, `in` the answer, or `after` it.
        applied: Whether the request has its effect; by default not with `before`, else yes.
        bytes: With `in`, how many bytes of the answer (head included) are sent; by default half of them.
        how: A TCP `reset`, an orderly `close`, or `stall`: the connection stays open and nothing more comes.
    """

    kind: ClassVar[str] = "reset"
    at: Literal["before", "in", "after"] = attrs.field(default="before", validator=one_of("before", "in", "after"))
    applied: bool | None = attrs.field(default=None, validator=optional(a_flag))
    bytes: int | None = attrs.field(default=None, validator=optional(whole(0, 1 << 30)))
    how: Literal["reset", "close", "stall"] = attrs.field(
        default="reset", validator=one_of("reset", "close", "stall")
    )

    @property
    def applies(self) -> bool:
        """Whether the request has its effect."""
        return self.at != "before" if self.applied is None else self.applied


@attrs.frozen(kw_only=True)
class Silence:
    """Never answer; the connection stays open until the client leaves."""

    kind: ClassVar[str] = "silence"
    applied: bool = attrs.field(default=False, validator=a_flag)


@attrs.frozen(kw_only=True)
class ReqId:
    """Answer with another `reqId` than asked for.

    Attributes:
        how: `wrong`, `missing`, `previous` (the id of the faulty request before), or `doubled`: in a batch the first
            item comes twice, a single answer comes twice on the connection.
    """

    kind: ClassVar[str] = "req_id"
    how: Literal["wrong", "missing", "doubled", "previous"] = attrs.field(
        default="wrong", validator=one_of("wrong", "missing", "doubled", "previous")
    )


@attrs.frozen(kw_only=True)
class Reorder:
    """Answer a batch in reversed order; hold webhooks back and shuffle them.

    Attributes:
        window: How many webhooks are held back before they go out shuffled.
        seconds: How long they wait for that at most.
    """

    kind: ClassVar[str] = "reorder"
    window: int = attrs.field(default=4, validator=whole(2, 1000))
    seconds: float = attrs.field(default=0.2, validator=at_least(0))


@attrs.frozen(kw_only=True)
class Malformed:
    """Answer with this text in place of the JSON; the request has its effect."""

    kind: ClassVar[str] = "malformed"
    text: str = attrs.field(default='{"code": "OK", ', validator=some_text)
    content_type: str = attrs.field(default="application/json", validator=header_value)


@attrs.frozen(kw_only=True)
class Drip:
    """Send the true answer in pieces of `size` bytes, `seconds` apart."""

    kind: ClassVar[str] = "drip"
    seconds: float = attrs.field(default=0.3, validator=at_least(0))
    size: int = attrs.field(default=1, validator=whole(1, 1 << 20))


@attrs.frozen(kw_only=True)
class Revoke:
    """Revoke every AppJWT given out so far, then go on: the request meets what it meets."""

    kind: ClassVar[str] = "revoke"


@attrs.frozen(kw_only=True)
class Double:
    """Deliver a webhook several times."""

    kind: ClassVar[str] = "double"
    times: int = attrs.field(default=2, validator=whole(2, 100))


@attrs.frozen(kw_only=True)
class BadSignature:
    """Deliver a webhook with a signature that does not fit."""

    kind: ClassVar[str] = "bad_signature"


@attrs.frozen(kw_only=True)
class Drop:
    """Do not deliver a webhook at all."""

    kind: ClassVar[str] = "drop"


Action: TypeAlias = (
    Latency
    | Status
    | Unauthorized
    | Reset
    | Silence
    | ReqId
    | Reorder
    | Malformed
    | Drip
    | Revoke
    | Double
    | BadSignature
    | Drop
)

_CLASSES: Final[tuple[type[Action], ...]] = (
    Latency,
    Status,
    Unauthorized,
    Reset,
    Silence,
    ReqId,
    Reorder,
    Malformed,
    Drip,
    Revoke,
    Double,
    BadSignature,
    Drop,
)
ACTIONS: Final[dict[str, type[Action]]] = {cls.kind: cls for cls in _CLASSES}
OF_WEBHOOKS: Final = frozenset({"latency", "silence", "reorder", "double", "bad_signature", "drop"})
OF_REQUESTS: Final = frozenset(ACTIONS) - {"double", "bad_signature", "drop"}
