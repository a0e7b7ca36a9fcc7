"""Webhooks out: what happens in the cloud, signed and delivered, with the vendor's two laws of retrying.

Deliveries of one conversation keep their order, as far as the law in force lets them; the endpoint has succeeded only
with 200 or 201. What became of each delivery stands in `WebhookSender.deliveries`.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

import anyio
import attrs

from connector_async.sandbox._background import Background
from connector_async.sandbox._fault_actions import BadSignature, Double, Drop, Latency, Reorder, Silence
from connector_async.sandbox._json import Json, dumps
from connector_async.sandbox._manifest import WebhookEndpoint
from connector_async.sandbox._post import POST_FAILURES
from connector_async.sandbox._retention import RetentionLaw
from connector_async.sandbox._state import Account, Happening
from connector_async.sandbox.faults import FaultPlan

__all__ = ["Algorithm", "Delivery", "WebhookSender", "sign_body"]

_COUNTED_PAUSE: Final = 30.0  # seconds between the attempts of `max_retries`
_SUCCESS: Final = frozenset({200, 201})
_MAX_AT_ONCE: Final = 64
_KEPT: Final = 100_000

Algorithm = Literal["sha1", "sha256"]


def sign_body(body: bytes, secret: str, algorithm: Algorithm = "sha1") -> str:
    """The value of `x-liveperson-signature` for a body."""
    digest = hmac.new(secret.encode(), body, getattr(hashlib, algorithm)).digest()
    return f"{algorithm}={base64.b64encode(digest).decode()}"


@attrs.define(eq=False)
class Delivery:
    """One notification on its way to one endpoint.

    Attributes:
        attempts: What came of each attempt: the status, or the name of the failure.
        outcome: `pending`, `delivered`, or `lost`.
    """

    number: int
    key: str
    conversation_id: str
    sequence: int | None
    endpoint: WebhookEndpoint = attrs.field(repr=False)
    body: bytes = attrs.field(repr=False)
    at: float
    forged: bool = False
    attempts: list[int | str] = attrs.field(factory=list[int | str])
    outcome: Literal["pending", "delivered", "lost"] = "pending"

    def as_dict(self) -> dict[str, Any]:
        """The delivery as a JSON object."""
        return {
            "number": self.number,
            "key": self.key,
            "conversation_id": self.conversation_id,
            "sequence": self.sequence,
            "attempts": self.attempts,
            "outcome": self.outcome,
        }


@attrs.define(eq=False)
class WebhookSender:
    """Delivers what happens in one account.

    Attributes:
        endpoints: By event key; a key that is missing is not delivered.
        deliveries: The newest deliveries, with what became of them.
    """

    account: Account
    background: Background
    faults: FaultPlan
    clock: Callable[[], float]
    algorithm: Algorithm = "sha1"
    endpoints: Mapping[str, WebhookEndpoint] = attrs.field(factory=dict[str, WebhookEndpoint])
    deliveries: deque[Delivery] = attrs.field(init=False, factory=lambda: deque[Delivery](maxlen=_KEPT))
    _numbers: int = attrs.field(init=False, default=0)
    _lanes: dict[str, deque[Delivery]] = attrs.field(init=False, factory=dict[str, deque[Delivery]])
    _held: list[Delivery] = attrs.field(init=False, factory=list[Delivery])
    _law: RetentionLaw[Delivery] | None = attrs.field(init=False, default=None)
    # What is kept goes out one by one: a probe that finds a draining still at work would send the oldest twice.
    _turn: anyio.Lock = attrs.field(init=False, factory=anyio.Lock)
    _gate: anyio.CapacityLimiter = attrs.field(init=False, factory=lambda: anyio.CapacityLimiter(_MAX_AT_ONCE))

    def configure(self, endpoints: Mapping[str, WebhookEndpoint], retention_time: float | None = None) -> None:
        """Deliver to these endpoints from now on; with a retention time failures are retried until it has passed."""
        self.endpoints = endpoints
        self._law = None if retention_time is None else RetentionLaw(retention_time)

    @property
    def state(self) -> str:
        """How the app install stands under the law of the retention time: `UP` where that is not in force."""
        return "UP" if self._law is None else self._law.state

    def counts(self) -> dict[str, int]:
        """How many deliveries ended how."""
        return dict(Counter(delivery.outcome for delivery in self.deliveries))

    # -- what happens, and the faults that meet it

    def on_happening(self, happening: Happening) -> None:
        """Take note of something that happened; called within the request that caused it."""
        endpoint = self.endpoints.get(happening.key)
        if endpoint is None or happening.account is not self.account:
            return
        self._numbers += 1
        delivery = Delivery(
            self._numbers,
            happening.key,
            happening.conversation.conversation_id,
            happening.change.get("sequence"),
            endpoint,
            dumps(happening.notification()),
            self.clock(),
        )
        self.deliveries.append(delivery)
        names = (happening.key, happening.key.rpartition(".")[2])
        rules = self.faults.decide("webhook", names, happening.conversation.consumer.lp_id, self.clock())
        self._dispatch(delivery, [rule.action for rule in rules])

    def _dispatch(self, delivery: Delivery, actions: list[Any]) -> None:
        times, wait, held = 1, 0.0, None
        for action in actions:
            if isinstance(action, Drop | Silence):
                delivery.outcome = "lost"
                return
            if isinstance(action, Latency):
                wait += action.seconds + self.faults.roll(action.jitter)
            delivery.forged = delivery.forged or isinstance(action, BadSignature)
            times = action.times if isinstance(action, Double) else times
            held = action if isinstance(action, Reorder) else held
        copies = [attrs.evolve(delivery, attempts=[]) for _ in range(times - 1)]
        self.deliveries.extend(copies)
        for one in (delivery, *copies):
            if held is not None:
                self._hold(one, held)
            elif wait:
                self.background.later(wait, functools.partial(self._enqueue, one))
            else:
                self._enqueue(one)

    def _hold(self, delivery: Delivery, action: Reorder) -> None:
        self._held.append(delivery)
        if len(self._held) >= action.window:
            self._release()
        elif len(self._held) == 1:
            self.background.later(action.seconds, self._release)

    def _release(self) -> None:
        held, self._held = self._held, []
        self.faults.shuffle(held)
        for delivery in held:
            self._enqueue(delivery)

    # -- lanes: one conversation after the other, many conversations at once

    def _enqueue(self, delivery: Delivery) -> None:
        lane = self._lanes.get(delivery.conversation_id)
        if lane is not None:
            lane.append(delivery)
            return
        if self.background.is_alive:
            self._lanes[delivery.conversation_id] = deque([delivery])
            self.background.spawn(self._run_lane, delivery.conversation_id)

    async def _run_lane(self, conversation_id: str) -> None:
        lane = self._lanes[conversation_id]
        try:
            while lane:
                await self._handle(lane.popleft())
        finally:
            del self._lanes[conversation_id]

    async def _handle(self, delivery: Delivery) -> None:
        law = self._law
        if law is not None and law.must_hold(delivery.conversation_id):
            law.hold(delivery.conversation_id, delivery, delivery.at)
            return
        if await self._attempt(delivery):
            return
        if law is None:
            self._retry_by_count(delivery)
        elif delivery.endpoint.max_retries == 0 and law.state == "UP":
            delivery.outcome = "lost"
        else:
            law.hold(delivery.conversation_id, delivery, delivery.at)
            self._fail(law)

    def _retry_by_count(self, delivery: Delivery) -> None:
        if len(delivery.attempts) > (delivery.endpoint.max_retries or 0):
            delivery.outcome = "lost"
            return
        # Each retry is on its own: this law does not keep the order.
        self.background.later(_COUNTED_PAUSE, lambda: self.background.spawn(self._retry, delivery))

    async def _retry(self, delivery: Delivery) -> None:
        if not await self._attempt(delivery):
            self._retry_by_count(delivery)

    # -- the law of the retention time

    def _fail(self, law: RetentionLaw[Delivery]) -> None:
        if law.fail():
            self.background.later(law.next_pause(), lambda: self.background.spawn(self._probe, law))

    async def _probe(self, law: RetentionLaw[Delivery]) -> None:
        async with self._turn:
            self._drop_expired(law)
            oldest = law.oldest()
            if oldest is None:
                law.recover()
            elif await self._attempt(oldest[1]):
                law.take(oldest[0])
                drain = functools.partial(self.background.spawn, self._drain, law, law.outages)
                self.background.later(law.begin_transition(), drain)
            else:
                self.background.later(law.next_pause(), lambda: self.background.spawn(self._probe, law))

    async def _drain(self, law: RetentionLaw[Delivery], outage: int) -> None:
        async with self._turn:
            while law.outages == outage:
                self._drop_expired(law)
                oldest = law.oldest()
                if oldest is None:
                    law.recover()
                    return
                if not await self._attempt(oldest[1]):
                    self._fail(law)
                    return
                law.take(oldest[0])

    def _drop_expired(self, law: RetentionLaw[Delivery]) -> None:
        for delivery in law.drop_expired(self.clock()):
            delivery.outcome = "lost"

    # -- one attempt

    async def _attempt(self, delivery: Delivery) -> bool:
        secret = self.account.client_secret + ("-forged" if delivery.forged else "")
        headers = (
            (b"content-type", b"application/json"),
            (b"x-liveperson-account-id", self.account.account_id.encode()),
            (b"x-liveperson-client-id", self.account.client_id.encode()),
            (b"x-liveperson-signature", sign_body(delivery.body, secret, self.algorithm).encode()),
            *delivery.endpoint.headers,
        )
        try:
            async with self._gate:
                result: int | str = await delivery.endpoint.target.post(headers, delivery.body)
        except POST_FAILURES as error:
            result = type(error).__name__
        delivery.attempts.append(result)
        if result in _SUCCESS:
            delivery.outcome = "delivered"
            return True
        return False

    async def aclose(self) -> None:
        """Close the connections that are kept open."""
        for endpoint in self.endpoints.values():
            await endpoint.target.aclose()

    def as_json(self) -> Json:
        """The state for people to look at."""
        return {"endpoints": list(self.endpoints), "state": self.state, "outcomes": self.counts()}
