"""Pumps that are killed, stopped, paused and told to stop, as processes; the sandbox counts what arrived."""

from __future__ import annotations

import json
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from connector_async.cli._sandbox_process import SandboxAddress, sandbox_process
from tests.pump.command import Job, Run

pytest.importorskip("starlette", reason="the sandbox needs its extra")

LEASE = 1.5
IN_FLIGHT = 32
OPTIONS = ("--lease", str(LEASE), "--concurrency", str(IN_FLIGHT))


@pytest.fixture
def sandbox() -> Iterator[SandboxAddress]:
    with sandbox_process() as address:
        yield address


def _sqlite(folder: Path) -> str:
    return f"sqlite:///{folder / 'outbox.db'}"


def _kill_and_finish(job: Job, kills: int) -> dict[str, int]:
    chance = random.Random(kills)
    # Slow enough that the work outlasts the kills.
    job.fill(consumers=200, messages=40 * kills)
    done = 0
    while done < kills and job.kill_once(chance, *OPTIONS, "--rate", "250"):
        done += 1
    last = job.start("input", *OPTIONS).end()
    assert last.code == 0, last
    assert last.summary is not None
    assert last.summary["waiting"] == 0
    counted = job.check()
    assert counted["doubled"] <= done * IN_FLIGHT
    assert last.summary["accepted"] == counted["messages"]
    assert last.summary["maybe_duplicate"] == counted["reported"]
    figures = {"kills": done, **counted}
    print(json.dumps(figures))
    assert done == kills
    return figures


@pytest.mark.parametrize("kills", [8, pytest.param(200, marks=pytest.mark.soak)])
def test_p1_a_pump_that_is_killed_again_and_again_loses_nothing(
    kills: int, tmp_path: Path, sandbox: SandboxAddress
) -> None:
    """Our fault tables, P1: SIGKILL 80 to 200 ms after each run's first message; 200 kills with `-m soak`."""
    _kill_and_finish(Job(tmp_path, _sqlite(tmp_path), sandbox), kills)


def _pause(late: Run, job: Job) -> None:
    """SIGSTOP it while it is not writing: the only write lock of a file, held by who sleeps, stops everybody."""
    while True:
        assert not late.wait(0.1)
        late.process.send_signal(signal.SIGSTOP)
        if job.is_writable():
            return
        late.process.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("rounds", [1, pytest.param(20, marks=pytest.mark.soak)])
def test_p4_a_pump_that_wakes_late_settles_nothing_that_others_have_taken(
    rounds: int, tmp_path: Path, sandbox: SandboxAddress
) -> None:
    """Our fault tables, P4: SIGSTOP past the lease, while a second pump works on the same outbox."""
    job = Job(tmp_path, _sqlite(tmp_path), sandbox)
    job.fill(consumers=100, messages=600 * rounds)
    lost = 0
    for _ in range(rounds):
        before = job.arrived()
        late = job.start("input", *OPTIONS, "--rate", "400", results="results-late")
        assert job.wait_until_it_sends(late, before)
        _pause(late, job)
        try:
            other = job.start("input", *OPTIONS).end()
        finally:
            late.process.send_signal(signal.SIGCONT)
        woken = late.end()
        assert (other.code, woken.code) == (0, 0), (other, woken)
        assert woken.summary is not None
        lost += woken.summary["lease_lost"]
    assert lost > 0
    counted = job.check()
    assert counted["doubled"] <= rounds * IN_FLIGHT


@pytest.mark.parametrize("rounds", [1, pytest.param(10, marks=pytest.mark.soak)])
@pytest.mark.parametrize(
    "signals",
    [
        (signal.SIGTERM,),
        (signal.SIGINT,),
        (signal.SIGINT, signal.SIGINT),
        (signal.SIGTERM, signal.SIGTERM),
        (signal.SIGTERM, signal.SIGINT),
    ],
    ids=lambda signals: "-".join(one.name for one in signals),
)
def test_p6_a_signal_stops_the_pump_and_loses_nothing(
    signals: tuple[signal.Signals, ...], rounds: int, tmp_path: Path, sandbox: SandboxAddress
) -> None:
    """Our fault tables, P6: the first signal drains, a second one stops at once; --resume goes on with the rest."""
    job = Job(tmp_path, _sqlite(tmp_path), sandbox)
    job.fill(consumers=100, messages=300 * rounds)
    for _ in range(rounds):
        before = job.arrived()
        run = job.start("input", *OPTIONS, "--rate", "400")
        assert job.wait_until_it_sends(run, before)
        for number in signals:
            run.process.send_signal(number)
        ran = run.end()
        assert ran.code == 1, ran
        assert ran.summary is not None
        assert ran.summary["stopped_by"] == signals[0].name
        assert ran.summary["waiting"] > 0
        assert "--resume goes on with them" in ran.said
    last = job.start("input", *OPTIONS).end()
    assert last.code == 0, last
    counted = job.check()
    assert counted["doubled"] <= (rounds * IN_FLIGHT if len(signals) > 1 else 0)
