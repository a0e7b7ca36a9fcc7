"""Messages that the session owns: exactly one outcome for each, whatever happens."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import pytest

from connector_async import (
    ContentEvent,
    ConversationClosed,
    DeadlineExceeded,
    MemoryStore,
    Outcome,
    OutcomeStatus,
    Outgoing,
    QueueFull,
    RetryPolicy,
    SessionClosed,
    SessionLimits,
)
from connector_async._concurrency import failure_of
from connector_async.store import ConversationRecord
from tests.doubles import Post, answer, lost, ok
from tests.session.rig import FakeCloud, session_over

pytestmark = pytest.mark.anyio

ACCEPTED, REFUSED = OutcomeStatus.ACCEPTED, OutcomeStatus.REFUSED
NOT_SENT, UNKNOWN = OutcomeStatus.NOT_SENT, OutcomeStatus.UNKNOWN


def messages(count: int, consumers: int = 10) -> Iterator[Outgoing[int]]:
    for number in range(count):
        yield Outgoing(f"customer-{number % consumers}", f"text {number}", key=number)


async def taken(stream: Any) -> list[Outcome[Any]]:
    async with stream as outcomes:
        return [outcome async for outcome in outcomes]


@pytest.mark.requirement("outbound:one-outcome")
async def test_every_message_has_one_outcome_with_its_key() -> None:
    """Issue 3, item 4."""
    cloud = FakeCloud(latency=0.01)
    async with session_over(cloud) as session:
        outcomes = await taken(session.send_many(messages(2_000, 50), concurrency=500))
    assert sorted(outcome.key or 0 for outcome in outcomes) == list(range(2_000))
    assert {outcome.status for outcome in outcomes} == {ACCEPTED}
    assert all(outcome.result is not None and outcome.conversation_id for outcome in outcomes)
    assert not any(outcome.maybe_duplicate for outcome in outcomes)


async def test_messages_and_submissions_show_neither_the_text_nor_the_whole_id() -> None:
    """Ids of consumers may be telephone numbers; a `Consumer` masks its own, too."""
    async with session_over(FakeCloud()) as session:
        submission = await session.submit(Outgoing("customer-491701234567", "a secret", key=7))
        assert repr(submission).endswith("waits or is under way)")
        await submission.outcome()
        assert repr(submission).endswith("accepted)")
        to_consumer = Outgoing(session.consumer("customer-491701234567"), "a secret")
    for shown in (repr(submission), repr(to_consumer)):
        assert "…67" in shown
        assert "1234" not in shown
        assert "a secret" not in shown


@pytest.mark.requirement("outbound:order")
async def test_messages_of_a_consumer_arrive_in_order_and_consumers_run_in_parallel() -> None:
    """our design, section 2: FIFO per consumer, parallel across."""
    cloud = FakeCloud(latency=0.1)
    async with session_over(cloud) as session:
        started = anyio.current_time()
        await taken(session.send_many(messages(400, 40), concurrency=400))
        took = anyio.current_time() - started
    texts: dict[str, list[int]] = {}
    for post in cloud.message_posts:
        if not isinstance(post.json, list):
            words = post.json["body"]["event"]["message"]
            texts.setdefault(post.header("X-LP-ON-BEHALF") or "", []).append(int(words.split()[1]))
    assert len(texts) == 40
    assert all(numbers == sorted(numbers) for numbers in texts.values())
    assert took < 2  # ten messages of 0.1 s each, one after the other; 400 would take 40 s


async def test_ordered_outcomes_come_in_the_order_of_the_messages() -> None:
    """our design, section 2."""
    cloud = FakeCloud()

    async def uneven(post: Post) -> Any:
        await anyio.sleep(random.random())
        return ok(post)

    cloud.on_message = uneven
    async with session_over(cloud) as session:
        outcomes = await taken(session.send_many(messages(200), ordered=True))
    assert [outcome.key for outcome in outcomes] == list(range(200))


async def test_an_async_source_is_read_too() -> None:
    """our design, section 2."""

    async def source() -> AsyncIterator[Outgoing[int]]:
        for message in messages(20):
            await anyio.sleep(0.1)
            yield message

    async with session_over(FakeCloud()) as session:
        assert len(await taken(session.send_many(source()))) == 20


@pytest.mark.requirement("outbound:bounded")
async def test_no_more_is_read_than_is_taken_or_under_way() -> None:
    """our design, section 2: bounded memory."""
    read: list[int] = []

    def source() -> Iterator[Outgoing[int]]:
        for message in messages(1_000):
            read.append(message.key or 0)
            yield message

    async with session_over(FakeCloud()) as session, session.send_many(source(), concurrency=50) as outcomes:
        await anyio.sleep(10)
        assert len(read) == 51  # the one too many waits in the reader's hand
        assert len([outcome async for outcome in outcomes]) == 1_000


async def test_one_busy_consumer_holds_at_most_its_share() -> None:
    """our design, section 2: per_consumer."""
    cloud = FakeCloud(latency=1.0)
    async with session_over(cloud) as session:
        stream = session.send_many(messages(100, 1), concurrency=100, per_consumer=5)
        async with stream as outcomes:
            await anyio.sleep(0.5)
            assert stream.read == 6
            assert len([outcome async for outcome in outcomes]) == 100


async def test_a_failing_source_raises_after_the_outcomes_of_what_was_read() -> None:
    """Issue 3, item 4."""

    def source() -> Iterator[Outgoing[int]]:
        yield from messages(30)
        raise OSError("the file is gone")

    seen: list[Outcome[int]] = []
    async with session_over(FakeCloud(latency=0.1)) as session:
        with pytest.raises(OSError, match="the file is gone"):
            async with session.send_many(source()) as outcomes:
                async for outcome in outcomes:
                    seen.append(outcome)
    assert len(seen) == 30


async def test_stop_reads_no_more_and_settles_the_rest() -> None:
    """our design, section 2."""
    async with session_over(FakeCloud(latency=0.1)) as session:
        stream = session.send_many(messages(100_000), concurrency=100)
        seen = []
        async with stream as outcomes:
            async for outcome in outcomes:
                seen.append(outcome)
                if len(seen) == 10:
                    stream.stop()
    assert len(seen) == stream.read
    assert stream.read < 200


@pytest.mark.parametrize("how", ["raise", "break", "cancel"])
async def test_outcomes_that_the_loop_did_not_take_are_left(how: str) -> None:
    """Issue 3, item 4: exactly one outcome per message read, also on an exception in the loop body."""
    cloud = FakeCloud(latency=0.1)
    async with session_over(cloud) as session:
        stream = session.send_many(messages(10_000), concurrency=100)
        seen: list[Outcome[int]] = []

        async def loop() -> None:
            async with stream as outcomes:
                async for outcome in outcomes:
                    seen.append(outcome)
                    if len(seen) == 25:
                        if how == "raise":
                            raise KeyError("mine")
                        if how == "break":
                            break
                        await anyio.sleep_forever()

        with anyio.move_on_after(60):
            try:
                await loop()
            except KeyError:
                assert how == "raise"
        keys = [outcome.key for outcome in (*seen, *stream.left)]
        assert len(keys) == len(set(keys)) == stream.read
        assert len(seen) == 25


async def test_the_close_gives_what_is_left_its_outcome() -> None:
    """Issue 3, item 4."""
    cloud = FakeCloud()
    silent = 0

    async def silence(post: Post) -> Any:
        nonlocal silent
        if isinstance(post.json, list):
            return ok(post)
        silent += 1
        await anyio.sleep_forever()

    cloud.on_message = silence
    seen: list[Outcome[int]] = []
    async with anyio.create_task_group() as tasks:
        async with session_over(cloud, drain=1.0, limits=SessionLimits(max_in_flight=4)) as session:
            stream = session.send_many(messages(60), concurrency=50)

            async def loop() -> None:
                async with stream as outcomes:
                    async for outcome in outcomes:
                        seen.append(outcome)

            tasks.start_soon(loop)
            await anyio.sleep(2)
    statuses = Counter(outcome.status for outcome in seen)
    assert len(seen) == stream.read
    assert statuses == {UNKNOWN: silent, NOT_SENT: stream.read - silent}
    assert all(isinstance(outcome.error, SessionClosed) for outcome in seen)


async def test_a_message_may_wait_so_long_for_those_before_it() -> None:
    """Issue 3, item 4: lane waiting has its own limit and reason."""
    async with session_over(FakeCloud(latency=1.0)) as session:
        outcomes = await taken(session.send_many(messages(10, 1), lane_timeout=4.5))
    late = [outcome for outcome in outcomes if outcome.status is NOT_SENT]
    assert len(late) == 8  # two tokens, the opening and the first text take a second each
    error = late[0].error
    assert isinstance(error, DeadlineExceeded)
    assert "in its lane" in str(error)
    assert error.stages["lane"] > 4.5


@pytest.mark.requirement("outbound:survives-caller")
async def test_a_message_survives_its_cancelled_caller() -> None:
    """our design, section 2: a web request that is cancelled."""
    cloud = FakeCloud(latency=1.0)
    async with session_over(cloud) as session:
        with anyio.move_on_after(0.5):
            await session.send(Outgoing("customer", "hello"))
        submission = await session.submit(Outgoing("customer", "second"))
        assert [submission.done] == [False]
        outcome = await submission.outcome()
        assert outcome.status is ACCEPTED
        assert submission.done
        assert await submission.outcome() is outcome
    assert session.stats().accepted == 3  # the opening and both texts


async def test_a_full_queue_refuses_at_admission() -> None:
    """Issue 3, item 4: QueueFull says depth and age."""
    cloud = FakeCloud(latency=1.0)
    async with session_over(cloud, limits=SessionLimits(max_in_flight=1, max_queue=5)) as session:
        submissions = [await session.submit(message) for message in messages(5, 1)]
        await anyio.sleep(0.25)
        submissions.append(await session.submit(Outgoing("customer-0", "one more")))
        with pytest.raises(QueueFull) as caught:
            await session.submit(Outgoing("customer-0", "one too many"))
        assert caught.value.depth == 5
        assert caught.value.age == pytest.approx(0.25, abs=0.1)
        assert [(await submission.outcome()).status for submission in submissions] == [ACCEPTED] * 6


async def test_refusals_and_unknowns_are_told_apart() -> None:
    """our design, section 2."""
    cloud = FakeCloud()
    policy = RetryPolicy.vendor(unknown="report")
    async with session_over(cloud, retry=policy) as session:
        conversation = session.conversation("c-1", "customer")
        await conversation.send_text("warm")
        cloud.script = [lost()]
        unknown = await session.send(Outgoing(conversation, "hello"))
        assert (unknown.status, unknown.conversation_id) == (UNKNOWN, "c-1")
        cloud.script = [lambda post: _refuse(post, "Bad Request")]
        refused = await session.send(Outgoing(conversation, "hello"))
        assert refused.status is REFUSED
        assert (await session.send(Outgoing(conversation, ""))).status is REFUSED
        assert (await session.send(Outgoing(conversation, "x" * 6_000))).status is REFUSED
        event = await session.send(Outgoing(conversation, ContentEvent.text_of("as an event"), request_id="mine"))
        assert event.result is not None
        assert event.result.request_id == "mine"
        again = await session.send(Outgoing(conversation, "again", request_id="mine-2", prior_attempts=2))
        assert again.result is not None
        assert [(one.number, one.sequence) for one in again.result.attempts] == [(3, 4)]
        assert again.maybe_duplicate
        assert (await session.send(Outgoing(conversation, "too often", prior_attempts=10**6))).status is REFUSED


async def _refuse(post: Post, words: str) -> Any:
    return answer(400, {"code": "BAD_REQUEST", "body": {"msg": words}, "reqId": post.ids[0]})


async def test_a_closed_conversation_of_a_consumer_is_opened_again() -> None:
    """How-to guide."""
    cloud = FakeCloud()
    async with session_over(cloud) as session:
        first = await session.send(Outgoing("customer", "hello"))
        cloud.script = [lambda post: _refuse(post, "Bad Request, Conversation is close")]
        second = await session.send(Outgoing("customer", "again"))
        assert second.status is ACCEPTED
        assert second.conversation_id != first.conversation_id
        conversation = session.conversation("c-9", "other")
        cloud.script = [lambda post: _refuse(post, "Bad Request, Conversation is close")]
        closed = await session.send(Outgoing(conversation, "hello"))
        assert isinstance(closed.error, ConversationClosed)
        assert (await session.send(Outgoing(conversation, "hello"))).status is REFUSED


async def test_a_refused_opening_is_told_apart_from_a_bad_moment() -> None:
    """A message whose conversation cannot be had was not sent."""
    cloud = FakeCloud()

    async def refuse_opening(post: Post) -> Any:
        return answer(
            400,
            [
                {"code": "OK", "body": {}, "reqId": post.ids[0]},
                {"code": "BAD_REQUEST", "body": {"msg": words}, "reqId": post.ids[1]},
            ],
        )

    cloud.on_message = refuse_opening
    async with session_over(cloud) as session:
        words = "no such skill"
        assert (await session.send(Outgoing("customer", "hello"))).status is REFUSED
        words = "already has open conversation"
        assert (await session.send(Outgoing("customer", "hello"))).status is NOT_SENT


async def test_a_failing_store_costs_one_message_not_the_session(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing of the user's may end the session."""

    class Broken(MemoryStore):
        async def get_open_conversation(self, account_id: str, ext_consumer_id: str) -> Any:
            raise OSError("disk full")

    async with session_over(FakeCloud(), store=Broken()) as session:
        outcome = await session.send(Outgoing("customer", "hello"))
        assert outcome.status is NOT_SENT
        assert isinstance(outcome.error, OSError)
        assert session.health().live
    assert "could not be carried" in caplog.text


@pytest.mark.no_cover
@pytest.mark.requirement("C16")
async def test_c16_any_mixture_of_accidents_leaves_one_outcome_for_each_message() -> None:
    """C16, at session level: drops, refusals, throttling, revocations, at random; counts agree to the unit."""
    rng = random.Random(7)
    cloud = FakeCloud(latency=0.02)

    async def moody(post: Post) -> Any:
        dice = rng.random()
        if dice < 0.03:
            cloud.revoke()
        if dice < 0.1:
            raise lost()
        if dice < 0.13:
            return answer(429, {}, {"Retry-After": "1"})
        if dice < 0.15 and not isinstance(post.json, list):
            return await _refuse(post, "Bad Request")
        return await cloud.take_message(post)

    cloud.on_message = moody
    async with session_over(cloud, limits=SessionLimits(max_in_flight=64), timeout=600.0) as session:
        outcomes = await taken(session.send_many(messages(3_000, 100), concurrency=1_000))
        stats = session.stats()
        assert session.pending() == ()
    assert sorted(outcome.key or 0 for outcome in outcomes) == list(range(3_000))
    ended = stats.accepted + stats.refused + stats.not_sent + stats.unknown + stats.cancelled
    assert stats.requests == ended
    assert stats.in_flight == stats.queued == 0
    for outcome in outcomes:
        if outcome.result is not None:
            counters = [attempt.sequence for attempt in outcome.result.attempts]
            assert counters == [0, 2, 4, 8, 16, 32, 64, 128][: len(counters)]


async def test_several_tasks_may_take_outcomes_from_one_stream() -> None:
    """Workers that share the outcomes: none of them is left waiting, none gets another's."""
    cloud = FakeCloud(latency=0.01)
    seen: list[int | None] = []
    async with session_over(cloud) as session, session.send_many(messages(200), concurrency=50) as outcomes:

        async def worker() -> None:
            async for outcome in outcomes:
                seen.append(outcome.key)
                await anyio.sleep(0.001)

        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                for _ in range(3):
                    tasks.start_soon(worker)
    assert sorted(key or 0 for key in seen) == list(range(200))


async def test_a_stream_is_entered_and_only_once() -> None:
    """Iterating without entering would send nothing, and say nothing."""
    async with session_over(FakeCloud()) as session:
        with pytest.raises(RuntimeError, match="enter the stream first"):
            await anext(session.send_many(messages(5)))
        stream = session.send_many(messages(5))
        assert len(await taken(stream)) == 5
        with pytest.raises(RuntimeError, match="entered once"):
            await taken(stream)
    with pytest.raises(SessionClosed):
        await taken(session.send_many(messages(5)))


@pytest.mark.parametrize("name", ["concurrency", "per_consumer"])
@pytest.mark.parametrize("value", [0, -1, "5", True, float("nan")])
async def test_with_room_for_none_a_stream_is_refused(name: str, value: Any) -> None:
    """It would read nothing, and wait for ever."""
    async with session_over(FakeCloud()) as session:
        options: dict[str, Any] = {name: value}
        with pytest.raises(ValueError, match=f"{name} must be a number of at least 1"):
            session.send_many(messages(5), **options)


@pytest.mark.parametrize("how", ["break", "raise", "stop"])
async def test_an_async_generator_is_closed_when_no_more_is_read_of_it(how: str) -> None:
    """PEP 525: otherwise its `finally` runs when the garbage collector finds it, if ever."""
    closed = 0

    async def source() -> AsyncIterator[Outgoing[int]]:
        nonlocal closed
        try:
            for message in messages(1_000):
                yield message
        finally:
            await anyio.sleep(0.1)
            closed += 1

    async with session_over(FakeCloud()) as session:
        try:
            async with session.send_many(source(), concurrency=10) as outcomes:
                async for _ in outcomes:
                    if how == "raise":
                        raise KeyError("mine")
                    if how == "break":
                        break
                    outcomes.stop()
        except KeyError:
            assert how == "raise"
        assert closed == 1


async def test_a_source_that_fails_when_nobody_listens_any_more_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """No exception is swallowed."""

    async def source() -> AsyncIterator[Outgoing[int]]:
        try:
            for message in messages(1_000):
                yield message
        finally:
            raise OSError("the cursor is gone")

    async with session_over(FakeCloud()) as session:
        async with session.send_many(source(), concurrency=10) as outcomes:
            await anext(outcomes)
        assert "the source of messages failed" in caplog.text


async def test_a_source_must_give_messages() -> None:
    """The error says what is wanted, after the outcomes of what was read before."""
    seen: list[Any] = []
    source: list[Any] = [Outgoing("customer", "hello"), "customer"]
    async with session_over(FakeCloud()) as session:
        with pytest.raises(TypeError, match=r"must be an `Outgoing\(to, body\)`, not str"):
            async with session.send_many(source) as outcomes:
                async for outcome in outcomes:
                    seen.append(outcome.status)
        assert seen == [ACCEPTED]
        nothing: Any = "hello"
        with pytest.raises(TypeError, match="Outgoing"):
            await session.send(nothing)


@pytest.mark.parametrize("message", [Outgoing("", "x"), Outgoing(None, "x"), Outgoing("c", "x", opening={})])  # type: ignore[arg-type]
async def test_a_message_that_is_to_nobody_is_refused_and_the_others_go_on(
    message: Outgoing[Any], caplog: pytest.LogCaptureFixture
) -> None:
    """It can never succeed as it is: safe to send again would be a lie."""
    async with session_over(FakeCloud()) as session:
        outcomes = await taken(session.send_many([message, Outgoing("other", "x")], ordered=True))
    assert [outcome.status for outcome in outcomes] == [REFUSED, ACCEPTED]
    assert "could not be carried" not in caplog.text


async def test_a_stream_left_by_a_cancellation_sends_no_more_of_what_waits() -> None:
    """What is under way is settled, the rest is not sent; each has its outcome, and it is over at once."""
    cloud = FakeCloud(latency=0.5)
    async with session_over(cloud) as session:
        stream = session.send_many(messages(10_000, consumers=4), concurrency=1_000)
        started = anyio.current_time()
        with anyio.move_on_after(2.2):
            async with stream as outcomes:
                async for _ in outcomes:
                    await anyio.sleep_forever()
        assert anyio.current_time() - started < 3
        posts = len(cloud.message_posts)
        await anyio.sleep(5)
        assert len(cloud.message_posts) == posts
        assert len(stream.left) == stream.read - 1
        assert Counter(outcome.status for outcome in stream.left)[NOT_SENT] > 300
        assert session.pending() == ()


async def test_what_does_not_end_while_a_stream_is_left_is_told_as_unknown() -> None:
    """Exactly one outcome each, within a bounded time."""
    cloud = FakeCloud()

    async def silence(post: Post) -> Any:
        if isinstance(post.json, list):
            return ok(post)
        await anyio.sleep_forever()

    cloud.on_message = silence
    async with session_over(cloud, drain=0.0) as session:
        stream = session.send_many(messages(60, consumers=4), concurrency=50)
        started = anyio.current_time()
        with pytest.raises(KeyError):
            async with stream:
                await anyio.sleep(1)
                raise KeyError("mine")
        assert anyio.current_time() - started < 12
        statuses = Counter(outcome.status for outcome in stream.left)
        assert statuses == {UNKNOWN: 4, NOT_SENT: stream.read - 4}


@pytest.mark.parametrize("by_consumer", [False, True])
async def test_the_timeout_of_a_message_is_for_all_that_it_takes(by_consumer: bool) -> None:
    """Opening the conversation included."""
    cloud = FakeCloud()

    async def slow(post: Post) -> Any:
        await anyio.sleep(3 if isinstance(post.json, list) else 30)
        return ok(post)

    cloud.on_message = slow
    async with session_over(cloud, drain=0.0) as session:
        started = anyio.current_time()
        if by_consumer:
            with pytest.raises(DeadlineExceeded):
                await session.consumer("customer").send_text("hello", timeout=4.0)
        else:
            outcome = await session.send(Outgoing("customer", "hello", timeout=4.0))
            assert outcome.status is UNKNOWN
            assert isinstance(outcome.error, DeadlineExceeded)
        assert anyio.current_time() - started == pytest.approx(4.0, abs=0.1)


async def test_texts_to_a_new_consumer_arrive_in_the_order_of_the_calls() -> None:
    """They wait for one conversation to be opened, and go on in the order in which they came."""
    cloud = FakeCloud(latency=0.1)
    async with session_over(cloud) as session:
        consumer = session.consumer("customer")
        async with anyio.create_task_group() as tasks:
            for number in range(100):
                tasks.start_soon(consumer.send_text, f"text {number}")
    texts = [post.json["body"]["event"]["message"] for post in cloud.message_posts if isinstance(post.json, dict)]
    assert texts == [f"text {number}" for number in range(100)]


async def test_a_text_that_comes_while_the_new_conversation_is_written_down_stays_behind_those_that_wait() -> None:
    """The handle is known by then, and others still wait for it."""

    class Slow(MemoryStore):
        async def put_conversation(self, record: ConversationRecord) -> None:
            await anyio.sleep(1)
            await super().put_conversation(record)

    cloud = FakeCloud()
    async with session_over(cloud, store=Slow()) as session:
        consumer = session.consumer("customer")
        async with anyio.create_task_group() as tasks:
            for number in range(10):
                tasks.start_soon(consumer.send_text, f"text {number}")
                await anyio.sleep(0.2)
    texts = [post.json["body"]["event"]["message"] for post in cloud.message_posts if isinstance(post.json, dict)]
    assert texts == [f"text {number}" for number in range(10)]


async def test_a_cancellation_that_a_source_or_a_store_makes_up_takes_nobody_with_it() -> None:
    """Something of theirs that they awaited had been cancelled."""

    class Broken(MemoryStore):
        async def get_open_conversation(self, account_id: str, ext_consumer_id: str) -> Any:
            raise asyncio.CancelledError

    async def source() -> AsyncIterator[Outgoing[int]]:
        for message in messages(3):
            yield message
        raise asyncio.CancelledError

    async with session_over(FakeCloud(), store=Broken()) as session:
        seen: list[Outcome[int]] = []
        with pytest.raises(RuntimeError, match="what was awaited had been cancelled"):
            async with session.send_many(source()) as outcomes:
                async for outcome in outcomes:
                    seen.append(outcome)
        assert [outcome.status for outcome in seen] == [NOT_SENT] * 3
        assert session.health().live
        await session.consumer("customer").open_conversation()


async def test_a_cancellation_of_the_task_itself_is_not_held_up() -> None:
    """What comes from outside goes through; what ends the process too."""
    with anyio.CancelScope() as scope:
        scope.cancel()
        try:
            await anyio.sleep(1)
        except BaseException as error:
            with pytest.raises(asyncio.CancelledError):
                failure_of(error)
            raise
    with pytest.raises(KeyboardInterrupt):
        failure_of(KeyboardInterrupt())
    mine = KeyError("mine")
    assert failure_of(mine) is mine
