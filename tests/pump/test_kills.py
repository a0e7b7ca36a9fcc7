"""Pumps that are killed, stopped, paused and told to stop, as processes; the sandbox counts what arrived."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.pump.command import Job, Run, SandboxAddress, crashing, tell
from tests.pump.crashing import POINTS

# All but those of the signals: how the command stops is shown, and measured, by them.
untraced = pytest.mark.usefixtures("untraced")

LEASE = 1.5
IN_FLIGHT = 32
OPTIONS = ("--lease", str(LEASE), "--concurrency", str(IN_FLIGHT))
# So slow that the work outlasts what is done to it, also where this process gets no turn for seconds.
SLOW = ("--rate", "100")
SIGNALS = (
    (signal.SIGTERM,),
    (signal.SIGINT, signal.SIGINT),
    (signal.SIGTERM, signal.SIGINT),
    (signal.SIGINT,),
    (signal.SIGTERM, signal.SIGTERM),
)


@untraced
@pytest.mark.parametrize("kills", [4, pytest.param(200, marks=pytest.mark.soak)])
def test_p1_a_pump_that_is_killed_again_and_again_loses_nothing(kills: int, job: Job) -> None:
    """Our fault tables, P1: SIGKILL 80 to 200 ms after each run's first message; 200 kills with `-m soak`."""
    job.fill(consumers=200, messages=100 * kills)
    job.kill_often(kills, *OPTIONS, *SLOW)
    summary = job.finish(*OPTIONS)
    counted = job.check()
    tell("P1", job, kills=kills, **counted)
    assert counted["doubled"] <= kills * IN_FLIGHT
    assert summary["accepted"] == counted["messages"]
    assert summary["maybe_duplicate"] == counted["reported"]


@untraced
def test_after_a_kill_on_one_machine_nothing_waits_for_the_lease(tmp_path: Path, sandbox: SandboxAddress) -> None:
    """With a file as the outbox the kernel tells that the owner is dead; a database elsewhere can only wait."""
    job = Job(tmp_path, f"sqlite:///{tmp_path / 'outbox.db'}", sandbox)
    job.fill(consumers=50, messages=500)
    options = ("--lease", "3600", "--concurrency", str(IN_FLIGHT))
    job.kill_often(1, *options, *SLOW)
    begun = time.monotonic()
    job.finish(*options)
    counted = job.check()
    tell("take-over", job, milliseconds=round(1000 * (time.monotonic() - begun)), **counted)
    assert 0 < counted["reported"] <= IN_FLIGHT


def _pause(late: Run, job: Job) -> None:
    """SIGSTOP it while it is not writing: a lock held by who sleeps stops everybody, for a while or for ever."""
    while True:
        assert not late.wait(0.1)
        late.process.send_signal(signal.SIGSTOP)
        # All its threads have stopped only now; until then one of them may still take the lock.
        os.waitid(os.P_PID, late.process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        if job.is_writable():
            return
        late.process.send_signal(signal.SIGCONT)


@untraced
@pytest.mark.parametrize(
    ("pumps", "rounds"),
    [(3, 1), *(pytest.param(pumps, 50, marks=pytest.mark.soak) for pumps in (2, 4))],
)
def test_p4_a_pump_that_wakes_late_settles_nothing_that_others_have_taken(pumps: int, rounds: int, job: Job) -> None:
    """Our fault tables, P4: SIGSTOP past the lease, while one to three others work on; with `-m soak` 200 rounds."""
    job.fill(consumers=100, messages=0)
    names = ["results-late", *(f"results-{number}" for number in range(1, pumps))]
    lost = lost_by_others = 0
    for _ in range(rounds):
        before, wanted = job.arrived(), job.more(300)
        late = job.start(wanted, *OPTIONS, *SLOW, results="results-late")
        assert job.wait_until_it_sends(late, before)
        _pause(late, job)
        try:
            others = [job.start(wanted, *OPTIONS, results=name) for name in names[1:]]
            ended = [other.end() for other in others]
        finally:
            late.process.send_signal(signal.SIGCONT)
        ended.append(late.end())
        assert {ran.code for ran in ended} == {0}, ended
        assert ended[-1].summary is not None
        lost += ended[-1].summary["lease_lost"]
        # A busy machine makes others late, too.
        lost_by_others += sum(ran.summary["lease_lost"] for ran in ended[:-1] if ran.summary)
    assert lost > 0
    counted = job.check(results=["results", *names])
    tell("P4", job, pumps=pumps, rounds=rounds, late_marks_rejected=lost, others=lost_by_others, **counted)
    assert counted["doubled"] <= rounds * IN_FLIGHT + lost_by_others


@pytest.mark.parametrize(
    ("signals", "rounds"),
    [
        *((signals, 1) for signals in SIGNALS[:3]),
        *(pytest.param(signals, 10, marks=pytest.mark.soak) for signals in SIGNALS),
    ],
    ids=lambda value: str(value) if isinstance(value, int) else "-".join(one.name for one in value),
)
def test_p6_a_signal_stops_the_pump_and_loses_nothing(
    signals: tuple[signal.Signals, ...], rounds: int, job: Job
) -> None:
    """Our fault tables, P6: the first signal drains, a second one stops at once; --resume goes on with the rest."""
    job.fill(consumers=100, messages=300 * rounds)
    longest = 0.0
    for _ in range(rounds):
        before = job.arrived()
        run = job.start("input", *OPTIONS, *SLOW)
        assert job.wait_until_it_sends(run, before)
        signalled = time.monotonic()
        for number in signals:
            run.process.send_signal(number)
        ran = run.end()
        longest = max(longest, time.monotonic() - signalled)
        assert ran.code == 1, ran
        assert ran.summary is not None
        # Two that are pending at once are told in the order of their numbers.
        assert ran.summary["stopped_by"] in {one.name for one in signals}
        assert ran.summary["waiting"] > 0
        assert "--resume goes on with them" in ran.said
    job.finish(*OPTIONS)
    counted = job.check()
    tell("P6", job, stops=rounds, longest_ms=round(longest * 1000), **counted)
    assert longest < 30.0
    assert counted["doubled"] <= (rounds * IN_FLIGHT if len(signals) > 1 else 0)


@untraced
@pytest.mark.parametrize("rounds", [1, pytest.param(20, marks=pytest.mark.soak)])
@pytest.mark.parametrize("point", POINTS)
def test_p2_a_crash_at_a_named_point_doubles_only_what_it_must(point: str, rounds: int, job: Job) -> None:
    """Our fault tables, P2: only what was sent and not marked is sent twice, as its second attempt, and says so."""
    figures: Counter[str] = Counter()
    warm = [{"id": f"c{consumer}-hello", "consumer": f"c{consumer}"} for consumer in range(3)]
    assert crashing(job, warm, None).returncode == 0
    for number in range(rounds):
        messages = [{"id": f"{number}-{n}", "consumer": f"c{n % 3}"} for n in range(6)]
        crashed = crashing(job, messages, point)
        assert crashed.returncode == -signal.SIGKILL, crashed.stderr
        before = job.applied()
        finished = crashing(job, messages, None)
        assert finished.returncode == 0, finished.stderr
        report = json.loads(finished.stdout)
        after = job.applied()
        assert report["put"] == ["known"] * 6
        ids = [one["id"] for one in messages]
        assert all(after[message_id] >= 1 for message_id in ids)
        doubled = {message_id for message_id in ids if after[message_id] > 1}
        reported = {message_id for message_id, (_, _, maybe) in report["told"].items() if maybe}
        assert {state for state, _, _ in report["told"].values()} == {"accepted"}
        assert all(report["told"][message_id][1] == 2 for message_id in reported)
        # What was sent by then and is not marked, and nothing else.
        assert doubled == {message_id for message_id in report["told"] if before[message_id]}
        assert doubled <= reported
        marked = set(ids) - report["told"].keys()
        assert bool(marked) == (point == "after mark")
        assert bool(doubled) or point != "before mark"
        figures.update(messages=len(ids), doubled=len(doubled), reported=len(reported))
    tell(f"P2, {point}", job, crashes=rounds, **figures)
