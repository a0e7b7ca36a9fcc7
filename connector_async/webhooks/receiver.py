"""Headers and raw bytes in, a verified and typed notification out. No I/O, no framework, no task.

The signature is checked over the bytes as they came, and before anything reads them as JSON.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol, cast, runtime_checkable

import attrs

from connector_async.errors import (
    ConfigurationError,
    RemoteProtocolError,
    UnreadableNotification,
    WebhookBodyTooLarge,
    WrongAccount,
    WrongClient,
)
from connector_async.protocol.signature import Keyring
from connector_async.webhooks._head import Head, Headers, read_head
from connector_async.wire import Notification, decode_notification

__all__ = ["AppRecord", "Credentials", "Headers", "Secrets", "Verified", "WebhookReceiver"]

MAX_BODY_BYTES = 1_048_576
"""The vendor states no limit; a message has at most 5,000 characters, a card some hundred KB."""

_MAX_KEYRINGS = 1_000
"""Apps whose keys are kept ready; beyond that they are made anew."""


@attrs.frozen(kw_only=True)
class AppRecord:
    """One installation of an app in one account, and what signs its deliveries."""

    account_id: str
    client_id: str
    secret: str = attrs.field(repr=False)
    previous_secrets: Sequence[str] = attrs.field(default=(), repr=False, converter=tuple[str, ...])
    """Secrets of the past that are still accepted while a rotation is under way."""


@runtime_checkable
class Credentials(Protocol):
    """What `AppCredentials` has: an app without its account."""

    @property
    def client_id(self) -> str:
        """The app installation's id."""
        ...

    @property
    def client_secret(self) -> str:
        """The current secret."""
        ...

    @property
    def previous_secrets(self) -> Sequence[str]:
        """Secrets that are still accepted."""
        ...


_Value = str | AppRecord | Credentials | Sequence[str]
Secrets = (
    str | AppRecord | Iterable[str] | Iterable[AppRecord] | Mapping[str, _Value] | Mapping[tuple[str, str], _Value]
)
"""See `WebhookReceiver`."""


@attrs.frozen(kw_only=True)
class Verified:
    """A delivery whose signature fits."""

    account_id: str
    client_id: str
    notification: Notification[Any]
    used_previous_secret: bool = False
    """It was signed with a secret of the past: the rotation is not over."""


@attrs.frozen
class _App:
    """Whom the secrets are for; None stands for anybody."""

    account_id: str | None
    client_id: str | None
    secrets: tuple[str, ...] = attrs.field(repr=False)


class WebhookReceiver:
    """Verifies deliveries of any number of apps and accounts.

    Args:
        secrets: Whom to believe:
            one client secret, or several (the current one first), for whatever account and app the headers name;
            one `AppRecord`, or several: the headers choose, and a delivery of any other account or app is refused;
            a mapping of account id, or of (account id, client id), to a secret, several secrets, or `AppCredentials`.
        max_body_bytes: Larger bodies are refused before they are hashed.
        clock: Wall-clock seconds, for `previous_secrets_needed_at`.

    Raises:
        ConfigurationError: There is no secret, or an empty one: it would verify what anybody can sign.
    """

    def __init__(
        self, secrets: Secrets, *, max_body_bytes: int = MAX_BODY_BYTES, clock: Callable[[], float] = time.time
    ) -> None:
        self.max_body_bytes = max_body_bytes
        self._clock = clock
        self._apps = _apps(secrets)
        self._keyrings: dict[tuple[str, str], Keyring] = {}
        self._needed_at: dict[tuple[str, str], float] = {}

    @property
    def previous_secrets_needed_at(self) -> Mapping[tuple[str, str], float]:
        """When an old secret was last needed, by (account id, client id): once that is long ago, it can go."""
        return MappingProxyType(self._needed_at)

    def replace_secrets(self, secrets: Secrets) -> None:
        """Believe these from now on, and none of the former."""
        self._apps = _apps(secrets)
        self._keyrings = {}

    def verify(
        self, headers: Headers, body: bytes | bytearray | memoryview, *, with_diagnosis: bool = True
    ) -> Verified:
        """The notification, if the delivery is genuine.

        Args:
            headers: Those of the request.
            body: The raw bytes; JSON that was read and written again no longer fits its signature.
            with_diagnosis: Look for the likely cause when the signature does not fit (`InvalidSignature.reason`).

        Raises:
            MissingHeader: One of the three is absent.
            WrongAccount: No secret is known for the account.
            WrongClient: No secret is known for the app.
            InvalidSignature: The signature does not fit, or comes twice.
            WebhookBodyTooLarge: The body is larger than `max_body_bytes`.
            UnreadableNotification: The signature fits, but what is signed is no notification.
            TypeError: The body is text: only the bytes of the wire can be verified.

        Source: Connector API, "Webhooks: notification protocol".
        """
        head = read_head(headers)
        notification, used_previous = self.open(head, bytes(body), with_diagnosis=with_diagnosis)
        return Verified(
            account_id=head.account_id,
            client_id=head.client_id,
            notification=notification,
            used_previous_secret=used_previous,
        )

    def open(self, head: Head, body: bytes, *, with_diagnosis: bool = True) -> tuple[Notification[Any], bool]:
        """As `verify`, with headers read before: the notification, and whether it took a secret of the past."""
        if len(body) > self.max_body_bytes:
            raise WebhookBodyTooLarge(f"the body exceeds {self.max_body_bytes} bytes")
        key = (head.account_id, head.client_id)
        keyring = self._keyrings.get(key) or self._make_keyring(*key)
        is_previous = keyring.check(body, head.signature, with_diagnosis=with_diagnosis)
        if is_previous:
            self._needed_at[key] = self._clock()
        # Only now: strangers name whatever account they like.
        if key not in self._keyrings and len(self._keyrings) < _MAX_KEYRINGS:
            self._keyrings[key] = keyring
        return read_notification(body), is_previous

    def _make_keyring(self, account_id: str, client_id: str) -> Keyring:
        of_account = [app for app in self._apps if app.account_id in {None, account_id}]
        if not of_account:
            raise WrongAccount("the delivery is for an account that is not served here")
        apps = [app for app in of_account if app.client_id in {None, client_id}]
        if not apps:
            raise WrongClient("the delivery is for an app that is not served here")
        return Keyring(
            current=[app.secrets[0] for app in apps],
            previous=[secret for app in apps for secret in app.secrets[1:]],
            others=[secret for app in self._apps if app not in apps for secret in app.secrets],
        )


def read_notification(body: bytes) -> Notification[Any]:
    """The notification in a body whose signature was verified.

    Raises:
        UnreadableNotification: It is none.
    """
    try:
        return decode_notification(body)
    except RemoteProtocolError as error:
        raise UnreadableNotification("the body is signed, but it is not a notification") from error


def _apps(secrets: Secrets) -> tuple[_App, ...]:
    if isinstance(secrets, Mapping):
        apps = tuple(_from_mapping(cast("Mapping[str | tuple[str, str], _Value]", secrets)))
    elif isinstance(secrets, str | AppRecord):
        apps = tuple(_from_records([secrets]))
    else:
        apps = tuple(_from_records(secrets))
    if not apps or not all(app.secrets and all(app.secrets) for app in apps):
        raise ConfigurationError("a webhook receiver needs at least one secret, and no empty one")
    return apps


def _from_records(secrets: Iterable[object]) -> Iterable[_App]:
    bare: list[str] = []
    for record in secrets:
        if isinstance(record, AppRecord):
            yield _App(record.account_id, record.client_id, (record.secret, *record.previous_secrets))
        elif isinstance(record, str):
            bare.append(record)
        else:
            raise ConfigurationError(f"a webhook secret is a str or an AppRecord, not {type(record).__name__}")
    if bare:
        yield _App(None, None, tuple(bare))


def _from_mapping(secrets: Mapping[str | tuple[str, str], _Value]) -> Iterable[_App]:
    for key, value in secrets.items():
        account_id, client_id = (key, None) if isinstance(key, str) else key
        if isinstance(value, AppRecord):
            yield _App(account_id, client_id or value.client_id, (value.secret, *value.previous_secrets))
        elif isinstance(value, str):
            yield _App(account_id, client_id, (value,))
        elif isinstance(value, Credentials):
            yield _App(account_id, client_id or value.client_id, (value.client_secret, *value.previous_secrets))
        else:
            yield _App(account_id, client_id, tuple(value))
