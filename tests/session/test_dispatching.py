"""`session.dispatch()` beside a session that ends: it raises, and never waits for handlers that will not run."""

from __future__ import annotations

from typing import Any, cast

import anyio
import pytest

from connector_async import AppCredentials, ConnectorSession, ContentEvent, Incoming, SessionClosed
from connector_async.wire import Notification, parse_notification
from tests.doubles import FakeCloud, ScriptedTransport
from tests.session.rig import DOMAINS, session_over
from tests.webhooks.rig import content, notification

pytestmark = pytest.mark.anyio


def _said(*dialog_ids: str) -> Notification[Any]:
    """Texts of an agent, one for each dialog named."""
    changes = [content(one, number) for number, one in enumerate(dialog_ids)]
    return cast("Notification[Any]", parse_notification(notification(*changes)))


class _Handlers:
    """Handlers of a session that hears of the conversation "c": each waits until it is let go."""

    def __init__(self, session: ConnectorSession) -> None:
        self.begun = 0
        self.go_on = anyio.Event()
        self.outcomes: list[tuple[Any, float]] = []
        self._session = session
        self._kept = session.conversation("c", "anna")
        session.on(ContentEvent)(self._hear)

    async def _hear(self, _message: Incoming[ContentEvent]) -> None:
        self.begun += 1
        await self.go_on.wait()

    async def dispatch(self, *dialog_ids: str) -> None:
        """Dispatch a text for each dialog, and note what comes of it, and when."""
        started = anyio.current_time()
        try:
            outcome: Any = await self._session.dispatch(_said(*dialog_ids))
        except SessionClosed as error:
            outcome = error
        self.outcomes.append((outcome, anyio.current_time() - started))


async def test_after_the_close_it_raises_at_once() -> None:
    """Found by reading: the event was queued for workers that never came."""
    async with session_over(FakeCloud()) as session:
        _Handlers(session)
    with anyio.fail_after(5), pytest.raises(SessionClosed):
        await session.dispatch(_said("c"))


async def test_after_the_close_it_raises_at_once_where_a_callable_gives_the_secret() -> None:
    """The secret is asked for in a task of the session's, which starts none any more."""

    async def vault() -> AppCredentials:
        return AppCredentials("client", "a-secret")

    transport = ScriptedTransport(FakeCloud())
    async with ConnectorSession("12345678", vault, domains=DOMAINS, transport=transport) as session:
        pass
    with anyio.fail_after(5), pytest.raises(SessionClosed):
        await session.dispatch(_said("c"))
    session.webhook_app()


async def test_while_the_session_drains_it_raises_at_once() -> None:
    """As a delivery is left to the vendor then."""
    with anyio.fail_after(5):
        async with session_over(FakeCloud()) as session, anyio.create_task_group() as tasks:
            handlers = _Handlers(session)
            tasks.start_soon(handlers.dispatch, "c")
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(session.aclose)
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(SessionClosed):
                await session.dispatch(_said("c"))
            handlers.go_on.set()
    [(outcome, _)] = handlers.outcomes
    assert outcome.events == 1
    assert handlers.begun == 1


@pytest.mark.parametrize("dialogs", [("c",), ("c", "c")], ids=["at work", "waiting behind"])
async def test_what_is_under_way_ends_with_the_drain(dialogs: tuple[str, ...]) -> None:
    """A handler that outlasts the drain must not keep its caller for ever."""
    async with session_over(FakeCloud(), drain=3.0) as session, anyio.create_task_group() as tasks:
        handlers = _Handlers(session)
        tasks.start_soon(handlers.dispatch, *dialogs)
        await anyio.wait_all_tasks_blocked()
        with anyio.fail_after(5):
            report = await session.aclose()
            await anyio.wait_all_tasks_blocked()
        [(outcome, seconds)] = handlers.outcomes
        assert isinstance(outcome, SessionClosed)
        assert seconds == pytest.approx(3.0, abs=0.2)
        assert report.unhandled == len(dialogs)
    assert handlers.begun == 1


@pytest.mark.parametrize("how", ["error", "cancelled close"])
async def test_what_is_under_way_ends_when_the_session_has_no_time_to_drain(how: str) -> None:
    """An error in the block, or a close that is itself cut short."""
    outcomes: list[tuple[Any, float]] = []
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            session = session_over(FakeCloud(), drain=60.0)
            with pytest.raises(LookupError):
                async with session:
                    handlers = _Handlers(session)
                    tasks.start_soon(handlers.dispatch, "c")
                    await anyio.wait_all_tasks_blocked()
                    if how == "cancelled close":
                        with anyio.move_on_after(1):
                            await session.aclose()
                        await anyio.wait_all_tasks_blocked()
                        outcomes = list(handlers.outcomes)
                    raise LookupError
            await anyio.wait_all_tasks_blocked()
            outcomes = outcomes or handlers.outcomes
    assert [type(outcome) for outcome, _ in outcomes] == [SessionClosed]
