"""Pump tests run on the virtual clock: an hour passes in no time."""

from __future__ import annotations

from typing import Any

import pytest

from tests.virtual_clock import VirtualClockLoop


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return ("asyncio", {"loop_factory": VirtualClockLoop})
