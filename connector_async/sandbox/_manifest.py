"""Where webhooks go and how often they are tried, as an app manifest says it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import attrs

from connector_async.errors import ConfigurationError
from connector_async.sandbox._json import is_array, is_object
from connector_async.sandbox._post import HttpTarget, Target

__all__ = ["EVENT_KEYS", "WebhookEndpoint", "webhooks_of_manifest"]

EVENT_KEYS: Final = (
    "ms.MessagingEventNotification.ContentEvent",
    "ms.MessagingEventNotification.RichContentEvent",
    "ms.MessagingEventNotification.AcceptStatusEvent",
    "ms.MessagingEventNotification.ChatStateEvent",
    "cqm.ExConversationChangeNotification",
)


@attrs.frozen(kw_only=True)
class WebhookEndpoint:
    """Where one kind of event goes.

    Attributes:
        max_retries: 0 to 5, or None where the manifest does not say; 0 given beside a retention time keeps failures
            of this kind from starting that mechanism.
    """

    target: Target
    max_retries: int | None = None
    headers: tuple[tuple[bytes, bytes], ...] = ()


def webhooks_of_manifest(
    manifest: object, target_of: Callable[[str], Target] = HttpTarget
) -> tuple[dict[str, WebhookEndpoint], float | None]:
    """The endpoints and the retention time of an app manifest, or of its `capabilities.webhooks` alone.

    Raises:
        ConfigurationError: One sentence on what is wrong.
    """
    hooks = manifest
    if is_object(manifest) and is_object(manifest.get("capabilities")):
        hooks = manifest["capabilities"].get("webhooks")
    if not is_object(hooks):
        raise ConfigurationError("manifest: capabilities.webhooks must be a JSON object")
    retry: object = hooks.get("retry") or {}
    retention = retry.get("retention_time") if is_object(retry) else None
    if retention is not None and not (isinstance(retention, int) and 2 <= retention <= 259_200):
        raise ConfigurationError("manifest: retry.retention_time must be from 2 to 259200 seconds")
    targets: dict[str, Target] = {}
    endpoints: dict[str, WebhookEndpoint] = {}
    for key, value in hooks.items():
        if key != "retry":
            endpoints[key] = _endpoint(key, value, targets, target_of)
    return endpoints, retention


def _endpoint(
    key: str, value: object, targets: dict[str, Target], target_of: Callable[[str], Target]
) -> WebhookEndpoint:
    if key not in EVENT_KEYS:
        raise ConfigurationError(f"manifest: webhook {key!r} is not known; known are {', '.join(EVENT_KEYS)}")
    if not is_object(value) or not isinstance(value.get("endpoint"), str):
        raise ConfigurationError(f"manifest: webhook {key} needs an endpoint")
    retries = value.get("max_retries")
    if retries is not None and not (isinstance(retries, int) and 0 <= retries <= 5):
        raise ConfigurationError(f"manifest: webhook {key}: max_retries must be from 0 to 5")
    listed: object = value.get("headers") or []
    if not is_array(listed) or not all(
        is_object(one) and {"header_name", "header_value"} <= set(one) for one in listed
    ):
        raise ConfigurationError(f"manifest: webhook {key}: headers must be a list of header_name and header_value")
    url: str = value["endpoint"]
    if url not in targets:
        targets[url] = target_of(url)
    headers = tuple((str(one["header_name"]).encode(), str(one["header_value"]).encode()) for one in listed)
    return WebhookEndpoint(target=targets[url], max_retries=retries, headers=headers)
