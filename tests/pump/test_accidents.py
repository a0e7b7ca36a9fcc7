"""Bugs of ours, or of a transport and a store that the user has written: no message is lost by one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import pytest

from connector_async import ContentEvent, MemoryStore
from connector_async.errors import LocalProtocolError, StoreUnavailable
from connector_async.pump import Pump, PumpPolicy
from connector_async.store.base import ConversationRecord
from connector_async.store.outbox import Advance, Claim, MessageState
from tests.doubles import FakeCloud
from tests.pump.rig import BrittleOutbox, entry_of, message, new_store, pumping, texts

pytestmark = pytest.mark.anyio

BUGS = (TypeError("'NoneType' object is not callable"), ValueError("not enough values"), KeyError("sequence"))


class FaultyStore(MemoryStore):
    """Fails where the open conversation is asked for, as often as `bugs` says."""

    bugs = 0

    async def get_open_conversation(self, account_id: str, ext_consumer_id: str) -> ConversationRecord | None:
        if self.bugs:
            self.bugs -= 1
            raise TypeError("a bug of the store")
        return await super().get_open_conversation(account_id, ext_consumer_id)


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: type(bug).__name__)
async def test_a_bug_on_the_way_of_a_message_is_no_refusal_of_it(bug: Exception, caplog: Any) -> None:
    """A TypeError of the transport once let the pump refuse the message for good."""
    store, cloud = new_store(), FakeCloud()
    cloud.script = [cloud.take_message, bug, bug]
    with anyio.fail_after(60):
        async with pumping(cloud, store) as pump:
            await pump.put(message(1), message(2))
            await pump.drained()
            assert (pump.stats.refused, pump.stats.retried) == (0, 2)
    entry = await entry_of(store, 1)
    # Nobody knows whether the transport had sent it.
    assert (entry.state, entry.attempts, entry.maybe_duplicate) == (MessageState.ACCEPTED, 3, True)
    assert texts(cloud.message_posts) == ["text 1", "text 1", "text 1", "text 2"]
    # One with its traceback; the message's next attempts say no more than it does.
    told = [record for record in caplog.records if record.exc_info and record.name == "connector_async.pump"]
    assert [record.exc_info[0] for record in told] == [type(bug)]


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: type(bug).__name__)
async def test_a_bug_that_stays_ends_a_message_after_the_attempts_of_the_policy(bug: Exception) -> None:
    """It can be revived when the bug is mended, and says what kind it was."""
    store, cloud = new_store(), FakeCloud()
    cloud.script = [cloud.take_message, bug, bug, bug]
    with anyio.fail_after(60):
        async with pumping(cloud, store, policy=PumpPolicy(max_attempts=3)) as pump:
            await pump.put(message(1), message(2))
            await pump.drained()
            entry = await entry_of(store, 1)
            assert (entry.state, entry.attempts, entry.reason) == (MessageState.UNKNOWN, 3, type(bug).__name__)
            assert (await entry_of(store, 2)).state is MessageState.ACCEPTED
            assert await store.outbox.revive("12345678", "shopper-1")
            await pump.drained()
    assert (await entry_of(store, 1)).state is MessageState.ACCEPTED


async def test_a_bug_before_the_message_is_sent_leaves_it_unsent() -> None:
    store, cloud = FaultyStore(), FakeCloud()
    store.outbox.wall = anyio.current_time
    store.bugs = 5
    with anyio.fail_after(60):
        async with pumping(cloud, store, policy=PumpPolicy(max_attempts=3)) as pump:
            await pump.put(message(1), message(2))
            await pump.drained()
    entry = await entry_of(store, 1)
    # Otherwise what never reaches the cloud costs no attempt, but a bug may be met for ever.
    assert (entry.state, entry.attempts, entry.reason) == (MessageState.NOT_SENT, 3, "TypeError")
    entry = await entry_of(store, 2)
    assert (entry.state, entry.attempts, entry.maybe_duplicate) == (MessageState.ACCEPTED, 3, False)


@pytest.mark.parametrize("kind", ["iterable", "async"])
@pytest.mark.parametrize("wrong", ["raises", "no message", "unwritable"])
async def test_what_came_before_a_mistake_of_the_source_is_put(kind: str, wrong: str) -> None:
    """Once up to 500 messages that were read with the mistake were lost, and nobody knew that they were missing."""
    mistakes: dict[str, Any] = {
        "no message": "text",
        "unwritable": message(9, body=ContentEvent(message="text", extra={"more": object()})),
    }

    def read() -> Iterator[Any]:
        yield from (message(number) for number in (1, 2))
        if wrong == "raises":
            raise OSError("the file is gone")
        yield mistakes[wrong]

    async def read_slowly() -> AsyncIterator[Any]:
        for one in read():
            yield one

    store, cloud = new_store(), FakeCloud()
    with anyio.fail_after(60):
        async with pumping(cloud, store) as pump:
            with pytest.raises((OSError, TypeError, LocalProtocolError)):
                await pump.feed(read() if kind == "iterable" else read_slowly())
            await pump.drained()
    assert texts(cloud.message_posts) == ["text 1", "text 2"]


@pytest.mark.parametrize("call", ["claim", "advance"])
async def test_lanes_that_the_outbox_gave_and_could_not_say_so_do_not_stay_ours_for_ever(call: str) -> None:
    """A connection that breaks at the COMMIT: nobody here carries them, and with each renewal their lease went on."""

    class Mute(BrittleOutbox):
        muted = 0

        async def claim(self, *args: Any, **options: Any) -> list[Claim]:
            claims = await self.inner.claim(*args, **options)
            self._lose("claim", [one.message.id for one in claims])
            return claims

        async def advance(self, *args: Any, **options: Any) -> list[Advance]:
            advances = await self.inner.advance(*args, **options)
            self._lose("advance", [one.next.message.id for one in advances if one.next is not None])
            return advances

        def _lose(self, name: str, begun: list[str]) -> None:
            if name == call and not self.muted and any(one.startswith("shopper") for one in begun):
                self.muted += 1
                raise StoreUnavailable("the connection broke at the COMMIT")

    store, cloud = new_store(), FakeCloud(latency=1.0)
    outbox = Mute(store.outbox)

    async def keep_busy(pump: Pump) -> None:
        for number in range(800):
            await pump.put(message(number, "busy"))
            await anyio.sleep(0.5)

    with anyio.fail_after(6_000):
        async with pumping(cloud, outbox=outbox) as pump, anyio.create_task_group() as tasks:
            tasks.start_soon(keep_busy, pump)
            await pump.put(message(1), message(2))
            await anyio.sleep(300)
            assert outbox.muted
            assert cloud.accepted["shopper-1"] >= 1
            assert cloud.accepted["shopper-2"] >= 1
            tasks.cancel_scope.cancel()
