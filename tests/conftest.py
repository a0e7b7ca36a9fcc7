"""What every test shares: the event loop to run on, and the guards of `tests/guards.py` around it."""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Generator, Iterator
from typing import Any

import hypothesis
import pytest

from tests.guards import CANARY, LogWatch, NetworkGuard, left_no_task, left_no_thread_or_socket

hypothesis.settings.register_profile("dev", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, database=None, print_blob=True)
hypothesis.settings.register_profile("soak", deadline=None, max_examples=10_000)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "dev")

# The account and the proxy of whoever runs the tests are not the tests' business; children inherit the clean state.
for _name in [name for name in os.environ if name.startswith("LP_") or name.lower().endswith("_proxy")]:
    del os.environ[_name]

_network = NetworkGuard()
_network.install()


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Async tests run on asyncio unless they ask for another loop (`tests/backends.py`)."""
    return "asyncio"


@pytest.fixture
def canary() -> str:
    """What to put into secrets, tokens and message text: any log line or output that shows it fails the test.

    Errors and reprs are the test's to check, with `tests.guards.assert_canary_absent(*objects)`.
    """
    return CANARY


@pytest.fixture
def untraced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that the test starts are not measured by coverage: half their time, for lines that others run too."""
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)


@pytest.fixture(autouse=True)
def _leaves_nothing_behind() -> Iterator[None]:
    with left_no_thread_or_socket():
        yield


@pytest.fixture(autouse=True)
def _stays_on_this_machine() -> Iterator[None]:
    _network.refused.clear()
    yield
    assert not _network.refused, f"reached past loopback: {_network.refused}"


@pytest.fixture(autouse=True)
def _logs_no_secret() -> Iterator[None]:
    """The root logger listens at DEBUG during every test, so `caplog` holds what a careless user would see."""
    watch, root = LogWatch(), logging.getLogger()
    level = root.level
    root.addHandler(watch)
    root.setLevel(logging.DEBUG)
    yield
    root.removeHandler(watch)
    root.setLevel(level)
    assert not watch.leaks, f"a secret reached the log: {watch.leaks}"


# In a worker of xdist three would measure: coverage by itself, for the variable says so to each process; pytest-cov
# as if there were no workers; and pytest-cov for the worker. The last is the one that counts. Where it rests
# (`no_cover`) the others would go on, so they end before it begins.


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes() -> None:
    """The worker's own measurement sets the variable again, for the processes that its tests start."""
    os.environ.pop("COVERAGE_PROCESS_CONFIG", None)


def pytest_configure(config: pytest.Config) -> None:
    measuring: Any = config.pluginmanager.getplugin("_cov")
    if hasattr(config, "workerinput") and measuring is not None:
        measuring.cov_controller.pause()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    report = yield
    if report.when == "teardown" and report.passed:
        shown = [name for name, text in report.sections if CANARY in text]
        if shown:
            report.outcome = "failed"
            report.longrepr = f"a secret was printed: {', '.join(shown)}"
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, Any, Any]:
    """Watch the tasks of async tests; on trio the nursery sees to it."""
    backend: Any = pyfuncitem.funcargs.get("anyio_backend")
    name = backend[0] if isinstance(backend, tuple) else backend
    if name == "asyncio":
        _watch_tasks(pyfuncitem)
    return (yield)


def _watch_tasks(item: pytest.Function) -> None:
    if inspect.iscoroutinefunction(item.obj):
        item.obj = left_no_task(item.obj)
        return
    handle = getattr(item.obj, "hypothesis", None)
    # Once per test function: from the second run on, the anyio plugin's wrapper stands here, which is not async.
    if handle is not None and inspect.iscoroutinefunction(handle.inner_test):
        handle.inner_test = left_no_task(handle.inner_test)
