"""What an HTTP answer means for the request it answers. Pure: bytes and ids in, responses or a problem out."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import attrs

from connector_async.errors import (
    LocalProtocolError,
    Phase,
    ProtocolError,
    RemoteProtocolError,
    ReqIdMismatch,
    TransportError,
)
from connector_async.exchange._call import Call
from connector_async.protocol.correlation import OrphanKind, PendingTable
from connector_async.protocol.retry import Failure, Fate, parse_retry_after
from connector_async.transport.base import Answer
from connector_async.wire import Response as WireResponse
from connector_async.wire import decode_response, normalize_code

__all__ = ["Problem", "Reader", "is_ok", "problem_of_exception", "refusal"]

_LONG_ID = re.compile(r"[0-9A-Fa-f]{32,}")
_MAX_REASON = 200

OnOrphan = Callable[[OrphanKind, object, Answer], None]


@attrs.frozen(kw_only=True)
class Problem:
    """Why an attempt did not end its request.

    Attributes:
        failure: What the retry policy looks at.
        summary: One lower-case clause.
        unauthorized: Status 401: the tokens are looked at before the policy is asked.
        response: The refusal, if the answer could be read.
    """

    failure: Failure
    summary: str
    status: int | None = None
    code: int | str | None = None
    error_code: int | None = None
    unauthorized: bool = False
    response: WireResponse[Any] | None = None
    cause: Exception | None = None


class Reader:
    """Reads answers. `on_orphan` hears of every answer that fits no request of its exchange."""

    def __init__(self, table: PendingTable[Call], on_orphan: OnOrphan, wall: Callable[[], float]) -> None:
        self._table = table
        self._on_orphan = on_orphan
        self._wall = wall

    def read(self, call: Call, answer: Answer) -> list[WireResponse[Any] | None] | Problem:
        """The responses in the order of the requests (None where one is missing), or why there are none."""
        status = answer.status
        if status >= 400 and (status in {401, 429} or status >= 500):
            return self._http_problem(answer)
        try:
            decoded = decode_response(answer.body, call.expected)
        except RemoteProtocolError as error:
            return _unreadable(status, error)
        items = decoded if isinstance(decoded, list) else [decoded]
        if not call.batch and len(items) == 1 and items[0].req_id == call.request_ids[0]:
            return [items[0]] if items[0].code == "OK" else self._single(items[0], status)
        return self._match(call, items, answer)

    def _single(self, response: WireResponse[Any], status: int) -> list[WireResponse[Any] | None] | Problem:
        code = normalize_code(response.code)
        if is_ok(code, status):
            return [response]
        return refusal(response, code, status, None)

    def _match(
        self, call: Call, items: list[WireResponse[Any]], answer: Answer
    ) -> list[WireResponse[Any] | None] | Problem:
        status = answer.status
        taken: dict[str, WireResponse[Any]] = {}
        rest: list[tuple[OrphanKind, WireResponse[Any]]] = []
        for item in items:
            request_id = None if item.req_id is None else str(item.req_id)
            if request_id in call.request_ids and request_id not in taken:
                taken[request_id] = item
            else:
                rest.append((self._table.orphan(item.req_id, taken), item))
        anonymous = _refusal_without_id(rest, status)
        if anonymous is not None:
            if not taken:
                return refusal(anonymous, normalize_code(anonymous.code), status, None)
            missing = [request_id for request_id in call.request_ids if request_id not in taken]
            if len(missing) == 1:
                taken[missing[0]] = anonymous
                rest = [(kind, item) for kind, item in rest if item is not anonymous]
        for kind, item in rest:
            self._on_orphan(kind, item.req_id, answer)
        if not taken:
            what = ", ".join(sorted({kind.value for kind, _ in rest})) or "none"
            return _mismatch(status, f"the answer names no request of this exchange (reqId: {what})")
        if not call.batch:
            return self._single(taken[call.request_ids[0]], status)
        return [taken.get(request_id) for request_id in call.request_ids]

    def _http_problem(self, answer: Answer) -> Problem:
        try:
            decoded = decode_response(answer.body, None)
        except RemoteProtocolError:
            decoded = []
        items = decoded if isinstance(decoded, list) else [decoded]
        response = items[0] if items else None
        code = None if response is None else normalize_code(response.code)
        retry_after = parse_retry_after(answer.header(b"retry-after"), self._wall())
        return refusal(response, code, answer.status, retry_after)


def _refusal_without_id(rest: list[tuple[OrphanKind, WireResponse[Any]]], status: int) -> WireResponse[Any] | None:
    """The one refusal that names no request: error bodies of the front door carry no reqId.

    The exchange itself says whose it is. Of several such, nobody can tell.
    """
    found = [
        item for kind, item in rest if kind is OrphanKind.MISSING and not is_ok(normalize_code(item.code), status)
    ]
    return found[0] if len(found) == 1 else None


def is_ok(code: int | str | None, status: int) -> bool:
    """Whether a code says OK; where there is none, the HTTP status speaks."""
    if code is None:
        return 200 <= status < 300
    return isinstance(code, int) and 200 <= code < 300


def refusal(
    response: WireResponse[Any] | None, code: int | str | None, status: int, retry_after: float | None
) -> Problem:
    """The problem that a non-OK answer is; the envelope's code counts where it names an HTTP status."""
    effective = code if isinstance(code, int) and 400 <= code < 600 and status < 400 else status
    return Problem(
        failure=Failure(fate=Fate.ANSWERED, status=effective, retry_after=retry_after),
        summary=_summary(effective, response),
        status=status,
        code=code,
        error_code=None if response is None else response.error_code,
        unauthorized=effective == 401,
        response=response,
    )


def _summary(status: int, response: WireResponse[Any] | None) -> str:
    if status == 429:
        return "the cloud asks for fewer requests"
    if status >= 500:
        return "the cloud is out of order"
    reason = None if response is None else response.reason
    if not reason:
        return "the cloud refused the request"
    # Long runs of hex digits are ids of consumers.
    return f"the cloud refused the request: {_LONG_ID.sub('…', reason)[:_MAX_REASON]}"


def _unreadable(status: int, error: RemoteProtocolError) -> Problem:
    if status >= 400:
        return Problem(
            failure=Failure(fate=Fate.ANSWERED, status=status),
            summary=f"the cloud refused the request (status {status}, unreadable body)",
            status=status,
            cause=error,
        )
    # An OK that cannot be read most likely was one, but nothing says that it was ours.
    return Problem(
        failure=Failure(fate=Fate.UNKNOWN, final=True),
        summary="the answer cannot be read",
        status=status,
        cause=error,
    )


def _mismatch(status: int, message: str) -> Problem:
    return Problem(failure=Failure(fate=Fate.UNKNOWN), summary=message, status=status, cause=ReqIdMismatch(message))


def problem_of_exception(error: TransportError | ProtocolError) -> Problem:
    """The problem that a failed HTTP exchange is."""
    if isinstance(error, TransportError):
        stale = error.reused and not error.answered and not error.timed_out and error.phase is not Phase.CONNECT
        return Problem(
            failure=Failure(
                fate=Fate.UNKNOWN if error.sent else Fate.NOT_SENT,
                stale=stale and error.sent,
                final=not error.retryable,
            ),
            summary=str(error) or type(error).__name__,
            cause=error,
        )
    # What does not fit HTTP is refused by our own side, before a byte is written.
    fate = Fate.NOT_SENT if isinstance(error, LocalProtocolError) else Fate.UNKNOWN
    return Problem(failure=Failure(fate=fate, final=True), summary=str(error) or type(error).__name__, cause=error)
