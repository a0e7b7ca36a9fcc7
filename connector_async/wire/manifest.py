"""The app manifest: what an app installation says about itself, its webhooks and its campaigns.

Build one in code, where each field is checked at once, or read one and ask for its `problems()`. Names are in
snake_case on the wire, unlike those of messages.

Source: Connector API, "Getting started" and "Webhooks: configuration".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, Final
from urllib.parse import urlsplit

import attrs
import orjson

from connector_async.errors import RemoteProtocolError
from connector_async.wire._base import Message
from connector_async.wire._checks import each, instance, maybe, text, texts, truth, whole
from connector_async.wire._converter import read_as, readers, writers
from connector_async.wire._reading import is_array
from connector_async.wire._writing import dump
from connector_async.wire.vocabulary import WebhookEvent

__all__ = [
    "AppManifest",
    "BroadcastCapability",
    "Capabilities",
    "EngagementCapability",
    "WebhookEndpoint",
    "WebhookHeader",
    "WebhookRetry",
    "Webhooks",
    "parse_manifest",
]

MIN_RETENTION: Final = 2  # seconds
MAX_RETENTION: Final = 259_200  # seconds: three days
MAX_RETRIES: Final = 5

_TEXTS: Final = each(text())


@attrs.frozen(kw_only=True, eq=False, repr=False)
class WebhookHeader(Message):
    """A header that the vendor adds to each delivery."""

    SNAKE: ClassVar[bool] = True

    header_name: str = attrs.field(validator=text(minimum=1))
    header_value: str = attrs.field(repr=False, validator=text())


def _check_https(owner: object, attribute: attrs.Attribute[Any], value: object) -> None:
    text(minimum=1)(owner, attribute, value)
    try:
        url = urlsplit(str(value))
        is_fit = url.scheme == "https" and url.hostname and url.username is None and not url.fragment
    except ValueError:
        is_fit = False
    if not is_fit:
        msg = f"{type(owner).__name__}.{attribute.name} must be an https URL with a host, without user or fragment"
        raise ValueError(msg)


def _as_headers(headers: Iterable[WebhookHeader]) -> tuple[WebhookHeader, ...]:
    return tuple(headers)


@attrs.frozen(eq=False, repr=False)
class WebhookEndpoint(Message):
    """Where one kind of event is delivered.

    Attributes:
        endpoint: An https URL; a query is allowed.
        max_retries: 0 to 5 retries 30 seconds apart; deprecated in favour of `WebhookRetry`. With one, 0 means that
            failures of this kind do not start it.
        headers: Added to each delivery.
    """

    SNAKE: ClassVar[bool] = True

    endpoint: str = attrs.field(validator=_check_https)
    max_retries: int | None = attrs.field(
        default=None, kw_only=True, validator=maybe(whole(minimum=0, maximum=MAX_RETRIES))
    )
    headers: tuple[WebhookHeader, ...] = attrs.field(default=(), kw_only=True, converter=_as_headers)


@attrs.frozen(eq=False, repr=False)
class WebhookRetry(Message):
    """How long undelivered events are kept and tried again: 2 seconds to 3 days."""

    SNAKE: ClassVar[bool] = True

    retention_time: int = attrs.field(validator=whole(minimum=MIN_RETENTION, maximum=MAX_RETENTION))


def _as_endpoint(endpoint: WebhookEndpoint | str | None) -> WebhookEndpoint | None:
    return WebhookEndpoint(endpoint) if isinstance(endpoint, str) else endpoint


def _endpoint(event: WebhookEvent) -> dict[str, str]:
    return {"wire": event.value}


_ENDPOINT: Final = maybe(instance(WebhookEndpoint))


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Webhooks(Message):
    """Where the kinds of event are delivered; a URL may stand for an endpoint, None for no delivery."""

    SNAKE: ClassVar[bool] = True

    content_event: WebhookEndpoint | None = attrs.field(
        default=None, converter=_as_endpoint, validator=_ENDPOINT, metadata=_endpoint(WebhookEvent.CONTENT)
    )
    rich_content_event: WebhookEndpoint | None = attrs.field(
        default=None, converter=_as_endpoint, validator=_ENDPOINT, metadata=_endpoint(WebhookEvent.RICH_CONTENT)
    )
    accept_status_event: WebhookEndpoint | None = attrs.field(
        default=None, converter=_as_endpoint, validator=_ENDPOINT, metadata=_endpoint(WebhookEvent.ACCEPT_STATUS)
    )
    chat_state_event: WebhookEndpoint | None = attrs.field(
        default=None, converter=_as_endpoint, validator=_ENDPOINT, metadata=_endpoint(WebhookEvent.CHAT_STATE)
    )
    conversation_change: WebhookEndpoint | None = attrs.field(
        default=None,
        converter=_as_endpoint,
        validator=_ENDPOINT,
        metadata=_endpoint(WebhookEvent.CONVERSATION_CHANGE),
    )
    retry: WebhookRetry | None = attrs.field(default=None, validator=maybe(instance(WebhookRetry)))

    @classmethod
    def to(cls, endpoint: WebhookEndpoint | str, *, retention: int | None = 86_400) -> Webhooks:
        """Deliver everything to one endpoint.

        Args:
            endpoint: An https URL, or an endpoint with headers.
            retention: Seconds for which undelivered events are kept; None to lose them after one attempt.
        """
        return cls(
            content_event=endpoint,
            rich_content_event=endpoint,
            accept_status_event=endpoint,
            chat_state_event=endpoint,
            conversation_change=endpoint,
            retry=None if retention is None else WebhookRetry(retention),
        )


@attrs.frozen(kw_only=True, eq=False, repr=False)
class EngagementCapability(Message):
    """What campaigns may use of this app; needed for campaign routing.

    The defaults are those of the vendor's example.
    """

    SNAKE: ClassVar[bool] = True

    design_engagement: bool = attrs.field(default=False, validator=truth)
    design_window: bool = attrs.field(default=False, validator=truth)
    entry_point: tuple[str, ...] = attrs.field(default=("section",), converter=texts, validator=_TEXTS)
    visitor_behavior: tuple[str, ...] = attrs.field(
        default=(
            "visited_location",
            "time_on_location",
            "flow",
            "engaged_in_session",
            "about_to_abandon",
            "cart_value",
            "cart_items",
            "visitor_error",
            "viewed_products",
            "service_activity",
        ),
        converter=texts,
        validator=_TEXTS,
    )
    target_audience: tuple[str, ...] = attrs.field(
        default=(
            "external_referral",
            "search_keywords",
            "ip",
            "platform",
            "geo_location",
            "returning_visitors",
            "marketing_source",
            "customer_type",
            "age",
            "balance",
            "customer_id",
            "gender",
            "store_zip_code",
            "store_number",
            "company_size",
            "registration_date",
        ),
        converter=texts,
        validator=_TEXTS,
    )
    goal: tuple[str, ...] = attrs.field(
        default=("url", "purchase_total", "num_of_pages", "lead", "service_activity"),
        converter=texts,
        validator=_TEXTS,
    )
    consumer_identity: tuple[str, ...] = attrs.field(default=("auth",), converter=texts, validator=_TEXTS)
    language_selection: bool = attrs.field(default=False, validator=truth)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class BroadcastCapability(Message):
    """Seen in manifests that the vendor returns."""

    SNAKE: ClassVar[bool] = True

    enabled: bool | None = attrs.field(default=None, validator=maybe(truth))


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Capabilities(Message):
    """What the app takes part in."""

    SNAKE: ClassVar[bool] = True

    webhooks: Webhooks | None = attrs.field(default=None, validator=maybe(instance(Webhooks)))
    engagement: EngagementCapability | None = attrs.field(
        default=None, validator=maybe(instance(EngagementCapability))
    )
    broadcast: BroadcastCapability | None = attrs.field(default=None, validator=maybe(instance(BroadcastCapability)))


@attrs.frozen(kw_only=True, eq=False, repr=False)
class AppManifest(Message):
    """An app installation.

    Attributes:
        client_name: Unique, 1 to 128 characters; agents see it as the source of conversations.
        grant_types: `client_credentials` for a connector.
        scope: `msg.consumer` for a connector.
        display_name: At most 128 characters.
        description: At most 256 characters.
        logo_uri: At most 1,024 characters; 70 by 70 pixels.
        redirect_uris: At most 128 characters each.
        enabled: The vendor's default is true.
        capabilities: Webhooks, and campaigns.
        client_id, client_secret, client_id_issued_at, client_secret_expires_at, id, deleted: Only returned by the
            vendor; times are in seconds, and an expiry of 0 means never.
    """

    SNAKE: ClassVar[bool] = True

    client_name: str = attrs.field(validator=text(minimum=1, maximum=128))
    display_name: str | None = attrs.field(default=None, validator=maybe(text(maximum=128)))
    description: str | None = attrs.field(default=None, validator=maybe(text(maximum=256)))
    grant_types: tuple[str, ...] = attrs.field(default=("client_credentials",), converter=texts, validator=_TEXTS)
    response_types: tuple[str, ...] = attrs.field(default=(), converter=texts, validator=_TEXTS)
    redirect_uris: tuple[str, ...] = attrs.field(default=(), converter=texts, validator=each(text(maximum=128)))
    scope: str | None = attrs.field(default="msg.consumer", validator=maybe(text(maximum=128)))
    logo_uri: str | None = attrs.field(default=None, validator=maybe(text(maximum=1024)))
    enabled: bool | None = attrs.field(default=None, validator=maybe(truth))
    quick_launch_enabled: bool | None = attrs.field(default=None, validator=maybe(truth))
    entry_uri: str | None = attrs.field(default=None, validator=maybe(text()))
    capabilities: Capabilities | None = attrs.field(default=None, validator=maybe(instance(Capabilities)))
    client_id: str | None = attrs.field(default=None, validator=maybe(text()))
    client_secret: str | None = attrs.field(default=None, repr=False, validator=maybe(text()))
    client_id_issued_at: int | None = attrs.field(default=None, validator=maybe(whole()))
    client_secret_expires_at: int | None = attrs.field(default=None, validator=maybe(whole()))
    id: int | str | None = None
    deleted: bool | None = attrs.field(default=None, validator=maybe(truth))

    def to_json(self) -> str:
        """The manifest as indented JSON.

        Raises:
            LocalProtocolError: A value in it has no JSON form.
        """
        return dump(writers[AppManifest](self), orjson.OPT_INDENT_2).decode()

    def problems(self) -> list[str]:
        """Say in sentences what keeps this manifest from working for a connector; nothing when all is well.

        A manifest that was built in code has passed these checks, but for what it leaves out.
        """
        found = list(_problems(self))
        if "client_credentials" not in self.grant_types or "grant_types" not in writers[AppManifest](self):
            found.append("AppManifest.grant_types must contain client_credentials for a connector")
        if "msg.consumer" not in (self.scope or "").split() or "scope" not in writers[AppManifest](self):
            found.append("AppManifest.scope must contain msg.consumer for a connector")
        return found


def _problems(message: Message) -> Iterator[str]:
    cls = type(message)
    if isinstance(message, Webhooks):
        yield from (_wrong_event(name) for name in message.extra)
    else:
        yield from (f"{cls.__name__}: {name} is not known, or cannot be read" for name in message.extra)
    for attribute in attrs.fields(cls):
        value = getattr(message, attribute.name)
        if attribute.validator is not None:
            try:
                attribute.validator(message, attribute, value)
            except (TypeError, ValueError) as error:
                yield str(error)
        for part in value if is_array(value) else (value,):
            if isinstance(part, Message):
                yield from _problems(part)


def _wrong_event(name: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, [event.value for event in WebhookEvent], n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"Webhooks: {name} is no event, or its endpoint cannot be read{hint}"


def parse_manifest(obj: object) -> AppManifest:
    """Read a manifest from a JSON value, or from JSON text or bytes.

    It is not checked: ask it for its `problems()`.

    Raises:
        RemoteProtocolError: It is no manifest.
    """
    if isinstance(obj, str | bytes | bytearray):
        try:
            obj = orjson.loads(obj)
        except ValueError:
            raise RemoteProtocolError("cannot read the manifest: it is no JSON") from None
    manifest: AppManifest = read_as("manifest", readers[AppManifest], obj)
    return manifest
