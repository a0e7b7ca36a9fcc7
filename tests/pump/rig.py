"""A pump over a small scripted cloud, and an outbox with scripted accidents."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio

from connector_async import ConnectorSession, MemoryStore, RetryPolicy
from connector_async.errors import StoreUnavailable
from connector_async.pump import Pump, PumpMessage
from connector_async.store.outbox import Advance, Claim, Outbox, OutboxEntry, Settlement
from connector_async.transport.base import Answer
from tests.doubles import FakeCloud, Post, answer, lost, ok
from tests.session.rig import session_over

__all__ = [
    "ACCOUNT",
    "BrittleOutbox",
    "OrderCloud",
    "closed",
    "entry_of",
    "message",
    "new_store",
    "pumping",
    "refused",
    "session_of",
    "texts",
]

ACCOUNT = "12345678"


def message(number: int, consumer: str = "shopper", **facts: Any) -> PumpMessage:
    return PumpMessage(f"{consumer}-{number}", consumer, facts.pop("body", f"text {number}"), **facts)


def refused(post: Post, reason: str = "no such thing", *, status: int = 400) -> Answer:
    """A clear no."""
    return answer(status, {"code": status, "body": {"msg": reason}, "reqId": post.ids[0]})


def closed(post: Post) -> Answer:
    """As the vendor says it."""
    return refused(post, "Conversation is closed", status=400)


def texts(posts: Sequence[Post]) -> list[str]:
    """What was published, in order."""
    return [post.json["body"]["event"]["message"] for post in posts if isinstance(post.json, dict)]


@asynccontextmanager
async def pumping(
    cloud: FakeCloud, store: MemoryStore | None = None, *, outbox: Any = None, **options: Any
) -> AsyncGenerator[Pump]:
    """A pump in a session of its own, which tries each message once."""
    kept = store if store is not None else new_store()
    session = session_over(cloud, store=kept, retry=options.pop("retry", RetryPolicy.none()))
    async with session, Pump(session, outbox or kept, **options) as pump:
        yield pump


def new_store(**limits: Any) -> MemoryStore:
    """One whose leases and pauses follow the loop's clock, so that a test need not wait for them."""
    store = MemoryStore(**limits)
    store.outbox.wall = anyio.current_time
    return store


async def entry_of(store: MemoryStore, number: int, consumer: str = "shopper") -> OutboxEntry:
    entry = await store.outbox.find(ACCOUNT, f"{consumer}-{number}")
    assert entry is not None
    return entry


class OrderCloud(FakeCloud):
    """Accepts, and remembers for each consumer the texts in the order in which it accepted them.

    Args:
        faults: The share of messages that meets an accident, before or after they landed.
    """

    def __init__(self, *, faults: float = 0.0, seed: int = 1, **options: Any) -> None:
        super().__init__(**options)
        self.faults = faults
        self.random = random.Random(seed)
        self.landed: defaultdict[str, list[str]] = defaultdict(list)
        self.on_message = self.take

    async def take(self, post: Post) -> Answer:
        await self._pass()
        payload = post.json
        if isinstance(payload, list):
            return ok(post)
        accident = self.random.random() < self.faults
        kind = self.random.choice(["429", "503", "lost before", "lost after"]) if accident else ""
        if kind == "429":
            return answer(429, {"code": 429, "body": {"msg": "slow down"}, "reqId": post.ids[0]})
        if kind == "503":
            return answer(503, b"")
        if kind == "lost before":
            raise lost()
        consumer = (post.header("X-LP-ON-BEHALF") or "").removeprefix("jws.")
        self.landed[consumer].append(payload["body"]["event"]["message"])
        if kind == "lost after":
            raise lost()
        return ok(post)


class BrittleOutbox:
    """Another outbox behind which the disk may be gone: `down` holds the names of calls that fail, or `"*"`."""

    def __init__(self, inner: Outbox) -> None:
        self.inner = inner
        self.down: set[str] = set()
        self.error: Exception = StoreUnavailable("the disk is full")
        self.delay = 0.0
        self.calls: defaultdict[str, int] = defaultdict(int)

    durable = False

    async def _pass(self, name: str) -> None:
        self.calls[name] += 1
        if self.delay:
            await anyio.sleep(self.delay)
        else:
            await anyio.lowlevel.checkpoint()
        if name in self.down or "*" in self.down:
            raise self.error

    async def advance(
        self, account_id: str, settlements: Sequence[tuple[Claim, Settlement]], *, lease: float
    ) -> list[Advance]:
        await self._pass("advance")
        return await self.inner.advance(account_id, settlements, lease=lease)

    def __getattr__(self, name: str) -> Any:
        if name == "outbox":
            raise AttributeError(name)  # it is one, and has none

        async def call(*args: Any, **options: Any) -> Any:
            await self._pass(name)
            return await getattr(self.inner, name)(*args, **options)

        return call


def session_of(cloud: FakeCloud, store: MemoryStore) -> ConnectorSession:
    """One that tries each message once."""
    return session_over(cloud, store=store, retry=RetryPolicy.none())
