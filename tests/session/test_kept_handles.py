"""Which handles a session keeps, which live as long as somebody holds them, and that all holders see the same one."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from connector_async import MemoryStore, SessionLimits
from connector_async.store import ConversationRecord
from tests.session.rig import FakeCloud, session_over

pytestmark = pytest.mark.anyio


class CountingStore(MemoryStore):
    """Counts how often it is asked for a consumer's conversation."""

    looks = 0

    async def get_open_conversation(self, account_id: str, ext_consumer_id: str) -> ConversationRecord | None:
        CountingStore.looks += 1
        return await super().get_open_conversation(account_id, ext_consumer_id)


@pytest.fixture
def looks() -> Iterator[type[CountingStore]]:
    CountingStore.looks = 0
    gc.collect()
    gc.disable()
    yield CountingStore
    gc.enable()


async def test_a_handle_that_nobody_holds_is_gone_at_once(looks: type[CountingStore]) -> None:
    """No collector has to find it: there may be a million of them."""
    async with session_over(FakeCloud(), store=looks()) as session:
        consumer = session.consumer("anna")
        conversation = session.conversation("c-1", consumer)
        await conversation.send_text("hello")
        gone = weakref.ref(consumer), weakref.ref(conversation)
        assert session.consumer("anna") is conversation.consumer is consumer
        assert session.conversation("c-1", "anna") is conversation
        del consumer, conversation
        assert [one() for one in gone] == [None, None]


async def test_the_next_message_of_a_consumer_needs_no_look_into_the_store(looks: type[CountingStore]) -> None:
    """Whether or not the application has kept a handle of the first."""
    async with session_over(FakeCloud(), store=looks()) as session:
        first = weakref.ref(await session.consumer("anna").ensure_conversation())
        await session.consumer("anna").send_text("hello")
        assert (await session.consumer("anna").ensure_conversation()) is first() is not None
        assert looks.looks == 1


async def test_open_conversations_are_kept_of_the_consumers_used_last(looks: type[CountingStore]) -> None:
    """`max_cached_consumers` bounds them; of the others the store knows, and who holds a handle has the same one."""
    limits = SessionLimits(max_cached_consumers=2)
    async with session_over(FakeCloud(), store=looks(), limits=limits) as session:
        held = await session.consumer("anna").ensure_conversation()
        first = weakref.ref(await session.consumer("bert").ensure_conversation())
        await session.consumer("anna").send_text("hello")
        await session.consumer("cora").ensure_conversation()
        assert first() is None
        assert looks.looks == 3
        await session.consumer("dirk").ensure_conversation()
        assert await session.find_conversation(held.conversation_id) is held
        assert await session.consumer("anna").ensure_conversation() is held
        assert looks.looks == 5


async def test_a_conversation_that_ended_is_not_kept(looks: type[CountingStore]) -> None:
    """The next message opens another; who holds the old handle sees it closed."""
    async with session_over(FakeCloud(), store=looks()) as session:
        held = await session.consumer("anna").ensure_conversation()
        gone = weakref.ref(await session.consumer("bert").ensure_conversation())
        held.consumer.note_closed("another")
        assert not held.is_closed
        for name, conversation_id in (("anna", held.conversation_id), ("bert", gone().conversation_id)):  # type: ignore[union-attr]
            session.consumer(name).note_closed(conversation_id)
        assert (held.is_closed, gone()) == (True, None)
        assert session.conversation(held.conversation_id, "anna") is held
        held.consumer.note_closed(held.conversation_id)


async def test_a_conversation_belongs_to_whom_it_was_said_to_belong_last(looks: type[CountingStore]) -> None:
    """Two handles of one conversation would disagree on whether it is closed."""
    async with session_over(FakeCloud(), store=looks()) as session:
        of_anna = await session.consumer("anna").ensure_conversation()
        session.consumer("anna").adopt(of_anna)
        of_bert = session.conversation(of_anna.conversation_id, "bert")
        assert of_bert is not of_anna
        assert session.conversation(of_anna.conversation_id, "bert") is of_bert
        assert await session.find_conversation(of_anna.conversation_id) is of_bert
        session.consumer("bert").adopt(of_bert)
        another = session.conversation("c-other", "bert")
        session.consumer("bert").adopt(another)
        assert await session.consumer("bert").ensure_conversation() is another
        never_open = session.conversation("c-2", "anna")
        assert session.conversation("c-2", "bert") is not never_open


async def test_who_listens_keeps_the_handle(looks: type[CountingStore]) -> None:
    """A conversation that no store knows would else be heard by nobody."""
    session = session_over(FakeCloud(), store=looks())
    session.webhook_app()
    async with session:
        events = session.conversation("c-1", "anna").events()
        assert await session.find_conversation("c-1") is not None
        del events
        assert await session.find_conversation("c-1") is None
