"""Webhooks: what the cloud tells us, verified, put in order and handed to handlers."""

from typing import TYPE_CHECKING

from connector_async._lazy import lazily as _lazily
from connector_async.webhooks.incoming import Incoming, Unclaimed
from connector_async.webhooks.router import Router
from connector_async.webhooks.settings import Ack, WebhookSettings, WebhookStats

__all__ = [
    "Acceptance",
    "AccountDirectory",
    "Ack",
    "AppRecord",
    "Dispatched",
    "Dispatcher",
    "Incoming",
    "Router",
    "Unclaimed",
    "Verified",
    "WebhookApp",
    "WebhookReceiver",
    "WebhookSettings",
    "WebhookStats",
]

# What a session that only sends does not need.
_HOMES = {
    "asgi": "AccountDirectory WebhookApp",
    "dispatcher": "Acceptance Dispatched Dispatcher",
    "receiver": "AppRecord Verified WebhookReceiver",
}

if TYPE_CHECKING:
    from connector_async.webhooks.asgi import AccountDirectory, WebhookApp
    from connector_async.webhooks.dispatcher import Acceptance, Dispatched, Dispatcher
    from connector_async.webhooks.receiver import AppRecord, Verified, WebhookReceiver
else:  # type checkers would let every misspelt name pass
    __getattr__ = _lazily(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
