"""The examples that take messages from a queue lose nothing when they are killed."""

from __future__ import annotations

import json
import os
import runpy
import signal
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import nats
import pytest
from faststream.exceptions import NackMessage
from nats.js import JetStreamContext

from connector_async import RetryPolicy
from connector_async.errors import StoreUnavailable
from connector_async.sandbox import Sandbox
from connector_async.store.outbox import PutResult
from tests.nats_server import nats_server

EXAMPLES = Path(__file__).parent.parent / "examples"

pytestmark = pytest.mark.anyio


def load(name: str) -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name=name)


def heard(cloud: Sandbox) -> int:
    """How many messages have had their effect, repetitions included."""
    return cloud.ledger.applied_counts("ms.PublishEvent").total()


def arrived(cloud: Sandbox) -> set[str]:
    """The ids of all requests that came, the one that is being looked at included."""
    return {entry.request_id for entry in cloud.ledger.entries}


def speakers(cloud: Sandbox) -> int:
    """How many consumers were heard: from then on their conversations are known to whoever comes after."""
    return len({entry.consumer for entry in cloud.ledger.entries if entry.type == "ms.PublishEvent"})


class SignalAt:
    """A signal for a process in the moment when the cloud takes in a message and something holds.

    It comes before the answer does: a process that is killed never hears it.
    """

    def __init__(self, cloud: Sandbox, number: signal.Signals, when: Callable[[], bool]) -> None:
        self._number = number
        self._when = when
        self.pid: int | None = None
        cloud.model.listeners.append(self._on_happening)

    def _on_happening(self, happening: Any) -> None:
        if self.pid is not None and happening.role == "CONSUMER" and self._when():
            os.kill(self.pid, self._number)
            self.pid = None


async def run(
    name: str,
    *arguments: str,
    cloud: Sandbox,
    signals: SignalAt | None = None,
    environ: Mapping[str, str] | None = None,
) -> tuple[int, str]:
    """An example as a process; its exit code and what it printed."""
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), *arguments]
    variables = {**os.environ, **cloud.environ(), **(environ or {}), "PYTHONPATH": str(EXAMPLES.parent)}
    async with await anyio.open_process(command, env=variables, stdin=None, stderr=None) as process:
        if signals is not None:
            signals.pid = process.pid
        assert process.stdout is not None
        printed = b"".join([chunk async for chunk in process.stdout])
        code = await process.wait()
    if signals is not None:
        signals.pid = None
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
                before = heard(cloud)
                kill = SignalAt(
                    cloud,
                    signal.SIGKILL,
                    lambda: heard(cloud) > before + count and speakers(cloud) == 12,  # noqa: B023
                )
                code, _ = await run("queue_log", str(tmp_path), cloud=cloud, signals=kill)
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


# From a broker into the outbox


@pytest.mark.requirement("examples:run")
async def test_messages_of_a_broker_in_memory_go_through_the_outbox(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Issue 7, item 6. Of the six that are published one comes twice and one cannot be read."""
    monkeypatch.delenv("NATS_URL", raising=False)
    with anyio.fail_after(30):
        await load("faststream_outbox")["try_it"]()
    assert capsys.readouterr().out == "accepted 4\n"


def orders(numbers: Iterable[int]) -> list[bytes]:
    return [
        json.dumps(
            {"id": f"order-{number}", "consumer": f"shopper-{number % 6}", "text": f"Order {number}?"}
        ).encode()
        for number in numbers
    ]


async def acknowledged(stream: JetStreamContext) -> int:
    """The number of the last message up to which the broker has heard of every one."""
    floor = (await stream.consumer_info("shop", "connector")).ack_floor
    return 0 if floor is None else floor.stream_seq


class Watched:
    """A pump whose first `put` is held when it has returned, and then fails as if the process had died there."""

    def __init__(self, pump: Any) -> None:
        self._pump = pump
        self.returned: list[str] = []
        self.is_held = anyio.Event()
        self.let_go = anyio.Event()

    async def put(self, *messages: Any) -> Any:
        results = await self._pump.put(*messages)
        self.returned += [result.value for result in results]
        if not self.is_held.is_set():
            self.is_held.set()
            await self.let_go.wait()
            raise ConnectionError("the acknowledgement was lost")
        return results


class Unable:
    """A pump with an outbox that is full, or that cannot be used."""

    def __init__(self, result: PutResult | StoreUnavailable) -> None:
        self._result = result

    async def put(self, *messages: Any) -> Any:
        if isinstance(self._result, StoreUnavailable):
            raise self._result
        return [self._result for _ in messages]


@pytest.mark.requirement("pump:broker")
@pytest.mark.parametrize("result", [PutResult.FULL, StoreUnavailable("the disk is full")])
async def test_what_cannot_be_put_stays_with_the_broker_for_a_while(result: PutResult | StoreUnavailable) -> None:
    """Ours: backpressure goes back to the broker, which does not ask again at once."""
    order = {"id": "order-1", "consumer": "shopper", "text": "Where is it?"}
    with pytest.raises(NackMessage) as told:
        await load("faststream_outbox")["take_in"](order, Unable(result))
    assert told.value.extra_options == {"delay": 1.0}


@pytest.mark.requirement("pump:broker")
async def test_a_broker_is_acknowledged_after_the_put_and_what_it_delivers_again_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Issue 7, item 6: within the broker's acknowledgement."""
    with nats_server(tmp_path) as url:
        monkeypatch.setenv("NATS_URL", url)
        example = load("faststream_outbox")
        app, broker = example["app"], example["broker"]
        async with Sandbox() as cloud:
            for name, value in cloud.environ().items():
                monkeypatch.setenv(name, value)
            with anyio.fail_after(30):
                async with example["lifespan"](app.context):
                    watched = Watched(app.context.get("pump"))
                    app.context.set_global("pump", watched)
                    client = await nats.connect(url)
                    stream = client.jetstream()
                    await stream.add_stream(name="shop", subjects=["shop.*"])
                    for body in [*orders(range(20)), b"nobody can read this"]:
                        await stream.publish("shop.messages", body)
                    await broker.start()
                    await watched.is_held.wait()
                    assert await acknowledged(stream) == 0
                    watched.let_go.set()
                    while await acknowledged(stream) < 21:
                        await anyio.lowlevel.checkpoint()
                    assert (await stream.get_last_msg("shop", "shop.unreadable")).data == b"nobody can read this"
                    await watched._pump.drained()
                    await broker.stop()
                    await client.close()
            assert watched.returned == ["added", "known", *["added"] * 19]
            counts = cloud.ledger.applied_counts("ms.PublishEvent")
            assert counts == {f"order-{number}": 1 for number in range(20)}


@pytest.mark.requirement("pump:broker")
async def test_an_app_that_is_killed_loses_nothing_of_what_the_broker_had(tmp_path: Path) -> None:
    """Issue 7, item 6: a SIGKILL while messages are sent; the next process finishes, and stops on SIGTERM."""
    names = {f"order-{number}" for number in range(60)}
    with nats_server(tmp_path) as url:
        async with Sandbox() as cloud:
            with anyio.fail_after(60):
                client = await nats.connect(url)
                stream = client.jetstream()
                await stream.add_stream(name="shop", subjects=["shop.*"])
                for body in orders(range(60)):
                    await stream.publish("shop.messages", body)
                await client.close()
                settings = {"NATS_URL": url, "OUTBOX": str(tmp_path / "outbox.db"), "LEASE": "2", "ACK_WAIT": "2"}
                kill = SignalAt(cloud, signal.SIGKILL, lambda: heard(cloud) >= 20)
                code, _ = await run("faststream_outbox", cloud=cloud, signals=kill, environ=settings)
                assert code == -signal.SIGKILL
                stop = SignalAt(cloud, signal.SIGTERM, lambda: names <= arrived(cloud))
                code, printed = await run("faststream_outbox", cloud=cloud, signals=stop, environ=settings)
            assert (code, printed.splitlines()[-1]) == (0, "accepted 60")
            assert cloud.ledger.applied_counts("ms.PublishEvent").keys() == names
            assert len(cloud.ledger.doubled("ms.PublishEvent")) <= 6, "at most the head of each lane"
