"""What is not a plain stream of sends: tokens that end under load, messages that hang, consumers that wait.

Each scenario runs in a process of its own (`python -m benchmarks.scenario NAME [CORE]`), takes one JSON
line and gives one back.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
import tracemalloc
from collections.abc import Awaitable, Callable

import orjson

from benchmarks.client import all_held, all_workers, control, failure, send_once
from benchmarks.idle import idle
from benchmarks.job import Job
from benchmarks.machine import loop_factory, pin, rss
from benchmarks.rivals import load

Facts = dict[str, object]


async def held(job: Job, *, traced: bool) -> Facts:
    """The memory of messages whose answers do not come: each worker has one in flight."""
    before = rss()
    if traced:
        tracemalloc.start()
    async with load(job.rival)(job) as send:
        await all_workers(job.in_flight, lambda worker: send_once(send, worker))
        async with all_held(job, send):
            pass
        before_them = _traced() if traced else 0
        async with all_held(job, send):
            hanging, resident = (_traced() if traced else 0), rss()
    return {
        "rss_per_request": (resident - before) / job.in_flight,
        "traced_per_request": (hanging - before_them) / job.in_flight if traced else None,
    }


async def tokens(job: Job, *, case: str, waiting: int, lifetime: float) -> Facts:
    """How often the token endpoint is asked when many messages wait: `cold`, `expired` or `refused`."""
    from benchmarks.rivals import payload
    from benchmarks.rivals.session import open_session
    from connector_async import SessionLimits

    limits = SessionLimits(max_queue=2 * waiting, max_cached_consumers=2 * waiting)
    async with open_session(job, limits) as session:
        conversations = [
            session.conversation(payload.conversation_id(number), session.consumer(f"consumer-{number}"))
            for number in range(waiting)
        ]

        async def send(worker: int) -> None:
            await conversations[worker].send_text(payload.TEXT)

        if case == "expired":
            # The next token takes longer than this one lives, so all that is sent meanwhile has to wait for it.
            control(job.control, token_lifetime=lifetime)
            begin = time.monotonic()
            await send(0)
            control(job.control, token_lifetime=3600.0, token_delay=lifetime * 1.5)
            await asyncio.sleep(begin + lifetime * 1.05 - time.monotonic())
        elif case == "refused":
            await all_workers(waiting, send)
            control(job.control, revoke=True)
        # When expired, the background refresh has asked already and waits: it must stay the only one.
        before = control(job.control)
        asked = {"cold": 0, "expired": 1, "refused": before["tokens"]}[case]
        begin = time.monotonic()
        await all_workers(waiting, send)
        seconds = time.monotonic() - begin
        after = control(job.control, token_delay=0.0)
    return {
        "token_calls": after["tokens"] - asked,
        "refused": after["refused"] - before["refused"],
        "answered": after["sends"] - before["sends"] - after["refused"] + before["refused"],
        "seconds": seconds,
    }


def _traced() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


SCENARIOS: dict[str, Callable[..., Awaitable[Facts]]] = {"held": held, "idle": idle, "tokens": tokens}


def main() -> None:
    """Play one scenario."""
    name, core = sys.argv[1], sys.argv[2:]
    pin(int(core[0]) if core else None)
    asked = orjson.loads(sys.stdin.readline())
    job = Job(**asked["job"])

    async def play() -> Facts:
        return await SCENARIOS[name](job, **asked["settings"])

    try:
        with asyncio.Runner(loop_factory=loop_factory(job.loop)) as runner:
            facts = runner.run(play())
    except Exception as error:
        facts = failure(error)
    print(orjson.dumps(facts).decode(), flush=True)


if __name__ == "__main__":
    main()
