"""The life of a session: built, entered, left; and what it says of itself."""

from __future__ import annotations

import logging
import os
import ssl
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self, Unpack, cast

import anyio
import attrs
import httpx

from connector_async.auth import AppCredentials, CredentialsSource, TokenSettings
from connector_async.auth._jwt import load as load_jwt
from connector_async.errors import ConfigurationError, RequestError
from connector_async.exchange import PendingRequest
from connector_async.hooks import Drained, Hook, Hooks
from connector_async.protocol.lanes import SharedWidth
from connector_async.protocol.retry import RetryPolicy
from connector_async.session._handles import Handles
from connector_async.session._loop_guard import LoopGuard
from connector_async.session._options import SessionOptions
from connector_async.session._parts import Parts, Settings, assemble
from connector_async.session._settings import SessionLimits, check_hooks, check_kind, credentials_from
from connector_async.session._stats import Health, SessionStats
from connector_async.store import MemoryStore, Store
from connector_async.transport import Transport, as_transport, check_transport
from connector_async.webhooks import Router, WebhookSettings
from connector_async.wire import ClientProperties

if TYPE_CHECKING:
    from connector_async.session._session import ConnectorSession
    from connector_async.webhooks import Dispatcher

__all__ = ["CloseReport", "Lifecycle"]

logger = logging.getLogger("connector_async.session")


@attrs.frozen(kw_only=True)
class CloseReport:
    """What a close left behind.

    Attributes:
        done: Requests and messages that ended while the session drained.
        unknown: Requests it gave up on that may have landed.
        unsent: Requests and messages it gave up on that certainly did not reach the cloud.
        unhandled: Events of webhooks that no handler has seen, and no durable store keeps.
        seconds: How long it drained.
    """

    done: int = 0
    unknown: int = 0
    unsent: int = 0
    unhandled: int = 0
    seconds: float = 0.0


class Lifecycle:
    """The part of `ConnectorSession` that is about the session itself."""

    def __init__(
        self,
        account_id: str,
        credentials: CredentialsSource,
        *,
        domains: Mapping[str, str] | str | None = None,
        transport: Transport | httpx.AsyncBaseTransport | httpx.AsyncClient | None = None,
        proxy: str | httpx.URL | httpx.Proxy | None = None,
        ssl_context: ssl.SSLContext | None = None,
        retry: RetryPolicy | None = None,
        limits: SessionLimits | None = None,
        timeout: float | None = 60.0,
        client_properties: ClientProperties | str | None = None,
        router: Router | None = None,
        store: Store | None = None,
        hooks: Iterable[Hook] = (),
        drain: float = 10.0,
        tokens: TokenSettings | None = None,
    ) -> None:
        load_jwt()
        check_kind("router", router, Router, such_as="a Router")
        check_kind("store", store, Store, such_as="a store, such as `SqliteStore(path)`")
        self._settings = Settings(
            account_id=account_id,
            credentials=credentials,
            domains=domains,
            retry=retry,
            limits=limits,
            timeout=timeout,
            client_properties=client_properties,
            drain=drain,
            tokens=tokens,
        )
        if transport is not None and (proxy is not None or ssl_context is not None):
            raise ConfigurationError("a transport that you pass has its own proxy and TLS: give them to that one")
        check_transport(transport, proxy=proxy, ssl_context=ssl_context)
        self._make_transport = partial(
            as_transport,
            transport,
            max_connections=self._settings.limits.max_in_flight,
            proxy=proxy,
            ssl_context=ssl_context,
        )
        self._store: Store = store if store is not None else MemoryStore()
        self._owns_store = store is None
        self._hooks = Hooks(check_hooks(hooks))
        self.router = Router()
        self.router.middleware(LoopGuard(self._hooks))
        if router is not None:
            self.router.include(router)
        self.on = self.router.on
        self._hears = False
        self._shared_width: SharedWidth | None = None
        self._known_credentials: AppCredentials | None = None
        self._state: Literal["new", "entering", "open", "closing", "closed"] = "new"
        self._life: AbstractAsyncContextManager[None] | None = None
        self._entered_by = 0
        self._parts: Parts | None = None
        self._handles = Handles(
            self._settings.account_id,
            store=self._store,
            desk=lambda: self._entered().desk,
            client_properties=self._settings.client_properties,
            max_current=self._settings.limits.max_cached_consumers,
        )
        self._dispatcher: Dispatcher | None = None
        self._final_stats: SessionStats | None = None
        self._report = CloseReport()

    @classmethod
    def from_env(
        cls, *, prefix: str = "LP_", environ: Mapping[str, str] | None = None, **options: Unpack[SessionOptions]
    ) -> Self:
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
        return self._settings.account_id

    # Entering and leaving

    async def __aenter__(self) -> Self:
        if self._state != "new":
            raise RuntimeError(
                f"this session is {self._state}: a session is entered once, in one event loop; build another"
            )
        self._state = "entering"
        self._entered_by = anyio.get_current_task().id
        self._life = self._live()
        await self._life.__aenter__()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        life = self._life
        if life is None:
            return None
        self._check_here("leave it there, in the task that entered it")
        if anyio.get_current_task().id != self._entered_by:
            # A task group ends in its own task; trying it here would cancel that one's other work too.
            await self.aclose()
            raise RuntimeError(
                "a session must be left by the task that entered it: it is closed, but its task group cannot end "
                "here (fixtures of pytest-asyncio are left by another task, those of anyio's plugin are not)"
            )
        self._life = None
        return await life.__aexit__(exc_type, exc, traceback)

    @asynccontextmanager
    async def _live(self) -> AsyncGenerator[None]:
        failure: BaseException | None = None
        async with AsyncExitStack() as stack:
            transport, owned = self._make_transport()
            if owned:
                await stack.enter_async_context(transport)
            if self._owns_store:
                stack.push_async_callback(self._store.aclose)
            async with anyio.create_task_group() as task_group:
                parts = self._parts = assemble(
                    self._settings,
                    task_group=task_group,
                    transport=transport,
                    store=self._store,
                    owns_store=self._owns_store,
                    hooks=self._hooks,
                    find_consumer=self._handles.consumer,
                    shared_width=self._shared_width,
                )
                if parts.source.credentials is None:
                    parts.source.credentials = self._known_credentials
                self._state = "open"
                task_group.start_soon(parts.keeper.run, name="connector_async token keeper")
                if self._hears:
                    self._connect_webhooks()
                try:
                    yield
                except BaseException as error:  # noqa: BLE001 - raised again below, outside the task group
                    failure = error
                finally:
                    await self._shut(self._settings.drain if failure is None else 0.0, by_error=failure is not None)
                    task_group.cancel_scope.cancel()
        if failure is not None:
            # Not from inside the task group, which would wrap it.
            raise failure

    async def aclose(self) -> CloseReport:
        """Close now: drain for `drain` seconds, then end what is left. Idempotent; leaving the block does the same.

        Returns:
            What was done and what was left; it also goes to the log and to the hooks.

        Raises:
            RuntimeError: It is not closed, and lives in another event loop.
        """
        if self._parts is not None and self._state != "closed":
            self._check_here("close it there")
            await self._shut(self._settings.drain)
        return self._report

    async def _shut(self, drain: float, *, by_error: bool = False) -> None:
        parts = self._entered()
        if self._state == "closing" and not by_error:
            # Another task is at it; the tasks that it waits for must not be cancelled under it.
            await parts.closed.wait()
        if self._state != "open":
            return
        self._state = "closing"
        started = parts.clock.time()
        before = len(parts.engine) + len(parts.outbound)
        unhandled = 0
        try:
            # Handlers first: they may still send. What they leave is counted even while we are being cancelled.
            if self._dispatcher is not None:
                with anyio.CancelScope(shield=by_error):
                    unhandled = await self._dispatcher.drain(drain)
            parts.outbound.refuse_new()
            parts.engine.refuse_new()
            with anyio.CancelScope(deadline=started + drain):
                await parts.outbound.wait_idle()
                await parts.engine.wait_idle()
        finally:
            self._end(parts, started, before, unhandled)
            # Every wait has been ended; the messages under way only have to be told so.
            with anyio.move_on_after(1.0, shield=True):
                await parts.outbound.wait_idle()
            parts.closed.set()

    def _end(self, parts: Parts, started: float, before: int, unhandled: int) -> None:
        """End what is left; without a single await, so that nothing can come between."""
        waiting = len(parts.outbound)
        parts.outbound.close()
        unknown, unsent = parts.engine.close()
        unsent += max(0, waiting - len(parts.outbound))
        parts.desk.receipts.hearing.end()
        parts.keeper.close()
        parts.source.abort()
        parts.consumers.abort()
        self._final_stats = self.stats()
        self._state = "closed"
        report = CloseReport(
            done=max(0, before - unknown - unsent),
            unknown=unknown,
            unsent=unsent,
            unhandled=unhandled,
            seconds=parts.clock.time() - started,
        )
        self._report = report
        level = logging.WARNING if unknown or unsent or unhandled else logging.INFO
        logger.log(level, "session closed: %s", report, extra={"report": attrs.asdict(report)})
        if self._hooks:
            self._hooks.emit(Drained(**attrs.asdict(report)))

    def _entered(self) -> Parts:
        if self._parts is None:
            raise RuntimeError("the session is not entered yet: use `async with ConnectorSession(...) as session:`")
        return self._parts

    def _check_here(self, what_to_do: str) -> None:
        # What is waited for in another loop never comes: nothing there wakes this one.
        if not self._entered().clock.is_here():
            raise RuntimeError(f"this session lives in another event loop: {what_to_do}")

    # Looking

    def pending(self) -> tuple[PendingRequest, ...]:
        """What is in flight, oldest first: ids, type, age, stage, attempt."""
        return () if self._parts is None else self._parts.engine.pending()

    @property
    def is_closed(self) -> bool:
        """Whether it has ended, for good."""
        return self._state == "closed"

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
        problems: list[str] = []
        failure = parts.keeper.failure
        if failure is not None:
            problems.append(f"the AppJWT cannot be renewed: {failure}")
        if engine_is_full := parts.engine.lanes.depth >= self._settings.limits.max_queue:
            problems.append(f"the queue is full: {parts.engine.lanes.depth} requests wait")
        ready = not engine_is_full and (failure is None or parts.keeper.current() is not None)
        return Health(live=True, ready=ready, problems=tuple(problems))

    async def check(self) -> Health:
        """Look up the hosts and get a token, then say how it is. Raises nothing that a cloud can cause."""
        parts = self._entered()
        problems: list[str] = []
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
        # What the keeper of the token has failed with is among the problems anyway, in a longer sentence.
        new = [problem for problem in problems if not any(problem in known for known in health.problems)]
        return attrs.evolve(health, ready=health.ready and not problems, problems=(*new, *health.problems))

    # Webhooks and accounts

    @property
    def dispatcher(self) -> Dispatcher:
        """What runs the handlers; made when it is first needed, for a session that only sends needs none.

        Raises:
            RuntimeError: The session is not entered yet.
        """
        parts = self._entered()
        if self._dispatcher is None:
            from connector_async.session._port import WebhookPort
            from connector_async.webhooks import Dispatcher

            self._dispatcher = Dispatcher(
                WebhookPort(
                    cast("ConnectorSession", self),
                    handles=self._handles,
                    parts=parts,
                    store=self._store,
                    hooks=self._hooks,
                ),
                self.router,
                settings=WebhookSettings(max_handlers=self._settings.limits.max_handlers),
            )
            if self._state in ("closing", "closed"):
                self._dispatcher.stop()
        return self._dispatcher

    def join(self, width: SharedWidth, credentials: AppCredentials) -> None:
        """Share the width of several accounts; `Accounts` does this before it enters a session.

        Args:
            credentials: What a credentials callable has just given.
        """
        self._shared_width = width
        self._known_credentials = credentials

    async def reload_credentials(self) -> bool:
        """Ask a credentials callable anew; whether what it gives has changed.

        Raises:
            TokenUnavailable: The callable failed.
        """
        source = self._entered().source
        before = source.credentials
        return await source.ask_credentials() != before

    async def _dispatcher_of(self, account_id: str) -> Dispatcher | None:
        if account_id != self._settings.account_id:
            return None
        # Before the session is entered this raises, and the vendor is told of an error of ours: it will come again.
        self._check_here("serve its webhook app there")
        return self._dispatcher or self.dispatcher

    def _connect_webhooks(self) -> None:
        parts = self._entered()
        if parts.desk.hears:
            return
        parts.desk.hears = True
        self.dispatcher.start()
        if parts.source.credentials is None and self._state == "open":
            parts.task_group.start_soon(self._learn_secrets, parts)

    async def _learn_secrets(self, parts: Parts) -> None:
        """Ask a credentials callable once, so that deliveries can be verified before the first send."""
        try:
            await parts.source.ask_credentials()
        except RequestError as error:
            logger.warning("webhooks cannot be verified yet: %s", error)
