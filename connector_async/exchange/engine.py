"""The way of a request through the client, and every path that ends it.

`Engine.run` is one straight line: claim the ids, wait for the lane and the width, take the tokens, send, read the
answer; on a failure ask the policy and go round. Whatever happens in between (an error, a timeout, a cancellation, a
close), the ids are released, the place in the queue is left, and the outcome is counted once.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

import anyio
import attrs

from connector_async._arguments import timeout_of
from connector_async._concurrency import Clock, Slot
from connector_async.errors import (
    Landed,
    NotSent,
    OutcomeUnknown,
    ProtocolError,
    RequestError,
    SessionClosed,
    TokenUnavailable,
    TransportError,
)
from connector_async.exchange._authorizing import Authorizer
from connector_async.exchange._books import Books, outcome_of
from connector_async.exchange._call import Call, PendingRequest, Stage, session_owned
from connector_async.exchange._failing import final_error, item_error
from connector_async.exchange._reading import Problem, Reader, is_ok, problem_of_exception, refusal
from connector_async.exchange._response import Response
from connector_async.exchange.gate import Expired, Gate
from connector_async.exchange.stats import Counters
from connector_async.hooks import AttemptFailed, Hooks, Orphan, Throttled
from connector_async.protocol.correlation import OrphanKind, PendingTable
from connector_async.protocol.lanes import Lanes, SharedWidth
from connector_async.protocol.retry import Attempt, Failure, Fate, RetryBudget, Stop, Wait
from connector_async.protocol.sequence import sequence_of
from connector_async.transport.base import Answer, Transport
from connector_async.wire import Response as WireResponse
from connector_async.wire import normalize_code

__all__ = ["Engine", "EngineSettings"]

logger = logging.getLogger("connector_async.exchange")

T = TypeVar("T")
Items = list[WireResponse[Any] | None]

_SENDING = Stage.SENDING  # on Python 3.11 the look-up of an enum member is a call


@attrs.frozen(kw_only=True)
class EngineSettings:
    """What the engine is told by the session. Times in seconds."""

    account_id: str
    max_in_flight: int
    max_queue: int
    rate: float | None
    timeout: float
    attempt_timeout: float


class Engine:
    """Sends requests of one account.

    Args:
        random: Gives numbers from 0 to 1, for jitter.
        wall: Wall-clock seconds; only for HTTP dates.
    """

    def __init__(
        self,
        settings: EngineSettings,
        *,
        transport: Transport,
        clock: Clock,
        authorizer: Authorizer,
        hooks: Hooks,
        random: Callable[[], float],
        wall: Callable[[], float],
        shared_width: SharedWidth | None = None,
    ) -> None:
        self.settings = settings
        self.counters = Counters()
        self._books = Books(self.counters, hooks, clock)
        self.budget = RetryBudget()
        lanes = Lanes(
            width=settings.max_in_flight, max_queue=settings.max_queue, rate=settings.rate, shared=shared_width
        )
        self.lanes = lanes
        self.gate = Gate(lanes, clock)
        self._transport = transport
        self._clock = clock
        self._authorizer = authorizer
        self._hooks = hooks
        self._random = random
        self._table: PendingTable[Call] = PendingTable()
        self._reader = Reader(self._table, self._orphaned, wall)
        self._idle: list[Slot] = []
        self._refusing = False
        self._closed = False

    # Asking and closing

    def __len__(self) -> int:
        """Request ids in flight."""
        return len(self._table)

    def pending(self) -> tuple[PendingRequest, ...]:
        """What is in flight, oldest first."""
        now = self._clock.time()
        return tuple(
            PendingRequest(
                request_ids=call.request_ids,
                type=call.type,
                age=now - call.admitted_at,
                stage=call.stage.value,
                attempt=len(call.attempts) + (call.stage is Stage.SENDING),
            )
            for call in self._table
        )

    def refuse_new(self) -> None:
        """From now on new requests end with SessionClosed, except for the session's own messages."""
        self._refusing = True

    async def wait_idle(self) -> None:
        """Return once nothing is in flight."""
        while len(self._table):
            slot = self._clock.slot()
            self._idle.append(slot)
            await slot

    def close(self) -> tuple[int, int]:
        """End everything under way with SessionClosed; idempotent.

        Returns:
            How many of the requests that were under way may have landed, and how many were certainly not sent.
        """
        self._refusing = self._closed = True
        unknown = unsent = 0
        for call in self._table.drain():
            if call.is_in_doubt:
                unknown += 1
            else:
                unsent += 1
            call.interrupt(SessionClosed())
        self._authorizer.abort(self._transport)
        self.gate.close()
        self._settle_idle()
        return unknown, unsent

    def proven(self) -> None:
        """A request that was counted as unknown has turned out to have landed."""
        self.counters.unknown -= 1
        self.counters.accepted += 1

    # One request, or a batch

    async def run(self, call: Call, timeout: float | None = None) -> list[Response[Any] | RequestError]:
        """Send a call until it ends.

        Cancelling is safe: the connection is closed, the ids are released, and the outcome reaches the counters.

        Args:
            timeout: Seconds for everything: queue, tokens, attempts and pauses; the session's when None.

        Returns:
            For each request of the call its response, or, in a batch, the error of that one.

        Raises:
            RequestError: The call as a whole failed; see `errors` for the kinds.
            LocalProtocolError: An id is in flight already, or too long.
            TypeError, ValueError: The timeout is no number of seconds.
            Superseded: A newer chat state of the same dialog replaced this one.
        """
        call.admitted_at = now = self._clock.time()
        call.deadline = now + (self.settings.timeout if timeout is None else timeout_of(timeout))
        if self._refusing and (self._closed or not session_owned.get()):
            raise SessionClosed("the session is closed", request_id=call.request_ids[-1], type=call.type)
        self._table.claim(call.request_ids, call)
        self.counters.requests += 1
        problem: Problem | None = None
        try:
            if not self.lanes.enter(call, now):
                await self.gate.queue(call, now)
            # In this frame, though it is long: one more for each message in flight costs as much as two look-ups, and
            # the garbage collector's time.
            while True:
                if not self._authorizer.equip(call):
                    await self._authorize(call)
                deadline = self._begin_attempt(call)
                try:
                    answer = await self._transport.post(call.target, call.headers, call.body, deadline)
                except (TransportError, ProtocolError) as error:
                    problem = self._lost(call, error)
                else:
                    outcome = self._reader.read(call, answer)
                    if not isinstance(outcome, Problem):
                        self._note_attempt(call, answer.status, None)
                        break
                    problem = self._refused(call, answer, outcome)
                await self._after_failure(call, problem)
        except BaseException as error:  # noqa: BLE001 - raised again, in our words
            # It has its cause already. In a name of this frame, which its traceback holds, it would stay alive in a
            # cycle.
            raise self._books.ended_badly(call, error, closed=self._closed)  # noqa: B904
        finally:
            problem = None  # it holds an error, whose traceback holds this frame
            self._table.release(call.request_ids)
            self.lanes.leave(call, self._clock.time())
            if self._idle and not len(self._table):
                self._settle_idle()
        return self._batch_ended(call, answer, outcome) if call.batch else [self._ended_well(call, answer, outcome)]

    def _begin_attempt(self, call: Call) -> float:
        """Note that it is sent now; until when the answer must be there."""
        if self._closed:
            raise SessionClosed  # it was let on, or got its tokens, just as the session closed
        call.sent_at = now = self._clock.time()
        call.stage = _SENDING
        self.counters.attempts += 1
        if call.attempts:
            self.counters.retries += 1
        return min(call.deadline, now + self.settings.attempt_timeout)

    def _lost(self, call: Call, error: TransportError | ProtocolError) -> Problem:
        if isinstance(error, TransportError) and not error.sent:
            self._authorizer.suspect_host()
        problem = problem_of_exception(error)
        self._note_attempt(call, None, problem.summary)
        return problem

    def _refused(self, call: Call, answer: Answer, problem: Problem) -> Problem:
        self._note_attempt(call, answer.status, problem.summary)
        if problem.failure.fate is Fate.UNKNOWN:
            self._transport.discard(answer)  # nothing says that it was ours; see `_orphaned`
        return problem

    def _note_attempt(self, call: Call, status: int | None, cause: str | None) -> None:
        number = call.prior_attempts + len(call.attempts) + 1
        call.answered_at = now = self._clock.time()
        call.attempts += (Attempt(number, sequence_of(number), status, cause, now - call.sent_at),)

    async def _after_failure(self, call: Call, problem: Problem) -> None:
        """Wait until it makes sense to send again, or raise."""
        self._attempt_failed(call, problem.failure)
        if problem.unauthorized and await self._renewed_tokens(call, problem):
            self._tell_failed(call, 0.0)
        else:
            await self._back_off(call, problem)

    def _attempt_failed(self, call: Call, failure: Failure) -> None:
        if failure.fate is Fate.UNKNOWN or (failure.status is not None and failure.status >= 500):
            call.may_have_landed = True
        if failure.status != 429:
            return
        self.counters.throttled += 1
        self.lanes.throttled(self._clock.time())
        logger.warning("throttled", extra={"width": self.lanes.width, "retry_after": failure.retry_after})
        if self._hooks:
            self._hooks.emit(Throttled(width=self.lanes.width, retry_after=failure.retry_after))

    # Tokens

    async def _authorize(self, call: Call) -> None:
        """Wait for what is missing; others use the width meanwhile."""
        while not self._authorizer.equip(call):
            with self.gate.lane_only(call, Stage.TOKEN):
                await self._fetch_missing(call)
            await self.gate.resume(call)

    async def _fetch_missing(self, call: Call) -> None:
        while True:
            try:
                return await self._within_deadline(call, self._authorizer.fetch(call))
            except (NotSent, TokenUnavailable) as error:
                if isinstance(error, TokenUnavailable) and not self._authorizer.app_token_holds():
                    raise
                # The Domain API or the identity service has a bad moment. Like that of any service, it is a matter
                # of the policy.
                if not await self._pause_for_missing(call, error):
                    raise

    async def _pause_for_missing(self, call: Call, error: NotSent | TokenUnavailable) -> bool:
        """Wait as the policy says; whether to ask again."""
        failure = Failure(
            fate=Fate.NOT_SENT if error.status is None else Fate.ANSWERED,
            status=error.status,
            retry_after=error.retry_after if isinstance(error, TokenUnavailable) else None,
            final=not error.retryable,
        )
        decision = self._decide(call, failure, repeatable=True)
        if self._closed or isinstance(decision, Stop):
            return False
        await self.gate.sleep(call, decision.seconds)
        return True

    async def _renewed_tokens(self, call: Call, problem: Problem) -> bool:
        with self.gate.lane_only(call, Stage.TOKEN):
            renewed = await self._within_deadline(call, self._authorizer.renew(call, problem))
        if renewed:
            await self.gate.resume(call)
        return renewed

    async def _within_deadline(self, call: Call, work: Awaitable[T]) -> T:
        with anyio.CancelScope(deadline=call.deadline):
            return await work
        raise Expired

    def _settle_idle(self) -> None:
        waiting, self._idle = self._idle, []
        for slot in waiting:
            slot.settle()

    # Failing

    async def _back_off(self, call: Call, problem: Problem) -> None:
        """Wait as the policy says, or raise."""
        decision: Wait | Stop = Stop("refused")
        if not self._closed and not problem.unauthorized:
            decision = self._decide(call, problem.failure, repeatable=call.repeatable)
        wait = decision.seconds if isinstance(decision, Wait) else None
        self._tell_failed(call, wait)
        if isinstance(decision, Stop):
            raise final_error(call, problem, decision, in_time=self._clock.time() < call.deadline)
        logger.debug("sending again", extra={"request_ids": call.request_ids, "wait": wait})
        with self.gate.lane_only(call, Stage.BACKING_OFF):
            await self.gate.sleep(call, decision.seconds)
            if call.proof is not None and call.may_have_landed and call.proof():
                raise OutcomeUnknown("no answer came, but it has landed", landed=Landed.YES, hint="nothing to do")
        await self.gate.resume(call)

    def _tell_failed(self, call: Call, wait: float | None) -> None:
        if self._hooks:
            self._hooks.emit(
                AttemptFailed(request_ids=call.request_ids, type=call.type, attempt=call.attempts[-1], wait=wait)
            )

    def _decide(self, call: Call, failure: Failure, *, repeatable: bool) -> Wait | Stop:
        call.counted += 1
        return call.policy.decide(
            failure,
            attempt=call.counted,
            repeatable=repeatable,
            budget=self.budget,
            now=self._clock.time(),
            deadline=call.deadline,
            random=self._random(),
        )

    def _orphaned(self, kind: OrphanKind, req_id: object, answer: Answer) -> None:
        # What came was not for us: what comes next on this connection is not to be trusted either.
        self._transport.discard(answer)
        name = f"orphans_{kind.value}"
        setattr(self.counters, name, getattr(self.counters, name) + 1)
        logger.debug("an answer fits no request", extra={"kind": kind.value})
        if self._hooks:
            self._hooks.emit(Orphan(kind=kind, req_id=None if req_id is None else str(req_id)[:64]))

    # Ending

    def _ended_well(self, call: Call, answer: Answer, items: Items) -> Response[Any]:
        item = cast("WireResponse[Any]", items[0])  # of a single request there is none without its answer
        response = self._accepted(call, answer, item, call.request_ids[0])
        self._note_success(call)
        self._books.accepted(call)
        return response

    def _batch_ended(self, call: Call, answer: Answer, items: Items) -> list[Response[Any] | RequestError]:
        self._note_success(call)
        results: list[Response[Any] | RequestError] = []
        for type_, request_id, item in zip(call.types, call.request_ids, items, strict=True):
            code = None if item is None else normalize_code(item.code)
            if item is None or not is_ok(code, answer.status):
                problem = None if item is None else refusal(item, code, answer.status, None)
                results.append(item_error(call, request_id, type_, problem))
            else:
                results.append(self._accepted(call, answer, item, request_id))
        # The last request decides: it is the one that the others prepare.
        last = results[-1]
        if isinstance(last, RequestError):
            self._books.finished(call, outcome_of(last), last.landed, last)
        else:
            self._books.accepted(call)
        return results

    def _note_success(self, call: Call) -> None:
        if len(call.attempts) == 1:
            self.budget.repay()
        self.lanes.succeeded(call.answered_at)

    def _accepted(self, call: Call, answer: Answer, item: WireResponse[Any], request_id: str) -> Response[Any]:
        if request_id in call.metered:
            self._books.read_meter(item.body, call.attempts[-1].number)
        return Response(
            item.body,
            request_id=request_id,
            code=item.code,
            attempts=call.attempts,
            maybe_duplicate=call.may_have_landed and not call.repeatable,
            answer=answer,
        )
