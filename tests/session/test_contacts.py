"""What a message costs the store and the identity service when the session knows nothing of its consumer any more."""

from __future__ import annotations

from collections import Counter

import pytest

from connector_async import MemoryStore, SessionLimits
from connector_async.session import OutcomeStatus, Outgoing
from connector_async.store import ConsumerRecord, ConversationRecord, Store
from tests.doubles import FakeCloud
from tests.exchange.rig import rig
from tests.session.rig import session_over

pytestmark = pytest.mark.anyio

A = "12345678"
NAMES = ("c0", "c1", "c2", "c3", "c4", "c5")


class PlainStore(MemoryStore):
    """Counts what it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: Counter[str] = Counter()

    async def get_consumer(self, account_id: str, ext_consumer_id: str) -> ConsumerRecord | None:
        self.asked["get_consumer"] += 1
        return await super().get_consumer(account_id, ext_consumer_id)

    async def get_open_conversation(self, account_id: str, ext_consumer_id: str) -> ConversationRecord | None:
        self.asked["get_open_conversation"] += 1
        return await super().get_open_conversation(account_id, ext_consumer_id)


class ContactsStore(PlainStore):
    """Answers both in one, as the durable ones do."""

    async def get_contact(
        self, account_id: str, ext_consumer_id: str
    ) -> tuple[ConsumerRecord | None, ConversationRecord | None]:
        self.asked["get_contact"] += 1
        return (
            await MemoryStore.get_consumer(self, account_id, ext_consumer_id),
            await MemoryStore.get_open_conversation(self, account_id, ext_consumer_id),
        )


async def filled(store: Store) -> None:
    """Six consumers with conversation and token, and one of whom nothing but the conversation is known."""
    for name in (*NAMES, "tokenless"):
        if name != "tokenless":
            await store.put_consumer(
                ConsumerRecord(account_id=A, ext_consumer_id=name, lp_consumer_id=f"lp-{name}", token=f"jws.{name}")
            )
        await store.put_conversation(
            ConversationRecord(account_id=A, ext_consumer_id=name, conversation_id=f"of-{name}")
        )


@pytest.fixture
async def store() -> ContactsStore:
    store = ContactsStore()
    await filled(store)
    return store


async def test_a_consumer_whom_the_session_does_not_know_costs_one_look_up(store: ContactsStore) -> None:
    """Conversation and token are found together; the identity service is not asked for what the store has."""
    cloud = FakeCloud()
    async with session_over(cloud, store=store, limits=SessionLimits(max_cached_consumers=2)) as session:
        for turn in range(2):
            for name in NAMES:
                outcome = await session.send(Outgoing(name, f"text {turn}"))
                assert outcome.status is OutcomeStatus.ACCEPTED
                assert outcome.conversation_id == f"of-{name}"
    assert sum(store.asked.values()) <= 12
    assert cloud.consumer_posts == []
    assert [post.header("X-LP-ON-BEHALF") for post in cloud.message_posts][:2] == ["jws.c0", "jws.c1"]


async def test_a_token_in_memory_is_not_read_again(store: ContactsStore) -> None:
    """Only the conversation is asked for."""
    cloud = FakeCloud()
    async with session_over(cloud, store=store) as session:
        await session.conversation("of-c0", "c0").send_text("to a conversation that I know")
        await session.send(Outgoing("c0", "to whichever there is"))
        assert store.asked == {"get_consumer": 1, "get_open_conversation": 1}
    assert {post.header("X-LP-ON-BEHALF") for post in cloud.message_posts} == {"jws.c0"}


async def test_a_token_that_the_store_has_not_is_fetched(store: ContactsStore) -> None:
    """Once; the store has it from then on."""
    cloud = FakeCloud()
    async with session_over(cloud, store=store) as session:
        await session.send(Outgoing("tokenless", "hello"))
    assert len(cloud.consumer_posts) == 1
    store.asked.clear()
    async with session_over(cloud, store=store) as session:
        await session.send(Outgoing("tokenless", "hello again"))
    assert len(cloud.consumer_posts) == 1
    assert store.asked == {"get_contact": 1}


async def test_what_was_renewed_meanwhile_is_not_replaced_by_what_was_read(store: ContactsStore) -> None:
    """The token in memory is the newer one."""
    cloud = FakeCloud()
    async with rig(cloud, store=store) as r:
        token = await r.consumers.get("c0")
        stale = ConsumerRecord(account_id=A, ext_consumer_id="c0", lp_consumer_id=None, token="an.older.one")
        r.consumers.learn(stale)
        assert await r.consumers.get("c0") is token


async def test_a_store_without_that_look_up_is_asked_twice() -> None:
    """One that a user wrote, or the one in memory."""
    cloud, store = FakeCloud(), PlainStore()
    await filled(store)
    async with session_over(cloud, store=store) as session:
        outcome = await session.send(Outgoing("c0", "hello"))
    assert outcome.conversation_id == "of-c0"
    assert store.asked == {"get_open_conversation": 1, "get_consumer": 1}
