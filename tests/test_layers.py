"""The rules of the house that `lint-imports` has no words for, read from the source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import connector_async

_ROOT = Path(connector_async.__file__).parent
_FILES = sorted(_ROOT.rglob("*.py"))


def _name(file: Path) -> str:
    return file.relative_to(_ROOT).as_posix()


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def _importers(package: str) -> set[str]:
    return {
        _name(file)
        for file in _FILES
        if any(name.partition(".")[0] == package for name in _imports(ast.parse(file.read_text(encoding="utf-8"))))
    }


def test_one_module_knows_cattrs() -> None:
    assert _importers("cattrs") <= {"wire/_converter.py"}


def test_only_auth_and_the_sandbox_know_jwt() -> None:
    assert {name.partition("/")[0] for name in _importers("jwt")} <= {"auth", "sandbox"}


def test_extras_are_not_needed_to_import_the_package() -> None:
    """What an extra brings is imported only inside the part that the extra is for, or inside a function."""
    for extra, home in {
        "starlette": "sandbox",
        "uvicorn": "sandbox",
        "trustme": "sandbox",
        "cryptography": "sandbox",
    }.items():
        strangers = {name for name in _importers(extra) if not name.startswith(f"{home}/")}
        assert {name for name in strangers if _at_top(name, extra)} == set()


def _at_top(name: str, package: str) -> bool:
    tree = ast.parse((_ROOT / name).read_text(encoding="utf-8"))
    return any(
        imported.partition(".")[0] == package
        for statement in tree.body
        if isinstance(statement, ast.Import | ast.ImportFrom)
        for imported in _imports(statement)
    )


@pytest.mark.parametrize("file", _FILES, ids=_name)
def test_tasks_belong_to_a_task_group(file: Path) -> None:
    """A task that no `async with` ends outlives its session; `asyncio.wait_for` loses cancellations."""
    calls = {
        ast.unparse(node.func)
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    }
    assert {
        call for call in calls if call.endswith((".create_task", ".ensure_future")) or call == "asyncio.wait_for"
    } == set()
