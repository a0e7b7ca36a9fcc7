"""The base of the items of `metadata`, apart from them: every request may have items, and few have any."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import attrs

from connector_async.errors import RemoteProtocolError
from connector_async.wire._base import Family
from connector_async.wire._converter import read_as, readers

__all__ = ["MetadataItem", "as_metadata"]


@attrs.frozen(kw_only=True, eq=False, repr=False)
class MetadataItem(Family):
    """Base of all items; `type` says which one it is."""

    KEY: ClassVar[str] = "type"
    HOME: ClassVar[str] = "connector_async.wire.metadata"


def as_metadata(items: Iterable[MetadataItem | Mapping[str, object]] | None) -> tuple[MetadataItem, ...] | None:
    """Take typed items and plain mappings alike; a mapping needs a `type`.

    Raises:
        ValueError: A mapping cannot be an item.
    """
    if items is None:
        return None
    return tuple([item if isinstance(item, MetadataItem) else _typed(item) for item in items])


def _typed(item: Any) -> MetadataItem:
    try:
        typed: MetadataItem = read_as("metadata item", readers[MetadataItem], item)
    except RemoteProtocolError as error:
        raise ValueError(str(error)) from error
    return typed
