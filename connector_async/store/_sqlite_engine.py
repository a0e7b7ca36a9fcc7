"""One SQLite connection, used from one thread at a time; concurrent writers share a commit.

It knows files, transactions and threads, and nothing of what the tables mean.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import anyio
import anyio.to_thread
import attrs
from anyio.lowlevel import current_token

from connector_async.errors import ConfigurationError, StoreUnavailable

__all__ = ["SqliteEngine"]

_Result = TypeVar("_Result")
_MEMORY = ":memory:"
_LOCKED_AGAIN = 0.01  # seconds
_CLOSED = "the store is closed"
_making = threading.Lock()


def _absolute(path: Path | str) -> Path | str:
    """Where a relative name leads to now: a process that goes to another folder would find, or make, another file."""
    return path if str(path) == _MEMORY else Path(path).absolute()


@attrs.define(eq=False)
class _Operation(Generic[_Result]):
    run: Callable[[sqlite3.Connection], _Result]
    writes: bool
    result: _Result | None = None
    error: Exception | None = None
    is_done: bool = False
    is_wanted: bool = True


@attrs.define(eq=False)
class _Line:
    """Where the callers of one event loop line up, and the one thread that works for them."""

    turn: anyio.Lock = attrs.field(factory=lambda: anyio.Lock(fast_acquire=True))
    limiter: anyio.CapacityLimiter = attrs.field(factory=lambda: anyio.CapacityLimiter(1))


@attrs.define(eq=False)
class SqliteEngine:
    """Runs functions of a connection in a thread, as many at once in one transaction as are waiting.

    A commit with `synchronous=FULL` costs a flush of the disk, whether it holds one row or a hundred. So callers line
    up at a lock, and the one that gets it commits for all that wait behind it: the busier, the cheaper each.
    """

    path: Path | str = attrs.field(converter=_absolute)
    migrations: Sequence[str]
    busy_timeout: float
    _connection: sqlite3.Connection | None = attrs.field(default=None, init=False, repr=False)
    _opened: tuple[int, int] | None = attrs.field(default=None, init=False, repr=False)
    """Which file that is, by device and number; the name may come to mean another."""
    _opened_in: int | None = attrs.field(default=None, init=False, repr=False)
    """The process that has it open. SQLite's locks are not inherited by a child of it, but its belief in them is."""
    _waiting: list[_Operation[Any]] = attrs.field(factory=list[_Operation[Any]], init=False, repr=False)
    _guard: threading.Lock = attrs.field(factory=threading.Lock, init=False, repr=False)
    _using: threading.Lock = attrs.field(factory=threading.Lock, init=False, repr=False)
    """Held by the thread at the connection: a cancellation of asyncio's own, which heeds no shield, ends the turn of
    its caller, and not the thread."""
    _lines: weakref.WeakKeyDictionary[object, _Line] = attrs.field(
        factory=weakref.WeakKeyDictionary[object, "_Line"], init=False, repr=False
    )
    """By event loop: the threads of several have only `_using` in common."""
    _is_closed: bool = attrs.field(default=False, init=False)
    on_close: list[Callable[[], object]] = attrs.field(factory=list[Callable[[], object]], init=False, repr=False)
    """Called in the thread when the file has been closed."""

    async def read(self, run: Callable[[sqlite3.Connection], _Result]) -> _Result:
        """What `run` returns, seen at one moment."""
        return await self._submit(_Operation(run, writes=False))

    async def write(self, run: Callable[[sqlite3.Connection], _Result]) -> _Result:
        """What `run` returns, once it is on disk.

        Raises:
            StoreUnavailable: Nothing of it was written: disk full, read-only, locked for too long, or damaged.
        """
        return await self._submit(_Operation(run, writes=True))

    @property
    def line(self) -> _Line:
        """That of the running loop."""
        loop = current_token().native_token
        line = self._lines.get(loop)
        if line is None:
            line = self._lines[loop] = _Line()
        return line

    async def wipe(self) -> None:
        """Take what was deleted out of the log too; what another process is reading at this moment goes later.

        Raises:
            StoreUnavailable: The log is as it was.
        """
        line = self.line
        async with line.turn:
            self._check_open()
            try:
                await anyio.to_thread.run_sync(self._empty_log, limiter=line.limiter)
            except sqlite3.Error as error:
                raise StoreUnavailable(f"the store at {self.path} failed: {error}") from error

    def _empty_log(self) -> None:
        with self._using:
            if self._connection is not None:
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()

    async def aclose(self) -> None:
        """Close the file after what is under way; idempotent. Of what was opened before a fork nothing is closed."""
        if self._is_inherited():
            self._is_closed = True
            return
        line = self.line
        with anyio.CancelScope(shield=True):
            async with line.turn:
                self._is_closed = True
                await anyio.to_thread.run_sync(self._shut, limiter=line.limiter)

    def _shut(self) -> None:
        with self._using:
            self._disconnect()
            for leave in self.on_close:
                leave()

    def _disconnect(self) -> None:
        connection, self._connection, self._opened_in = self._connection, None, None
        if connection is not None:
            connection.close()

    async def _submit(self, operation: _Operation[_Result]) -> _Result:
        self._check_open()
        line = self.line
        with self._guard:
            self._waiting.append(operation)
        try:
            async with line.turn:
                if not operation.is_done:
                    await self._lead(line)
        finally:
            # Cancelled while it waited in line: it must not be written on behalf of nobody.
            operation.is_wanted = False
        if not operation.is_done:
            raise RuntimeError(_CLOSED)  # by another loop
        if isinstance(operation.error, ConfigurationError):
            raise ConfigurationError(str(operation.error)) from operation.error
        if operation.error is not None:
            raise StoreUnavailable(f"the store at {self.path} failed: {operation.error}") from operation.error
        return operation.result  # type: ignore[return-value]  # set unless there is an error

    def _check_open(self) -> None:
        if self._is_closed:
            raise RuntimeError(_CLOSED)
        if self._is_inherited():
            raise ConfigurationError(_forked(self.path))

    def has_inherited(self, file: tuple[int, int]) -> bool:
        """Whether it has this file open since before a fork of the process."""
        return self._opened == file and self._is_inherited()

    def _is_inherited(self) -> bool:
        return self._opened_in is not None and self._opened_in != os.getpid()

    async def _lead(self, line: _Line) -> None:
        self._check_open()
        # The thread takes the operations itself: a cancellation before it starts leaves them to the next in line.
        await anyio.to_thread.run_sync(self._run_waiting, limiter=line.limiter)

    def _run_waiting(self) -> None:
        with self._using:
            if not self._is_closed:
                self._run_all(self._take_waiting())

    def _take_waiting(self) -> list[_Operation[Any]]:
        with self._guard:
            waiting, self._waiting = self._waiting, []
        return [operation for operation in waiting if operation.is_wanted]

    def _run_all(self, operations: Sequence[_Operation[Any]]) -> None:
        try:
            _run(self._usable(), operations)
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody in line may take it for a success
            for operation in operations:
                operation.error = error
        for operation in operations:
            operation.is_done = True

    def _usable(self) -> sqlite3.Connection:
        """The connection to the file that bears the name now; in a thread."""
        if self._connection is not None and _identity(self.path) != self._opened:
            # SQLite would go on writing to a file that nobody finds again. (Closing touches no log of another file.)
            self._disconnect()
            msg = (
                "it was moved, replaced or removed while it was in use; the next use opens the file of that name, or "
                "makes it"
            )
            raise FileNotFoundError(msg)
        if self._connection is None:
            self._check_not_inherited()
            self._connection = _open(self.path, self.migrations, self.busy_timeout)
            self._opened, self._opened_in = _identity(self.path), os.getpid()
            _engines.add(self)
        return self._connection

    def _check_not_inherited(self) -> None:
        """Refuse a file that was open when this process was forked: SQLite takes the parent's locks for its own."""
        file = _identity(self.path)
        if file is not None and any(one.has_inherited(file) for one in list(_engines)):
            raise ConfigurationError(_forked(self.path))


_engines: weakref.WeakSet[SqliteEngine] = weakref.WeakSet()
"""Those that have opened their file."""


def _forked(path: Path | str) -> str:
    return (
        f"the store at {path} was open when this process was forked from another: writes could be lost in silence; "
        "close it before the fork, or first use it after that, in each process"
    )


def _run(connection: sqlite3.Connection, operations: Sequence[_Operation[Any]]) -> None:
    """Run all in one transaction; when one fails, each in its own, so that only the culprit gets the error."""
    try:
        _run_together(connection, operations)
    except Exception as error:
        if len(operations) == 1 or _is_busy(error):
            # Of a lock that another process keeps nobody is the culprit, and each would wait for it as long again.
            raise
        for operation in operations:
            try:
                _run_together(connection, [operation])
            except Exception as error:  # noqa: BLE001 - told to whoever asked for it
                operation.error = error


def _run_together(connection: sqlite3.Connection, operations: Sequence[_Operation[Any]]) -> None:
    is_writing = any(operation.writes for operation in operations)
    connection.execute("BEGIN IMMEDIATE" if is_writing else "BEGIN")
    try:
        for operation in operations:
            operation.result = operation.run(connection)
        connection.execute("COMMIT")
    finally:
        _roll_back(connection)


def _roll_back(connection: sqlite3.Connection) -> None:
    # After a COMMIT nothing is open; SQLite also ends the transaction itself on some errors (disk full, I/O error).
    if connection.in_transaction:
        connection.execute("ROLLBACK")


def _open(path: Path | str, migrations: Sequence[str], busy_timeout: float) -> sqlite3.Connection:
    if str(path) != _MEMORY:
        _create_private(Path(path))
    connection = sqlite3.connect(path, timeout=busy_timeout, isolation_level=None, check_same_thread=False)
    try:
        _log_ahead(connection, time.monotonic() + busy_timeout)
        # NORMAL survives the death of the process but not of the power supply.
        connection.execute("PRAGMA synchronous = FULL")
        # What is deleted is overwritten in the file, and not only forgotten about.
        connection.execute("PRAGMA secure_delete = ON")
        _migrate(connection, migrations, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _identity(path: Path | str) -> tuple[int, int] | None:
    """What the name stands for: another file gets another number; None where there is none, or no file at all."""
    if str(path) == _MEMORY:
        return None
    try:
        found = Path(path).stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _create_private(path: Path) -> None:
    """Make the file readable by its owner only: it holds tokens. SQLite gives its side files the same mode.

    Only a file that is not there is opened here, and by one thread at a time: closing any descriptor of a file takes
    away the locks that this process has on it, those of its other connections too. The next process that closed the
    file would believe it was the last, and remove the log that they go on writing to.
    """
    try:
        with _making:
            # Where a link leads: through one to nowhere nothing is made here, and by SQLite for all to read.
            os.close(os.open(os.path.realpath(path), os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        if path.is_dir():
            raise IsADirectoryError("it is a directory; name a file in it") from None
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no directory {path.parent}") from None


def _log_ahead(connection: sqlite3.Connection, give_up_at: float) -> None:
    """Switch a file to its write-ahead log, which SQLite refuses at once, not after its timeout, while others do."""
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if not _is_busy(error) or time.monotonic() >= give_up_at:
                raise
            time.sleep(_LOCKED_AGAIN)
        else:
            return


def _is_busy(error: Exception) -> bool:
    return isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY


def _migrate(connection: sqlite3.Connection, migrations: Sequence[str], path: Path | str) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        if version == 0 and connection.execute("SELECT 1 FROM sqlite_master").fetchone():
            raise ConfigurationError(f"the file {path} holds the tables of something else; use another file")
        if version > len(migrations):
            raise ConfigurationError(
                f"the store at {path} was written by a newer version of connector_async (schema {version}, "
                f"known here: {len(migrations)}); update the package or use another file"
            )
        for script in migrations[version:]:
            for statement in script.split(";\n\n"):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(migrations)}")
        connection.execute("COMMIT")
    finally:
        _roll_back(connection)
