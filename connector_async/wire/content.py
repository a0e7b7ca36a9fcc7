"""Structured content and quick replies: elements, what a click on them does, and the answers offered.

Elements and actions of kinds that are new to us become `UnknownElement` and `UnknownAction`; an unknown element still
tells its `click`, so that a consumer can use it.

Source: "Getting started with rich messaging", "Quick replies template".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar, Final

import attrs
import orjson

from connector_async.wire._base import Family, Message
from connector_async.wire._checks import at_most, instance, maybe, number, text, whole
from connector_async.wire._converter import readers
from connector_async.wire._metadata import MetadataItem, as_metadata
from connector_async.wire._reading import ABSENT, Malformed

__all__ = [
    "Action",
    "ButtonElement",
    "Click",
    "ContainerElement",
    "Element",
    "ImageElement",
    "LinkAction",
    "MapElement",
    "NavigateAction",
    "PublishTextAction",
    "QuickReplies",
    "TextElement",
    "UnknownAction",
    "UnknownElement",
    "read_content",
]

MAX_ACTIONS: Final = 4  # of one element
MAX_REPLIES: Final = 24
MAX_ITEMS_PER_ROW: Final = 8
MAX_REPLY_TITLE: Final = 25  # characters
MAX_TITLE: Final = 128
MAX_TOOLTIP: Final = 256
MAX_CAPTION: Final = 128
MAX_URL: Final = 2048
MAX_TEXT: Final = 5000


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Action(Family):
    """Base of what a click does."""

    KEY: ClassVar[str] = "type"


@attrs.frozen(eq=False, repr=False)
class PublishTextAction(Action):
    """Publish a text in the consumer's name."""

    TYPE: ClassVar[str] = "publishText"

    text: str = attrs.field(repr=False, validator=text(maximum=MAX_TEXT))


@attrs.frozen(eq=False, repr=False)
class LinkAction(Action):
    """Open a link, on the consumer's device only; `ios`, `android` and `web` may each name another `uri`."""

    TYPE: ClassVar[str] = "link"

    uri: str | None = attrs.field(default=None, repr=False, validator=maybe(text(maximum=MAX_URL)))
    name: str | None = attrs.field(default=None, repr=False, kw_only=True)
    target: str | None = attrs.field(default=None, kw_only=True)
    ios: Mapping[str, object] | None = attrs.field(default=None, repr=False, hash=False, kw_only=True)
    android: Mapping[str, object] | None = attrs.field(default=None, repr=False, hash=False, kw_only=True)
    web: Mapping[str, object] | None = attrs.field(default=None, repr=False, hash=False, kw_only=True)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class NavigateAction(Action):
    """Show a place on a map, on the consumer's device only; `lo` and `la` are degrees."""

    TYPE: ClassVar[str] = "navigate"

    lo: float | None = attrs.field(default=None, repr=False, validator=maybe(number))
    la: float | None = attrs.field(default=None, repr=False, validator=maybe(number))
    name: str | None = attrs.field(default=None, repr=False)


@attrs.frozen(eq=False, repr=False)
class UnknownAction(Action):
    """An action of a type that this version does not know; its fields are in `extra`."""

    type: str | None = None

    @property
    def wire_type(self) -> str:
        """The type that it came with."""
        return self.type or ""


def _as_actions(actions: Iterable[Action]) -> tuple[Action, ...]:
    return tuple(actions)


def _check_actions(owner: object, attribute: attrs.Attribute[Any], value: tuple[object, ...]) -> None:
    at_most(MAX_ACTIONS)(owner, attribute, value)
    for action in value:
        instance(Action)(owner, attribute, action)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Click(Message):
    """What happens when the consumer uses an element.

    Attributes:
        metadata: To be sent back unchanged, with the ACTION receipt and with the text.
        actions: At most four.
    """

    metadata: tuple[MetadataItem, ...] | None = attrs.field(default=None, converter=as_metadata)
    actions: tuple[Action, ...] = attrs.field(default=(), converter=_as_actions, validator=_check_actions)

    @property
    def publish_text(self) -> str | None:
        """The text to publish in the consumer's name, or None where the click publishes nothing."""
        return next((action.text for action in self.actions if isinstance(action, PublishTextAction)), None)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Element(Family):
    """Base of all elements.

    Attributes:
        tooltip: At most 256 characters.
        style: As it came: `bold`, `size`, `background-color` …
        click: What using the element does, or None.
    """

    KEY: ClassVar[str] = "type"

    tooltip: str | None = attrs.field(default=None, repr=False, validator=maybe(text(maximum=MAX_TOOLTIP)))
    style: Mapping[str, object] | None = attrs.field(default=None, repr=False, hash=False)
    click: Click | None = attrs.field(default=None, repr=False)

    def walk(self) -> Iterator[Element]:
        """Yield this element and all within it, from the top down."""
        waiting: list[Element] = [self]
        while waiting:
            element = waiting.pop()
            yield element
            if isinstance(element, ContainerElement):
                waiting.extend(reversed(element.elements))


@attrs.frozen(kw_only=True, eq=False, repr=False)
class TextElement(Element):
    """Text of at most 5,000 characters."""

    TYPE: ClassVar[str] = "text"

    text: str = attrs.field(repr=False, validator=text(maximum=MAX_TEXT))


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ButtonElement(Element):
    """A button; its title has at most 128 characters, in quick replies 25."""

    TYPE: ClassVar[str] = "button"

    title: str | None = attrs.field(default=None, repr=False, validator=maybe(text(maximum=MAX_TITLE)))


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ImageElement(Element):
    """A picture; the URL has at most 2,048 characters, the caption 128."""

    TYPE: ClassVar[str] = "image"

    url: str | None = attrs.field(default=None, repr=False, validator=maybe(text(maximum=MAX_URL)))
    caption: str | None = attrs.field(default=None, repr=False, validator=maybe(text(maximum=MAX_CAPTION)))


@attrs.frozen(kw_only=True, eq=False, repr=False)
class MapElement(Element):
    """A place; `lo` and `la` are degrees."""

    TYPE: ClassVar[str] = "map"

    lo: float | None = attrs.field(default=None, repr=False, validator=maybe(number))
    la: float | None = attrs.field(default=None, repr=False, validator=maybe(number))


def _as_elements(elements: Iterable[Element]) -> tuple[Element, ...]:
    return tuple(elements)


def _check_elements(owner: object, attribute: attrs.Attribute[Any], value: tuple[object, ...]) -> None:
    for element in value:
        instance(Element)(owner, attribute, element)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ContainerElement(Element):
    """Elements below, beside or behind each other.

    Attributes:
        type: `vertical`, `horizontal` or `carousel`.
        elements: What is in it, containers included.
    """

    KINDS: ClassVar[tuple[str, ...]] = ("vertical", "horizontal", "carousel")

    type: str = attrs.field(validator=text(minimum=1))
    elements: tuple[Element, ...] = attrs.field(default=(), converter=_as_elements, validator=_check_elements)
    tag: str | None = None
    border: object = None
    percentages: tuple[float, ...] | None = None
    metadata: tuple[MetadataItem, ...] | None = attrs.field(default=None, converter=as_metadata)

    @property
    def wire_type(self) -> str:
        """Which kind of container it is."""
        return self.type


@attrs.frozen(kw_only=True, eq=False, repr=False)
class UnknownElement(Element):
    """An element of a type that this version does not know; its other fields are in `extra`."""

    type: str | None = None

    @property
    def wire_type(self) -> str:
        """The type that it came with."""
        return self.type or ""


def _check_replies(owner: object, attribute: attrs.Attribute[Any], value: tuple[Element, ...]) -> None:
    at_most(MAX_REPLIES)(owner, attribute, value)
    for reply in value:
        instance(Element)(owner, attribute, reply)
        title = reply.title if isinstance(reply, ButtonElement) else None
        if title is not None and len(title) > MAX_REPLY_TITLE:
            msg = f"QuickReplies.replies: a title must have at most {MAX_REPLY_TITLE} characters, not {len(title)}"
            raise ValueError(msg)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class QuickReplies(Message):
    """Answers that the consumer may choose from.

    Attributes:
        replies: At most 24 elements, nearly always buttons with titles of at most 25 characters.
        items_per_row: At most 8.
        type: `quickReplies`.
    """

    replies: tuple[Element, ...] = attrs.field(default=(), converter=_as_elements, validator=_check_replies)
    items_per_row: int | None = attrs.field(
        default=None, validator=maybe(whole(minimum=1, maximum=MAX_ITEMS_PER_ROW))
    )
    type: str = "quickReplies"

    def reply(self, title: str) -> Element | None:
        """Find the reply with this title, or None."""
        return next((r for r in self.replies if isinstance(r, ButtonElement) and r.title == title), None)


def read_content(raw: Any, source: Mapping[str, Any], _arg: object) -> Element:
    """Read the outermost element of a `RichContentEvent` in each of its three forms."""
    if raw is ABSENT:
        raw = source.get("message", ABSENT)
    if isinstance(raw, str):
        try:
            raw = orjson.loads(raw)
        except ValueError:
            msg = "must be an object, or an object written as JSON text"
            raise Malformed(msg) from None
    element: Element = readers[Element](raw)
    return element
