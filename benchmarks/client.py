"""One measurement: a rival sends from a process of its own, pinned to one core, and says what it cost.

Reads jobs as JSON lines from stdin and answers each with one line. Every job runs in a fork of this process: the
rival's modules are loaded once, yet each run starts from the same memory.
"""

from __future__ import annotations

import asyncio
import cProfile
import gc
import os
import resource
import sys
import time
import traceback
import urllib.request
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from statistics import quantiles
from typing import cast

import attrs
import orjson

from benchmarks.job import Job, Sample
from benchmarks.machine import loop_factory, pin, rss
from benchmarks.rivals import Send, load

_LOOK = 0.02
"""Seconds between two looks at what the server holds."""
_PATIENCE = 60.0


def control(url: str, **settings: object) -> dict[str, float]:
    """Change the cloud's behaviour; returns its counters. Blocks: for the time between measurements."""
    request = urllib.request.Request(f"{url}/control", data=orjson.dumps(settings), method="POST")
    with urllib.request.urlopen(request, timeout=30) as response:
        return cast("dict[str, float]", orjson.loads(response.read()))


def cpu() -> float:
    """CPU seconds of this process so far, all threads, user and system."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def measure(job: Job) -> Sample:
    """Connect, warm up, send for the job's time."""
    memory = rss()
    async with load(job.rival)(job) as send:
        sample = await measure_sends(job, send)
        return attrs.evolve(sample, memory=rss() - memory)


async def measure_sends(job: Job, send: Send) -> Sample:
    """Let the workers send for the job's time; the clock stops when the last answer is in."""
    await all_workers(job.in_flight, lambda worker: send_once(send, worker))
    async with all_held(job, send):
        pass
    latencies: list[float] = []
    gc.collect()
    before = control(job.control)
    profile = cProfile.Profile() if job.profile else None
    if profile:
        profile.enable()
    cpu_before, begin = cpu(), time.perf_counter()
    await all_workers(job.in_flight, lambda worker: _work(send, worker, begin + job.seconds, latencies))
    cpu_after, end = cpu(), time.perf_counter()
    if profile:
        profile.disable()
        profile.dump_stats(job.profile)
    after = control(job.control)
    cuts = quantiles(latencies, n=100) if len(latencies) > 1 else latencies * 99
    return Sample(
        messages=len(latencies),
        seconds=end - begin,
        cpu=cpu_after - cpu_before,
        server_cpu=after["cpu"] - before["cpu"],
        p50=cuts[49],
        p99=cuts[98],
        memory=0,
    )


async def all_workers(count: int, start: Callable[[int], Coroutine[object, object, None]]) -> None:
    """Run one task per worker to its end."""
    async with asyncio.TaskGroup() as group:
        for worker in range(count):
            group.create_task(start(worker))


@asynccontextmanager
async def all_held(job: Job, send: Send) -> AsyncIterator[None]:
    """All messages in flight at once: the server answers none before the block ends.

    Afterwards every connection that the load needs is open: connecting is not what is measured.

    Raises:
        ExceptionGroup: Of a TimeoutError: the rival does not get so many in flight; or of what its sends raised.
    """
    control(job.control, hold=True)
    async with asyncio.TaskGroup() as group:
        group.create_task(all_workers(job.in_flight, lambda worker: send_once(send, worker)))
        try:
            await asyncio.to_thread(_until_held, job)
            yield
        finally:
            control(job.control, hold=False)


def _until_held(job: Job) -> None:
    give_up = time.monotonic() + _PATIENCE
    while (held := control(job.control)["held"]) < job.in_flight:
        if time.monotonic() > give_up:
            raise TimeoutError(f"only {held} of {job.in_flight} messages got in flight")
        time.sleep(_LOOK)


async def send_once(send: Send, worker: int) -> None:
    """What `all_workers` needs to send a single message."""
    await send(worker)


async def _work(send: Send, worker: int, stop: float, latencies: list[float]) -> None:
    begin = time.perf_counter()
    while True:
        await send(worker)
        now = time.perf_counter()
        latencies.append(now - begin)
        if now >= stop:
            return
        begin = now


def run(job: Job) -> dict[str, object]:
    """Measure on a fresh loop; what went wrong comes back as `error`."""
    try:
        with asyncio.Runner(loop_factory=loop_factory(job.loop)) as runner:
            return attrs.asdict(runner.run(measure(job)))
    except Exception as error:
        return failure(error)


def failure(error: BaseException) -> dict[str, object]:
    """One line for the table; a person who looks for the reason finds it on stderr."""
    if not isinstance(error, ImportError):
        traceback.print_exception(error)
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return {"error": f"{type(error).__name__}: {error}"}


def _run_forked(job: Job) -> None:
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        if status:
            _print({"error": f"{job.rival} ended with status {os.waitstatus_to_exitcode(status)}"})
        return
    _print(run(job))
    os._exit(0)


def _print(line: dict[str, object]) -> None:
    sys.stdout.write(orjson.dumps(line).decode() + "\n")
    sys.stdout.flush()


def main() -> None:
    """Serve jobs for one rival: `python -m benchmarks.client RIVAL [CORE]`."""
    rival, core = sys.argv[1], sys.argv[2:]
    pin(int(core[0]) if core else None)
    try:
        load(rival)
    except ImportError as missing:
        _print({"error": f"{rival} is not available: {missing}"})
        return
    _print({"ready": rival})
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        job = Job(**orjson.loads(line))
        if hasattr(os, "fork"):
            _run_forked(job)
        else:
            _print(run(job))


if __name__ == "__main__":
    main()
