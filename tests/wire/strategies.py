"""Hypothesis strategies for the JSON of any message class, made from its fields: what they may be, and odd forms."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from typing import Any

import orjson
from hypothesis import strategies as st

from connector_async.wire import (
    Action,
    ContentEvent,
    ConversationField,
    Element,
    Event,
    Family,
    Message,
    MetadataItem,
    Notification,
    RawBody,
    Request,
    RequestBody,
    Response,
    RichContentEvent,
    Sde,
    UpdateConversationField,
)
from connector_async.wire._converter import fields_of
from connector_async.wire._reading import Field

FAMILIES: tuple[type[Family], ...] = (Action, ConversationField, Element, Event, MetadataItem, Sde)
ENVELOPES = (Notification, Request, Response, RequestBody, RawBody)


def _descendants(cls: type[Message]) -> Iterator[type[Message]]:
    for child in cls.__subclasses__():
        if "__attrs_attrs__" in child.__dict__:  # attrs makes a second class for slots; the first may still be there
            yield child
            yield from _descendants(child)


MESSAGES: list[type[Message]] = sorted(
    {
        cls
        for cls in _descendants(Message)
        if cls is not Family
        and cls not in FAMILIES
        and cls not in ENVELOPES
        and cls.__module__.startswith("connector_async")
    },
    key=lambda cls: cls.__name__,
)

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
integers = st.integers(-(2**53), 2**53)
numbers = st.one_of(integers, st.floats(allow_nan=False, allow_infinity=False))
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), integers, words),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(words, inner, max_size=3)),
    max_leaves=5,
)
json_objects = st.dictionaries(words, json_values, max_size=3)
strange_names = words.map(lambda name: f"x-{name}")

SCALARS: dict[str, st.SearchStrategy[Any]] = {
    "str": st.one_of(words, integers),
    "int": st.one_of(integers, integers.map(str)),
    "float": numbers,
    "bool": st.booleans(),
    "id": st.one_of(words, integers),
    "mapping": json_objects,
    "any": json_values,
}


def _one(cls: type[Message], field: Field, depth: int) -> st.SearchStrategy[Any]:
    if field.kind in SCALARS:
        return SCALARS[field.kind]
    if cls is ContentEvent:
        return st.one_of(words, json_values)
    if cls is RichContentEvent:
        return objects_of(Element, depth).flatmap(lambda card: st.sampled_from([card, orjson.dumps(card).decode()]))
    assert cls is UpdateConversationField
    one = objects_of(ConversationField, depth)
    return st.one_of(one, st.lists(one, max_size=2))


def _class_of(cls: type[Message], field: Field) -> type[Message]:
    """The message class that a field holds, found by its annotation."""

    def arms(annotation: Any) -> Iterator[Any]:
        yield annotation
        for arm in typing.get_args(annotation):
            yield from arms(arm)

    annotation = typing.get_type_hints(cls)[field.name]
    return next(arm for arm in arms(annotation) if isinstance(arm, type) and issubclass(arm, Message))


def _value(cls: type[Message], field: Field, depth: int) -> st.SearchStrategy[Any]:
    one = objects_of(_class_of(cls, field), depth) if field.kind == "message" else _one(cls, field, depth)
    if not field.many:
        return one
    # An array in the place of a bare element would be taken for the array itself.
    bare = one.filter(_is_no_array)
    return st.one_of(st.lists(one, max_size=3), bare)


def _is_no_array(value: object) -> bool:
    return not isinstance(value, list) and value is not None


def objects_of(cls: type[Message], depth: int = 2) -> st.SearchStrategy[dict[str, Any]]:
    """JSON objects that are one `cls`: optional fields present, null or absent, and now and then unknown ones."""
    if cls in FAMILIES:
        members = [member for member in _descendants(cls) if depth > 0 or "Container" not in member.__name__]
        return st.sampled_from(members).flatmap(lambda member: objects_of(member, depth - 1))
    required: dict[str, st.SearchStrategy[Any]] = {}
    optional: dict[str, st.SearchStrategy[Any]] = {}
    if issubclass(cls, Family) and cls.TYPE:
        required[cls.KEY] = st.just(cls.TYPE)
    for field in fields_of(cls):
        nested = field.kind not in SCALARS
        if field.required:
            required[field.wire] = _value(cls, field, depth - 1)
        elif (depth > 0 or not nested) and not (issubclass(cls, Family) and field.wire == cls.KEY):
            optional[field.wire] = st.one_of(_value(cls, field, depth - 1), st.none())
    if issubclass(cls, Family) and not cls.TYPE:
        kinds = st.sampled_from(cls.KINDS) if cls.KINDS else words.map(lambda word: f"New{word}")
        required[cls.KEY] = kinds
    known = st.fixed_dictionaries(required, optional=optional)
    return st.tuples(st.dictionaries(strange_names, json_values, max_size=2), known).map(lambda two: two[0] | two[1])
