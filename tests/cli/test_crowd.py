"""What the demo counts when the cloud does not play along."""

from __future__ import annotations

from typing import Any

import anyio
import anyio.lowlevel
import pytest

from connector_async import ConnectorSession, RequestRefused
from connector_async.cli._crowd import Crowd, Tally, percentile
from connector_async.cli._progress import progress_on_stderr
from connector_async.errors import Landed, NotSent, OutcomeUnknown
from connector_async.sandbox import Sandbox, Status

pytestmark = pytest.mark.anyio


async def _crowd(cloud: Sandbox, consumers: int, messages: int, concurrency: int) -> tuple[Tally, ConnectorSession]:
    with anyio.fail_after(60), progress_on_stderr() as progress:
        async with ConnectorSession.from_env(environ=cloud.environ()) as session:
            return await Crowd(session, progress, consumers, messages, concurrency).run(), session


async def test_messages_of_a_consumer_arrive_in_order() -> None:
    async with Sandbox() as cloud:
        tally, _ = await _crowd(cloud, 5, 6, 3)
        orders = cloud.ledger.orders()
    assert tally.accepted == tally.sent == 30
    assert sorted(len(order) for order in orders.values()) == [6] * 5
    assert {request_id for order in orders.values() for request_id in order} == set(tally.fates)


@pytest.mark.parametrize("concurrency", [1, 4])
async def test_no_more_consumers_wait_than_asked_for(concurrency: int) -> None:
    waiting = most = 0
    async with Sandbox() as cloud, ConnectorSession.from_env(environ=cloud.environ()) as session:
        with progress_on_stderr() as progress:
            crowd = Crowd(session, progress, 10, 1, concurrency)

            async def count(_: int) -> None:
                nonlocal waiting, most
                waiting += 1
                most = max(most, waiting)
                await anyio.lowlevel.checkpoint()
                waiting -= 1

            await crowd._each(range(10), count, steps=False)
    assert most == concurrency


async def test_messages_of_a_consumer_without_a_conversation_are_not_sent() -> None:
    async with Sandbox() as cloud:
        cloud.fail_next(Status(status=400), endpoint="conversation")
        tally, _ = await _crowd(cloud, 3, 4, 1)
    assert tally.statuses == {"accepted": 8, "not_sent": 4}
    assert tally.errors == 4
    assert sum(tally.causes.values()) == 1


async def test_a_refused_message_does_not_end_the_conversation() -> None:
    async with Sandbox() as cloud:
        cloud.fail_next(Status(status=400), type="ms.PublishEvent")
        tally, _ = await _crowd(cloud, 1, 4, 1)
    assert tally.statuses == {"accepted": 3, "refused": 1}
    assert len(tally.fates) == 4


async def test_a_close_that_fails_is_noted_and_costs_no_message() -> None:
    async with Sandbox() as cloud:
        cloud.fail_next(Status(status=400), type="cm.UpdateConversationField")
        tally, _ = await _crowd(cloud, 1, 2, 1)
    assert tally.errors == 0
    assert sum(tally.causes.values()) == 1


@pytest.mark.parametrize(
    ("error", "status", "cause"),
    [
        (RequestRefused("no", request_id="r", code=400), "refused", "RequestRefused (400)"),
        (NotSent("no", request_id="r"), "not_sent", "NotSent"),
        (OutcomeUnknown("no", request_id="r", landed=Landed.UNKNOWN), "unknown", "OutcomeUnknown"),
    ],
)
def test_a_lost_message_is_counted_by_what_became_of_it(error: Any, status: str, cause: str) -> None:
    tally = Tally()
    tally.lost(error)
    assert tally.statuses == {status: 1}
    assert tally.causes == {cause: 1}
    assert tally.fates["r"].status == status


@pytest.mark.parametrize(
    ("share", "wanted"), [(0.5, 50.0), (0.99, 99.0), (1.0, 100.0), (0.0, 1.0)], ids=["p50", "p99", "all", "none"]
)
def test_a_percentile_is_a_value_that_occurred(share: float, wanted: float) -> None:
    assert percentile(map(float, range(100, 0, -1)), share) == wanted


def test_of_no_values_there_is_no_percentile() -> None:
    assert percentile([], 0.5) is None
