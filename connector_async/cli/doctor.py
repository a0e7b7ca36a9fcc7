"""`connector-async doctor`: see step by step whether the account of the environment works from here.

It looks up hosts, connects to them and asks for a token. No consumer and no conversation is made, nothing is sent to
anybody, and no secret or token is shown.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any, Literal, TypeVar

import anyio
import attrs
import httpx

from connector_async._concurrency import SingleFlight, current_clock
from connector_async.auth import AppCredentials, AppTokenSource
from connector_async.cli._console import emit, quiet_log, say, tell
from connector_async.domains import Domains, DomainSettings, check_account_id
from connector_async.errors import ConfigurationError, NotSent, RequestError, SessionClosed, TransportError
from connector_async.session._settings import credentials_from
from connector_async.transport._choose import as_transport
from connector_async.transport._foreign import tls_reason

__all__ = ["add_arguments", "run"]

_SERVICES = {
    "sentinel": "gives the AppJWT",
    "idp": "gives the consumers' tokens",
    "asyncMessagingEnt": "takes the messages",
}
_CONNECT_TIMEOUT = 10.0

T = TypeVar("T")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `connector-async doctor`."""
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the list")


def run(arguments: argparse.Namespace) -> int:
    """Examine the account that the `LP_` variables name.

    Returns:
        0 if all is well, 1 if not.
    """
    report = _Report()
    with quiet_log():
        settings = report.settings()
        if settings is not None:
            anyio.run(_examine, report, *settings)
    report.skip_rest()
    if arguments.json:
        emit(report.as_json())
    else:
        report.print()
    if report.failed:
        tell(f"connector-async: failed: {', '.join(report.failed)}")
    return 1 if report.failed else 0


@attrs.frozen(kw_only=True)
class _Check:
    """What one step found.

    Attributes:
        advice: What a person can do about it.
    """

    name: str
    status: Literal["ok", "failed", "skipped"]
    says: str
    advice: str | None = None
    seconds: float = 0.0


@attrs.define(eq=False)
class _Report:
    """The steps in the order in which each can fail by itself."""

    account_id: str | None = None
    _found: dict[str, _Check] = attrs.field(factory=dict[str, _Check], init=False)

    @property
    def failed(self) -> list[str]:
        return [name for name, check in self._found.items() if check.status == "failed"]

    def settings(self) -> tuple[str, AppCredentials, DomainSettings] | None:
        """What the environment says, as a session reads it; None if that cannot work."""
        try:
            account_id, credentials = credentials_from(os.environ, "LP_")
            self.account_id = check_account_id(account_id)
            domains = DomainSettings.of(os.environ.get("LP_DOMAIN_API", "").strip() or None)
        except ConfigurationError as error:
            self.add("settings", "failed", str(error))
            return None
        self.add("settings", "ok", f"account {account_id}, app {credentials.client_id}, hosts from {domains.api}")
        return self.account_id, credentials, domains

    def add(
        self,
        name: str,
        status: Literal["ok", "failed", "skipped"],
        says: str,
        *,
        advice: str | None = None,
        seconds: float = 0.0,
    ) -> None:
        self._found[name] = _Check(name=name, status=status, says=says, advice=advice, seconds=round(seconds, 3))

    async def look(self, name: str, work: Awaitable[T], says: Callable[[T], str]) -> T | None:
        """Do one step; None if it fails."""
        started = time.perf_counter()
        try:
            result = await work
        except RequestError as error:
            seconds = time.perf_counter() - started
            self.add(name, "failed", error.args[0], advice=error.hint or None, seconds=seconds)
            return None
        self.add(name, "ok", says(result), seconds=time.perf_counter() - started)
        return result

    def skip_rest(self) -> None:
        """Put all steps in their order, those too that were not come to."""
        names = ["settings", *(f"{step} {service}" for step in ("host", "connect") for service in _SERVICES), "token"]
        self._found = {name: self._found.get(name) or self._skipped(name) for name in names}

    def _skipped(self, name: str) -> _Check:
        service = "sentinel" if name == "token" else name.partition(" ")[2]
        needed = next(step for step in ("settings", f"host {service}", f"connect {service}") if step in self.failed)
        return _Check(name=name, status="skipped", says=f"needs what failed: {needed}")

    def as_json(self) -> dict[str, Any]:
        return {
            "ok": not self.failed,
            "account_id": self.account_id,
            "checks": [attrs.asdict(check) for check in self._found.values()],
        }

    def print(self) -> None:
        width = max(map(len, self._found))
        for name, check in self._found.items():
            took = f" ({check.seconds * 1000:.0f} ms)" if check.seconds else ""
            say(f"{check.status:<7}  {name:<{width}}  {check.says}{took}")
            if check.advice is not None:
                say(f"{'':<7}  {'':<{width}}  what to do: {check.advice}")


async def _examine(report: _Report, account_id: str, credentials: AppCredentials, settings: DomainSettings) -> None:
    try:
        transport, _ = as_transport()
    except ConfigurationError as error:
        report.add("settings", "failed", str(error), advice="mend the proxy variables of the environment")
        return
    async with transport, anyio.create_task_group() as tasks:
        clock = current_clock(tasks)
        flights = SingleFlight(tasks, clock, lambda: SessionClosed("the examination ended"))
        domains = Domains(account_id, settings, clock=clock, client=transport.client, flights=flights)
        tell(f"looking up the hosts of account {account_id}")
        async with anyio.create_task_group() as looking:
            for service in _SERVICES:
                looking.start_soon(_look_up_and_connect, report, domains, transport.client, service)
        if "connect sentinel" in report.failed or "host sentinel" in report.failed:
            return
        tell("asking for a token")
        source = AppTokenSource(account_id, credentials, transport=transport, resolve=domains.resolve, now=clock.time)
        await report.look("token", source.fetch(), lambda token: f"an AppJWT that holds for {token.seconds:,.0f} s")


async def _look_up_and_connect(report: _Report, domains: Domains, client: httpx.AsyncClient, service: str) -> None:
    meaning = _SERVICES[service]
    base = await report.look(f"host {service}", domains.resolve(service), lambda url: f"{url} {meaning}")
    if base is not None:
        await report.look(
            f"connect {service}", _connect(client, base), lambda status: f"it answers (status {status})"
        )


async def _connect(client: httpx.AsyncClient, base: str) -> int:
    """The status of whatever a host says to a request that asks for nothing: that it answers is what counts.

    Raises:
        NotSent: It does not.
    """
    try:
        with anyio.fail_after(_CONNECT_TIMEOUT):
            response = await client.get(base, timeout=_CONNECT_TIMEOUT, follow_redirects=False)
    except (httpx.HTTPError, TransportError, TimeoutError) as error:
        tls = tls_reason(error)
        if tls is not None:
            hint = "check the certificate; what opens TLS on the way needs to be trusted by this machine"
            raise NotSent(f"it cannot be reached: TLS failed: {tls}", hint=hint) from error
        hint = f"let this machine connect to {base}; HTTPS_PROXY names a proxy, if there has to be one"
        raise NotSent(f"it cannot be reached: {_reason(error)}", hint=hint) from error
    return response.status_code


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError | httpx.TimeoutException):
        return f"no answer within {_CONNECT_TIMEOUT:g} s"
    return str(error) or type(error).__name__
