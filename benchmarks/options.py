"""Readers of command line values that several commands share."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from benchmarks.rivals import RIVALS

__all__ = ["names", "numbers"]


def names(text: str) -> Sequence[str]:
    """Rivals with commas between."""
    given = text.split(",")
    for name in given:
        if name not in RIVALS:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(RIVALS)}")
    return given


def numbers(text: str) -> Sequence[int]:
    """Counts with commas between."""
    return [int(number) for number in text.split(",")]
