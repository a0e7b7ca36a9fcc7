"""Where a consumer comes from and what their side can do: campaign, context, client properties."""

from __future__ import annotations

import ipaddress
from typing import Any, Final

import attrs

from connector_async.wire._base import Message
from connector_async.wire._checks import each, identifier, instance, maybe, text, texts
from connector_async.wire._converter import writers
from connector_async.wire._writing import dump

__all__ = ["CampaignInfo", "ClientProperties", "ConversationContext"]


@attrs.frozen(kw_only=True, eq=False, repr=False)
class CampaignInfo(Message):
    """The campaign and engagement that a conversation belongs to: both ids, from Monitoring or the campaign UI.

    Each may be text or a number and keeps its form.
    """

    campaign_id: int | str = attrs.field(validator=identifier)
    engagement_id: int | str = attrs.field(validator=identifier)


def _check_address(owner: object, attribute: attrs.Attribute[Any], value: str | None) -> None:
    maybe(text(maximum=32))(owner, attribute, value)
    if value is not None:
        try:
            ipaddress.IPv4Address(value)
        except ValueError:
            msg = "ClientProperties.ip_address must be an IPv4 address"
            raise ValueError(msg) from None


_SHORT: Final = maybe(text(maximum=64))


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ClientProperties(Message):
    """What the consumer's side can do, and on what it runs.

    As a header it must then be on every CONVERSATION and SEND request of the conversation; `to_header` writes it.

    Attributes:
        features: See `Feature`.
        type: `.ClientProperties` for HTTP.
        app_id: At most 64 characters, as all that follow, except:
        app_version: At most 32 characters.
        ip_address: IPv4.

    Source: Connector API examples, "Client-Properties"; published schema.
    """

    type: str = attrs.field(default=".ClientProperties", validator=text(minimum=1, maximum=64))
    features: tuple[str, ...] = attrs.field(default=(), converter=texts, validator=each(text(minimum=1)))
    app_id: str | None = attrs.field(default=None, validator=_SHORT)
    app_version: str | None = attrs.field(default=None, validator=maybe(text(maximum=32)))
    ip_address: str | None = attrs.field(default=None, repr=False, validator=_check_address)
    device_family: str | None = attrs.field(default=None, validator=_SHORT)
    os: str | None = attrs.field(default=None, validator=_SHORT)
    os_name: str | None = attrs.field(default=None, validator=_SHORT)
    os_version: str | None = attrs.field(default=None, validator=_SHORT)
    integration: str | None = attrs.field(default=None, validator=_SHORT)
    integration_version: str | None = attrs.field(default=None, validator=_SHORT)
    browser: str | None = attrs.field(default=None, validator=_SHORT)
    browser_version: str | None = attrs.field(default=None, validator=_SHORT)
    time_zone: str | None = attrs.field(default=None, validator=_SHORT)
    device_manufacture: str | None = attrs.field(default=None, validator=_SHORT)
    device_model: str | None = attrs.field(default=None, validator=_SHORT)

    def to_header(self) -> str:
        """The value of the `Client-Properties` header: compact JSON in ASCII.

        Raises:
            LocalProtocolError: A value in `extra` has no JSON form.
        """
        compact = dump(writers[type(self)](self)).decode()
        # Header values are ASCII; JSON can spell every other letter with escapes.
        return compact if compact.isascii() else _escaped(compact)


def _escaped(compact: str) -> str:
    return "".join(
        letter
        if letter.isascii()
        else "".join(f"\\u{unit}" for unit in letter.encode("utf-16-be").hex("-", 2).split("-"))
        for letter in compact
    )


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ConversationContext(Message):
    """Where on the brand's side the conversation begins; needed with values from Monitoring.

    Attributes:
        type: `SharkContext` with campaigns; others are seen in notifications.
        visitor_id: From Monitoring; may be empty.
        session_id: From Monitoring; may be empty.
        interaction_context_id: Monitoring's `contextId`, text or number.
        lang: Such as `en-US`; must be configured on the engagement.
        client_properties: In notifications only.
    """

    type: str | None = attrs.field(default="SharkContext", validator=maybe(text(minimum=1)))
    visitor_id: str | None = attrs.field(default=None, validator=maybe(text()))
    session_id: str | None = attrs.field(default=None, validator=maybe(text()))
    interaction_context_id: int | str | None = attrs.field(default=None, validator=maybe(identifier))
    lang: str | None = attrs.field(default=None, validator=maybe(text()))
    features: tuple[str, ...] = attrs.field(default=(), converter=texts, validator=each(text(minimum=1)))
    client_properties: ClientProperties | None = attrs.field(
        default=None, validator=maybe(instance(ClientProperties))
    )
