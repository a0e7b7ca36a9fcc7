"""The parts of a session, put together when it is entered."""

from __future__ import annotations

import math
import random
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import anyio
import attrs
from anyio.abc import TaskGroup

from connector_async._arguments import offers
from connector_async._concurrency import Clock, SingleFlight, current_clock
from connector_async._receipts import ReceiptBook
from connector_async.auth import (
    AppCredentials,
    AppTokenSource,
    ConsumerTokens,
    CredentialsSource,
    TokenKeeper,
    TokenSettings,
)
from connector_async.auth._shared import SharedAppToken
from connector_async.auth.keeper import FetchedToken, Unwanted
from connector_async.consumer import Consumer
from connector_async.domains import Domains, DomainSettings, check_account_id
from connector_async.errors import ConfigurationError, LocalProtocolError, SessionClosed
from connector_async.exchange import Authorizer, Engine, EngineSettings
from connector_async.exchange.desk import ClientPropertiesHeader, Desk
from connector_async.hooks import Hooks
from connector_async.protocol.correlation import RequestIds
from connector_async.protocol.lanes import SharedWidth
from connector_async.protocol.retry import RetryPolicy
from connector_async.session._outbound import Outbound
from connector_async.session._settings import SessionLimits, check_kind, seconds
from connector_async.store import Store
from connector_async.store.tokens import TokenShare
from connector_async.transport import Transport
from connector_async.wire import ClientProperties

__all__ = ["Parts", "Settings", "assemble"]

_ATTEMPT_TIMEOUT = 15.0  # working clients give up on one answer after 15 to 30 s
_WORKERS_PER_WIDTH = 2  # enough to keep the engine busy, few enough that its queue stays short


def _domains_of(given: Mapping[str, str] | str | None) -> DomainSettings:
    return DomainSettings.of(given)


def _retry_of(given: RetryPolicy | None) -> RetryPolicy:
    check_kind("retry", given, RetryPolicy, such_as="a RetryPolicy, such as `RetryPolicy.vendor()`")
    return given or RetryPolicy.vendor()


def _limits_of(given: SessionLimits | None) -> SessionLimits:
    check_kind("limits", given, SessionLimits, such_as="`SessionLimits(...)`")
    return given or SessionLimits()


def _tokens_of(given: TokenSettings | None) -> TokenSettings:
    check_kind("tokens", given, TokenSettings, such_as="`TokenSettings(...)`")
    return given or TokenSettings()


def _timeout_of(given: float | None) -> float:
    return math.inf if given is None else seconds("timeout", given)


def _drain_of(given: float) -> float:
    return seconds("drain", given, zero=True)


def _header_of(given: ClientProperties | str | None) -> ClientPropertiesHeader | None:
    try:
        return ClientPropertiesHeader.of(given)
    except (TypeError, LocalProtocolError) as error:
        raise ConfigurationError(f"client_properties: {error}") from error
    except ValueError as error:  # names it itself
        raise ConfigurationError(str(error)) from error


def _are_credentials(_instance: object, _attribute: object, value: Any) -> None:
    if not isinstance(value, AppCredentials) and not callable(value):
        raise ConfigurationError(
            f"credentials: expected AppCredentials or an async callable, got {type(value).__name__}"
        )


@attrs.frozen(kw_only=True)
class Settings:
    """What the session was told, as users pass it, and checked.

    Raises:
        ConfigurationError: One of them cannot work; the message names it.
    """

    account_id: str = attrs.field(converter=check_account_id)
    credentials: CredentialsSource = attrs.field(repr=False, validator=_are_credentials)
    domains: DomainSettings = attrs.field(converter=_domains_of)
    retry: RetryPolicy = attrs.field(converter=_retry_of)
    limits: SessionLimits = attrs.field(converter=_limits_of)
    timeout: float = attrs.field(converter=_timeout_of)
    client_properties: ClientPropertiesHeader | None = attrs.field(converter=_header_of)
    drain: float = attrs.field(converter=_drain_of)
    tokens: TokenSettings = attrs.field(converter=_tokens_of)


@attrs.frozen(kw_only=True)
class Parts:
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
    closed: anyio.Event = attrs.field(factory=anyio.Event, init=False)
    """Set when nothing is under way any more."""


def assemble(
    settings: Settings,
    *,
    task_group: TaskGroup,
    transport: Transport,
    store: Store,
    owns_store: bool,
    hooks: Hooks,
    find_consumer: Callable[[str], Consumer],
    shared_width: SharedWidth | None,
) -> Parts:
    """Build all parts in the running loop; no I/O."""
    account_id, limits = settings.account_id, settings.limits
    clock = current_clock(task_group)
    jitter = random.Random().random  # noqa: S311 - spreads retries, keeps no secret
    flights = SingleFlight(task_group, clock, lambda: SessionClosed("the session closed while it waited"))
    domains = Domains(account_id, settings.domains, clock=clock, client=transport.client, flights=flights)
    source = _token_source(settings, transport, domains, clock)
    # Nobody else looks into a store that the session made for itself.
    fetch = _token_fetch(settings, source, None if owns_store else store, clock)
    keeper = TokenKeeper(fetch, clock=clock, random=jitter, settings=settings.tokens, hooks=hooks)
    consumers = ConsumerTokens(
        account_id,
        transport=transport,
        resolve=domains.resolve,
        keeper=keeper,
        store=store,
        clock=clock,
        flights=flights,
        max_cached=limits.max_cached_consumers,
        suspect=domains.suspect,
    )
    engine = Engine(
        _engine_settings(settings),
        transport=transport,
        clock=clock,
        authorizer=Authorizer(account_id, domains=domains, keeper=keeper, consumers=consumers),
        hooks=hooks,
        random=jitter,
        wall=time.time,
        shared_width=shared_width,
    )
    desk = Desk(
        account_id,
        engine=engine,
        store=store,
        consumers=consumers,
        clock=clock,
        flights=flights,
        ids=RequestIds(secrets.token_hex(6)),
        retry=settings.retry,
        client_properties=settings.client_properties,
        client=transport.client,
        resolve=domains.resolve,
        receipts=ReceiptBook(account_id, store),
    )
    return Parts(
        task_group=task_group,
        clock=clock,
        transport=transport,
        domains=domains,
        source=source,
        keeper=keeper,
        consumers=consumers,
        engine=engine,
        desk=desk,
        outbound=_outbound(limits, task_group, clock, find_consumer),
    )


def _outbound(
    limits: SessionLimits, task_group: TaskGroup, clock: Clock, find: Callable[[str], Consumer]
) -> Outbound:
    return Outbound(
        task_group=task_group,
        clock=clock,
        find=find,
        max_workers=_WORKERS_PER_WIDTH * limits.max_in_flight,
        max_queue=limits.max_queue,
    )


def _token_source(settings: Settings, transport: Transport, domains: Domains, clock: Clock) -> AppTokenSource:
    return AppTokenSource(
        settings.account_id,
        settings.credentials,
        transport=transport,
        resolve=domains.resolve,
        now=clock.time,
        suspect=domains.suspect,
    )


def _token_fetch(
    settings: Settings, source: AppTokenSource, share: Any, clock: Clock
) -> Callable[[Unwanted | None], Awaitable[FetchedToken]]:
    """Where AppJWTs come from: the token service, or the store first if other sessions may put them there."""
    if not offers(share, TokenShare) or not share.shares_tokens:
        return source.fetch
    owner = secrets.token_hex(8)
    shared = SharedAppToken(
        settings.account_id, source, share=share, owner=owner, clock=clock, settings=settings.tokens
    )
    return shared.fetch


def _engine_settings(settings: Settings) -> EngineSettings:
    return EngineSettings(
        account_id=settings.account_id,
        max_in_flight=settings.limits.max_in_flight,
        max_queue=settings.limits.max_queue,
        rate=settings.limits.rate,
        timeout=settings.timeout,
        attempt_timeout=_ATTEMPT_TIMEOUT,
    )
