"""Pumps in processes of their own on one outbox in PostgreSQL; the sandbox's ledger counts what arrived."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from connector_async.cli._audit import read_ledger
from connector_async.cli._sandbox_process import sandbox_process
from connector_async.pump import PumpMessage
from connector_async.pump._messages import to_outbox
from connector_async.store import PostgresStore
from connector_async.store.outbox import MessageState, Outbox, OutboxMessage, PutResult, Settlement
from tests.pump.command import LOOK, Job, Run
from tests.store.postgres_server import PostgresPlace
from tests.store.test_postgres import new_store, sql

pytestmark = pytest.mark.anyio

ACCEPTED = Settlement(state=MessageState.ACCEPTED, attempts=1, sequence=0, conversation_id="c")
PATIENCE = 3600.0
BATCH = 500
TURNS = 20
"""Messages for each conversation."""
STEP = 5
"""Turns that are put before the pumps catch up: so lanes come to their end, and go to another pump."""


@contextmanager
def fleet(job: Job, pumps: int) -> Iterator[list[Run]]:
    """Pumps that go on until the block ends, and then until the outbox is empty."""
    pipe = job.folder / "pipe"
    os.mkfifo(pipe)
    # For reading too, or it would wait for the first reader.
    held = os.open(pipe, os.O_RDWR)
    runs: list[Run] = []
    try:
        for number in range(pumps):
            runs.append(job.start(pipe.name, "--concurrency", "128", results=f"results-{number}"))
        for number, run in enumerate(runs):
            while not (job.folder / f"results-{number}").exists():
                assert not run.wait(LOOK)
        yield runs
    finally:
        os.close(held)
        for run in runs:
            if not run.wait(PATIENCE):
                run.kill()


async def put_in_steps(job: Job, outbox: Outbox, conversations: int, run: Run) -> None:
    """The conversations in turn; none of them is open yet."""
    account_id, numbers = job.sandbox.account_id, range(conversations * TURNS)
    job.ids = {
        f"c{number}": [f"m{place}" for place in numbers[number::conversations]] for number in range(conversations)
    }
    for step in range(0, len(numbers), conversations * STEP):
        while (await outbox.counts(account_id)).unsettled > conversations:
            assert not run.wait(LOOK)
        in_step = numbers[step : step + conversations * STEP]
        for batch in (in_step[start : start + BATCH] for start in range(0, len(in_step), BATCH)):
            messages = [PumpMessage(f"m{n}", f"c{n % conversations}", f"this is m{n}") for n in batch]
            put = await outbox.put(account_id, [to_outbox(one) for one in messages])
            assert put == [PutResult.ADDED] * len(batch)


@pytest.mark.parametrize(
    ("pumps", "conversations"),
    [(3, 20), pytest.param(2, 10_000, marks=pytest.mark.soak), pytest.param(4, 10_000, marks=pytest.mark.soak)],
)
@pytest.mark.requirement("P4")
@pytest.mark.requirement("P5")
async def test_a_fleet_sends_each_message_once_and_in_its_order(
    pumps: int, conversations: int, postgres: PostgresPlace, tmp_path: Path
) -> None:
    """Each conversation is opened once, by whichever pump comes first, and goes through the hands of several."""
    pytest.importorskip("starlette", reason="the sandbox needs its extra")
    await sql(postgres, "DROP SCHEMA IF EXISTS connector_async CASCADE")
    with sandbox_process() as sandbox:
        job = Job(tmp_path, f"postgresql:///?{'&'.join(postgres.dsn.split())}", sandbox)
        store = PostgresStore(job.outbox, max_entries=10**7)
        with fleet(job, pumps) as runs:
            begin = time.monotonic()
            await put_in_steps(job, store.outbox, conversations, runs[0])
        seconds = time.monotonic() - begin
        ends = [run.end() for run in runs]
        counts = await store.outbox.counts(sandbox.account_id)
        await store.aclose()
        told = [job.results(f"results-{number}") for number in range(pumps)]
        counted = job.check(results=[f"results-{number}" for number in range(pumps)])
        opened = Counter(one["type"] for one in read_ledger(sandbox.url)[0])["cm.ConsumerRequestConversation"]
    assert [end.code for end in ends] == [0] * pumps
    assert (counts.accepted, counts.unsettled, counts.maybe_duplicate) == (conversations * TURNS, 0, 0)
    assert (counted["doubled"], counted["reported"], opened) == (0, 0, conversations)
    assert sum(map(len, told)) == counted["messages"]
    shared = sum(sum(not one.keys().isdisjoint(ids) for one in told) > 1 for ids in job.ids.values())
    assert shared > 0 or conversations < 1_000  # a few may all stay with the pump that took them first
    figures = {"pumps": pumps, **counted, "opened": opened, "shared lanes": shared, "shares": list(map(len, told))}
    print(json.dumps({**figures, "seconds": round(seconds, 1), "rate": round(counted["messages"] / seconds)}))


_SLEEPER = """
import sys
import anyio
from connector_async.store import PostgresStore
from connector_async.store.outbox import MessageState, Settlement

async def main() -> None:
    store = PostgresStore(sys.argv[1], schema=sys.argv[2])
    claims = await store.outbox.claim("1", owner="sleeper", lease=0.0, limit=100)
    print(len(claims), flush=True)
    sys.stdin.readline()
    accepted = Settlement(state=MessageState.ACCEPTED, attempts=1)
    print(sum(one.is_settled for one in await store.outbox.advance("1", [(c, accepted) for c in claims], lease=60.0)))
    print(len(await store.outbox.renew("1", owner="sleeper", lease=60.0)))
    print(await store.outbox.release("1", claims))
    await store.aclose()

anyio.run(main)
"""


@pytest.mark.requirement("P4")
async def test_a_paused_pump_that_wakes_late_settles_nothing(postgres: PostgresPlace) -> None:
    """SIGSTOP, its lanes go to another, SIGCONT: its fences are old."""
    store = new_store(postgres)
    put = [OutboxMessage(id=f"m{n}", consumer=f"lane{n}", body=b"{}", request_id=f"r{n}") for n in range(10)]
    await store.outbox.put("1", put)
    sleeper = subprocess.Popen(  # noqa: ASYNC220 - nothing else runs in this loop
        [sys.executable, "-c", _SLEEPER, postgres.dsn, postgres.schema],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert sleeper.stdout is not None
    assert sleeper.stdout.readline() == "10\n"
    sleeper.send_signal(signal.SIGSTOP)
    claims = await store.outbox.claim("1", owner="other", lease=60.0, limit=100)
    assert len(claims) == 10
    assert all(claim.was_begun and claim.maybe_duplicate for claim in claims)
    sleeper.send_signal(signal.SIGCONT)
    assert sleeper.communicate("\n", timeout=30)[0].split() == ["0", "0", "0"]
    advances = await store.outbox.advance("1", [(claim, ACCEPTED) for claim in claims], lease=60.0)
    assert all(advance.is_settled for advance in advances)
    await store.aclose()
