"""Turns a message class into one straight function that reads it and one that writes it.

The functions are generated, as attrs and cattrs generate theirs, because each message of the hot path passes through
them: a loop over fields costs about four times as much. Reading sets the slots directly and so never runs a
validator: what the other side sent is not refused for breaking our rules.

This module knows neither JSON nor the protocol; `_reading` has the rules, `_converter` the choice of classes.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from connector_async.wire._base import NOTHING, Family, Form, Message
from connector_async.wire._reading import ABSENT, Failure, Field, Malformed, Notes, as_object

__all__ = ["Fail", "Reader", "Writer", "Writers", "make_maker", "make_reader", "make_writer"]

Reader = Callable[..., Any]
Writer = Callable[[Any], Any]
Writers = Mapping[type, Writer]
Fail = Callable[[type, list[Failure]], Exception]

# The form in which a value nearly always stands, checked in place; everything else goes through `Notes.read`.
_PLAIN: Final[Mapping[str, str]] = {
    "str": "{x}.__class__ is str",
    "int": "{x}.__class__ is int",
    "float": "({x}.__class__ is float or {x}.__class__ is int)",
    "bool": "{x}.__class__ is bool",
    "id": "({x}.__class__ is str or {x}.__class__ is int)",
    "mapping": "{x}.__class__ is dict",
    "any": "{x} is not None and {x} is not ABSENT",
    "message": "{x}.__class__ is dict",
}
_CONTEXT: Final = ("context", "content")
_NOTED: Final = "  if notes is None: notes = Notes(obj)"


def _compiled(source: Sequence[str], names: dict[str, Any], cls: type) -> Callable[..., Any]:
    """Run generated lines that define one function, and return it."""
    text = "\n".join(source)
    code = compile(text, f"<generated for {cls.__module__}.{cls.__qualname__}>", "exec")
    exec(code, names)  # noqa: S102 - our own text; attribute and wire names enter it as literals only
    function: Callable[..., Any] = names["function"]
    return function


def _tag(cls: type[Message]) -> str | None:
    return cls.KEY if issubclass(cls, Family) and cls.TYPE else None


def make_reader(cls: type[Message], fields: Sequence[Field], fail: Fail) -> Reader:
    """Generate `read(obj, arg=None)`, which makes one `cls` of a JSON object.

    Args:
        cls: The message class.
        fields: Its fields, `extra` left out.
        fail: Makes one exception of all that is wrong.
    """
    tag = _tag(cls)
    known = frozenset({field.wire for field in fields} | ({tag} if tag else set[str]()))
    names: dict[str, Any] = {"ABSENT": ABSENT, "NOTHING": NOTHING, "Notes": Notes, "as_object": as_object}
    names |= {
        "Malformed": Malformed,
        "cls": cls,
        "fail": fail,
        "known": known,
        "new": object.__new__,
        "draft": _draft(cls),
    }
    source = [
        "def function(obj, arg=None):",
        " if obj.__class__ is not dict: obj = as_object(obj)",
        " get = obj.get; notes = None; absent = 0",
    ]
    for number, field in enumerate(fields):
        source += _read_lines(f"{number}", field)
        names |= {f"f{number}": field, f"d{number}": field.default, f"r{number}": field.read}
    source += [
        f" if notes is not None or len(obj) + absent != {len(known)}:",
        _NOTED,
        "  if notes.errors: raise fail(cls, notes.errors)",
        "  extra = notes.unknown(known); forms = notes.forms or NOTHING",
        " else: extra = forms = NOTHING",
        " self = new(draft)",
        *(f" self.{field.name} = v{number}" for number, field in enumerate(fields)),
        " self.extra = extra; self._forms = forms; self.__class__ = cls",
        " return self",
    ]
    return _compiled(source, names, cls)


def _draft(cls: type[Message]) -> type:
    """A class with the slots of `cls` whose attributes can be set: in a frozen one that takes a call for each."""
    slots = tuple([name for name in cls.__dict__["__slots__"] if name != "__weakref__"])
    open_class = {"__slots__": slots, "__setattr__": object.__setattr__, "__delattr__": object.__delattr__}
    bases = cls.__dict__.get("__orig_bases__", cls.__bases__)
    return types.new_class(cls.__name__, bases, exec_body=lambda names: names.update(open_class))


def _read_lines(n: str, field: Field) -> list[str]:
    """Lines that leave the typed value of one field in a local variable."""
    failed = ["  except Malformed as error:", f" {_NOTED}", f"   v{n} = notes.failed(f{n}, raw, error)"]
    lines = [f" raw = get({field.wire!r}, ABSENT)"]
    if field.kind in _CONTEXT:
        text = [f" if raw.__class__ is str: v{n} = raw", " else:"] if field.kind == "content" else [" if True:"]
        return [
            *lines,
            *text,
            "  if raw is ABSENT: absent += 1",
            f"  try: v{n} = r{n}(raw, obj, arg)",
            *failed,
            "  if raw.__class__ is not dict:",
            f" {_NOTED}",
            f"   notes.context(f{n}, raw, v{n})",
        ]
    lines += _plain_lines(n, field, failed)
    if field.is_omitted:
        lines.append(f" elif raw is ABSENT: v{n} = d{n}; absent += 1")
    return [*lines, " else:", _NOTED, f"  v{n} = notes.read(f{n}, raw)"]


def _plain_lines(n: str, field: Field, failed: list[str]) -> list[str]:
    plain = _PLAIN[field.kind].format(x="raw")
    if field.many and field.kind == "message":
        return [" if raw.__class__ is list and raw:", f"  try: v{n} = tuple([r{n}(x) for x in raw])", *failed]
    if field.many:
        each = _PLAIN[field.kind].format(x="x")
        return [f" if raw.__class__ is list and raw and all([{each} for x in raw]): v{n} = tuple(raw)"]
    if field.kind == "message":
        return [f" if {plain}:", f"  try: v{n} = r{n}(raw)", *failed]
    return [f" if {plain}: v{n} = raw"]


def make_maker(cls: type[Message], fields: Sequence[Field]) -> Callable[..., Any]:
    """Generate `make(first, second, …)`, which takes the typed value of every field and checks nothing."""
    names: dict[str, Any] = {"NOTHING": NOTHING, "cls": cls, "draft": _draft(cls), "new": object.__new__}
    source = [
        f"def function({', '.join([f'v{number}' for number in range(len(fields))])}):",
        " self = new(draft)",
        *(f" self.{field.name} = v{number}" for number, field in enumerate(fields)),
        " self.extra = self._forms = NOTHING; self.__class__ = cls",
        " return self",
    ]
    return _compiled(source, names, cls)


def make_writer(cls: type[Message], fields: Sequence[Field], writers: Writers) -> Writer:
    """Generate `write(message)`, which makes a JSON object of one `cls`.

    Args:
        cls: The message class.
        fields: Its fields, `extra` left out.
        writers: The writer for each class of value; the class itself decides, so that subclasses of ours and of the
            user's go where a base is named.
    """
    tag = _tag(cls)
    names: dict[str, Any] = {"NOTHING": NOTHING, "writers": writers, "reform": _reform}
    source = [
        "def function(self):",
        " extra = self.extra",
        " out = {} if extra is NOTHING else {**extra}",
    ]
    if tag:
        source.append(f" out[{tag!r}] = {cls.TYPE!r}")  # type: ignore[attr-defined]  # a tag means a Family
    for field in fields:
        source += _write_lines(field)
    source += [
        " forms = self._forms",
        " if forms is not NOTHING: reform(out, forms)",
        " return out",
    ]
    return _compiled(source, names, cls)


def _write_lines(field: Field) -> list[str]:
    """Lines that put one field into the object `out`, or leave it out."""
    value = {
        (False, "message"): "writers[x.__class__](x)",
        (False, "context"): "writers[x.__class__](x)",
        (False, "content"): "x if x.__class__ is str else writers[x.__class__](x)",
        (True, "message"): "[writers[y.__class__](y) for y in x]",
    }.get((field.many, field.kind), "list(x)" if field.many else "x")
    put = f"out[{field.wire!r}] = {value}"
    if field.is_omitted:
        unless = "is not None" if field.default is None else "!= ()"
        return [f" x = self.{field.name}", f" if x {unless}: {put}"]
    return [f" x = self.{field.name}", f" {put}"]


def _reform(out: dict[str, object], forms: Mapping[str, object]) -> None:
    """Give the fields of a received message the form in which they came."""
    for name, form in forms.items():
        if form is Form.ABSENT:
            out.pop(name, None)
        elif form is Form.BARE:
            (out[name],) = out[name]  # type: ignore[misc]  # a tuple field was written as a list of one
        else:
            out[name] = form
