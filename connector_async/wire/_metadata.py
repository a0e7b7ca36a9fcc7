"""The base of the items of `metadata`, apart from them: every request may have items, and few have any."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, cast

import attrs

from connector_async.errors import RemoteProtocolError
from connector_async.wire._base import Family
from connector_async.wire._checks import several_of
from connector_async.wire._converter import read_as, readers

__all__ = ["MetadataItem", "as_metadata"]


@attrs.frozen(kw_only=True, eq=False, repr=False)
class MetadataItem(Family):
    """Base of all items; `type` says which one it is."""

    KEY: ClassVar[str] = "type"
    HOME: ClassVar[str] = "connector_async.wire.metadata"


Items = Iterable[MetadataItem | Mapping[str, object]] | MetadataItem | Mapping[str, object]


def as_metadata(items: Items | None) -> tuple[MetadataItem, ...] | None:
    """Take typed items and plain mappings alike, also a single one; a mapping needs a `type`.

    Raises:
        TypeError: They are no items at all.
        ValueError: A mapping cannot be an item.
    """
    if items is None:
        return None
    several: object = several_of(MetadataItem, items)
    if not isinstance(several, tuple):
        msg = f"Request.metadata must be metadata items or mappings, not {type(items).__name__}"
        raise TypeError(msg)
    given = cast("tuple[object, ...]", several)
    return tuple([item if isinstance(item, MetadataItem) else _typed(item) for item in given])


def _typed(item: Any) -> MetadataItem:
    if not isinstance(item, Mapping):
        msg = f"Request.metadata must hold metadata items or mappings, not {type(item).__name__}"
        raise TypeError(msg)
    mapping = cast("Mapping[str, object]", item)
    if not isinstance(mapping.get("type"), str):
        msg = "each mapping in Request.metadata needs a `type`, which is text"
        raise ValueError(msg)  # noqa: TRY004 - the mapping is of the right kind; what it says is not
    try:
        typed: MetadataItem = read_as("metadata item", readers[MetadataItem], item)
    except RemoteProtocolError as error:
        raise ValueError(str(error)) from error
    return typed
