"""What is particular to PostgreSQL: others use the server too, it goes away, and its errors quote rows."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import AsyncIterator
from typing import Any, LiteralString

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from connector_async.errors import ConfigurationError, StoreUnavailable
from connector_async.store import Admission, ConsumerRecord, ConversationRecord, PostgresStore
from connector_async.store._postgres_engine import Database
from connector_async.store._postgres_schema import MIGRATIONS
from connector_async.store.outbox import Claim, MessageState, OutboxMessage, PutResult, Settlement
from connector_async.store.tokens import PlaintextTokens, SealedTokens
from tests.guards import CANARY, assert_canary_absent
from tests.store.postgres_server import PostgresPlace, PostgresServer

pytestmark = pytest.mark.anyio

A = "12345678"
ACCEPTED = Settlement(state=MessageState.ACCEPTED, attempts=1, sequence=0, conversation_id="c")


def new_store(place: PostgresPlace, **options: Any) -> PostgresStore:
    return PostgresStore(place.dsn, schema=place.schema, **options)


@pytest.fixture
async def store(postgres: PostgresPlace) -> AsyncIterator[PostgresStore]:
    """A store with bounds that a test can reach."""
    store = new_store(postgres, max_entries=10, max_waiting=10, max_dead=2, patience=2.0)
    yield store
    await store.aclose()


async def sql(place: PostgresPlace, statement: LiteralString, *values: object) -> list[tuple[Any, ...]]:
    """What stands in the tables."""
    import psycopg

    options = f"-c search_path={place.schema}"
    async with await psycopg.AsyncConnection.connect(place.dsn, autocommit=True, options=options) as db:
        done = await db.execute(statement, values or None)
        return await done.fetchall() if done.description else []


def message(number: object, consumer: str = "anna") -> OutboxMessage:
    return OutboxMessage(id=f"m{number}", consumer=consumer, body=b"{}", request_id=f"r{number}")


async def take(store: PostgresStore, owner: str = "me", lease: float = 60.0, limit: int = 100) -> list[Claim]:
    return await store.outbox.claim(A, owner=owner, lease=lease, limit=limit)


# --- the connection ------------------------------------------------------------------------------------------------


async def test_what_was_put_survives_the_process(postgres: PostgresPlace) -> None:
    """A second store reads what the first one wrote."""
    first = new_store(postgres)
    await first.put_conversation(ConversationRecord(account_id=A, conversation_id="c", ext_consumer_id="anna"))
    await first.put_delivery(A, key="d", lane="c", body=b"{}", received_at=1.0)
    await first.outbox.put(A, [message(1)])
    await first.aclose()
    second = new_store(postgres)
    assert second.durable
    assert second.outbox.durable
    assert await second.get_open_conversation(A, "anna") is not None
    assert await second.put_delivery(A, key="d", lane="c", body=b"{}", received_at=1.0) is Admission.SEEN
    assert await second.outbox.put(A, [message(1)]) == [PutResult.KNOWN]
    await second.aclose()


async def test_it_says_which_extra_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """psycopg is not installed with the package."""
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ConfigurationError, match=r"connector-async\[postgres\]"):
        PostgresStore("postgresql://nowhere/db")


@pytest.mark.parametrize(
    ("dsn", "schema", "said"),
    [
        (f"postgresql://app:{CANARY}-password@host:5432:5432/db?what", "ours", "address"),
        (f"host=h pasword={CANARY}-password", "ours", "address"),
        (f"postgresql://app:half@{CANARY}-password@host/db", "ours", r"an `@` in its host.*%40"),
        (f"postgresql://app:{CANARY}-password/half@host/db", "ours", "a port that is no number.*%2F"),
        ("host=h", 'ours"; DROP TABLE x', "name"),
        ("host=h", "Ours", "name"),
    ],
)
async def test_a_wrong_address_is_told_without_what_is_in_it(dsn: str, schema: str, said: str) -> None:
    """It may hold a password."""
    pytest.importorskip("psycopg")
    with pytest.raises(ConfigurationError, match=said) as caught:
        PostgresStore(dsn, schema=schema)
    assert_canary_absent(caught.value)


async def test_nothing_is_opened_before_the_first_use_and_nothing_shows(tmp_path: os.PathLike[str]) -> None:
    """Building one needs no server; closing twice is once."""
    pytest.importorskip("psycopg")
    store = PostgresStore(f"host={tmp_path} password={CANARY}-password", tokens=PlaintextTokens())
    assert_canary_absent(store, store._engine)
    with pytest.raises(StoreUnavailable, match="OperationalError") as caught:
        await store.first_time(A, "k")
    assert_canary_absent(caught.value)
    await store.aclose()
    await store.aclose()
    with pytest.raises(RuntimeError, match="closed"):
        await store.first_time(A, "k")


async def test_a_server_that_went_away_is_told_and_used_again_when_it_is_back(
    postgres_server: PostgresServer, postgres: PostgresPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Connections that broke are replaced; an idle one that broke is noticed before it is used."""
    store = new_store(postgres, patience=1.0)
    assert await store.first_time(A, "k")
    postgres_server.halt()
    try:
        with pytest.raises(StoreUnavailable):
            await store.first_time(A, "k")
        with pytest.raises(StoreUnavailable):
            await store.outbox.put(A, [message(1)])
    finally:
        postgres_server.resume()
    assert not await store.first_time(A, "k")
    postgres_server.halt()
    postgres_server.resume()
    monkeypatch.setattr("connector_async.store._postgres_engine._TRUSTED_FOR", -1.0)
    assert not await store.first_time(A, "k")
    await store.aclose()


@pytest.mark.parametrize("dsn", ["host=a,b port=1,2", "host=@abstract", "postgresql:///db", "", "host=/tmp port="])
async def test_a_usual_address_is_taken(dsn: str) -> None:
    """Several hosts, sockets, and all that the environment says."""
    pytest.importorskip("psycopg")
    await PostgresStore(dsn).aclose()


def test_an_address_is_text() -> None:
    """Locks a bug: an AttributeError from the driver."""
    pytest.importorskip("psycopg")
    wrong: Any = None
    with pytest.raises(TypeError, match="dsn must be the address of a database"):
        PostgresStore(wrong)


def _terminate_all(place: PostgresPlace) -> int:
    import psycopg

    with psycopg.connect(place.dsn, autocommit=True) as db:
        row = db.execute(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
        ).fetchone()
    assert row is not None
    return int(row[0])


async def test_connections_that_an_administrator_ends_at_rest_cost_nobody_an_error(postgres: PostgresPlace) -> None:
    """Locks a bug: each of them was tried, and failed a caller, although nothing of the work had begun."""
    store = new_store(postgres, max_connections=8)
    async with anyio.create_task_group() as tasks:
        for number in range(30):
            tasks.start_soon(store.first_time, A, f"k{number}")
    assert _terminate_all(postgres) > 1
    for number in range(10):
        assert not await store.first_time(A, f"k{number}")
    await store.outbox.put(A, [message(1)])
    await store.aclose()


async def test_work_that_an_administrator_ends_is_done_again(postgres: PostgresPlace) -> None:
    """The server says so itself, and that nothing of it was kept."""
    store = new_store(postgres)
    assert await store.first_time(A, "k")
    runs: list[int] = []

    async def work(db: Any) -> str:
        runs.append(1)
        await db.execute("CREATE TABLE made_once (x int)")
        if len(runs) == 1:
            await anyio.to_thread.run_sync(_terminate_all, postgres)
        await db.execute("SELECT 1")
        return "done"

    assert await store._engine.transact(work) == "done"
    assert len(runs) == 2
    await store.aclose()


async def test_what_the_server_does_not_allow_is_told_in_its_words(postgres: PostgresPlace) -> None:
    """Those errors are about tables and rights, never about a row."""
    store = new_store(postgres)
    await store.first_time(A, "k")
    with pytest.raises(StoreUnavailable, match=r'UndefinedTable \(42P01\): relation "nowhere" does not exist'):
        await store._engine.run(lambda db: db.execute("SELECT * FROM nowhere"))
    await store.aclose()


async def test_connections_are_bounded_and_waited_for(postgres: PostgresPlace) -> None:
    """Those in line wait for as long as the store is patient; those that wait while it closes are told."""
    store = new_store(postgres, max_connections=1, patience=0.05)
    await store.first_time(A, "k")
    async with store._engine._connection():
        with pytest.raises(StoreUnavailable, match="busy"):
            await store.first_time(A, "k")
    await store.aclose()
    store = new_store(postgres, max_connections=1)
    errors: list[RuntimeError] = []

    async def use() -> None:
        try:
            await store.first_time(A, "k")
        except RuntimeError as error:
            errors.append(error)

    async with anyio.create_task_group() as tasks:
        async with store._engine._connection():
            tasks.start_soon(use)
            await anyio.wait_all_tasks_blocked()
            await store.aclose()
    assert len(errors) == 1


async def test_many_tasks_share_few_connections(postgres: PostgresPlace) -> None:
    """Each key is new to one of them."""
    store = new_store(postgres, max_connections=3)
    new: list[bool] = []

    async def use(number: int) -> None:
        new.append(await store.first_time(A, str(number % 10)))

    async with anyio.create_task_group() as tasks:
        for number in range(40):
            tasks.start_soon(use, number)
    assert sum(new) == 10
    assert len(store._engine._idle) == 3
    await store.aclose()


async def _locks(db: Database, numbers: tuple[int, int], met: anyio.Event, meet: anyio.Event) -> int:
    await db.execute("SELECT pg_advisory_xact_lock(%s)", (numbers[0],))
    met.set()
    await meet.wait()
    await db.execute("SELECT pg_advisory_xact_lock(%s)", (numbers[1],))
    return numbers[1]


async def test_a_deadlock_is_tried_again(store: PostgresStore) -> None:
    """PostgreSQL ends one of the two transactions; nobody hears of it."""
    first, second, done = anyio.Event(), anyio.Event(), list[int]()

    async def one(numbers: tuple[int, int], met: anyio.Event, meet: anyio.Event) -> None:
        done.append(await store._engine.transact(lambda db: _locks(db, numbers, met, meet)))

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(one, (91, 92), first, second)
            tasks.start_soon(one, (92, 91), second, first)
    assert sorted(done) == [91, 92]


async def test_a_deadlock_again_and_again_is_told(store: PostgresStore) -> None:
    """After five attempts."""
    from psycopg.errors import DeadlockDetected

    attempts: list[int] = []

    async def never(db: Database) -> None:
        attempts.append(1)
        raise DeadlockDetected

    with pytest.raises(StoreUnavailable, match="DeadlockDetected"):
        await store._engine.transact(never)
    assert len(attempts) == 5


async def test_a_row_that_is_locked_for_too_long_is_told(postgres: PostgresPlace) -> None:
    """Another process is paused in the middle of a transaction."""
    import psycopg

    store = new_store(postgres, patience=0.1)
    await store.outbox.put(A, [message(1)])
    options = f"-c search_path={postgres.schema}"
    async with await psycopg.AsyncConnection.connect(postgres.dsn, options=options) as other:
        await other.execute("SELECT 1 FROM lanes FOR UPDATE")
        assert await take(store) == []
        with pytest.raises(StoreUnavailable, match="LockNotAvailable"):
            await store.outbox.put(A, [message(2)])
    assert await store.outbox.put(A, [message(2)]) == [PutResult.ADDED]
    await store.aclose()


async def test_a_cancelled_call_writes_nothing_and_leaves_no_lock(postgres: PostgresPlace) -> None:
    """Cancelled while it waits for a lock, in a transaction that has written."""
    store = new_store(postgres, max_connections=1)
    reached = anyio.Event()

    async def writes_and_waits(db: Database) -> None:
        await db.execute("INSERT INTO seen (account_id, key) VALUES ('1', 'half')")
        reached.set()
        await db.execute("SELECT pg_sleep(60)")

    for _ in range(2):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(store._engine.transact, writes_and_waits)
            await reached.wait()
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
    with anyio.fail_after(60):
        assert await store.first_time("1", "half")
    await store.aclose()


async def test_cancelled_between_statements_it_rolls_back(postgres: PostgresPlace) -> None:
    """The connection stays and is used again."""
    store = new_store(postgres, max_connections=1)

    async def writes_and_is_cancelled(db: Database) -> None:
        await db.execute("INSERT INTO seen (account_id, key) VALUES ('1', 'half')")
        scope.cancel()
        await anyio.lowlevel.checkpoint()

    with anyio.CancelScope() as scope:
        await store._engine.transact(writes_and_is_cancelled)
    assert len(store._engine._idle) == 1
    assert await store.first_time("1", "half")
    await store.aclose()


async def test_cancelled_while_it_connects_it_leaves_nothing(postgres: PostgresPlace) -> None:
    """The first use, or the first after a while."""
    store = new_store(postgres, max_connections=1)
    async with store._engine._migrating, anyio.create_task_group() as tasks:
        tasks.start_soon(store.first_time, A, "k")
        with anyio.fail_after(60):
            while not store._engine._migrating.statistics().tasks_waiting:
                await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()
    assert await store.first_time(A, "k")
    await store.aclose()


@pytest.mark.parametrize("digest", [f"{CANARY}\0", f"{CANARY}\udc80", CANARY])
async def test_an_error_does_not_quote_the_row(store: PostgresStore, digest: str) -> None:
    """PostgreSQL does, in its details: bytes that are no text for it, a number beyond 64 bits."""
    with pytest.raises(StoreUnavailable) as caught:
        await store.put_echo(A, "c", digest, 2**70)
    assert_canary_absent(caught.value)
    with pytest.raises(StoreUnavailable) as caught:
        await store._engine.run(lambda db: db.execute("SELECT %s::int", (CANARY,)))
    assert_canary_absent(caught.value)


async def test_acknowledged_is_on_disk_whatever_the_server_is_set_to(store: PostgresStore) -> None:
    """`synchronous_commit = off` is for those who can lose an acknowledged message."""

    async def setting(db: Database) -> Any:
        return await (await db.execute("SELECT current_setting('synchronous_commit')")).fetchone()

    assert await store._engine.run(setting) == ("on",)


# --- the schema ----------------------------------------------------------------------------------------------------


async def test_a_schema_of_a_newer_version_is_refused(postgres: PostgresPlace) -> None:
    """Its tables mean something that this version does not know."""
    store = new_store(postgres)
    await store.first_time(A, "k")
    await store.aclose()
    await sql(postgres, "UPDATE schema_version SET version = 99")
    store = new_store(postgres)
    with pytest.raises(ConfigurationError, match="newer version"):
        await store.first_time(A, "k")
    await store.aclose()


async def test_an_older_schema_is_migrated_in_one_piece(postgres: PostgresPlace) -> None:
    """Each step once, the version with it; a step that fails leaves the schema as it was."""
    store = new_store(postgres)
    store._engine.migrations = (*MIGRATIONS, ("CREATE TABLE later (x int)", "CREATE TABLE later (x int)"))
    with pytest.raises(StoreUnavailable, match="DuplicateTable"):
        await store.first_time(A, "k")
    await store.aclose()
    assert await sql(postgres, "SELECT 1 FROM pg_namespace WHERE nspname = %s", postgres.schema) == []
    store = new_store(postgres)
    assert await store.first_time(A, "k")
    await store.aclose()
    store = new_store(postgres)
    store._engine.migrations = (*MIGRATIONS, ("CREATE TABLE later (x int)",))
    assert not await store.first_time(A, "k")
    await store.aclose()
    assert await sql(postgres, "SELECT version FROM schema_version") == [(len(MIGRATIONS) + 1,)]


async def test_those_who_come_first_at_once_make_the_tables_once(postgres: PostgresPlace) -> None:
    """A fleet that is started on an empty database."""
    stores = [new_store(postgres) for _ in range(4)]
    async with anyio.create_task_group() as tasks:
        for store in stores:
            tasks.start_soon(store.first_time, A, "k")
    for store in stores:
        assert not await store.first_time(A, "k")
        await store.aclose()


# --- tokens --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["not at all", "sealed", "as they are"])
async def test_tokens_are_written_as_the_user_said(postgres: PostgresPlace, how: str) -> None:
    """Not at all unless told; then so that only the key opens them, or as they are."""
    key = SealedTokens.new_key()
    seals = {"not at all": None, "sealed": SealedTokens(key), "as they are": PlaintextTokens()}
    store = new_store(postgres, tokens=seals[how])
    record = ConsumerRecord(account_id=A, ext_consumer_id="anna", lp_consumer_id="lp", token=f"{CANARY}-jws")
    await store.put_consumer(record)
    fence = await store.acquire_lease(A, "app", owner="me", seconds=60.0)
    assert fence is not None
    kept = await store.put_app_token(A, "app", value=f"{CANARY}-jwt", seconds=60.0, fence=fence)
    assert kept is store.shares_tokens is (how != "not at all")
    written = await sql(postgres, "SELECT token FROM consumers UNION ALL SELECT token FROM app_tokens")
    assert any(CANARY in token for (token,) in written) is (how == "as they are")
    found, shared = await store.find_consumer(A, "lp"), await store.get_app_token(A, "app")
    assert found is not None
    assert found.token == ("" if how == "not at all" else record.token)
    assert (shared is not None and shared.value == f"{CANARY}-jwt") is kept
    await store.aclose()
    stranger = new_store(postgres, tokens=SealedTokens(SealedTokens.new_key()))
    if how == "sealed":
        found = await stranger.get_consumer(A, "anna")
        assert found is not None
        assert found.token == ""
        assert await stranger.get_app_token(A, "app") is None
    await stranger.aclose()


# --- the outbox ----------------------------------------------------------------------------------------------------


async def test_messages_keep_the_order_in_which_they_were_put(store: PostgresStore) -> None:
    """One batch and many, with consumers mixed."""
    batches = [[message(f"{batch}{place}", "anna" if place % 2 else "bert") for place in range(5)] for batch in "ab"]
    for batch in batches:
        await store.outbox.put(A, batch)
    claims, sent = await take(store), list[OutboxMessage]()
    while claims:
        sent += [claim.message for claim in claims]
        advances = await store.outbox.advance(A, [(claim, ACCEPTED) for claim in claims], lease=60.0)
        claims = [advance.next for advance in advances if advance.next is not None]
    for consumer in ("anna", "bert"):
        put = [one.id for batch in batches for one in batch if one.consumer == consumer]
        assert [one.id for one in sent if one.consumer == consumer] == put


async def test_the_bound_is_counted_where_numbers_alone_do_not_tell(store: PostgresStore) -> None:
    """An old message that stays makes the range of numbers wider than what is in it."""
    await store.outbox.put(A, [message(0, "slow")])
    (slow,) = await take(store)
    for number in range(1, 15):
        await store.outbox.put(A, [message(number)])
        (claim,) = await take(store)
        await store.outbox.advance(A, [(claim, ACCEPTED)], lease=60.0)
    results = await store.outbox.put(A, [message(number) for number in range(20, 31)])
    assert results == [PutResult.ADDED] * 9 + [PutResult.FULL] * 2
    assert await store.outbox.put(A, [message(20), message(40), message(40)]) == [
        PutResult.KNOWN,
        PutResult.FULL,
        PutResult.FULL,
    ]
    assert (await store.outbox.counts(A)).unsettled == 10
    assert await store.outbox.release(A, [slow]) == 1


async def test_settled_messages_are_bounded_and_their_number_stays(store: PostgresStore) -> None:
    """Accepted ones by `max_entries`, others by `max_dead`; a lane that a dropped one held goes on."""
    for number in range(14):
        await store.outbox.put(A, [message(number)])
        (claim,) = await take(store)
        await store.outbox.advance(A, [(claim, ACCEPTED)], lease=60.0)
    assert await store.outbox.find(A, "m3") is None
    assert await store.outbox.find(A, "m4") is not None
    for number in range(3):
        await store.outbox.put(A, [message(f"x{number}", f"held{number}"), message(f"y{number}", f"held{number}")])
        (claim,) = await take(store)
        refused = Settlement(state=MessageState.REFUSED, reason="no", holds_lane=True)
        await store.outbox.advance(A, [(claim, refused)], lease=60.0)
    counts = await store.outbox.counts(A)
    assert (counts.accepted, counts.refused, counts.held_lanes, counts.waiting) == (14, 3, 2, 3)
    assert [entry.message.id for _, entry in await store.outbox.exceptions(A)] == ["mx1", "mx2"]
    assert [claim.message.id for claim in await take(store)] == ["my0"]


async def test_a_message_put_while_its_lane_comes_to_its_end_is_not_forgotten(postgres: PostgresPlace) -> None:
    """The last message is settled and the next one put at the same time, again and again."""
    store = new_store(postgres)
    await store.outbox.put(A, [message(0)])
    (claim,) = await take(store)
    for number in range(1, 25):
        put: list[PutResult] = []

        async def puts(number: int, put: list[PutResult]) -> None:
            put += await store.outbox.put(A, [message(number)])

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(puts, number, put)
            (advance,) = await store.outbox.advance(A, [(claim, ACCEPTED)], lease=60.0)
        assert put == [PutResult.ADDED]
        claim = advance.next or (await take(store))[0]
        assert claim.message.id == f"m{number}"
    await store.aclose()


async def test_a_lane_of_which_nothing_is_left_is_dropped_by_whoever_claims_it(
    store: PostgresStore, postgres: PostgresPlace
) -> None:
    """Two that put the same message at the same instant may leave one."""
    await store.outbox.put(A, [message(1)])
    await sql(postgres, "INSERT INTO lanes (account_id, lane, free_at) VALUES (%s, 'empty', 0)", A)
    assert [claim.message.id for claim in await take(store)] == ["m1"]
    assert await sql(postgres, "SELECT lane FROM lanes") == [("anna",)]


async def test_the_counts_of_an_older_schema_are_taken_over(postgres: PostgresPlace) -> None:
    """They were counted in the messages, and kept only for those that had been dropped."""
    store = new_store(postgres)
    store._engine.migrations = MIGRATIONS[:1]
    await store.first_time(A, "make the tables")
    await store.aclose()
    await sql(
        postgres,
        """
        INSERT INTO messages (account_id, id, lane, body, request_id, put_at, state, maybe_duplicate, settled_at)
        SELECT %s, 'm' || number, 'anna', '', 'r', 0, state, maybe_duplicate, CASE WHEN state > 1 THEN 1 END
        FROM (VALUES (1, 2, true), (2, 2, false), (3, 3, false), (4, 1, true), (5, 0, false))
            AS old (number, state, maybe_duplicate)
        """,
        A,
    )
    await sql(postgres, "INSERT INTO pruned VALUES (%s, 2, false, 40), (%s, 2, true, 2)", A, A)
    await sql(postgres, "INSERT INTO lanes (account_id, lane, free_at) VALUES (%s, 'anna', 0)", A)
    store = new_store(postgres)
    counts = await store.outbox.counts(A)
    assert (counts.waiting, counts.begun, counts.accepted, counts.refused) == (1, 1, 44, 1)
    assert counts.maybe_duplicate == 3
    assert [claim.message.id for claim in await take(store)] == ["m4"]
    await store.aclose()


async def test_the_tallies_are_what_counting_gives(postgres: PostgresPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is asked, in whatever order; nothing has been dropped here."""
    monkeypatch.setattr("connector_async.store._postgres_pruning._ADD_UP_EVERY", 7)
    store, chance = new_store(postgres), random.Random(7)
    outbox, held = store.outbox, list[Claim]()
    finals = [state for state in MessageState if state is not MessageState.BEGUN]
    for number in range(150):
        action = chance.choice(["put", "claim", "advance", "advance", "release", "revive", "discard", "forget"])
        if action == "put":
            await outbox.put(A, [message(chance.randrange(200), chance.choice("abcdef")) for _ in range(5)])
        elif action == "claim":
            held += await take(store, owner=chance.choice("pq"), lease=chance.choice([0.0, 60.0]), limit=3)
        elif action == "advance":
            chosen = {claim.message.consumer: claim for claim in chance.sample(held, min(4, len(held)))}
            settlements = [
                (
                    claim,
                    Settlement(
                        state=(state := chance.choice(finals)),
                        maybe_duplicate=chance.random() < 0.3,
                        holds_lane=state.is_final and chance.random() < 0.2,
                    ),
                )
                for claim in chosen.values()
            ]
            held += [one.next for one in await outbox.advance(A, settlements, lease=60.0) if one.next is not None]
        elif action == "release":
            await outbox.release(A, chance.sample(held, min(2, len(held))))
        elif action == "forget" and number % 3 == 0:
            await outbox.forget(A, chance.choice("abcdef"))
        elif action in ("revive", "discard"):
            await getattr(outbox, action)(A, f"m{chance.randrange(200)}")
    tallied = "SELECT state, maybe_duplicate, sum(number)::int FROM tallies GROUP BY 1, 2 HAVING sum(number) <> 0"
    counted = "SELECT state, maybe_duplicate AND state > 1, count(*)::int FROM messages GROUP BY 1, 2"
    assert sorted(await sql(postgres, tallied)) == sorted(await sql(postgres, counted))
    counts = await outbox.counts(A)
    await store.aclose()
    assert counts.accepted > 0
    assert counts.unsettled > 0


async def test_the_tallies_are_added_up_now_and_then(
    store: PostgresStore, postgres: PostgresPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By whoever puts, claims or settles; what another process is adding up is left to it."""
    import psycopg

    monkeypatch.setattr("connector_async.store._postgres_pruning._ADD_UP_EVERY", 5)
    for number in range(30):
        await store.outbox.put(A, [message(number)])
        (claim,) = await take(store)
        await store.outbox.advance(A, [(claim, ACCEPTED)], lease=60.0)
    ((rows,),) = await sql(postgres, "SELECT count(*) FROM tallies")
    assert rows < 40
    counts = await store.outbox.counts(A)
    assert (counts.accepted, counts.unsettled) == (30, 0)
    options = f"-c search_path={postgres.schema}"
    async with await psycopg.AsyncConnection.connect(postgres.dsn, options=options) as other:
        await other.execute("SELECT 1 FROM tallies FOR UPDATE")
        await store.outbox.put(A, [message(number) for number in range(100, 105)])
        assert await store.outbox.counts(A) != counts
    assert (await store.outbox.counts(A)).unsettled == 5


async def test_to_begin_a_message_touches_no_index(store: PostgresStore, postgres: PostgresPlace) -> None:
    """The new version of its row lies beside the old one (a HOT update): half of what a claim cost the database."""
    await store.outbox.put(A, [message(number, f"lane{number}") for number in range(8)])
    assert len(await take(store)) == 8
    await store.aclose()
    updates: list[tuple[Any, ...]] = []
    with anyio.fail_after(60):
        while updates != [(8, 8)]:  # told when the connection ends, which nobody waits for
            updates = await sql(
                postgres,
                "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relid = 'messages'::regclass",
            )
            assert updates[0] in [(0, 0), (8, 8)]
