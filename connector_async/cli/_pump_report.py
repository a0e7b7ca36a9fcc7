"""What `connector-async pump` leaves behind: its summary, the file of results and the file of dead letters."""

from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path
from typing import IO, Any, BinaryIO, Self

import anyio
import attrs
import orjson

from connector_async.cli._console import CommandFailed, WrongUse, emit, print_table
from connector_async.store.outbox import Claim, MessageState, Outbox, OutboxCounts, OutboxEntry, Settlement

if sys.platform != "win32":
    import fcntl

__all__ = ["Results", "Summary", "write_dead_letters"]

_DEAD = (MessageState.REFUSED, MessageState.NOT_SENT, MessageState.UNKNOWN)
_PAGE = 500
_PATIENCE = 5.0  # seconds for another process that writes its dead letters
_LOOK = 0.05  # seconds


@attrs.frozen(kw_only=True)
class Summary:
    """How it went.

    Attributes:
        counts: How many messages ended how: those of this run, or of the whole outbox where it goes on with an
            earlier run.
        sent: Messages that this run had accepted.
        retried: How often it put one off.
        lease_lost: Ends that it could not write down because another pump had the lane by then.
        known: Lines whose message the outbox had already.
        durable: Whether what waits is still there.
        stopped_by: The signal that ended it early.
        failure: Why the input ended early; None if it did not.
    """

    counts: OutboxCounts
    sent: int
    retried: int
    lease_lost: int
    known: int
    bad_lines: int
    seconds: float
    durable: bool
    stopped_by: str | None = None
    failure: str | None = None

    @property
    def rate(self) -> float:
        return self.sent / self.seconds if self.seconds else 0.0

    @property
    def is_success(self) -> bool:
        """Whether the whole input was accepted."""
        counts = self.counts
        failed = counts.refused + counts.not_sent + counts.unknown + counts.unsettled + self.bad_lines
        return not failed and self.stopped_by is None and self.failure is None

    def as_json(self) -> dict[str, Any]:
        counts = self.counts
        return {
            "accepted": counts.accepted,
            "refused": counts.refused,
            "not_sent": counts.not_sent,
            "unknown": counts.unknown,
            "maybe_duplicate": counts.maybe_duplicate,
            "waiting": counts.unsettled,
            "already_known": self.known,
            "bad_lines": self.bad_lines,
            "retried": self.retried,
            "lease_lost": self.lease_lost,
            "seconds": round(self.seconds, 3),
            "messages_per_second": round(self.rate, 1),
            "oldest_age": None if counts.oldest_age is None else round(counts.oldest_age, 3),
            "stopped_by": self.stopped_by,
        }

    def print(self, *, as_json: bool) -> None:
        """On standard output."""
        if as_json:
            emit(self.as_json())
            return
        counts = self.counts
        rows = [
            ("accepted", f"{counts.accepted:,}"),
            ("refused", f"{counts.refused:,}"),
            ("not sent", f"{counts.not_sent:,}"),
            ("unknown", f"{counts.unknown:,}"),
            ("may be there twice", f"{counts.maybe_duplicate:,}"),
            ("waiting", f"{counts.unsettled:,}"),
            ("known before", f"{self.known:,}"),
            ("bad lines", f"{self.bad_lines:,}"),
            ("put off and sent again", f"{self.retried:,}"),
            ("time", f"{self.seconds:.2f} s"),
            ("messages per second", f"{self.rate:,.0f}"),
        ]
        print_table("what became of the messages", rows)

    def complaints(self) -> list[str]:
        """Why it is no success, and what can be done."""
        counts, said = self.counts, [] if self.failure is None else [self.failure]
        if counts.unsettled and self.durable:
            by = f"stopped by {self.stopped_by}: " if self.stopped_by else ""
            said.append(f"{by}{counts.unsettled:,} messages are left in the outbox; --resume goes on with them")
        elif counts.unsettled:
            said.append(f"{counts.unsettled:,} messages were not sent and are gone: the outbox was in memory")
        elif self.stopped_by:
            said.append(f"stopped by {self.stopped_by}: nothing is left in the outbox")
        dead = counts.refused + counts.not_sent + counts.unknown
        if dead:
            said.append(
                f"{dead:,} messages were not accepted; --dead-letters FILE has each with its reason, "
                "and as INPUT it sends them again"
            )
        if self.bad_lines:
            said.append(f"{self.bad_lines:,} lines of the input are no messages")
        return said


@attrs.define(eq=False)
class Results:
    """The file with one JSON line for each message whose end is known.

    A run that goes on appends; ends that an earlier run wrote down in its outbox, but not here before it was killed,
    are made up for when their line of the input is read again (`add_entry`). One process at a time: half lines of two
    would stand in each other.
    """

    path: Path
    resume: bool
    _told: set[str] = attrs.field(factory=set[str], init=False)
    _file: BinaryIO = attrs.field(init=False)

    def __enter__(self) -> Self:
        try:
            self._file = self.path.open("ab")
            try:
                self._begin()
            except BaseException:
                self._file.close()
                raise
        except OSError as error:
            raise CommandFailed(f"cannot write {self.path}: {error.strerror}") from error
        return self

    def _begin(self) -> None:
        if not _is_ours(self._file):
            raise WrongUse(f"another process is writing to {self.path}: name another file")
        if _can_be_cut(self._file):
            self._file.truncate(self._read_earlier() if self.resume else 0)  # with half a line behind them

    def __exit__(self, *_error: object) -> None:
        self._file.close()

    def __contains__(self, message_id: str) -> bool:
        return message_id in self._told

    def add(self, claim: Claim, settlement: Settlement) -> None:
        """An end that has just been written down."""
        self._write(claim.message.id, settlement)

    def add_entry(self, entry: OutboxEntry) -> None:
        """An end that was known before."""
        self._write(entry.message.id, entry)

    def expect_another(self, message_id: str) -> None:
        """It is sent again: its last line is what counts."""
        self._told.discard(message_id)

    def flush(self) -> None:
        """Have all of it in the file."""
        self._file.flush()

    def _write(self, message_id: str, end: Settlement | OutboxEntry) -> None:
        if not end.state.is_final or message_id in self._told:
            return
        self._told.add(message_id)
        self._file.write(orjson.dumps({"id": message_id, **_outcome(end)}) + b"\n")

    def _read_earlier(self) -> int:
        """How many bytes of the file are whole lines, whose ids are known from now on."""
        whole = 0
        with self.path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                try:
                    self._told.add(orjson.loads(line)["id"])
                except (ValueError, TypeError, KeyError) as error:
                    raise WrongUse(f"{self.path} is no file of results; name another file") from error
                whole += len(line)
        return whole


def _outcome(end: Settlement | OutboxEntry) -> dict[str, Any]:
    return {
        "status": end.state.value,
        "sequence": end.sequence,
        "attempts": end.attempts,
        "maybe_duplicate": end.maybe_duplicate,
        "reason": end.reason,
        "conversation_id": end.conversation_id,
    }


async def write_dead_letters(path: Path, outbox: Outbox, account_id: str) -> int:
    """Write all messages of the outbox that were given up, each a line that can be an input again; how many.

    Raises:
        CommandFailed: The file cannot be written.
    """
    total = after = 0
    try:
        with path.open("a", encoding="utf-8") as file:
            with anyio.move_on_after(_PATIENCE) as waiting:
                while not _is_ours(file):  # noqa: ASYNC110 - another process tells nobody
                    await anyio.sleep(_LOOK)
            if waiting.cancelled_caught:
                raise CommandFailed(f"cannot write {path}: another process is writing to it")
            if _can_be_cut(file):
                file.truncate(0)
            while page := await outbox.exceptions(account_id, after=after, limit=_PAGE):
                dead = [_dead_letter(entry) for _, entry in page if entry.state in _DEAD]
                file.writelines(f"{json.dumps(letter)}\n" for letter in dead)
                total, after = total + len(dead), page[-1][0]
    except OSError as error:
        raise CommandFailed(f"cannot write {path}: {error.strerror}") from error
    return total


def _is_ours(file: IO[Any]) -> bool:
    """Whether this process alone writes the file, until it is closed; as far as the system can tell."""
    if sys.platform != "win32" and _can_be_cut(file):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            return True  # a file system without such locks
    return True


def _can_be_cut(file: IO[Any]) -> bool:
    """Whether it is no pipe or device."""
    return stat.S_ISREG(os.fstat(file.fileno()).st_mode)


def _dead_letter(entry: OutboxEntry) -> dict[str, Any]:
    message = entry.message
    letter: dict[str, Any] = {"id": message.id, "consumer": message.consumer, "body": json.loads(message.body)}
    if message.opening is not None:
        letter |= _opening(json.loads(message.opening))
    return {**letter, "outcome": _outcome(entry)}


def _opening(kept: dict[str, Any]) -> dict[str, Any]:
    """The fields of an input line that say how to open a conversation."""
    asked: dict[str, Any] = kept.get("conversation") or {}
    fields = {
        "profile": kept.get("profile"),
        "skill_id": asked.get("skillId"),
        "campaign": asked.get("campaignInfo"),
        "context": asked.get("conversationContext"),
        "ttr": asked.get("ttrDefName"),
    }
    return {name: value for name, value in fields.items() if value is not None}
