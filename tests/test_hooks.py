"""Hooks hear everything, cost nothing when they fail, and are told no secret."""

from __future__ import annotations

import asyncio
import logging

import pytest

from connector_async import hooks
from connector_async._redact import mask
from connector_async.hooks import Event, Hooks, Throttled


def test_every_hook_is_called_in_order_and_at_once() -> None:
    """Issue 3, item 7."""
    heard: list[tuple[int, Event]] = []
    event = Throttled(width=7, retry_after=None)
    Hooks([lambda e: heard.append((1, e)), lambda e: heard.append((2, e))]).emit(event)
    assert heard == [(1, event), (2, event)]


@pytest.mark.parametrize("error", [ZeroDivisionError("mine"), asyncio.CancelledError()])
def test_a_failing_hook_costs_a_log_line_and_the_others_nothing(
    caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    """Issue 3, item 7; a hook awaits nothing, so a cancellation that comes out of it is not ours."""
    heard: list[Event] = []

    def broken(_event: Event) -> None:
        raise error

    Hooks([broken, heard.append]).emit(Throttled(width=1, retry_after=2.0))
    assert len(heard) == 1
    (record,) = caplog.records
    assert (record.name, record.levelno, record.__dict__["event"]) == (
        "connector_async.hooks",
        logging.ERROR,
        "Throttled",
    )


def test_a_hook_that_stops_the_program_stops_it() -> None:
    """Only errors are kept in."""

    def stop(_event: Event) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Hooks([stop]).emit(Throttled(width=1, retry_after=None))


def test_whether_anybody_listens_can_be_asked() -> None:
    """Events are not even made if not."""
    assert not Hooks()
    assert Hooks([print])


def test_every_event_is_frozen_and_named_in_all() -> None:
    """The public names of the module."""
    events = [cls for cls in vars(hooks).values() if isinstance(cls, type) and issubclass(cls, Event)]
    assert {cls.__name__ for cls in events} <= set(hooks.__all__)
    with pytest.raises(AttributeError):
        Throttled(width=1, retry_after=None).width = 2  # type: ignore[misc]  # that is the point


@pytest.mark.parametrize(("text", "shown"), [("+4915112345678", "…78"), ("123456", "…56"), ("12345", "…"), ("", "…")])
def test_a_mask_shows_two_characters_at_most(text: str, shown: str) -> None:
    """An external consumer id is often a phone number."""
    assert mask(text) == shown
