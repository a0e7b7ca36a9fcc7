"""Notifications from JSON, apart from `codec`: whoever only sends does not load what webhooks bring."""

from __future__ import annotations

from typing import Any

from connector_async.wire._converter import read_as, readers
from connector_async.wire.codec import load, one_or_many
from connector_async.wire.notifications import Notification

__all__ = ["decode_notification", "parse_notification"]


def parse_notification(obj: Any) -> Notification[Any] | list[Notification[Any]]:
    """Read a notification, or a list of them, from a JSON value.

    Raises:
        RemoteProtocolError: It is no notification; the message says where and why, and shows no value.
    """
    news: Notification[Any] | list[Notification[Any]] = read_as("notification", one_or_many, obj, Notification)
    return news


def decode_notification(raw: bytes) -> Notification[Any]:
    """Read the body of a webhook delivery.

    Raises:
        RemoteProtocolError: It is no JSON, or not one notification.
    """
    obj = load("notification", raw)
    notification: Notification[Any] = read_as("notification", readers[Notification], obj)
    return notification
