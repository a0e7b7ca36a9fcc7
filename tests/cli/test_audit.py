"""The comparison of the session's numbers with the sandbox's ledger sees every kind of disagreement."""

from __future__ import annotations

import json
from typing import Any

import pytest

from connector_async.cli import main
from connector_async.cli._audit import audit
from connector_async.cli._crowd import Fate, Tally
from connector_async.protocol.retry import Attempt


def _fate(status: str, *answers: int | None, maybe_duplicate: bool = False) -> Fate:
    attempts = tuple(Attempt(number, 0, answer, None, 0.0) for number, answer in enumerate(answers, 1))
    return Fate(status, attempts, maybe_duplicate)


def _entry(request_id: str, status: int | None, *, applied: bool, fault: str | None = None) -> dict[str, Any]:
    return {
        "type": "ms.PublishEvent",
        "request_id": request_id,
        "status": status,
        "applied": applied,
        "fault": fault,
    }


_TOTALS: dict[str, Any] = {"forgotten": 0, "calls": {"token": 2}}


def test_what_agrees_is_counted() -> None:
    fates = {
        "plain": _fate("accepted", 200),
        "doubled": _fate("accepted", None, 200, maybe_duplicate=True),
        "refused": _fate("refused", 400),
        "landed": _fate("unknown", None),
        "lost": _fate("unknown", None),
        "kept": _fate("not_sent"),
    }
    entries = [
        _entry("plain", 200, applied=True),
        _entry("doubled", None, applied=True, fault="unanswered"),
        _entry("doubled", 200, applied=True),
        _entry("refused", 400, applied=False, fault="status"),
        _entry("landed", None, applied=True, fault="unanswered"),
        _entry("lost", None, applied=False, fault="reset"),
        _entry("other", 200, applied=True) | {"type": "userprofile.SetUserProfile"},
    ]
    found = audit(Tally(fates=fates), entries, _TOTALS)
    assert found.agrees
    assert found.as_json() == {
        "messages": 5,
        "arrivals": 6,
        "applied": 3,
        "doubled": 1,
        "unknown_landed": 1,
        "unknown_lost": 1,
        "token_calls": 2,
        "faults": {"unanswered": 2, "status": 1, "reset": 1},
    }


@pytest.mark.parametrize(
    ("fate", "entries", "told"),
    [
        (_fate("accepted", 200), [], "sent 1 times"),
        (_fate("accepted", 200), [_entry("r", None, applied=True), _entry("r", 200, applied=True)], "the ledger has"),
        (_fate("accepted", 200), [_entry("r", 200, applied=False)], "without effect"),
        (_fate("refused", 400), [_entry("r", 400, applied=True)], "refused, but it had its effect"),
        (_fate("not_sent", 429), [_entry("r", 429, applied=True)], "not sent, but it had its effect"),
        (
            _fate("accepted", None, 200),
            [_entry("r", None, applied=True), _entry("r", 200, applied=True)],
            "took effect 2 times",
        ),
    ],
)
def test_a_contradiction_is_told(fate: Fate, entries: list[dict[str, Any]], told: str) -> None:
    found = audit(Tally(fates={"r": fate}), entries, _TOTALS)
    assert not found.agrees
    assert told in found.contradictions[0]


def test_a_message_of_nobody_is_a_contradiction() -> None:
    found = audit(Tally(), [_entry("stranger", 200, applied=True)], _TOTALS)
    assert "1 messages arrived that the session does not know" in found.contradictions[0]


def test_a_ledger_that_forgot_proves_nothing() -> None:
    assert not audit(Tally(), [], _TOTALS | {"forgotten": 3}).agrees


@pytest.mark.requirement("cli:storm")
def test_after_a_storm_every_message_is_accounted_for(capsys: pytest.CaptureFixture[str]) -> None:
    """Token revoked in the middle, 5 % resets, bursts of 429, 1 % without an answer."""
    assert main(["demo", "--json", "--faults", "storm", "--consumers", "20", "--messages", "10"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["agrees"] is True
    assert report["messages_sent"] == 200
    assert report["messages_accepted"] + report["refused"] + report["unknown"] + report["not_sent"] == 200
    assert report["ledger"]["arrivals"] == report["attempts"] > 200
    assert report["ledger"]["applied"] == report["messages_accepted"] + report["ledger"]["unknown_landed"]
    assert report["tokens_fetched"] == report["ledger"]["token_calls"] == 2


@pytest.mark.requirement("cli:exit-codes")
def test_a_demo_with_lost_messages_fails_and_says_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Faults of the sandbox are expected where they were asked for; here they were not."""
    from connector_async.cli import demo
    from connector_async.cli._sandbox_process import sandbox_process

    monkeypatch.setattr(demo, "sandbox_process", lambda: sandbox_process("--faults", "no-tokens"))
    assert main(["demo", "--consumers", "2", "--messages", "2"]) == 1
    out, err = capsys.readouterr()
    assert "not sent" in out
    assert "4 of 4 messages were not accepted" in err.splitlines()[-1]
    assert "TokenUnavailable" in err


def test_the_ledger_stands_beside_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--faults", "slow", "--consumers", "2", "--messages", "1"]) == 0
    out = capsys.readouterr().out
    assert "the sandbox's ledger" in out
    assert "fault: latency" in out


@pytest.mark.requirement("cli:one-sentence")
def test_a_fault_file_that_cannot_be_used_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--faults", "hurricane"]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert "hurricane" in last
