"""The store in memory beside a plain model of it: what is kept, and who goes first."""

from __future__ import annotations

import random
from collections import OrderedDict

import attrs
import pytest

from connector_async.store import ConsumerRecord, ConversationRecord, MemoryStore

pytestmark = pytest.mark.anyio

ROOM = 5
ACCOUNTS = ("12345678", "87654321")
NAMES = ("anna", "bert", "cora", "dirk")
LP_IDS = (None, "a1" * 32, "b2" * 32, "A1" * 32, "lp-1", "a1 b2", "")
"""Nobody's, two as the cloud gives them, one that is the first in another spelling, and three of other forms."""


class Model:
    """Records in the order of their use, one dictionary of each kind for all accounts."""

    def __init__(self) -> None:
        self.consumers: OrderedDict[tuple[str, str], ConsumerRecord] = OrderedDict()
        self.by_lp_id: dict[tuple[str, str], ConsumerRecord] = {}
        self.conversations: OrderedDict[tuple[str, str], ConversationRecord] = OrderedDict()

    def put_consumer(self, record: ConsumerRecord) -> None:
        self._drop(record.account_id, record.ext_consumer_id)
        self.consumers[record.account_id, record.ext_consumer_id] = record
        if record.lp_consumer_id is not None:
            self.by_lp_id[record.account_id, record.lp_consumer_id] = record
        if len(self.consumers) > ROOM:
            self._drop(*next(iter(self.consumers)))

    def get_consumer(self, account: str, name: str) -> ConsumerRecord | None:
        if (account, name) in self.consumers:
            self.consumers.move_to_end((account, name))
        return self.consumers.get((account, name))

    def find_consumer(self, account: str, lp_id: str) -> ConsumerRecord | None:
        found = self.by_lp_id.get((account, lp_id))
        return None if found is None else self.get_consumer(account, found.ext_consumer_id)

    def drop_consumer_token(self, account: str, name: str) -> None:
        if (account, name) in self.consumers:
            self.consumers[account, name] = attrs.evolve(self.consumers[account, name], token="")

    def put_conversation(self, record: ConversationRecord) -> None:
        known = self.conversations.get((record.account_id, record.conversation_id))
        if known is not None and record.client_properties is None:
            record = attrs.evolve(record, client_properties=known.client_properties)
        self.conversations[record.account_id, record.conversation_id] = record
        self.conversations.move_to_end((record.account_id, record.conversation_id))
        if len(self.conversations) > ROOM:
            self.conversations.popitem(last=False)

    def get_conversation(self, account: str, conversation_id: str) -> ConversationRecord | None:
        if (account, conversation_id) in self.conversations:
            self.conversations.move_to_end((account, conversation_id))
        return self.conversations.get((account, conversation_id))

    def get_open_conversation(self, account: str, name: str) -> ConversationRecord | None:
        theirs = [
            record
            for record in self.conversations.values()
            if (record.account_id, record.ext_consumer_id, record.is_closed) == (account, name, False)
        ]
        return max(theirs, key=lambda record: record.opened_at, default=None)

    def close_conversation(self, account: str, conversation_id: str) -> None:
        if (account, conversation_id) in self.conversations:
            known = self.conversations[account, conversation_id]
            self.conversations[account, conversation_id] = attrs.evolve(known, is_closed=True)

    def forget(self, account: str, name: str) -> None:
        self._drop(account, name)
        for key, record in list(self.conversations.items()):
            if (record.account_id, record.ext_consumer_id) == (account, name):
                del self.conversations[key]

    def _drop(self, account: str, name: str) -> None:
        known = self.consumers.pop((account, name), None)
        if known is not None and known.lp_consumer_id is not None:
            owner = self.by_lp_id.get((account, known.lp_consumer_id))
            if owner is not None and owner.ext_consumer_id == name:
                del self.by_lp_id[account, known.lp_consumer_id]


@pytest.mark.parametrize("seed", range(20))
async def test_it_keeps_what_a_plain_model_keeps(seed: int) -> None:
    """Two accounts share the room of each kind; whatever is not kept, the least recently used went first."""
    chance, store, model, clock = random.Random(seed), MemoryStore(max_entries=ROOM), Model(), 0.0
    for _ in range(600):
        account, name = chance.choice(ACCOUNTS), chance.choice(NAMES)
        lp_id, conversation_id = chance.choice(LP_IDS), f"c-{chance.randrange(8)}"
        clock += 1.0
        match chance.randrange(8):
            case 0:
                consumer = ConsumerRecord(
                    account_id=account, ext_consumer_id=name, lp_consumer_id=lp_id, token=f"jws.{clock}"
                )
                await store.put_consumer(consumer)
                model.put_consumer(consumer)
            case 1:
                assert await store.get_consumer(account, name) == model.get_consumer(account, name)
            case 2:
                assert await store.find_consumer(account, lp_id or "?") == model.find_consumer(account, lp_id or "?")
            case 3:
                await store.drop_consumer_token(account, name)
                model.drop_consumer_token(account, name)
            case 4 | 5:
                record = ConversationRecord(
                    account_id=account,
                    conversation_id=conversation_id,
                    ext_consumer_id=name,
                    client_properties=chance.choice([None, "{}"]),
                    opened_at=clock,
                )
                await store.put_conversation(record)
                model.put_conversation(record)
            case 6:
                await store.close_conversation(account, conversation_id)
                model.close_conversation(account, conversation_id)
            case _ if chance.random() < 0.1:
                await store.forget(account, name)
                model.forget(account, name)
            case _:
                found = await store.get_conversation(account, conversation_id)
                assert found == model.get_conversation(account, conversation_id)
        assert await store.get_open_conversation(account, name) == model.get_open_conversation(account, name)


async def test_of_whom_nothing_is_known_nothing_is_kept() -> None:
    """A consumer who was only named by conversations goes with the last of them, and may come again."""
    store = MemoryStore(max_entries=1)
    for number in range(3):
        record = ConversationRecord(account_id="1", conversation_id=f"c-{number}", ext_consumer_id=f"e-{number}")
        await store.put_conversation(record)
    assert [await store.get_open_conversation("1", f"e-{number}") for number in range(3)] == [None, None, record]
    assert await store.get_consumer("1", "e-2") is None
    await store.drop_consumer_token("1", "e-2")
    await store.forget("1", "e-2")
    await store.forget("1", "e-2")
    assert await store.get_conversation("1", "c-2") is None
