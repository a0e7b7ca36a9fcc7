"""The examples that take messages from a queue lose nothing when they are killed."""

from __future__ import annotations

import json
import os
import runpy
import signal
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

from connector_async import RetryPolicy
from connector_async.sandbox import Sandbox

EXAMPLES = Path(__file__).parent.parent / "examples"

pytestmark = pytest.mark.anyio


def load(name: str) -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name=name)


class KillAt:
    """SIGKILL for a process in the moment when the cloud takes in its `count`th message: it never hears the answer.

    Not before everybody was heard, so that every conversation is known to the one that comes after.
    """

    def __init__(self, cloud: Sandbox, count: int, *, consumers: int) -> None:
        self._left = count
        self._cloud, self._consumers = cloud, consumers
        self.pid: int | None = None
        cloud.model.listeners.append(self._on_happening)

    def _on_happening(self, happening: Any) -> None:
        if self.pid is None or happening.role != "CONSUMER" or (happening.event or {}).get("type") != "ContentEvent":
            return
        self._left -= 1
        heard = {entry.consumer for entry in self._cloud.ledger.entries if entry.type == "ms.PublishEvent"}
        if self._left <= 0 and len(heard) == self._consumers:
            os.kill(self.pid, signal.SIGKILL)


async def run(name: str, *arguments: str, cloud: Sandbox, kill: KillAt | None = None) -> tuple[int, str]:
    """An example as a process; its exit code and what it printed."""
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), *arguments]
    environ = {**os.environ, **cloud.environ(), "PYTHONPATH": str(EXAMPLES.parent)}
    async with await anyio.open_process(command, env=environ, stdin=None, stderr=None) as process:
        if kill is not None:
            kill.pid = process.pid
        assert process.stdout is not None
        printed = b"".join([chunk async for chunk in process.stdout])
        code = await process.wait()
    if kill is not None:
        kill.pid = None
    return code, printed.decode()


@pytest.mark.requirement("examples:run")
async def test_a_log_is_carried_to_a_sandbox_of_the_examples_own(capsys: pytest.CaptureFixture[str]) -> None:
    """Issue 7, item 6."""
    with anyio.fail_after(30):
        await load("queue_log")["main"]()
    committed, counted = capsys.readouterr().out.splitlines()
    assert committed == "committed {0: 40, 1: 40, 2: 40}"
    assert counted == "120 messages in the cloud, 0 of them twice"


@pytest.mark.requirement("pump:watermarks")
async def test_a_log_whose_consumer_is_killed_between_send_and_commit_loses_nothing(tmp_path: Path) -> None:
    """Issue 7, item 6. What comes twice was never committed, and shows by its request id."""
    example = load("queue_log")
    log, request_id = example["FileLog"](tmp_path), example["request_id"]
    example["write_orders"](log)
    every = {request_id(partition, offset): (partition, offset) for partition in range(3) for offset in range(40)}
    may_be_doubled: set[str] = set()
    async with Sandbox() as cloud:
        with anyio.fail_after(60):
            for count in (31, 47):
                code, _ = await run("queue_log", str(tmp_path), cloud=cloud, kill=KillAt(cloud, count, consumers=12))
                assert code == -signal.SIGKILL
                reached = cloud.ledger.applied_counts("ms.PublishEvent")
                committed = log.committed()
                uncommitted = {one for one, (part, offset) in every.items() if offset >= committed.get(part, 0)}
                assert cloud.ledger.lost(every.keys() - uncommitted) == []
                assert uncommitted & reached.keys(), "it was killed between send and commit"
                may_be_doubled |= uncommitted & reached.keys()
            code, printed = await run("queue_log", str(tmp_path), cloud=cloud)
        assert (code, printed) == (0, "committed {0: 40, 1: 40, 2: 40}\n")
        assert cloud.ledger.lost(every) == []
        doubled = cloud.ledger.doubled("ms.PublishEvent").keys()
        assert doubled
        assert doubled <= may_be_doubled
        assert cloud.ledger.applied_counts("ms.PublishEvent").keys() == every.keys()


@pytest.mark.requirement("pump:watermarks")
async def test_what_did_not_reach_the_cloud_is_not_committed_and_is_read_again(tmp_path: Path) -> None:
    """Ours: a partition waits for what is not known to be there; the next round begins with it."""
    example = load("queue_log")
    log = example["FileLog"](tmp_path)
    example["write_orders"](log)
    async with Sandbox() as cloud, cloud.session(retry=RetryPolicy.none()) as session:
        with anyio.fail_after(30):
            cloud.fail_next(status=503, type="ms.PublishEvent")
            assert not await example["carry"](session, log)
            (failed,) = (entry.request_id for entry in cloud.ledger.entries if entry.status == 503)
            partition, offset = map(int, failed.split("-")[1:])
            assert log.committed().get(partition, 0) <= offset
            assert await example["carry"](session, log)
    assert log.committed() == {0: 40, 1: 40, 2: 40}
    assert not (tmp_path / "refused.jsonl").exists()


async def test_what_is_refused_for_good_is_set_aside_and_holds_nothing_up(tmp_path: Path) -> None:
    """Ours: to be done with it is right only because it was written down before."""
    example = load("queue_log")
    log = example["FileLog"](tmp_path)
    example["write_orders"](log)
    async with Sandbox() as cloud, cloud.session() as session:
        with anyio.fail_after(30):
            cloud.fail_next(status=400, type="ms.PublishEvent")
            assert await example["carry"](session, log)
    assert log.committed() == {0: 40, 1: 40, 2: 40}
    refused = [json.loads(line) for line in (tmp_path / "refused.jsonl").read_text().splitlines()]
    assert [example["request_id"](one["partition"], one["offset"]) for one in refused] == [
        entry.request_id for entry in cloud.ledger.entries if entry.status == 400
    ]
