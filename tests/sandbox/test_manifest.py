"""The webhooks of an app manifest: where they go, how often they are tried, and what is wrong with one."""

from __future__ import annotations

from typing import Any

import anyio.lowlevel
import pytest

from connector_async.errors import ConfigurationError
from connector_async.sandbox import Sandbox
from connector_async.sandbox._manifest import EVENT_KEYS, webhooks_of_manifest
from tests.sandbox.caller import calling

pytestmark = pytest.mark.anyio

MANIFEST = {
    "client_name": "x",
    "capabilities": {
        "webhooks": {
            "ms.MessagingEventNotification.ContentEvent": {
                "endpoint": "http://127.0.0.1:1/a?b=c",
                "max_retries": 3,
                "headers": [{"header_name": "x-mine", "header_value": "1"}],
            },
            "cqm.ExConversationChangeNotification": {"endpoint": "http://127.0.0.1:1/a?b=c"},
            "retry": {"retention_time": 60},
        }
    },
}


def test_a_manifest_says_where_and_how() -> None:
    """Webhooks configuration: several kinds may share one URL."""
    endpoints, retention = webhooks_of_manifest(MANIFEST)
    assert retention == 60
    content, change = endpoints[EVENT_KEYS[0]], endpoints[EVENT_KEYS[4]]
    assert content.target is change.target
    assert (content.max_retries, change.max_retries) == (3, None)
    assert content.headers == ((b"x-mine", b"1"),)
    assert webhooks_of_manifest(MANIFEST["capabilities"]["webhooks"])[1] == 60  # type: ignore[index]  # a literal


@pytest.mark.parametrize(
    ("hooks", "sentence"),
    [
        (7, "capabilities.webhooks must be a JSON object"),
        ({"retry": {"retention_time": 1}}, "retention_time must be from 2 to 259200"),
        ({"other": {"endpoint": "http://x"}}, "webhook 'other' is not known; known are"),
        ({EVENT_KEYS[0]: {}}, "needs an endpoint"),
        ({EVENT_KEYS[0]: {"endpoint": "http://x", "max_retries": 6}}, "max_retries must be from 0 to 5"),
        ({EVENT_KEYS[0]: {"endpoint": "http://x", "headers": [1]}}, "headers must be a list"),
        ({EVENT_KEYS[0]: {"endpoint": "ftp://x"}}, "must be a URL that begins with http"),
    ],
)
def test_a_wrong_manifest_gives_one_clear_sentence(hooks: Any, sentence: str) -> None:
    """Issue 6, item 5."""
    with pytest.raises(ConfigurationError, match=sentence):
        webhooks_of_manifest({"capabilities": {"webhooks": hooks}})


async def test_untrusted_and_absent_endpoints_are_failed_attempts() -> None:
    """What a delivery's record says then."""
    async with Sandbox(tls=True) as other, Sandbox(in_process=True, agent="silent") as cloud, calling(cloud) as call:
        cloud.deliver_to_url(f"{other.url}/")
        await call.open(await call.headers())
        await cloud.settle()
        assert cloud.webhooks.deliveries[0].attempts[0] in ("SSLCertVerificationError", "SSLError")
        cloud.use_manifest(MANIFEST)
        await call.open(await call.headers("second"))
        while not cloud.webhooks.deliveries[-1].attempts:
            await anyio.lowlevel.checkpoint()
        assert cloud.webhooks.state == "FAILED"
        assert cloud.webhooks.as_json()["state"] == "FAILED"
