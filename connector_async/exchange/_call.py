"""One logical request on its way: its ids, its place in the queue, its deadline, its attempts so far."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from contextvars import ContextVar
from enum import Enum
from typing import Any, Literal

import attrs

from connector_async._concurrency import Slot
from connector_async.errors import NotSent
from connector_async.protocol.lanes import Priority, Ticket
from connector_async.protocol.retry import Attempt, RetryPolicy
from connector_async.transport.base import Headers, Target
from connector_async.wire import ContentEvent, PublishEvent, Request, RequestBody, encode_request

__all__ = ["Call", "Endpoint", "PendingRequest", "Stage", "Superseded", "session_owned"]


_MOST_PRIOR_ATTEMPTS = 1_000  # the counter doubles each time: its digits must stay countable

session_owned: ContextVar[bool] = ContextVar("connector_async_session_owned", default=False)
"""Set in tasks that carry the session's own messages: while it drains, those may still send."""


class Stage(Enum):
    """Where a request is."""

    QUEUED = "queued"
    TOKEN = "token"  # noqa: S105 - a stage, not a secret
    SENDING = "sending"
    BACKING_OFF = "backing off"


_QUEUED, _SENDING = Stage.QUEUED, Stage.SENDING  # looked up once; see `protocol.lanes`

Expected = type[RequestBody[Any]] | dict[str, type[RequestBody[Any]]]
"""What the answers look like: the class of the request's body; for a batch, by id."""


class Endpoint(Enum):
    """The two message endpoints (Connector API, "Create conversation" and "Send")."""

    CONVERSATION = "/messaging/consumer/conversation?v=3"
    SEND = "/messaging/consumer/conversation/send?v=3"


class Superseded(NotSent):
    """The request was taken out of the queue: a newer chat state of the dialog replaces it."""

    hint = "nothing to do: the newer state is on its way"
    retryable = False


@attrs.frozen(kw_only=True)
class PendingRequest:
    """One request in flight, as `session.pending()` shows it.

    Attributes:
        age: Seconds since it was admitted.
        stage: What it waits for.
        attempt: How often it has been sent.
    """

    request_ids: tuple[str, ...]
    type: str
    age: float
    stage: Literal["queued", "token", "sending", "backing off"]
    attempt: int


class Call(Ticket):
    """A request, or the several of a batch, from admission to its end.

    It is encoded when it is made, and keeps of what it was made of only what the answer is read by: the fewer objects
    a message in flight consists of, the fewer the garbage collector visits at each of its rounds.

    Args:
        consumer_id: The `ext_consumer_id` it acts for.
        properties: The `Client-Properties` header of its conversation.
        repeatable: Sending it twice does no harm.
        prior_attempts: Sends made by an earlier process; the counter goes on from there.

    Attributes:
        admitted_at, sent_at, answered_at, deadline: Seconds on the clock; the two in the middle of the last attempt.
        body: The bytes to post, the same at each attempt.
        type: The wire type; for a batch, of its last request, which is the one that matters.
        types: Of a batch, the wire type of each request.
        proof: Says whether an earlier attempt is known to have landed; asked before sending again.
        metered: The ids of those whose answers count how often they were sent.
        target, headers, app_generation, used_token: Of the attempt under way; see `Authorizer.equip`.
        consumer_token: One that was fetched for this call.

    Raises:
        ValueError: `prior_attempts` is negative, or more than anybody sends.
        LocalProtocolError: It cannot be encoded; see `encode_request`.
    """

    __slots__ = (
        "admitted_at",
        "answered_at",
        "app_generation",
        "attempts",
        "backing_off",
        "batch",
        "body",
        "consumer_id",
        "consumer_token",
        "counted",
        "deadline",
        "expected",
        "headers",
        "may_have_landed",
        "metered",
        "policy",
        "prior_attempts",
        "proof",
        "properties",
        "queued",
        "renewed_app_token",
        "renewed_consumer_token",
        "repeatable",
        "request_ids",
        "sent_at",
        "slot",
        "stage",
        "target",
        "token",
        "type",
        "types",
        "used_token",
    )

    def __init__(
        self,
        requests: tuple[Request[Any], ...],
        *,
        batch: bool,
        consumer_id: str,
        lane: Hashable,
        priority: Priority,
        policy: RetryPolicy,
        repeatable: bool,
        properties: Headers | None = None,
        prior_attempts: int = 0,
    ) -> None:
        super().__init__(lane, priority)
        if not 0 <= prior_attempts <= _MOST_PRIOR_ATTEMPTS:
            raise ValueError(f"prior_attempts must be from 0 to {_MOST_PRIOR_ATTEMPTS}, got {prior_attempts}")
        self.body = encode_request(requests if batch else requests[0])
        self.request_ids = tuple([str(request.id) for request in requests])
        self.type = requests[-1].type
        self.types = tuple([request.type for request in requests]) if batch else ()
        self.expected: Expected = _classes(requests) if batch else type(requests[0].body)
        self.metered = _content_of(requests) if batch or not _is_content(requests[0]) else self.request_ids
        self.batch = batch
        self.consumer_id = consumer_id
        self.policy = policy
        self.repeatable = repeatable
        self.properties = properties
        self.prior_attempts = prior_attempts
        self.proof: Callable[[], bool] | None = None
        self.target: Target
        self.headers: bytes
        self.app_generation = 0
        self.used_token = ""
        self.consumer_token: str | None = None
        self.admitted_at = self.sent_at = self.answered_at = self.deadline = 0.0
        self.stage = _QUEUED
        self.slot: Slot | None = None
        self.attempts: tuple[Attempt, ...] = ()  # a list of its own is one object more for the collector to visit
        self.counted = 0
        self.may_have_landed = prior_attempts > 0
        self.renewed_app_token = False
        self.renewed_consumer_token = False
        self.queued = self.token = self.backing_off = 0.0

    @property
    def endpoint(self) -> Endpoint:
        """Where it is sent: batches go to CONVERSATION."""
        return Endpoint.CONVERSATION if self.batch else Endpoint.SEND

    @property
    def is_in_doubt(self) -> bool:
        """Whether it may be with the cloud, as far as is known while no answer says more."""
        return self.may_have_landed or self.stage is _SENDING

    def granted(self) -> None:
        """Its turn has come."""
        if self.slot is not None:
            self.slot.settle()

    def superseded(self) -> None:
        """It was taken out of the queue."""
        self.interrupt(Superseded("a newer chat state of the same dialog replaced it"))

    def interrupt(self, error: Exception) -> None:
        """End the wait it is in, if it is in one of ours."""
        if self.slot is not None:
            self.slot.fail(error)

    def stages(self) -> dict[str, float]:
        """Where the time went, in seconds."""
        return {
            "queued": self.queued,
            "token": self.token,
            "sending": sum(attempt.duration for attempt in self.attempts),
            "backing_off": self.backing_off,
        }


def _classes(requests: Iterable[Request[Any]]) -> dict[str, type[RequestBody[Any]]]:
    return {str(request.id): type(request.body) for request in requests}


def _content_of(requests: Iterable[Request[Any]]) -> tuple[str, ...]:
    return tuple([str(request.id) for request in requests if _is_content(request)])


def _is_content(request: Request[Any]) -> bool:
    """Whether its answer has a counter to be read: chat states and receipts are always answered with 0."""
    return isinstance(request.body, PublishEvent) and isinstance(request.body.event, ContentEvent)
