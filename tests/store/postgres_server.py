"""A PostgreSQL of the tests' own: made in a new folder, reached through a socket in it, gone afterwards.

Fixtures for any test that wants one: `postgres_server` (one for each run, or worker of xdist) and `postgres` (a
schema of its own in it). Where the programs or psycopg are missing, those tests are skipped and say why.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

__all__ = ["PostgresPlace", "PostgresServer", "postgres", "postgres_server"]

_DEBIANS_FOLDER = Path("/usr/lib/postgresql")
_SETTINGS = (
    # A crash of the machine is not what these tests are about; `kill -9` of a client loses nothing without fsync.
    "fsync = off",
    "full_page_writes = off",
    "listen_addresses = ''",
    "max_connections = 60",
    "shared_buffers = '32MB'",
    "deadlock_timeout = '100ms'",
    "autovacuum = off",
)
_numbers = itertools.count(1)


@attrs.frozen
class PostgresPlace:
    """Where a test may put its tables."""

    dsn: str
    schema: str


class PostgresServer:
    """`initdb` and `pg_ctl` in a folder of their own."""

    def __init__(self, programs: Path, user: str | None) -> None:
        self._programs = programs
        self._user = user
        self.folder = Path(tempfile.mkdtemp(prefix="connector-async-pg-"))
        self._data = self.folder / "data"
        self.dsn = f"host={self.folder} dbname=postgres user=postgres"

    def start(self) -> None:
        """Make the database and wait until it answers."""
        if self._user is not None:
            shutil.chown(self.folder, self._user)
        self._run("initdb", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C", "--no-sync")
        with (self._data / "postgresql.conf").open("a", encoding="utf-8") as settings:
            settings.write("\n".join([*_SETTINGS, f"unix_socket_directories = '{self.folder}'", ""]))
        self.resume()

    def resume(self) -> None:
        """Start the server again on what is there."""
        self._run("pg_ctl", "--wait", "--timeout=60", f"--log={self.folder / 'log'}", "start")

    def halt(self) -> None:
        """Stop it as if the power had gone; connections break."""
        self._run("pg_ctl", "--wait", "--timeout=60", "--mode=immediate", "stop")

    def remove(self) -> None:
        """Stop it, and leave nothing."""
        if (self._data / "postmaster.pid").exists():
            self.halt()
        shutil.rmtree(self.folder)

    def place(self) -> PostgresPlace:
        """A schema that nobody else uses."""
        return PostgresPlace(self.dsn, f"test_{next(_numbers)}")

    def _run(self, program: str, *args: str) -> None:
        done = subprocess.run(
            [self._programs / program, "--pgdata", str(self._data), *args],
            check=False,
            stdin=subprocess.DEVNULL,
            # A pipe would be inherited by the server and never end.
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self.folder,
            user=self._user,
            group=self._user,
            extra_groups=None if self._user is None else [],
            # Of the tests' own environment nothing is its business, least of all PG* settings.
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
            timeout=120,
        )
        if done.returncode:
            log = self.folder / "log"
            said = log.read_text(encoding="utf-8", errors="replace")[-2000:] if log.exists() else ""
            raise RuntimeError(f"{program} ended with {done.returncode}\n{said}")


def _programs() -> Path | None:
    """The folder with `initdb`: Debian keeps it off the PATH, one for each version."""
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).parent
    folders = sorted(_DEBIANS_FOLDER.glob("*/bin/initdb"), key=lambda file: int(file.parts[-3]), reverse=True)
    return folders[0].parent if folders else None


def _user() -> str | None:
    """PostgreSQL refuses to run as root: Debian's package makes a user for it."""
    if os.geteuid() != 0:
        return None
    import pwd

    try:
        return pwd.getpwnam("postgres").pw_name
    except KeyError:
        return pytest.skip("PostgreSQL does not run as root, and there is no user `postgres`")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A running server."""
    pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'connector-async[postgres]'")
    if os.name == "nt" or (programs := _programs()) is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    server = PostgresServer(programs, _user())
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture
def postgres(postgres_server: PostgresServer) -> PostgresPlace:
    """Room for one test."""
    return postgres_server.place()
