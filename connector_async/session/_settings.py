"""What a session is told, checked when it is built."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from inspect import iscoroutinefunction
from pathlib import Path
from typing import Any, cast

import attrs

from connector_async._arguments import kind_of, offers
from connector_async.auth import AppCredentials
from connector_async.errors import ConfigurationError

__all__ = ["SessionLimits", "check_hooks", "check_kind", "credentials_from", "seconds"]


def _at_least_one(_instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigurationError(f"limits: {attribute.name} must be a whole number of at least 1, got {value!r}")


def _positive_or_none(_instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise ConfigurationError(f"limits: {attribute.name} must be above 0, or None, got {value!r}")


@attrs.frozen(kw_only=True)
class SessionLimits:
    """How much a session does at once. Connections follow `max_in_flight`.

    Attributes:
        max_in_flight: Most requests between their first byte and their answer.
        max_queue: Most requests that wait for their turn; one more ends with QueueFull.
        rate: Most requests started per second; None for no limit.
        max_cached_consumers: Most consumers whose ConsumerJWS and open conversation are kept in memory; the store
            keeps all.
        max_handlers: Most webhook handlers that run at once.

    Raises:
        ConfigurationError: A limit is below 1.
    """

    max_in_flight: int = attrs.field(default=256, validator=_at_least_one)
    max_queue: int = attrs.field(default=10_000, validator=_at_least_one)
    rate: float | None = attrs.field(default=None, validator=_positive_or_none)
    max_cached_consumers: int = attrs.field(default=100_000, validator=_at_least_one)
    max_handlers: int = attrs.field(default=256, validator=_at_least_one)


def seconds(name: str, value: object, *, zero: bool = False) -> float:
    """A duration as the user gave it.

    Raises:
        ConfigurationError: It is not a number of seconds above 0 (or 0, if `zero`).
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not (value > 0 or (zero and value == 0)):
        least = "of at least 0" if zero else "above 0"
        raise ConfigurationError(f"{name} must be a number of seconds {least}, got {value!r}")
    try:
        return float(value)
    except OverflowError:
        raise ConfigurationError(f"{name} is too large; `math.inf` for no limit") from None


def check_kind(name: str, value: object, kind: type, *, such_as: str) -> None:
    """None, or an object of this kind.

    Raises:
        ConfigurationError: It is something else; the message says what to pass.
    """
    if value is not None and not offers(value, kind):
        raise ConfigurationError(f"{name} must be {such_as}, got {kind_of(value)}")


def check_hooks(hooks: object) -> tuple[Any, ...]:
    """Several callables.

    Raises:
        ConfigurationError: They are not, or are classes of events.
    """
    if not isinstance(hooks, Iterable) or isinstance(hooks, str | bytes):
        raise ConfigurationError(f"hooks must be several callables, `hooks=[callable]`, got {kind_of(hooks)}")
    given = tuple(cast("Iterable[object]", hooks))
    for hook in given:
        if not callable(hook):
            raise ConfigurationError(f"hooks must be callables that take an event, got {kind_of(hook)}")
        if iscoroutinefunction(hook):
            raise ConfigurationError(f"hooks are called and not awaited: {hook!r} must be no coroutine function")
    return given


def credentials_from(environ: Mapping[str, str], prefix: str) -> tuple[str, AppCredentials]:
    """Account id and credentials from the environment.

    Raises:
        ConfigurationError: Names every variable that is missing, and what it is.
    """
    wanted = {
        "ACCOUNT_ID": "the account (brand) id",
        "CLIENT_ID": "the app installation's client id",
        "CLIENT_SECRET": f"the app installation's secret, or {prefix}CLIENT_SECRET_FILE with a path to it",
    }
    # Mappings of settings hold None for what is not set.
    found = {name: (environ.get(prefix + name) or "").strip() for name in wanted}
    path = (environ.get(f"{prefix}CLIENT_SECRET_FILE") or "").strip()
    if not found["CLIENT_SECRET"] and path:
        found["CLIENT_SECRET"] = _secret_in(path, f"{prefix}CLIENT_SECRET_FILE")
    missing = [f"{prefix}{name} ({what})" for name, what in wanted.items() if not found[name]]
    if missing:
        raise ConfigurationError(f"not set in the environment: {'; '.join(missing)}")
    return found["ACCOUNT_ID"], AppCredentials(found["CLIENT_ID"], found["CLIENT_SECRET"])


def _secret_in(path: str, variable: str) -> str:
    try:
        # Editors of Windows put a mark before the text.
        secret = Path(path).read_text(encoding="utf-8-sig").strip()
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{variable}: {path} cannot be read ({type(error).__name__})") from error
    if not secret:
        raise ConfigurationError(f"{variable}: {path} is empty")
    return secret
