"""What options take, and what they say to the rest."""

from __future__ import annotations

import os
from argparse import ArgumentTypeError
from pathlib import Path

import pytest

from connector_async.cli._console import WrongUse
from connector_async.cli._options import check_faults, check_files, number, whole


def test_whole_numbers_within_their_bounds_are_taken() -> None:
    assert [whole(1)("1"), whole(1)("99999999999999999999"), whole(2, 9)("2"), whole(2, 9)("9")] == [
        1,
        10**20 - 1,
        2,
        9,
    ]


@pytest.mark.parametrize("text", ["", "x", "0", "-1", "10", "2.0", "nan", "inf", "1e1"])
def test_everything_else_is_no_whole_number(text: str) -> None:
    with pytest.raises(ArgumentTypeError) as refused:
        whole(1, 9)(text)
    assert str(refused.value) == f"must be a whole number from 1 to 9, not {text!r}"


def test_numbers_within_their_bounds_are_taken() -> None:
    assert [number(0.5, 2_000)("0.5"), number(0.5, 2_000)("2e3")] == [0.5, 2_000.0]


@pytest.mark.parametrize("text", ["", "x", "0.4", "-1", "2000.1", "nan", "inf", "-inf", "1e400"])
def test_everything_else_is_no_number(text: str) -> None:
    with pytest.raises(ArgumentTypeError) as refused:
        number(0.5, 2_000)(text)
    assert str(refused.value) == f"must be a number from 0.5 to 2,000, not {text!r}"


def test_a_preset_and_no_faults_at_all_are_taken() -> None:
    check_faults(None)
    check_faults("storm")


def test_a_place_below_a_file_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WrongUse, match=r"--results names .*: Not a directory"):
        check_files(None, {"--results": tmp_path / "file" / "x"})


@pytest.mark.parametrize("exists", [True, False])
def test_a_file_that_may_not_be_written_is_told_before_anything_is_sent(
    exists: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tests may run as root, who may write everywhere: the system's answer is a double's."""
    file = tmp_path / "x"
    if exists:
        file.touch()
    asked: list[Path] = []

    def denied(path: Path, mode: int) -> bool:
        assert mode == os.W_OK
        asked.append(path)
        return False

    monkeypatch.setattr(os, "access", denied)
    with pytest.raises(WrongUse, match="may not be written"):
        check_files(None, {"--results": file})
    assert asked == [file if exists else tmp_path]
