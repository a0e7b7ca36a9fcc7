"""The session: puts the parts together, owns every task, and says how it is."""

from __future__ import annotations

import logging
import math
import os
import random
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Literal, Self, TypeVar, overload
from weakref import WeakValueDictionary

import anyio
import attrs
import httpx
from anyio import AsyncContextManagerMixin
from anyio.abc import TaskGroup

from connector_async._concurrency import Clock, SingleFlight, current_clock
from connector_async.auth import (
    AppCredentials,
    AppTokenSource,
    ConsumerTokens,
    CredentialsSource,
    TokenKeeper,
    TokenSettings,
)
from connector_async.consumer import Consumer
from connector_async.conversation import Conversation
from connector_async.domains import Domains, DomainSettings, check_account_id
from connector_async.errors import ConfigurationError, RequestError, SessionClosed
from connector_async.exchange import Authorizer, Engine, EngineSettings, PendingRequest, Response
from connector_async.exchange.desk import ClientPropertiesHeader, Desk, Metadata, refuse_failed
from connector_async.hooks import Drained, Hook, Hooks
from connector_async.protocol.correlation import RequestIds
from connector_async.protocol.retry import RetryPolicy
from connector_async.session._outbound import Outbound, Outcome, OutcomeStream, Outgoing, Submission
from connector_async.session._settings import SessionLimits, credentials_from, seconds
from connector_async.session._stats import Health, SessionStats
from connector_async.store import MemoryStore, Store
from connector_async.transport import Transport, as_transport
from connector_async.wire import ClientProperties, RequestBody

__all__ = ["CloseReport", "ConnectorSession"]

logger = logging.getLogger("connector_async.session")

R = TypeVar("R")
K = TypeVar("K")

_ATTEMPT_TIMEOUT = 15.0  # working clients give up on one answer after 15 to 30 s (protocol.md 8.6)
_WORKERS_PER_WIDTH = 2  # enough to keep the engine busy, few enough that its queue stays short


@attrs.frozen(kw_only=True)
class CloseReport:
    """What a close left behind.

    Attributes:
        done: Requests and messages that ended while the session drained.
        unknown: Requests it gave up on that may have landed.
        unsent: Requests and messages it gave up on that certainly did not reach the cloud.
        seconds: How long it drained.
    """

    done: int = 0
    unknown: int = 0
    unsent: int = 0
    seconds: float = 0.0


@attrs.frozen(kw_only=True)
class _Parts:
    """What exists only while the session is entered."""

    task_group: TaskGroup
    clock: Clock
    transport: Transport
    domains: Domains
    source: AppTokenSource
    keeper: TokenKeeper
    consumers: ConsumerTokens
    engine: Engine
    desk: Desk
    outbound: Outbound


class ConnectorSession(AsyncContextManagerMixin):
    """A connector of one account: many consumers, many requests in flight, one token for all.

        async with ConnectorSession("12345678", AppCredentials("client-id", "client-secret")) as session:
            conversation = await session.consumer("customer-42").open_conversation(skill_id="77")
            await conversation.send_text("Is my order on its way?")

    Building one needs no event loop, and neither building nor entering does I/O: hosts and tokens are fetched at
    first use. It is entered once, in one event loop. Leaving the block without an error drains: requests under way
    have `drain` seconds to end. Leaving it with one ends them at once. Either way every waiter gets its outcome, and
    an error raised in the block leaves as itself.

    Args:
        account_id: The account (brand) id.
        credentials: The app installation's, or an async callable that is asked at each renewal (a vault).
        domains: None looks hosts up through the vendor's Domain API. A mapping of service name (`sentinel`, `idp`,
            `asyncMessagingEnt`, `swift`) to base URL or bare host overrides it; a text is the base URL of another
            Domain API. Plain http is allowed to loopback only.
        transport: A `Transport`, an `httpx.AsyncBaseTransport` or an `httpx.AsyncClient`, which stay yours to close.
            None: our pooled one; httpx's where a proxy is set in the environment, and on trio.
        retry: When a failed send is repeated; per call too.
        limits: How much at once.
        timeout: Seconds for one request: queue, tokens, attempts (15 each at most) and pauses included. None: none.
        client_properties: Features of the consumer's side, for conversations that are given none of their own.
        router: Handlers for what webhooks bring.
        store: Who belongs to which conversation. In memory if None; what you pass you close.
        hooks: Callables that get the events of `connector_async.hooks`.
        drain: Seconds that a clean exit waits for requests under way.
        tokens: When tokens are renewed.

    Raises:
        ConfigurationError: A setting cannot work; the message names it.
    """

    def __init__(
        self,
        account_id: str,
        credentials: CredentialsSource,
        *,
        domains: Mapping[str, str] | str | None = None,
        transport: Transport | httpx.AsyncBaseTransport | httpx.AsyncClient | None = None,
        retry: RetryPolicy | None = None,
        limits: SessionLimits | None = None,
        timeout: float | None = 60.0,
        client_properties: ClientProperties | str | None = None,
        store: Store | None = None,
        hooks: Iterable[Hook] = (),
        drain: float = 10.0,
        tokens: TokenSettings | None = None,
    ) -> None:
        self._account_id = check_account_id(account_id)
        if not isinstance(credentials, AppCredentials) and not callable(credentials):
            raise ConfigurationError(
                f"credentials: expected AppCredentials or an async callable, got {type(credentials).__name__}"
            )
        self._credentials = credentials
        self._domain_settings = DomainSettings.of(domains)
        self._transport = transport
        self._retry = retry or RetryPolicy.vendor()
        self._limits = limits or SessionLimits()
        self._timeout = math.inf if timeout is None else seconds("timeout", timeout)
        self._client_properties = ClientPropertiesHeader.of(client_properties)
        self._store: Store = store if store is not None else MemoryStore()
        self._owns_store = store is None
        self._hooks = Hooks(hooks)
        self._drain = seconds("drain", drain, zero=True)
        self._tokens = tokens or TokenSettings()
        self._state: Literal["new", "open", "closing", "closed"] = "new"
        self._parts: _Parts | None = None
        self._consumers: WeakValueDictionary[str, Consumer] = WeakValueDictionary()
        self._conversations: WeakValueDictionary[str, Conversation] = WeakValueDictionary()
        self._final_stats: SessionStats | None = None
        self._report = CloseReport()

    @classmethod
    def from_env(cls, *, prefix: str = "LP_", environ: Mapping[str, str] | None = None, **options: Any) -> Self:
        """A session from the environment.

        Reads `LP_ACCOUNT_ID`, `LP_CLIENT_ID`, `LP_CLIENT_SECRET` (or `LP_CLIENT_SECRET_FILE`, a path) and, optional,
        `LP_DOMAIN_API` (base URL of the Domain API).

        Args:
            prefix: Instead of `LP_`.
            environ: Instead of `os.environ`.
            options: Any keyword of the constructor.

        Raises:
            ConfigurationError: A variable is missing; the message names it.
        """
        variables = os.environ if environ is None else environ
        account_id, credentials = credentials_from(variables, prefix)
        domain_api = variables.get(f"{prefix}DOMAIN_API", "").strip()
        if domain_api:
            options.setdefault("domains", domain_api)
        return cls(account_id, credentials, **options)

    @property
    def account_id(self) -> str:
        """The account it acts for."""
        return self._account_id

    # Entering and leaving

    @asynccontextmanager
    async def __asynccontextmanager__(self) -> AsyncGenerator[Self]:
        if self._state != "new":
            raise RuntimeError(
                f"this session is {self._state}: a session is entered once, in one event loop; build another"
            )
        failure: BaseException | None = None
        async with AsyncExitStack() as stack:
            transport, owned = as_transport(self._transport, max_connections=self._limits.max_in_flight)
            if owned:
                await stack.enter_async_context(transport)
            if self._owns_store:
                stack.push_async_callback(self._store.aclose)
            async with anyio.create_task_group() as task_group:
                self._parts = self._assemble(task_group, transport)
                self._state = "open"
                task_group.start_soon(self._parts.keeper.run, name="connector_async token keeper")
                try:
                    yield self
                except BaseException as error:  # noqa: BLE001 - raised again below, outside the task group
                    failure = error
                finally:
                    await self._shut(self._drain if failure is None else 0.0)
                    task_group.cancel_scope.cancel()
        if failure is not None:
            # Not from inside the task group, which would wrap it.
            raise failure

    async def aclose(self) -> CloseReport:
        """Close now: drain for `drain` seconds, then end what is left. Idempotent; leaving the block does the same.

        Returns:
            What was done and what was left; it also goes to the log and to the hooks.
        """
        if self._parts is not None:
            await self._shut(self._drain)
        return self._report

    async def _shut(self, drain: float) -> None:
        parts = self._open_parts()
        if self._state != "open":
            return
        self._state = "closing"
        started = parts.clock.time()
        before = len(parts.engine) + len(parts.outbound)
        parts.outbound.refuse_new()
        parts.engine.refuse_new()
        if before and drain:
            with anyio.move_on_after(drain):
                await parts.outbound.wait_idle()
                await parts.engine.wait_idle()
        waiting = len(parts.outbound)
        parts.outbound.close()
        unknown, unsent = parts.engine.close()
        unsent += max(0, waiting - len(parts.outbound))
        parts.keeper.close()
        parts.source.abort()
        parts.consumers.abort()
        self._final_stats = self.stats()
        self._state = "closed"
        self._report = CloseReport(
            done=max(0, before - unknown - unsent),
            unknown=unknown,
            unsent=unsent,
            seconds=parts.clock.time() - started,
        )
        level = logging.WARNING if unknown or unsent else logging.INFO
        logger.log(level, "session closed: %s", self._report, extra=attrs.asdict(self._report))
        if self._hooks:
            self._hooks.emit(Drained(**attrs.asdict(self._report)))

    def _assemble(self, task_group: TaskGroup, transport: Transport) -> _Parts:
        clock = current_clock(task_group)
        jitter = random.Random()  # noqa: S311 - spreads retries, keeps no secret
        flights = SingleFlight(task_group, clock, lambda: SessionClosed("the session closed while it waited"))
        domains = Domains(
            self._account_id, self._domain_settings, clock=clock, client=transport.client, flights=flights
        )
        source = AppTokenSource(
            self._account_id, self._credentials, transport=transport, resolve=domains.resolve, now=clock.time
        )
        keeper = TokenKeeper(
            source.fetch, clock=clock, random=jitter.random, settings=self._tokens, hooks=self._hooks
        )
        consumers = ConsumerTokens(
            self._account_id,
            transport=transport,
            resolve=domains.resolve,
            keeper=keeper,
            store=self._store,
            clock=clock,
            flights=flights,
            max_cached=self._limits.max_cached_consumers,
        )
        engine = Engine(
            EngineSettings(
                account_id=self._account_id,
                max_in_flight=self._limits.max_in_flight,
                max_queue=self._limits.max_queue,
                rate=self._limits.rate,
                timeout=self._timeout,
                attempt_timeout=_ATTEMPT_TIMEOUT,
            ),
            transport=transport,
            clock=clock,
            authorizer=Authorizer(self._account_id, domains=domains, keeper=keeper, consumers=consumers),
            hooks=self._hooks,
            random=jitter.random,
            wall=time.time,
        )
        desk = Desk(
            self._account_id,
            engine=engine,
            store=self._store,
            clock=clock,
            flights=flights,
            ids=RequestIds(secrets.token_hex(6)),
            retry=self._retry,
            client_properties=self._client_properties,
            client=transport.client,
            resolve=domains.resolve,
        )
        outbound = Outbound(
            task_group=task_group,
            clock=clock,
            find=self.consumer,
            max_workers=_WORKERS_PER_WIDTH * self._limits.max_in_flight,
            max_queue=self._limits.max_queue,
        )
        return _Parts(
            task_group=task_group,
            clock=clock,
            transport=transport,
            domains=domains,
            source=source,
            keeper=keeper,
            consumers=consumers,
            engine=engine,
            desk=desk,
            outbound=outbound,
        )

    def _open_parts(self) -> _Parts:
        if self._parts is None:
            raise RuntimeError("the session is not entered yet: use `async with ConnectorSession(...) as session:`")
        return self._parts

    # Handles

    def consumer(self, ext_consumer_id: str) -> Consumer:
        """A handle to a consumer; no I/O. The ConsumerJWS is fetched at first use, once, however many tasks ask.

        Args:
            ext_consumer_id: The channel's id: unique, unguessable, never recycled.

        Raises:
            ValueError: It is empty or no text.
            RuntimeError: The session is not entered yet.
        """
        consumer = self._consumers.get(ext_consumer_id)
        if consumer is None:
            if not isinstance(ext_consumer_id, str) or not ext_consumer_id.strip():
                raise ValueError("an ext_consumer_id is a text that is not empty")
            consumer = Consumer(ext_consumer_id, self._open_parts().desk, self._handle)
            self._consumers[ext_consumer_id] = consumer
        return consumer

    def conversation(
        self,
        conversation_id: str,
        consumer: Consumer | str,
        *,
        client_properties: ClientProperties | str | None = None,
    ) -> Conversation:
        """A handle to a conversation that exists; no I/O.

        Args:
            consumer: Whose it is; the cloud refuses anybody else.
            client_properties: What it was opened with; the session's default if None.
        """
        if not isinstance(conversation_id, str) or not 1 <= len(conversation_id) <= 64:
            raise ValueError("a conversation id is a text of 1 to 64 characters")
        owner = self.consumer(consumer) if isinstance(consumer, str) else consumer
        properties = ClientPropertiesHeader.of(client_properties) or self._client_properties
        return self._handle(conversation_id, owner, properties=properties)

    async def find_conversation(self, conversation_id: str) -> Conversation | None:
        """A handle to a conversation that the store knows, or None."""
        known = self._conversations.get(conversation_id)
        if known is not None:
            return known
        record = await self._store.get_conversation(self._account_id, conversation_id)
        if record is None:
            return None
        conversation = self._handle(
            conversation_id,
            self.consumer(record.ext_consumer_id),
            properties=ClientPropertiesHeader.of(record.client_properties),
        )
        if record.is_closed:
            conversation.mark_closed()
        return conversation

    def _handle(
        self,
        conversation_id: str,
        consumer: Consumer,
        *,
        properties: ClientPropertiesHeader | None,
        opened_at: float | None = None,
    ) -> Conversation:
        """The one handle of a conversation that is in use, so that what webhooks tell reaches whoever holds it."""
        conversation = self._conversations.get(conversation_id)
        if conversation is None or conversation.consumer is not consumer:
            conversation = Conversation(
                conversation_id, consumer, self._open_parts().desk, properties=properties, opened_at=opened_at
            )
            self._conversations[conversation_id] = conversation
        return conversation

    # Sending

    async def request(
        self,
        body: RequestBody[R],
        *,
        consumer: Consumer | str,
        metadata: Metadata | None = None,
        encoded_metadata: str | None = None,
        client_properties: ClientProperties | str | None = None,
        request_id: str | None = None,
        retry: RetryPolicy | None = None,
        timeout: float | None = None,
    ) -> Response[R]:
        """Send any request body to SEND and wait for the answer that names its id.

        Cancelling is safe: the connection is closed and a late answer reaches nobody.

        Args:
            body: Any class of `connector_async.wire`; `RawBody(type, body)` for what has none.
            consumer: For whom.
            timeout: Seconds for everything; the session's default when None.

        Raises:
            RequestError: It failed; see `errors` for the kinds.
            LocalProtocolError: It does not fit the API; nothing was sent.

        Source: Connector API, "Send".
        """
        return await self._open_parts().desk.request(
            body,
            consumer_id=_id_of(consumer),
            properties=self._properties(client_properties),
            metadata=metadata,
            encoded_metadata=encoded_metadata,
            request_id=request_id,
            retry=retry,
            timeout=timeout,
        )

    @overload
    async def batch(
        self,
        bodies: Sequence[RequestBody[Any]],
        *,
        consumer: Consumer | str,
        return_errors: Literal[False] = False,
        client_properties: ClientProperties | str | None = None,
        retry: RetryPolicy | None = None,
        timeout: float | None = None,
    ) -> list[Response[Any]]: ...
    @overload
    async def batch(
        self,
        bodies: Sequence[RequestBody[Any]],
        *,
        consumer: Consumer | str,
        return_errors: Literal[True],
        client_properties: ClientProperties | str | None = None,
        retry: RetryPolicy | None = None,
        timeout: float | None = None,
    ) -> list[Response[Any] | RequestError]: ...
    async def batch(
        self,
        bodies: Sequence[RequestBody[Any]],
        *,
        consumer: Consumer | str,
        return_errors: bool = False,
        client_properties: ClientProperties | str | None = None,
        retry: RetryPolicy | None = None,
        timeout: float | None = None,
    ) -> list[Response[Any]] | list[Response[Any] | RequestError]:
        """Send several bodies at once to CONVERSATION; the answers come in the order given, matched by id.

        Args:
            return_errors: Return the error of a refused item in its place, instead of raising.

        Raises:
            BatchRefused: At least one item failed; `items` has the response or error of each.
            RequestError: The batch as a whole failed.

        Source: Connector API, "Create conversation" (array of requests).
        """
        results = await self._open_parts().desk.batch(
            bodies,
            consumer_id=_id_of(consumer),
            properties=self._properties(client_properties),
            retry=retry,
            timeout=timeout,
        )
        return results if return_errors else refuse_failed(results)

    async def send(self, message: Outgoing[K]) -> Outcome[K]:
        """Send a message that the session owns: it is sent even if this caller is cancelled.

        Raises:
            QueueFull: Too many messages wait already.
            SessionClosed: The session is closed.
        """
        return await (await self.submit(message)).outcome()

    async def submit(self, message: Outgoing[K]) -> Submission[K]:
        """Hand a message to the session and return as soon as it is admitted; errors as `send`."""
        return self._open_parts().outbound.submit(message)

    def send_many(
        self,
        messages: Iterable[Outgoing[K]] | AsyncIterable[Outgoing[K]],
        *,
        concurrency: int | None = None,
        per_consumer: int = 100,
        ordered: bool = False,
        lane_timeout: float | None = None,
    ) -> OutcomeStream[K]:
        """Send many messages: in order for each consumer, in parallel across consumers, in bounded memory.

            async with session.send_many(source(), concurrency=20_000) as outcomes:
                async for outcome in outcomes:
                    ...

        Args:
            messages: Read only as fast as outcomes are taken.
            concurrency: Most messages between being read and having their outcome taken; four times `max_in_flight`
                if None.
            per_consumer: Most of them for one consumer; the reader waits when the next message is one too many.
            ordered: Yield outcomes in the order of the messages.
            lane_timeout: Seconds that a message may wait for those before it of its consumer; None for no limit.
        """
        parts = self._open_parts()
        return OutcomeStream(
            parts.outbound,
            messages,
            clock=parts.clock,
            task_group=parts.task_group,
            concurrency=concurrency or 4 * self._limits.max_in_flight,
            per_consumer=per_consumer,
            ordered=ordered,
            lane_timeout=lane_timeout,
        )

    def _properties(self, given: ClientProperties | str | None) -> ClientPropertiesHeader | None:
        return ClientPropertiesHeader.of(given) or self._client_properties

    # Looking

    def pending(self) -> tuple[PendingRequest, ...]:
        """What is in flight, oldest first: ids, type, age, stage, attempt."""
        return () if self._parts is None else self._parts.engine.pending()

    def stats(self) -> SessionStats:
        """Counters and gauges of this moment; after the close, those of its end."""
        parts = self._parts
        if parts is None or self._state == "closed":
            return self._final_stats or SessionStats(**dict.fromkeys(attrs.fields_dict(SessionStats), 0))
        engine = parts.engine
        return SessionStats(
            **attrs.asdict(engine.counters),
            tokens_fetched=parts.keeper.fetched,
            consumer_tokens_fetched=parts.consumers.fetched,
            in_flight=len(engine),
            queued=engine.lanes.depth,
            width=engine.lanes.width,
            retry_budget=engine.budget.tokens,
        )

    def health(self) -> Health:
        """How it is, from what is known; no I/O."""
        parts = self._parts
        if parts is None or self._state != "open":
            return Health(live=False, ready=False, problems=(f"the session is {self._state}",))
        problems = []
        failure = parts.keeper.failure
        if failure is not None:
            problems.append(f"the AppJWT cannot be renewed: {failure}")
        if engine_is_full := parts.engine.lanes.depth >= self._limits.max_queue:
            problems.append(f"the queue is full: {parts.engine.lanes.depth} requests wait")
        ready = not engine_is_full and (failure is None or parts.keeper.current() is not None)
        return Health(live=True, ready=ready, problems=tuple(problems))

    async def check(self) -> Health:
        """Look up the hosts and get a token, then say how it is. Raises nothing that a cloud can cause."""
        parts = self._open_parts()
        problems = []
        for service in ("sentinel", "idp", "asyncMessagingEnt"):
            try:
                await parts.domains.resolve(service)
            except RequestError as error:
                problems.append(str(error))
                break
        else:
            try:
                await parts.keeper.get()
            except RequestError as error:
                problems.append(str(error))
        health = self.health()
        return attrs.evolve(
            health, ready=health.ready and not problems, problems=tuple(dict.fromkeys((*problems, *health.problems)))
        )

    def __repr__(self) -> str:
        return f"ConnectorSession({self._account_id!r}, {self._state})"


def _id_of(consumer: Consumer | str) -> str:
    return consumer if isinstance(consumer, str) else consumer.ext_consumer_id
