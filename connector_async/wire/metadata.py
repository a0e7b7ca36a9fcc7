"""Items of `metadata`: what stands beside a message about it, from cards, bots, surveys and connectors.

The list is open: an item of a new type is an `UnknownMetadata` with all its fields in `extra`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import attrs

from connector_async.wire._checks import (
    anything,
    each,
    identifier,
    mapping,
    mappings,
    maybe,
    number,
    text,
    texts,
    things,
    truth,
)
from connector_async.wire._metadata import MetadataItem

__all__ = [
    "ActionReason",
    "Answer",
    "BotResponse",
    "ConnectorAuthenticationResponse",
    "ConnectorPaymentResponse",
    "EscalationSummary",
    "ExternalId",
    "MetadataItem",
    "Question",
    "SocialMessagingEventData",
    "UnknownMetadata",
]


@attrs.frozen(eq=False, repr=False)
class ExternalId(MetadataItem):
    """The id that the author of a card gave to the element that was used.

    Attributes:
        id: At most 64 characters.
    """

    TYPE: ClassVar[str] = "ExternalId"

    id: str = attrs.field(validator=text(maximum=64))


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Answer(MetadataItem):
    """The answer that a consumer chose in a survey; copied from the reply's `click.metadata`."""

    TYPE: ClassVar[str] = "Answer"

    question_id: str | None = attrs.field(default=None, validator=maybe(text()))
    id: str | None = attrs.field(default=None, validator=maybe(text()))
    provider: str | None = attrs.field(default=None, validator=maybe(text()))
    group_id: str | None = attrs.field(default=None, validator=maybe(text()))


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Question(MetadataItem):
    """The question that a survey bot asks with a message; `replies` are the ids of the possible answers."""

    TYPE: ClassVar[str] = "Question"

    id: str | None = attrs.field(default=None, validator=maybe(text()))
    group_id: str | None = attrs.field(default=None, validator=maybe(text()))
    survey_id: str | None = attrs.field(default=None, validator=maybe(text()))
    provider: str | None = attrs.field(default=None, validator=maybe(text()))
    replies: tuple[str, ...] = attrs.field(default=(), converter=texts, validator=each(text()))


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ActionReason(MetadataItem):
    """Why a bot or agent did something; both texts have at most 64 characters."""

    TYPE: ClassVar[str] = "ActionReason"

    reason_id: str | None = attrs.field(default=None, validator=maybe(text(maximum=64)))
    reason: str | None = attrs.field(default=None, validator=maybe(text(maximum=64)))


@attrs.frozen(kw_only=True, eq=False, repr=False)
class BotResponse(MetadataItem):
    """What a bot understood: at most 256 business cases and 16 intents (`id`, `name`, `confidence` …)."""

    TYPE: ClassVar[str] = "BotResponse"

    external_conversation_id: str | None = attrs.field(default=None, validator=maybe(text(maximum=64)))
    business_cases: tuple[str, ...] = attrs.field(default=(), converter=texts, validator=each(text(), maximum=256))
    intents: tuple[Mapping[str, object], ...] = attrs.field(
        default=(), repr=False, hash=False, converter=mappings, validator=each(mapping, maximum=16)
    )


@attrs.frozen(kw_only=True, eq=False, repr=False)
class EscalationSummary(MetadataItem):
    """Why a bot handed a conversation over; the duration's unit is the bot's."""

    TYPE: ClassVar[str] = "EscalationSummary"

    escalation_cause: str | None = attrs.field(default=None, validator=maybe(text()))
    business_cases: tuple[str, ...] = attrs.field(default=(), converter=texts, validator=each(text()))
    conversation_duration: float | None = attrs.field(default=None, validator=maybe(number))
    escalated_during_business_case: str | None = attrs.field(default=None, validator=maybe(text()))


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ConnectorPaymentResponse(MetadataItem):
    """How a payment that the brand asked for ended."""

    TYPE: ClassVar[str] = "ConnectorPaymentResponse"

    status: bool = attrs.field(validator=truth)
    request_identifier: str | None = attrs.field(default=None, validator=maybe(text()))


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ConnectorAuthenticationResponse(MetadataItem):
    """How an authentication that the brand asked for ended."""

    TYPE: ClassVar[str] = "ConnectorAuthenticationResponse"

    status: bool = attrs.field(validator=truth)
    token: str | None = attrs.field(default=None, repr=False, validator=maybe(text()))
    errors: tuple[object, ...] = attrs.field(
        default=(), repr=False, hash=False, converter=things, validator=each(anything)
    )


@attrs.frozen(kw_only=True, eq=False, repr=False)
class SocialMessagingEventData(MetadataItem):
    """Where on a social channel a message belongs."""

    TYPE: ClassVar[str] = "SocialMessagingEventData"

    event: object = attrs.field(default=None, repr=False, hash=False)
    channel: str | None = attrs.field(default=None, validator=maybe(text()))
    reply_to_id: int | str | None = attrs.field(default=None, validator=maybe(identifier))
    conversation_state: str | None = attrs.field(default=None, validator=maybe(text()))
    actions: tuple[object, ...] = attrs.field(
        default=(), repr=False, hash=False, converter=things, validator=each(anything)
    )


@attrs.frozen(eq=False, repr=False)
class UnknownMetadata(MetadataItem):
    """An item of a type that this version does not know; its fields are in `extra`."""

    type: str | None = attrs.field(default=None, validator=maybe(text()))

    @property
    def wire_type(self) -> str:
        """The type that it came with."""
        return self.type or ""
