"""`docs/checklist.md` names calls and tests that exist."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import attrs
import pytest

_ROOT = Path(__file__).parent.parent
_TABLE = _ROOT / "docs" / "checklist.md"
_NOT_YET = {51, 52, 53, 54}


class Row(NamedTuple):
    """One line of the table."""

    number: int
    calls: tuple[str, ...]
    tests: tuple[str, ...]


def _rows() -> list[Row]:
    found: list[Row] = []
    for line in _TABLE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| ") and cells[0].isdigit():
            found.append(Row(int(cells[0]), *(tuple(re.findall(r"`([^`]+)`", cell)) for cell in cells[2:4])))
    return found


ROWS = _rows()
_DONE = [row for row in ROWS if row.number not in _NOT_YET]


def test_every_capability_has_its_row() -> None:
    """Issue 5: a table that maps each row of the checklist to the call that does it."""
    assert [row.number for row in ROWS] == list(range(1, 58))
    assert {row.number for row in ROWS if not row.calls} == _NOT_YET


@pytest.mark.parametrize("row", _DONE, ids=[str(row.number) for row in _DONE])
def test_the_calls_of_a_row_exist_and_take_what_it_says(row: Row) -> None:
    for call in row.calls:
        path, _, keywords = call.partition("(")
        owner = _resolve(path)
        for keyword in re.findall(r"(\w+)=", keywords):
            assert keyword in inspect.signature(owner).parameters, f"{path} takes no {keyword}="


@pytest.mark.parametrize("row", _DONE, ids=[str(row.number) for row in _DONE])
def test_the_tests_of_a_row_exist(row: Row) -> None:
    assert row.tests
    for test in row.tests:
        file, _, name = test.partition("::")
        assert name in _tests_in(_ROOT / file), test


def _resolve(path: str) -> Any:
    """What a dotted name stands for; fields of attrs classes and slots of instances count."""
    first, *rest = path.split(".")
    if first in {"wire", "transport"}:
        found: Any = importlib.import_module(f"connector_async.{first}")
    else:
        found = getattr(importlib.import_module("connector_async"), first)
    for name in rest:
        if not hasattr(found, name):
            fields = set(attrs.fields_dict(found)) if attrs.has(found) else set()
            assert name in fields | _set_in_init(found), f"{path}: there is no {name}"
            return None
        found = getattr(found, name)
    return found


def _set_in_init(owner: type) -> set[str]:
    sources = [inspect.getsource(cls) for cls in owner.__mro__ if cls.__module__.startswith("connector_async")]
    assigned = re.compile(r"^        self\.(\w+)(?:: [^=]+)? = ", re.MULTILINE)
    return {name for source in sources for name in assigned.findall(source)}


@cache
def _tests_in(file: Path) -> frozenset[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
