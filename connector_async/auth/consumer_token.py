"""ConsumerJWS: for whom a request acts. Fetched at a consumer's first use, once, and kept: it never expires."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import orjson

from connector_async._concurrency import Clock, SingleFlight
from connector_async._recent import Recent
from connector_async._redact import mask
from connector_async.auth._codes import APP_TOKEN_CODES
from connector_async.auth._jwt import is_token, read_claims
from connector_async.auth.app_token import unavailable
from connector_async.auth.keeper import AppToken, TokenKeeper
from connector_async.errors import (
    AppTokenRefused,
    AuthError,
    ConsumerTokenRefused,
    LocalProtocolError,
    ProtocolError,
    TokenUnavailable,
    TransportError,
)
from connector_async.protocol.retry import parse_retry_after
from connector_async.store.base import ConsumerRecord, Store
from connector_async.transport.base import Answer, Headers, Target, Transport
from connector_async.wire._reading import is_object

__all__ = ["ConsumerTokens"]

logger = logging.getLogger("connector_async.auth")

_TIMEOUT = 15.0
_RENEWAL_INTERVAL = 30.0  # a consumer acting on another's conversation is refused each time: do not ask each time
_MAX_FETCHES = 64
_NEVER = float("-inf")


class ConsumerTokens:
    """The tokens of one account's consumers: the most recently used in memory, all of them in the store.

    A token is the text that `is_token` has passed: it may stand in a header as it is.

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
        suspect: Callable[[str], None] = lambda _service: None,
    ) -> None:
        self._account_id = account_id
        self._path = f"/api/account/{account_id}/consumer?v=1.0"
        self._transport = transport
        self._resolve = resolve
        self._keeper = keeper
        self._store = store
        self._clock = clock
        self._flights = flights
        self._suspect = suspect
        self._cache: Recent[str, str] = Recent(max_cached)
        self._renewed: OrderedDict[str, float] = OrderedDict()
        self._limit = anyio.Semaphore(_MAX_FETCHES)
        self._target: tuple[str, Target] | None = None
        self._headers: tuple[int, Headers] | None = None
        self.fetched = 0
        """How many tokens were fetched from the identity service."""

    def known(self, ext_consumer_id: str) -> str | None:
        """The token, if it is in memory."""
        return self._cache.get(ext_consumer_id)

    async def get(self, ext_consumer_id: str) -> str:
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

    def learn(self, record: ConsumerRecord) -> None:
        """Take up a token that was read from the store together with something else; one in memory stays."""
        if record.ext_consumer_id not in self._cache and is_token(record.token):
            self._keep(record.ext_consumer_id, record.token)

    async def renew(self, ext_consumer_id: str, refused: str) -> str:
        """A token other than the refused one.

        Raises:
            ConsumerTokenRefused: The identity service gives the same token again, or gave this one less than 30
                seconds ago: asking again would not help.
            TokenUnavailable, AuthError: As `get`.
        """
        current = self.known(ext_consumer_id)
        if current is not None and current != refused:
            return current
        # All that came back with this token wait for one renewal, and take what comes of it.
        return await self._flights.run(("consumer!", ext_consumer_id), lambda: self._renew(ext_consumer_id, refused))

    def forget(self, ext_consumer_id: str) -> None:
        """Drop the token from memory."""
        self._cache.pop(ext_consumer_id)

    def abort(self) -> None:
        """End the exchanges under way."""
        if self._target is not None:
            self._transport.abort(self._target[1])

    async def _renew(self, ext_consumer_id: str, refused: str) -> str:
        if self._clock.time() - self._renewed.get(ext_consumer_id, _NEVER) < _RENEWAL_INTERVAL:
            raise ConsumerTokenRefused("a freshly fetched ConsumerJWS was refused")
        token = await self._fetch(ext_consumer_id)
        self._note_renewal(ext_consumer_id)
        if token == refused:
            raise ConsumerTokenRefused("the ConsumerJWS was refused, and the identity service gives the same again")
        return token

    def _note_renewal(self, ext_consumer_id: str) -> None:
        now = self._renewed[ext_consumer_id] = self._clock.time()
        self._renewed.move_to_end(ext_consumer_id)
        while now - next(iter(self._renewed.values())) >= _RENEWAL_INTERVAL:
            self._renewed.popitem(last=False)

    async def _load(self, ext_consumer_id: str) -> str:
        try:
            record = await self._store.get_consumer(self._account_id, ext_consumer_id)
        except Exception:
            # The identity service knows it too; a store that fails must not stop the messages.
            logger.exception("the store did not give a ConsumerJWS")
            record = None
        if record is not None and is_token(record.token):
            return self._keep(ext_consumer_id, record.token)
        return await self._fetch(ext_consumer_id)

    async def _fetch(self, ext_consumer_id: str) -> str:
        try:
            body = orjson.dumps({"ext_consumer_id": ext_consumer_id})
        except TypeError:
            raise LocalProtocolError("the ext_consumer_id is no valid text (half a surrogate pair)") from None
        answer = await self._ask(body)
        if answer.status >= 300:
            raise _refused(answer, ext_consumer_id)
        token = self._keep(ext_consumer_id, _read(answer))
        self.fetched += 1
        await self._remember(ext_consumer_id, token)
        return token

    async def _ask(self, body: bytes) -> Answer:
        async with self._limit:
            app_token = await self._keeper.get()
            answer = await self._post(app_token, body)
        if answer.status != 401:
            return answer
        # "401: the AppJWT is missing, expired or invalid". Believed for good only where the code says so. A second
        # renewal may be half a minute away: whoever waits for it does so without a place that others need.
        certain = _error_code(answer) in APP_TOKEN_CODES
        app_token = await self._keeper.renew(app_token.generation, certain=certain)
        async with self._limit:
            return await self._post(app_token, body)

    async def _remember(self, ext_consumer_id: str, token: str) -> None:
        found: object = read_claims(token).get("lp_consumer_id")
        lp_consumer_id = found if isinstance(found, str) else None
        try:
            if lp_consumer_id is None:
                # A token that does not say who the consumer is must not make the store forget it.
                record = await self._store.get_consumer(self._account_id, ext_consumer_id)
                lp_consumer_id = None if record is None else record.lp_consumer_id
            await self._store.put_consumer(
                ConsumerRecord(
                    account_id=self._account_id,
                    ext_consumer_id=ext_consumer_id,
                    lp_consumer_id=lp_consumer_id,
                    token=token,
                )
            )
        except Exception:
            # The token is good all the same; without it every message would ask the identity service again.
            logger.exception("the store did not take a ConsumerJWS")

    async def _post(self, app_token: AppToken, body: bytes) -> Answer:
        target = self._target_at(await self._resolve("idp"))
        if self._headers is None or self._headers[0] != app_token.generation:
            # The bare token, although the token service calls it a Bearer.
            headers = Headers([("Authorization", app_token.value), ("Content-Type", "application/json")])
            self._headers = (app_token.generation, headers)
        try:
            return await self._transport.post(target, self._headers[1], body, self._clock.time() + _TIMEOUT)
        except (TransportError, ProtocolError) as error:
            raise unavailable("the identity service", error, lambda: self._suspect("idp")) from error

    def _target_at(self, base: str) -> Target:
        if self._target is None or self._target[0] != base:
            self._target = (base, Target(base, self._path))
        return self._target[1]

    def _keep(self, ext_consumer_id: str, token: str) -> str:
        self._cache.put(ext_consumer_id, token)
        return token


def _refused(answer: Answer, ext_consumer_id: str) -> AuthError:
    status = answer.status
    if status == 401:
        return AppTokenRefused("the identity service refused a freshly renewed AppJWT", status=status)
    if status == 429 or status >= 500:
        asked = parse_retry_after(answer.header(b"retry-after"), time.time())
        return TokenUnavailable(f"the identity service answers {status}", status=status, retry_after=asked)
    return ConsumerTokenRefused(
        f"the identity service refused consumer {mask(ext_consumer_id)} (status {status})",
        status=status,
        hint="check the ext_consumer_id",
    )


def _read(answer: Answer) -> str:
    token = _member(answer, "token")
    if not is_token(token):
        raise TokenUnavailable("the identity service's answer holds no usable token", status=answer.status)
    return token


def _error_code(answer: Answer) -> int | None:
    """The `errorCode` of an authorization error, if that is what it is."""
    body: Any = _member(answer, "body")
    code = _get(body, "errorCode")
    return code if isinstance(code, int) else None


def _member(answer: Answer, name: str) -> Any:
    try:
        body: Any = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        return None
    return _get(body, name)


def _get(value: Any, name: str) -> Any:
    return value.get(name) if is_object(value) else None
