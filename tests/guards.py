"""What no test may do unnoticed: leave tasks, threads or sockets behind, reach past loopback, show a secret.

Owns the checks; `tests/conftest.py` hangs them around every test.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import functools
import gc
import ipaddress
import logging
import os
import pickle
import sys
import threading
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

__all__ = ["CANARY", "LogWatch", "NetworkGuard", "assert_canary_absent", "left_no_task", "left_no_thread_or_socket"]

# Every secret, token and message text that a test makes up carries this mark: `f"{CANARY}-client-secret"`.
CANARY = "c4nary"

# Seconds in which a task that is on its way out may go; and a thread or a socket, which other processes can hold up.
_PATIENCE, _LONG_PATIENCE = 1.0, 20.0
_FDS = Path("/proc/self/fd")


# --- secrets -------------------------------------------------------------------------------------------------------


class LogWatch(logging.Handler):
    """Formats every record of every logger, tracebacks included, and keeps those that show the canary."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.leaks: list[str] = []
        self._format = logging.Formatter("%(name)s: %(message)s")

    def emit(self, record: logging.LogRecord) -> None:
        extra = {key: value for key, value in vars(record).items() if key not in _PLAIN_RECORD and key != "exc_text"}
        text = f"{self._format.format(record)} {extra!r}"
        # Formatting caches the traceback on the record, where another handler would find it.
        record.exc_text = None
        if CANARY in text:
            self.leaks.append(text)


_PLAIN_RECORD = frozenset(vars(logging.LogRecord("", 0, "", 0, "", (), None)))


def assert_canary_absent(*things: object) -> None:
    """Fail if a canary shows in the repr, text, copy or traceback of any of these objects."""
    for thing in things:
        shown = [repr(thing), str(thing)]
        if isinstance(thing, BaseException):
            shown.append("".join(traceback.format_exception(thing)))
            shown.append(repr(copy.copy(thing)))
            shown.append(pickle.dumps(thing).decode("latin-1"))
        for text in shown:
            assert CANARY not in text, f"{type(thing).__name__} shows a secret: {text}"


# --- network -------------------------------------------------------------------------------------------------------


class NetworkGuard:
    """Refuses connections and look-ups beyond this machine, and remembers them, for code may swallow the refusal."""

    def __init__(self) -> None:
        self.refused: list[str] = []

    def install(self) -> None:
        sys.addaudithook(self._audit)

    def _audit(self, event: str, args: tuple[Any, ...]) -> None:
        if not event.startswith("socket."):
            return
        if event in {"socket.connect", "socket.sendto"}:
            address = args[1]
            host = address[0] if isinstance(address, tuple) else None
        elif event == "socket.getaddrinfo":
            host = args[0]
        else:
            return
        if host is not None and not _is_loopback(host):
            self.refused.append(f"{event} {host!r}")
            raise OSError(f"tests stay on this machine: {host!r} refused")


def _is_loopback(host: object) -> bool:
    text = host.decode("ascii", "replace") if isinstance(host, bytes) else str(host)
    if text in {"", "localhost"}:
        return True
    try:
        return ipaddress.ip_address(text.partition("%")[0]).is_loopback
    except ValueError:
        return False


# --- leftovers -----------------------------------------------------------------------------------------------------


def left_no_task(test: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """The async test, failing if asyncio tasks that it started outlive it."""

    @functools.wraps(test)
    async def watched(*args: Any, **kwargs: Any) -> None:
        before = asyncio.all_tasks()
        await test(*args, **kwargs)
        left = asyncio.all_tasks() - before
        if left:
            _, left = await asyncio.wait(left, timeout=_PATIENCE)
        assert not left, (
            f"tasks left behind: {sorted(task.get_name() + ' ' + repr(task.get_coro()) for task in left)}"
        )

    return watched


def _sockets() -> dict[str, str]:
    found: dict[str, str] = {}
    if not _FDS.exists():
        return found
    for name in os.listdir(_FDS):  # noqa: PTH208 - called twice per test
        with contextlib.suppress(OSError):
            target = os.readlink(_FDS / name)  # noqa: PTH115 - the target is not a path
            if target.startswith("socket:"):
                found[target] = name
    return found


def _leftovers(threads: set[threading.Thread], sockets: dict[str, str]) -> list[str]:
    # trio keeps a worker for 10 s, and anyio's plugin has it wait for I/O in one: that is not the test's doing.
    new = [thread for thread in threading.enumerate() if thread not in threads]
    left = [f"thread {thread.name}" for thread in new if not thread.name.startswith("Trio thread")]
    return left + [f"fd {name} {target}" for target, name in _sockets().items() if target not in sockets]


@contextlib.contextmanager
def left_no_thread_or_socket() -> Iterator[None]:
    """Fail if threads or sockets opened inside are still there afterwards."""
    threads, sockets = set(threading.enumerate()), _sockets()
    yield
    left = _leftovers(threads, sockets)
    if left:
        gc.collect()
    deadline = time.monotonic() + _LONG_PATIENCE
    while (left := _leftovers(threads, sockets)) and time.monotonic() < deadline:
        threading.Event().wait(0.005)
    assert not left, f"left behind: {left}"
