"""Many accounts in one process: one pool of connections, one width, fair between accounts."""

from __future__ import annotations

import logging
import ssl
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Self, Unpack

import anyio
import httpx
from anyio import AsyncContextManagerMixin
from anyio.abc import TaskGroup, TaskStatus
from typing_extensions import TypeIs

from connector_async._concurrency import Clock, SingleFlight, current_clock
from connector_async.auth import AppCredentials
from connector_async.domains import check_account_id
from connector_async.errors import ConfigurationError, RequestError, SessionClosed, UnknownAccount
from connector_async.hooks import Hook
from connector_async.protocol.lanes import SharedWidth
from connector_async.session._options import EachSession
from connector_async.session._session import ConnectorSession
from connector_async.session._settings import SessionLimits, check_hooks, check_kind, seconds
from connector_async.session._stats import Health, SessionStats
from connector_async.store import MemoryStore, Store
from connector_async.transport import Transport, as_transport, check_transport
from connector_async.webhooks import Ack, Router

if TYPE_CHECKING:
    from connector_async.webhooks import Dispatcher, WebhookApp

__all__ = ["AccountCredentials", "Accounts"]

logger = logging.getLogger("connector_async.accounts")

AccountCredentials = Mapping[str, AppCredentials] | Callable[[str], Awaitable[AppCredentials | None]]
"""Credentials by account id, or an async callable that finds them; None: no account of ours."""

_RELOAD_INTERVAL = 30.0  # of secrets, after a signature that does not fit
_UNKNOWN_FOR = 300.0  # seconds that an account stays unknown
_MAX_UNKNOWN = 10_000
_ASK_BURST = 50  # look-ups that strangers can cause at once, and
_ASK_RATE = 1.0  # per second from then on: anybody can name any account in a delivery


class Accounts(AsyncContextManagerMixin):
    """Sessions of many accounts, made at first use and let go when idle.

        async with Accounts(find_credentials, router=router) as accounts:
            session = await accounts.session("12345678")
            app.add_route("/webhooks", accounts.webhook_app().endpoint, methods=["POST"])

    Args:
        credentials: By account id, or an async callable that finds them and may return None.
        router: Handlers for all accounts.
        store: For all accounts; in memory if None.
        limits: `max_in_flight` is shared by all accounts; the rest holds for each.
        transport, proxy, ssl_context: As for `ConnectorSession`; shared by all.
        hooks: For all sessions.
        idle_after: Seconds without a request after which a session is closed; its next use makes another.
        options: Further keywords of `ConnectorSession`, for each session; checked at once.

    Raises:
        ConfigurationError: A setting cannot work.
    """

    def __init__(
        self,
        credentials: AccountCredentials,
        *,
        router: Router | None = None,
        store: Store | None = None,
        limits: SessionLimits | None = None,
        transport: Transport | httpx.AsyncBaseTransport | httpx.AsyncClient | None = None,
        proxy: str | httpx.URL | httpx.Proxy | None = None,
        ssl_context: ssl.SSLContext | None = None,
        hooks: Iterable[Hook] = (),
        idle_after: float = 3600.0,
        **options: Unpack[EachSession],
    ) -> None:
        if not isinstance(credentials, Mapping) and not callable(credentials):
            raise ConfigurationError("credentials: expected a mapping of account id to AppCredentials, or a callable")
        check_kind("router", router, Router, such_as="a Router")
        check_kind("store", store, Store, such_as="a store, such as `SqliteStore(path)`")
        check_kind("limits", limits, SessionLimits, such_as="`SessionLimits(...)`")
        check_transport(transport, proxy=proxy, ssl_context=ssl_context)
        self._credentials: AccountCredentials = credentials
        self._router = router
        self._store: Store = store if store is not None else MemoryStore()
        self._owns_store = store is None
        self._limits = limits or SessionLimits()
        self._make_transport = partial(
            as_transport,
            transport,
            max_connections=self._limits.max_in_flight,
            proxy=proxy,
            ssl_context=ssl_context,
        )
        self._hooks = check_hooks(hooks)
        self._idle_after = seconds("idle_after", idle_after)
        # Made to be thrown away: what cannot work is said now, and not at the first message of each account.
        ConnectorSession("0", AppCredentials("nobody", "nothing"), **options)
        self._options = options
        self._width = SharedWidth(self._limits.max_in_flight)
        self._open: dict[str, _Opened] = {}
        self._unknown: OrderedDict[str, float] = OrderedDict()
        self._reloaded: dict[str, float] = {}
        self._asks = float(_ASK_BURST)
        self._asked_at = 0.0
        self._hears = False
        self._task_group: TaskGroup | None = None
        self._clock: Clock | None = None
        self._flights: SingleFlight | None = None
        self._transport: Transport | None = None

    @asynccontextmanager
    async def __asynccontextmanager__(self) -> AsyncGenerator[Self]:
        if self._task_group is not None:
            raise RuntimeError("Accounts is entered once, in one event loop; build another")
        failure: BaseException | None = None
        async with AsyncExitStack() as stack:
            self._transport, owned = self._make_transport()
            if owned:
                await stack.enter_async_context(self._transport)
            if self._owns_store:
                stack.push_async_callback(self._store.aclose)
            async with anyio.create_task_group() as task_group:
                self._task_group = task_group
                self._clock = current_clock(task_group)
                self._flights = SingleFlight(task_group, self._clock, lambda: SessionClosed("closed"))
                task_group.start_soon(self._let_go_of_idle)
                try:
                    yield self
                except BaseException as error:  # noqa: BLE001 - raised again below, outside the task group
                    failure = error
                finally:
                    await self._close_all(by_error=failure is not None)
                    task_group.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def session(self, account_id: str) -> ConnectorSession:
        """The session of an account; made if there is none. It stays with Accounts, and `remove()` closes it.

        Raises:
            UnknownAccount: There are no credentials for it.
            RuntimeError: Accounts is not entered.
        """
        opened = self._open.get(account_id)
        if opened is not None and opened.session.is_closed:  # by somebody who was handed it
            await self.remove(account_id)
            opened = None
        if opened is None:
            check_account_id(account_id)
            _, flights = self._entered()
            opened = await flights.run(account_id, lambda: self._make(account_id))
        opened.used_at = self._entered()[0].time()
        return opened.session

    async def remove(self, account_id: str) -> None:
        """Close the session of an account, draining it; and forget that the account was unknown."""
        self._entered()
        self._unknown.pop(account_id, None)
        opened = self._open.pop(account_id, None)
        if opened is not None:
            opened.leave.set()
            await opened.left.wait()

    def webhook_app(self, *, ack: Ack | None = None, **options: Any) -> WebhookApp:
        """One ASGI app for the deliveries of all accounts; arguments as `ConnectorSession.webhook_app`."""
        self._hears = True
        for opened in self._open.values():
            opened.session.webhook_app()
        from connector_async.webhooks import WebhookApp

        return WebhookApp(self._dispatcher_of, ack=ack, reload_secrets=self._reload, **options)

    def health(self) -> dict[str, Health]:
        """How each open session is, by account."""
        return {account_id: opened.session.health() for account_id, opened in self._open.items()}

    def stats(self) -> dict[str, SessionStats]:
        """What each open session has counted, by account."""
        return {account_id: opened.session.stats() for account_id, opened in self._open.items()}

    def __repr__(self) -> str:
        return f"Accounts({len(self._open)} open)"

    # Making and letting go

    async def _make(self, account_id: str) -> _Opened:
        first = await self._find(account_id)
        if first is None:
            raise UnknownAccount(f"there are no credentials for account {account_id!r}")
        if self._task_group is None or self._transport is None:
            raise RuntimeError("Accounts is not entered yet: use `async with Accounts(...) as accounts:`")

        async def current() -> AppCredentials:
            found = await self._ask(account_id)
            if found is None:
                raise UnknownAccount(f"there are no credentials for account {account_id!r} any more")
            return found

        session = ConnectorSession(
            account_id,
            first if _is_mapping(self._credentials) else current,
            router=self._router,
            store=self._store,
            limits=self._limits,
            transport=self._transport,
            hooks=self._hooks,
            **self._options,
        )
        session.join(self._width, first)
        if self._hears:
            session.webhook_app()
        opened = _Opened(session, self._entered()[0].time())
        await self._task_group.start(self._keep_open, opened)
        self._open[account_id] = opened
        return opened

    async def _keep_open(self, opened: _Opened, *, task_status: TaskStatus[None]) -> None:
        started = False
        try:
            async with opened.session:
                task_status.started()
                started = True
                await opened.leave.wait()
        except Exception:
            # One account's accident is not the others'.
            if not started:
                raise
            logger.exception("a session ended by itself", extra={"account_id": opened.session.account_id})
            self._open.pop(opened.session.account_id, None)
        finally:
            opened.left.set()

    async def _let_go_of_idle(self) -> None:
        clock, _ = self._entered()
        while True:
            await anyio.sleep(self._idle_after / 4)
            now = clock.time()
            for account_id, opened in list(self._open.items()):
                if opened.has_moved():
                    opened.used_at = now
                elif now - opened.used_at >= self._idle_after:
                    logger.info("session of an idle account closed", extra={"account_id": account_id})
                    await self.remove(account_id)

    async def _close_all(self, *, by_error: bool) -> None:
        with anyio.CancelScope(shield=by_error) as scope:
            if by_error:
                scope.deadline = anyio.current_time() + _CLOSE_WITHIN
            for opened in self._open.values():
                opened.leave.set()
            for opened in list(self._open.values()):
                await opened.left.wait()
            self._open.clear()

    # Credentials

    async def _ask(self, account_id: str) -> AppCredentials | None:
        if _is_mapping(self._credentials):
            return self._credentials.get(account_id)
        return await self._credentials(account_id)

    async def _find(self, account_id: str) -> AppCredentials | None:
        """The credentials; an account that has none is remembered, so that nobody can have us ask all the time."""
        now = self._entered()[0].time()
        unknown_until = self._unknown.get(account_id)
        if unknown_until is not None and now < unknown_until:
            return None
        found = await self._ask(account_id)
        if found is None:
            self._unknown[account_id] = now + _UNKNOWN_FOR
            self._unknown.move_to_end(account_id)
            if len(self._unknown) > _MAX_UNKNOWN:
                self._unknown.popitem(last=False)
        else:
            self._unknown.pop(account_id, None)
        return found

    async def _dispatcher_of(self, account_id: str) -> Dispatcher | None:
        """For a delivery: strangers may name any account, so look-ups that they cause are rationed."""
        opened = self._open.get(account_id)
        if opened is None and (account_id in self._fresh_unknown() or not self._may_ask()):
            return None
        try:
            session = await self.session(account_id)
        except (UnknownAccount, ConfigurationError):
            return None
        return session.dispatcher

    def _fresh_unknown(self) -> OrderedDict[str, float]:
        now = self._entered()[0].time()
        while self._unknown and next(iter(self._unknown.values())) <= now:
            self._unknown.popitem(last=False)
        return self._unknown

    def _may_ask(self) -> bool:
        now = self._entered()[0].time()
        self._asks = min(float(_ASK_BURST), self._asks + (now - self._asked_at) * _ASK_RATE)
        self._asked_at = now
        if self._asks < 1:
            return False
        self._asks -= 1
        return True

    async def _reload(self, account_id: str) -> bool:
        """After a signature that does not fit: whether the secrets have changed."""
        opened = self._open.get(account_id)
        now = self._entered()[0].time()
        if opened is None or now - self._reloaded.get(account_id, float("-inf")) < _RELOAD_INTERVAL:
            return False
        self._reloaded[account_id] = now
        try:
            return await opened.session.reload_credentials()
        except RequestError as error:
            logger.warning("secrets could not be reloaded: %s", error, extra={"account_id": account_id})
            return False

    def _entered(self) -> tuple[Clock, SingleFlight]:
        if self._clock is None or self._flights is None:
            raise RuntimeError("Accounts is not entered yet: use `async with Accounts(...) as accounts:`")
        if not self._clock.is_here():
            # What is waited for in another loop never comes: nothing there wakes this one.
            raise RuntimeError("this Accounts lives in another event loop: use it there")
        return self._clock, self._flights


_CLOSE_WITHIN = 15.0  # seconds, when the block is left by an error


class _Opened:
    """A session that is kept open by a task."""

    __slots__ = ("_requests", "leave", "left", "session", "used_at")

    def __init__(self, session: ConnectorSession, now: float) -> None:
        self.session = session
        self.used_at = now
        self.leave = anyio.Event()
        self.left = anyio.Event()
        self._requests = 0

    def has_moved(self) -> bool:
        """Whether it had requests since the last look, or has some under way."""
        stats = self.session.stats()
        moved = stats.requests != self._requests or stats.in_flight > 0
        self._requests = stats.requests
        return moved


def _is_mapping(credentials: AccountCredentials) -> TypeIs[Mapping[str, AppCredentials]]:
    return isinstance(credentials, Mapping)
