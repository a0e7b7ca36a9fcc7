"""Ids compare as text and keep their form."""

from __future__ import annotations

import pytest

from connector_async.wire import parse_request, parse_response, same_id, to_wire


@pytest.mark.parametrize(("one", "other"), [("3", 3), (3, 3), ("a", "a"), (0, "0")])
def test_ids_are_the_same_when_their_texts_are(one: object, other: object) -> None:
    """Documentation: the integer id 3 is answered with the text "3"."""
    assert same_id(one, other)
    assert same_id(other, one)


@pytest.mark.parametrize(
    ("one", "other"), [("3", 4), (None, None), ("None", None), (True, 1), (True, "True"), (1.0, 1)]
)
def test_nothing_else_is_the_same_id(one: object, other: object) -> None:
    """Our decision: an absent id equals nothing, truth values and fractions are no ids."""
    assert not same_id(one, other)


@pytest.mark.parametrize("value", [5, "5", "1,"])
def test_an_id_keeps_the_form_it_came_in(value: object) -> None:
    """Documentation: ids are shown as 5, "1" and "1,"."""
    request = {"id": value, "type": "ms.PublishEvent", "body": {"dialogId": "d", "event": {"type": "E"}}}
    assert to_wire(parse_request(request)) == request
    response = {"reqId": value, "code": 200}
    assert to_wire(parse_response(response)) == response
