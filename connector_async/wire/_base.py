"""What every message has: the fields nobody knows yet, and the form in which it came.

Absent, null, a bare single element and digits written as text all mean the same as their typed form, so the typed
attributes hide the difference. `_forms` keeps it, by wire name, so that `to_wire(parse(x)) == x`. It is no argument:
`attrs.evolve` starts without it, and a changed message is written in the plain form.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import Enum
from typing import ClassVar, Final, NamedTuple

import attrs

__all__ = ["NOTHING", "Family", "Form", "Message", "Nothing"]


class Form(Enum):
    """How a field stood on the wire where that is not how we would write it."""

    ABSENT = "absent"
    BARE = "bare"


class Nothing(Mapping[str, object]):
    """The empty mapping that all messages without surprises share: immutable, and fit for copy and pickle."""

    __slots__ = ()

    def __getitem__(self, key: str) -> object:
        """Nothing is in here."""
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        """Yield no name."""
        return iter(())

    def __len__(self) -> int:
        """Count nothing."""
        return 0

    def __repr__(self) -> str:
        """Look like the empty dict that it stands for."""
        return "{}"

    def __reduce__(self) -> str:
        """Stay one object through copy and pickle."""
        return "NOTHING"


NOTHING: Final = Nothing()


class _Names(NamedTuple):
    compared: tuple[str, ...]
    hashed: tuple[str, ...]
    shown: tuple[str, ...]


_NAMES: Final[dict[type, _Names]] = {}


def _names(cls: type) -> _Names:
    """The attributes that equality, hash and repr look at."""
    return _NAMES.get(cls) or _NAMES.setdefault(cls, _find_names(cls))


def _find_names(cls: type) -> _Names:
    fields: tuple[attrs.Attribute[object], ...] = attrs.fields(cls)
    return _Names(
        compared=tuple([field.name for field in fields if field.eq]),
        hashed=tuple([field.name for field in fields if field.eq and field.hash is not False]),
        shown=tuple([field.name for field in fields if field.repr]),
    )


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Message:
    """Base of everything that goes over the wire.

    Attributes:
        extra: Fields that this version does not know, or could not read, by their wire name. They are written back.
        VERBATIM: The attribute that is the whole message on the wire, for classes that stand for any JSON value.
        SNAKE: Whether the wire names are the attributes' own.
    """

    VERBATIM: ClassVar[str] = ""
    SNAKE: ClassVar[bool] = False

    extra: Mapping[str, object] = attrs.field(default=NOTHING, repr=False, hash=False)
    _forms: Mapping[str, object] = attrs.field(default=NOTHING, init=False, repr=False, eq=False)

    # Written once, not generated for each of some eighty classes: that would cost a third of the import time.

    def __eq__(self, other: object) -> bool:
        """Whether it is of the same class and says the same; the form in which it came does not count."""
        if other.__class__ is not self.__class__:
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in _names(self.__class__).compared)

    def __hash__(self) -> int:
        """Agree with equality; fields that hold JSON objects are left out."""
        return hash((self.__class__, *[getattr(self, name) for name in _names(self.__class__).hashed]))

    def __repr__(self) -> str:
        """Show what is set, without texts, tokens and personal data."""
        shown = [(name, getattr(self, name)) for name in _names(self.__class__).shown]
        facts = ", ".join([f"{name}={_shown(name, value)}" for name, value in shown if value not in (None, ())])
        return f"{self.__class__.__name__}({facts})"


def _shown(name: str, value: object) -> str:
    """A typed value as itself; an untyped JSON value could be a text or hold one, and shows only its kind."""
    if isinstance(value, Mapping):
        return "{...}"
    if name == "body" and isinstance(value, str):
        return "'...'"
    return "[...]" if isinstance(value, list) else repr(value)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Family(Message):
    """Base of messages of which one field on the wire says which kind it is.

    Attributes:
        KEY: The name of that field.
        TYPE: Its value for this class; empty in the base of a family and in the class for unknown kinds.
        KINDS: Its values, for a class that stands for several and keeps which in an attribute.
        HOME: The module of the members, which reading imports, where it is not that of the base.
    """

    KEY: ClassVar[str] = "type"
    TYPE: ClassVar[str] = ""
    KINDS: ClassVar[tuple[str, ...]] = ()
    HOME: ClassVar[str] = ""

    @property
    def wire_type(self) -> str:
        """The kind as the wire names it."""
        return self.TYPE
