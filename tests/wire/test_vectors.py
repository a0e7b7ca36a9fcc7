"""The recorded payloads go in and come out without loss."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from connector_async.errors import RemoteProtocolError
from connector_async.wire import (
    Action,
    ClientProperties,
    ConversationChanges,
    Dialog,
    Element,
    EventPublished,
    Message,
    MessagingEvent,
    MessagingEvents,
    QuickReplies,
    decode_notification,
    decode_request,
    decode_response,
    parse_manifest,
    parse_notification,
    parse_request,
    parse_response,
    to_wire,
    unknown_fields,
)
from connector_async.wire._converter import readers
from tests.wire.vectors import (
    NO_NOTIFICATION,
    NO_REQUEST,
    NO_RESPONSE,
    NOTIFICATIONS,
    REQUESTS,
    RESPONSES,
    messages,
)


@pytest.mark.parametrize(("name", "payload"), messages(REQUESTS, NO_REQUEST))
def test_recorded_request_comes_out_as_it_came(name: str, payload: Any) -> None:
    """Vectors: requests.json."""
    assert to_wire(parse_request(payload)) == payload
    assert to_wire(decode_request(orjson.dumps(payload))) == payload


@pytest.mark.parametrize(("name", "payload"), messages(RESPONSES, NO_RESPONSE))
def test_recorded_response_comes_out_as_it_came(name: str, payload: Any) -> None:
    """Vectors: responses.json."""
    assert to_wire(parse_response(payload)) == payload
    assert to_wire(decode_response(orjson.dumps(payload))) == payload


@pytest.mark.parametrize(("name", "payload"), messages(NOTIFICATIONS, NO_NOTIFICATION))
def test_recorded_notification_comes_out_as_it_came(name: str, payload: Any) -> None:
    """Vectors: notifications.json."""
    assert to_wire(parse_notification(payload)) == payload
    assert to_wire(decode_notification(orjson.dumps(payload))) == payload


@pytest.mark.parametrize("name", NO_REQUEST)
def test_payload_that_is_no_request_is_refused(name: str) -> None:
    """The list of exceptions is exact."""
    with pytest.raises(RemoteProtocolError):
        parse_request(REQUESTS[name])


@pytest.mark.parametrize("name", NO_RESPONSE)
def test_payload_that_is_no_response_is_refused(name: str) -> None:
    """The list of exceptions is exact."""
    with pytest.raises(RemoteProtocolError):
        parse_response(RESPONSES[name])


NO_ENVELOPE = sorted(name for name in NO_NOTIFICATION if not name.startswith("fragment: "))


@pytest.mark.parametrize("name", NO_ENVELOPE)
def test_payload_that_is_no_notification_is_refused(name: str) -> None:
    """The list of exceptions is exact; fragments with a `type` pass for notifications of an unknown type."""
    with pytest.raises(RemoteProtocolError):
        parse_notification(NOTIFICATIONS[name])


PARTS: list[tuple[type[Message], Any]] = [
    *[(ClientProperties, REQUESTS[name]) for name in NO_REQUEST if name.startswith("header ")],
    *[(EventPublished, RESPONSES[name]) for name in NO_RESPONSE if name.startswith("publish response body")],
    *[
        (MessagingEvent, {**record, "dialogId": "d"})
        for record in RESPONSES["consumer history content (shortened)"]["messageEventRecords"]
    ],
    (Dialog, NOTIFICATIONS["fragment: co-browse dialog inside conversationDetails.dialogs"]),
    (
        ConversationChanges,
        NOTIFICATIONS["body only: conversation change with lastContentEventNotification (agent feed)"],
    ),
    (MessagingEvents, NOTIFICATIONS["body only: agent text with client properties, sequence 10"]),
    *[(MessagingEvent, payload) for name, payload in NOTIFICATIONS.items() if name.startswith("change only: ")],
    (QuickReplies, NOTIFICATIONS["fragment: quick replies template"]),
    (Element, NOTIFICATIONS["fragment: rich content card (RichContentEvent.content)"]),
    (Action, NOTIFICATIONS["fragment: link action with per-platform uri"]),
]


@pytest.mark.parametrize(("cls", "payload"), PARTS)
def test_recorded_part_comes_out_as_it_came_and_is_known_in_full(cls: type[Message], payload: Any) -> None:
    """Vectors: fragments and bodies without an envelope."""
    message = readers[cls](payload)
    assert to_wire(message) == payload
    assert unknown_fields(message) == []


MANIFESTS = sorted(name for name, why in NO_REQUEST.items() if "manifest" in why)


@pytest.mark.parametrize("name", MANIFESTS)
def test_recorded_manifest_comes_out_as_it_came(name: str) -> None:
    """Vectors: requests.json, the app manifests."""
    manifest = parse_manifest(REQUESTS[name])
    assert to_wire(manifest) == REQUESTS[name]
    assert unknown_fields(manifest) == []


WEBSOCKET = [name for name in REQUESTS if "WebSocket only" in name]


@pytest.mark.parametrize(("name", "payload"), messages(REQUESTS, NO_REQUEST))
def test_recorded_request_holds_nothing_unknown(name: str, payload: Any) -> None:
    """What is recorded is typed in full; types of the WebSocket API are the one exception."""
    parsed = parse_request(payload)
    unknown = [path for item in (parsed if isinstance(parsed, list) else [parsed]) for path in unknown_fields(item)]
    assert unknown == (["type"] if name in WEBSOCKET else [])


@pytest.mark.parametrize(("name", "payload"), messages(NOTIFICATIONS, NO_NOTIFICATION))
def test_recorded_notification_holds_nothing_unknown(name: str, payload: Any) -> None:
    """What is recorded is typed in full; fragments are no notifications."""
    parsed = parse_notification(payload)
    assert not isinstance(parsed, list)
    assert unknown_fields(parsed) == []
