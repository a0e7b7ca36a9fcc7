"""The straight way of a request, and its attempts."""

from __future__ import annotations

import gc
import json
import weakref
from typing import Literal

import anyio
import pytest

from connector_async.errors import (
    DeadlineExceeded,
    Landed,
    LocalProtocolError,
    NotSent,
    OutcomeUnknown,
    QueueFull,
    RequestError,
    RequestRefused,
    TLSError,
)
from connector_async.exchange import Response, Superseded
from connector_async.hooks import AttemptFailed, RequestFinished
from connector_async.protocol.retry import RetryPolicy
from connector_async.transport.base import Answer, Headers, Transport
from connector_async.wire import (
    AcceptStatusEvent,
    ChatStateEvent,
    ConsumerRequestConversation,
    PublishEvent,
    RawBody,
    SetUserProfile,
)
from tests.doubles import FakeCloud, Post, ScriptedTransport, answer, lost, not_sent, ok
from tests.exchange.rig import rig

pytestmark = pytest.mark.anyio


async def test_a_text_is_sent_once_with_the_headers_of_the_api() -> None:
    """Connector API, SEND: bare AppJWT, X-LP-ON-BEHALF, Content-Type, and Client-Properties where set."""
    async with rig() as r:
        response = await r.send(request_id="m-1", properties=Headers([("Client-Properties", "{}")]))
        (post,) = r.cloud.message_posts
        assert post.target.url.endswith("/api/account/12345678/messaging/consumer/conversation/send?v=3")
        assert post.fields == [
            ("Authorization", "app.1"),
            ("Content-Type", "application/json"),
            ("X-LP-ON-BEHALF", "jws.c1"),
            ("Client-Properties", "{}"),
        ]
        assert (response.request_id, response.status, response.code) == ("m-1", 200, "OK")
        assert response.body.sequence == 0
        assert [(a.number, a.sequence, a.status, a.cause) for a in response.attempts] == [(1, 0, 200, None)]
        assert not response.maybe_duplicate
        r.assert_quiet()


async def test_a_second_text_asks_for_nothing_but_itself() -> None:
    """The tokens and the host are kept (issue 2, item 4)."""
    async with rig() as r:
        await r.send()
        await r.send("d2")
        assert (len(r.cloud.token_posts), len(r.cloud.consumer_posts), len(r.cloud.message_posts)) == (1, 1, 2)


@pytest.mark.requirement("retry:same-bytes", "retry:sequence")
async def test_every_attempt_has_the_same_id_and_bytes_and_doubles_the_counter() -> None:
    """Decision 2: 0, 2, 4, 8, 16 …; a retry keeps the request id and the body bytes."""
    cloud = FakeCloud()
    cloud.script = [lost(), lost(), answer(503), not_sent()]
    async with rig(cloud) as r:
        response = await r.send()
        assert [a.sequence for a in response.attempts] == [0, 2, 4, 8, 16]
        assert [a.number for a in response.attempts] == [1, 2, 3, 4, 5]
        assert [a.status for a in response.attempts] == [None, None, 503, None, 200]
        assert len({post.body for post in cloud.message_posts}) == 1
        assert response.maybe_duplicate
        assert r.engine.counters.retries == 4
        assert r.engine.counters.attempts == 5
        r.assert_quiet()


async def test_the_counter_goes_on_from_the_attempts_of_an_earlier_process() -> None:
    """Issue 3, item 2: `prior_attempts`."""
    async with rig() as r:
        response = await r.send(prior_attempts=2)
        assert [(a.number, a.sequence) for a in response.attempts] == [(3, 4)]
        assert response.maybe_duplicate


@pytest.mark.parametrize("number", [-1, 1_001])
async def test_an_impossible_number_of_prior_attempts_is_refused_before_anything_is_sent(number: int) -> None:
    """A counter of 2**1000000 would take the memory; a negative one would fail after the send."""
    async with rig() as r:
        with pytest.raises(ValueError, match="prior_attempts"):
            r.text(prior_attempts=number)


async def test_an_id_in_flight_is_refused_at_once_and_its_owner_goes_on() -> None:
    """Issue 3, item 2."""
    async with rig(FakeCloud(latency=1.0)) as r, anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: r.send(request_id="same"))
        await anyio.sleep(0.5)
        with pytest.raises(LocalProtocolError, match="in flight already"):
            await r.send("d2", request_id="same")
        assert len(r.engine) == 1
    assert r.engine.counters.accepted == 1
    r.assert_quiet()


async def test_texts_of_one_dialog_never_overtake_each_other_even_while_one_backs_off() -> None:
    """Decision 5."""
    cloud = FakeCloud()
    done: list[str] = []

    async with rig(cloud) as r:
        await r.send("warm")
        cloud.script = [answer(503)]

        async def send(text: str, dialog: str) -> None:
            await r.send(dialog, text=text)
            done.append(text)

        async with anyio.create_task_group() as tasks:
            for text in ("one", "two", "three"):
                tasks.start_soon(send, text, "d1")
            tasks.start_soon(send, "other", "d2")
        assert done == ["other", "one", "two", "three"]


async def test_a_newer_chat_state_replaces_the_one_that_waits() -> None:
    """Issue 3, item 4: typing is coalesced and dropped first; it counts as no request."""
    async with rig(FakeCloud(latency=1.0), width=1) as r:
        seen: list[str] = []

        async def type_(state: str) -> None:
            try:
                await r.engine.run(r.call(PublishEvent("d1", ChatStateEvent(state))))
                seen.append(state)
            except Superseded:
                seen.append(f"{state} dropped")

        await r.send("warm")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(r.send, "d9")
            await anyio.sleep(0.1)
            for state in ("COMPOSING", "PAUSE", "ACTIVE"):
                tasks.start_soon(type_, state)
                await anyio.sleep(0.01)
        assert sorted(seen) == ["ACTIVE", "COMPOSING dropped", "PAUSE dropped"]
        assert r.engine.counters.dropped_chat_states == 2
        assert r.engine.counters.requests == 3
        r.assert_quiet()


async def test_a_full_queue_refuses_with_depth_and_age_and_counts_it_as_not_sent() -> None:
    """Issue 3, item 4."""
    async with rig(FakeCloud(latency=1.0), width=1, max_queue=1) as r:
        await r.send("warm")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(r.send, "d1")
            await anyio.sleep(0.1)
            tasks.start_soon(r.send, "d2")
            await anyio.sleep(0.1)
            error = await r.outcome("d3")
        assert isinstance(error, QueueFull)
        assert error.age == pytest.approx(0.1)
        assert (error.depth, error.attempts, error.landed) == (1, (), Landed.NO)
        assert error.request_id is not None
        assert r.engine.counters.not_sent == 1
        r.assert_quiet()


@pytest.mark.parametrize("unknown", ["resend", "report"])
async def test_an_unknown_outcome_is_resent_or_reported_as_the_policy_says(
    unknown: Literal["resend", "report"],
) -> None:
    """Decision 3."""
    cloud = FakeCloud()
    cloud.script = [lost()]
    async with rig(cloud, policy=RetryPolicy.vendor(unknown=unknown)) as r:
        if unknown == "resend":
            assert (await r.send()).maybe_duplicate
            return
        error = await r.outcome()
        assert isinstance(error, OutcomeUnknown)
        assert (error.landed, error.retryable, len(error.attempts)) == (Landed.UNKNOWN, False, 1)
        assert "may have landed" in error.hint
        assert error.__cause__ is not None
        assert r.engine.counters.unknown == 1
        r.assert_quiet()


@pytest.mark.parametrize(
    "body", [PublishEvent("d1", AcceptStatusEvent("READ", [1])), PublishEvent("d1", ChatStateEvent("ACTIVE"))]
)
async def test_what_is_harmless_is_resent_even_where_unknown_outcomes_are_reported(body: PublishEvent) -> None:
    """Decision 3: everything harmless to repeat is retried always, and is no duplicate to speak of."""
    cloud = FakeCloud()
    cloud.script = [lost(), answer(502)]
    async with rig(cloud, policy=RetryPolicy.vendor(unknown="report")) as r:
        (response,) = await r.engine.run(r.call(body))
        assert isinstance(response, Response)
        assert len(response.attempts) == 3
        assert not response.maybe_duplicate


async def test_a_stale_connection_is_replaced_at_once() -> None:
    """Reliability 2: a reused connection that closed without a byte was most likely idle too long."""
    cloud = FakeCloud()
    cloud.script = [lost(reused=True)]
    async with rig(cloud) as r:
        await r.send()
        assert cloud.message_posts[0].at == cloud.message_posts[1].at


async def test_what_was_not_sent_costs_no_retry_budget_and_is_no_duplicate() -> None:
    """Reliability 1, rule 6."""
    cloud = FakeCloud()
    cloud.script = [not_sent(), not_sent()]
    async with rig(cloud) as r:
        response = await r.send()
        assert len(response.attempts) == 3
        assert not response.maybe_duplicate
        assert r.engine.budget.tokens == 500


async def test_nothing_was_sent_when_every_connection_fails() -> None:
    """Decision 3: *not sent* is safe to send again."""
    cloud = FakeCloud()
    cloud.script = [not_sent()] * 12
    async with rig(cloud) as r:
        error = await r.outcome()
        assert isinstance(error, NotSent)
        assert (error.landed, error.retryable, len(error.attempts)) == (Landed.NO, True, 12)
        assert "attempts are used up" in str(error)
        assert r.engine.counters.not_sent == 1


async def test_an_untrusted_certificate_is_never_tried_again() -> None:
    """S5: refused, not retried, names the cause."""
    cloud = FakeCloud()
    cloud.script = [TLSError("TLS failed: certificate has expired")]
    async with rig(cloud) as r:
        error = await r.outcome()
        assert isinstance(error, NotSent)
        assert not error.retryable
        assert "certificate has expired" in str(error)
        assert isinstance(error.__cause__, TLSError)
        assert len(cloud.message_posts) == 1


async def test_a_request_that_http_cannot_carry_was_certainly_not_sent() -> None:
    """LocalProtocolError of a transport: refused by our own side."""
    cloud = FakeCloud()
    cloud.script = [LocalProtocolError("header has characters that HTTP does not allow")]
    async with rig(cloud) as r:
        error = await r.outcome()
        assert isinstance(error, NotSent)
        assert (error.landed, error.retryable, len(error.attempts)) == (Landed.NO, False, 1)


async def test_a_foreign_error_of_a_transport_is_counted_as_unknown() -> None:
    """A transport of the user's may raise anything; what it had sent by then nobody knows."""
    cloud = FakeCloud()
    cloud.script = [ZeroDivisionError()]
    async with rig(cloud) as r:
        with pytest.raises(ZeroDivisionError):
            await r.send()
        assert r.engine.counters.unknown == 1
        (told,) = r.told(RequestFinished)
        assert (told.outcome, told.landed, told.error) == ("unknown", Landed.UNKNOWN, None)
        r.assert_quiet()


async def test_hooks_hear_of_every_attempt_and_every_end() -> None:
    """Issue 3, item 7."""
    cloud = FakeCloud()
    async with rig(cloud) as r:
        await r.send("warm")
        cloud.script = [lost(), answer(400, {"code": "BAD_REQUEST", "body": {"msg": "no"}, "reqId": "m-1"})]
        error = await r.outcome(request_id="m-1")
        first, second = r.told(AttemptFailed)
        assert (first.attempt.number, first.wait) == (1, pytest.approx(0.25))
        assert (second.attempt.number, second.wait) == (2, None)
        accepted, ended = r.told(RequestFinished)
        assert (accepted.outcome, accepted.landed) == ("accepted", Landed.YES)
        assert (ended.outcome, ended.error, ended.request_ids) == ("unknown", error, ("m-1",))
        assert ended.attempts == error.attempts
        assert ended.duration == pytest.approx(0.25)


async def test_a_batch_goes_to_the_other_endpoint_and_comes_back_in_the_order_given() -> None:
    """Connector API, CONVERSATION."""
    cloud = FakeCloud()

    async def backwards(post: Post) -> Answer:
        return answer(200, json.loads(ok(post).body)[::-1])

    cloud.on_message = backwards
    async with rig(cloud) as r:
        call = r.call(SetUserProfile(), ConsumerRequestConversation(brand_id="12345678"), batch=True)
        told, opened = await r.engine.run(call)
        assert isinstance(told, Response)
        assert isinstance(opened, Response)
        assert (told.request_id, opened.request_id) == call.request_ids
        assert opened.body.conversation_id == f"conversation-{call.request_ids[1]}"
        assert cloud.message_posts[0].target.path.endswith("/messaging/consumer/conversation?v=3")
        assert r.engine.counters.requests == 1
        r.assert_quiet()


async def test_the_duplicate_and_loss_meter_reads_content_only() -> None:
    """Decision 2: the server's counter beside ours; chat states are always answered with 0."""
    async with rig() as r:
        for sequence in (0, 5, None):

            async def reply(post: Post, sequence: int | None = sequence) -> Answer:
                return ok(post, sequence)

            r.cloud.script = [reply]
            await r.send()
        assert (r.engine.counters.sequence_agrees, r.engine.counters.sequence_saw_more) == (1, 1)
        r.cloud.script = [lost()]
        await r.send()
        assert r.engine.counters.sequence_saw_fewer == 1
        await r.engine.run(r.call(PublishEvent("d1", ChatStateEvent("ACTIVE"))))
        await r.engine.run(r.call(RawBody("ms.PublishEvent", {"dialogId": "d1"})))
        c = r.engine.counters
        assert c.sequence_agrees + c.sequence_saw_more + c.sequence_saw_fewer == 3


async def test_pending_shows_stage_age_and_attempt() -> None:
    """Issue 3, item 1."""
    cloud = FakeCloud(latency=1.0)
    cloud.script = [answer(503)]
    async with rig(cloud, width=1) as r, anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: r.send(request_id="m-1"))
        await anyio.sleep(0.5)
        (token,) = r.engine.pending()
        assert (token.stage, token.attempt, token.age, token.request_ids) == ("token", 0, 0.5, ("m-1",))
        assert token.type == "ms.PublishEvent"
        await anyio.sleep(2.0)
        (backing,) = r.engine.pending()
        assert (backing.stage, backing.attempt) == ("backing off", 1)
        await anyio.sleep(5.0)
        tasks.start_soon(lambda: r.send("d1", request_id="m-2"))
        await anyio.sleep(0.1)
        sending, queued = r.engine.pending()
        assert (sending.stage, sending.attempt) == ("sending", 2)
        assert (queued.stage, queued.attempt, queued.request_ids) == ("queued", 0, ("m-2",))


async def test_wait_idle_returns_when_the_last_request_ends() -> None:
    """The drain of a session."""
    async with rig(FakeCloud(latency=1.0)) as r, anyio.create_task_group() as tasks:
        await r.engine.wait_idle()
        tasks.start_soon(r.send)
        tasks.start_soon(r.send, "d2")
        await anyio.sleep(0.1)
        started = anyio.current_time()
        await r.engine.wait_idle()
        assert anyio.current_time() - started == pytest.approx(2.9)
        assert len(r.engine) == 0


async def test_tokens_and_width_are_not_wasted_on_a_request_whose_time_is_up() -> None:
    """A timeout of 0 sends nothing and says so."""
    async with rig() as r:
        await r.send()
        error = await r.outcome(timeout=0.0)
        assert isinstance(error, DeadlineExceeded)
        assert (error.landed, error.retryable) == (Landed.NO, True)
        assert len(r.cloud.message_posts) == 1


async def test_a_failing_request_leaves_no_cycle_that_keeps_it_alive() -> None:
    """A bad day must not wait for the garbage collector."""
    cloud = FakeCloud()
    async with rig(cloud) as r:
        await r.send()
        cloud.script = [answer(400, {"code": 400, "body": {"msg": "no"}}), *[not_sent()] * 12]
        gc.collect()
        gc.disable()
        try:
            for kind in (RequestRefused, NotSent):
                seen: weakref.ref[RequestError] = weakref.ref(RequestError())
                try:
                    await r.send()
                except RequestError as error:
                    assert isinstance(error, kind)
                    seen = weakref.ref(error)
                r.events.clear()
                assert seen() is None
        finally:
            gc.enable()


def test_the_double_is_a_transport() -> None:
    """The seam of transport/base.py."""
    assert isinstance(ScriptedTransport(FakeCloud()), Transport)
