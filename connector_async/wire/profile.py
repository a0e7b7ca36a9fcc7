"""Who the consumer is: engagement attributes (SDEs) of both kinds, and private data. Nothing of it shows in a repr.

Source: Connector API, "Create conversation" (lp_sdes); published schema of userprofile.SetUserProfile.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, cast

import attrs

from connector_async.wire._base import Family, Message
from connector_async.wire._checks import each, instance, maybe, number, several_of, text, texts, whole

__all__ = [
    "Age",
    "AuthenticatedData",
    "Contact",
    "CustomerInfo",
    "CustomerInfoSde",
    "Date",
    "PersonalInfo",
    "PersonalInfoSde",
    "PrivateData",
    "PushNotificationData",
    "Sde",
    "SdeAuth",
    "UnknownSde",
]

_TEXT = maybe(text())
_INT = maybe(whole())


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Date(Message):
    """A day of the calendar."""

    day: int | None = attrs.field(default=None, repr=False, validator=maybe(whole(minimum=1, maximum=31)))
    month: int | None = attrs.field(default=None, repr=False, validator=maybe(whole(minimum=1, maximum=12)))
    year: int | None = attrs.field(default=None, repr=False, validator=_INT)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class CustomerInfo(Message):
    """What the brand knows about a customer.

    Attributes:
        ctype: The tier, such as `vip`; case does not matter.
        cstatus: The status.
        balance: A number in `currency`.
        company_size: How many work there.
        last_payment_date: A day.
        registration_date: A day.
    """

    customer_id: str | None = attrs.field(default=None, repr=False, validator=_TEXT)
    social_id: str | None = attrs.field(default=None, repr=False, validator=_TEXT)
    imei: str | None = attrs.field(default=None, repr=False, validator=_TEXT)
    user_name: str | None = attrs.field(default=None, repr=False, validator=_TEXT)
    account_name: str | None = attrs.field(default=None, repr=False, validator=_TEXT)
    role: str | None = attrs.field(default=None, repr=False, validator=_TEXT)
    company_branch: str | None = attrs.field(default=None, repr=False, validator=_TEXT)
    ctype: str | None = attrs.field(default=None, repr=False, validator=_TEXT)
    cstatus: str | None = attrs.field(default=None, repr=False, validator=_TEXT)
    currency: str | None = attrs.field(default=None, repr=False, validator=_TEXT)
    login_status: str | None = attrs.field(default=None, repr=False, validator=_TEXT)
    balance: float | None = attrs.field(default=None, repr=False, validator=maybe(number))
    company_size: int | None = attrs.field(default=None, repr=False, validator=maybe(whole(minimum=0)))
    last_payment_date: Date | None = attrs.field(default=None, repr=False, validator=maybe(instance(Date)))
    registration_date: Date | None = attrs.field(default=None, repr=False, validator=maybe(instance(Date)))


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Age(Message):
    """How old somebody is, in years, or when they were born."""

    age: int | None = attrs.field(default=None, repr=False, validator=maybe(whole(minimum=0)))
    year: int | None = attrs.field(default=None, repr=False, validator=_INT)
    month: int | None = attrs.field(default=None, repr=False, validator=maybe(whole(minimum=1, maximum=12)))
    day: int | None = attrs.field(default=None, repr=False, validator=maybe(whole(minimum=1, maximum=31)))


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Contact(Message):
    """A way to reach somebody."""

    email: str | None = attrs.field(default=None, repr=False, validator=_TEXT)
    phone: str | None = attrs.field(default=None, repr=False, validator=_TEXT)
    phone_type: str | None = attrs.field(default=None, repr=False, validator=_TEXT)
    address: object = attrs.field(default=None, repr=False, hash=False)
    preferred_contact_method: str | None = attrs.field(default=None, repr=False, validator=_TEXT)


def _as_contacts(contacts: Iterable[Contact] | Contact) -> tuple[Contact, ...]:
    several: tuple[Contact, ...] = several_of(Contact, contacts)
    return several


@attrs.frozen(kw_only=True, eq=False, repr=False)
class PersonalInfo(Message):
    """Who somebody is.

    Attributes:
        gender: See `Gender`.
        age: In years, or by day of birth.
        contacts: How to reach them.
    """

    first_name: str | None = attrs.field(default=None, repr=False, validator=_TEXT, metadata={"wire": "firstname"})
    last_name: str | None = attrs.field(default=None, repr=False, validator=_TEXT, metadata={"wire": "lastname"})
    gender: str | None = attrs.field(default=None, repr=False, validator=_TEXT)
    age: Age | None = attrs.field(default=None, repr=False, validator=maybe(instance(Age)))
    language: str | None = attrs.field(default=None, repr=False, validator=_TEXT)
    company: str | None = attrs.field(default=None, repr=False, validator=_TEXT)
    contacts: tuple[Contact, ...] = attrs.field(
        default=(), repr=False, converter=_as_contacts, validator=each(instance(Contact))
    )


@attrs.frozen(kw_only=True, eq=False, repr=False)
class SdeAuth(Message):
    """Who vouches for an attribute, and how they know."""

    amr: tuple[str, ...] = attrs.field(default=(), converter=texts, validator=each(text()))
    iss: str | None = attrs.field(default=None, validator=_TEXT)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Sde(Family):
    """Base of the engagement attributes that a profile takes: customer info and personal info.

    Attributes:
        auth: Who vouches for it, or None.
    """

    KEY: ClassVar[str] = "type"

    auth: SdeAuth | None = attrs.field(default=None, validator=maybe(instance(SdeAuth)))


@attrs.frozen(eq=False, repr=False)
class CustomerInfoSde(Sde):
    """Customer info (`ctmrinfo`)."""

    TYPE: ClassVar[str] = "ctmrinfo"

    info: CustomerInfo = attrs.field(repr=False, validator=instance(CustomerInfo))


@attrs.frozen(eq=False, repr=False)
class PersonalInfoSde(Sde):
    """Personal info (`personal`)."""

    TYPE: ClassVar[str] = "personal"

    personal: PersonalInfo = attrs.field(repr=False, validator=instance(PersonalInfo))


@attrs.frozen(eq=False, repr=False)
class UnknownSde(Sde):
    """An attribute of a type that this version does not know; its fields are in `extra`."""

    type: str | None = None

    @property
    def wire_type(self) -> str:
        """The type that it came with."""
        return self.type or ""


def _as_sdes(
    sdes: Iterable[Sde | CustomerInfo | PersonalInfo] | Sde | CustomerInfo | PersonalInfo,
) -> tuple[Sde, ...]:
    several: Any = several_of(Message, sdes)
    if not isinstance(several, tuple):  # for the validator to name its field
        return cast("tuple[Sde, ...]", several)
    given = cast("tuple[Sde | CustomerInfo | PersonalInfo, ...]", several)
    return tuple([_as_sde(sde) for sde in given])


def _as_sde(sde: Sde | CustomerInfo | PersonalInfo) -> Sde:
    if isinstance(sde, CustomerInfo):
        return CustomerInfoSde(sde)
    return PersonalInfoSde(sde) if isinstance(sde, PersonalInfo) else sde


@attrs.frozen(eq=False, repr=False)
class AuthenticatedData(Message):
    """What the connector vouches for about a consumer.

    Attributes:
        lp_sdes: `CustomerInfo` and `PersonalInfo` are taken as they are; the API accepts no other kinds here.
    """

    lp_sdes: tuple[Sde, ...] = attrs.field(
        default=(),
        repr=False,
        converter=_as_sdes,
        validator=each(instance(CustomerInfoSde, PersonalInfoSde)),
        metadata={"wire": "lp_sdes"},
    )


@attrs.frozen(kw_only=True, eq=False, repr=False)
class PushNotificationData(Message):
    """How to push to the consumer's device."""

    service_name: str | None = attrs.field(default=None, validator=_TEXT)
    cert_name: str | None = attrs.field(default=None, validator=_TEXT)
    token: str | None = attrs.field(default=None, repr=False, validator=_TEXT)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class PrivateData(Message):
    """What only the brand may see."""

    mobile_num: str | None = attrs.field(default=None, repr=False, validator=_TEXT)
    mail: str | None = attrs.field(default=None, repr=False, validator=_TEXT)
    push_notification_data: PushNotificationData | None = attrs.field(
        default=None, repr=False, validator=maybe(instance(PushNotificationData))
    )
