"""Messages go from the outbox to the cloud, in order, and each ends once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import count, pairwise
from typing import Any

import anyio
import pytest

from connector_async import ContentEvent, MemoryStore, Opening, RetryPolicy, SetUserProfile
from connector_async.errors import ConfigurationError, StoreUnavailable
from connector_async.pump import Pump, PumpMessage, PumpPolicy
from connector_async.sandbox import Sandbox
from connector_async.store.base import ConversationRecord
from connector_async.store.outbox import Claim, MessageState, PutResult, Settlement
from connector_async.transport.base import Answer
from tests.doubles import FakeCloud, Post, answer, lost, not_sent, ok
from tests.guards import CANARY, assert_canary_absent
from tests.pump.rig import (
    ACCOUNT,
    BrittleOutbox,
    OrderCloud,
    closed,
    entry_of,
    message,
    new_store,
    pumping,
    refused,
    session_of,
    texts,
)

pytestmark = pytest.mark.anyio


async def test_what_was_put_is_sent_and_settled_with_its_receipt() -> None:
    store, cloud = new_store(), FakeCloud()
    with anyio.fail_after(60):
        async with pumping(cloud, store) as pump:
            assert await pump.put(message(1), message(2)) == [PutResult.ADDED, PutResult.ADDED]
            await pump.drained()
            assert pump.stats.accepted == pump.stats.sent == pump.stats.put == 2
    entry = await entry_of(store, 2)
    assert (entry.state, entry.attempts, entry.sequence, entry.maybe_duplicate) == (
        MessageState.ACCEPTED,
        1,
        0,
        False,
    )
    assert entry.conversation_id is not None
    assert texts(cloud.message_posts) == ["text 1", "text 2"]
    assert cloud.accepted["shopper-1"] == cloud.accepted["shopper-2"] == 1


async def test_a_message_that_is_put_twice_is_sent_once() -> None:
    cloud = FakeCloud()
    with anyio.fail_after(60):
        async with pumping(cloud) as pump:
            await pump.put(message(1))
            assert await pump.put(message(1, body="another text")) == [PutResult.KNOWN]
            await pump.drained()
            assert pump.stats.put == 1
    assert texts(cloud.message_posts) == ["text 1"]


async def test_a_conversation_is_opened_as_the_message_says() -> None:
    cloud = FakeCloud()
    opening = Opening(skill_id="77", profile=SetUserProfile(), client_properties="{}")
    with anyio.fail_after(60):
        async with pumping(cloud) as pump:
            await pump.put(message(1, body=ContentEvent.text_of("an event"), opening=opening))
            await pump.drained()
    opened = cloud.message_posts[0]
    assert opened.json[1]["body"]["skillId"] == "77"
    assert opened.header("Client-Properties") == cloud.message_posts[1].header("Client-Properties") == "{}"
    assert texts(cloud.message_posts) == ["an event"]


async def test_messages_that_others_put_into_the_outbox_are_found() -> None:
    """Other processes cannot ring."""
    store, cloud = new_store(), FakeCloud()
    with anyio.fail_after(60):
        async with pumping(cloud, store) as pump:
            await anyio.sleep(10)
            other = Pump(session_of(cloud, store), store)
            await other.put(message(1))
            await anyio.sleep(2)
            assert pump.stats.accepted == 1


@pytest.mark.no_cover
@pytest.mark.requirement("P5")
async def test_p5_the_order_of_each_consumer_holds() -> None:
    await _order(consumers=200, messages=20)


@pytest.mark.soak
@pytest.mark.requirement("P5")
async def test_p5_the_order_of_each_consumer_holds_at_full_count() -> None:
    await _order(consumers=10_000, messages=20)


async def _order(*, consumers: int, messages: int) -> None:
    store, cloud = new_store(max_entries=10**6), OrderCloud(faults=0.1)
    ends: list[str] = []

    def note(claim: Claim, settlement: Settlement) -> None:
        assert settlement.state is MessageState.ACCEPTED
        ends.append(claim.message.id)

    everything = [message(n, f"consumer-{c}") for n in range(messages) for c in range(consumers)]
    async with pumping(cloud, store, on_settled=note) as pump:
        assert await pump.feed(everything) == len(everything)
        await pump.drained()
        report = await pump.report(limit=10**6)
    assert sorted(ends) == sorted(one.id for one in everything)
    assert report.counts.accepted == len(ends) == len(everything)
    assert not report.counts.unsettled
    doubled = 0
    for consumer in (f"consumer-{c}" for c in range(consumers)):
        landed = cloud.landed[consumer]
        assert list(dict.fromkeys(landed)) == [f"text {n}" for n in range(messages)]
        # A message that was resent stands directly behind itself: nothing has overtaken it.
        assert landed == sorted(landed, key=lambda text: int(text.removeprefix("text ")))
        doubled += len(landed) - messages
    told = {entry.message.id for entry in report.exceptions if entry.maybe_duplicate}
    assert 0 < doubled <= len(told) == report.counts.maybe_duplicate


@pytest.mark.requirement("P8")
async def test_p8_a_poison_message_is_dead_after_one_attempt_and_others_flow() -> None:
    store, cloud = new_store(), FakeCloud()

    async def taste(post: Post) -> Answer:
        poison = isinstance(post.json, dict) and "poison" in post.json["body"]["event"]["message"]
        return refused(post) if poison else await cloud.take_message(post)

    cloud.on_message = taste
    with anyio.fail_after(60):
        async with pumping(cloud, store) as pump:
            await pump.put(message(1), message(2, body="poison"), message(3), message(1, "another"))
            await pump.drained()
            report = await pump.report()
    assert texts(cloud.message_posts).count("poison") == 1
    assert cloud.accepted["shopper-3"] == cloud.accepted["another-1"] == 1
    assert (report.counts.refused, report.counts.accepted, len(report.exceptions)) == (1, 3, 1)
    assert report.exceptions[0].message.id == "shopper-2"
    assert "RequestRefused" in (report.exceptions[0].reason or "")
    assert report.exceptions[0].attempts == 1


async def test_messages_behind_a_dead_one_wait_where_the_policy_says_so() -> None:
    store, cloud = new_store(), FakeCloud()
    cloud.script = [cloud.take_message, refused_step]
    policy = PumpPolicy(after_refusal="wait")
    with anyio.fail_after(60):
        async with pumping(cloud, store, policy=policy) as pump:
            await pump.put(message(1), message(2))
            await pump.drained()
            assert (await entry_of(store, 2)).state is MessageState.WAITING
            assert (await pump.report()).counts.held_lanes == 1
            assert await store.outbox.discard(ACCOUNT, "shopper-1")
            await pump.drained()
    assert cloud.accepted["shopper-2"] == 1


async def refused_step(post: Post) -> Answer:
    return refused(post)


async def test_an_unknown_message_is_resent_with_its_id_and_reported() -> None:
    """The request id stays the same, and the counter goes on."""
    store, cloud = new_store(), FakeCloud()
    cloud.script = [cloud.take_message, lost()]
    with anyio.fail_after(60):
        async with pumping(cloud, store) as pump:
            await pump.put(message(1))
            await pump.drained()
            assert pump.stats.retried == pump.stats.maybe_duplicate == 1
    assert [post.json["id"] for post in cloud.message_posts[1:]] == ["shopper-1", "shopper-1"]
    entry = await entry_of(store, 1)
    assert (entry.state, entry.attempts, entry.maybe_duplicate) == (MessageState.ACCEPTED, 2, True)


async def test_an_unknown_message_is_left_where_the_policy_says_so() -> None:
    store, cloud = new_store(), FakeCloud()
    cloud.script = [cloud.take_message, lost()]
    with anyio.fail_after(60):
        async with pumping(cloud, store, policy=PumpPolicy(unknown="leave")) as pump:
            await pump.put(message(1), message(2))
            await pump.drained()
            assert pump.stats.unknown == 1
    entry = await entry_of(store, 1)
    assert (entry.state, entry.attempts, entry.maybe_duplicate) == (MessageState.UNKNOWN, 1, True)
    assert (await entry_of(store, 2)).state is MessageState.ACCEPTED


async def test_a_message_that_cannot_reach_the_cloud_waits_longer_each_time_and_costs_no_attempt() -> None:
    store, cloud = new_store(), FakeCloud()
    cloud.script = [cloud.take_message, *[not_sent()] * 4]
    with anyio.fail_after(600):
        async with pumping(cloud, store, policy=PumpPolicy(max_attempts=2, longest_backoff=4.0)) as pump:
            await pump.put(message(1))
            await pump.drained()
    times = [post.at for post in cloud.message_posts[1:]]
    pauses = [round(later - earlier) for earlier, later in pairwise(times)]
    assert pauses == [1, 2, 4, 4]
    entry = await entry_of(store, 1)
    assert (entry.state, entry.attempts, entry.maybe_duplicate) == (MessageState.ACCEPTED, 1, False)


async def test_a_throttled_message_waits_as_long_as_the_cloud_says() -> None:
    store, cloud = new_store(), FakeCloud()
    cloud.script = [cloud.take_message, answer(429, {"code": 429}, {"Retry-After": "30"})]
    with anyio.fail_after(600):
        async with pumping(cloud, store) as pump:
            await pump.put(message(1))
            await pump.drained()
    assert cloud.message_posts[2].at - cloud.message_posts[1].at >= 30
    entry = await entry_of(store, 1)
    assert (entry.state, entry.attempts, entry.maybe_duplicate) == (MessageState.ACCEPTED, 2, False)


async def test_a_message_is_given_up_after_the_attempts_of_the_policy() -> None:
    store, cloud = new_store(), FakeCloud()
    busy = [answer(429, {"code": 429})] * 3
    cloud.script = [cloud.take_message, *busy]
    with anyio.fail_after(600):
        async with pumping(cloud, store, policy=PumpPolicy(max_attempts=3)) as pump:
            await pump.put(message(1))
            await pump.drained()
            assert pump.stats.not_sent == 1
            assert await store.outbox.revive(ACCOUNT, "shopper-1")
            await pump.drained()
    assert (await entry_of(store, 1)).state is MessageState.ACCEPTED


async def test_a_closed_conversation_is_opened_anew() -> None:
    store, cloud = new_store(), FakeCloud()
    with anyio.fail_after(60):
        async with pumping(cloud, store) as pump:
            await pump.put(message(1))
            await pump.drained()
            cloud.script = [_closed_step]
            await pump.put(message(2))
            await pump.drained()
            assert (await pump.report()).reopened == 1
    first, second = await entry_of(store, 1), await entry_of(store, 2)
    assert second.state is MessageState.ACCEPTED
    assert second.conversation_id != first.conversation_id


async def _closed_step(post: Post) -> Answer:
    return closed(post)


async def test_a_message_for_a_closed_conversation_is_refused_where_none_is_to_be_reopened() -> None:
    store, cloud = new_store(), FakeCloud()
    cloud.script = [cloud.take_message, _closed_step]
    with anyio.fail_after(60):
        async with pumping(cloud, store, policy=PumpPolicy(reopen=False)) as pump:
            await pump.put(message(1), message(2))
            await pump.drained()
            assert pump.stats.reopened == 0
    assert (await entry_of(store, 1)).state is MessageState.REFUSED
    assert (await entry_of(store, 2)).state is MessageState.ACCEPTED


async def test_a_conversation_that_closes_again_at_once_is_tried_again_later() -> None:
    store, cloud = new_store(), FakeCloud()
    cloud.script = [cloud.take_message, _closed_step, cloud.take_message, _closed_step]
    with anyio.fail_after(60):
        async with pumping(cloud, store) as pump:
            await pump.put(message(1))
            await pump.drained()
            assert pump.stats.retried == 1
    assert (await entry_of(store, 1)).state is MessageState.ACCEPTED


async def test_a_restart_goes_on_with_the_conversation_that_the_store_knows() -> None:
    store, cloud = new_store(), FakeCloud()
    with anyio.fail_after(60):
        for number in (1, 2):
            async with pumping(cloud, store) as pump:
                await pump.put(message(number))
                await pump.drained()
    opened = [post for post in cloud.message_posts if isinstance(post.json, list)]
    assert len(opened) == 1
    assert (await entry_of(store, 1)).conversation_id == (await entry_of(store, 2)).conversation_id


async def test_a_consumer_with_a_conversation_that_nobody_can_name_waits_until_it_is_known() -> None:
    store, cloud = new_store(), FakeCloud()

    async def already_open(post: Post) -> Answer:
        body = {"code": 400, "body": {"msg": "Consumer already has open conversation"}}
        return answer(200, [{**body, "reqId": request_id} for request_id in post.ids])

    cloud.script = [already_open]
    with anyio.fail_after(600):
        async with pumping(cloud, store) as pump:
            await pump.put(message(1))
            await anyio.sleep(0.5)
            assert pump.stats.retried == 1
            await pump.drained()
    entry = await entry_of(store, 1)
    assert (entry.state, entry.attempts) == (MessageState.ACCEPTED, 1)


async def test_the_conversation_that_another_process_has_heard_of_is_used_and_the_waiting_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The process that webhooks come to has the same store, and need not be a pump."""
    store, cloud = new_store(), FakeCloud()

    async def already_open(post: Post) -> Answer:
        if isinstance(post.json, dict):
            return ok(post)
        body = {"code": 400, "body": {"msg": "Consumer already has open conversation"}}
        return answer(200, [{**body, "reqId": request_id} for request_id in post.ids])

    cloud.on_message = already_open
    with anyio.fail_after(6_000):
        async with pumping(cloud, store) as pump:
            await pump.put(message(1))
            await anyio.sleep(600)
            assert pump.stats.retried > 5
            record = ConversationRecord(account_id=ACCOUNT, conversation_id="heard-of", ext_consumer_id="shopper")
            await store.put_conversation(record)
            await pump.drained()
    entry = await entry_of(store, 1)
    assert (entry.state, entry.conversation_id) == (MessageState.ACCEPTED, "heard-of")
    told = [one.getMessage() for one in caplog.records if "a webhook connected to this store" in one.getMessage()]
    assert len(told) == 1
    assert "shopper" not in told[0]


async def test_what_a_dead_process_had_begun_is_sent_again_and_reported() -> None:
    store, cloud = new_store(), FakeCloud()
    await _begun_by_another(store)
    with anyio.fail_after(600):
        async with pumping(cloud, store) as pump:
            await pump.drained()
            assert pump.stats.maybe_duplicate == 1
    entry = await entry_of(store, 1)
    assert (entry.state, entry.attempts, entry.maybe_duplicate) == (MessageState.ACCEPTED, 2, True)
    assert cloud.accepted["shopper-2"] == 1
    assert not (await entry_of(store, 2)).maybe_duplicate


async def test_what_a_dead_process_had_begun_is_left_where_nothing_may_be_doubled() -> None:
    store, cloud = new_store(), FakeCloud()
    await _begun_by_another(store)
    with anyio.fail_after(600):
        async with pumping(cloud, store, policy=PumpPolicy(unknown="leave")) as pump:
            await pump.drained()
    assert (await entry_of(store, 1)).state is MessageState.UNKNOWN
    assert not cloud.accepted["shopper-1"]
    assert cloud.accepted["shopper-2"] == 1


async def _begun_by_another(store: MemoryStore) -> None:
    pump = Pump(session_of(FakeCloud(), store), store)
    await pump.put(message(1), message(2))
    await store.outbox.claim(ACCOUNT, owner="dead", lease=5.0, limit=10)


async def test_a_kept_message_that_cannot_be_read_is_refused() -> None:
    store, cloud = new_store(), FakeCloud()
    await Pump(session_of(cloud, store), store).put(message(1), message(2))
    [lane] = store.outbox._lanes.values()
    broken = lane.entries[0]
    object.__setattr__(broken.message, "body", f"{CANARY} no JSON".encode())
    with anyio.fail_after(60):
        async with pumping(cloud, store) as pump:
            await pump.drained()
            report = await pump.report()
    assert (report.counts.refused, report.counts.accepted) == (1, 1)
    assert_canary_absent(report, report.as_dict())


async def test_no_text_shows_in_reports_errors_or_logs(canary: str) -> None:
    store, cloud = new_store(), FakeCloud()
    cloud.script = [cloud.take_message, refused_step]
    secret = PumpMessage("1", "shopper", canary)
    with anyio.fail_after(60):
        async with pumping(cloud, store) as pump:
            await pump.put(secret)
            await pump.drained()
            report = await pump.report()
    assert report.exceptions
    assert_canary_absent(secret, report, report.as_dict(), pump, pump.stats)


async def test_a_callback_that_fails_is_logged_and_costs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def fail(_claim: Claim, _settlement: Settlement) -> None:
        raise LookupError

    cloud = FakeCloud()
    with anyio.fail_after(60):
        async with pumping(cloud, on_settled=fail) as pump:
            await pump.put(message(1), message(2))
            await pump.drained()
    assert cloud.accepted["shopper-2"] == 1
    assert "`on_settled` failed" in caplog.text


async def test_an_accident_inside_one_message_does_not_end_the_pump(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store of the session that fails, say, or a mistake of ours."""
    store, cloud = new_store(), FakeCloud()
    calls = 0
    inner = store.get_open_conversation

    async def fail_once(account_id: str, consumer: str) -> ConversationRecord | None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise StoreUnavailable("the disk is full")
        return await inner(account_id, consumer)

    monkeypatch.setattr(MemoryStore, "get_open_conversation", lambda _self, *args: fail_once(*args))
    with anyio.fail_after(60):
        async with pumping(cloud, store) as pump:
            await pump.put(message(1))
            await pump.drained()
            assert pump.stats.retried == 1
    assert (await entry_of(store, 1)).attempts == 1


async def test_refused_credentials_are_nobodys_message_fault() -> None:
    store, cloud = new_store(), FakeCloud()

    async def no_token(_post: Post) -> Answer:
        return answer(401, {"error": "invalid_client"})

    cloud.on_token = no_token
    with anyio.fail_after(600):
        async with pumping(cloud, store) as pump:
            await pump.put(message(1))
            await anyio.sleep(20)
            assert (await entry_of(store, 1)).state is MessageState.WAITING
            cloud.on_token = cloud.give_token
            await pump.drained()
    assert (await entry_of(store, 1)).state is MessageState.ACCEPTED


async def test_a_session_that_retries_by_itself_costs_the_pump_one_delivery() -> None:
    store, cloud = new_store(), FakeCloud()
    cloud.script = [cloud.take_message, answer(503, b"")]
    with anyio.fail_after(600):
        async with pumping(cloud, store, retry=RetryPolicy.vendor()) as pump:
            await pump.put(message(1))
            await pump.drained()
            assert pump.stats.sent == 1
    entry = await entry_of(store, 1)
    assert (entry.attempts, entry.maybe_duplicate) == (2, True)


async def test_a_report_is_plain_values_and_says_when_there_is_more() -> None:
    store, cloud = new_store(), FakeCloud()

    async def refuse(post: Post) -> Answer:
        return refused(post) if isinstance(post.json, dict) else await cloud.take_message(post)

    cloud.on_message = refuse
    with anyio.fail_after(60):
        async with pumping(cloud, store) as pump:
            await pump.put(message(1), message(2), message(3))
            await pump.drained()
            report = await pump.report(limit=2)
    assert report.has_more_exceptions
    assert report.oldest_age is None
    assert report.sent == 3
    assert report.lease_lost == 0
    shown = report.as_dict()
    assert [entry["id"] for entry in shown["exceptions"]] == ["shopper-1", "shopper-2"]
    assert shown["exceptions"][0]["state"] == "refused"
    assert shown["counts"]["refused"] == shown["stats"]["refused"] == 3


async def test_wrong_use_is_refused_in_words() -> None:
    store, cloud = new_store(), FakeCloud()
    session = session_of(cloud, store)
    with pytest.raises(ConfigurationError, match="concurrency"):
        Pump(session, store, concurrency=0)
    with pytest.raises(ConfigurationError, match="lease"):
        Pump(session, store, lease=0)
    with pytest.raises(RuntimeError, match="not entered"):
        await Pump(session, store).stop()
    wrong: Any
    for wrong in (1.5, "5", True, -1):
        with pytest.raises(ConfigurationError, match="concurrency must be a whole number"):
            Pump(session, store, concurrency=wrong)
    for wrong in ("5", True, float("nan")):
        with pytest.raises(ConfigurationError, match="lease must be a number of seconds"):
            Pump(session, store, lease=wrong)
    wrong = 5
    with pytest.raises(ConfigurationError, match="on_settled must be a callable, got int"):
        Pump(session, store, on_settled=wrong)
    with pytest.raises(TypeError, match="policy must be a PumpPolicy"):
        Pump(session, store, policy=wrong)
    with pytest.raises(TypeError, match="outbox must be an Outbox"):
        Pump(session, wrong)
    with pytest.raises(TypeError, match="session must be a ConnectorSession"):
        Pump(wrong, store)
    assert Pump(session, store).stats.in_flight == 0
    with pytest.raises(RuntimeError, match="the pump's session is not entered"):
        await Pump(session, store).__aenter__()
    async with session, Pump(session, store) as pump:
        with pytest.raises(RuntimeError, match="entered once"):
            await pump.__aenter__()
        wrong = "hello"
        with pytest.raises(TypeError, match=r"must be a `PumpMessage\(id, consumer, body\)`, not str"):
            await pump.put(wrong)


@pytest.mark.parametrize("text", ["\ud800", "a\0b"])
async def test_what_some_database_would_refuse_each_time_is_refused_before_it_is_put(text: str) -> None:
    """Taken for an outbox that fails for a while, it had whoever feeds wait for ever."""
    with pytest.raises(ValueError, match=r"PumpMessage\.id holds"):
        PumpMessage(text, "customer", "hello")
    with pytest.raises(ValueError, match=r"PumpMessage\.consumer holds"):
        PumpMessage("id", text, "hello")
    with pytest.raises(ValueError, match=r"PumpMessage\.request_id holds"):
        PumpMessage("id", "customer", "hello", request_id=text)


async def test_a_source_that_is_not_read_to_its_end_is_closed() -> None:
    """PEP 525: otherwise its `finally` runs when the garbage collector finds it."""
    closed = 0

    async def source() -> AsyncIterator[PumpMessage]:
        nonlocal closed
        try:
            for number in count():
                yield message(number)
        finally:
            closed += 1

    outbox = BrittleOutbox(new_store().outbox)
    outbox.down.add("put")
    with anyio.fail_after(60):
        async with pumping(FakeCloud(), outbox=outbox) as pump, anyio.create_task_group() as tasks:
            tasks.start_soon(pump.feed, source())
            await anyio.sleep(10)
            assert closed == 0
            await pump.stop()
    assert closed == 1


async def test_an_outbox_can_be_given_by_itself() -> None:
    store, cloud = new_store(), FakeCloud()
    outbox = BrittleOutbox(store.outbox)
    with anyio.fail_after(60):
        async with pumping(cloud, store, outbox=outbox) as pump:
            await pump.put(message(1))
            await pump.drained()
    assert outbox.calls["advance"] == 1


async def test_every_message_that_the_sandbox_took_is_accounted_for() -> None:
    """Against the cloud in a box, in bad weather: its ledger knows what really arrived."""
    store = new_store()
    async with Sandbox(in_process=True) as cloud, cloud.session(store=store) as session:
        for _ in range(5):
            cloud.fail_next(status=503)
        with anyio.fail_after(600):
            async with Pump(session, store) as pump:
                await pump.feed([message(n, f"consumer-{c}") for n in range(5) for c in range(10)])
                await pump.drained()
                counts = (await pump.report()).counts
        landed = cloud.ledger.applied_counts("ms.PublishEvent")
    assert counts.accepted == 50
    assert set(landed) == {f"consumer-{c}-{n}" for n in range(5) for c in range(10)}
    assert landed.total() - 50 <= counts.maybe_duplicate
