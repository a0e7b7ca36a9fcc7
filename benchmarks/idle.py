"""Consumers who are known and silent: what each of them takes, and what a message costs beside them.

A scenario (see `scenario`): it runs in a process of its own.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterable, Iterator
from itertools import count, islice
from typing import TYPE_CHECKING

import attrs

from benchmarks.client import all_workers, measure_sends
from benchmarks.job import Job
from benchmarks.machine import rss

if TYPE_CHECKING:
    from connector_async import ConnectorSession, Conversation
    from connector_async.store.memory import MemoryStore

HELD = ("nothing", "conversation", "both")
"""What the application keeps of a consumer: no handle, that of the conversation, or that of the consumer too."""
REMEMBERED = 10_000
"""Ids of finished requests that a session holds at least, to know a late answer; at most twice as many."""
IDS = 3
"""Requests of one consumer who opens a conversation and sends one message."""
ACCOUNT = "12345678"


async def idle(job: Job, *, consumers: int, held: str = "") -> dict[str, object]:
    """The memory of consumers who are known and silent, and what a message costs beside them.

    `held`: each has opened a conversation and sent one message, and the application keeps that much of them; empty:
    each is in the store with token and conversation, and the application makes a handle of the conversation.
    """
    from benchmarks.rivals import payload
    from benchmarks.rivals.session import open_session
    from connector_async import SessionLimits
    from connector_async.store.memory import MemoryStore

    # The default, for as many as fit twice into it.
    room = max(100_000, 4 * (consumers + job.in_flight))
    store = MemoryStore(max_entries=room)
    limits = SessionLimits(max_in_flight=job.in_flight, max_cached_consumers=room, max_queue=room)
    async with open_session(job, limits, store) as session:
        active = [_handle(session, f"active-{n}", payload.conversation_id(-n - 1)) for n in range(job.in_flight)]

        async def send(messages: int) -> None:
            left = iter(range(messages))
            await all_workers(job.in_flight, lambda worker: _send(active[worker], left))

        kept: list[object] = []
        await send(job.in_flight)
        if held:
            # The first as many do not count: after them all is full that is bounded (connections, timers, ids of
            # finished requests), and every table doubles once while the others come.
            numbers = count()
            kept += await _opened(session, job, islice(numbers, consumers), held)
            await send(max(2 * REMEMBERED - IDS * consumers, -IDS * consumers % REMEMBERED))
            before = _resident()
            kept += await _opened(session, job, islice(numbers, consumers), held)
            await send(-IDS * consumers % REMEMBERED)
        else:
            before = _resident()
            await _seed(store, consumers)
            kept += [_handle(session, _name(n), payload.conversation_id(n)) for n in range(consumers)]
        memory = _resident() - before
        record = await store.get_consumer(ACCOUNT, _name(consumers - 1))
        assert record is not None
        sample = await measure_sends(job, lambda worker: active[worker].send_text(payload.TEXT))
    return {
        **attrs.asdict(sample),
        "memory": memory,
        "bytes_per_consumer": memory / consumers,
        "token_bytes": sys.getsizeof(record.token),
    }


def _name(number: int) -> str:
    """A phone number: what most channels have."""
    return f"+49151{number:08d}"


def _handle(session: ConnectorSession, ext_consumer_id: str, conversation_id: str) -> Conversation:
    return session.conversation(conversation_id, session.consumer(ext_consumer_id))


async def _send(conversation: Conversation, left: Iterator[int]) -> None:
    from benchmarks.rivals import payload

    for _ in left:
        await conversation.send_text(payload.TEXT)


async def _opened(session: ConnectorSession, job: Job, numbers: Iterable[int], held: str) -> list[object]:
    """Consumers who open a conversation and send one message; what the application keeps of them."""
    from benchmarks.rivals import payload

    left = iter(numbers)
    kept: list[object] = []

    async def work() -> None:
        for number in left:
            consumer = session.consumer(_name(number))
            conversation = await consumer.open_conversation()
            await conversation.send_text(payload.TEXT)
            keep: dict[str, tuple[object, ...]] = {"conversation": (conversation,), "both": (conversation, consumer)}
            kept.extend(keep.get(held, ()))

    await all_workers(job.in_flight, lambda _: work())
    return kept


async def _seed(store: MemoryStore, consumers: int) -> None:
    """Put consumers with token and conversation into a store."""
    from benchmarks.rivals import payload
    from connector_async.store.base import ConsumerRecord, ConversationRecord

    for number in range(consumers):
        name, token = _name(number), payload.consumer_token(number)
        await store.put_consumer(
            ConsumerRecord(account_id=ACCOUNT, ext_consumer_id=name, lp_consumer_id=f"{number:064x}", token=token)
        )
        conversation_id = payload.conversation_id(number)
        await store.put_conversation(
            ConversationRecord(account_id=ACCOUNT, conversation_id=conversation_id, ext_consumer_id=name)
        )


def _resident() -> int:
    gc.collect()
    return rss()
