"""The recorded and documented payloads, and which of them are none of the three kinds of message."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parent.parent / "vectors"

NO_REQUEST = {
    "header Client-Properties AUTO_MESSAGES": "the value of a header: read as ClientProperties",
    "header Client-Properties of the demo client for a survey": "the value of a header: read as ClientProperties",
    "header Client-Properties with MULTI_DIALOG": "the value of a header: read as ClientProperties",
    "header Client-Properties with six features": "the value of a header: read as ClientProperties",
    "consumer JWS request body (how-to)": "the body of a call to IDP",
    "history search body (demo, agent bearer)": "the body of a call to the history API",
    "monitoring report request": "the body of a call to the Monitoring API",
    "agent opens a proactive conversation (agent side only)": "a body without its envelope, of a type for agents",
    "app manifest (getting started)": "an app manifest: read by parse_manifest",
    "webhooks retry by time to live": "an app manifest: read by parse_manifest",
    "webhooks retention with excluded event type": "an app manifest: read by parse_manifest",
    "webhooks configuration, enabled app": "an app manifest: read by parse_manifest",
}

NO_RESPONSE = {
    "AppJWT response (signature part removed)": "a token from Sentinel",
    "AppJWT header": "part of a token",
    "AppJWT claims": "part of a token",
    "AppJWT response (how-to; signature part removed)": "a token from Sentinel",
    "ConsumerJWS response (signature part removed)": "a token from IDP",
    "ConsumerJWS claims (decoded from the sample)": "part of a token",
    "ConsumerJWS response (how-to; signature part removed)": "a token from IDP",
    "domain list": "an answer of the Domain API",
    "publish response body, text": "a body without its envelope: read as EventPublished",
    "publish response body, text with quick replies": "a body without its envelope: read as EventPublished",
    "publish response body, rich content with quick replies": "a body without its envelope: read as EventPublished",
    "engagement: resume conversation": "an answer of the Monitoring API",
    "engagement unavailable": "an answer of the Monitoring API",
    "monitoring error 500": "an answer of the Monitoring API",
    "monitoring error 400": "an answer of the Monitoring API",
    "consumer history content (shortened)": "an answer of the history API; its records are read as MessagingEvent",
}

NO_NOTIFICATION = {
    "fragment: co-browse dialog inside conversationDetails.dialogs": "part of a notification: read as Dialog",
    "body only: conversation change with lastContentEventNotification (agent feed)": "read as ConversationChanges",
    "body only: agent text with client properties, sequence 10": "read as MessagingEvents",
    "change only: agent read, sequence 9": "read as MessagingEvent",
    "change only: consumer typing with client properties": "read as MessagingEvent",
    "change only: consumer BACKGROUND chat state": "read as MessagingEvent",
    "fragment: quick replies template": "part of an event: read as QuickReplies",
    "fragment: rich content card (RichContentEvent.content)": "part of an event: read as Element",
    "fragment: link action with per-platform uri": "part of an element: read as Action",
}


def load(name: str) -> dict[str, Any]:
    """All payloads of one file by their names."""
    entries = json.loads((_FOLDER / f"{name}.json").read_text("utf-8"))
    return {entry["name"]: entry["payload"] for entry in entries}


REQUESTS = load("requests")
RESPONSES = load("responses")
NOTIFICATIONS = load("notifications")


def messages(payloads: dict[str, Any], exceptions: dict[str, str]) -> list[Any]:
    """The payloads that are messages, as parameters of a test."""
    return [(name, payload) for name, payload in payloads.items() if name not in exceptions]
