"""ConsumerJWS: fetched once, kept, bounded; a bad one hurts its consumer alone."""

from __future__ import annotations

import anyio
import attrs
import pytest

from connector_async.errors import (
    AppTokenRefused,
    AuthError,
    ConsumerTokenRefused,
    LocalProtocolError,
    StoreUnavailable,
    TLSError,
    TokenUnavailable,
)
from connector_async.store import MemoryStore
from connector_async.store.base import ConsumerRecord
from connector_async.transport.base import Answer
from tests.auth.test_app_token import jwt
from tests.doubles import FakeCloud, Post, answer, lost, not_sent, unauthorized
from tests.exchange.rig import rig
from tests.guards import CANARY, assert_canary_absent

pytestmark = pytest.mark.anyio


async def test_a_token_is_fetched_at_first_use_and_once_however_many_ask() -> None:
    """Decision of issue 2, item 4."""
    async with rig(FakeCloud(latency=1.0)) as r:
        tokens: list[str] = []

        async def ask() -> None:
            tokens.append(await r.consumers.get("c1"))

        async with anyio.create_task_group() as tasks:
            for _ in range(100):
                tasks.start_soon(ask)
        assert len({id(token) for token in tokens}) == 1
        assert (len(r.cloud.consumer_posts), len(r.cloud.token_posts), r.consumers.fetched) == (1, 1, 1)
        (post,) = r.cloud.consumer_posts
        assert post.target.path == "/api/account/12345678/consumer?v=1.0"
        assert post.fields == [("Authorization", "app.1"), ("Content-Type", "application/json")]
        assert post.json == {"ext_consumer_id": "c1"}
        assert await r.consumers.get("c1") is tokens[0]


async def test_a_first_caller_that_is_cancelled_does_not_cost_the_others_the_fetch() -> None:
    """Issue 3, item 3."""
    async with rig(FakeCloud(latency=1.0)) as r, anyio.create_task_group() as tasks:

        async def leave() -> None:
            with anyio.move_on_after(1.5):
                await r.consumers.get("c1")

        tasks.start_soon(leave)
        await anyio.sleep(1.2)
        await r.consumers.get("c1")
        assert len(r.cloud.consumer_posts) == 1


async def test_memory_is_bounded_and_the_store_has_the_rest() -> None:
    """The least recently used leaves."""
    async with rig(max_cached=2) as r:
        for name in ("a", "b", "a", "c"):
            await r.consumers.get(name)
        assert r.consumers.known("a") is not None
        assert r.consumers.known("b") is None
        assert await r.consumers.get("b") == "jws.b"
        assert r.consumers.fetched == 3
        r.consumers.forget("a")
        r.consumers.forget("never seen")
        assert r.consumers.known("a") is None


async def test_who_a_consumer_is_for_the_cloud_is_remembered() -> None:
    """A webhook names only the `lp_consumer_id`."""
    store = MemoryStore()
    async with rig(store=store) as r:
        claims: list[object] = ["f" * 64, 7]

        async def give(_post: Post) -> Answer:
            return answer(201, {"token": jwt({"lp_consumer_id": claims.pop(0)})})

        r.cloud.on_consumer = give
        await r.consumers.get("c1")
        await r.consumers.get("c2")
        found = await store.find_consumer("12345678", "f" * 64)
        assert found is not None
        assert found.ext_consumer_id == "c1"
        other = await store.get_consumer("12345678", "c2")
        assert other is not None
        assert other.lp_consumer_id is None


class TokenlessStore(MemoryStore):
    """As a durable one without a seal: it writes no token down."""

    async def put_consumer(self, record: ConsumerRecord) -> None:
        await super().put_consumer(attrs.evolve(record, token=""))


async def test_a_store_that_keeps_no_tokens_is_no_error_and_knows_who_the_consumer_is(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """After a restart the token is fetched again; a webhook finds the consumer before that."""
    store = TokenlessStore()
    for _ in range(2):
        async with rig(store=store) as r:

            async def give(_post: Post) -> Answer:
                return answer(201, {"token": jwt({"lp_consumer_id": "f" * 64})})

            r.cloud.on_consumer = give
            await r.consumers.get("c1")
            await r.consumers.get("c1")
            assert r.consumers.fetched == 1
            found = await store.find_consumer("12345678", "f" * 64)
            assert found is not None
            assert (found.ext_consumer_id, found.token) == ("c1", "")
    assert [record for record in caplog.records if record.levelname != "INFO" and "store" in record.message] == []


@pytest.mark.parametrize("token", ["", "jws.refused"])
async def test_an_opaque_token_does_not_make_the_store_forget_who_the_consumer_is(token: str) -> None:
    """Fetched for an empty one, or for one that was refused."""
    store = MemoryStore()
    await store.put_consumer(
        ConsumerRecord(account_id="12345678", ext_consumer_id="c1", lp_consumer_id="f" * 64, token=token)
    )
    async with rig(store=store) as r:
        first = await r.consumers.get("c1")
        if token:
            await r.consumers.renew("c1", first)
    found = await store.find_consumer("12345678", "f" * 64)
    assert found is not None
    assert found.token == "jws.c1"


class BrokenStore(MemoryStore):
    """Its disk is full, and it cannot be read either."""

    async def get_consumer(self, account_id: str, ext_consumer_id: str) -> ConsumerRecord | None:
        raise StoreUnavailable("the disk is gone")

    async def put_consumer(self, record: ConsumerRecord) -> None:
        raise StoreUnavailable("the disk is full")


async def test_a_store_that_fails_costs_a_log_line_and_no_token(caplog: pytest.LogCaptureFixture) -> None:
    """Without the memory every message would ask the identity service again."""
    async with rig(store=BrokenStore()) as r:
        token = await r.consumers.get("c1")
        assert await r.consumers.get("c1") is token
        assert len(r.cloud.consumer_posts) == 1
        assert [record.message for record in caplog.records if "store" in record.message] == [
            "the store did not give a ConsumerJWS",
            "the store did not take a ConsumerJWS",
        ]


async def test_a_token_from_the_store_that_cannot_be_one_is_fetched_anew() -> None:
    """Empty after it was dropped; or damaged."""
    store = MemoryStore()
    for name, value in (("c1", ""), ("c2", "line\nbreak"), ("c3", "jws.stored")):
        await store.put_consumer(
            ConsumerRecord(account_id="12345678", ext_consumer_id=name, lp_consumer_id=None, token=value)
        )
    async with rig(store=store) as r:
        values = [await r.consumers.get(name) for name in ("c1", "c2", "c3")]
        assert values == ["jws.c1", "jws.c2", "jws.stored"]
        assert r.consumers.fetched == 2


async def test_a_401_of_the_identity_service_renews_the_app_token_once() -> None:
    """Connector API: "401: the AppJWT is missing, expired or invalid"."""
    async with rig() as r:
        await r.consumers.get("c1")
        r.cloud.revoke()
        assert await r.consumers.get("c2") == "jws.c2"
        assert len(r.cloud.token_posts) == 2


async def test_an_identity_service_that_says_401_without_a_reason_does_not_stop_the_others() -> None:
    """All messages wait while a refused AppJWT is renewed: it is believed for good only by its code."""
    async with rig() as r:
        await r.send("warm", consumer="good")

        async def always(_post: Post) -> Answer:
            return answer(401, {"internalErrorCode": 7, "body": {"errorCode": [1]}})

        r.cloud.on_consumer = always
        for name in ("bad1", "bad2", "bad3"):
            error = await r.outcome(consumer=name)
            assert isinstance(error, AppTokenRefused)
            started = anyio.current_time()
            await r.send(consumer="good")
            assert anyio.current_time() - started < 0.1
        assert len(r.cloud.token_posts) == 2


@pytest.mark.parametrize(
    ("reply", "kind", "status", "retryable"),
    [
        (answer(400, {"internalErrorCode": 4}), ConsumerTokenRefused, 400, False),
        (answer(404, b"<html>"), ConsumerTokenRefused, 404, False),
        (answer(429, b"", {"Retry-After": "4"}), TokenUnavailable, 429, True),
        (answer(503, b""), TokenUnavailable, 503, True),
        (answer(201, {"token": "no token at all"}), TokenUnavailable, 201, True),
        (answer(201, b"[]"), TokenUnavailable, 201, True),
        (answer(201, b"<html>"), TokenUnavailable, 201, True),
        (lost(), TokenUnavailable, None, True),
        (not_sent(), TokenUnavailable, None, True),
        (TLSError("TLS failed: wrong host"), TokenUnavailable, None, False),
    ],
)
async def test_what_the_identity_service_may_answer(
    reply: Answer | Exception, kind: type[AuthError], status: int | None, retryable: bool
) -> None:
    """Each end has a class, a status and says whether to try again; the consumer's id is masked."""
    async with rig() as r:

        async def handle(_post: Post) -> Answer:
            if isinstance(reply, Exception):
                raise reply
            return reply

        r.cloud.on_consumer = handle
        with pytest.raises(kind) as caught:
            await r.consumers.get(f"+49-{CANARY}-17")
        assert (caught.value.status, caught.value.retryable) == (status, retryable)
        assert_canary_absent(caught.value)
        if isinstance(caught.value, TokenUnavailable) and status == 429:
            assert caught.value.retry_after == 4.0


async def test_a_consumer_id_that_json_cannot_hold_is_refused_before_anything_is_sent() -> None:
    """Half a surrogate pair."""
    async with rig() as r:
        with pytest.raises(LocalProtocolError, match="ext_consumer_id"):
            await r.consumers.get("c\udc80")
        assert r.cloud.consumer_posts == []


async def test_all_that_came_back_with_a_bad_token_share_one_renewal() -> None:
    """The second of them must not be told that a fresh token was refused while it is being fetched."""
    async with rig(FakeCloud(latency=1.0)) as r:
        bad = await r.consumers.get("c1")
        numbers = iter(range(10))

        async def another(_post: Post) -> Answer:
            await anyio.sleep(1.0)
            return answer(201, {"token": f"jws.new-{next(numbers)}"})

        r.cloud.on_consumer = another
        got: list[str] = []

        async def renew() -> None:
            got.append(await r.consumers.renew("c1", bad))

        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(renew)
        assert got == ["jws.new-0"] * 10
        assert await r.consumers.renew("c1", bad) == "jws.new-0"
        assert r.consumers.fetched == 2


async def test_the_same_token_again_is_a_refusal_and_is_not_asked_for_within_30_seconds() -> None:
    """A consumer acting on another's conversation is refused each time."""
    async with rig() as r:
        bad = await r.consumers.get("c1")
        with pytest.raises(ConsumerTokenRefused, match="the same again"):
            await r.consumers.renew("c1", bad)
        fetched = len(r.cloud.consumer_posts)
        current = r.consumers.known("c1")
        assert current is not None
        for token in (current, bad):
            if token is current:
                with pytest.raises(ConsumerTokenRefused, match="freshly fetched"):
                    await r.consumers.renew("c1", token)
        assert len(r.cloud.consumer_posts) == fetched
        await anyio.sleep(31.0)
        with pytest.raises(ConsumerTokenRefused, match="the same again"):
            await r.consumers.renew("c1", current)
        assert len(r.cloud.consumer_posts) == fetched + 1


async def test_the_30_seconds_are_counted_for_each_consumer() -> None:
    """What lies further back is forgotten, however many were renewed."""
    async with rig() as r:
        tokens = {name: await r.consumers.get(name) for name in ("c1", "c2", "c3")}
        asked: list[str] = []

        async def renew(name: str, expected: str) -> None:
            with pytest.raises(ConsumerTokenRefused, match=expected):
                await r.consumers.renew(name, tokens[name])
            asked.append(f"{name}: {len(r.cloud.consumer_posts)}")

        await renew("c1", "the same again")
        await anyio.sleep(20.0)
        await renew("c2", "the same again")
        await renew("c1", "freshly fetched")
        await anyio.sleep(11.0)
        await renew("c2", "freshly fetched")
        await renew("c1", "the same again")
        await anyio.sleep(20.0)
        await renew("c2", "the same again")
        await anyio.sleep(31.0)
        await renew("c3", "the same again")
        await renew("c1", "the same again")
        assert asked == ["c1: 4", "c2: 5", "c1: 5", "c2: 5", "c1: 6", "c2: 7", "c3: 8", "c1: 9"]


async def test_a_renewal_that_found_nobody_may_be_tried_again_at_once() -> None:
    """Only a token that came counts for the 30 seconds."""
    async with rig() as r:
        bad = await r.consumers.get("c1")

        async def down(_post: Post) -> Answer:
            raise not_sent()

        r.cloud.on_consumer = down
        for _ in range(2):
            with pytest.raises(TokenUnavailable):
                await r.consumers.renew("c1", bad)
        assert len(r.cloud.consumer_posts) == 3


async def test_at_most_64_fetches_run_at_once() -> None:
    """A cold start with thousands of consumers must not flood the identity service."""
    async with rig(FakeCloud(latency=1.0)) as r:
        await r.keeper.get()
        async with anyio.create_task_group() as tasks:
            for number in range(200):
                tasks.start_soon(r.consumers.get, f"c{number}")
        assert r.consumers.fetched == 200
        assert r.transport.most_open == 64  # type: ignore[attr-defined]  # of the double


async def test_an_abort_ends_the_fetches_under_way() -> None:
    """The close of a session."""
    async with rig() as r:

        async def hang(_post: Post) -> Answer:
            await anyio.sleep_forever()
            raise AssertionError

        r.consumers.abort()  # nothing yet
        r.cloud.on_consumer = hang

        async def ask() -> None:
            with pytest.raises(TokenUnavailable, match="aborted"):
                await r.consumers.get("c1")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            await anyio.sleep(1.0)
            r.consumers.abort()


async def test_a_second_401_with_the_code_of_the_app_token_is_an_error_and_no_loop() -> None:
    """Never a storm."""
    async with rig() as r:

        async def always(_post: Post) -> Answer:
            return unauthorized(40102)

        r.cloud.on_consumer = always
        with pytest.raises(AppTokenRefused, match="freshly renewed AppJWT"):
            await r.consumers.get("c1")
        assert (len(r.cloud.consumer_posts), len(r.cloud.token_posts)) == (2, 2)


async def test_consumers_that_wait_for_a_renewal_of_the_app_token_keep_no_others_from_the_identity_service() -> None:
    """More of them than fetches may run at once; the renewal may be half a minute away."""
    async with rig() as r:
        cloud = r.cloud

        async def odd(post: Post) -> Answer:
            return (
                unauthorized(40102)
                if post.json["ext_consumer_id"].startswith("odd")
                else await cloud.give_consumer(post)
            )

        cloud.on_consumer = odd
        with pytest.raises(AppTokenRefused):
            await r.consumers.get("odd")
        refused: list[float] = []

        async def ask(number: int) -> None:
            with pytest.raises(AppTokenRefused):
                await r.consumers.get(f"odd-{number}")
            refused.append(anyio.current_time())

        async with anyio.create_task_group() as tasks:
            for number in range(100):
                tasks.start_soon(ask, number)
            await anyio.sleep(1.0)
            started = anyio.current_time()
            assert await r.consumers.get("good") == "jws.good"
            assert anyio.current_time() - started < 0.1
        assert min(refused) > 29.0
        assert len(cloud.token_posts) == 3
