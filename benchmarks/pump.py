"""`pump`: messages through an outbox beside the bare session, and how many commits a second the outbox makes.

Each measurement has a process of its own (`python -m benchmarks.pump`), which takes one JSON line and gives one back.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from statistics import median
from typing import Any

import orjson

from benchmarks.client import failure
from benchmarks.harness import Place, RivalFailed, Server, _Process, progress
from benchmarks.job import Job
from benchmarks.options import numbers
from benchmarks.report import Result, table
from benchmarks.targets import judge

ENGINES = ("memory", "sqlite", "postgres")
SHARE = 0.5
"""Of the bare session's rate that the pump on SQLite has to reach."""
TEXT = "Is my order on its way?"
BATCH = 50

Facts = dict[str, Any]


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `pump`."""
    parser.add_argument("--messages", type=int, default=5_000, metavar="N")
    parser.add_argument("--consumers", type=int, default=500, metavar="N")
    parser.add_argument("--in-flight", type=int, default=256, metavar="N")
    parser.add_argument("--rounds", type=int, default=2, metavar="N")
    parser.add_argument("--engines", type=_engines, help="names with commas between (default: all that can run)")
    parser.add_argument("--postgres", metavar="DSN", help="a database for the engine postgres; its schema is new")
    parser.add_argument("--seconds", type=float, default=1.0, metavar="S", help="for each way of committing")
    parser.add_argument("--processes", type=numbers, default=(1,), help="pumps on one durable outbox")


def _engines(text: str) -> list[str]:
    given = text.split(",")
    for name in given:
        if name not in ENGINES:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(ENGINES)}")
    return given


def run(options: argparse.Namespace) -> Result:
    """Measure and judge."""
    engines = options.engines or [name for name in ENGINES if name != "postgres" or options.postgres]
    problems: list[str] = []
    if "postgres" in engines and not options.postgres:
        engines = [name for name in engines if name != "postgres"]
        problems.append("postgres: needs --postgres DSN")
    with Server(tls=False) as server, tempfile.TemporaryDirectory(prefix="benchmarks-") as folder:
        cases = _Cases(options, server.place, Path(folder), problems)
        rows, commits = cases.measure(engines), cases.commits(engines)
    bare = next((row for row in rows if row["what"] == "session"), None)
    for row in rows:
        row["ratio"] = row["rate"] / bare["rate"] if bare else None
    sqlite = next((row for row in rows if (row["engine"], row["processes"]) == ("sqlite", 1)), None)
    return {
        "title": f"pump: {options.messages:,} messages for {options.consumers:,} consumers",
        "tables": [_rates(rows), _commits(commits)],
        "rows": [*rows, *commits],
        "targets": [
            judge("pump on SQLite / session", sqlite["ratio"] if sqlite else None, SHARE, at_least=True),
        ],
        "problems": problems,
        "settings": {name: getattr(options, name) for name in ("messages", "consumers", "in_flight", "rounds")},
    }


def _rates(rows: list[Facts]) -> str:
    head = ("what", "engine", "processes", "put/s", "send + settle/s", "all/s", "all / session", "least share")
    shown = []
    for row in rows:
        put, sent = row.get("put_rate"), row["send_rate"]
        cells = "-" if put is None else f"{put:,.0f}", f"{sent:,.0f}", f"{row['rate']:,.0f}", f"{row['ratio']:.2f}"
        share = "-" if put is None else f"{row['least_share']:.0%}"
        shown.append((row["what"], row["engine"] or "-", row["processes"], *cells, share))
    return table(head, shown)


def _commits(rows: list[Facts]) -> str:
    head = ("messages put", "one at a time/s", f"{BATCH} at a time/s", f"one by each of {BATCH} tasks/s")
    names = ("single", "batched", "grouped")
    return table(head, [(row["engine"], *(f"{row[name]:,.0f}" for name in names)) for row in rows])


class _Cases:
    """All measurements, each in a process of its own, in turn round after round."""

    def __init__(self, options: argparse.Namespace, place: Place, folder: Path, problems: list[str]) -> None:
        self._options = options
        self._place = place
        self._folder = folder
        self._problems = problems
        self._outboxes = 0

    def measure(self, engines: list[str]) -> list[Facts]:
        """The rates: the median round of each case."""
        cases = [("session", "", 1)]
        for engine in engines:
            several = self._options.processes if engine != "memory" else (1,)
            cases += [("pump", engine, count) for count in several]
        taken: dict[tuple[str, str, int], list[Facts]] = {case: [] for case in cases}
        for number in range(self._options.rounds):
            for case in cases:
                progress(f"round {number + 1}/{self._options.rounds}: {' '.join(map(str, case))}")
                try:
                    taken[case].append(self._one(*case))
                except RivalFailed as failed:
                    self._problems.append(f"{' '.join(map(str, case))}: {failed}")
        rows = []
        for (what, engine, processes), facts in taken.items():
            if facts:
                middle = {name: median(one[name] for one in facts) for name in facts[0]}
                rows.append({"what": what, "engine": engine, "processes": processes, **middle})
        return rows

    def commits(self, engines: list[str]) -> list[Facts]:
        """How many messages an outbox takes in a second."""
        rows = []
        for engine in engines:
            progress(f"commits: {engine}")
            with _Process("benchmarks.pump") as process:
                process.tell(self._asked("commits", engine, self._outbox(engine)))
                rows.append({"what": "commits", "engine": engine, **process.hear()})
        return rows

    def _one(self, what: str, engine: str, processes: int) -> Facts:
        messages = self._options.messages
        outbox = self._outbox(engine)
        with ExitStack() as stack:
            pumps = [stack.enter_context(_Process("benchmarks.pump")) for _ in range(processes)]
            for pump in pumps:
                pump.tell(self._asked(what, engine, outbox, processes))
            for pump in pumps:
                pump.hear()  # warm: conversations are open, tokens fetched
            if what == "session":
                pumps[0].tell({})
                seconds = float(pumps[0].hear()["seconds"])
                return {"send_rate": messages / seconds, "rate": messages / seconds}
            pumps[0].tell({"put": messages})
            putting = float(pumps[0].hear()["seconds"])
            begin = time.perf_counter()
            for pump in pumps:
                pump.tell({})
            shares = [int(pump.hear()["accepted"]) for pump in pumps]
            seconds = time.perf_counter() - begin
        if sum(shares) != messages:
            raise RivalFailed(f"{sum(shares):,} of {messages:,} messages were accepted")
        return {
            "put_rate": messages / putting,
            "send_rate": messages / seconds,
            "rate": messages / (putting + seconds),
            "least_share": min(shares) / messages,
        }

    def _outbox(self, engine: str) -> str:
        self._outboxes += 1
        return str(self._folder / f"{self._outboxes}.db") if engine == "sqlite" else f"bench_{time.time_ns()}"

    def _asked(self, what: str, engine: str, outbox: str, processes: int = 1) -> Facts:
        # A pump keeps its lanes until they are empty: two that have them all would leave none to the others.
        lanes_each = max(1, self._options.consumers // processes)
        return {
            "what": what,
            "engine": engine,
            "outbox": outbox,
            "dsn": self._options.postgres,
            "base": self._place.base,
            "control": self._place.control,
            "consumers": self._options.consumers,
            "messages": self._options.messages,
            "in_flight": min(self._options.in_flight, lanes_each),
            "seconds": self._options.seconds,
        }


# In the process that is measured


@asynccontextmanager
async def _open(asked: Facts) -> AsyncIterator[Any]:
    """The store of a case."""
    from connector_async.store import MemoryStore, SqliteStore

    if asked["engine"] in ("", "memory"):
        yield MemoryStore(max_entries=10 * (asked["messages"] + asked["consumers"]) + 1_000_000)
        return
    store: Any
    if asked["engine"] == "sqlite":
        store = SqliteStore(asked["outbox"])
    else:
        from connector_async.store.postgres import PostgresStore

        store = PostgresStore(asked["dsn"], schema=asked["outbox"])
    try:
        yield store
    finally:
        await store.aclose()


def _say(facts: Facts) -> None:
    print(orjson.dumps(facts).decode(), flush=True)


async def _hear() -> Facts:
    line = await asyncio.to_thread(sys.stdin.readline)
    return dict(orjson.loads(line))


def _names(asked: Facts, count: int) -> Iterator[str]:
    return (f"consumer-{number % asked['consumers']}" for number in range(count))


async def _send(asked: Facts) -> None:
    """The bare session, or a pump: warm up, then what is asked for."""
    from benchmarks.rivals.session import open_session
    from connector_async import MemoryStore, SessionLimits
    from connector_async.session import Outgoing

    job = Job(rival="session", base=asked["base"], control=asked["control"], in_flight=asked["in_flight"])
    room = asked["messages"] + asked["consumers"]
    limits = SessionLimits(max_in_flight=asked["in_flight"], max_queue=room)

    async def send_all(count: int) -> None:
        async with session.send_many(Outgoing(name, TEXT) for name in _names(asked, count)) as outcomes:
            async for outcome in outcomes:
                if outcome.result is None:
                    raise RuntimeError("a message was not accepted") from outcome.error

    # The session's own store is in memory in every case: what is compared is the outbox.
    async with open_session(job, limits, MemoryStore(max_entries=room)) as session:
        await send_all(asked["consumers"])
        _say({"warm": True})
        if asked["what"] == "pump":
            await _pump(asked, session)
            return
        await _hear()
        begin = time.perf_counter()
        await send_all(asked["messages"])
        _say({"seconds": time.perf_counter() - begin})


async def _pump(asked: Facts, session: Any) -> None:
    from connector_async.pump import Pump, PumpMessage

    async with _open(asked) as store:
        order = await _hear()
        if order:
            pump = Pump(session, store)
            messages = [PumpMessage(f"m{n}", name, TEXT) for n, name in enumerate(_names(asked, order["put"]))]
            begin = time.perf_counter()
            for at in range(0, len(messages), 500):
                await pump.put(*messages[at : at + 500])
            _say({"seconds": time.perf_counter() - begin})
            await _hear()
        async with Pump(session, store, concurrency=asked["in_flight"]) as pump:
            await pump.drained()
            _say({"accepted": pump.stats.accepted})


async def _commit(asked: Facts) -> None:
    """Messages into the outbox: alone, in batches, and by many tasks at once (group commit)."""
    from connector_async.pump import PumpMessage
    from connector_async.pump._messages import to_outbox

    async with _open(asked) as store:
        numbers = iter(range(10**9))

        async def put(count: int) -> int:
            made = [
                PumpMessage(f"m{n}", f"consumer-{n % asked['consumers']}", TEXT)
                for _, n in zip(range(count), numbers, strict=False)
            ]
            await store.outbox.put("12345678", [to_outbox(one) for one in made])
            return count

        async def rate(size: int, tasks: int) -> float:
            begin = time.perf_counter()

            async def work() -> int:
                done = 0
                while time.perf_counter() - begin < asked["seconds"]:
                    done += await put(size)
                return done

            done = sum(await asyncio.gather(*(work() for _ in range(tasks))))
            return done / (time.perf_counter() - begin)

        await put(1)
        _say({"single": await rate(1, 1), "batched": await rate(BATCH, 1), "grouped": await rate(1, BATCH)})


def main() -> None:
    """Do what the line on standard input asks for."""
    asked = orjson.loads(sys.stdin.readline())
    work: Callable[[Facts], Any] = _commit if asked["what"] == "commits" else _send
    try:
        asyncio.run(work(asked))
    except Exception as error:
        _say(dict(failure(error)))


if __name__ == "__main__":
    main()
