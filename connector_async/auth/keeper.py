"""Keeps one AppJWT usable for everybody.

One background task fetches it; however many wait, there is one call. A token turns stale before it expires: it stays
in use while the task renews it, and while renewing fails. A 401 renews it only if the token that was refused is still
the current one, and at most once in 30 seconds, so that one consumer's bad luck cannot become a storm.

A token that was refused is doubted, not dropped: who was refused waits for the next one, the others go on with it. It
may have been revoked, and then each of them is refused once and waits as well; or the cloud refuses one request
whatever token it brings, and then nobody else may be stopped by that, least of all while no other token can be had.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable

import anyio
import attrs

from connector_async._concurrency import Clock, Slot, twin
from connector_async.errors import AppTokenRefused, AuthError, SessionClosed, TokenUnavailable
from connector_async.hooks import Hooks, TokenRefreshed, TokenRefreshFailed
from connector_async.protocol.lifetime import Freshness, Lifetime
from connector_async.protocol.retry import RETRY_AFTER_CAP

__all__ = ["AppToken", "FetchedToken", "TokenKeeper", "TokenSettings", "Unwanted"]

logger = logging.getLogger("connector_async.auth")

_PACE = 0.1  # seconds from a renewal to the next, at least


@attrs.frozen(kw_only=True)
class TokenSettings:
    """When an AppJWT is renewed. All times in seconds.

    Attributes:
        fraction: Share of its life after which a token is renewed.
        early: So long before its end it is renewed at the latest (the how-to guide's 5 minutes).
        forced_interval: Least time between two renewals that 401 answers ask for.
        backoff: First pause after a failed renewal; doubles up to `longest_backoff`.
        throttled_backoff: Least pause after a 429 of the token service (the vendor's 5 seconds for logins). A pause
            that the service asks for itself is kept, up to two minutes.
    """

    fraction: float = 0.9
    early: float = 300.0
    forced_interval: float = 30.0
    backoff: float = 1.0
    longest_backoff: float = 60.0
    throttled_backoff: float = 5.0

    def __attrs_post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise ValueError(f"fraction must be above 0 and at most 1, got {self.fraction}")
        # Written so that NaN, which compares with nothing, is refused as well.
        if not (min(self.early, self.forced_interval, self.throttled_backoff) >= 0 < self.backoff):
            raise ValueError("times must not be negative, and backoff must be above 0")
        if not self.longest_backoff >= self.backoff:
            raise ValueError("longest_backoff must not be below backoff")


@attrs.frozen(kw_only=True)
class FetchedToken:
    """What the token service gave, or what another process got from it.

    Attributes:
        seconds: How long it lives on.
        age: Seconds since the token service gave it.
        found: Another process fetched it.
    """

    value: str = attrs.field(repr=False)
    seconds: float
    age: float = 0.0
    found: bool = False


@attrs.frozen(kw_only=True)
class Unwanted:
    """The token that a renewal is to replace.

    Attributes:
        refused: The cloud answered 401 to it; otherwise it is near its end, or past it.
    """

    value: str = attrs.field(repr=False)
    refused: bool


@attrs.frozen(kw_only=True)
class AppToken:
    """The AppJWT in use. `generation` counts from 1; a 401 names the generation it was answered to."""

    value: str = attrs.field(repr=False)
    generation: int
    lifetime: Lifetime


class TokenKeeper:
    """One AppJWT, renewed in the background. `run` is the task; everything else is called from anywhere in the loop.

    Args:
        fetch: Gets a token other than the given one (None: there was none yet); raises AuthError.
        random: Gives numbers from 0 to 1, for jitter.
    """

    def __init__(
        self,
        fetch: Callable[[Unwanted | None], Awaitable[FetchedToken]],
        *,
        clock: Clock,
        random: Callable[[], float],
        settings: TokenSettings,
        hooks: Hooks,
    ) -> None:
        self._fetch = fetch
        self._clock = clock
        self._random = random
        self._settings = settings
        self._hooks = hooks
        self._token: AppToken | None = None
        self._generation = 0
        self._doubted_generation = 0  # the last one that a 401 blamed
        self._allowed_at = float("-inf")  # when a 401 may renew the token again
        self._due_at: float | None = None
        self._failures = 0
        self._failure: AuthError | None = None
        self._fails_until = float("-inf")
        self._paced_until = float("-inf")
        self._waiters: set[Slot] = set()
        self._bell: Slot | None = None
        self._closed = False
        self._running = anyio.CancelScope()
        self.fetched = 0
        """How many tokens were fetched from the token service."""

    def current(self) -> AppToken | None:
        """The token to send now, fresh or stale; None if there is none that holds."""
        token = self._token
        return None if token is None or self._clock.time() >= token.lifetime.expires_at else token

    @property
    def freshness(self) -> Freshness:
        """What the token at hand is worth."""
        token = self.current()
        return Freshness.EXPIRED if token is None else token.lifetime.at(self._clock.time())

    @property
    def failure(self) -> AuthError | None:
        """Why the last renewal failed; None if it did not."""
        return self._failure

    async def get(self) -> AppToken:
        """A token that holds, waiting for the renewal under way if there is none. Safe to cancel.

        Raises:
            AppTokenRefused: The token service refused the credentials.
            TokenUnavailable: It gives no token; known at once while renewing fails.
            SessionClosed: The session ended while waiting.
        """
        token = self.current()
        if token is not None:
            return token
        self._check_open()
        self._check_failing()
        self._demand(self._clock.time())
        return await self._renewed()

    async def renew(self, generation: int, *, certain: bool) -> AppToken:
        """A token newer than the refused one.

        Args:
            generation: Of the token that was answered with 401.
            certain: The answer blamed the AppJWT by its code. Only then is a second renewal within
                `forced_interval` waited for; without a code the consumer's token may be the cause.

        Raises:
            AppTokenRefused: A renewed token was refused again, and nothing says that the AppJWT is the cause.
            TokenUnavailable, SessionClosed: As `get`.
        """
        token = self.current()
        if token is None:
            return await self.get()
        if token.generation > generation:
            return token
        self._check_open()
        now = self._clock.time()
        if self._doubted_generation < generation:
            if now < self._allowed_at and not certain:
                raise AppTokenRefused("a freshly renewed AppJWT was refused again")
            self._doubted_generation = generation
        self._check_failing()
        self._demand(max(now, self._allowed_at))
        return await self._renewed()

    def close(self) -> None:
        """Let all waiters go with SessionClosed, and end the task; idempotent."""
        self._closed = True
        self._running.cancel()
        if self._bell is not None:
            self._bell.settle()
        self._settle(SessionClosed("the session closed while a token was awaited"))

    async def run(self) -> None:
        """Renew the token whenever it is due, until closed or cancelled."""
        with self._running:
            while await self._sleep_until_due():
                self._due_at = None
                await self._renew_once()

    async def _renew_once(self) -> None:
        try:
            fetched = await self._fetch(self._unwanted())
        except AuthError as error:
            self._failed(error)
        except Exception as error:  # noqa: BLE001 - the task that keeps the token must outlive it
            # Without its words: a foreign transport may quote the form it was to send, and with it the secret.
            logger.error("the token renewal failed in an unexpected way (%s)", type(error).__name__)
            unavailable = TokenUnavailable(f"the token renewal failed ({type(error).__name__})")
            unavailable.__cause__ = error
            self._failed(unavailable)
        else:
            self._renewed_to(fetched)

    def _unwanted(self) -> Unwanted | None:
        token = self._token
        return None if token is None else Unwanted(value=token.value, refused=self._is_doubted(token))

    def _is_doubted(self, token: AppToken | None) -> bool:
        return token is not None and token.generation == self._doubted_generation

    def _renewed_to(self, fetched: FetchedToken) -> None:
        now = self._clock.time()
        settings = self._settings
        lifetime = Lifetime.starting(
            now - fetched.age,
            fetched.seconds + fetched.age,
            fraction=settings.fraction,
            early=settings.early,
            jitter=self._random(),
        )
        if self._is_doubted(self._token):
            # Whoever planned this renewal, it is the answer to a 401.
            self._allowed_at = now + settings.forced_interval
        self._generation += 1
        self.fetched += not fetched.found
        self._token = AppToken(value=fetched.value, generation=self._generation, lifetime=lifetime)
        self._failure = None
        self._failures = 0
        # A service that gives tokens of no life must not be asked without pause.
        self._paced_until = now + _PACE
        self._due_at = max(lifetime.refresh_at, self._paced_until)
        logger.info("AppJWT renewed, it lives %.0f s", fetched.seconds, extra={"generation": self._generation})
        self._settle(None)
        if self._hooks:
            self._hooks.emit(TokenRefreshed(generation=self._generation, lifetime=fetched.seconds))

    def _failed(self, error: AuthError) -> None:
        now = self._clock.time()
        settings = self._settings
        pause = min(settings.longest_backoff, settings.backoff * 2.0 ** min(self._failures, 16))
        if error.status == 429:
            pause = max(pause, settings.throttled_backoff)
        if isinstance(error, TokenUnavailable) and error.retry_after is not None:
            pause = max(pause, min(error.retry_after, RETRY_AFTER_CAP))
        pause *= 1 + 0.1 * self._random()
        self._failures += 1
        self._failure = error
        # Refused credentials do not heal by asking again: the next request asks, the clock does not. While an
        # older token holds, renewing goes on, since the refusal may pass (a vault that rotates).
        persists = error.retryable or self.current() is not None
        self._due_at = now + pause if persists else None
        # While the clock asks, nobody waits for its next answer: who has no token learns at once why.
        self._fails_until = math.inf if persists else now + pause
        wait = pause if persists else None
        logger.warning("AppJWT renewal failed: %s", error, extra={"wait": wait})
        # While a token holds nobody waits but those that it was refused to.
        self._settle(error)
        if self._hooks:
            self._hooks.emit(TokenRefreshFailed(cause=str(error), wait=wait))

    def _demand(self, when: float) -> None:
        """Make a renewal due at `when`, if none is due before."""
        when = max(when, self._paced_until)
        if self._due_at is None or when < self._due_at:
            self._due_at = when
        if self._bell is not None:
            self._bell.settle()

    async def _sleep_until_due(self) -> bool:
        """Wait for the next renewal; False if there is none any more."""
        while not self._closed and ((due := self._due_at) is None or self._clock.time() < due):
            bell = self._bell = self._clock.slot()
            timer = None if due is None else self._clock.call_at(due, bell.settle)
            try:
                await bell
            finally:
                self._bell = None
                if timer is not None:
                    timer.cancel()
        return not self._closed

    async def _renewed(self) -> AppToken:
        slot = self._clock.slot()
        self._waiters.add(slot)
        try:
            await slot
        finally:
            self._waiters.discard(slot)
        token = self.current()
        if token is None:
            raise TokenUnavailable("the AppJWT ended as soon as it was renewed", hint="check the clock and lifetime")
        return token

    def _settle(self, error: AuthError | SessionClosed | None) -> None:
        waiters, self._waiters = self._waiters, set()
        for slot in waiters:
            if error is None:
                slot.settle()
            else:
                slot.fail(twin(error))

    def _check_failing(self) -> None:
        if self._failure is not None and self._clock.time() < self._fails_until:
            raise twin(self._failure)

    def _check_open(self) -> None:
        if self._closed:
            raise SessionClosed("the session is closed")
