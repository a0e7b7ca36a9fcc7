"""ConsumerJWS: for whom a request acts. Fetched at a consumer's first use, once, and kept: it never expires."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import orjson

from connector_async._concurrency import Clock, SingleFlight
from connector_async._redact import mask
from connector_async.auth._jwt import is_token, read_claims
from connector_async.auth.keeper import AppToken, TokenKeeper
from connector_async.errors import (
    AuthError,
    ConsumerTokenRefused,
    ProtocolError,
    TokenUnavailable,
    TransportError,
)
from connector_async.protocol.retry import parse_retry_after
from connector_async.store.base import ConsumerRecord, Store
from connector_async.transport.base import Answer, Headers, Target, Transport

__all__ = ["ConsumerToken", "ConsumerTokens"]

_TIMEOUT = 15.0
_RENEWAL_INTERVAL = 30.0  # a consumer acting on another's conversation is refused each time: do not ask each time
_MAX_FETCHES = 64


class ConsumerToken:
    """The ConsumerJWS of one consumer and the header made of it."""

    __slots__ = ("headers", "renewed_at", "value")

    def __init__(self, value: str) -> None:
        self.value = value
        self.headers = Headers([("X-LP-ON-BEHALF", value)])
        self.renewed_at = float("-inf")

    def __repr__(self) -> str:
        return "ConsumerToken()"


class ConsumerTokens:
    """The tokens of one account's consumers: the most recently used in memory, all of them in the store.

    Source: Connector API, authorization (ConsumerJWS; status 201; 401 when the AppJWT is not valid).
    """

    def __init__(
        self,
        account_id: str,
        *,
        transport: Transport,
        resolve: Callable[[str], Awaitable[str]],
        keeper: TokenKeeper,
        store: Store,
        clock: Clock,
        flights: SingleFlight,
        max_cached: int,
    ) -> None:
        self._account_id = account_id
        self._path = f"/api/account/{account_id}/consumer?v=1.0"
        self._transport = transport
        self._resolve = resolve
        self._keeper = keeper
        self._store = store
        self._clock = clock
        self._flights = flights
        self._max_cached = max_cached
        self._cache: OrderedDict[str, ConsumerToken] = OrderedDict()
        self._limit = anyio.Semaphore(_MAX_FETCHES)
        self._target: tuple[str, Target] | None = None
        self._headers: tuple[int, Headers] | None = None
        self.fetched = 0
        """How many tokens were fetched from the identity service."""

    def known(self, ext_consumer_id: str) -> ConsumerToken | None:
        """The token, if it is in memory."""
        token = self._cache.get(ext_consumer_id)
        if token is not None:
            self._cache.move_to_end(ext_consumer_id)
        return token

    async def get(self, ext_consumer_id: str) -> ConsumerToken:
        """The token, from memory, the store or the identity service. Safe to cancel; others keep waiting.

        Raises:
            ConsumerTokenRefused: The identity service refused the consumer.
            TokenUnavailable: It gives no token; `status` is its answer, if there was one.
            AuthError: There is no AppJWT to ask with.
        """
        token = self.known(ext_consumer_id)
        if token is not None:
            return token
        return await self._flights.run(("consumer", ext_consumer_id), lambda: self._load(ext_consumer_id))

    async def renew(self, ext_consumer_id: str, refused: ConsumerToken) -> ConsumerToken:
        """A token other than the refused one.

        Raises:
            ConsumerTokenRefused: The identity service gives the same token again, or gave this one less than 30
                seconds ago: asking again would not help.
            TokenUnavailable, AuthError: As `get`.
        """
        current = self.known(ext_consumer_id)
        if current is not None and current is not refused:
            return current
        now = self._clock.time()
        if now - refused.renewed_at < _RENEWAL_INTERVAL:
            raise ConsumerTokenRefused("a freshly fetched ConsumerJWS was refused")
        refused.renewed_at = now
        token = await self._flights.run(("consumer!", ext_consumer_id), lambda: self._fetch(ext_consumer_id))
        token.renewed_at = now
        if token.value == refused.value:
            raise ConsumerTokenRefused("the ConsumerJWS was refused, and the identity service gives the same again")
        return token

    def forget(self, ext_consumer_id: str) -> None:
        """Drop the token from memory."""
        self._cache.pop(ext_consumer_id, None)

    def abort(self) -> None:
        """End the exchanges under way."""
        if self._target is not None:
            self._transport.abort(self._target[1])

    async def _load(self, ext_consumer_id: str) -> ConsumerToken:
        record = await self._store.get_consumer(self._account_id, ext_consumer_id)
        if record is not None and is_token(record.token):
            return self._keep(ext_consumer_id, ConsumerToken(record.token))
        return await self._fetch(ext_consumer_id)

    async def _fetch(self, ext_consumer_id: str) -> ConsumerToken:
        body = orjson.dumps({"ext_consumer_id": ext_consumer_id})
        async with self._limit:
            app_token = await self._keeper.get()
            answer = await self._post(app_token, body)
            if answer.status == 401:
                # "401: the AppJWT is missing, expired or invalid": nothing else can be wrong here.
                app_token = await self._keeper.renew(app_token.generation, certain=True)
                answer = await self._post(app_token, body)
        if answer.status >= 300:
            raise _refused(answer, ext_consumer_id)
        value = _read(answer)
        self.fetched += 1
        claims = read_claims(value)
        lp_consumer_id = claims.get("lp_consumer_id")
        await self._store.put_consumer(
            ConsumerRecord(
                account_id=self._account_id,
                ext_consumer_id=ext_consumer_id,
                lp_consumer_id=lp_consumer_id if isinstance(lp_consumer_id, str) else None,
                token=value,
            )
        )
        return self._keep(ext_consumer_id, ConsumerToken(value))

    async def _post(self, app_token: AppToken, body: bytes) -> Answer:
        target = self._target_at(await self._resolve("idp"))
        if self._headers is None or self._headers[0] != app_token.generation:
            # The bare token, although the token service calls it a Bearer.
            headers = Headers([("Authorization", app_token.value), ("Content-Type", "application/json")])
            self._headers = (app_token.generation, headers)
        try:
            return await self._transport.post(target, self._headers[1], body, self._clock.time() + _TIMEOUT)
        except (TransportError, ProtocolError) as error:
            raise TokenUnavailable(f"the identity service does not answer: {error}") from error

    def _target_at(self, base: str) -> Target:
        if self._target is None or self._target[0] != base:
            self._target = (base, Target(base, self._path))
        return self._target[1]

    def _keep(self, ext_consumer_id: str, token: ConsumerToken) -> ConsumerToken:
        self._cache[ext_consumer_id] = token
        self._cache.move_to_end(ext_consumer_id)
        if len(self._cache) > self._max_cached:
            self._cache.popitem(last=False)
        return token


def _refused(answer: Answer, ext_consumer_id: str) -> AuthError:
    status = answer.status
    if status == 429 or status >= 500:
        asked = parse_retry_after(answer.header(b"retry-after"), time.time())
        return TokenUnavailable(f"the identity service answers {status}", status=status, retry_after=asked)
    return ConsumerTokenRefused(
        f"the identity service refused consumer {mask(ext_consumer_id)} (status {status})",
        status=status,
        hint="check the ext_consumer_id",
    )


def _read(answer: Answer) -> str:
    try:
        body: Any = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        body = None
    token = body.get("token") if isinstance(body, dict) else None
    if not is_token(token):
        raise TokenUnavailable("the identity service's answer holds no usable token", status=answer.status)
    return token
