"""Pumps killed while the cloud opens a conversation, whose id its answer alone would tell; with webhooks, without."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager

import pytest

from tests.pump.command import PATIENCE, ROOT, Job, crashing, crashing_settings, tell
from tests.pump.crashing import OPENING

pytestmark = pytest.mark.usefixtures("untraced")

IN_FLIGHT = 32
OPTIONS = ("--lease", "1.5", "--concurrency", str(IN_FLIGHT))
CONSUMERS = 6


@contextmanager
def _webhooks(job: Job) -> Generator[None]:
    """Connect them to a process that shares the store with the pumps, and outlives them."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.pump.crashing"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps({**crashing_settings(job), "listen": True}) + "\n")
            process.stdin.flush()
            job.ask_sandbox("PUT", "webhooks", {"url": process.stdout.readline().strip(), "retention_time": 600})
            yield
            process.stdin.close()
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()


def _messages() -> list[dict[str, str]]:
    return [{"id": f"c{n % CONSUMERS}-{n}", "consumer": f"c{n % CONSUMERS}"} for n in range(2 * CONSUMERS)]


def _open_conversations(job: Job) -> list[str]:
    found = job.ask_sandbox("GET", "conversations")["conversations"]
    return [one["convId"] for one in found if one["conversationDetails"]["stage"] == "OPEN"]


@pytest.mark.parametrize("rounds", [2, pytest.param(20, marks=pytest.mark.soak)])
def test_p2_where_webhooks_are_connected_a_conversation_opened_by_a_dead_process_is_found(
    rounds: int, job: Job
) -> None:
    """Our fault tables, P2: the webhook came to another process, before the one that needs it was started."""
    figures: Counter[str] = Counter()
    with _webhooks(job):
        for number in range(rounds):
            messages = [{name: f"{number}-{value}" for name, value in one.items()} for one in _messages()]
            crashed = crashing(job, messages, OPENING)
            assert crashed.returncode == -signal.SIGKILL, crashed.stderr
            assert not job.applied().keys() & {one["id"] for one in messages}
            finished = crashing(job, messages, None, policy={"first_backoff": 0.1})
            assert finished.returncode == 0, finished.stderr
            told = json.loads(finished.stdout)["told"]
            applied = job.applied()
            assert all(applied[one["id"]] for one in messages)
            assert all(told[message_id][2] for message_id in told if applied[message_id] > 1)
            assert {state for state, _, _ in told.values()} == {"accepted"}
            figures.update(messages=len(messages), reported=sum(maybe for _, _, maybe in told.values()))
        tell("P2, after opening, with webhooks", job, crashes=rounds, **figures)


@pytest.mark.parametrize("rounds", [1, pytest.param(20, marks=pytest.mark.soak)])
def test_p2_where_none_are_each_message_has_an_end_that_says_what_helps(rounds: int, job: Job) -> None:
    """Our fault tables, P2: the API names it nowhere else; once an agent has closed it, it is no obstacle."""
    figures: Counter[str] = Counter()
    for number in range(rounds):
        messages = [{name: f"{number}-{value}" for name, value in one.items()} for one in _messages()]
        crashed = crashing(job, messages, OPENING)
        assert crashed.returncode == -signal.SIGKILL, crashed.stderr
        finished = crashing(job, messages, None, policy={"first_backoff": 0.05, "max_openings": 2})
        assert finished.returncode == 0, finished.stderr
        report = json.loads(finished.stdout)
        dead = {message_id for message_id, (state, _, _) in report["told"].items() if state != "accepted"}
        assert report["told"].keys() == {one["id"] for one in messages}
        # A process died over the first of each; those behind it were nobody's turn.
        assert {report["told"][one][0] for one in dead} == {"unknown", "not_sent"}
        assert dead
        for message_id in dead:
            assert "a webhook connected to this store" in report["reasons"][message_id]
            assert "an agent who closes it" in report["reasons"][message_id]
        for conversation_id in _open_conversations(job):
            job.ask_sandbox("POST", "agent/closes", {"conversation_id": conversation_id})
        revived = crashing(job, [], None, revive=sorted(dead))
        assert revived.returncode == 0, revived.stderr
        assert {state for state, _, _ in json.loads(revived.stdout)["told"].values()} == {"accepted"}
        applied = job.applied()
        assert all(applied[one["id"]] for one in messages)
        figures.update(messages=len(messages), given_up=len(dead))
    tell("P2, after opening, without webhooks", job, crashes=rounds, **figures)


@pytest.mark.parametrize("kills", [2, pytest.param(200, marks=pytest.mark.soak)])
def test_p1_a_pump_that_is_killed_while_it_opens_conversations_loses_nothing(kills: int, job: Job) -> None:
    """Our fault tables, P1: half of what is under way is an opening; webhooks come to another process."""
    job.fill_with_strangers(consumers=40 * kills)
    with _webhooks(job):
        job.kill_often(kills, *OPTIONS, "--rate", "60")  # the work outlasts the kills
        job.finish(*OPTIONS)
    counted = job.check()
    tell("P1, opening", job, kills=kills, **counted)
    assert counted["doubled"] <= kills * IN_FLIGHT
