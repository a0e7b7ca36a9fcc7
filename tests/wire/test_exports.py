"""What the package offers is what its modules define."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import pytest

from connector_async import wire
from connector_async.wire import Message

MODULES = [info.name for info in pkgutil.iter_modules(wire.__path__) if not info.name.startswith("_")]


@pytest.mark.parametrize("name", MODULES)
def test_module_lists_every_public_name_that_it_defines(name: str) -> None:
    """Style, section 1: modules that users import have an `__all__`."""
    module = importlib.import_module(f"connector_async.wire.{name}")
    defined = {
        key
        for key, value in vars(module).items()
        if not key.startswith("_")
        and (inspect.isclass(value) or inspect.isfunction(value))
        and value.__module__ == module.__name__
    }
    assert defined <= set(module.__all__)
    assert all(hasattr(module, key) for key in module.__all__)


def test_package_offers_every_message_class() -> None:
    """A user needs no submodule."""
    for name in MODULES:
        for key, value in vars(importlib.import_module(f"connector_async.wire.{name}")).items():
            if inspect.isclass(value) and issubclass(value, Message) and not key.startswith("_"):
                assert key in wire.__all__


def test_every_name_that_the_package_offers_is_there_once() -> None:
    """The list is exact."""
    assert len(wire.__all__) == len(set(wire.__all__))
    assert all(hasattr(wire, key) for key in wire.__all__)
