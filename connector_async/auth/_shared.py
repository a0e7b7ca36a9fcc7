"""One AppJWT for all processes that share a store.

Whoever needs a new token looks into the store first. If there is none, one of them takes a lease, fetches it and puts
it there; the others wait for that. A holder that dies is followed by the next when the lease ends. A store that fails
costs a call of the token service, never a token.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Awaitable
from contextlib import suppress
from typing import TypeVar

import anyio
import attrs

from connector_async._concurrency import Clock
from connector_async.auth._jwt import is_token, read_claims
from connector_async.auth.app_token import AppCredentials, AppTokenSource
from connector_async.auth.keeper import FetchedToken, TokenSettings, Unwanted
from connector_async.errors import TokenUnavailable
from connector_async.protocol.lifetime import Lifetime, lifetime_of
from connector_async.store.tokens import SharedToken, TokenShare

__all__ = ["SharedAppToken"]

logger = logging.getLogger("connector_async.auth")

T = TypeVar("T")

_LEASE = 20.0  # seconds; above the 15 that one exchange with the token service may take
_PATIENCE = 30.0  # seconds that one waits for others: the lease of one that died, and the call of the next
_POLL = 0.2
_STORE_TIMEOUT = 3.0  # seconds: a store that hangs must not keep a token from those who wait for it
_REMEMBERED = 8  # tokens that this session gave up, and will not take from the store again


class _StoreFailed(Exception):
    """The store cannot be asked now; it was logged."""


class SharedAppToken:
    """Gets AppJWTs from the store that others share, or fetches them for all.

    Args:
        source: Fetches them.
        owner: Whom the store takes for the holder of the lease; unique to one session.
        settings: When a token is renewed: one that is past that point is not taken over.
    """

    def __init__(
        self,
        account_id: str,
        source: AppTokenSource,
        *,
        share: TokenShare,
        owner: str,
        clock: Clock,
        settings: TokenSettings,
    ) -> None:
        self._account_id = account_id
        self._source = source
        self._share = share
        self._owner = owner
        self._clock = clock
        self._settings = settings
        self._given_up: deque[str] = deque(maxlen=_REMEMBERED)
        self._life: float | None = None
        self._may_hold_lease = False
        self._store_fails = False

    async def fetch(self, instead_of: Unwanted | None) -> FetchedToken:
        """A token other than the given one.

        Raises:
            AppTokenRefused, TokenUnavailable: As `AppTokenSource.fetch`.
        """
        # At each renewal, as without a store: the secret may have changed, and webhooks are verified with it.
        credentials = await self._source.ask_credentials()
        if instead_of is not None and instead_of.value not in self._given_up:
            self._given_up.append(instead_of.value)
        refused = instead_of is not None and instead_of.refused
        try:
            # Left before the next call, so that no error of that one has the store's words behind it.
            with suppress(_StoreFailed):
                return await self._find_or_fetch(credentials, refused=refused)
            return await self._source.fetch_with(credentials)
        finally:
            if self._may_hold_lease:
                await self._release(credentials.client_id)

    async def _find_or_fetch(self, credentials: AppCredentials, *, refused: bool) -> FetchedToken:
        passed_over = set(self._given_up)
        found = await self._look(credentials.client_id, passed_over)
        if found is None:
            return await self._newer(credentials, passed_over)
        if self._is_worth_taking(found, refused=refused):
            return found
        looked_at = self._clock.time()
        try:
            return await self._newer(credentials, passed_over | {found.value})
        except TokenUnavailable:
            found = self._aged(found, looked_at)
            if refused or found.seconds <= 0:
                raise
            # Near its end is better than none: who starts while the token service is down has one like the others.
            return found

    async def _newer(self, credentials: AppCredentials, passed_over: set[str]) -> FetchedToken:
        """One that another session puts there from now on, or a fresh one."""
        name = credentials.client_id
        give_up_at = self._clock.time() + _PATIENCE
        while (fence := await self._acquire(name)) is None:
            if self._clock.time() >= give_up_at:
                return await self._source.fetch_with(credentials)
            await self._pause()
            found = await self._look(name, passed_over)
            if found is not None:
                return found
        # Once more: the last holder may have put one between our look and our lease.
        found = await self._look(name, passed_over)
        return found or await self._fetch_for_all(credentials, fence)

    async def _fetch_for_all(self, credentials: AppCredentials, fence: int) -> FetchedToken:
        fetched = await self._source.fetch_with(credentials)
        got_at = self._clock.time()
        self._life = fetched.seconds
        put = self._share.put_app_token(
            self._account_id, credentials.client_id, value=fetched.value, seconds=fetched.seconds, fence=fence
        )
        with suppress(_StoreFailed):
            # When it is refused, a later holder has put another token; this one is good all the same.
            await self._ask(put)
        return self._aged(fetched, got_at)

    def _aged(self, token: FetchedToken, since: float) -> FetchedToken:
        passed = self._clock.time() - since
        return attrs.evolve(token, seconds=token.seconds - passed, age=token.age + passed)

    def _is_worth_taking(self, found: FetchedToken, *, refused: bool) -> bool:
        settings = self._settings
        if refused and found.age > settings.forced_interval:
            # What revoked our token may have revoked this one too; a request is sent again once, not twice.
            return False
        lifetime = Lifetime.starting(
            0.0, found.seconds + found.age, fraction=settings.fraction, early=settings.early, jitter=0.0
        )
        return found.age < lifetime.refresh_at

    async def _look(self, name: str, passed_over: set[str]) -> FetchedToken | None:
        shared = await self._ask(self._share.get_app_token(self._account_id, name))
        # What a store gives becomes a header; and an empty one is what a seal gives that it cannot open.
        if shared is None or not shared.seconds > 0 or not is_token(shared.value) or shared.value in passed_over:
            return None
        age = max(0.0, self._life_of(shared) - shared.seconds)
        return FetchedToken(value=shared.value, seconds=shared.seconds, age=age, found=True)

    def _life_of(self, shared: SharedToken) -> float:
        """Seconds that it lives in all, as far as can be told: as it says of itself, or as the last one here did."""
        known = [] if self._life is None else [self._life]
        claims = read_claims(shared.value)
        if "exp" in claims:
            known.append(lifetime_of(claims, None, wall=time.time()))
        return min(known, default=shared.seconds)

    async def _acquire(self, name: str) -> int | None:
        # Before the answer: the store may have given the lease although the answer never comes.
        self._may_hold_lease = True
        fence = await self._ask(self._share.acquire_lease(self._account_id, name, owner=self._owner, seconds=_LEASE))
        self._may_hold_lease = fence is not None
        return fence

    async def _release(self, name: str) -> None:
        self._may_hold_lease = False
        # Also by one that is cancelled, within the time of any call; a lease that is not given back ends by itself.
        with anyio.CancelScope(shield=True), suppress(_StoreFailed):
            await self._ask(self._share.release_lease(self._account_id, name, owner=self._owner))

    async def _pause(self) -> None:
        slot = self._clock.slot()
        timer = self._clock.call_at(self._clock.time() + _POLL, slot.settle)
        try:
            await slot
        finally:
            timer.cancel()

    async def _ask(self, call: Awaitable[T]) -> T:
        try:
            with anyio.fail_after(_STORE_TIMEOUT):
                answer = await call
        except Exception as error:
            if not self._store_fails:
                # Without its words: a database may quote the row, and with it the token.
                logger.warning(
                    "the store shares no AppJWT (%s): this session fetches its own meanwhile", type(error).__name__
                )
            self._store_fails = True
            raise _StoreFailed from error
        self._store_fails = False
        return answer
