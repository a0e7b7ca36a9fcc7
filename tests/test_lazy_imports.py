"""`import connector_async` loads nothing; each name brings what it needs, and little else (PEP 562)."""

from __future__ import annotations

import ast
import functools
import inspect
import subprocess
import sys
from types import ModuleType

import pytest

import connector_async
from connector_async import store, webhooks, wire


def _loaded_after(statement: str) -> set[str]:
    """The modules that a fresh interpreter has from the statement, and not from a tracer that measures coverage."""
    return _modules_after(statement) - _modules_after("pass")


@functools.cache
def _modules_after(statement: str) -> set[str]:
    ran = subprocess.run(
        [sys.executable, "-c", f"{statement}; import sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return set(ran.stdout.split())


def test_the_package_alone_loads_no_other_library() -> None:
    """Design, section 7: a program must not wait for what it does not use."""
    loaded = _loaded_after("import connector_async")
    assert loaded & {"asyncio", "attrs", "cattrs", "httpx", "orjson", "anyio", "jwt", "sqlite3"} == set()


def test_an_error_class_does_not_load_the_session() -> None:
    """Whoever catches our errors far from any session."""
    loaded = _loaded_after("from connector_async import OutcomeUnknown, ConnectorError")
    assert "connector_async.errors" in loaded
    assert loaded & {"connector_async.session", "httpx", "cattrs"} == set()


def test_what_a_sender_asks_for_does_not_load_what_webhooks_bring() -> None:
    """Some fifty classes are made only where they are used."""
    loaded = _loaded_after("from connector_async.wire import Request, PublishEvent, ContentEvent, to_wire")
    assert "connector_async.wire.requests" in loaded
    unused = {"conversation", "inspection", "manifest", "metadata", "news", "notifications"}
    assert loaded & {f"connector_async.wire.{name}" for name in unused} == set()
    assert loaded & {"cattrs", "difflib"} == set()


def test_the_session_does_not_load_what_only_some_sessions_need() -> None:
    """Databases, tokens' libraries, and all that hears: a program that only sends does not wait for them."""
    loaded = _loaded_after("from connector_async import AppCredentials, ConnectorSession")
    assert "connector_async.session" in loaded
    assert loaded & {"cattrs", "cryptography", "jwt", "psycopg", "sqlite3"} == set()
    ours = {"store.postgres", "store.sqlite", "webhooks.asgi", "webhooks.dispatcher", "wire.notifications"}
    assert loaded & {f"connector_async.{name}" for name in ours} == set()


def test_a_message_that_names_a_class_of_another_module_is_read_by_it() -> None:
    """Also where nobody has asked for that module yet: the metadata beside a request."""
    request = {"id": "1", "type": "userprofile.SetUserProfile", "metadata": [{"type": "Answer"}], "body": {}}
    script = f"from connector_async.wire import parse_request; print(type(parse_request({request}).metadata[0]))"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert ran.stdout.strip() == "<class 'connector_async.wire.metadata.Answer'>"


def test_modules_are_attributes_without_an_import_of_their_own() -> None:
    """As they were when the package loaded them all."""
    loaded = _loaded_after("import connector_async; connector_async.hooks.Throttled, connector_async.wire.to_wire")
    assert {"connector_async.hooks", "connector_async.wire"} <= loaded


def test_a_star_import_brings_every_name() -> None:
    """Through the same door."""
    names: dict[str, object] = {}
    exec("from connector_async import *", names)
    assert set(connector_async.__all__) <= set(names)


@pytest.mark.parametrize("package", [connector_async, store, webhooks, wire], ids=lambda package: package.__name__)
def test_every_name_has_the_home_that_type_checkers_see(package: ModuleType) -> None:
    """The imports for type checkers and the table for the rest say the same."""
    tree = ast.parse(inspect.getsource(package))
    checked = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.name: node.module for node in checked.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    homes = {name: f"{package.__name__}.{home}" for home, names in package._HOMES.items() for name in names.split()}
    assert homes == seen
    assert set(homes) <= set(package.__all__) <= set(dir(package))
    assert all(getattr(package, name) is getattr(sys.modules[home], name) for name, home in homes.items())


def test_a_misspelt_name_is_an_attribute_error() -> None:
    """As with any module."""
    with pytest.raises(AttributeError, match=r"module 'connector_async' has no attribute 'ConectorSession'"):
        _ = connector_async.ConectorSession  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
