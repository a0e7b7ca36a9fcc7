"""Reading one field, and what is noted while an object is read.

The rules of tolerance stand here and nowhere else: what counts as absent, which other spellings of a value are
understood, and what becomes of a value that is not. They hold for received data only; what we build ourselves is
checked by the validators of the classes, which reading does not run.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeGuard

import attrs

from connector_async.wire._base import NOTHING, Form

__all__ = [
    "ABSENT",
    "Failure",
    "Field",
    "Malformed",
    "Notes",
    "Unreadable",
    "as_object",
    "is_array",
    "is_mapping",
    "is_object",
    "read_scalar",
]

ABSENT: Final = Form.ABSENT

_DIGITS: Final = re.compile(r"-?[0-9]{1,18}", re.ASCII)  # 18: what certainly fits 64 bits


def is_object(value: object) -> TypeGuard[dict[str, Any]]:
    """Whether it is a JSON object."""
    return isinstance(value, dict)


def is_array(value: object) -> TypeGuard[Sequence[Any]]:
    """Whether it is a JSON array; a tuple may stand for one in what people write by hand."""
    return isinstance(value, list | tuple)


def is_mapping(value: object) -> TypeGuard[Mapping[Any, Any]]:
    """Whether it is an object of any kind."""
    return isinstance(value, Mapping)


class Malformed(ValueError):
    """A value is not of the kind that its place asks for; the message never shows the value."""


class Unreadable(Malformed):
    """An object lacks what it needs, or items of an array do.

    Attributes:
        causes: What is wrong, each with its place in the object or array: `.event`, `[3]`.
    """

    def __init__(self, words: str, causes: Sequence[tuple[str, Exception]]) -> None:
        super().__init__(words)
        self.causes = causes


_JSON_NAMES: Final[Mapping[type, str]] = {
    dict: "an object",
    list: "an array",
    tuple: "an array",
    str: "text",
    bool: "a truth value",
    int: "a number",
    float: "a number",
    type(None): "null",
}


def _name_of(value: object) -> str:
    return _JSON_NAMES.get(type(value), "no JSON value")


def as_object(value: object) -> dict[Any, Any]:
    """Take a JSON object, or whatever mapping stands for one."""
    if is_mapping(value):
        return dict(value)
    msg = f"must be an object, not {_name_of(value)}"
    raise Malformed(msg)


def _text(raw: Any) -> str:
    """Take text; a number is understood as its digits, since ids are seen in both forms."""
    if isinstance(raw, str):
        return raw
    if isinstance(raw, int) and not isinstance(raw, bool):
        return str(raw)
    msg = f"must be text, not {_name_of(raw)}"
    raise Malformed(msg)


def _integer(raw: Any) -> int:
    """Take a whole number, also one written as text."""
    if isinstance(raw, int) and not isinstance(raw, bool):
        return raw
    if isinstance(raw, str) and _DIGITS.fullmatch(raw):
        return int(raw)
    msg = f"must be a whole number, not {_name_of(raw)}"
    raise Malformed(msg)


def _number(raw: Any) -> float:
    if isinstance(raw, int | float) and not isinstance(raw, bool):
        return raw
    msg = f"must be a number, not {_name_of(raw)}"
    raise Malformed(msg)


def _truth(raw: Any) -> bool:
    if isinstance(raw, bool):
        return raw
    msg = f"must be true or false, not {_name_of(raw)}"
    raise Malformed(msg)


def _text_or_number(raw: Any) -> int | str:
    """Take an id in either form, and leave it in that form."""
    if isinstance(raw, int | str) and not isinstance(raw, bool):
        return raw
    msg = f"must be text or a whole number, not {_name_of(raw)}"
    raise Malformed(msg)


def _mapping(raw: Any) -> Mapping[str, object]:
    if is_mapping(raw):
        return raw
    msg = f"must be an object, not {_name_of(raw)}"
    raise Malformed(msg)


def _anything(raw: Any) -> object:
    return raw


_SCALARS: Final[Mapping[str, Callable[[object], object]]] = {
    "str": _text,
    "int": _integer,
    "float": _number,
    "bool": _truth,
    "id": _text_or_number,
    "mapping": _mapping,
    "any": _anything,
}


def read_scalar(kind: str) -> Callable[[object], object]:
    """The reader of a value that holds no message."""
    return _SCALARS[kind]


@attrs.frozen(kw_only=True)
class Field:
    """One field of a message class, as reading and writing see it.

    Attributes:
        name: The attribute.
        wire: Its name on the wire.
        kind: `str`, `int`, `float`, `bool`, `id`, `mapping`, `any`, `message`, `context`, or `content`: a context in
            which text stands for itself.
        many: A tuple of such values.
        required: The class gives no default.
        strict: A value that cannot be read is an error although the field may be absent.
        default: What an absent field means.
        reader: Gives `read`; late, for a class that is only written needs none of the classes in it read.
        other: Reads what is no object (or, of `many`, no array), where the field has such a second form.
    """

    name: str
    wire: str
    kind: str
    many: bool
    required: bool
    strict: bool
    default: object
    reader: Callable[[], Callable[..., Any]]
    other: Callable[[Any], Any] | None

    @property
    def read(self) -> Callable[..., Any]:
        """From one JSON value to the typed one; raises `Malformed`.

        The reader of a `context` field is also given the whole object and the caller's argument, because they decide
        what the value is.
        """
        return self.reader()

    @property
    def is_omitted(self) -> bool:
        """Whether the default is written as nothing at all."""
        return not self.required and (self.default is None or self.default == ())


@attrs.frozen
class Failure:
    """A required field that is missing or cannot be read."""

    field: Field
    raw: Any
    error: Exception


class Notes:
    """What is noted while one object is read: odd forms, unreadable fields, errors."""

    __slots__ = ("errors", "extra", "forms", "source")

    def __init__(self, source: dict[str, Any]) -> None:
        self.source = source
        self.forms: dict[str, object] = {}
        self.extra: dict[str, object] = {}
        self.errors: list[Failure] = []

    def read(self, field: Field, raw: Any) -> object:
        """Read a field that does not stand in its plain form; the default where nothing can be read."""
        if raw is ABSENT:
            return self._absent(field)
        if field.is_omitted and (raw is None or (field.many and raw == [])):
            self.forms[field.wire] = raw
            return field.default if raw is None else ()
        try:
            return self._many(field, raw) if field.many else self._one(field, raw)
        except Malformed as error:
            return self.failed(field, raw, error)

    def _absent(self, field: Field) -> object:
        if field.required:
            self.errors.append(Failure(field, raw=None, error=KeyError(field.wire)))
        else:  # one that is written unless told otherwise; of those that are omitted nothing needs noting
            self.forms[field.wire] = Form.ABSENT
        return field.default

    def _one(self, field: Field, raw: Any) -> object:
        if field.other is not None and not isinstance(raw, Mapping):
            value = field.other(raw)
            self.forms[field.wire] = raw
            return value
        value = field.read(raw)
        if value is not raw and field.kind != "message":
            self.forms[field.wire] = raw
        return value

    def _many(self, field: Field, raw: Any) -> tuple[object, ...]:
        """Read an array, or the bare element that may stand for an array of one.

        Source: Messaging Window API, protocol overview: one-element arrays may arrive as the bare element.
        """
        if not is_array(raw) and field.other is not None:
            self.forms[field.wire] = raw
            return tuple(field.other(raw))
        if not is_array(raw):
            value = field.read(raw)
            self.forms[field.wire] = Form.BARE if field.kind == "message" else raw
            return (value,)
        values = tuple([field.read(item) for item in raw])
        if field.kind != "message" and any(a is not b for a, b in zip(values, raw, strict=True)):
            self.forms[field.wire] = raw
        return values

    def context(self, field: Field, raw: Any, value: object) -> None:
        """Note the form of a value that was made of something else than an object, where that would not come out."""
        is_plain = raw is value and raw is not None
        is_list = isinstance(raw, list) and isinstance(value, tuple)
        is_nothing = raw is ABSENT and value is None and field.is_omitted
        if not (is_plain or is_list or is_nothing):
            self.forms[field.wire] = raw

    def failed(self, field: Field, raw: Any, error: Exception) -> object:
        """Note a value that cannot be read.

        An optional field is kept as it came, among the unknown ones: one strange detail must not cost a whole
        notification. Without a required one the message means nothing.
        """
        if field.required or field.strict:
            self.errors.append(Failure(field, raw, KeyError(field.wire) if raw is ABSENT else error))
        else:
            self.extra[field.wire] = raw
            if not field.is_omitted:
                self.forms[field.wire] = raw
        return field.default

    def unknown(self, known: frozenset[str]) -> Mapping[str, object]:
        """All fields that stay untyped."""
        for name, value in self.source.items():
            if name not in known:
                self.extra[name] = value
        return self.extra or NOTHING
