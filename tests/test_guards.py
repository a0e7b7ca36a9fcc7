"""The guards around every test see what they are there to see."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading

import pytest

from connector_async.errors import RequestRefused
from tests.guards import (
    CANARY,
    LogWatch,
    NetworkGuard,
    assert_canary_absent,
    left_no_task,
    left_no_thread_or_socket,
)


def _record(message: str, *args: object, **extra: object) -> logging.LogRecord:
    return logging.getLogger("sample").makeRecord("sample", logging.DEBUG, "", 0, message, args, None, extra=extra)


@pytest.mark.requirement("S1")
@pytest.mark.parametrize(
    "record",
    [_record("token %s", f"{CANARY}-token"), _record("sent", headers={"Authorization": f"{CANARY}-token"})],
    ids=["argument", "extra"],
)
def test_a_secret_in_a_log_record_is_noticed(record: logging.LogRecord) -> None:
    watch = LogWatch()
    watch.handle(record)
    assert len(watch.leaks) == 1


def test_a_secret_in_a_logged_traceback_is_noticed() -> None:
    watch = LogWatch()
    try:
        raise ValueError(f"{CANARY}-token")
    except ValueError as error:
        record = logging.LogRecord(
            "sample", logging.ERROR, "", 0, "failed", (), (ValueError, error, error.__traceback__)
        )
    watch.handle(record)
    assert len(watch.leaks) == 1


def test_a_harmless_record_is_let_through() -> None:
    watch = LogWatch()
    watch.handle(_record("sent %d requests", 3, request_id="r-1"))
    assert watch.leaks == []


@pytest.mark.requirement("S1")
def test_a_secret_in_an_error_or_its_cause_is_noticed() -> None:
    error = RequestRefused("no")
    assert_canary_absent(error, "text", 5)
    error.__cause__ = ValueError(f"{CANARY}-token")
    with pytest.raises(AssertionError, match="shows a secret"):
        assert_canary_absent(error)


@pytest.mark.requirement("S6")
@pytest.mark.parametrize(
    ("event", "args"),
    [
        ("socket.connect", (None, ("192.0.2.1", 443))),
        ("socket.sendto", (None, ("198.51.100.7", 53))),
        ("socket.getaddrinfo", ("api.liveperson.net", 443, 0, 0, 0)),
    ],
)
def test_an_address_beyond_loopback_is_refused_and_remembered(event: str, args: tuple[object, ...]) -> None:
    guard = NetworkGuard()
    with pytest.raises(OSError, match="tests stay on this machine"):
        guard._audit(event, args)
    assert len(guard.refused) == 1


@pytest.mark.parametrize(
    ("event", "args"),
    [
        ("socket.connect", (None, ("127.0.0.53", 443))),
        ("socket.connect", (None, ("::1", 443, 0, 0))),
        ("socket.connect", (None, "/run/some.socket")),
        ("socket.getaddrinfo", ("localhost", 443, 0, 0, 0)),
        ("socket.getaddrinfo", (None, 443, 0, 0, 0)),
        ("socket.bind", (None, ("192.0.2.1", 443))),
        ("open", ("/etc/hosts", "r", 0)),
    ],
)
def test_this_machine_may_be_reached(event: str, args: tuple[object, ...]) -> None:
    guard = NetworkGuard()
    guard._audit(event, args)
    assert guard.refused == []


@pytest.mark.anyio
async def test_a_task_that_outlives_its_test_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.guards._PATIENCE", 0.0)
    started: list[asyncio.Task[None]] = []

    async def careless() -> None:
        started.append(asyncio.create_task(asyncio.Event().wait(), name="forgotten"))  # type: ignore[arg-type]  # a bool

    with pytest.raises(AssertionError, match="forgotten"):
        await left_no_task(careless)()
    started[0].cancel()


@pytest.mark.anyio
async def test_a_task_that_is_just_ending_is_waited_for() -> None:
    async def tidy() -> None:
        asyncio.get_running_loop().create_task(asyncio.sleep(0))

    await left_no_task(tidy)()


def test_a_socket_that_stays_open_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.guards._LONG_PATIENCE", 0.0)
    left: list[socket.socket] = []
    with pytest.raises(AssertionError, match="socket:"), left_no_thread_or_socket():
        left.append(socket.socket())
    left[0].close()


def test_a_thread_that_goes_on_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.guards._LONG_PATIENCE", 0.0)
    end = threading.Event()
    thread = threading.Thread(target=end.wait, name="forgotten")
    with pytest.raises(AssertionError, match="forgotten"), left_no_thread_or_socket():
        thread.start()
    end.set()
    thread.join()
