"""With a durable store an event is on disk before the 200, and handled from there, whatever happens in between."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import attrs
import pytest

from connector_async.errors import StoreUnavailable
from connector_async.store import Admission, MemoryStore, SqliteStore
from connector_async.webhooks import Dispatcher, Incoming, Router, WebhookSettings
from connector_async.webhooks.events import DeliveryDead, DeliveryShed
from connector_async.wire import ContentEvent
from tests.backends import VIRTUAL
from tests.webhooks.rig import ACCOUNT, Rig, change, chat_state, content, encoded, notification, rig, until
from tests.webhooks.test_dispatcher import DurableInMemory, order_of, recording

pytestmark = pytest.mark.anyio

FAST = WebhookSettings(poll_interval=0.01, gap_timeout=0.05, retry_pause=0.0)


async def test_an_event_is_stored_answered_and_handled(tmp_path: Path) -> None:
    """`stored` is the default with a durable store; chat states never go there."""
    router, store = Router(), SqliteStore(tmp_path / "s.db")
    got = recording(router)
    async with rig(router, store=store, settings=FAST) as worker:
        await worker.deliver(content("c", 0), content("c", 0), content("c", 1), chat_state("c"))
        await worker.post(change("c", 3))
        await worker.post(change("c", 2))
        await worker.quiet()
        stats = worker.dispatcher.stats()
    await store.aclose()
    assert sorted(type(one.event).__name__ for one in got) == [
        "ChatStateEvent",
        "ContentEvent",
        "ContentEvent",
        "ConversationChange",
    ]
    assert order_of(got, "c").index(0) < order_of(got, "c").index(1)
    assert (stats.duplicates, stats.outdated, stats.handled) == (1, 1, 4)


async def test_what_is_out_of_order_in_the_store_is_handled_in_order(tmp_path: Path) -> None:
    """The inbox orders what is claimed, too."""
    router, store = Router(), SqliteStore(tmp_path / "s.db")
    got = recording(router)
    async with rig(router, store=store, settings=attrs.evolve(FAST, gap_timeout=5.0)) as worker:
        await worker.deliver(*[content("c", number) for number in (2, 0, 3, 1)])
        await worker.quiet()
    await store.aclose()
    assert order_of(got, "c") == [0, 1, 2, 3]


async def test_a_new_worker_goes_on_where_the_old_one_was_killed(tmp_path: Path) -> None:
    """Work off what earlier runs left, without a delivery: `start()` is enough."""
    path = tmp_path / "s.db"
    store = SqliteStore(path)
    for number in range(3):
        body = encoded(notification(content("c", number)))
        await store.put_delivery(ACCOUNT, key=f"event c c {number}", lane="c", body=body, received_at=1.0)
    await store.aclose()
    router, store = Router(), SqliteStore(path)
    got = recording(router)
    async with rig(router, store=store, settings=FAST) as worker:
        worker.dispatcher.start()
        worker.dispatcher.start()
        await worker.quiet()
        assert await worker.deliver(content("c", 1)) == [200]
    await store.aclose()
    assert order_of(got, "c") == [0, 1, 2]


async def test_w8_a_crash_between_write_and_ack_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """Killed at any step, delivered again by the vendor: handled exactly once (fault table W8)."""
    for number in range(100):
        store = SqliteStore(tmp_path / f"{number % 10}.db")
        router, conversation = Router(), f"c{number}"
        got = recording(router)
        async with rig(router, store=store, settings=FAST) as victim:
            if number % 2:
                # Stored, claimed by nobody, not answered.
                body = encoded(notification(content(conversation, 0)))
                key = f"event {conversation} {conversation} 0"
                await store.put_delivery(ACCOUNT, key=key, lane=conversation, body=body, received_at=1.0)
            else:
                # Stored and perhaps claimed; the answer never left, the handler did not begin.
                victim.dispatcher._sorting.lanes.stop()
                await victim.deliver(content(conversation, 0))
            victim.dispatcher._durable.stop()
            victim.dispatcher._durable._ended = None  # the dead give nothing back
        async with rig(router, store=store, settings=FAST) as heir:
            heir.dispatcher._durable.wall_clock = lambda: 4e9  # the lease of the dead has ended
            assert await heir.deliver(content(conversation, 0)) == [200]
            await heir.quiet()
        assert order_of(got, conversation) == [0]
        await store.aclose()


_CHILD = """
import os, signal, sys
import anyio
from connector_async.store import SqliteStore
from connector_async.webhooks import Router, WebhookSettings
from connector_async.wire import ContentEvent
from tests.webhooks.rig import content, rig

path, point = sys.argv[1:]
router = Router()

def crash(here):
    if here == point:
        os.kill(os.getpid(), signal.SIGKILL)

@router.on(ContentEvent)
async def handle(message):
    with open(path + ".ledger", "a") as ledger:
        ledger.write("handled\\n")

class Crashing(SqliteStore):
    async def put_delivery(self, *args, **kwargs):
        admission = await super().put_delivery(*args, **kwargs)
        crash("put")
        return admission

    async def claim_deliveries(self, *args, **kwargs):
        claimed = await super().claim_deliveries(*args, **kwargs)
        if claimed:
            crash("claimed")
        return claimed

    async def settle_delivery(self, *args, **kwargs):
        settled = await super().settle_delivery(*args, **kwargs)
        crash("settled")
        return settled

async def main():
    store = Crashing(path)
    async with rig(router, store=store, settings=WebhookSettings(lease=0.05, poll_interval=0.02)) as worker:
        print(*await worker.deliver(content("c", 0)), flush=True)
        await worker.quiet()
    await store.aclose()

anyio.run(main)
"""


@pytest.mark.parametrize("point", ["put", "claimed", "settled"])
def test_w8_kill_9_at_each_step_is_survived(tmp_path: Path, point: str) -> None:
    """A real SIGKILL: the vendor delivers again, and the event is handled once (fault table W8)."""
    path = tmp_path / "s.db"
    root = Path(__file__).parents[2]
    for crash_at, code in ((point, -signal.SIGKILL), ("nowhere", 0)):
        run = subprocess.run(
            [sys.executable, "-c", _CHILD, str(path), crash_at],
            cwd=root,
            env={**os.environ, "PYTHONPATH": str(root)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert run.returncode == code, run.stderr
    assert run.stdout == "200\n"
    assert Path(f"{path}.ledger").read_text(encoding="utf-8") == "handled\n"


@pytest.mark.no_cover
async def test_w4_a_replay_is_handled_once_across_restarts_and_workers(tmp_path: Path) -> None:
    """The identical body, again and again, to four workers and after a restart: one handler call, always 200 (W4)."""
    handled: list[str] = []
    messages = [notification(content(f"c{number}", 0)) for number in range(100)]

    def routers() -> list[Router]:
        made = [Router() for _ in range(4)]
        for router in made:

            @router.on(ContentEvent)
            async def record(message: Incoming[ContentEvent]) -> None:
                handled.append(message.conversation_id)

        return made

    for _ in range(2):
        stores = [SqliteStore(tmp_path / "s.db") for _ in range(4)]
        async with anyio.create_task_group() as tasks:
            for router, store in zip(routers(), stores, strict=True):
                tasks.start_soon(_replay, router, store, messages)
        for store in stores:
            await store.aclose()
    assert sorted(handled) == sorted(f"c{number}" for number in range(100))


async def _replay(router: Router, store: SqliteStore, messages: list[dict[str, Any]]) -> None:
    async with rig(router, store=store, settings=FAST) as worker:
        # In crowds, as a vendor's queue that is let go: the store writes a crowd in one commit.
        for _ in range(12):
            statuses: list[int] = []
            async with anyio.create_task_group() as tasks:
                for message in messages:
                    tasks.start_soon(_note, worker, message, statuses)
            assert statuses == [200] * len(messages)
        await worker.quiet()


async def _note(worker: Rig, message: dict[str, Any], statuses: list[int]) -> None:
    statuses.append(await worker.post(message))


async def test_a_failing_handler_is_tried_again_and_then_given_up(caplog: pytest.LogCaptureFixture) -> None:
    """Bounded, then dead-lettered (issue of the webhooks, 3); handlers that succeeded are not run again."""
    router, store = Router(), DurableInMemory()
    succeeded = recording(router, ContentEvent)
    attempts: list[int] = []

    @router.on(ContentEvent)
    async def fail(message: Incoming[ContentEvent]) -> None:
        attempts.append(message.attempt)
        raise ValueError(f"the text was {message.text}")

    async with rig(router, store=store, settings=FAST) as worker:
        await worker.deliver(content("c", 0, "private"))
        await worker.quiet()
        (dead,) = await store.dead_deliveries(ACCOUNT)
        (told,) = worker.port.emitted_of(DeliveryDead)
        assert worker.dispatcher.stats().dead == 1
    assert attempts == [1, 2, 3, 4, 5]
    assert len(succeeded) == 1
    assert dead.attempts == 5
    assert dead.reason.endswith("fail: ValueError")
    assert (told.conversation_id, told.key, told.attempts) == ("c", "event c c 0", 5)
    assert "given up after 5 attempts" in caplog.text


async def test_a_retry_does_not_hold_up_its_conversation() -> None:
    """The next message is handled meanwhile; the second try is marked."""
    router, store, got = Router(), DurableInMemory(), list[tuple[int | None, int]]()

    @router.on(ContentEvent)
    async def fail_once(message: Incoming[ContentEvent]) -> None:
        got.append((message.sequence, message.attempt))
        if message.sequence == 0 and message.attempt == 1:
            raise ValueError("no")

    now = 1000.0
    async with rig(router, store=store, settings=WebhookSettings(poll_interval=0.01)) as worker:
        worker.dispatcher._durable.wall_clock = lambda: now
        await worker.deliver(content("c", 0), content("c", 1))
        await until(lambda: len(got) == 2)
        now += 1.0
        await worker.quiet()
    assert got == [(0, 1), (1, 1), (0, 2)]


async def test_an_event_that_kills_its_worker_every_time_is_given_up() -> None:
    """Claims count as attempts: a poison event cannot take down every worker for ever."""
    router, store = Router(), DurableInMemory()
    got = recording(router)
    body = encoded(notification(content("c", 0)))
    await store.put_delivery(ACCOUNT, key="k", lane="c", body=body, received_at=1.0)
    for number in range(5):
        await store.claim_deliveries(ACCOUNT, owner=f"killed {number}", now=number, lease_until=number, limit=1)
    async with rig(router, store=store, settings=FAST) as worker:
        worker.dispatcher.start()
        await worker.quiet()
        (dead,) = await store.dead_deliveries(ACCOUNT)
    assert got == []
    assert "worker ended" in dead.reason


@pytest.mark.parametrize(("body", "part"), [(b"{}", 0), (encoded(notification(content("c", 0))), 7)])
async def test_what_cannot_be_read_back_is_given_up(body: bytes, part: int) -> None:
    """A row of another version, or a damaged one."""
    store = DurableInMemory()
    await store.put_delivery(ACCOUNT, key="k", lane="c", body=body, part=part, received_at=1.0)
    async with rig(store=store, settings=FAST) as worker:
        worker.dispatcher.start()
        await worker.quiet()
        assert [dead.reason for dead in await store.dead_deliveries(ACCOUNT)] == ["unreadable"]


async def test_a_store_that_is_down_is_answered_with_503_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    """Non-2xx only when the event is not durable (fault table W7)."""
    router, store = Router(), DurableInMemory()
    got = recording(router)
    async with rig(router, store=store, settings=FAST) as worker:
        assert await worker.deliver(content("c", 0)) == [200]
        await worker.quiet()
        store.is_down = True
        assert await worker.deliver(content("c", 1), chat_state("c")) == [503, 200]
        assert len(worker.port.emitted_of(DeliveryShed)) == 1
        store.is_down = False
        assert await worker.deliver(content("c", 1)) == [200]
        await worker.quiet()
    assert order_of([one for one in got if one.sequence is not None], "c") == [0, 1]
    assert "could not be stored" in caplog.text


class Stuttering(DurableInMemory):
    """Fails at each of the worker's own calls as often as told."""

    def __init__(self, **failures: int) -> None:
        super().__init__()
        self.failures = failures

    def _stutter(self, name: str) -> None:
        if self.failures.get(name, 0):
            self.failures[name] -= 1
            raise StoreUnavailable(name)

    async def claim_deliveries(self, account_id: str, **facts: Any) -> Any:
        self._stutter("claim")
        return await super().claim_deliveries(account_id, **facts)

    async def settle_delivery(self, account_id: str, key: str, *, owner: str) -> bool:
        self._stutter("settle")
        return await super().settle_delivery(account_id, key, owner=owner)

    async def retry_delivery(self, account_id: str, key: str, **facts: Any) -> bool:
        self._stutter("retry")
        return await super().retry_delivery(account_id, key, **facts)

    async def dead_letter_delivery(self, account_id: str, key: str, **facts: Any) -> bool:
        self._stutter("bury")
        return await super().dead_letter_delivery(account_id, key, **facts)

    async def renew_deliveries(self, account_id: str, **facts: Any) -> int:
        self._stutter("renew")
        return await super().renew_deliveries(account_id, **facts)

    async def release_deliveries(self, account_id: str, *, owner: str) -> int:
        self._stutter("release")
        return await super().release_deliveries(account_id, owner=owner)


async def test_a_store_that_stutters_delays_and_does_not_lose() -> None:
    """Claims are asked for again; the end of an event is told again, and the event not handled a second time."""
    router, store = Router(), Stuttering(claim=2, settle=3)
    got = recording(router)
    async with rig(router, store=store, settings=FAST) as worker:
        await worker.deliver(content("c", 0))
        await until(lambda: got)
        await worker.quiet()
    assert order_of(got, "c") == [0]
    assert not any(store.failures.values())


async def test_a_handler_that_outlives_its_lease_does_not_settle_for_another(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The stale owner's mark is refused, and said."""
    router, store, began, release = Router(), DurableInMemory(), anyio.Event(), anyio.Event()

    @router.on(ContentEvent)
    async def slow(message: Incoming[ContentEvent]) -> None:
        began.set()
        await release.wait()

    async with rig(router, store=store, settings=WebhookSettings(lease=60.0, poll_interval=1000.0)) as worker:
        await worker.deliver(content("c", 0))
        await began.wait()
        claimed = await store.claim_deliveries(ACCOUNT, owner="other", now=9e9, lease_until=9e9 + 60, limit=1)
        release.set()
        await until(lambda: not worker.dispatcher.stats().waiting)
        assert await store.settle_delivery(ACCOUNT, claimed[0].key, owner="other")
    assert "lease had ended" in caplog.text


@pytest.mark.parametrize("anyio_backend", [VIRTUAL])
async def test_what_the_store_could_not_be_told_is_told_again_by_a_worker_that_is_never_idle() -> None:
    """Found by reading: such a worker renews the leases of all that it has claimed, so that one never ended."""
    router, store, attempts = Router(), Stuttering(retry=1), list[int]()

    @router.on(ContentEvent)
    async def handle(message: Incoming[ContentEvent]) -> None:
        if message.conversation_id == "busy":
            await anyio.sleep(10_000)
        attempts.append(message.attempt)
        if message.attempt == 1:
            raise LookupError

    async with rig(router, store=store, drain=0.0, settings=WebhookSettings(handler_timeout=None)) as worker:
        worker.dispatcher._durable.wall_clock = anyio.current_time
        await worker.deliver(content("busy", 0), content("c", 0))
        await anyio.sleep(300)
        assert attempts == [1, 2]


@pytest.mark.parametrize("anyio_backend", [VIRTUAL])
async def test_what_is_claimed_beside_an_event_that_cannot_be_given_up_is_handled() -> None:
    """Found by reading: the rest of the lot was left lying, claimed for as long as the worker lived."""
    router, store = Router(), Stuttering(bury=1)
    got = recording(router)
    for number in range(3):
        body = b"none" if number == 0 else encoded(notification(content(f"c{number}", 0)))
        await store.put_delivery(ACCOUNT, key=f"{number}", lane=f"c{number}", body=body, received_at=1.0)
    async with rig(router, store=store) as worker:
        worker.dispatcher.start()
        await anyio.sleep(10)
        assert await store.delivery_counts(ACCOUNT) == attrs.evolve(
            await MemoryStore().delivery_counts(ACCOUNT), dead=1
        )
        assert worker.dispatcher.stats().dead == 1
    assert len(got) == 2


@pytest.mark.parametrize("anyio_backend", [VIRTUAL])
async def test_leases_are_kept_while_a_handler_runs() -> None:
    """No other worker takes over from one that is alive, however long its handler takes."""
    router, store = Router(), DurableInMemory()

    @router.on(ContentEvent)
    async def slow(message: Incoming[ContentEvent]) -> None:
        await anyio.sleep(500)

    async with rig(router, store=store, settings=WebhookSettings(lease=60.0)) as worker:
        worker.dispatcher._durable.wall_clock = anyio.current_time
        await worker.deliver(content("c", 0))
        for _ in range(40):
            await anyio.sleep(10)
            now = anyio.current_time()
            assert not await store.claim_deliveries(ACCOUNT, owner="other", now=now, lease_until=now + 1, limit=1)
        await anyio.sleep(120)
        assert (await store.delivery_counts(ACCOUNT)).claimed == 0


@pytest.mark.parametrize("anyio_backend", [VIRTUAL])
async def test_draining_stores_on_and_gives_its_claims_back() -> None:
    """While draining with `stored` it goes on storing and answering 200 (issue of the webhooks, 2)."""
    router, store = Router(), Stuttering()

    @router.on(ContentEvent)
    async def hang(message: Incoming[ContentEvent]) -> None:
        await anyio.sleep(1000)

    async with rig(router, store=store, drain=0.1) as worker:
        await worker.deliver(content("c", 0), content("c", 1))
        await anyio.sleep(0.1)
        assert (await store.delivery_counts(ACCOUNT)).claimed == 2
        assert await worker.dispatcher.drain(1.0) == 0
        assert (await store.delivery_counts(ACCOUNT)).waiting == 2
        assert await worker.deliver(content("c", 2), chat_state("c")) == [200, 200]
        assert (await store.delivery_counts(ACCOUNT)).waiting == 3
    claimed = await store.claim_deliveries(ACCOUNT, owner="next", now=9e9, lease_until=9e9, limit=9)
    assert [(one.key, one.attempts) for one in claimed] == [(f"event c c {number}", 1) for number in range(3)]


@pytest.mark.parametrize("anyio_backend", [VIRTUAL])
async def test_claims_that_cannot_be_given_back_are_said(caplog: pytest.LogCaptureFixture) -> None:
    """They come back by themselves when the lease ends."""
    router = Router()

    @router.on(ContentEvent)
    async def hang(message: Incoming[ContentEvent]) -> None:
        await anyio.sleep(1000)

    async with rig(router, store=Stuttering(release=9), drain=0.1) as worker:
        await worker.deliver(content("c", 0))
        await anyio.sleep(0.1)
        await worker.dispatcher.drain(0.1)
    assert "lease ends" in caplog.text


async def test_claims_are_made_in_lots_while_handlers_are_busy() -> None:
    """A worker claims no more than it can soon handle, so that others get their share."""
    router, store, release = Router(), DurableInMemory(), anyio.Event()

    @router.on(ContentEvent)
    async def park(message: Incoming[ContentEvent]) -> None:
        await release.wait()

    settings = WebhookSettings(max_handlers=8, poll_interval=0.01)
    async with rig(router, store=store, settings=settings) as worker:
        await worker.deliver(*[content(f"c{number}", 0) for number in range(50)])
        await anyio.sleep(0.05)
        counts = await store.delivery_counts(ACCOUNT)
        assert counts.claimed == 16
        release.set()
        await worker.quiet()
        assert worker.dispatcher.stats().handled == 50


async def test_parsed_events_are_remembered_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was parsed for the answer need not be parsed again, but the store may hold more than memory should."""
    monkeypatch.setattr("connector_async.webhooks._durable._MAX_REMEMBERED", 3)
    router, store = Router(), DurableInMemory()
    got = recording(router)
    async with rig(router, store=store, settings=FAST) as worker:
        durable = worker.dispatcher._durable
        durable._ended = anyio.Event()  # it only seems so
        await worker.deliver(*[content("c", number) for number in range(6)])
        assert len(durable._parsed) == 3
        durable._ended = None
        worker.dispatcher.start()
        await worker.quiet()
    assert order_of(got, "c") == list(range(6))


async def test_a_full_inbox_is_503_and_not_a_loss() -> None:
    """The store is bounded, too."""
    store = DurableInMemory(max_entries=2)
    async with rig(store=store, settings=FAST) as worker:
        worker.dispatcher._sorting.lanes.stop()
        assert await worker.deliver(*[content("c", number) for number in range(3)]) == [200, 200, 503]
        body = encoded(notification(content("c", 9)))
        assert await store.put_delivery(ACCOUNT, key="k", lane="c", body=body, received_at=1.0) is Admission.FULL
        worker.dispatcher._durable.claimed = 0


def test_owners_are_new_for_each_run() -> None:
    """Leases of an earlier run with the same name must not look like ours."""
    dispatchers = [Dispatcher(_no_port(), Router()) for _ in range(2)]
    assert dispatchers[0]._durable.owner != dispatchers[1]._durable.owner


def _no_port() -> Any:
    class NoPort:
        start_soon = None

    return NoPort()
