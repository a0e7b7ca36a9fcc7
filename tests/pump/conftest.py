"""Pump tests run on the virtual clock: an hour passes in no time. Those with processes run on each engine."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.pump.command import Job, SandboxAddress, sandbox_process
from tests.store.postgres_server import PostgresServer, postgres_server
from tests.virtual_clock import VirtualClockLoop

__all__ = ["postgres_server"]

_databases = itertools.count(1)


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return ("asyncio", {"loop_factory": VirtualClockLoop})


@pytest.fixture
def sandbox() -> Iterator[SandboxAddress]:
    pytest.importorskip("starlette", reason="the sandbox needs its extra")
    with sandbox_process() as address:
        yield address


@pytest.fixture(params=["sqlite", "postgresql"])
def job(request: pytest.FixtureRequest, tmp_path: Path, sandbox: SandboxAddress) -> Job:
    """On either engine; the server lives on, what is killed is the pump."""
    if request.param == "sqlite":
        return Job(tmp_path, f"sqlite:///{tmp_path / 'outbox.db'}", sandbox)
    server: PostgresServer = request.getfixturevalue("postgres_server")
    import psycopg  # here, for it is an extra, without which `postgres_server` skips the test
    from psycopg.sql import SQL, Identifier

    name = f"pump_{next(_databases)}"
    with psycopg.connect(server.dsn, autocommit=True) as database:
        database.execute(SQL("CREATE DATABASE {}").format(Identifier(name)))
    return Job(tmp_path, f"postgresql://postgres@/{name}?host={server.folder}", sandbox)
