"""What a message may cost beside others, and whether it does (the numbers are the project's own promises)."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from benchmarks.harness import Measurement

__all__ = ["Target", "Verdict", "judge", "judge_sends"]

SUBJECT = "session"


@attrs.frozen(kw_only=True)
class Target:
    """A ratio that must not be exceeded, and the one that comes next."""

    against: str
    at: int
    """Messages in flight."""
    most: float
    then: float | None = None


SEND = (
    Target(against="httpx", at=100, most=1 / 80),
    Target(against="aiohttp", at=100, most=0.6, then=0.5),
    Target(against="aiohttp", at=1000, most=0.45),
    Target(against="pyreqwest", at=100, most=1.1),
    Target(against="floor", at=100, most=2.2, then=1.8),
)
GROWTH = 1.4
"""CPU per message at 2,000 in flight beside that at 50."""


@attrs.frozen(kw_only=True)
class Verdict:
    """One promise and what was measured."""

    what: str
    measured: float | None
    target: float
    then: float | None = None
    unit: str = ""
    """Of both numbers; empty for ratios."""
    at_least: bool = False

    @property
    def word(self) -> str:
        """`met`, `missed` or `not measured`."""
        if self.measured is None:
            return "not measured"
        met = self._meets(self.target)
        if self.then is None or not met:
            return "met" if met else "missed"
        return "met, the next too" if self._meets(self.then) else "met, the next not yet"

    def _meets(self, bound: float) -> bool:
        assert self.measured is not None
        return self.measured >= bound if self.at_least else self.measured <= bound

    def as_dict(self) -> dict[str, object]:
        """For `--json`."""
        return {**attrs.asdict(self), "verdict": self.word}


def judge(what: str, measured: float | None, target: float, *, unit: str = "", at_least: bool = False) -> Verdict:
    """A verdict on one number."""
    return Verdict(what=what, measured=measured, target=target, unit=unit, at_least=at_least)


def judge_sends(measurements: Sequence[Measurement]) -> list[Verdict]:
    """The session beside its rivals and beside itself, for measurements of one loop and one kind of connection."""
    taken = {(one.rival, one.in_flight): one for one in measurements}
    verdicts = []
    for target in SEND:
        mine, theirs = taken.get((SUBJECT, target.at)), taken.get((target.against, target.at))
        verdicts.append(
            Verdict(
                what=f"session / {target.against} at {target.at:,} in flight",
                measured=mine.ratio(theirs) if mine and theirs else None,
                target=target.most,
                then=target.then,
            )
        )
    few, many = taken.get((SUBJECT, 50)), taken.get((SUBJECT, 2000))
    growth = many.ratio(few) if few and many else None
    verdicts.append(judge("session at 2,000 in flight / at 50", growth, GROWTH))
    return verdicts
