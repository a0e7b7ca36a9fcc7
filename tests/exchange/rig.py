"""An engine with everything under it, over a scripted transport: what a session assembles, in the test's hands."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import attrs
import httpx
from anyio.abc import TaskGroup

from connector_async._concurrency import Clock, SingleFlight, current_clock
from connector_async.auth import AppCredentials, AppTokenSource, ConsumerTokens, TokenKeeper, TokenSettings
from connector_async.domains import Domains, DomainSettings
from connector_async.errors import RequestError, SessionClosed
from connector_async.exchange import Authorizer, Call, Engine, EngineSettings, Response
from connector_async.exchange.desk import manners_of
from connector_async.hooks import Event, Hooks
from connector_async.protocol.retry import RetryPolicy
from connector_async.store import MemoryStore, Store
from connector_async.transport.base import Headers, Transport
from connector_async.wire import ContentEvent, PublishEvent, Request, RequestBody
from tests.doubles import BASE, FakeCloud, ScriptedTransport

__all__ = ["Rig", "rig"]

EVERYWHERE: dict[str, str] = dict.fromkeys(("sentinel", "idp", "asyncMessagingEnt"), BASE)
_numbers = itertools.count(1)


@attrs.define(eq=False)
class Rig:
    """The parts, and short ways to use them."""

    cloud: FakeCloud
    transport: Transport
    clock: Clock
    tasks: TaskGroup
    domains: Domains
    keeper: TokenKeeper
    consumers: ConsumerTokens
    engine: Engine
    policy: RetryPolicy
    events: list[Event] = attrs.field(factory=list)

    def call(
        self,
        *bodies: RequestBody[Any],
        consumer: str = "c1",
        request_id: str | None = None,
        policy: RetryPolicy | None = None,
        batch: bool = False,
        properties: Headers | None = None,
        prior_attempts: int = 0,
    ) -> Call:
        """One call of these bodies, as the desk makes it."""
        requests = tuple(Request(id=request_id or f"r-{next(_numbers)}", body=body) for body in bodies)
        lane, priority, repeatable = manners_of(bodies[-1], consumer, requests[0].id)
        return Call(
            requests,
            batch=batch,
            consumer_id=consumer,
            lane=lane,
            priority=priority,
            policy=policy or self.policy,
            repeatable=repeatable and all(manners_of(body, consumer, "").repeatable for body in bodies),
            properties=properties,
            prior_attempts=prior_attempts,
        )

    def text(self, dialog: str = "d1", text: str = "hello", **options: Any) -> Call:
        """A text to a dialog."""
        return self.call(PublishEvent(dialog, ContentEvent.text_of(text)), **options)

    async def send(self, dialog: str = "d1", *, timeout: float | None = None, **options: Any) -> Response[Any]:
        """Send a text; the response."""
        (result,) = await self.engine.run(self.text(dialog, **options), timeout)
        assert isinstance(result, Response)
        return result

    async def outcome(self, dialog: str = "d1", *, timeout: float | None = None, **options: Any) -> RequestError:
        """Send a text that must fail; its error."""
        try:
            await self.send(dialog, timeout=timeout, **options)
        except RequestError as error:
            return error
        raise AssertionError("it was accepted")

    def assert_quiet(self) -> None:
        """Nothing is under way, and every request was counted once."""
        assert len(self.engine) == 0
        assert self.engine.pending() == ()
        assert self.engine.lanes.is_idle()
        self.assert_balanced(in_flight=0)

    def assert_balanced(self, *, in_flight: int) -> None:
        """Each admitted request has ended in exactly one way, or is in flight."""
        c = self.engine.counters
        assert c.accepted + c.refused + c.not_sent + c.unknown + c.cancelled == c.requests - in_flight

    def told(self, kind: type[Event]) -> list[Any]:
        """The events of one kind, in order."""
        return [event for event in self.events if isinstance(event, kind)]


@asynccontextmanager
async def rig(
    cloud: FakeCloud | None = None,
    *,
    width: int = 256,
    max_queue: int = 10_000,
    rate: float | None = None,
    timeout: float = 60.0,
    policy: RetryPolicy | None = None,
    tokens: TokenSettings | None = None,
    random: Callable[[], float] = lambda: 0.5,
    wall: Callable[[], float] = lambda: 1_700_000_000.0,
    max_cached: int = 1_000,
    store: Store | None = None,
    domains: DomainSettings | None = None,
    client: httpx.AsyncClient | None = None,
    transport: Transport | None = None,
    hooks: Iterable[Callable[[Event], object]] = (),
    listening: bool = True,
) -> AsyncIterator[Rig]:
    """Everything ready and nothing fetched yet."""
    cloud = cloud or FakeCloud()
    events: list[Event] = []
    told = Hooks([events.append, *hooks] if listening else ())
    async with anyio.create_task_group() as tasks:
        clock = current_clock(tasks)
        over: Transport = transport or ScriptedTransport(cloud)
        flights = SingleFlight(tasks, clock, lambda: SessionClosed("the session closed while it waited"))
        found = Domains(
            "12345678",
            domains or DomainSettings.of(EVERYWHERE),
            clock=clock,
            client=client or over.client,
            flights=flights,
        )
        source = AppTokenSource(
            "12345678",
            AppCredentials("client", "secret"),
            transport=over,
            resolve=found.resolve,
            now=clock.time,
        )
        keeper = TokenKeeper(source.fetch, clock=clock, random=random, settings=tokens or TokenSettings(), hooks=told)
        consumers = ConsumerTokens(
            "12345678",
            transport=over,
            resolve=found.resolve,
            keeper=keeper,
            store=store or MemoryStore(),
            clock=clock,
            flights=flights,
            max_cached=max_cached,
        )
        engine = Engine(
            EngineSettings(
                account_id="12345678",
                max_in_flight=width,
                max_queue=max_queue,
                rate=rate,
                timeout=timeout,
                attempt_timeout=15.0,
            ),
            transport=over,
            clock=clock,
            authorizer=Authorizer("12345678", domains=found, keeper=keeper, consumers=consumers),
            hooks=told,
            random=random,
            wall=wall,
        )
        tasks.start_soon(keeper.run)
        parts = Rig(
            cloud, over, clock, tasks, found, keeper, consumers, engine, policy or RetryPolicy.vendor(), events
        )
        try:
            yield parts
        finally:
            tasks.cancel_scope.cancel()
