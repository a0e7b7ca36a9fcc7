"""What stands around a store, an outbox or a transport, and passes on what it is asked for, is taken for one."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from connector_async import MemoryStore
from connector_async._arguments import offers
from connector_async.errors import ConfigurationError
from connector_async.pump import Pump
from connector_async.store import Outbox, PlaintextTokens, SqliteStore, Store, TokenShare
from connector_async.transport import PooledTransport, Transport
from tests.doubles import FakeCloud
from tests.pump.rig import message
from tests.session.rig import session_over

pytestmark = pytest.mark.anyio


class Around:
    """Passes everything on, as what counts, traces or delays calls does."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


async def test_a_session_takes_a_store_that_passes_on_what_it_is_asked_for() -> None:
    """Python 3.12 and later say of it that it is no Store: it was refused, and would have shared no token."""
    store = MemoryStore()
    async with session_over(FakeCloud(), store=Around(store)) as session:
        with anyio.fail_after(60):
            await session.consumer("customer").send_text("hello")
            assert await store.get_open_conversation(session.account_id, "customer") is not None
            assert await store.get_app_token(session.account_id, "client") is not None


@pytest.mark.parametrize("whole", [True, False])
async def test_a_pump_takes_an_outbox_that_passes_on_what_it_is_asked_for(whole: bool) -> None:
    """The same, for a store that has an outbox, and for the outbox by itself."""
    store = MemoryStore()
    outbox: Any = Around(store if whole else store.outbox)
    async with session_over(FakeCloud(), store=store) as session:
        with anyio.fail_after(60):
            async with Pump(session, outbox) as pump:
                await pump.put(message(1))
                await pump.drained()
                assert (await pump.report()).stats.accepted == 1


def test_a_class_is_no_object_of_its_kind() -> None:
    """It has the methods, and none of them would work."""
    wrong: Any = MemoryStore
    assert not offers(wrong, Store)
    wrong = PlaintextTokens
    with pytest.raises(TypeError, match=r"tokens must be .*, not the class PlaintextTokens"):
        SqliteStore("s.db", tokens=wrong)


async def test_a_pump_refuses_the_class_of_a_store() -> None:
    """Found when it is built, and not at the first message."""
    wrong: Any = MemoryStore
    async with session_over(FakeCloud()) as session:
        with pytest.raises(TypeError, match="outbox must be an Outbox, or a store that has one, not the class"):
            Pump(session, wrong)


async def test_what_passes_on_to_something_else_is_still_refused() -> None:
    """One name of the many is not enough."""
    store = MemoryStore()
    assert offers(Around(store), Store)
    assert offers(Around(store), TokenShare)
    assert not offers(Around(store), Outbox)
    assert not offers(Around(store), MemoryStore)
    async with PooledTransport() as transport:
        assert offers(Around(transport), Transport)
    with pytest.raises(ConfigurationError, match="store must be a store"):
        session_over(FakeCloud(), store=Around([]))
