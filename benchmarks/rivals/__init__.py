"""Everyone who can send a message, by name: what connects is an async context manager around a `send`."""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import cast

from benchmarks.job import Job

__all__ = ["RIVALS", "SLOW", "Connect", "Send", "load"]

Send = Callable[[int], Awaitable[object]]
"""Sends one message as the worker of this number and returns when its answer has been read."""
Connect = Callable[[Job], AbstractAsyncContextManager[Send]]

RIVALS = {
    "lean floor": "floor:connect_lean",
    "floor": "floor:connect",
    "pooled": "pooled:connect",
    "session": "session:connect",
    "pyreqwest": "by_pyreqwest:connect",
    "aiohttp": "by_aiohttp:connect",
    "httpx+aiohttp": "by_httpx_aiohttp:connect",
    "httpx": "by_httpx:connect",
}
"""From the bare floor to the heaviest: the order of the tables."""
SLOW = frozenset({"httpx"})
"""Milliseconds per message with many connections: measured less often."""


def load(name: str) -> Connect:
    """The rival of this name.

    Raises:
        ImportError: What it needs is not installed, or not written yet.
    """
    module, _, function = RIVALS[name].partition(":")
    return cast(Connect, getattr(importlib.import_module(f"{__name__}.{module}"), function))
