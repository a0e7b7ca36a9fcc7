"""The event loops a test can ask for by name.

    @pytest.mark.parametrize("anyio_backend", EVERY_LOOP)
    async def test_…

    @pytest.mark.parametrize("anyio_backend", [VIRTUAL])      # an hour passes in no time
    async def test_…

Without it a test runs on plain asyncio.
"""

from __future__ import annotations

import importlib.util

import pytest

from tests.virtual_clock import VirtualClockLoop

__all__ = ["ASYNCIO", "ASYNCIO_AND_TRIO", "EVERY_LOOP", "TRIO", "UVLOOP", "VIRTUAL"]


def _needs(module: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(importlib.util.find_spec(module) is None, reason=f"{module} is not installed")


ASYNCIO = pytest.param("asyncio", id="asyncio")
UVLOOP = pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop", marks=_needs("uvloop"))
TRIO = pytest.param("trio", id="trio", marks=_needs("trio"))
VIRTUAL = pytest.param(("asyncio", {"loop_factory": VirtualClockLoop}), id="virtual")

EVERY_LOOP = [ASYNCIO, UVLOOP, TRIO]
ASYNCIO_AND_TRIO = [ASYNCIO, TRIO]
