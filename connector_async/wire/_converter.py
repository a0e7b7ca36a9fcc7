"""The one converter, and the only module that imports cattrs.

Its hook factories make a reader and a writer for any message class when each is first needed: attributes become
camelCase unless the field's metadata says `wire`, and where a base of a family is named the class is chosen by `type`
or `field`. What comes out of here is typed; `Any` stays inside.
"""

from __future__ import annotations

import functools
import importlib
import operator
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

import attrs

from connector_async.errors import RemoteProtocolError
from connector_async.wire._base import Family, Message
from connector_async.wire._codegen import Reader, Writer, make_maker, make_reader, make_writer
from connector_async.wire._reading import Failure, Field, Malformed, Unreadable, as_object, is_array, read_scalar

if TYPE_CHECKING:
    from cattrs import Converter

__all__ = ["fields_of", "makers", "read_as", "readers", "writers"]

_MAX_LINES: Final = 8  # of one refusal: enough to find the fault, little enough for a log line


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)


def _strip(annotation: Any) -> Any:
    """Leave the type that says how a value is read: without None, type arguments and new names."""
    while True:
        if isinstance(annotation, typing.NewType):
            annotation = annotation.__supertype__
            continue
        if typing.get_origin(annotation) in (types.UnionType, typing.Union):
            arms = [_strip(arm) for arm in typing.get_args(annotation) if arm is not types.NoneType]
            return arms[0] if len(set(arms)) == 1 else frozenset(arms)
        return annotation


_KINDS: Final[Mapping[Any, str]] = {
    str: "str",
    int: "int",
    float: "float",
    bool: "bool",
    object: "any",
    frozenset({int, str}): "id",
    frozenset({int, float}): "float",
}


def _kind_of(annotation: Any) -> str:
    if kind := _KINDS.get(annotation):
        return kind
    origin = typing.get_origin(annotation)
    return "mapping" if origin is not None and issubclass(origin, Mapping) else "message"


def _field(attribute: attrs.Attribute[Any], annotation: Any, *, snake: bool) -> Field:
    annotation = _strip(annotation)
    many = typing.get_origin(annotation) is tuple
    item = _strip(typing.get_args(annotation)[0]) if many else annotation
    kind, read = _kind_of(item), attribute.metadata.get("read")
    if read is not None:
        kind, many = attribute.metadata.get("kind", "context"), False
    required = attribute.default is attrs.NOTHING or bool(attribute.metadata.get("required"))
    return Field(
        name=attribute.name,
        wire=attribute.metadata.get("wire", attribute.name if snake else _camel(attribute.name)),
        kind=kind,
        many=many,
        required=required,
        strict=bool(attribute.metadata.get("strict")),
        default=None if required else attribute.default,
        reader=lambda: read or (readers[item] if kind == "message" else read_scalar(kind)),
        other=attribute.metadata.get("other"),
    )


_FIELDS: Final[dict[type, list[Field]]] = {}


def fields_of(cls: type[Message]) -> list[Field]:
    """The fields of a class as the wire sees them."""
    return _FIELDS.get(cls) or _FIELDS.setdefault(cls, _find_fields(cls))


def _find_fields(cls: type[Message]) -> list[Field]:
    hints = typing.get_type_hints(cls)
    return [
        _field(attribute, hints[attribute.name], snake=cls.SNAKE)
        for attribute in attrs.fields(cls)
        if attribute.name not in ("extra", "_forms")
    ]


def _fail(cls: type, failures: list[Failure]) -> Exception:
    """Gather what is wrong, with the places."""
    return Unreadable(
        f"not a {cls.__name__}",
        [
            (f".{failure.field.wire}", _each_item(failure) if failure.field.many else failure.error)
            for failure in failures
        ],
    )


def _each_item(failure: Failure) -> Exception:
    """Name the items that cannot be read, by their places."""
    errors: list[tuple[str, Exception]] = []
    for index, item in enumerate(failure.raw if is_array(failure.raw) else ()):
        try:
            failure.field.read(item)
        except Malformed as error:
            errors.append((f"[{index}]", error))
    return Unreadable("not readable", errors) if errors else failure.error


def _is_family(cls: Any) -> bool:
    return isinstance(cls, type) and issubclass(cls, Family) and "KEY" in cls.__dict__


def _is_message(cls: Any) -> bool:
    return isinstance(typing.get_origin(cls) or cls, type) and issubclass(typing.get_origin(cls) or cls, Message)


def _kinds_of(cls: type[Family]) -> tuple[str, ...]:
    return cls.KINDS or ((cls.TYPE,) if cls.TYPE else ())


def _descendants(cls: type[Family]) -> Iterator[type[Family]]:
    # For slots attrs makes a second class; the first one is listed too until it is collected.
    for child in [child for child in cls.__subclasses__() if "__attrs_attrs__" in child.__dict__]:
        yield child
        yield from _descendants(child)


def _family_reader(base: type[Family]) -> Reader:
    """Choose the class by the field that names the kind; a kind that nobody knows becomes the class for those."""
    key = base.KEY
    by_kind: dict[str, Reader] = {}
    unknown: list[Reader] = []

    def learn() -> None:
        # Late, because the members of a family are defined after its base and may hold the family themselves.
        if base.HOME:
            importlib.import_module(base.HOME)
        for cls in _descendants(base):
            if not _kinds_of(cls):
                unknown[:] = [readers[cls]]
        by_kind.update({kind: readers[cls] for cls in _descendants(base) for kind in _kinds_of(cls)})

    def read(raw: Any, _arg: object = None) -> Any:
        try:
            reader = by_kind[raw[key]]
        except (KeyError, TypeError):
            raw = as_object(raw)
            if not by_kind:
                learn()
            kind = raw.get(key)
            reader = by_kind.get(kind, unknown[0]) if isinstance(kind, str) else unknown[0]
        return reader(raw)

    return read


def _message_reader(cls: Any) -> Reader:
    cls = typing.get_origin(cls) or cls
    return _family_reader(cls) if _is_family(cls) else make_reader(cls, fields_of(cls), _fail)


class _Writers(dict[type, Writer]):
    """The writer of each class, made when it is first needed; what is no message is written as it is."""

    def __missing__(self, cls: type) -> Writer:
        if issubclass(cls, Message):
            writer = _converter().get_unstructure_hook(cls)
        elif issubclass(cls, tuple | list):
            writer = self._items
        else:
            writer = _as_it_is
        self[cls] = writer
        return writer

    def _items(self, items: Any) -> list[Any]:
        return [self[item.__class__](item) for item in items]


def _as_it_is(value: Any) -> Any:
    return value


writers: Final = _Writers()


def _message_writer(cls: Any) -> Writer:
    cls = typing.get_origin(cls) or cls
    if cls.VERBATIM:
        whole = operator.attrgetter(cls.VERBATIM)
        return lambda message: writers[whole(message).__class__](whole(message))
    return make_writer(cls, fields_of(cls), writers)


@functools.cache
def _converter() -> Converter:
    # Made for the first message: those who only import the package need not wait for cattrs.
    import cattrs

    converter = cattrs.Converter()
    converter.register_structure_hook_factory(_is_message)(_message_reader)
    converter.register_unstructure_hook_factory(_is_message)(_message_writer)
    return converter


class _Readers(dict[Any, Reader]):
    """The reader of each class or family, made when it is first needed; cattrs' own look-up costs six times this."""

    def __missing__(self, cls: Any) -> Reader:
        reader: Reader = _converter().get_structure_hook(cls)
        self[cls] = reader
        return reader


readers: Final = _Readers()


class _Makers(dict[type[Message], Callable[..., Any]]):
    """The function that makes a message of the typed values of its fields, in their order and unchecked."""

    def __missing__(self, cls: type[Message]) -> Callable[..., Any]:
        self[cls] = make_maker(cls, fields_of(cls))
        return self[cls]


makers: Final = _Makers()


def _lines(error: BaseException, place: str = "$") -> Iterator[str]:
    """What is wrong, each with its place."""
    if isinstance(error, Unreadable):
        for inner, cause in error.causes:
            yield from _lines(cause, place + inner)
    else:
        yield f"{'required field missing' if isinstance(error, KeyError) else error} @ {place}"


def _refusal(what: str, error: BaseException) -> RemoteProtocolError:
    """The one error for whatever came and cannot be read: the places and what is wrong there, never a value."""
    if isinstance(error, RecursionError):
        return RemoteProtocolError(f"cannot read the {what}: nested too deeply")
    lines = list(_lines(error))
    rest = len(lines) - _MAX_LINES
    shown = lines[:_MAX_LINES] + ([f"and {rest} more"] if rest > 0 else [])
    return RemoteProtocolError(f"cannot read the {what}: " + "; ".join(shown))


def read_as(what: str, read: Reader, obj: Any, arg: object = None) -> Any:
    """Read with one error for all that can be wrong with the input.

    Raises:
        RemoteProtocolError: The input cannot be read.
    """
    try:
        return read(obj, arg)
    except (Malformed, RecursionError) as error:
        raise _refusal(what, error) from None
