"""Structured content and quick replies."""

from __future__ import annotations

from typing import Any

import pytest

from connector_async.wire import (
    ButtonElement,
    Click,
    ContainerElement,
    Element,
    ExternalId,
    LinkAction,
    NavigateAction,
    PublishTextAction,
    QuickReplies,
    RichContentEvent,
    TextElement,
    UnknownAction,
    UnknownElement,
    to_wire,
)
from connector_async.wire._converter import readers

CARD = ContainerElement(
    type="vertical",
    elements=[
        TextElement(text="Size?"),
        ContainerElement(
            type="horizontal",
            elements=[
                ButtonElement(
                    title="XL", click=Click(metadata=[ExternalId("xl")], actions=[PublishTextAction("XL")])
                ),
                ButtonElement(
                    title="Shop", click=Click(actions=[LinkAction("https://shop.example", target="blank")])
                ),
            ],
        ),
        ButtonElement(title="Way", click=Click(actions=[NavigateAction(lo=1.5, la=2)])),
    ],
)


def test_card_is_built_and_read_back() -> None:
    """Getting started with rich messaging: containers, elements, clicks."""
    event = RichContentEvent(CARD, quick_replies=QuickReplies(replies=[ButtonElement(title="yes")], items_per_row=8))
    wire = to_wire(event)
    assert wire["content"]["elements"][0] == {"type": "text", "text": "Size?"}
    assert wire["quickReplies"] == {
        "type": "quickReplies",
        "itemsPerRow": 8,
        "replies": [{"type": "button", "title": "yes"}],
    }
    assert readers[RichContentEvent](wire) == event


def test_all_elements_are_found_from_the_top_down() -> None:
    """What a channel needs that shows them one below the other."""
    assert [element.wire_type for element in CARD.walk()] == [
        "vertical",
        "text",
        "horizontal",
        "button",
        "button",
        "button",
    ]
    titles = [element.title for element in CARD.walk() if isinstance(element, ButtonElement)]
    assert titles == ["XL", "Shop", "Way"]


def test_click_says_what_to_publish() -> None:
    """Only publishText publishes; link and navigate run on the consumer's device."""
    texts = [element.click.publish_text for element in CARD.walk() if element.click]
    assert texts == ["XL", None, None]


def test_reply_is_found_by_its_title() -> None:
    """The answer of a consumer who typed a title is just text; who chose it uses the reply."""
    replies = QuickReplies(replies=[TextElement(text="no button"), ButtonElement(title="yes"), ButtonElement()])
    assert replies.reply("yes") == ButtonElement(title="yes")
    assert replies.reply("no") is None


def test_unknown_elements_and_actions_are_kept_and_tell_their_click() -> None:
    """An unknown element can still be used."""
    obj = {
        "type": "datePicker",
        "firstDate": 5,
        "click": {"actions": [{"type": "dance", "steps": 3}], "metadata": [{"type": "ExternalId", "id": "d"}]},
    }
    element = readers[Element](obj)
    assert isinstance(element, UnknownElement)
    assert element.wire_type == "datePicker"
    assert element.click is not None
    assert element.click.actions == (UnknownAction("dance", extra={"steps": 3}),)
    assert element.click.actions[0].wire_type == "dance"
    assert element.click.metadata == (ExternalId("d"),)
    assert to_wire(element) == obj
    assert UnknownElement().wire_type == ""
    assert UnknownAction().wire_type == ""


WIRE = {"type": "text", "text": "x"}


@pytest.mark.parametrize(
    "members",
    [{"content": WIRE}, {"content": '{"type":"text","text":"x"}'}, {"message": WIRE}],
    ids=["object", "JSON text", "old name"],
)
def test_content_is_read_in_each_of_its_three_forms(members: dict[str, Any]) -> None:
    """Protocol 9.6: an object, JSON text in history, named `message` in an old schema."""
    obj = {"type": "RichContentEvent", **members}
    event = readers[RichContentEvent](obj)
    assert event.content == TextElement(text="x")
    assert to_wire(event) == obj
