"""One suite for every engine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from connector_async.store import MemoryStore, PostgresStore, SqliteStore, Store
from connector_async.store.tokens import PlaintextTokens
from tests.store.postgres_server import PostgresPlace, postgres, postgres_server

__all__ = ["MakeStore", "make_store", "postgres", "postgres_server", "store"]

MakeStore = Callable[[], Store]


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> MakeStore:
    """Makes a store; a durable engine opens the same data each time."""
    if request.param == "memory":
        return lambda: MemoryStore(max_entries=100, max_dead=3)
    if request.param == "postgres":
        place: PostgresPlace = request.getfixturevalue("postgres")
        bounds = {"max_entries": 100, "max_waiting": 100, "max_dead": 3}
        return lambda: PostgresStore(place.dsn, schema=place.schema, tokens=PlaintextTokens(), **bounds)
    path = tmp_path / "store.db"
    return lambda: SqliteStore(path, max_entries=100, max_waiting=100, max_dead=3, tokens=PlaintextTokens())


@pytest.fixture
async def store(make_store: MakeStore) -> AsyncIterator[Store]:
    """A store that is closed at the end."""
    store = make_store()
    yield store
    await store.aclose()
