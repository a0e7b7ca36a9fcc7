"""Bugs on the way of a message, and messages at fault themselves: which is which, and one outcome for each."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from connector_async import MemoryStore, Outcome, OutcomeStatus, Outgoing, QueueFull
from connector_async.consumer import Opening
from connector_async.wire import ContentEvent
from tests.session.rig import FakeCloud, session_over

pytestmark = pytest.mark.anyio

ACCEPTED, REFUSED = OutcomeStatus.ACCEPTED, OutcomeStatus.REFUSED
NOT_SENT, UNKNOWN = OutcomeStatus.NOT_SENT, OutcomeStatus.UNKNOWN
BUGS = (TypeError("'NoneType' object is not callable"), ValueError("not enough values"), KeyError("sequence"))


async def outcomes_of(session: Any, *messages: Outgoing[Any]) -> list[Outcome[Any]]:
    async with session.send_many(messages, ordered=True) as outcomes:
        return [outcome async for outcome in outcomes]


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: type(bug).__name__)
async def test_a_bug_of_the_transport_leaves_unknown_what_became_of_a_message(bug: Exception) -> None:
    """It once was told as refused: as if the message itself could never be sent."""
    cloud = FakeCloud()
    cloud.script = [cloud.take_message, bug]
    opening = Opening(skill_id="77", client_properties="{}")
    async with session_over(cloud) as session:
        messages = [
            Outgoing("customer", f"text {n}", timeout=30.0, request_id=f"r{n}", opening=opening) for n in (1, 2)
        ]
        first, second = await outcomes_of(session, *messages)
    assert (first.status, first.error, first.conversation_id is None) == (UNKNOWN, bug, False)
    assert second.status is ACCEPTED


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: type(bug).__name__)
async def test_after_a_bug_before_there_is_a_conversation_a_message_is_unsent(bug: Exception) -> None:
    class Faulty(MemoryStore):
        async def get_open_conversation(self, account_id: str, ext_consumer_id: str) -> Any:
            raise bug

    cloud = FakeCloud()
    async with session_over(cloud, store=Faulty()) as session:
        [outcome] = await outcomes_of(session, Outgoing("customer", "a text"))
    assert (outcome.status, outcome.error is not None) == (NOT_SENT, True)
    assert not cloud.message_posts


@pytest.mark.parametrize(
    "facts",
    [
        {"to": ""},
        {"to": 5},
        {"body": ""},
        {"body": "x" * 5001},
        {"body": 5},
        {"body": ContentEvent(message="a text", extra={"more": object()})},
        {"request_id": "x" * 65},
        {"request_id": 5.0},
        {"prior_attempts": -1},
        {"prior_attempts": 1_001},
        {"prior_attempts": "1"},
        {"timeout": "5"},
        {"timeout": float("nan")},
        {"opening": "77"},
        {"opening": Opening(skill_id=5.5)},  # type: ignore[arg-type]  # what is passed wrongly
        {"opening": Opening(profile="me")},  # type: ignore[arg-type]  # what is passed wrongly
        {"opening": Opening(client_properties={})},  # type: ignore[arg-type]  # what is passed wrongly
        {"opening": Opening(client_properties="{}\n")},
    ],
    ids=lambda facts: "-".join(f"{name}={value!r:.40}" for name, value in facts.items()),
)
async def test_what_is_wrong_with_a_message_itself_refuses_it(facts: dict[str, Any]) -> None:
    """It can never succeed as it is, however often it is tried."""
    cloud = FakeCloud()
    async with session_over(cloud) as session:
        given: dict[str, Any] = {"to": "customer", "body": "a text", **facts}
        [outcome] = await outcomes_of(session, Outgoing(**given))
    assert outcome.status is REFUSED, outcome
    assert "ms.PublishEvent" not in str([post.json for post in cloud.message_posts])


async def test_a_message_that_could_not_even_be_queued_has_an_outcome_and_the_error_is_raised() -> None:
    """Whoever waits for the outcomes of all that was read would wait for ever."""
    async with session_over(FakeCloud()) as session:
        stream = session.send_many([Outgoing("customer", "a text")])

        def put(*_: Any, **__: Any) -> None:
            raise QueueFull("a bug, for none is raised here")

        stream._outbound.put = put  # type: ignore[method-assign]
        found: list[Outcome[Any]] = []
        with anyio.fail_after(5), pytest.raises(QueueFull):
            async with stream as outcomes:
                async for outcome in outcomes:
                    found.append(outcome)
    assert [outcome.status for outcome in found] == [NOT_SENT]
