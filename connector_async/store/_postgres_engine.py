"""Connections to one PostgreSQL database: opened when needed, kept, their errors translated.

It knows transactions and what may be tried again, and nothing of what the tables mean. It keeps connections itself:
psycopg's pool starts tasks that belong to no task group, and this needs none.
"""

from __future__ import annotations

import math
import os
import re
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any, LiteralString, TypeAlias, TypeVar

import anyio
import attrs
from anyio.lowlevel import current_token

from connector_async.errors import ConfigurationError, StoreUnavailable

if TYPE_CHECKING:
    from psycopg import AsyncConnection

__all__ = ["Database", "PostgresEngine"]

Database: TypeAlias = "AsyncConnection[tuple[Any, ...]]"
_Result = TypeVar("_Result")
_Work: TypeAlias = "Callable[[Database], Awaitable[_Result]]"

_SCHEMA_NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_PORTS = re.compile(r"[0-9]{0,5}(,[0-9]{0,5})*")
_ATTEMPTS = 5
"""How often a transaction is run that PostgreSQL ended and says so: to resolve a deadlock (locks are taken in one
order, so that one is rare), or with its connection, by an administrator or a pooler."""
_KNOWS_USER_TIMEOUT = 120_000
"""The libpq."""
_TRUSTED_FOR = 1.0
"""Seconds for which an idle connection is taken to be alive without asking it: asking costs a round trip."""


@attrs.define(eq=False)
class PostgresEngine:
    """Runs functions of a connection, each call on a connection of its own."""

    dsn: str = attrs.field(repr=False)
    schema: str
    migrations: Sequence[Sequence[LiteralString]] = attrs.field(repr=False)
    max_connections: int
    patience: float
    """Seconds to wait for a connection, and for a lock that another holds."""
    _slots: anyio.Semaphore = attrs.field(init=False, repr=False)
    _idle: list[tuple[Database, float]] = attrs.field(factory=list[tuple[Any, float]], init=False, repr=False)
    """With when each was used, the one used last at the end."""
    _migrating: anyio.Lock = attrs.field(factory=anyio.Lock, init=False, repr=False)
    _loop: object = attrs.field(default=None, init=False, repr=False)
    """The event loop that uses it at the moment."""
    _calls: int = attrs.field(default=0, init=False, repr=False)
    _counting: threading.Lock = attrs.field(factory=threading.Lock, init=False, repr=False)
    _process: int = attrs.field(factory=os.getpid, init=False, repr=False)
    _is_migrated: bool = attrs.field(default=False, init=False)
    _is_closed: bool = attrs.field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self._slots = anyio.Semaphore(self.max_connections)
        if not _SCHEMA_NAME.fullmatch(self.schema):
            raise ConfigurationError("a schema's name here has small letters, digits and `_`, at most 63 of them")
        _check_address(self.dsn)

    async def run(self, work: _Work[_Result]) -> _Result:
        """Run work that consists of one statement, which is a transaction by itself."""
        psycopg = _driver()
        try:
            with self._in_this_loop():
                return await self._run_again(work, _undone(psycopg))
        except (psycopg.Error, OverflowError, UnicodeError) as error:
            if isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
                # The server has become a standby perhaps, and the address names another one by now.
                await self._close_idle()
            # Not `from`: a database's error may quote the row that it is about.
            raise _translated(error) from None

    async def transact(self, work: _Work[_Result]) -> _Result:
        """Run work in one transaction: all of it is kept, or none."""

        async def in_transaction(db: Database) -> _Result:
            await db.execute("BEGIN")
            result = await work(db)
            await db.execute("COMMIT")
            return result

        return await self.run(in_transaction)

    async def aclose(self) -> None:
        """Close all connections, those in use when their work is done; idempotent."""
        self._is_closed = True
        self._leave_parents()
        await self._close_idle()

    async def _close_idle(self) -> None:
        with anyio.CancelScope(shield=True):
            while self._idle:
                await self._idle.pop()[0].close()

    @contextmanager
    def _in_this_loop(self) -> Generator[None]:
        """Refuse to wait for another loop, which would tell this one nothing."""
        self._leave_parents()
        with self._counting:
            loop = current_token().native_token
            if self._calls and loop is not self._loop:
                raise RuntimeError("this PostgresStore is in use in another event loop; make one for each loop")
            self._loop = loop
            self._calls += 1
        try:
            yield
        finally:
            with self._counting:
                self._calls -= 1
                self._loop = self._loop if self._calls else None

    async def _run_again(self, work: _Work[_Result], lost: tuple[type[Exception], ...]) -> _Result:
        for _ in range(_ATTEMPTS - 1):
            try:
                async with self._connection() as db:
                    return await work(db)
            except lost:
                continue
        async with self._connection() as db:
            return await work(db)

    @asynccontextmanager
    async def _connection(self) -> AsyncGenerator[Database]:
        self._check_open()
        try:
            with anyio.fail_after(self.patience):
                await self._slots.acquire()
        except TimeoutError:
            raise StoreUnavailable(
                f"all {self.max_connections} connections of the store in PostgreSQL were busy for {self.patience:g} s"
            ) from None
        try:
            db = await self._take()
            try:
                yield db
            finally:
                with anyio.CancelScope(shield=True):
                    await self._give_back(db)
        finally:
            self._slots.release()

    def _check_open(self) -> None:
        if self._is_closed:
            raise RuntimeError("the store is closed")

    def _leave_parents(self) -> None:
        """After a fork, use nothing of the parent's: two that speak on one connection read each other's answers.

        What is let go here is not closed, which would end it for the parent too: psycopg sees to that.
        """
        if self._process != os.getpid():
            self._process, self._counting, self._calls = os.getpid(), threading.Lock(), 0
            self._idle = []
            self._slots, self._migrating = anyio.Semaphore(self.max_connections), anyio.Lock()

    async def _take(self) -> Database:
        from psycopg import Error

        self._check_open()
        while self._idle:
            db, used_at = self._idle.pop()
            try:
                if anyio.current_time() - used_at > _TRUSTED_FOR:
                    await db.execute("")
                return db
            except Error:
                # The server went away meanwhile, and so did all that this connection was to do.
                await db.close()
            except BaseException:
                await _close(db)
                raise
        return await self._connect()

    async def _give_back(self, db: Database) -> None:
        from psycopg.pq import TransactionStatus

        if db.info.transaction_status in (TransactionStatus.INTRANS, TransactionStatus.INERROR):
            await _roll_back(db)
        if db.info.transaction_status is TransactionStatus.UNKNOWN:
            # The server cut it; it may well have cut all, so that those at rest are asked before they are used.
            self._idle = [(idle, -math.inf) for idle, _ in self._idle]
        # Cancelled in the middle of a statement, it is still active: the server was told, but has not answered.
        if self._is_closed or db.info.transaction_status is not TransactionStatus.IDLE:
            await db.close()
        else:
            self._idle.append((db, anyio.current_time()))

    async def _connect(self) -> Database:
        from psycopg import AsyncConnection

        options: dict[str, Any] = _kept_alive(self.dsn, max(2, round(self.patience)))
        db = await AsyncConnection.connect(self.dsn, autocommit=True, **options)
        try:
            # First, for a migration waits for another process's, which may be paused in the middle of it.
            await self._configure(db)
            async with self._migrating:
                if not self._is_migrated:
                    await self._migrate(db)
                    self._is_migrated = True
        except BaseException:
            await _close(db)
            raise
        return db

    async def _configure(self, db: Database) -> None:
        """What each connection is told once.

        A process that is paused inside a transaction must not keep its locks for good; nor one that is gone, or was
        cancelled, in the middle of a statement (PostgreSQL 14 and newer look after that when asked to). Where the
        server is set to acknowledge what is not on disk, this client asks for better. And a plan that was made while
        a table was small is kept when it has grown: so only plans that suit both. And transactions see what was
        committed while they waited for a lock, as the statements count on, whatever the server is set to.
        """
        await db.execute(
            """
            SELECT set_config('search_path', %s, false), set_config('lock_timeout', %s, false),
                set_config('idle_in_transaction_session_timeout', '30s', false),
                set_config('default_transaction_isolation', 'read committed', false),
                set_config('synchronous_commit', replace(current_setting('synchronous_commit'), 'off', 'on'), false),
                set_config('enable_seqscan', 'off', false), set_config('enable_hashjoin', 'off', false),
                set_config('enable_mergejoin', 'off', false), set_config('enable_bitmapscan', 'off', false),
                set_config('jit', 'off', false)
            """,
            (f'"{self.schema}"', f"{max(1, round(self.patience * 1000))}ms"),
        )
        await db.execute(
            "SELECT set_config(name, '500ms', false) FROM pg_settings WHERE name = 'client_connection_check_interval'"
        )

    async def _migrate(self, db: Database) -> None:
        from psycopg import sql

        await db.execute("BEGIN")
        await db.execute("SELECT pg_advisory_xact_lock(hashtext('connector_async'), hashtext(%s))", (self.schema,))
        known = await db.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", (self.schema,))
        if await known.fetchone() is None:
            await db.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(self.schema)))
        await db.execute(sql.SQL("SET LOCAL search_path TO {}").format(sql.Identifier(self.schema)))
        version = await self._version(db)
        if version < len(self.migrations):
            for script in self.migrations[version:]:
                for statements in script:
                    await db.execute(statements)
            await db.execute("UPDATE schema_version SET version = %s", (len(self.migrations),))
        await db.execute("COMMIT")

    async def _version(self, db: Database) -> int:
        found = await db.execute("SELECT to_regclass('schema_version')::text")
        if await found.fetchone() == (None,):
            await db.execute("CREATE TABLE schema_version AS SELECT 0 AS version")
        row = await (await db.execute("SELECT version FROM schema_version")).fetchone()
        version = int(row[0]) if row is not None else 0
        if version > len(self.migrations):
            raise ConfigurationError(
                f"the schema {self.schema} was written by a newer version of connector_async (version {version}, "
                f"known here: {len(self.migrations)}); update the package or use another schema"
            )
        return version


def _check_address(dsn: str) -> None:
    """Refuse an address that cannot be meant, without a word of what is in it: part of that may be the password."""
    psycopg = _driver()
    try:
        parts = psycopg.conninfo.conninfo_to_dict(dsn)
    except psycopg.ProgrammingError:
        # Not `from`: that error quotes the parts of the address, the password among them.
        raise ConfigurationError(
            "the address of the database is not one that PostgreSQL understands, such as postgresql://user@host/db"
        ) from None
    # With a password that was not encoded its rest is taken for the host or the port, which later errors would quote.
    host, port = str(parts.get("host") or ""), str(parts.get("port") or "")
    if ("@" in host and not host.startswith("@")) or not _PORTS.fullmatch(port):
        raise ConfigurationError(
            "the address of the database has an `@` in its host, or a port that is no number; in an address like "
            "postgresql://user:password@host/db the signs @ : / ? # of a password are written as %40 %3A %2F %3F %23"
        )


def _kept_alive(dsn: str, seconds: int) -> dict[str, int]:
    """How a connection is given up when nothing is heard of its other end, as far as the address does not say.

    A machine that lost its power, or its address in a failover, takes leave of nobody: by the system's own settings
    an answer is waited for two hours.
    """
    psycopg = _driver()
    wanted = {
        "connect_timeout": seconds,
        "keepalives_idle": seconds,
        "keepalives_interval": seconds,
        "keepalives_count": 3,
        "tcp_user_timeout": 4 * seconds * 1000,
    }
    if psycopg.pq.version() < _KNOWS_USER_TIMEOUT:
        del wanted["tcp_user_timeout"]
    given = psycopg.conninfo.conninfo_to_dict(dsn)
    return {name: value for name, value in wanted.items() if name not in given or name == "connect_timeout"}


def _undone(psycopg: ModuleType) -> tuple[type[Exception], ...]:
    """The errors by which the server says that nothing of the work was kept.

    An administrator's command ends a backend between two statements or rolls back the one it is at; a commit is not
    interrupted. A crash says no such thing.
    """
    errors = psycopg.errors
    return (
        errors.DeadlockDetected,
        errors.SerializationFailure,
        errors.AdminShutdown,
        errors.IdleSessionTimeout,
        errors.IdleInTransactionSessionTimeout,
    )


def _driver() -> ModuleType:
    try:
        import psycopg
    except ImportError as error:
        raise ConfigurationError(
            "a store in PostgreSQL needs `psycopg`: pip install 'connector-async[postgres]'"
        ) from error
    return psycopg


async def _roll_back(db: Database) -> None:
    from psycopg import Error

    try:
        await db.rollback()
    except Error:
        # The connection broke, which ends the transaction too.
        await db.close()


async def _close(db: Database) -> None:
    with anyio.CancelScope(shield=True):
        await db.close()


def _translated(error: Exception) -> StoreUnavailable:
    """Which error it was; and what the server said where that cannot quote a row."""
    from psycopg import OperationalError, errors

    about_no_row = (
        OperationalError,
        errors.InsufficientPrivilege,
        errors.InvalidSchemaName,
        errors.ReadOnlySqlTransaction,
        errors.UndefinedTable,
    )
    state = getattr(error, "sqlstate", None)
    said = f": {str(error).splitlines()[0]}" if isinstance(error, about_no_row) and str(error) else ""
    return StoreUnavailable(
        f"the store in PostgreSQL failed with {type(error).__name__}{f' ({state})' if state else ''}{said}"
    )
