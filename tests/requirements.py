"""What the API's documentation and our own rules demand, each with an id and its source.

A test shows a requirement by `@pytest.mark.requirement("responses:reqid-echo")` (several ids may be given), or, for
the rows of the fault tables, by its name: `test_c5_…` shows `C5`. `tests/test_requirements.py` fails for an id here
that no test shows and for an id in a test that is not here. To add one, add a line to `_ROWS`.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

__all__ = ["REQUIREMENTS", "Requirement", "shown_in"]


class Requirement(NamedTuple):
    """One behaviour.

    Attributes:
        id: `area:behaviour`, or the row of a fault table (`C5`).
        statement: What must be seen.
        source: Where it is demanded: a page of the API's documentation, an RFC, or "ours".
    """

    id: str
    statement: str
    source: str


_ROWS = [
    # command line
    ("cli:json", "--json prints one JSON object on stdout and nothing else; progress goes to stderr", "ours"),
    ("cli:exit-codes", "0 done, 1 something failed and said what, 2 wrong use", "ours"),
    ("cli:sandbox-ready", "the sandbox command prints one JSON line when it accepts connections", "ours"),
    ("cli:one-sentence", "what a person can mend is told in one sentence that says how, without a traceback", "ours"),
    # documents
    ("readme:example", "the example of the README runs as printed", "ours"),
    ("readme:commands", "the README has one command that runs the demo and one that runs the tests", "ours"),
    # hygiene of the tests themselves
    ("S1", "a secret shows in no log line, output, error or repr", "ours"),
    ("S6", "tests reach nothing beyond loopback", "ours"),
]

REQUIREMENTS: Mapping[str, Requirement] = {row[0]: Requirement(*row) for row in _ROWS}

_ROW_TEST = re.compile(r"test_([cswp]\d{1,2})_")


def shown_in(files: Iterable[Path]) -> Mapping[str, set[str]]:
    """Requirement id -> the tests that claim to show it, read from the source without importing it."""
    claims: defaultdict[str, set[str]] = defaultdict(set)
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and _name(node.func) == "requirement":
                for argument in node.args:
                    if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                        claims[argument.value].add(f"{file.name}:{node.lineno}")
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (row := _ROW_TEST.match(node.name)):
                claims[row[1].upper()].add(f"{file.name}:{node.name}")
    return claims


def _name(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
