"""Service name to base URL, through the Domain API.

Secrets are sent to what comes out of here, so an answer is taken only if it names a host below the vendor's domains
over https. Exceptions are what the user wrote down (a mapping), and loopback when the Domain API itself is on
loopback (the sandbox).
"""

from __future__ import annotations

import ipaddress
import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

import anyio
import attrs
import httpx
import orjson

from connector_async._arguments import kind_of
from connector_async._concurrency import Clock, SingleFlight
from connector_async.errors import ConfigurationError, NotSent, RequestError, TransportError
from connector_async.transport._foreign import tls_reason
from connector_async.wire._reading import is_array, is_object

__all__ = ["DOMAIN_API", "DomainSettings", "Domains", "check_account_id", "check_base_url"]

logger = logging.getLogger("connector_async.domains")

DOMAIN_API = "https://api.liveperson.net"
_SCHEMES = ("http", "https")
_VENDOR_DOMAINS = ("liveperson.net", "liveperson.com")
_TTL = 4 * 3600.0  # hosts move rarely; the page asks not to hard-code them, not to ask each time
_RETRY = 60.0  # while the Domain API is down, old answers serve; ask again after so many seconds
_TIMEOUT = 15.0  # seconds for a look-up as a whole: httpx bounds each read, not the sum
_MAX_ANSWER = 65_536  # bytes; an answer has some hundred
_HOST = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)(\.(?!-)[a-z0-9-]{1,63}(?<!-))*")
_ACCOUNT = re.compile(r"[0-9A-Za-z_-]{1,64}")
_SERVICES = {name.casefold(): name for name in ("sentinel", "idp", "asyncMessagingEnt", "swift")}
_OTHER_SERVICES = frozenset(
    {"accountconfigreadwrite", "accountconfigreadonly", "agentvep", "msghist", "smt", "messagingrestapidomain"}
)
_NOTHING: Mapping[str, Any] = {}


def check_account_id(account_id: object) -> str:
    """The account id, if it can stand in a URL.

    Raises:
        ConfigurationError: It cannot.
    """
    if not isinstance(account_id, str) or not _ACCOUNT.fullmatch(account_id):
        raise ConfigurationError(
            f"not an account id: {account_id!r}; it is the number (as text) that LivePerson gave to your brand"
        )
    return account_id


def check_base_url(value: object, *, what: str) -> str:
    """A base URL or bare host that the user wrote down, as a base URL; http is allowed to loopback only.

    Raises:
        ConfigurationError: It is neither, or would send secrets in the clear.
    """
    scheme, host, port = _take_apart(value)
    if host is None or scheme not in _SCHEMES:
        given = "one with a user or password in it" if isinstance(value, str) and "@" in value else repr(value)
        raise ConfigurationError(f"{what}: expected https://host or a bare host, got {given}")
    if scheme == "http" and not _is_loopback(host):
        raise ConfigurationError(f"{what}: http would send secrets in the clear to {host}; use https")
    return f"{scheme}://{_join(host, port)}"


@attrs.frozen
class DomainSettings:
    """Where to find hosts: what the user wrote down, and whom to ask for the rest."""

    overrides: Mapping[str, str]
    api: str

    @classmethod
    def of(cls, value: Mapping[str, str] | str | None) -> DomainSettings:
        """From what `ConnectorSession(domains=…)` takes.

        Args:
            value: None; the base URL of a Domain API; or a mapping of service name to base URL or bare host, where
                what it lacks is looked up.

        Raises:
            ConfigurationError: A URL cannot be used.
        """
        if isinstance(value, str):
            return cls({}, check_base_url(value, what="the Domain API's URL"))
        given: Mapping[str, str] = {} if value is None else value
        if not isinstance(cast("object", given), Mapping):
            raise ConfigurationError(
                f"domains must be a mapping of service name to URL, or a Domain API's URL, got {kind_of(given)}"
            )
        for service in given:
            meant = _meant(service)
            if service != meant and (meant not in given or str(service).casefold() == meant.casefold()):
                # It would be looked up at the vendor's, and secrets sent there, in spite of this entry.
                raise ConfigurationError(f"domains[{service!r}]: the service is called {meant!r}")
        overrides = {service: check_base_url(url, what=f"domains[{service!r}]") for service, url in given.items()}
        return cls(overrides, DOMAIN_API)


def _meant(service: str) -> str:
    """The service of ours that a name stands for, also a misspelt one; other names as they are."""
    name = str(service).casefold()
    if name in _SERVICES or name in _OTHER_SERVICES:
        return _SERVICES.get(name, service)
    import difflib  # for the rare name that is none of these: importing the session need not wait for it

    near = difflib.get_close_matches(name, _SERVICES, 1, cutoff=0.8)
    return _SERVICES[near[0]] if near else service


@attrs.define
class _Entry:
    url: str
    fresh_until: float
    asked_at: float


class Domains:
    """The hosts of one account: kept for hours, looked up once however many ask.

    Nobody waits for a host that is known: an answer that is due for a new look-up serves until there is a newer one,
    and on while the Domain API is down.

    Source: Domain API page; https and the check of hosts: our decision, since secrets go there.
    """

    def __init__(
        self,
        account_id: str,
        settings: DomainSettings,
        *,
        clock: Clock,
        client: httpx.AsyncClient,
        flights: SingleFlight,
    ) -> None:
        self._account_id = account_id
        self._api = settings.api
        self._overrides = settings.overrides
        self._cache: dict[str, _Entry] = {}
        self._clock = clock
        self._client = client
        self._flights = flights

    def known(self, service: str) -> str | None:
        """The base URL, if it can be told without waiting."""
        override = self._overrides.get(service)
        if override is not None:
            return override
        entry = self._cache.get(service)
        if entry is None:
            return None
        if self._clock.time() >= entry.fresh_until:
            self._flights.start(("domain", service), lambda: self._refresh(service))
        return entry.url

    async def resolve(self, service: str) -> str:
        """The base URL of a service.

        Raises:
            NotSent: It cannot be told, and nothing was known before; `retryable` says whether that may change.
        """
        known = self.known(service)
        if known is not None:
            return known
        return await self._flights.run(("domain", service), lambda: self._refresh(service))

    def suspect(self, service: str) -> None:
        """A connection to this service failed: look it up again at the next use, at most once a minute."""
        entry = self._cache.get(service)
        if entry is not None:
            entry.fresh_until = min(entry.fresh_until, max(self._clock.time(), entry.asked_at + _RETRY))

    async def _refresh(self, service: str) -> str:
        entry = self._cache.get(service)
        now = self._clock.time()
        try:
            url = await self._look_up(service)
        except RequestError as error:
            if entry is None:
                raise
            logger.warning("domain look-up failed, the old answer serves on: %s", error, extra={"service": service})
            entry.asked_at = now
            entry.fresh_until = self._clock.time() + _RETRY
            return entry.url
        self._cache[service] = _Entry(url, self._clock.time() + _TTL, now)
        return url

    async def _look_up(self, service: str) -> str:
        url = f"{self._api}/api/account/{self._account_id}/service/{service}/baseURI.json"
        try:
            with anyio.fail_after(_TIMEOUT):
                status, content = await self._get(url)
        except Exception as error:
            # Of httpx, or of whatever transport of the user's stands beneath it.
            raise self._unreachable(service, error) from error
        if status != 200:
            raise _refused(self._account_id, service, status)
        answer = _base_uri(content, service)
        if answer is None:
            raise NotSent(f"the Domain API's answer names no place for {service!r}", status=status)
        return self._accept(service, answer)

    def _unreachable(self, service: str, error: Exception) -> NotSent:
        why, hint = type(error).__name__, f"check the network, or pass `domains={{{service!r}: ...}}`"
        tls = tls_reason(error)
        if tls is not None:
            why, hint = f"TLS failed: {tls}", "check the certificate; `ssl_context=` is for a CA of your own"
        elif ours := next((each for each in (error, error.__cause__) if isinstance(each, TransportError)), None):
            why = str(ours)
        elif not isinstance(error, (httpx.HTTPError, OSError)):
            hint = "look at what the transport that you passed does"
        return NotSent(f"the Domain API at {self._api} cannot be reached ({why})", hint=hint)

    async def _get(self, url: str) -> tuple[int, bytes]:
        content = bytearray()
        async with self._client.stream(
            "GET", url, params={"version": "1.0"}, timeout=_TIMEOUT, follow_redirects=False
        ) as response:
            if response.headers.get("content-encoding", "identity") != "identity":
                # It was not asked for, and a bomb can hide in it.
                return response.status_code, b""
            async for chunk in response.aiter_bytes():
                content += chunk
                if len(content) > _MAX_ANSWER:
                    return response.status_code, b""
        return response.status_code, bytes(content)

    def _accept(self, service: str, answer: object) -> str:
        scheme, host, port = _take_apart(answer)
        local = _is_loopback(httpx.URL(self._api).host)
        if host is not None and local and _is_loopback(host) and scheme in _SCHEMES:
            # The sandbox: a bare `127.0.0.1:port` speaks what the Domain API itself speaks.
            stated = scheme if "://" in str(answer) else httpx.URL(self._api).scheme
            return f"{stated}://{_join(host, port)}"
        if host is None or scheme != "https" or not _is_vendor(host):
            raise NotSent(
                f"the Domain API names a place for {service!r} that secrets must not be sent to",
                retryable=False,
                hint=f"if it is right, say so: `domains={{{service!r}: ...}}`",
            )
        return f"https://{_join(host, port)}"


def _refused(account_id: str, service: str, status: int) -> NotSent:
    if status >= 500 or status == 429:
        return NotSent(f"the Domain API answers {status}", status=status)
    if 300 <= status < 400:
        return NotSent(
            f"the Domain API answers with a redirect ({status}), which is not followed",
            status=status,
            retryable=False,
            hint="check its URL, or pass `domains={...}`",
        )
    return NotSent(
        f"the Domain API knows no service {service!r} for account {account_id!r} (status {status})",
        status=status,
        retryable=False,
        hint="check the account id",
    )


def _base_uri(content: bytes, service: str) -> object:
    """The `baseURI` in either documented shape; None if there is none."""
    try:
        answer: Any = orjson.loads(content)
    except orjson.JSONDecodeError:
        return None
    found = _as_object(answer)
    if found.get("baseURIs"):
        entries: Any = found["baseURIs"]
        # A list of one may come as its bare element.
        listed: Sequence[Any] = entries if is_array(entries) else [entries]
        found = next((entry for entry in map(_as_object, listed) if entry.get("service") == service), _NOTHING)
    return found.get("baseURI")


def _as_object(value: Any) -> Mapping[str, Any]:
    return value if is_object(value) else _NOTHING


def _take_apart(value: object) -> tuple[str, str | None, int | None]:
    """Scheme (https if none), host (None if it is not one) and port. No path, user info or odd spelling passes."""
    # ASCII alone: `lower` turns some other characters (the Kelvin sign) into letters of it.
    if not isinstance(value, str) or not value.isascii():
        return "", None, None
    scheme, separator, rest = value.partition("://")
    if not separator:
        scheme, rest = "https", value
    rest = rest.removesuffix("/").lower()
    host, port = rest, ""
    if ":" in rest and not rest.endswith("]"):
        host, _, port = rest.rpartition(":")
        if not (port.isdigit() and len(port) <= 5 and 0 < int(port) < 65536):
            return scheme.lower(), None, None
    if not (_HOST.fullmatch(host) or _is_ipv6_literal(host)) or len(host) > 253:
        return scheme.lower(), None, None
    return scheme.lower(), host.strip("[]"), int(port) if port else None


def _is_ipv6_literal(host: str) -> bool:
    if not (host.startswith("[") and host.endswith("]")):
        return False
    try:
        ipaddress.IPv6Address(host[1:-1])
    except ValueError:
        return False
    return "%" not in host


def _join(host: str, port: int | None) -> str:
    shown = f"[{host}]" if ":" in host else host
    return shown if port is None else f"{shown}:{port}"


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _is_vendor(host: str) -> bool:
    return any(host.endswith(f".{domain}") for domain in _VENDOR_DOMAINS)
