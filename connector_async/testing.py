"""For the tests of those who use us: a cloud in the test's own process, as pytest fixtures and as plain helpers.

    # conftest.py
    pytest_plugins = ["connector_async.testing"]

    # test_bot.py
    @pytest.mark.anyio
    async def test_the_bot_answers(cloud):
        async with cloud.session(router=router) as session:
            cloud.deliver_to(session.webhook_app())
            conversation = await session.consumer("shopper").ensure_conversation()
            cloud.agent.says(conversation.conversation_id, "Hello, how can I help?")
            assert await cloud.agent.hears(conversation.conversation_id) == "…"

The fixtures need pytest with anyio's plugin (it comes with anyio). `clock` is the sandbox's wall clock, moved by
hand.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

from connector_async.errors import ConfigurationError

try:
    import pytest

    from connector_async.sandbox import Sandbox
    from connector_async.sandbox.webhooks import sign_body
except ImportError as error:
    raise ConfigurationError(
        f"connector_async.testing needs {error.name}: pip install pytest 'connector-async[sandbox]'"
    ) from error

__all__ = ["ManualClock", "Sandbox", "clock", "cloud", "sign", "signed_headers"]


class ManualClock:
    """Wall-clock seconds that pass only when told to.

    Args:
        now: Where to begin; the present if None.
    """

    def __init__(self, now: float | None = None) -> None:
        self.now = time.time() if now is None else now

    def __call__(self) -> float:
        """The time."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass.

        Raises:
            ValueError: Time does not run backwards.
        """
        if seconds < 0:
            raise ValueError(f"time does not run backwards: {seconds}")
        self.now += seconds


def sign(body: bytes, secret: str, algorithm: str = "sha1") -> str:
    """The value of `x-liveperson-signature` for a body.

    Args:
        algorithm: `sha1` or `sha256`.

    Source: Connector API, webhooks notification protocol.
    """
    return sign_body(body, secret, "sha256" if algorithm == "sha256" else "sha1")


def signed_headers(
    body: bytes, *, account_id: str, client_id: str, secret: str, algorithm: str = "sha1"
) -> dict[str, str]:
    """All headers that the cloud puts on a delivery of this body."""
    return {
        "content-type": "application/json",
        "x-liveperson-account-id": account_id,
        "x-liveperson-client-id": client_id,
        "x-liveperson-signature": sign(body, secret, algorithm),
    }


@pytest.fixture
def clock() -> ManualClock:
    """The wall clock of `cloud`."""
    return ManualClock()


@pytest.fixture
async def cloud(anyio_backend: Any, clock: ManualClock) -> AsyncIterator[Sandbox]:  # noqa: ARG001 - asks for the loop
    """A sandbox in process: no socket, no thread; its agent is silent, for the test plays it."""
    async with Sandbox(in_process=True, agent="silent", clock=clock) as sandbox:
        yield sandbox
