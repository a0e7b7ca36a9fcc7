"""From the last problem of a request to the error that its caller gets."""

from __future__ import annotations

from typing import Any

from connector_async.auth._codes import APP_TOKEN_CODES
from connector_async.errors import (
    AppTokenRefused,
    ConsumerTokenRefused,
    ConversationAlreadyOpen,
    ConversationClosed,
    DeadlineExceeded,
    Landed,
    NotSent,
    OutcomeUnknown,
    RateLimited,
    RequestError,
    RequestRefused,
)
from connector_async.exchange._call import Call
from connector_async.exchange._reading import Problem
from connector_async.protocol.retry import Fate, Stop

__all__ = ["deadline_error", "final_error", "item_error"]

_RETRY_LATER = "it is safe to send it again later"
_TOO_LARGE = frozenset({413, 414, 431})
_MAYBE = "it may have landed: sending it again may double it"


def final_error(call: Call, problem: Problem, stop: Stop, *, in_time: bool) -> RequestError:
    """The error of a request that is not sent again.

    Args:
        in_time: The deadline has not passed yet.
    """
    facts: dict[str, Any] = {
        "request_id": call.request_ids[-1],
        "type": call.type,
        "code": problem.code,
        "error_code": problem.error_code,
        "status": problem.status,
        "attempts": call.attempts,
        "landed": _landed(call, problem),
    }
    error = _choose(call, problem, stop, in_time=in_time, facts=facts)
    error.__cause__ = problem.cause
    return error


def deadline_error(call: Call, *, landed: Landed, waiting_for: str) -> DeadlineExceeded:
    """The deadline passed while the request waited for something of ours."""
    return DeadlineExceeded(
        f"the time ran out while it waited for {waiting_for}{_where(call)}",
        request_id=call.request_ids[-1],
        type=call.type,
        attempts=call.attempts,
        landed=landed,
        retryable=landed is Landed.NO,
        stages=call.stages(),
        hint=_RETRY_LATER if landed is Landed.NO else _MAYBE,
    )


def item_error(call: Call, request_id: str, type_: str, problem: Problem | None) -> RequestError:
    """The error of one request of a batch; `problem` is None where the answer passed it over."""
    facts: dict[str, Any] = {"request_id": request_id, "type": type_, "attempts": call.attempts}
    if problem is None:
        return OutcomeUnknown("the batch's answer has nothing for this request", hint=_MAYBE, **facts)
    facts |= {"code": problem.code, "status": problem.status, "error_code": problem.error_code}
    facts["landed"] = _landed(call, problem)
    return _choose(call, problem, Stop("refused"), in_time=True, facts=facts)


def _landed(call: Call, problem: Problem) -> Landed:
    failure = problem.failure
    unknown = failure.fate is Fate.UNKNOWN or (failure.status is not None and failure.status >= 500)
    return Landed.UNKNOWN if unknown or call.may_have_landed else Landed.NO


def _choose(call: Call, problem: Problem, stop: Stop, *, in_time: bool, facts: dict[str, Any]) -> RequestError:
    failure = problem.failure
    why = _why(stop)
    if problem.unauthorized:
        return _unauthorized(call, problem, facts)
    safe = facts["landed"] is Landed.NO
    if failure.status == 429:
        hint = _RETRY_LATER if safe else _MAYBE
        return RateLimited(problem.summary + why, retry_after=failure.retry_after, hint=hint, **facts)
    if failure.fate is Fate.ANSWERED and (failure.status is None or failure.status < 500):
        return _of_another(problem, facts) if _is_of_another(problem) else _refused(problem, facts)
    if not in_time:
        return DeadlineExceeded(
            f"the time ran out: {problem.summary}{_where(call)}",
            stages=call.stages(),
            retryable=safe,
            hint=_RETRY_LATER if safe else _MAYBE,
            **facts,
        )
    if not safe:
        return OutcomeUnknown(problem.summary + why, hint=_MAYBE, **facts)
    return NotSent(
        problem.summary + why,
        retryable=not failure.final,
        hint="check the certificate and the host" if failure.final else _RETRY_LATER,
        **facts,
    )


def _unauthorized(call: Call, problem: Problem, facts: dict[str, Any]) -> RequestError:
    if problem.error_code in APP_TOKEN_CODES:
        return AppTokenRefused(problem.summary, **facts)
    # A batch mostly opens a conversation: there is none yet that could belong to somebody else.
    hint = "check the ext_consumer_id and the credentials" if call.batch else None
    return ConsumerTokenRefused(problem.summary, hint=hint, **facts)


def _is_of_another(problem: Problem) -> bool:
    """Whether the refusal is none of the API's, whose bodies are JSON, and says nothing of the request itself."""
    return problem.response is None and problem.status not in _TOO_LARGE


def _of_another(problem: Problem, facts: dict[str, Any]) -> NotSent:
    return NotSent(
        f"{problem.summary}: it is not the API that answers",
        retryable=True,
        hint="look at what stands between here and the cloud (proxy, firewall), and at `domains`; then send it again",
        **facts,
    )


def _refused(problem: Problem, facts: dict[str, Any]) -> RequestRefused:
    # The vendor may reword these texts: matched loosely, and never the only thing a caller can go by.
    text = ((problem.response.reason if problem.response else None) or "").lower()
    if "already has open" in text:
        return ConversationAlreadyOpen("the consumer already has an open conversation", **facts)
    if "conversation is close" in text:
        return ConversationClosed("the conversation is closed", **facts)
    return RequestRefused(problem.summary, hint="fix the request; it was refused as it is", **facts)


def _why(stop: Stop) -> str:
    return {
        "attempts": ", and the retry policy's attempts are used up",
        "budget": ", and the session's retry budget is used up",
        "deadline": ", and the next attempt would come after the deadline",
    }.get(stop.reason, "")


def _where(call: Call) -> str:
    shown = ", ".join(
        f"{name.replace('_', ' ')} {seconds:.1f} s" for name, seconds in call.stages().items() if seconds
    )
    return f" ({shown})" if shown else ""
