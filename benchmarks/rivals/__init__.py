"""Everyone who can send a message, by name: each module has `connect(job)`, an async context manager of a `send`."""

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
    "floor": "floor",
    "pooled": "pooled",
    "session": "session",
    "pyreqwest": "by_pyreqwest",
    "aiohttp": "by_aiohttp",
    "httpx+aiohttp": "by_httpx_aiohttp",
    "httpx": "by_httpx",
}
"""From the bare floor to the heaviest: the order of the tables."""
SLOW = frozenset({"httpx"})
"""Milliseconds per message with many connections: measured less often."""


def load(name: str) -> Connect:
    """The rival of this name.

    Raises:
        ImportError: What it needs is not installed, or not written yet.
    """
    return cast(Connect, importlib.import_module(f"{__name__}.{RIVALS[name]}").connect)
