"""What a request needs before it can be sent: where to, in whose name, for whom."""

from __future__ import annotations

from connector_async.auth import AppToken, ConsumerTokens, TokenKeeper
from connector_async.auth._codes import APP_TOKEN_CODES, CONSUMER_TOKEN_CODES
from connector_async.domains import Domains
from connector_async.errors import AppTokenRefused, ConsumerTokenRefused
from connector_async.exchange._call import Call
from connector_async.exchange._reading import Problem
from connector_async.transport.base import Headers, Target, Transport

__all__ = ["Authorizer"]

SERVICE = "asyncMessagingEnt"


class Authorizer:
    """Finds the message endpoints and the tokens; keeps what is made of them for the next request."""

    def __init__(self, account_id: str, *, domains: Domains, keeper: TokenKeeper, consumers: ConsumerTokens) -> None:
        self._account_id = account_id
        self._domains = domains
        self._keeper = keeper
        self._consumers = consumers
        self._targets: dict[bool, tuple[str, Target]] = {}  # by whether the call is a batch
        self._app_headers: tuple[AppToken, Headers] | None = None

    def equip(self, call: Call) -> bool:
        """Give a call its target and its headers, if nothing has to be waited for; whether it has them."""
        app_token = self._keeper.current()
        # What was fetched for this call serves it even if others have pushed it out of memory meanwhile.
        consumer_token = self._consumers.known(call.consumer_id) or call.consumer_token
        base = self._domains.known(SERVICE)
        if app_token is None or consumer_token is None or base is None:
            return False
        cached = self._targets.get(call.batch)
        if cached is None or cached[0] != base:
            path = f"/api/account/{self._account_id}{call.endpoint.value}"
            cached = self._targets[call.batch] = (base, Target(base, path))
        if self._app_headers is None or self._app_headers[0] is not app_token:
            # The bare token: the token service calls it a Bearer, every page of the API sends it without.
            headers = Headers([("Authorization", app_token.value), ("Content-Type", "application/json")])
            self._app_headers = (app_token, headers)
        # Made for each message: kept for every silent consumer it would take as much again as the token.
        lines = self._app_headers[1] + f"X-LP-ON-BEHALF: {consumer_token}\r\n".encode("ascii")
        if call.properties is not None:
            lines += call.properties
        call.target = cached[1]
        call.headers = lines
        call.app_generation = app_token.generation
        call.used_token = consumer_token
        return True

    def app_token_holds(self) -> bool:
        """Whether an AppJWT is at hand."""
        return self._keeper.current() is not None

    async def fetch(self, call: Call) -> None:
        """Wait for what `equip` lacks.

        Raises:
            RequestError: A host or a token cannot be had.
        """
        await self._domains.resolve(SERVICE)
        await self._keeper.get()
        call.consumer_token = await self._consumers.get(call.consumer_id)

    async def renew(self, call: Call, problem: Problem) -> bool:
        """After a 401: whether another token is at hand, so that sending again makes sense.

        40102 and 40105 blame the AppJWT, 40103 and 40104 the consumer; without a code either may be meant. Each is
        renewed once per request: a second 401 for the same reason is an error, never a loop.

        Raises:
            TokenUnavailable: A token was to be renewed and cannot be had.
            AppTokenRefused, ConsumerTokenRefused: Its service says no, which tells more than the 401 did.
        """
        try:
            if problem.error_code in CONSUMER_TOKEN_CODES:
                if call.renewed_consumer_token:
                    return False
                call.renewed_consumer_token = True
                call.consumer_token = await self._consumers.renew(call.consumer_id, call.used_token)
                return True
            if call.renewed_app_token:
                return False
            call.renewed_app_token = True
            certain = problem.error_code in APP_TOKEN_CODES
            await self._keeper.renew(call.app_generation, certain=certain)
        except (AppTokenRefused, ConsumerTokenRefused) as error:
            if error.status is not None:
                raise
            return False
        return True

    def suspect_host(self) -> None:
        """A connection could not be made: have the host looked up again."""
        self._domains.suspect(SERVICE)

    def abort(self, transport: Transport) -> None:
        """End every exchange with the message endpoints."""
        for _, target in self._targets.values():
            transport.abort(target)
