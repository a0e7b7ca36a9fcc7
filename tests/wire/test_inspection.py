"""What the sandbox asks: which parts of a message are unknown."""

from __future__ import annotations

from typing import Any

import pytest

from connector_async.wire import Request, Response, parse_request, parse_response, unknown_fields


@pytest.mark.parametrize(
    ("changes", "paths"),
    [
        ({}, []),
        ({"tpye": 1}, ["tpye"]),
        ({"type": "ms.PublishEvnet"}, ["type"]),
        ({"metadata": [{"type": "ExternalId", "id": "x"}, {"type": "Mood"}]}, ["metadata[1].type"]),
        ({"metadata": "x"}, ["metadata"]),
        ({"body": {"dialogId": "d", "event": {"type": "Wave", "a": 1}}}, ["body.event.type", "body.event.a"]),
        (
            {"body": {"dialogId": "d", "extra": 1, "event": {"type": "ChatStateEvent", "chatState": "ACTIVE"}}},
            ["body.extra"],
        ),
    ],
)
def test_unknown_parts_are_named_by_their_paths(changes: dict[str, Any], paths: list[str]) -> None:
    """Style: the sandbox notices our own mistakes."""
    event = {"type": "ContentEvent", "contentType": "text/plain", "message": "hi"}
    obj = {"kind": "req", "id": "1", "type": "ms.PublishEvent", "body": {"dialogId": "d", "event": event}} | changes
    message = parse_request(obj)
    assert isinstance(message, Request)
    assert unknown_fields(message) == paths


def test_body_of_an_answer_that_is_no_message_has_no_unknown_parts() -> None:
    """What promises nothing breaks no promise."""
    message = parse_response({"code": "OK", "body": {"x": 1}, "reqId": "1"})
    assert isinstance(message, Response)
    assert unknown_fields(message) == []
