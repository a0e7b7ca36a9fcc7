"""Scripted faults, as data: which requests are hit, and what happens to them.

A fault file is one JSON object, `{"seed": 7, "rules": [rule, …]}`; a rule is a selector with an action:

    {"endpoint": "send", "type": "ms.PublishEvent", "probability": 0.05, "action": {"kind": "reset", "at": "before"}}

The selector's keys, all optional: `endpoint` (`domain`, `token`, `consumer`, `conversation`, `send`, `upload`,
`download`, `webhook`), `type` (a request type, or a webhook's event name), `consumer` (an `lp_consumer_id`), and,
over the requests that fit these, counted from 1: `nth` (a list of numbers), `every` with `burst` (each so-manieth and
those that follow it), `probability`, `count` (at most so many hits), `after` and `until` (seconds since the plan
began).
The actions are the classes of `_fault_actions`, by their `kind`.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, get_args

import attrs

from connector_async.errors import ConfigurationError
from connector_async.sandbox import _fault_actions
from connector_async.sandbox._fault_actions import (
    ACTIONS,
    OF_REQUESTS,
    OF_WEBHOOKS,
    Action,
    Latency,
    Reset,
    Revoke,
    Status,
)
from connector_async.sandbox._fault_checks import a_share, at_least, is_whole, one_of, some_text, whole, whole_numbers
from connector_async.sandbox._json import Json, is_array, is_object, loads
from connector_async.sandbox.api import Endpoint

__all__ = ["PRESETS", "FaultPlan", "FaultRule", "load_faults"]

_MANY: Final = 1 << 62
ENDPOINTS: Final = (*get_args(Endpoint), "webhook", "*")


def _as_tuple(value: Any) -> Any:
    return tuple(value) if is_array(value) else value


@attrs.frozen(kw_only=True)
class FaultRule:
    """A selector and an action; see the module for what the fields mean."""

    action: Action
    endpoint: str = attrs.field(default="*", validator=one_of(*ENDPOINTS))
    type: str | None = attrs.field(default=None, validator=attrs.validators.optional(some_text))
    consumer: str | None = attrs.field(default=None, validator=attrs.validators.optional(some_text))
    nth: Sequence[int] = attrs.field(default=(), converter=_as_tuple, validator=whole_numbers)
    every: int | None = attrs.field(default=None, validator=attrs.validators.optional(whole(1, _MANY)))
    burst: int = attrs.field(default=1, validator=whole(1, _MANY))
    probability: float = attrs.field(default=1.0, validator=a_share)
    count: int | None = attrs.field(default=None, validator=attrs.validators.optional(whole(0, _MANY)))
    after: float | None = attrs.field(default=None, validator=attrs.validators.optional(at_least(0)))
    until: float | None = attrs.field(default=None, validator=attrs.validators.optional(at_least(0)))
    name: str = attrs.field(default="", validator=some_text)

    @property
    def label(self) -> str:
        """How the ledger names a hit."""
        return self.name or self.action.kind

    def concerns(self, endpoint: str, types: Sequence[str], consumer: str | None) -> bool:
        """Whether a request counts for this rule at all."""
        if self.endpoint not in ("*", endpoint) or (self.endpoint == "*" and endpoint == "webhook"):
            return False
        return (self.type is None or self.type in types) and self.consumer in (None, consumer)

    def picks(self, number: int, elapsed: float) -> bool:
        """Whether the so-manieth of the requests it concerns is hit, chance left aside."""
        if self.nth and number not in self.nth:
            return False
        if self.every is not None and (number < self.every or number % self.every >= self.burst):
            return False
        return (self.after or 0.0) <= elapsed and (self.until is None or elapsed < self.until)


@attrs.define(eq=False)
class _Live:
    """A rule in force: how many requests concerned it, and how many of them it hit."""

    rule: FaultRule
    seen: int = 0
    hits: int = 0

    @property
    def is_spent(self) -> bool:
        return self.rule.count is not None and self.hits >= self.rule.count


class FaultPlan:
    """The rules in force, with their counters and their dice.

    Attributes:
        hits: How often each rule was applied, by label.
    """

    def __init__(self, rules: Iterable[FaultRule] = (), *, seed: int = 0) -> None:
        self._start(rules, seed)

    def _start(self, rules: Iterable[FaultRule], seed: int) -> None:
        self.seed = seed
        self.hits: dict[str, int] = {}
        self._live = [_Live(rule) for rule in rules]
        self._began_at: float | None = None
        self._random = random.Random(seed)  # noqa: S311 - dice that repeat are what is wanted

    @property
    def rules(self) -> tuple[FaultRule, ...]:
        """The rules that are still in force: one that has made its `count` of hits is gone."""
        return tuple(live.rule for live in self._live)

    @property
    def is_idle(self) -> bool:
        """Whether no rule is in force."""
        return not self._live

    def begin(self, now: float) -> None:
        """Let `after` and `until` count from this moment; otherwise they do from the first request."""
        self._began_at = now

    def add(self, rule: FaultRule) -> None:
        """Put one more rule in force."""
        self._live.append(_Live(rule))

    def replace(self, plan: FaultPlan) -> None:
        """Take over the rules and the seed of another plan and start afresh."""
        self._start(plan.rules, plan.seed)

    def decide(self, endpoint: str, types: Sequence[str], consumer: str | None, now: float) -> list[FaultRule]:
        """The rules that hit this request; every call counts as one request."""
        if self._began_at is None:
            self._began_at = now
        elapsed = now - self._began_at
        hit = [live for live in self._live if self._is_hit(live, endpoint, types, consumer, elapsed)]
        for live in hit:
            live.hits += 1
            self.hits[live.rule.label] = self.hits.get(live.rule.label, 0) + 1
            if live.is_spent:  # it goes, so that a sandbox without live rules is back on its short way
                self._live.remove(live)
        return [live.rule for live in hit]

    def _is_hit(self, live: _Live, endpoint: str, types: Sequence[str], consumer: str | None, elapsed: float) -> bool:
        rule = live.rule
        if not rule.concerns(endpoint, types, consumer):
            return False
        live.seen += 1
        if live.is_spent or not rule.picks(live.seen, elapsed):
            return False
        return rule.probability >= 1 or self._random.random() < rule.probability

    def roll(self, most: float) -> float:
        """A number from 0 to `most`, from the plan's own dice."""
        return self._random.random() * most

    def shuffle(self, items: list[Any]) -> None:
        """Put a list into another order, by the plan's own dice."""
        self._random.shuffle(items)

    @classmethod
    def from_json(cls, value: object, where: str = "faults") -> FaultPlan:
        """Read a plan from its JSON shape.

        Raises:
            ConfigurationError: One sentence on what is wrong and where.
        """
        if is_array(value):
            value = {"rules": value}
        if not is_object(value):
            raise ConfigurationError(f'{where}: must be a JSON object such as {{"rules": [...]}}')
        _check_keys(value, ("seed", "rules", "comment"), where)
        rules, seed = value.get("rules"), value.get("seed", 0)
        if not is_array(rules):
            raise ConfigurationError(f"{where}: rules must be a JSON array")
        if not is_whole(seed):
            raise ConfigurationError(f"{where}: seed must be a whole number")
        return cls([_rule(rule, f"{where}: rule {number}") for number, rule in enumerate(rules, 1)], seed=seed)

    def as_json(self) -> Json:
        """The plan in its JSON shape, with the hits so far."""
        rules = [
            {
                **attrs.asdict(rule, filter=_differs_from_default, recurse=False),
                "action": {"kind": rule.action.kind, **attrs.asdict(rule.action)},
            }
            for rule in self.rules
        ]
        return {"seed": self.seed, "rules": rules, "hits": dict(self.hits)}


def _differs_from_default(field: attrs.Attribute[Any], value: object) -> bool:
    return value not in (field.default, ())


def _check_keys(given: Json, known: Sequence[str], where: str) -> None:
    for key in given:
        if key not in known:
            raise ConfigurationError(f"{where}: {key!r} is not known; known are {', '.join(known)}")


def _rule(value: object, where: str) -> FaultRule:
    if not is_object(value):
        raise ConfigurationError(f"{where}: must be a JSON object")
    known = [field.name for field in attrs.fields(FaultRule)]
    _check_keys(value, known, where)
    action = value.get("action")
    if not is_object(action):
        raise ConfigurationError(f'{where}: action must be a JSON object such as {{"kind": "status", "status": 503}}')
    kind = action.get("kind")
    cls = ACTIONS.get(kind) if isinstance(kind, str) else None
    if cls is None:
        raise ConfigurationError(f"{where}: action kind {kind!r} is not known; known are {', '.join(ACTIONS)}")
    given = {key: item for key, item in action.items() if key != "kind"}
    fields: tuple[attrs.Attribute[Any], ...] = attrs.fields(cls)
    _check_keys(given, [field.name for field in fields], f"{where}: action {kind}")
    for field in fields:
        if field.default is attrs.NOTHING and field.name not in given:
            raise ConfigurationError(f"{where}: action {kind} needs {field.name}")
    try:
        rule = FaultRule(action=cls(**given), **{key: item for key, item in value.items() if key != "action"})
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"{where}: {error}") from error
    if rule.endpoint == "webhook" and kind not in OF_WEBHOOKS:
        raise ConfigurationError(f"{where}: action {kind} cannot happen to a webhook")
    if rule.endpoint != "webhook" and kind not in OF_REQUESTS:
        raise ConfigurationError(f'{where}: action {kind} happens to webhooks only: say "endpoint": "webhook"')
    return rule


def load_faults(name: str) -> FaultPlan:
    """A named preset, or the plan in a JSON file.

    Raises:
        ConfigurationError: One sentence on what is wrong with the file.
    """
    preset = PRESETS.get(name)
    if preset is not None:
        return FaultPlan(preset, seed=1)
    try:
        raw = Path(name).read_bytes()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigurationError(
            f"faults: cannot read {name}: {reason}; give a JSON file or one of {', '.join(PRESETS)}"
        ) from error
    value = loads(raw)
    if value is None:
        raise ConfigurationError(f"faults: {name} is not JSON")
    return FaultPlan.from_json(value, f"faults: {name}")


PRESETS: Final[dict[str, tuple[FaultRule, ...]]] = {
    # Revocation in the middle, 5 % resets, bursts of 429, 1 % applied without an answer. Only SEND: a create whose
    # outcome is unknown cannot be recovered by a client that has no webhooks.
    "storm": (
        FaultRule(name="revocation", endpoint="send", nth=(150,), count=1, action=Revoke()),
        FaultRule(name="reset", endpoint="send", probability=0.05, action=Reset(at="before")),
        FaultRule(name="throttled", endpoint="send", every=250, burst=10, action=Status(status=429, retry_after="1")),
        FaultRule(name="unanswered", endpoint="send", probability=0.01, action=Reset(at="before", applied=True)),
    ),
    "slow": (FaultRule(action=Latency(seconds=0.2, jitter=0.3)),),
    "flaky": (
        FaultRule(endpoint="send", probability=0.1, action=Status(status=503)),
        FaultRule(endpoint="conversation", probability=0.1, action=Status(status=503)),
    ),
    "throttle": (FaultRule(endpoint="send", every=20, burst=5, action=Status(status=429, retry_after="1")),),
    "no-tokens": (FaultRule(endpoint="token", action=Status(status=503)),),
    "outage": (FaultRule(action=Status(status=503), after=1.0, until=61.0),),
    "bad-webhooks": (
        FaultRule(endpoint="webhook", probability=0.2, action=_fault_actions.Double()),
        FaultRule(endpoint="webhook", probability=0.2, action=_fault_actions.Reorder()),
        FaultRule(endpoint="webhook", probability=0.05, action=_fault_actions.BadSignature()),
        FaultRule(endpoint="webhook", probability=0.1, action=Latency(seconds=0.2)),
    ),
}
