"""The app manifest: built, checked, written, read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest

from connector_async.errors import RemoteProtocolError
from connector_async.wire import (
    AppManifest,
    BroadcastCapability,
    Capabilities,
    EngagementCapability,
    WebhookEndpoint,
    WebhookEvent,
    WebhookHeader,
    WebhookRetry,
    Webhooks,
    parse_manifest,
    to_wire,
)
from tests.wire.vectors import REQUESTS


def test_manifest_built_in_code_works_for_a_connector() -> None:
    """Connector API, "Getting started": what a connector needs are the defaults."""
    manifest = AppManifest(
        client_name="My channel",
        capabilities=Capabilities(
            webhooks=Webhooks.to("https://hooks.example/lp?x=1"),
            engagement=EngagementCapability(),
            broadcast=BroadcastCapability(enabled=False),
        ),
    )
    assert manifest.problems() == []
    wire = to_wire(manifest)
    assert wire["grant_types"] == ["client_credentials"]
    assert wire["scope"] == "msg.consumer"
    webhooks = wire["capabilities"]["webhooks"]
    assert set(webhooks) == {*WebhookEvent, "retry"}
    assert webhooks["retry"] == {"retention_time": 86400}
    assert orjson.loads(manifest.to_json()) == wire
    assert parse_manifest(manifest.to_json()) == manifest
    assert parse_manifest(manifest.to_json().encode()) == manifest


def test_defaults_for_campaigns_are_those_of_the_vendor() -> None:
    """Vectors: "app manifest (getting started)"."""
    vector = REQUESTS["app manifest (getting started)"]
    assert to_wire(EngagementCapability()) == vector["capabilities"]["engagement"]


def test_each_kind_of_event_may_have_an_endpoint_of_its_own() -> None:
    """All keys are optional."""
    webhooks = Webhooks(
        content_event=WebhookEndpoint(
            "https://a.example/", max_retries=0, headers=[WebhookHeader(header_name="X-Key", header_value="secret")]
        ),
        conversation_change="https://b.example/",
    )
    assert to_wire(webhooks) == {
        "ms.MessagingEventNotification.ContentEvent": {
            "endpoint": "https://a.example/",
            "max_retries": 0,
            "headers": [{"header_name": "X-Key", "header_value": "secret"}],
        },
        "cqm.ExConversationChangeNotification": {"endpoint": "https://b.example/"},
    }
    assert "secret" not in repr(webhooks)
    assert Webhooks.to("https://a.example", retention=None).retry is None


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: AppManifest(client_name=""), "AppManifest.client_name must have 1 to 128 characters, not 0"),
        (
            lambda: AppManifest(client_name="x" * 129),
            "AppManifest.client_name must have 1 to 128 characters, not 129",
        ),
        (lambda: AppManifest(client_name="x", display_name="x" * 129), "display_name must have 0 to 128"),
        (lambda: AppManifest(client_name="x", description="x" * 257), "description must have 0 to 256"),
        (lambda: AppManifest(client_name="x", logo_uri="x" * 1025), "logo_uri must have 0 to 1024"),
        (lambda: AppManifest(client_name="x", redirect_uris=["x" * 129]), "redirect_uris must have 0 to 128"),
        (lambda: WebhookEndpoint("http://a.example"), "WebhookEndpoint.endpoint must be an https URL"),
        (lambda: WebhookEndpoint("https://u:p@a.example"), "must be an https URL with a host, without user"),
        (lambda: WebhookEndpoint("https://a.example/#x"), "must be an https URL"),
        (lambda: WebhookEndpoint("https:///x"), "must be an https URL"),
        (lambda: WebhookEndpoint("https://[x"), "must be an https URL"),
        (lambda: WebhookEndpoint("https://a.example", max_retries=6), "max_retries must be at least 0 and at most 5"),
        (lambda: WebhookRetry(1), "retention_time must be at least 2 and at most 259200, not 1"),
        (lambda: WebhookRetry(259_201), "retention_time must be at least 2 and at most 259200, not 259201"),
    ],
)
def test_manifest_that_the_vendor_would_refuse_is_not_built(build: Callable[[], Any], words: str) -> None:
    """Protocol 9.1 and 10.1."""
    with pytest.raises(ValueError, match=words):
        build()


def test_problems_of_a_manifest_that_was_read_are_told() -> None:
    """Protocol 9.1: event names are case-sensitive, and pages misspell two of them."""
    manifest = parse_manifest(
        {
            "client_name": "",
            "colour": "red",
            "redirect_uris": ["https://ok.example"],
            "capabilities": {
                "webhooks": {
                    "retry": {"retention_time": 1},
                    "ms.MessagingEventNotification.AccpetStatusEvent": {"endpoint": "https://a.example"},
                    "q": {},
                    "cqm.ExConversationChangeNotification": {
                        "endpoint": "http://a.example",
                        "headers": [{"header_name": "", "header_value": "v"}],
                    },
                }
            },
        }
    )
    assert sorted(manifest.problems()) == [
        "AppManifest.client_name must have 1 to 128 characters, not 0",
        "AppManifest.grant_types must contain client_credentials for a connector",
        "AppManifest.scope must contain msg.consumer for a connector",
        "AppManifest: colour is not known, or cannot be read",
        "WebhookEndpoint.endpoint must be an https URL with a host, without user or fragment",
        "WebhookHeader.header_name must have 1 to any number of characters, not 0",
        "WebhookRetry.retention_time must be at least 2 and at most 259200, not 1",
        (
            "Webhooks: ms.MessagingEventNotification.AccpetStatusEvent is no event, or its endpoint cannot be read; "
            "did you mean ms.MessagingEventNotification.AcceptStatusEvent?"
        ),
        "Webhooks: q is no event, or its endpoint cannot be read",
    ]


@pytest.mark.parametrize("raw", ["{", b"\xff", "[]", {}, None, {"client_name": 5.5}])
def test_what_is_no_manifest_is_refused(raw: Any) -> None:
    """The documented error only."""
    with pytest.raises(RemoteProtocolError, match="cannot read the manifest"):
        parse_manifest(raw)


def test_secret_of_a_returned_manifest_shows_in_no_repr() -> None:
    """Design decision 7."""
    manifest = parse_manifest({"client_name": "x", "client_id": "i", "client_secret": "secret", "deleted": False})
    assert "secret" not in repr(manifest)
    assert to_wire(manifest)["client_secret"] == "secret"
