"""`consumers`: a whole channel's consumers behind a cache that holds few of them; what each message costs the others.

Every consumer has a conversation and a token in the store before it begins. One process fills the store, one runs
the session for each way of drawing consumers (`python -m benchmarks.consumers`): JSON lines in and out, as in `pump`.
"""

from __future__ import annotations

import argparse
import asyncio
import sqlite3
import sys
import tempfile
import time
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, closing
from itertools import islice
from pathlib import Path
from random import Random
from statistics import linear_regression
from typing import Any

import orjson

from benchmarks.client import control, cpu, failure
from benchmarks.harness import Place, RivalFailed, Server, _Process, progress
from benchmarks.job import Job
from benchmarks.machine import rss
from benchmarks.report import Result, table
from benchmarks.targets import Verdict, judge

TEXT = "Is my order on its way?"
ACCOUNT = "12345678"
LOOK = 0.25
"""Seconds between two looks at the memory."""
BATCH = 100_000
REMEMBERED = 20_000
"""Ids of finished requests that a session holds at most, to know a late answer: they fill up like the cache."""
SPREAD = 2_147_483_647
"""A prime: the most talkative consumers lie all over the store."""
DRAWS = ("uniform", "skewed")
READS = ("get_contact", "get_consumer", "get_conversation", "get_open_conversation", "find_consumer")
GROWTH = 2.0
"""MiB of memory that 100,000 messages may add once the cache is full."""

Facts = dict[str, Any]
Batch = tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `consumers`; the defaults take about a minute, the issue's figures a quarter of an hour."""
    parser.add_argument("--consumers", type=int, default=200_000, metavar="N", help="in the store (issue: 5000000)")
    parser.add_argument("--cache", type=int, default=8_000, metavar="N", help="max_cached_consumers (issue: 200000)")
    parser.add_argument("--rate", type=float, default=2_000.0, metavar="N", help="messages per second")
    parser.add_argument("--seconds", type=float, default=30.0, help="for each way of drawing consumers (issue: 300)")
    parser.add_argument("--draws", type=_draws, default=DRAWS, help="names with commas between (default: both)")
    parser.add_argument("--in-flight", type=int, default=256, metavar="N")
    parser.add_argument("--engine", choices=("sqlite", "postgres"), default="sqlite")
    parser.add_argument("--postgres", metavar="DSN", help="a database for the engine postgres; its schema is new")
    parser.add_argument("--key", help="tokens are encrypted in the store with it; as they are without")
    parser.add_argument("--store", type=Path, metavar="FILE", help="filled if it is not there, and kept (sqlite)")


def _draws(text: str) -> list[str]:
    given = text.split(",")
    for name in given:
        if name not in DRAWS:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(DRAWS)}")
    return given


def run(options: argparse.Namespace) -> Result:
    """Fill the store, then draw consumers in each way."""
    if options.engine == "postgres" and not options.postgres:
        raise RivalFailed("the engine postgres needs --postgres DSN")
    problems: list[str] = []
    with Server(tls=False) as server, tempfile.TemporaryDirectory(prefix="benchmarks-") as folder:
        place = options.store or Path(folder) / "store.db"
        asked = _asked(options, server.place, place)
        filled = _in_a_process({**asked, "what": "fill"}) if not (options.store and place.exists()) else {}
        rows: list[Facts] = []
        for draw in options.draws:
            progress(f"{draw}: {options.seconds:g} s at {options.rate:,g} messages/s")
            try:
                facts = _in_a_process({**asked, "what": "run", "draw": draw})
                missed = _misses(asked, draw, facts["messages"])
                rows.append({"draw": draw, "missed": missed, **facts})
            except RivalFailed as failed:
                problems.append(f"{draw}: {failed}")
        size = place.stat().st_size if options.engine == "sqlite" else None
        if options.engine == "postgres":
            size = _in_a_process({**asked, "what": "drop"})["bytes"]
    kept = {"bytes": size, "bytes_per_consumer": size and size / options.consumers, **filled}
    return {
        "title": (
            f"consumers: {options.consumers:,} in {options.engine}, {options.cache:,} cached, "
            f"{options.rate:,g} messages/s"
        ),
        "tables": [_table(rows), _store(kept)],
        "rows": [*rows, {"draw": None, **kept}],
        "targets": [verdict for row in rows for verdict in _judge(row)],
        "problems": problems,
        "settings": {name: getattr(options, name) for name in ("consumers", "cache", "rate", "seconds", "engine")},
    }


def _asked(options: argparse.Namespace, place: Place, store: Path) -> Facts:
    names = ("consumers", "cache", "rate", "seconds", "in_flight", "engine", "key")
    asked = {name: getattr(options, name) for name in names}
    schema = f"bench_{time.time_ns()}"
    address = {"base": place.base, "control": place.control}
    return {**asked, **address, "path": str(store), "dsn": options.postgres, "schema": schema}


def _in_a_process(asked: Facts) -> Facts:
    with _Process("benchmarks.consumers") as process:
        process.tell(asked)
        return process.hear()


def _judge(row: Facts) -> list[Verdict]:
    draw = row["draw"]
    return [
        judge(f"{draw}: IDP calls, and conversations opened", row["idp_calls"] + row["opened"], 0),
        judge(f"{draw}: store reads / message not cached", sum(row["reads"].values()) / row["missed"], 1.0),
        judge(f"{draw}: memory for 100,000 messages with a full cache", row["growth"], GROWTH, unit="MiB"),
    ]


def _table(rows: list[Facts]) -> str:
    head = (
        *("consumers drawn", "messages/s", "distinct", "cached", "reads/msg", "reads/miss", "IDP/msg"),
        *("CPU us/msg", "RSS MiB: start", "cache full", "end", "MiB/100,000 msg"),
    )
    lines = []
    for row in rows:
        full = "-" if row["full"] is None else f"{row['full'] / 2**20:.1f}"
        growth = "-" if row["growth"] is None else f"{row['growth']:+.2f}"
        lines.append(
            (
                row["draw"],
                f"{row['rate']:,.0f}",
                f"{row['distinct']:,}",
                f"{1 - row['missed'] / row['messages']:.1%}",
                f"{sum(row['reads'].values()) / row['messages']:.3f}",
                f"{sum(row['reads'].values()) / row['missed']:.3f}",
                f"{row['idp_calls'] / row['messages']:.4f}",
                f"{row['cpu_us']:.0f}",
                f"{row['start'] / 2**20:.1f}",
                full,
                f"{row['end'] / 2**20:.1f}",
                growth,
            )
        )
    return table(head, lines)


def _store(facts: Facts) -> str:
    head = "store, MiB", "bytes/consumer", "filled, consumers/s"
    filled = f"{facts['fill_rate']:,.0f}" if "fill_rate" in facts else "-"
    return table(head, [(f"{facts['bytes'] / 2**20:,.0f}", f"{facts['bytes_per_consumer']:,.0f}", filled)])


def _misses(asked: Facts, draw: str, messages: int) -> int:
    """How many of the messages drawn are for consumers whom a cache of the least recently used does not hold."""
    cached: OrderedDict[int, None] = OrderedDict()
    missed = 0
    for number in islice(_drawn(draw, asked["consumers"]), messages):
        if number in cached:
            cached.move_to_end(number)
            continue
        missed += 1
        cached[number] = None
        if len(cached) > asked["cache"]:
            cached.popitem(last=False)
    return missed


def _drawn(draw: str, consumers: int) -> Iterator[int]:
    """Consumers, each as likely as the next; or the k-th most talkative with a chance of 1/k (Zipf)."""
    chance = Random(1).random
    while True:
        rank = int(consumers * chance()) if draw == "uniform" else int(consumers ** chance()) - 1
        yield rank * SPREAD % consumers


# In the processes that fill and send


def _name(asked: Facts, number: int) -> str:
    # In their order the ids grow, so that the store is filled quickly; they are not drawn in it.
    return f"{number * (2**64 // asked['consumers']):016x}@sms.example"


def _batches(asked: Facts) -> Iterator[Batch]:
    """Consumers and their conversations, as the tables hold them."""
    from benchmarks.rivals import payload
    from connector_async.store._token_records import sealed
    from connector_async.store.base import ConsumerRecord

    seal = _seal(asked)
    for start in range(0, asked["consumers"], BATCH):
        consumers, conversations = [], []
        for number in range(start, min(start + BATCH, asked["consumers"])):
            name = _name(asked, number)
            one = ConsumerRecord(
                account_id=ACCOUNT,
                ext_consumer_id=name,
                lp_consumer_id=f"{number:064x}",
                token=payload.consumer_token(number),
            )
            consumers.append((ACCOUNT, name, one.lp_consumer_id, sealed(seal, one).token))
            conversations.append((ACCOUNT, payload.conversation_id(number), name, 1.0, False))
        if start:
            progress(f"filled: {start:,}")
        yield consumers, conversations


_TABLES = (
    ("consumers", ("account_id", "ext_consumer_id", "lp_consumer_id", "token")),
    ("conversations", ("account_id", "conversation_id", "ext_consumer_id", "opened_at", "is_closed")),
)


async def _fill(asked: Facts) -> Facts:
    """Straight into the tables: as a company does that moves its consumers from elsewhere."""
    begin = time.perf_counter()
    async with _open(asked, Counter()) as store:
        await store.get_consumer(ACCOUNT, "nobody")  # makes the tables
    write = _copy if asked["engine"] == "postgres" else _insert
    write(asked, _batches(asked))
    return {"fill_rate": asked["consumers"] / (time.perf_counter() - begin)}


def _insert(asked: Facts, batches: Iterable[Batch]) -> None:
    with closing(sqlite3.connect(asked["path"])) as db:
        for batch in batches:
            for (name, columns), rows in zip(_TABLES, batch, strict=True):
                marks = ", ".join("?" * len(columns))
                db.executemany(f"INSERT INTO {name} ({', '.join(columns)}) VALUES ({marks})", rows)
            db.commit()


def _copy(asked: Facts, batches: Iterable[Batch]) -> None:
    with _connect(asked) as db:
        for batch in batches:
            for (name, columns), rows in zip(_TABLES, batch, strict=True):
                with db.cursor() as cursor, cursor.copy(f"COPY {name} ({', '.join(columns)}) FROM STDIN") as into:
                    for row in rows:
                        into.write_row(row)
            db.commit()
        db.execute("ANALYZE")


async def _drop(asked: Facts) -> Facts:
    """What the tables in PostgreSQL take up; then they are gone."""
    with _connect(asked) as db:
        (size,) = db.execute(
            "SELECT sum(pg_total_relation_size(oid)) FROM pg_class"
            " WHERE relkind = 'r' AND relnamespace = to_regnamespace(current_schema())"
        ).fetchone()
        db.execute(f"DROP SCHEMA {asked['schema']} CASCADE")
    return {"bytes": int(size)}


def _connect(asked: Facts) -> Any:
    import psycopg

    return psycopg.connect(asked["dsn"], options=f"-c search_path={asked['schema']}")


@asynccontextmanager
async def _open(asked: Facts, calls: Counter[str]) -> AsyncIterator[Any]:
    """The store, its look-ups counted in `calls`."""
    from connector_async.store import SqliteStore

    room, tokens = 2 * asked["consumers"] + BATCH, _seal(asked)
    store: Any
    if asked["engine"] == "sqlite":
        store = _counted(SqliteStore, calls)(asked["path"], tokens=tokens, max_entries=room)
    else:
        from connector_async.store.postgres import PostgresStore

        store = _counted(PostgresStore, calls)(asked["dsn"], schema=asked["schema"], tokens=tokens, max_entries=room)
    try:
        yield store
    finally:
        await store.aclose()


def _seal(asked: Facts) -> Any:
    from connector_async.store.tokens import PlaintextTokens, SealedTokens

    return SealedTokens(asked["key"]) if asked["key"] else PlaintextTokens()


def _counted(kind: Any, calls: Counter[str]) -> Any:
    """A kind of store whose look-ups are counted."""

    def count(name: str) -> Any:
        async def look_up(store: Any, *what: Any) -> Any:
            calls[name] += 1
            return await getattr(kind, name)(store, *what)

        return look_up

    return type(f"Counted{kind.__name__}", (kind,), {name: count(name) for name in READS})


class _Watch:
    """How many messages were drawn for how many consumers, and the memory meanwhile."""

    def __init__(self, asked: Facts) -> None:
        self._asked = asked
        self._seen = bytearray(asked["consumers"])
        self.drawn = self.distinct = 0
        self.samples: list[tuple[int, int, int]] = []

    def messages(self) -> Iterator[Any]:
        """Until the time is over."""
        from connector_async.session import Outgoing

        end = time.monotonic() + self._asked["seconds"]
        for number in _drawn(self._asked["draw"], self._asked["consumers"]):
            if time.monotonic() > end:
                return
            self.drawn += 1
            self.distinct += not self._seen[number]
            self._seen[number] = 1
            yield Outgoing(_name(self._asked, number), TEXT)

    async def look(self) -> None:
        """Until cancelled."""
        while True:
            self.samples.append((self.drawn, self.distinct, rss()))
            await asyncio.sleep(LOOK)

    def memory(self) -> Facts:
        """At the start, when the cache was full, at the end, and what more messages added from then on, in MiB.

        Half as many again as it holds: a dictionary in which one goes and one comes grows once more.
        """
        full = [
            (drawn, size)
            for drawn, distinct, size in self.samples
            if distinct > 1.5 * self._asked["cache"] and drawn > 1.5 * REMEMBERED
        ]
        growth = None
        if len(full) > 10:
            growth = linear_regression(*zip(*full, strict=True)).slope * 100_000 / 2**20
        return {
            "start": self.samples[0][2],
            "full": full[0][1] if full else None,
            "end": self.samples[-1][2],
            "growth": growth,
        }


async def _run(asked: Facts) -> Facts:
    from benchmarks.rivals.session import open_session
    from connector_async import SessionLimits

    in_flight, watch = asked["in_flight"], _Watch(asked)
    job = Job(rival="session", base=asked["base"], control=asked["control"], in_flight=in_flight)
    limits = SessionLimits(max_in_flight=in_flight, rate=asked["rate"], max_cached_consumers=asked["cache"])
    refused: Counter[str] = Counter()
    reads: Counter[str] = Counter()
    before = control(job.control)
    async with (
        _open(asked, reads) as store,
        open_session(job, limits, store) as session,
        asyncio.TaskGroup() as group,
    ):
        looking = group.create_task(watch.look())
        begin, cpu_before = time.perf_counter(), cpu()
        async with session.send_many(watch.messages(), concurrency=2 * in_flight) as outcomes:
            async for outcome in outcomes:
                if outcome.result is None:
                    refused[type(outcome.error).__name__] += 1
        seconds, spent = time.perf_counter() - begin, cpu() - cpu_before
        looking.cancel()
    if refused:
        raise RuntimeError(f"not accepted: {dict(refused)}")
    after = control(job.control)
    return {
        "messages": watch.drawn,
        "distinct": watch.distinct,
        "rate": watch.drawn / seconds,
        "cpu_us": spent / watch.drawn * 1e6,
        "reads": reads,
        "idp_calls": after["consumers"] - before["consumers"],
        "opened": after["conversations"] - before["conversations"],
        **watch.memory(),
    }


def main() -> None:
    """Do what the line on standard input asks for."""
    asked = orjson.loads(sys.stdin.readline())
    work: dict[str, Callable[[Facts], Awaitable[Facts]]] = {"fill": _fill, "run": _run, "drop": _drop}

    async def answer() -> Facts:
        return await work[asked["what"]](asked)

    try:
        facts = asyncio.run(answer())
    except Exception as error:
        facts = dict(failure(error))
    print(orjson.dumps(facts).decode(), flush=True)


if __name__ == "__main__":
    main()
