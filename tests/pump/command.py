"""`connector-async pump` as a process to be killed, and the sandbox's ledger, which knows what really arrived."""

from __future__ import annotations

import json
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Any

import attrs

from connector_async.cli._audit import read_ledger
from connector_async.cli._sandbox_process import SandboxAddress, sandbox_process

__all__ = ["Job", "Ran", "Run", "SandboxAddress", "crashing", "crashing_settings", "sandbox_process", "tell"]

PATIENCE = 600.0
LOOK = 0.02
ROOT = Path(__file__).parents[2]


@attrs.frozen
class Ran:
    """How a process ended."""

    code: int
    summary: dict[str, Any] | None
    said: str


class Run:
    """One process of the pump."""

    def __init__(self, process: subprocess.Popen[str], said: IO[str]) -> None:
        self.process = process
        self.said = ""
        self._said = said

    def wait(self, seconds: float) -> bool:
        """Whether it ended within so many seconds."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def end(self) -> Ran:
        """Wait for its end."""
        out = ""
        try:
            out, _ = self.process.communicate(timeout=PATIENCE)
        finally:
            self.kill()
        assert "Traceback" not in self.said, self.said
        return Ran(self.process.returncode, json.loads(out) if out else None, self.said)

    def kill(self) -> None:
        """SIGKILL; if it has ended, only what it said is gathered."""
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        if not self._said.closed:
            self._said.seek(0)
            self.said = self._said.read()
            self._said.close()


@attrs.define(eq=False)
class Job:
    """Messages for consumers who have a conversation each, an outbox, and a sandbox in a process of its own.

    Attributes:
        folder: For the input, the results and, in SQLite, the outbox.
        outbox: Its URL.
        sandbox: Where the messages arrive.
        ids: Of all messages, by consumer, in their order.
    """

    folder: Path
    outbox: str
    sandbox: SandboxAddress
    ids: dict[str, list[str]] = attrs.field(factory=dict[str, list[str]], init=False)
    _numbered: int = attrs.field(default=0, init=False)

    @property
    def database(self) -> Path:
        """The file, where the outbox is one."""
        return Path(self.outbox.removeprefix("sqlite:///"))

    def fill(self, consumers: int, messages: int) -> None:
        """Write an input, consumers in turn; and have their conversations opened, before anybody is killed."""
        self.ids = {f"c{number}": [] for number in range(consumers)}
        hello = self._written((f"c{number}", f"c{number}-hello") for number in range(consumers))
        (self.folder / "hello").write_text(hello)
        ran = self.start("hello", "--concurrency", "64").end()
        assert ran.code == 0, ran
        (self.folder / "input").write_text(hello + self._more(messages))

    def fill_with_strangers(self, consumers: int) -> None:
        """Write an input of two messages for each, whose conversations are still to be opened."""
        self.ids = {f"c{number}": [] for number in range(consumers)}
        self._numbered = consumers
        pairs = ((f"c{number}", name) for number in range(consumers) for name in (f"c{number}-hello", f"m{number}"))
        (self.folder / "input").write_text(self._written(pairs))

    def more(self, messages: int) -> str:
        """Write another input, of further messages; its name."""
        name = f"input-{self._numbered}"
        (self.folder / name).write_text(self._more(messages))
        return name

    def _more(self, messages: int) -> str:
        numbers = range(self._numbered, self._numbered + messages)
        self._numbered += messages
        return self._written((f"c{number % len(self.ids)}", f"m{number}") for number in numbers)

    def _written(self, lines: Iterable[tuple[str, str]]) -> str:
        written: list[str] = []
        for consumer, message_id in lines:
            self.ids[consumer].append(message_id)
            written.append(json.dumps({"id": message_id, "consumer": consumer, "text": f"this is {message_id}"}))
        return "".join(f"{line}\n" for line in written)

    def start(self, name: str = "input", *options: str, results: str = "results") -> Run:
        """Start a pump."""
        address = self.sandbox
        secret = {"LP_CLIENT_ID": address.client_id, "LP_CLIENT_SECRET": address.client_secret}
        place = {"LP_ACCOUNT_ID": address.account_id, "LP_DOMAIN_API": address.domain_api, "NO_PROXY": "*"}
        files = [str(self.folder / name), "--results", str(self.folder / results)]
        command = [sys.executable, "-m", "connector_async", "pump", *files, "--outbox", self.outbox, "--resume"]
        said = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed by `kill`
        process = subprocess.Popen(
            [*command, "--json", *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            env=os.environ | place | secret,
        )
        return Run(process, said)

    def ask_sandbox(self, method: str, path: str, body: object = None) -> Any:
        """Use its admin interface."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.sandbox.url}/sandbox/{path}", data, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=PATIENCE) as answer:
            return json.load(answer)

    def arrived(self) -> int:
        """How many sends reached the sandbox so far."""
        return int(self.ask_sandbox("GET", "ledger")["calls"].get("send", 0))

    def applied(self) -> Counter[str]:
        """How often each message had its effect, once the sandbox has nothing left to do."""
        self.ask_sandbox("POST", "settle", {})
        entries, _ = read_ledger(self.sandbox.url)
        return Counter(one["request_id"] for one in entries if one["type"] == "ms.PublishEvent" and one["applied"])

    def wait_until_it_sends(self, run: Run, before: int) -> bool:
        """Wait for arrivals beyond `before`; False if the process ended first."""
        end = time.monotonic() + PATIENCE
        while self.arrived() <= before:
            if run.wait(LOOK):
                return False
            assert time.monotonic() < end, "it sends nothing"
        return True

    def is_writable(self) -> bool:
        """Whether no process is in the middle of a transaction; of a file: holds the only write lock that it has."""
        if not self.outbox.startswith("sqlite"):
            return self._is_quiet()
        database = sqlite3.connect(self.database, timeout=0.2, isolation_level=None)
        try:
            database.execute("BEGIN IMMEDIATE")
            database.execute("ROLLBACK")
        except sqlite3.OperationalError:
            return False
        finally:
            database.close()
        return True

    def _is_quiet(self) -> bool:
        import psycopg  # here, for it is an extra; whoever has such an outbox has it

        asked = "SELECT state FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        with psycopg.connect(self.outbox, autocommit=True) as database:
            # What the server is at will end by itself; what waits for a word of its client will not.
            while "active" in (states := [state for (state,) in database.execute(asked).fetchall()]):
                time.sleep(LOOK)
        return "idle in transaction" not in states

    def kill_once(self, chance: random.Random, *options: str) -> bool:
        """Start a pump and kill it 80 to 200 ms after its first message arrived; False if it was done before."""
        before = self.arrived()
        run = self.start("input", *options)
        try:
            return self.wait_until_it_sends(run, before) and not run.wait(chance.uniform(0.08, 0.2))
        finally:
            run.kill()

    def kill_often(self, kills: int, *options: str) -> None:
        """So many pumps are killed in the middle of their work, one after the other."""
        chance = random.Random(kills)
        for number in range(kills):
            assert self.kill_once(chance, *options), f"all was done after {number} kills"

    def finish(self, *options: str) -> dict[str, Any]:
        """Let a pump do what is left; its summary."""
        ran = self.start("input", *options).end()
        assert ran.code == 0, ran
        assert ran.summary is not None
        assert ran.summary["waiting"] == 0
        return ran.summary

    def results(self, *names: str) -> dict[str, dict[str, Any]]:
        """What the pumps said of each message; the last word where several spoke."""
        found: dict[str, dict[str, Any]] = {}
        for name in names or ("results",):
            for line in (self.folder / name).read_text().splitlines():
                result = json.loads(line)
                found[result["id"]] = result
        return found

    def check(self, *, results: Sequence[str] = ("results",)) -> Counter[str]:
        """Nothing lost, order kept, doubles reported; how many were doubled and how many reported."""
        entries = [one for one in read_ledger(self.sandbox.url)[0] if one["type"] == "ms.PublishEvent"]
        applied = Counter(one["request_id"] for one in entries if one["applied"])
        wanted = [message_id for ids in self.ids.values() for message_id in ids]
        told = self.results(*results)
        assert [message_id for message_id in wanted if not applied[message_id]] == []
        assert {one["status"] for one in told.values()} == {"accepted"}
        assert told.keys() == set(wanted)
        doubled = {message_id for message_id, count in applied.items() if count > 1}
        reported = {message_id for message_id, one in told.items() if one["maybe_duplicate"]}
        assert doubled <= reported
        first: defaultdict[str, list[str]] = defaultdict(list)
        for message_id in dict.fromkeys(one["request_id"] for one in entries if one["applied"]):
            first[_consumer_of(message_id, len(self.ids))].append(message_id)
        assert first == self.ids
        if self.outbox.startswith("sqlite"):
            with sqlite3.connect(self.database) as database:
                assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            database.close()
        return Counter(messages=len(wanted), doubled=len(doubled), reported=len(reported))


def tell(what: str, job: Job, **figures: int) -> None:
    """For `pytest -s`."""
    print(json.dumps({"row": what, "outbox": job.outbox.partition(":")[0], **figures}))


def crashing(
    job: Job, messages: Sequence[dict[str, str]], point: str | None, **asked: Any
) -> subprocess.CompletedProcess[str]:
    """Run `tests.pump.crashing` until it is done, or dead."""
    return subprocess.run(
        [sys.executable, "-m", "tests.pump.crashing"],
        input=json.dumps({**crashing_settings(job), "messages": messages, "point": point, **asked}) + "\n",
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        cwd=ROOT,
    )


def crashing_settings(job: Job) -> dict[str, Any]:
    """What such a process has to know."""
    address = job.sandbox
    return {
        "outbox": job.outbox,
        "account_id": address.account_id,
        "client_id": address.client_id,
        "client_secret": address.client_secret,
        "domain_api": address.domain_api,
    }


def _consumer_of(message_id: str, consumers: int) -> str:
    return message_id.removesuffix("-hello") if message_id.startswith("c") else f"c{int(message_id[1:]) % consumers}"
