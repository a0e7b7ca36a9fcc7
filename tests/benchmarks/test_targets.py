"""How a measurement becomes a verdict."""

from __future__ import annotations

import pytest

from benchmarks.harness import Measurement
from benchmarks.job import Sample
from benchmarks.report import table
from benchmarks.targets import Verdict, judge, judge_sends


def measured(rival: str, in_flight: int, *costs: float) -> Measurement:
    samples = tuple(
        Sample(messages=1, seconds=1.0, cpu=cost / 1e6, server_cpu=0.1, p50=0.1, p99=0.2, memory=1) for cost in costs
    )
    return Measurement(rival=rival, in_flight=in_flight, loop="asyncio", tls=False, samples=samples)


def test_the_ratio_is_the_median_of_the_rounds_that_both_shared() -> None:
    """Our decision: a slow minute hits all rivals of a round alike, so rounds are compared one by one."""
    ours, theirs = measured("session", 100, 50, 200, 60), measured("aiohttp", 100, 100, 400, 100)
    assert ours.ratio(theirs) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("value", "word"),
    [(None, "not measured"), (2.3, "missed"), (2.0, "met, the next not yet"), (1.8, "met, the next too")],
)
def test_a_verdict_names_the_step_that_was_reached(value: float | None, word: str) -> None:
    """Design section 7: some targets have a second step."""
    assert Verdict(what="x", measured=value, target=2.2, then=1.8).word == word


def test_a_rate_has_to_reach_its_target() -> None:
    """Row C24 of the fault catalogue asks for at least 0.9."""
    assert judge("rate", 0.95, 0.9, at_least=True).word == "met"
    assert judge("rate", 0.85, 0.9, at_least=True).word == "missed"


def test_the_session_is_judged_against_each_rival_and_itself() -> None:
    """Design section 7."""
    taken = [measured("session", 100, 40), measured("floor", 100, 20), measured("session", 50, 40)]
    taken.append(measured("session", 2000, 80))
    words = {verdict.what: verdict.word for verdict in judge_sends(taken)}
    assert words["session / floor at 100 in flight"] == "met, the next not yet"
    assert words["session at 2,000 in flight / at 50"] == "missed"
    assert words["session / httpx at 100 in flight"] == "not measured"


def test_a_table_lines_up_its_columns() -> None:
    """People compare numbers that stand below each other."""
    assert table(("name", "us"), [("a", 10), ("long", 5)]) == "name  us\n----  --\na     10\nlong   5"
