"""The manifest of requirements and the tests agree."""

from __future__ import annotations

from pathlib import Path

from tests.requirements import _ROWS, REQUIREMENTS, shown_in

_TESTS = Path(__file__).parent


def _claims() -> dict[str, set[str]]:
    return dict(
        shown_in(path for path in _TESTS.rglob("*.py") if path.name not in {"requirements.py", Path(__file__).name})
    )


def test_every_requirement_is_shown_by_a_test() -> None:
    assert sorted(REQUIREMENTS.keys() - _claims().keys()) == []


def test_no_test_claims_a_requirement_that_nobody_stated() -> None:
    claims = _claims()
    assert {unknown: claims[unknown] for unknown in claims.keys() - REQUIREMENTS.keys()} == {}


def test_claims_are_found_in_marks_and_in_names(tmp_path: Path) -> None:
    file = tmp_path / "test_sample.py"
    file.write_text(
        "import pytest\n"
        "pytestmark = [pytest.mark.requirement('area:module')]\n"
        "@pytest.mark.requirement('area:one', 'area:two')\n"
        "def test_c12_something(): ...\n"
    )
    assert set(shown_in([file])) == {"area:module", "area:one", "area:two", "C12"}


def test_every_requirement_has_words_and_a_source() -> None:
    assert all(requirement.statement and requirement.source for requirement in REQUIREMENTS.values())


def test_no_requirement_is_stated_twice() -> None:
    assert len(_ROWS) == len(REQUIREMENTS)
