"""Benchmarks are processes of their own, with processes of theirs."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _untraced(untraced: None) -> None:
    """They are no part of what is measured, and the package under load is run by its own tests."""
