"""Whatever happens in whatever order: each request ends once, and the books agree with what the cloud saw."""

from __future__ import annotations

from collections import Counter
from typing import Any

import anyio
import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connector_async.errors import ConnectorError, RequestError, SessionClosed
from connector_async.exchange import Superseded
from connector_async.hooks import RequestFinished
from connector_async.transport.base import Answer
from connector_async.wire import ChatStateEvent, PublishEvent
from tests.backends import TRIO
from tests.doubles import FakeCloud, Post, answer, lost, not_sent, ok, unauthorized
from tests.exchange.rig import rig

pytestmark = pytest.mark.anyio


REPLIES: dict[str, Any] = {
    "400": answer(400, {"code": 400, "body": {"msg": "no"}}),
    "401": unauthorized(None),
    "40102": unauthorized(40102),
    "40103": unauthorized(40103),
    "429": answer(429, b"", {"Retry-After": "2"}),
    "503": answer(503),
    "lost": lost(),
    "stale": lost(reused=True),
    "not sent": not_sent(),
    "garbage": answer(200, b"\x00"),
    "foreign": answer(200, {"code": "OK", "reqId": "foreign"}),
    "empty": answer(200, []),
    "slow": "slow",
}

_steps = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(0, 3), st.floats(0.01, 40.0)),
        st.tuples(st.just("type"), st.integers(0, 3), st.just(0.0)),
        st.tuples(st.just("cancel"), st.integers(0, 20), st.just(0.0)),
        st.tuples(st.just("reply"), st.sampled_from(sorted(REPLIES)), st.just(0.0)),
        st.tuples(st.just("revoke"), st.just(0), st.just(0.0)),
        st.tuples(st.just("wait"), st.just(0), st.floats(0.0, 20.0)),
        st.tuples(st.just("close"), st.just(0), st.just(0.0)),
    ),
    max_size=40,
)


@attrs.define(eq=False)
class Sent:
    """What the callers saw: how often each thing ended, and in which way."""

    ended: Counter[str] = attrs.field(factory=Counter)
    scopes: list[anyio.CancelScope] = attrs.field(factory=list)


@pytest.mark.no_cover
@settings(max_examples=200)
@given(steps=_steps, width=st.integers(1, 4), jitter=st.floats(0.0, 1.0))
async def test_c16_any_order_of_events_ends_each_request_once(
    steps: list[tuple[str, Any, float]], width: int, jitter: float
) -> None:
    """C16 (engine): one outcome per id, counters 0, 2, 4, 8 …, pending = live, the books balance at every step."""
    cloud = FakeCloud(latency=0.2)
    seen = Sent()
    async with rig(cloud, width=width, max_queue=6, random=lambda: jitter) as r:

        async def slow(post: Post) -> Answer:
            await anyio.sleep(30.0)
            return ok(post)

        async def run(body: PublishEvent | None, number: int, timeout: float) -> None:
            call = r.text(f"d{number}", consumer=f"c{number % 2}") if body is None else r.call(body)
            with anyio.CancelScope() as scope:
                seen.scopes.append(scope)
                try:
                    await r.engine.run(call, timeout)
                    seen.ended["accepted"] += 1
                except Superseded:
                    seen.ended["superseded"] += 1
                except RequestError as error:
                    assert isinstance(error, ConnectorError)
                    seen.ended["failed"] += 1
                    seen.ended["refused at the door"] += isinstance(error, SessionClosed) and not error.attempts
            seen.ended["cancelled"] += scope.cancelled_caught

        async with anyio.create_task_group() as tasks:
            started = 0
            for what, number, seconds in steps:
                if what == "send":
                    tasks.start_soon(run, None, number, seconds)
                    started += 1
                elif what == "type":
                    tasks.start_soon(run, PublishEvent(f"d{number}", ChatStateEvent("ACTIVE")), number, 30.0)
                    started += 1
                elif what == "cancel" and number < len(seen.scopes):
                    seen.scopes[number].cancel()
                elif what == "reply":
                    cloud.script.append(slow if number == "slow" else REPLIES[number])
                elif what == "revoke":
                    cloud.revoke()
                elif what == "close":
                    r.engine.close()
                    r.keeper.close()
                    r.consumers.abort()
                await anyio.sleep(seconds if what == "wait" else 0.01)
                live = {request_id for one in r.engine.pending() for request_id in one.request_ids}
                assert len(r.engine) <= len(live)
                if what != "close":
                    r.assert_balanced(in_flight=r.engine.counters.requests - _finished(r.engine.counters))
            cloud.script.clear()
        r.assert_quiet()
        c = r.engine.counters
        assert sum(seen.ended[kind] for kind in ("accepted", "superseded", "failed", "cancelled")) == started
        assert c.accepted == seen.ended["accepted"]
        assert c.cancelled == seen.ended["cancelled"]
        assert c.dropped_chat_states == seen.ended["superseded"]
        finished = r.told(RequestFinished)
        assert len(finished) == c.requests
        assert len({event.request_ids for event in finished}) == len(finished)
        for event in finished:
            assert [a.sequence for a in event.attempts] == [0, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048][
                : len(event.attempts)
            ]
        bodies: dict[str, set[bytes]] = {}
        for post in cloud.message_posts:
            bodies.setdefault(post.ids[0], set()).add(post.body)
        assert all(len(versions) == 1 for versions in bodies.values())


def _finished(c: Any) -> int:
    return int(c.accepted + c.refused + c.not_sent + c.unknown + c.cancelled)


@pytest.mark.parametrize("anyio_backend", [TRIO])
async def test_the_same_engine_runs_on_trio() -> None:
    """Decision 10: trio runs too."""
    cloud = FakeCloud()
    async with rig(cloud, random=lambda: 0.01, rate=1_000.0, width=2) as r:
        with anyio.fail_after(5):
            await r.send("warm")
            cloud.script = [lost(), unauthorized(40102)]
            async with anyio.create_task_group() as tasks:
                for number in range(20):
                    tasks.start_soon(r.send, f"d{number % 5}")
            with anyio.move_on_after(0.02):

                async def hang(_post: Post) -> Answer:
                    await anyio.sleep_forever()
                    raise AssertionError

                cloud.script = [hang]
                await r.send()
            assert r.engine.counters.cancelled == 1
            assert r.engine.counters.accepted == 21
            r.engine.close()
            r.keeper.close()
        r.assert_quiet()
