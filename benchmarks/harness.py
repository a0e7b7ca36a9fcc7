"""Processes and turns: one server, one client process per rival, and the rivals in turn in every round."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from statistics import median
from types import TracebackType
from typing import IO, Any, Self

import attrs
import orjson

from benchmarks.job import Job, Sample
from benchmarks.machine import cores

__all__ = ["Client", "Measurement", "Place", "RivalFailed", "Server", "alternate", "play", "progress"]


class RivalFailed(Exception):
    """A rival could not be measured; the message says why."""


def progress(line: str) -> None:
    """Tell a waiting person where it stands; the result goes to stdout."""
    print(line, file=sys.stderr, flush=True)


class _Process:
    """A child that talks in JSON lines and ends when its stdin does."""

    def __init__(self, module: str, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def tell(self, line: object) -> None:
        stdin = self._pipe(self._process.stdin)
        stdin.write(orjson.dumps(line).decode() + "\n")
        stdin.flush()

    def hear(self) -> dict[str, Any]:
        line = self._pipe(self._process.stdout).readline()
        if not line:
            raise RivalFailed(f"{' '.join(map(str, self._process.args[1:]))} ended")  # type: ignore[index]
        answer: dict[str, Any] = orjson.loads(line)
        if "error" in answer:
            raise RivalFailed(str(answer["error"]))
        return answer

    @staticmethod
    def _pipe(pipe: IO[str] | None) -> IO[str]:
        assert pipe is not None
        return pipe

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pipe(self._process.stdin).close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._pipe(self._process.stdout).close()


@attrs.frozen(kw_only=True)
class Place:
    """Where a server listens."""

    base: str
    control: str
    ca_file: str


class Server(_Process):
    """The cloud in its own process, on the other core."""

    def __init__(self, *, tls: bool = False, latency: float = 0.0, token_lifetime: float = 3600.0) -> None:
        _, core = cores()
        arguments = ["--latency", str(latency), "--token-lifetime", str(token_lifetime)]
        arguments += ["--tls"] if tls else []
        arguments += [] if core is None else ["--core", str(core)]
        super().__init__("benchmarks.server", *arguments)
        self.place = Place(**self.hear())


class Client(_Process):
    """One rival's process."""

    def __init__(self, rival: str) -> None:
        core, _ = cores()
        super().__init__("benchmarks.client", rival, *([] if core is None else [str(core)]))
        self.rival = rival

    def run(self, job: Job) -> Sample:
        """Measure once.

        Raises:
            RivalFailed: It could not; the message holds the last lines of its traceback.
        """
        self.tell(attrs.asdict(job))
        return Sample(**self.hear())


def play(scenario: str, job: Job, **settings: object) -> dict[str, Any]:
    """Play one scenario of the session in a process of its own.

    Raises:
        RivalFailed: It could not be played; the message holds the last lines of its traceback.
    """
    core, _ = cores()
    with _Process("benchmarks.scenario", scenario, *([] if core is None else [str(core)])) as process:
        process.tell({"job": attrs.asdict(job), "settings": settings})
        return process.hear()


@attrs.frozen(kw_only=True)
class Measurement:
    """What all rounds of one rival under one condition showed; medians over the rounds."""

    rival: str
    in_flight: int
    loop: str
    tls: bool
    samples: tuple[Sample, ...]

    def middle(self, field: str) -> float:
        """The median of one field of the samples."""
        return median(float(getattr(sample, field)) for sample in self.samples)

    def cpu_range(self) -> tuple[float, float]:
        """The least and the most CPU per message of any round, microseconds."""
        costs = [sample.cpu_us for sample in self.samples]
        return min(costs), max(costs)

    def server_busy(self) -> float:
        """The share of the time that the server's core was busy."""
        return median(sample.server_cpu / sample.seconds for sample in self.samples)

    def ratio(self, other: Measurement) -> float:
        """CPU per message as a multiple of the other's: the median over the rounds, which both shared."""
        pairs = zip(self.samples, other.samples, strict=False)
        return median(mine.cpu_us / theirs.cpu_us for mine, theirs in pairs)

    def as_dict(self) -> dict[str, object]:
        """For `--json`."""
        return {
            "rival": self.rival,
            "in_flight": self.in_flight,
            "loop": self.loop,
            "tls": self.tls,
            "rounds": len(self.samples),
            "messages": sum(sample.messages for sample in self.samples),
            "cpu_us": round(self.middle("cpu_us"), 2),
            "cpu_us_range": [round(cost, 2) for cost in self.cpu_range()],
            "rate": round(self.middle("rate"), 1),
            "p50_ms": round(self.middle("p50") * 1e3, 3),
            "p99_ms": round(self.middle("p99") * 1e3, 3),
            "memory_bytes": round(self.middle("memory")),
            "server_us": round(self.middle("server_us"), 2),
            "server_busy": round(self.server_busy(), 3),
        }


@contextmanager
def clients(rivals: Iterable[str], problems: list[str]) -> Iterator[dict[str, Client]]:
    """A process for each rival that can run here; the others are named in `problems`."""
    with ExitStack() as stack:
        started: dict[str, Client] = {}
        for rival in rivals:
            client = stack.enter_context(Client(rival))
            try:
                client.hear()
            except RivalFailed as failure:
                problems.append(str(failure))
            else:
                started[rival] = client
        yield started


def alternate(
    place: Place,
    conditions: Sequence[Job],
    *,
    rounds: int,
    problems: list[str],
    once: Sequence[Job] = (),
) -> list[Measurement]:
    """Run all jobs in turn, round after round (A B C A B C …); `once` only in the first round.

    A rival that fails is not asked again under that condition.
    """
    samples: dict[Job, list[Sample]] = {job: [] for job in (*conditions, *once)}
    with clients(dict.fromkeys(job.rival for job in samples), problems) as started:
        open_jobs = [job for job in samples if job.rival in started]
        for number in range(rounds):
            for job in open_jobs[:]:
                if number and job in once:
                    continue
                progress(f"round {number + 1}/{rounds}: {job.rival}, {job.in_flight} in flight, {job.loop}")
                try:
                    samples[job].append(started[job.rival].run(job))
                except RivalFailed as failure:
                    problems.append(f"{job.rival}, {job.in_flight} in flight: {failure}")
                    open_jobs.remove(job)
    return [
        Measurement(
            rival=job.rival, in_flight=job.in_flight, loop=job.loop, tls=bool(place.ca_file), samples=tuple(taken)
        )
        for job, taken in samples.items()
        if taken
    ]
