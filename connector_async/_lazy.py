"""Names of a package that are imported when they are first asked for (PEP 562).

What is asked for is imported, and only that: a program that catches our errors does not pay for the session, and one
that sends does not pay for what webhooks bring. Type checkers see plain imports; a test compares the two.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Collection, Mapping

__all__ = ["lazily"]


def lazily(package: str, homes: Mapping[str, str], modules: Collection[str] = ()) -> Callable[[str], object]:
    """Make the `__getattr__` of a package.

    Args:
        package: Its name.
        homes: For each of its modules the names to take from there, with spaces between them.
        modules: Modules that are attributes without an import of their own.
    """
    module_of = {name: f"{package}.{home}" for home, names in homes.items() for name in names.split()}

    def find(name: str) -> object:
        if name in modules:
            return importlib.import_module(f"{package}.{name}")
        home = module_of.get(name)
        if home is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(home), name)
        setattr(sys.modules[package], name, value)
        return value

    return find
