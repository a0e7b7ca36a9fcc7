"""What every test shares: the event loop to run on."""

from __future__ import annotations

import pytest


@pytest.fixture
def anyio_backend() -> str:
    """Async tests run on asyncio unless a module asks for more."""
    return "asyncio"
