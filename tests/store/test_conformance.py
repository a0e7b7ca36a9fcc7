"""What every store does, whichever engine keeps it."""

from __future__ import annotations

import anyio
import pytest

from connector_async.store import (
    Admission,
    ConsumerRecord,
    ContactStore,
    ConversationRecord,
    DeliveryCounts,
    Store,
)
from tests.guards import CANARY

pytestmark = pytest.mark.anyio

A, B = "12345678", "87654321"


def consumer(ext: str, lp: str | None = None, account: str = A, token: str = f"{CANARY}-jws") -> ConsumerRecord:
    return ConsumerRecord(account_id=account, ext_consumer_id=ext, lp_consumer_id=lp, token=token)


def conversation(conversation_id: str, ext: str = "anna", account: str = A, **facts: object) -> ConversationRecord:
    return ConversationRecord(account_id=account, conversation_id=conversation_id, ext_consumer_id=ext, **facts)  # type: ignore[arg-type]  # facts of the record


async def put(store: Store, key: str, lane: str = "c", account: str = A, received_at: float = 1.0) -> Admission:
    return await store.put_delivery(account, key=key, lane=lane, body=b"{}", received_at=received_at, part=2)


async def claim(store: Store, owner: str = "me", now: float = 10.0, limit: int = 10, lease: float = 5.0) -> list[str]:
    claimed = await store.claim_deliveries(A, owner=owner, now=now, lease_until=now + lease, limit=limit)
    return [delivery.key for delivery in claimed]


async def test_every_engine_is_a_store(store: Store) -> None:
    """The Protocol is what the session knows."""
    assert isinstance(store, Store)


async def test_a_consumer_is_found_by_both_ids(store: Store) -> None:
    """A webhook names only the cloud's id."""
    await store.put_consumer(consumer("anna", "lp-1"))
    await store.put_consumer(consumer("bert"))
    assert await store.get_consumer(A, "anna") == consumer("anna", "lp-1")
    assert await store.find_consumer(A, "lp-1") == consumer("anna", "lp-1")
    assert await store.get_consumer(A, "bert") == consumer("bert")
    assert await store.get_consumer(A, "nobody") is None
    assert await store.find_consumer(A, "nobody") is None


async def test_accounts_do_not_see_each_other(store: Store) -> None:
    """One store may serve many accounts."""
    await store.put_consumer(consumer("anna", "lp-1"))
    await store.put_conversation(conversation("c-1"))
    await put(store, "k")
    await store.first_time(A, "seen")
    assert await store.get_consumer(B, "anna") is None
    assert await store.find_consumer(B, "lp-1") is None
    assert await store.get_conversation(B, "c-1") is None
    assert await store.get_open_conversation(B, "anna") is None
    assert await store.first_time(B, "seen")
    assert await put(store, "k", account=B) is Admission.NEW


async def test_a_newer_record_replaces_the_older(store: Store) -> None:
    """A new token for the same consumer; its cloud id may have become known."""
    await store.put_consumer(consumer("anna", None, token="old"))
    await store.put_consumer(consumer("anna", "lp-1", token="new"))
    assert await store.get_consumer(A, "anna") == consumer("anna", "lp-1", token="new")
    await store.put_conversation(conversation("c-1", client_properties="{}"))
    newer = conversation("c-1", client_properties="{...}", opened_at=2.5, is_closed=True)
    await store.put_conversation(newer)
    assert await store.get_conversation(A, "c-1") == newer


async def test_who_does_not_know_the_properties_of_a_conversation_does_not_erase_them(store: Store) -> None:
    """Two processes take one conversation up at the same moment: one opened it, the other heard of it."""
    await store.put_conversation(conversation("c-1", client_properties=None))
    await store.put_conversation(conversation("c-1", client_properties="{}"))
    await store.put_conversation(conversation("c-1", client_properties=None, opened_at=2.5))
    await store.put_conversation(conversation("c-2", client_properties=None))
    assert await store.get_conversation(A, "c-1") == conversation("c-1", client_properties="{}", opened_at=2.5)
    assert await store.get_conversation(A, "c-2") == conversation("c-2", client_properties=None)


async def test_a_cloud_id_that_moved_leads_to_the_new_consumer(store: Store) -> None:
    """Two channel ids for one cloud id: the newest counts, and dropping the older does not hide it."""
    await store.put_consumer(consumer("anna", "lp-1"))
    await store.put_consumer(consumer("anna2", "lp-1"))
    await store.put_consumer(consumer("anna", "lp-2"))
    found = await store.find_consumer(A, "lp-1")
    assert found is not None
    assert found.ext_consumer_id == "anna2"


async def test_a_refused_token_is_forgotten_but_not_its_consumer(store: Store) -> None:
    """401 for a ConsumerJWS: fetch a new one, keep the rest."""
    await store.put_consumer(consumer("anna", "lp-1"))
    await store.drop_consumer_token(A, "anna")
    await store.drop_consumer_token(A, "nobody")
    assert await store.find_consumer(A, "lp-1") == consumer("anna", "lp-1", token="")


async def test_the_open_conversation_is_the_newest_that_is_not_closed(store: Store) -> None:
    """There is at most one in the cloud (how-to guide)."""
    assert await store.get_open_conversation(A, "anna") is None
    await store.put_conversation(conversation("c-1", opened_at=1.0))
    await store.put_conversation(conversation("c-2", opened_at=2.0))
    await store.put_conversation(conversation("c-3", opened_at=3.0, is_closed=True))
    await store.put_conversation(conversation("other", ext="bert", opened_at=9.0))
    assert await store.get_open_conversation(A, "anna") == conversation("c-2", opened_at=2.0)
    await store.close_conversation(A, "c-2")
    await store.close_conversation(A, "unknown")
    assert await store.get_open_conversation(A, "anna") == conversation("c-1", opened_at=1.0)
    assert await store.get_conversation(A, "c-2") == conversation("c-2", opened_at=2.0, is_closed=True)


async def test_a_contact_is_the_consumer_and_the_open_conversation(store: Store) -> None:
    """One look-up where they lie far away; either may be missing. In memory nobody asks for both."""
    if not isinstance(store, ContactStore):
        assert not store.durable
        return
    assert await store.get_contact(A, "anna") == (None, None)
    await store.put_consumer(consumer("anna", "lp-1"))
    await store.put_consumer(consumer("carl"))
    assert await store.get_contact(A, "anna") == (consumer("anna", "lp-1"), None)
    for number in (1, 2):
        await store.put_conversation(conversation(f"c-{number}", opened_at=number, client_properties=f"p-{number}"))
    await store.put_conversation(conversation("c-3", opened_at=3.0, is_closed=True))
    await store.put_conversation(conversation("c-4", ext="bert"))
    assert await store.get_contact(A, "anna") == (
        await store.get_consumer(A, "anna"),
        await store.get_open_conversation(A, "anna"),
    )
    assert await store.get_contact(A, "bert") == (None, conversation("c-4", ext="bert"))
    assert await store.get_contact(A, "carl") == (consumer("carl"), None)
    assert await store.get_contact(B, "anna") == (None, None)


async def test_a_key_is_new_once(store: Store) -> None:
    """Doubles are dropped by it, also across workers."""
    assert [await store.first_time(A, key) for key in ("a", "b", "a")] == [True, True, False]


async def test_an_echo_is_given_out_once(store: Store) -> None:
    """The worker that got it and the worker that waits for it are two."""
    await store.put_echo(A, "c", "digest", 4)
    await store.put_echo(A, "c", "digest", None)
    assert await store.take_echo(A, "c", "other") == (False, None)
    assert [await store.take_echo(A, "c", "digest") for _ in range(3)] == [(True, 4), (True, None), (False, None)]


async def test_a_delivery_is_kept_claimed_and_settled(store: Store) -> None:
    """The way of an event through the durable inbox."""
    assert await put(store, "k1", received_at=3.0) is Admission.NEW
    assert await put(store, "k1") is Admission.SEEN
    (delivery,) = await store.claim_deliveries(A, owner="me", now=10.0, lease_until=15.0, limit=10)
    assert (delivery.key, delivery.lane, delivery.body, delivery.part) == ("k1", "c", b"{}", 2)
    assert (delivery.received_at, delivery.attempts) == (3.0, 1)
    assert await store.delivery_counts(A) == DeliveryCounts(waiting=0, claimed=1, dead=0, oldest_received_at=3.0)
    assert await store.settle_delivery(A, "k1", owner="me")
    assert not await store.settle_delivery(A, "k1", owner="me")
    assert await store.delivery_counts(A) == DeliveryCounts(waiting=0, claimed=0, dead=0, oldest_received_at=None)
    assert await put(store, "k1") is Admission.SEEN


async def test_deliveries_are_claimed_oldest_first_and_once(store: Store) -> None:
    """Order of arrival, up to the limit."""
    for number in range(5):
        await put(store, f"k{number}", lane=f"lane{number}")
    assert await claim(store, limit=3) == ["k0", "k1", "k2"]
    assert await claim(store, limit=3) == ["k3", "k4"]
    assert await claim(store, limit=3) == []


async def test_a_lane_belongs_to_one_worker_while_its_lease_lives(store: Store) -> None:
    """The events of one conversation are not handled by two workers at once."""
    for key, lane in (("a1", "a"), ("a2", "a"), ("b1", "b")):
        await put(store, key, lane)
    assert await claim(store, "first", limit=1) == ["a1"]
    assert await claim(store, "second") == ["b1"]
    assert await claim(store, "first") == ["a2"]


async def test_a_lease_that_ended_goes_to_another_worker(store: Store) -> None:
    """The first one was killed; or it was only slow, then its mark no longer counts."""
    await put(store, "k")
    assert await claim(store, "first", now=10.0, lease=5.0) == ["k"]
    assert await claim(store, "second", now=14.9) == []
    (delivery,) = await store.claim_deliveries(A, owner="second", now=15.0, lease_until=20.0, limit=1)
    assert delivery.attempts == 2
    assert not await store.settle_delivery(A, "k", owner="first")
    assert not await store.retry_delivery(A, "k", owner="first", due_at=0.0)
    assert not await store.dead_letter_delivery(A, "k", owner="first", reason="")
    assert await store.settle_delivery(A, "k", owner="second")


async def test_leases_can_be_extended(store: Store) -> None:
    """A handler may take longer than a lease."""
    await put(store, "k")
    assert await claim(store, "first", now=10.0, lease=5.0) == ["k"]
    assert await store.renew_deliveries(A, owner="first", lease_until=100.0) == 1
    assert await store.renew_deliveries(A, owner="second", lease_until=100.0) == 0
    assert await claim(store, "second", now=50.0) == []


async def test_a_retry_waits_until_it_is_due_and_holds_up_nobody(store: Store) -> None:
    """A failing handler does not stop its conversation."""
    await put(store, "k1")
    await put(store, "k2")
    assert await claim(store, now=10.0, limit=1) == ["k1"]
    assert await store.retry_delivery(A, "k1", owner="me", due_at=30.0)
    assert await claim(store, now=11.0, lease=100.0) == ["k2"]
    assert await claim(store, now=29.0, limit=1) == []
    (again,) = await store.claim_deliveries(A, owner="me", now=30.0, lease_until=99.0, limit=1)
    assert (again.key, again.attempts) == ("k1", 2)


async def test_what_is_given_up_is_kept_aside_and_can_be_revived(store: Store) -> None:
    """A person looks at it, mends the handler, and lets it go again."""
    await put(store, "k", received_at=7.0)
    await claim(store)
    assert await store.dead_letter_delivery(A, "k", owner="me", reason="handler: ValueError")
    (dead,) = await store.dead_deliveries(A)
    assert (dead.key, dead.lane, dead.body, dead.part, dead.received_at) == ("k", "c", b"{}", 2, 7.0)
    assert (dead.attempts, dead.reason, dead.account_id) == (1, "handler: ValueError", A)
    assert await put(store, "k") is Admission.SEEN
    assert await claim(store, now=1000.0) == []
    assert await store.revive_delivery(A, "k")
    assert not await store.revive_delivery(A, "k")
    (revived,) = await store.claim_deliveries(A, owner="me", now=10.0, lease_until=20.0, limit=1)
    assert revived.attempts == 1


async def test_a_stopping_worker_gives_its_claims_back(store: Store) -> None:
    """Others go on at once, and the claim does not count as an attempt."""
    await put(store, "k")
    assert await claim(store, "first") == ["k"]
    assert await store.release_deliveries(A, owner="second") == 0
    assert await store.release_deliveries(A, owner="first") == 1
    (delivery,) = await store.claim_deliveries(A, owner="second", now=10.0, lease_until=20.0, limit=1)
    assert delivery.attempts == 1


async def test_the_inbox_is_bounded(store: Store) -> None:
    """What waits, what was handled and what is dead."""
    for number in range(100):
        assert await put(store, f"k{number}") is Admission.NEW
    assert await put(store, "k100") is Admission.FULL
    for key in await claim(store, limit=4):
        await store.dead_letter_delivery(A, key, owner="me", reason="no")
    assert [dead.key for dead in await store.dead_deliveries(A)] == ["k1", "k2", "k3"]
    assert [dead.key for dead in await store.dead_deliveries(A, limit=1)] == ["k1"]
    assert await put(store, "k100") is Admission.NEW
    assert (await store.delivery_counts(A)).waiting == 97


async def test_remembered_keys_are_bounded(store: Store) -> None:
    """Old ones are forgotten, new ones are not."""
    for number in range(140):
        await put(store, f"k{number}")
        await store.settle_delivery(A, (await claim(store))[0], owner="me")
        await store.first_time(A, f"s{number}")
        await store.put_echo(A, "c", f"e{number}", number)
        await store.put_consumer(consumer(f"x{number}"))
        await store.put_conversation(conversation(f"c{number}", ext=f"x{number}"))
    assert await store.first_time(A, "s0")
    assert not await store.first_time(A, "s139")
    assert await store.take_echo(A, "c", "e0") == (False, None)
    assert await store.take_echo(A, "c", "e139") == (True, 139)
    assert await store.get_consumer(A, "x0") is None
    assert await store.get_consumer(A, "x139") is not None
    assert await store.get_conversation(A, "c0") is None
    assert await store.get_open_conversation(A, "x0") is None
    assert await store.get_conversation(A, "c139") is not None
    assert await put(store, "k0") is Admission.NEW
    assert await put(store, "k139") is Admission.SEEN


async def test_a_forgotten_consumer_leaves_nothing_behind(store: Store) -> None:
    """`forget`: the token, all conversations, and the bodies in the inbox."""
    for ext, conversation_id in (("anna", "c-1"), ("anna", "c-2"), ("bert", "c-3")):
        await store.put_consumer(consumer(ext, f"lp-{ext}"))
        await store.put_conversation(conversation(conversation_id, ext=ext))
        await store.put_echo(A, conversation_id, "digest", 1)
        for state in ("waiting", "claimed", "dead", "settled"):
            await put(store, f"{state}-{conversation_id}", lane=conversation_id)
    for key in await claim(store, limit=100):
        if key.startswith("dead"):
            await store.dead_letter_delivery(A, key, owner="me", reason="no")
        elif key.startswith("settled"):
            await store.settle_delivery(A, key, owner="me")
        elif key.startswith("waiting"):
            await store.retry_delivery(A, key, owner="me", due_at=0.0)
    await store.forget(A, "anna")
    await store.forget(A, "nobody")
    assert await store.get_consumer(A, "anna") is None
    assert await store.find_consumer(A, "lp-anna") is None
    assert await store.get_conversation(A, "c-1") is None
    assert await store.get_open_conversation(A, "anna") is None
    assert await store.take_echo(A, "c-1", "digest") == (False, None)
    assert await store.delivery_counts(A) == DeliveryCounts(waiting=1, claimed=1, dead=1, oldest_received_at=1.0)
    assert [dead.key for dead in await store.dead_deliveries(A)] == ["dead-c-3"]
    assert await store.get_open_conversation(A, "bert") is not None
    assert await store.take_echo(A, "c-3", "digest") == (True, 1)
    assert await claim(store, now=50.0) == ["waiting-c-3", "claimed-c-3"]


async def test_many_tasks_may_use_it_at_once(store: Store) -> None:
    """Each key is new to exactly one of them."""
    news: list[str] = []

    async def meet(key: str) -> None:
        if await store.first_time(A, key):
            news.append(key)

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            for number in range(90):
                for _ in range(3):
                    tasks.start_soon(meet, str(number))
    assert sorted(news) == sorted(str(number) for number in range(90))


async def test_closing_twice_is_harmless(store: Store) -> None:
    """`aclose` is idempotent."""
    await store.first_time(A, "k")
    await store.aclose()
    await store.aclose()


async def test_records_show_no_token_and_no_body(store: Store) -> None:
    """Tokens and message text appear in no repr."""
    await store.put_consumer(consumer("anna"))
    await store.put_delivery(A, key="k", lane="c", body=f'"{CANARY}"'.encode(), received_at=1.0)
    claimed = await store.claim_deliveries(A, owner="me", now=1.0, lease_until=2.0, limit=1)
    await store.dead_letter_delivery(A, "k", owner="me", reason="no")
    shown = repr([await store.get_consumer(A, "anna"), claimed, await store.dead_deliveries(A), store])
    assert CANARY not in shown
