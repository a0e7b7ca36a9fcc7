"""What modules offer is what they say they offer."""

from __future__ import annotations

import importlib
import importlib.resources
import pkgutil
import types

import pytest

import connector_async

_MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(connector_async.__path__, "connector_async.")
    if not module.name.endswith("__main__")
)
# What users import from: the package and what lies directly in it. Deeper modules are reached through these.
_PUBLIC = [
    "connector_async",
    *(name for name in _MODULES if name.count(".") == 1 and not name.partition(".")[2].startswith("_")),
]


def _offered(module: types.ModuleType) -> set[str]:
    """Public classes and functions of ours that can be imported from here."""
    return {
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and isinstance(value, type | types.FunctionType)
        and (value.__module__ + ".").startswith(module.__name__ + ".")
    }


@pytest.mark.parametrize("name", ["connector_async", *_MODULES])
def test_all_names_what_exists_and_once(name: str) -> None:
    module = importlib.import_module(name)
    names = list(getattr(module, "__all__", []))
    assert len(names) == len(set(names))
    assert [missing for missing in names if not hasattr(module, missing)] == []


@pytest.mark.parametrize("name", _PUBLIC)
def test_a_module_that_users_import_names_all_that_it_offers(name: str) -> None:
    """A helper that is nobody else's business starts with `_`."""
    module = importlib.import_module(name)
    assert _offered(module) - set(getattr(module, "__all__", [])) == set()


def test_the_package_ships_its_types() -> None:
    """PEP 561."""
    assert (importlib.resources.files(connector_async) / "py.typed").is_file()


@pytest.mark.parametrize("name", connector_async.__all__)
def test_a_public_class_or_function_says_what_it_is(name: str) -> None:
    value = getattr(connector_async, name)
    if isinstance(value, type | types.FunctionType):
        assert (value.__doc__ or "").strip()
