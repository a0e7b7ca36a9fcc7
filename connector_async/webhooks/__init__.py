"""Webhooks: what the cloud tells us, verified, put in order and handed to handlers."""

from connector_async.webhooks.asgi import AccountDirectory, WebhookApp
from connector_async.webhooks.dispatcher import Acceptance, Dispatched, Dispatcher
from connector_async.webhooks.incoming import Incoming, Unclaimed
from connector_async.webhooks.receiver import AppRecord, Verified, WebhookReceiver
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
