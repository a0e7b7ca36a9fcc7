"""One suite for every engine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from connector_async.store import MemoryStore, SqliteStore, Store

MakeStore = Callable[[], Store]


@pytest.fixture(params=["memory", "sqlite"])
def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> MakeStore:
    """Makes a store; a durable engine opens the same data each time."""
    if request.param == "memory":
        return lambda: MemoryStore(max_entries=100, max_dead=3)
    return lambda: SqliteStore(tmp_path / "store.db", max_entries=100, max_waiting=100, max_dead=3)


@pytest.fixture
async def store(make_store: MakeStore) -> AsyncIterator[Store]:
    """A store that is closed at the end."""
    store = make_store()
    yield store
    await store.aclose()
