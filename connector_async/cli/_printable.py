"""What comes from the other side, in a form that a terminal shows and does not obey."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from connector_async.wire import (
    ButtonElement,
    ContentEvent,
    Element,
    HostedFile,
    ImageElement,
    RichContentEvent,
    SecureForm,
    TextElement,
)

__all__ = ["choices_of", "printable", "words_of"]

# Control characters but the tab (C1 too, which some terminals take for escapes), line and paragraph separators, what
# turns the direction of writing (it can show words that were not written), and halves of surrogate pairs, which no
# stream can encode. Joiners stay: emoji and several scripts are made with them.
_UNSAFE: Final = re.compile(
    "[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str) -> str:
    """The text in one line, with an escape such as `\\x1b` in the place of what a terminal would obey."""
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def words_of(event: ContentEvent | RichContentEvent) -> str:
    """What a person reads of an event; what cannot be shown here is named in brackets."""
    if isinstance(event, RichContentEvent):
        return "\n".join(_words(event.content.walk()))
    message = event.message
    if isinstance(message, str):
        return message
    if isinstance(message, HostedFile):
        return f"[a file: {message.file_type}] {message.caption or ''}".rstrip()
    if isinstance(message, SecureForm):
        return f"[a form] {message.title or ''}".rstrip()
    return f"[{event.content_type}]"


def choices_of(event: ContentEvent | RichContentEvent) -> str:
    """The quick replies in brackets, or nothing."""
    return "" if event.quick_replies is None else " ".join(_words(event.quick_replies.replies))


def _words(elements: Iterable[Element]) -> list[str]:
    return [words for element in elements if (words := _element(element))]


def _element(element: Element) -> str | None:
    if isinstance(element, TextElement):
        return element.text
    if isinstance(element, ButtonElement):
        return f"[{element.title or ''}]"
    if isinstance(element, ImageElement):
        return f"[a picture] {element.caption or ''}".rstrip()
    return None
