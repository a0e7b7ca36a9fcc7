"""From a partitioned log, as Kafka is one, straight to the cloud: commit only what is done, send again after a crash.

    python examples/queue_log.py [DIRECTORY]

With LP_ACCOUNT_ID, LP_CLIENT_ID and LP_CLIENT_SECRET set it carries the log in DIRECTORY to the real cloud; otherwise
a log that it writes itself to a sandbox of its own. `FileLog` stands in for the broker: its records have offsets, and
it keeps the offset that was committed for each partition. Kill it at any time and start it again: nothing is lost,
and what is sent a second time has the request id it had the first time. `faststream_outbox.py` shows the other way,
with an outbox in between: it keeps each consumer's order also when a message has to be sent again.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from connector_async import ConnectorSession, ConversationAlreadyOpen, Outcome, OutcomeStatus, Outgoing
from connector_async.pump import Mark, Watermarks
from connector_async.sandbox import Sandbox
from connector_async.store import SqliteStore

COMMIT_EVERY = 20  # messages; also about how many come again after a crash, beside those under way
REST = 5.0  # seconds before what did not get there is read again


@dataclass(frozen=True)
class Record:
    partition: int
    offset: int
    key: str
    value: str


class FileLog:
    """A file for each partition, in which a line's number is its offset; one more file for what was committed."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._commits = directory / "committed.json"

    def append(self, key: str, value: str, *, partition: int) -> None:
        """All records of a key go to the same partition, which keeps them in order."""
        with (self._directory / f"partition-{partition}.jsonl").open("a") as file:
            file.write(json.dumps([key, value]) + "\n")

    def partitions(self) -> list[int]:
        return sorted(int(path.stem.partition("-")[2]) for path in self._directory.glob("partition-*.jsonl"))

    def read(self) -> Iterator[Record]:
        """What lies behind the committed offsets, the partitions in turn."""
        committed = self.committed()
        readers = [self._read(partition, committed.get(partition, 0)) for partition in self.partitions()]
        while readers:
            for reader in tuple(readers):
                record = next(reader, None)
                if record is None:
                    readers.remove(reader)
                else:
                    yield record

    def _read(self, partition: int, start: int) -> Iterator[Record]:
        with (self._directory / f"partition-{partition}.jsonl").open() as file:
            for offset, line in enumerate(file):
                if offset >= start:
                    yield Record(partition, offset, *json.loads(line))

    def committed(self) -> dict[int, int]:
        if not self._commits.exists():
            return {}
        return {int(partition): offset for partition, offset in json.loads(self._commits.read_text()).items()}

    def commit(self, offsets: Mapping[int, int]) -> None:
        """On disk when this returns."""
        new = self._commits.with_suffix(".new")
        with new.open("w") as file:
            json.dump(self.committed() | dict(offsets), file, sort_keys=True)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._commits)

    def set_aside(self, partition: int, offset: int, reason: str) -> None:
        """The dead letters; the log itself still has the record."""
        with (self._directory / "refused.jsonl").open("a") as file:
            file.write(json.dumps({"partition": partition, "offset": offset, "reason": reason}) + "\n")
            file.flush()
            os.fsync(file.fileno())


def request_id(partition: int, offset: int) -> str:
    """The same one whenever the record is sent, by whichever process: so the second time can be told as such."""
    return f"shop-{partition}-{offset}"


async def carry(session: ConnectorSession, log: FileLog) -> bool:
    """Send what was not committed, to the end of the log. False: some of it has to be read again."""
    marks = Watermarks()

    def source() -> Iterator[Outgoing[Mark[int]]]:
        for record in log.read():
            mark = marks.begin(record.partition, record.offset)
            sent_as = request_id(record.partition, record.offset)
            yield Outgoing(record.key, record.value, key=mark, request_id=sent_as)

    taken, complete = 0, True
    async with session.send_many(source(), concurrency=32) as outcomes:
        async for outcome in outcomes:
            if is_done(outcome, log):
                marks.done(outcome.key)
            else:
                # Undone, it holds its partition: the rest of what was read is settled, and read again with it.
                complete = False
                outcomes.stop()
            taken += 1
            if taken % COMMIT_EVERY == 0:
                log.commit(marks.committable())
    log.commit(marks.committable())
    return complete


def is_done(outcome: Outcome[Mark[int]], log: FileLog) -> bool:
    """Whether this record needs nothing more; a refusal is written down first."""
    if outcome.status is OutcomeStatus.ACCEPTED:
        return True
    if outcome.status is OutcomeStatus.REFUSED and not isinstance(outcome.error, ConversationAlreadyOpen):
        assert outcome.key is not None
        log.set_aside(outcome.key.partition, outcome.key.offset, str(outcome.error))
        return True
    # Not sent, unknown, or a conversation that the cloud keeps open for us and that we cannot name yet: later.
    print(f"{outcome.status.value}: {outcome.error}")
    return False


def write_orders(log: FileLog) -> None:
    for number in range(120):
        log.append(f"shopper-{number % 12}", f"Where is order {number}?", partition=number % 3)


async def main() -> None:
    async with AsyncExitStack() as stack:
        environ, cloud = dict(os.environ), None
        if "LP_ACCOUNT_ID" in environ:
            directory = Path(sys.argv[1])
        else:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            write_orders(FileLog(directory))
            cloud = await stack.enter_async_context(Sandbox())
            environ |= cloud.environ()
        log = FileLog(directory)
        # Conversations survive a restart there: the cloud opens no second one for a consumer.
        store = SqliteStore(directory / "conversations.db")
        stack.push_async_callback(store.aclose)
        session = await stack.enter_async_context(ConnectorSession.from_env(environ=environ, store=store))
        while not await carry(session, log):
            print(f"from {log.committed()} again in {REST:g} s")
            await asyncio.sleep(REST)
        print(f"committed {log.committed()}")
        if cloud is not None:
            counts = cloud.ledger.applied_counts("ms.PublishEvent")
            print(f"{len(counts)} messages in the cloud, {sum(n > 1 for n in counts.values())} of them twice")


if __name__ == "__main__":
    asyncio.run(main())
