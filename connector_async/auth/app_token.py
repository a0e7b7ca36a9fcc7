"""The AppJWT: client credentials in, a token for about an hour out."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, cast
from urllib.parse import urlencode

import anyio
import attrs
import orjson

from connector_async._arguments import check_kind, kind_of
from connector_async._concurrency import failure_of
from connector_async.auth._jwt import is_token, read_claims
from connector_async.auth.keeper import FetchedToken, Unwanted
from connector_async.errors import (
    AppTokenRefused,
    AuthError,
    ConfigurationError,
    ProtocolError,
    RequestError,
    TokenUnavailable,
    TransportError,
)
from connector_async.protocol.lifetime import lifetime_of
from connector_async.protocol.retry import parse_retry_after
from connector_async.transport.base import Answer, Headers, Target, Transport
from connector_async.wire._reading import is_object

__all__ = ["AppCredentials", "AppTokenSource", "CredentialsSource", "unavailable"]

_HEADERS = Headers([("Content-Type", "application/x-www-form-urlencoded"), ("Accept", "application/json")])
_TIMEOUT = 15.0
_CALLABLE = "look at what `credentials` does: an async callable without arguments that returns AppCredentials"


def _filled(_instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if value is not None and not isinstance(value, str):
        raise ConfigurationError(f"{attribute.name} must be a text, got {kind_of(value)}")
    if value is None or not value.strip():
        raise ConfigurationError(f"{attribute.name} is empty; it comes with the app installation")
    if value != value.strip():
        raise ConfigurationError(f"{attribute.name} begins or ends with white space; leave that out")
    _check_sendable(attribute.name, value)


def _check_sendable(name: str, value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError:
        # Not `from`: that error holds the whole value.
        raise ConfigurationError(f"{name} is no valid text (it holds half a surrogate pair)") from None


def _secrets(_instance: object, attribute: attrs.Attribute[Any], values: tuple[object, ...]) -> None:
    # Signatures are checked with these: an empty one would accept everybody's.
    for value in values:
        _filled(_instance, attribute, value)


def _several(values: Iterable[str]) -> tuple[str, ...]:
    # A text is an iterable of texts too, and each of its characters would pass for a secret.
    if isinstance(values, str):
        return (values,)
    check_kind("previous_secrets", values, Iterable, "several texts")
    return tuple(values)


@attrs.frozen
class AppCredentials:
    """The app installation's id and secret.

    Attributes:
        previous_secrets: Older secrets; they only verify webhooks while a rotation is under way.

    Raises:
        ConfigurationError: The id or a secret is empty, or no text that can be sent.
    """

    client_id: str = attrs.field(validator=_filled)
    client_secret: str = attrs.field(repr=False, validator=_filled)
    previous_secrets: tuple[str, ...] = attrs.field(
        repr=False, kw_only=True, default=(), converter=_several, validator=_secrets
    )


CredentialsSource = AppCredentials | Callable[[], Awaitable[AppCredentials]]
"""Credentials, or an async callable that is asked at each renewal (a vault)."""


class AppTokenSource:
    """Fetches AppJWTs of one account.

    Source: Connector API, authorization. The secret goes in the form body, where access logs do not see it.
    """

    def __init__(
        self,
        account_id: str,
        credentials: CredentialsSource,
        *,
        transport: Transport,
        resolve: Callable[[str], Awaitable[str]],
        now: Callable[[], float],
        suspect: Callable[[str], None] = lambda _service: None,
    ) -> None:
        self._path = f"/sentinel/api/account/{account_id}/app/token?v=1.0&grant_type=client_credentials"
        self._credentials = credentials
        self.credentials = credentials if isinstance(credentials, AppCredentials) else None
        """Those in use; None before a callable was first asked."""
        self._transport = transport
        self._resolve = resolve
        self._now = now
        self._suspect = suspect
        self._target: tuple[str, Target] | None = None

    async def fetch(self, instead_of: Unwanted | None = None) -> FetchedToken:
        """A new token, whatever there was before.

        Raises:
            AppTokenRefused: The credentials are refused.
            TokenUnavailable: The service cannot be reached, is out of order, or answers nonsense.
        """
        del instead_of
        return await self.fetch_with(await self.ask_credentials())

    async def fetch_with(self, credentials: AppCredentials) -> FetchedToken:
        """A new token for these credentials.

        Raises:
            AppTokenRefused, TokenUnavailable: As `fetch`.
        """
        form = urlencode({"client_id": credentials.client_id, "client_secret": credentials.client_secret})
        try:
            target = self._target_at(await self._resolve("sentinel"))
            answer = await self._transport.post(target, _HEADERS, form.encode("ascii"), self._now() + _TIMEOUT)
        except RequestError as error:
            raise TokenUnavailable(
                f"the token service cannot be found: {error.args[0]}",
                status=error.status,
                retryable=error.retryable,
                hint=error.hint,
            ) from error
        except (TransportError, ProtocolError) as error:
            raise unavailable("the token service", error, lambda: self._suspect("sentinel")) from error
        if answer.status >= 300:
            raise _refused(answer)
        return _read(answer)

    def abort(self) -> None:
        """End the exchange under way."""
        if self._target is not None:
            self._transport.abort(self._target[1])

    async def ask_credentials(self) -> AppCredentials:
        """The credentials; a callable is asked anew.

        Raises:
            TokenUnavailable: The callable failed.
        """
        if isinstance(self._credentials, AppCredentials):
            return self._credentials
        try:
            with anyio.fail_after(_TIMEOUT):
                asked = cast("object", self._credentials())
                if not isinstance(asked, Awaitable):
                    raise TokenUnavailable("the credentials callable is not async", retryable=False, hint=_CALLABLE)
                credentials = cast("object", await asked)
        except TokenUnavailable:
            raise
        except BaseException as error:  # noqa: BLE001 - of the user's; what ends this task is raised again
            failure = failure_of(error)
            raise TokenUnavailable(
                f"the credentials callable failed ({type(failure).__name__})", hint=_CALLABLE
            ) from failure
        if not isinstance(credentials, AppCredentials):
            raise TokenUnavailable(
                f"the credentials callable returned {type(credentials).__name__}, not AppCredentials",
                retryable=False,
                hint=_CALLABLE,
            )
        self.credentials = credentials
        return credentials

    def _target_at(self, base: str) -> Target:
        if self._target is None or self._target[0] != base:
            self._target = (base, Target(base, self._path))
        return self._target[1]


def unavailable(service: str, error: TransportError | ProtocolError, suspect: Callable[[], None]) -> TokenUnavailable:
    """What a failed exchange with a token service means; `suspect` is called if its host may have moved."""
    retryable = True
    if isinstance(error, TransportError):
        retryable = error.retryable
        if not error.sent:
            suspect()
    hint = None if retryable else "check the certificate and the host"
    return TokenUnavailable(f"{service} does not answer: {error}", retryable=retryable, hint=hint)


def _refused(answer: Answer) -> AuthError:
    status = answer.status
    if status in (400, 401, 403):
        return AppTokenRefused(f"the token service refused the app credentials (status {status})", status=status)
    asked = parse_retry_after(answer.header(b"retry-after"), time.time())
    return TokenUnavailable(f"the token service answers {status}", status=status, retry_after=asked)


def _read(answer: Answer) -> FetchedToken:
    try:
        body: Any = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        body = None
    found: Mapping[str, Any] = body if is_object(body) else {}
    token = found.get("access_token")
    if not is_token(token):
        raise TokenUnavailable("the token service's answer holds no usable access_token", status=answer.status)
    return FetchedToken(
        value=token, seconds=lifetime_of(read_claims(token), found.get("expires_in"), wall=time.time())
    )
