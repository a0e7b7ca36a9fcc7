"""A session makes what runs handlers when it first hears, also when that is after its end."""

from __future__ import annotations

import anyio
import pytest

from connector_async import ContentEvent, Incoming
from connector_async.testing import signed_headers
from connector_async.wire import MessagingEvent, MessagingEvents, Notification
from tests.doubles import FakeCloud
from tests.session.rig import session_over

pytestmark = pytest.mark.anyio


def _said(dialog_id: str) -> Notification[MessagingEvents]:
    event = MessagingEvent(event=ContentEvent.text_of("Hello"), dialog_id=dialog_id, sequence=0)  # type: ignore[arg-type]
    return Notification(body=MessagingEvents((event,)))


async def test_a_session_that_has_ended_takes_no_event_on_and_runs_no_handler() -> None:
    """As one that had heard before its end: the vendor is to bring the event again, to whoever comes next."""
    heard: list[str] = []
    with anyio.fail_after(5):
        async with session_over(FakeCloud()) as session:

            @session.on(ContentEvent)
            async def hear(message: Incoming[ContentEvent]) -> None:
                heard.append(message.text)

        accepted = await session.dispatcher.accept(_said("c"), b"{}", "queued")
    assert accepted.value == "busy"
    assert session.dispatcher is session.dispatcher
    assert heard == []


async def test_a_session_that_never_hears_closes_without_handlers_to_wait_for() -> None:
    """Our decision: it reports none unhandled."""
    with anyio.fail_after(5):
        async with session_over(FakeCloud()) as session:
            pass
        assert (await session.aclose()).unhandled == 0


async def test_a_delivery_before_the_session_is_entered_is_an_error_of_ours(caplog: pytest.LogCaptureFixture) -> None:
    """The app may be made, and served, before: found by reading, the account was said not to be served here."""
    session = session_over(FakeCloud())
    app = session.webhook_app()
    body = b"{}"
    headers = signed_headers(body, account_id="12345678", client_id="client", secret="a-secret")
    with anyio.fail_after(5):
        assert await app.handle(headers, body) == (500, b"error")
        assert "not entered yet" in caplog.text
        async with session:
            assert (await app.handle(headers, body))[0] == 400
