"""The end of every request: counted once, told to the hooks, and, if it is an error, given its facts."""

from __future__ import annotations

from typing import Literal

from connector_async._concurrency import Clock
from connector_async.errors import (
    AuthError,
    Landed,
    LocalProtocolError,
    RequestError,
    RequestRefused,
    SessionClosed,
    TokenUnavailable,
)
from connector_async.exchange._call import Call, Superseded
from connector_async.exchange._failing import deadline_error
from connector_async.exchange.gate import Expired
from connector_async.exchange.stats import Counters
from connector_async.hooks import Hooks, RequestFinished
from connector_async.protocol.sequence import SequenceReading, read_sequence
from connector_async.wire import EventPublished

__all__ = ["Books", "outcome_of"]

_AGREES = SequenceReading.AGREES  # looked up once; see `protocol.lanes`

Outcome = Literal["accepted", "refused", "not_sent", "unknown", "cancelled"]


def outcome_of(error: RequestError) -> Literal["refused", "not_sent", "unknown"]:
    """What became of a request that ended with this error: `not_sent` is safe to send again."""
    if error.landed is Landed.UNKNOWN:
        return "unknown"
    if isinstance(error, TokenUnavailable):
        return "not_sent"
    answered = isinstance(error, RequestRefused) or (isinstance(error, AuthError) and error.attempts)
    return "refused" if answered else "not_sent"


class Books:
    """What an engine counts and tells."""

    def __init__(self, counters: Counters, hooks: Hooks, clock: Clock) -> None:
        self._counters = counters
        self._hooks = hooks
        self._clock = clock

    def accepted(self, call: Call) -> None:
        """The way that nearly all go."""
        self._counters.accepted += 1
        if self._hooks:
            self._tell(call, "accepted", Landed.YES, None)

    def finished(self, call: Call, outcome: Outcome, landed: Landed, error: RequestError | None) -> None:
        """Count the end, and tell of it."""
        setattr(self._counters, outcome, getattr(self._counters, outcome) + 1)
        if self._hooks:
            self._tell(call, outcome, landed, error)

    def read_meter(self, answered: object, attempt: int) -> None:
        """Count what the server's counter says of a request that is metered."""
        if not isinstance(answered, EventPublished) or not isinstance(answered.sequence, int):
            return
        reading = read_sequence(answered.sequence, attempt)
        if reading is _AGREES:
            self._counters.sequence_agrees += 1
        elif reading is SequenceReading.SAW_MORE:
            self._counters.sequence_saw_more += 1
        else:
            self._counters.sequence_saw_fewer += 1

    def ended_badly(self, call: Call, error: BaseException, *, closed: bool) -> BaseException:
        """Count the end and give the error its facts."""
        if isinstance(error, Superseded):
            self._counters.requests -= 1
            self._counters.dropped_chat_states += 1
            self._complete(call, error)
            return error
        landed = self._landed(call, error)
        if not isinstance(error, Exception):
            self.finished(call, "cancelled", landed, None)
            return error
        final = self._in_our_words(call, error, landed, closed=closed)
        if isinstance(final, RequestError):
            self._complete(call, final)
            outcome: Outcome = "accepted" if final.landed is Landed.YES else outcome_of(final)
            self.finished(call, outcome, final.landed, final)
        else:
            # The store's error, or one that a foreign transport should not have let out.
            self.finished(call, "unknown" if landed is Landed.UNKNOWN else "not_sent", landed, None)
        return final

    def _in_our_words(self, call: Call, error: Exception, landed: Landed, *, closed: bool) -> Exception:
        final: RequestError
        if isinstance(error, Expired):
            waited_for = {"token": "a token", "backing off": "its next attempt"}.get(call.stage.value, "its turn")
            final = deadline_error(call, landed=landed, waiting_for=waited_for)
            final.__cause__ = None
        elif closed and not isinstance(error, (LocalProtocolError, RequestRefused)):
            final = SessionClosed("the session closed before the request ended", landed=landed)
            final.__cause__ = error
        else:
            return error
        return final

    def _landed(self, call: Call, error: BaseException) -> Landed:
        if isinstance(error, RequestError):  # made after the attempt, by what is known of it
            return Landed.UNKNOWN if call.may_have_landed and error.landed is Landed.NO else error.landed
        return Landed.UNKNOWN if call.is_in_doubt else Landed.NO

    def _complete(self, call: Call, error: RequestError) -> None:
        """Fill in what the place that raised could not know."""
        if error.request_id is None:
            error.request_id = call.request_ids[-1]
        if error.type is None:
            error.type = call.type
        if not error.attempts:
            error.attempts = call.attempts
        if call.may_have_landed and error.landed is Landed.NO:
            error.landed = Landed.UNKNOWN

    def _tell(self, call: Call, outcome: Outcome, landed: Landed, error: RequestError | None) -> None:
        self._hooks.emit(
            RequestFinished(
                request_ids=call.request_ids,
                type=call.type,
                outcome=outcome,
                landed=landed,
                attempts=call.attempts,
                duration=self._clock.time() - call.admitted_at,
                error=error,
            )
        )
