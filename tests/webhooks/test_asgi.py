"""The ASGI app: what is answered to whom, how much is read, and how long it may take."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import attrs
import httpx
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Route

from connector_async.store import SqliteStore
from connector_async.webhooks import AppRecord, Dispatcher, Incoming, Router, WebhookApp, WebhookSettings
from connector_async.webhooks.events import AnswersSlow, DeliveryRefused, PreviousSecretNeeded
from connector_async.wire import ContentEvent
from tests.backends import VIRTUAL
from tests.guards import CANARY
from tests.webhooks.rig import (
    ACCOUNT,
    APP,
    SECRET,
    Post,
    content,
    encoded,
    headers_for,
    notification,
    post,
    rig,
)
from tests.webhooks.test_dispatcher import order_of, recording

pytestmark = pytest.mark.anyio

BODY = encoded(notification(content("c", 0, f"{CANARY} text")))


async def test_a_genuine_delivery_is_answered_with_200() -> None:
    """200 or 201 only; anything else is a failure (webhooks disclaimers)."""
    router = Router()
    got = recording(router)
    async with rig(router) as worker:
        request = Post([BODY[:10], BODY[10:], b""], headers_for(BODY))
        assert await request.to(worker.app) == 200
        assert request.body == b""
        assert request.headers[b"content-length"] == b"0"
        await worker.quiet()
    assert len(got) == 1


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        (headers_for(BODY, "forged"), 401),
        (headers_for(BODY, account="other"), 401),
        (headers_for(BODY, app="other"), 401),
        ({**headers_for(BODY), "Content-Encoding": "gzip"}, 400),
        ({**headers_for(BODY), "Content-Length": str(len(BODY) + 1)}, 400),
        ({**headers_for(BODY), "Content-Length": str(len(BODY) - 1)}, 400),
        ({**headers_for(BODY), "Content-Length": "-1"}, 400),
        ({**headers_for(BODY), "Content-Length": "9" * 30}, 400),
        ({**headers_for(BODY), "Content-Length": "9999999999"}, 413),
        ({**headers_for(BODY), "Content-Length": str(len(BODY)), "Content-Encoding": "identity"}, 200),
    ],
)
async def test_each_refusal_has_its_status_and_shows_nothing(headers: dict[str, str], status: int) -> None:
    """401, 400, 413; no body echo (fault tables W1, W6)."""
    async with rig() as worker:
        request = Post([BODY], headers)
        assert await request.to(worker.app) == status
        assert CANARY.encode() not in request.body
        assert (b"connection" in request.headers) == (status != 200)


async def test_without_a_durable_store_what_is_signed_but_no_notification_is_400() -> None:
    """Unreadable is not forged; with a durable store it is kept aside (`test_unreadable.py`)."""
    async with rig() as worker:
        assert await post(worker.app, b"[]") == 400
        (refused,) = worker.port.emitted_of(DeliveryRefused)
        assert refused.status == 400
        assert refused.reason.startswith("UnreadableNotification")
        assert worker.dispatcher.stats().refused == 1


async def test_by_hand_too_what_has_not_the_headers_of_a_delivery_is_refused() -> None:
    """`handle` raises nothing, whatever comes."""
    async with rig() as worker:
        assert await worker.app.handle({}, BODY) == (401, b"unauthorized")
        twice = [*headers_for(BODY).items(), ("x-liveperson-signature", "sha1=")]
        assert await worker.app.handle(twice, BODY) == (401, b"unauthorized")
        assert worker.dispatcher.stats().received == 0


async def test_only_post_is_served() -> None:
    """405 with what is allowed instead."""
    async with rig() as worker:
        request = Post([b""], {}, method="GET")
        assert await request.to(worker.app) == 405
        assert request.headers[b"allow"] == b"POST"


async def test_an_oversize_body_is_not_read_to_its_end() -> None:
    """413 as soon as the bound is crossed; memory stays at the bound (fault table W6)."""
    async with rig(max_body_bytes=100) as worker:
        request = Post([b"x" * 60] * 100, headers_for(b""))
        assert await request.to(worker.app) == 413
        assert (await request.receive())["body"] == b"x" * 60, "the third chunk was never asked for"
        body = b"x" * 101
        assert (await worker.app.handle(headers_for(body), body))[0] == 413


async def test_strangers_get_no_memory() -> None:
    """Without the headers of a delivery the body is not even read."""
    async with rig() as worker:
        request = Post([BODY], {})
        assert await request.to(worker.app) == 401
        assert (await request.receive())["body"] == BODY


@pytest.mark.parametrize("anyio_backend", [VIRTUAL])
async def test_a_body_that_does_not_come_is_408() -> None:
    """Slow uploads end; others are not affected (fault table W6)."""
    async with rig(read_timeout=5.0) as worker:
        request = Post([BODY], headers_for(BODY))
        next(request._messages)
        started = anyio.current_time()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(request.to, worker.app)
            await anyio.sleep(1)
            assert await post(worker.app, BODY) == 200
        assert request.status == 408
        assert anyio.current_time() - started == pytest.approx(5.0, abs=0.1)


async def test_a_client_that_hangs_up_is_not_answered() -> None:
    """Aborted upload: nobody is there (fault table W6)."""

    async def gone() -> dict[str, str]:
        return {"type": "http.disconnect"}

    async with rig() as worker:
        request = Post([BODY], headers_for(BODY))
        await worker.app(request.scope, gone, request.send)
        assert request.status is None
        assert worker.dispatcher.stats().received == 0


async def test_w6_a_thousand_bad_uploads_leave_the_good_ones_alone() -> None:
    """Aborted, oversize, wrong length, encoded, in between genuine ones (fault table W6)."""
    router = Router()
    got = recording(router)
    statuses: set[int | None] = set()
    lie = {**headers_for(BODY), "Content-Length": str(len(BODY) + 7)}
    async with rig(router, max_body_bytes=2_000) as worker:

        async def bad(number: int) -> None:
            request = [
                Post([BODY], lie),
                Post([b"x" * 900] * 5, headers_for(BODY)),
                Post([BODY], {**headers_for(BODY), "Content-Encoding": "gzip"}),
                Post([BODY[:40]], headers_for(BODY)),
            ][number % 4]
            statuses.add(await request.to(worker.app))

        async def good(number: int) -> None:
            body = encoded(notification(content("good", number)))
            assert await post(worker.app, body) == 200

        async with anyio.create_task_group() as tasks:
            for number in range(1_000):
                tasks.start_soon(bad, number)
                if number % 10 == 0:
                    tasks.start_soon(good, number // 10)
        await worker.quiet()
    assert statuses == {400, 413, 401}
    assert order_of(got, "good") == list(range(100))


async def test_the_default_ack_follows_the_store(tmp_path: Path) -> None:
    """`stored` with a durable store, else `queued` (design, section 2)."""
    store = SqliteStore(tmp_path / "s.db")
    async with rig(store=store) as worker:
        worker.dispatcher._durable._ended = ended = anyio.Event()  # it only seems to have begun
        ended.set()
        assert await worker.deliver(content("c", 0)) == [200]
        assert (await store.delivery_counts(ACCOUNT)).waiting == 1
    await store.aclose()
    with pytest.raises(ValueError, match="ack"):
        WebhookApp(_nowhere, ack="later")  # type: ignore[arg-type]  # the misuse itself


async def _nowhere(account_id: str) -> Dispatcher | None:
    return None


async def test_many_accounts_share_one_url() -> None:
    """The header chooses; an account that is not served is refused."""
    routers = [Router(), Router()]
    got = [recording(router) for router in routers]
    async with rig(routers[0]) as one, rig(routers[1]) as two:
        two.port.account_id = "other"
        two.port.records = [AppRecord(account_id="other", client_id=APP, secret="other secret")]
        workers = {ACCOUNT: one.dispatcher, "other": two.dispatcher}

        async def directory(account_id: str) -> Dispatcher | None:
            return workers.get(account_id)

        app = WebhookApp(directory)
        assert await post(app, BODY) == 200
        assert await post(app, BODY, headers_for(BODY, "other secret", account="other")) == 200
        assert await post(app, BODY, headers_for(BODY, account="other")) == 401
        assert await post(app, BODY, headers_for(BODY, account="third")) == 401
        await one.quiet()
        await two.quiet()
    assert [len(each) for each in got] == [1, 1]


async def test_a_bad_signature_may_make_the_secrets_be_read_again() -> None:
    """A secret that was rotated elsewhere: asked once, verified once more."""
    asked: list[str] = []
    async with rig() as worker:

        async def reload(account_id: str) -> bool:
            asked.append(account_id)
            worker.port.records = [AppRecord(account_id=ACCOUNT, client_id=APP, secret="new secret")]
            return len(asked) == 1

        app = WebhookApp.of(worker.dispatcher, reload_secrets=reload)
        assert await post(app, BODY, headers_for(BODY, "new secret")) == 200
        assert await post(app, BODY, headers_for(BODY)) == 401
    assert asked == [ACCOUNT, ACCOUNT]


async def test_an_old_secret_in_use_is_told() -> None:
    """Rotation: it cannot go yet."""
    async with rig() as worker:
        record = attrs.evolve(worker.port.records[0], secret="new", previous_secrets=[SECRET])
        worker.port.records = [record]
        assert await post(worker.app, BODY) == 200
        assert worker.port.emitted_of(PreviousSecretNeeded) == [
            PreviousSecretNeeded(account_id=ACCOUNT, client_id=APP)
        ]
        receiver = worker.dispatcher.receiver
        assert receiver is not None
        assert (ACCOUNT, APP) in receiver.previous_secrets_needed_at


async def test_deliveries_before_the_credentials_are_known_come_again(caplog: pytest.LogCaptureFixture) -> None:
    """Credentials from a vault: until it has answered, 503 leaves the event with the vendor."""
    async with rig() as worker:
        worker.port.records = []
        assert await post(worker.app, BODY) == 503
        assert "not known yet" in caplog.text


async def test_a_failure_of_ours_is_500_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    """An error answer is better than none (webhooks disclaimers)."""

    async def broken(account_id: str) -> Dispatcher | None:
        raise LookupError("no")

    assert await post(WebhookApp(broken), BODY) == 500
    assert "LookupError" in caplog.text


async def test_refusals_are_diagnosed_and_logged_within_bounds(caplog: pytest.LogCaptureFixture) -> None:
    """Strangers must not fill the disk, nor have us hash for them."""
    now = 5.0
    async with rig(clock=lambda: now) as worker:
        for _ in range(50):
            assert await post(worker.app, BODY, headers_for(BODY, "forged")) == 401
        assert caplog.text.count("delivery refused") == 10
        reasons = [event.reason for event in worker.port.emitted_of(DeliveryRefused)]
        assert sum("another secret" in reason for reason in reasons) == 10
        now += 1.0
        assert await post(worker.app, BODY, headers_for(BODY, "forged")) == 401
        assert caplog.text.count("delivery refused") == 11


async def test_slow_answers_raise_an_alarm(caplog: pytest.LogCaptureFixture) -> None:
    """Before the vendor disables the app: log and hook (issue of the webhooks, 2)."""
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 0.6
        return now

    async with rig(clock=clock) as worker:
        await post(worker.app, BODY)
        assert worker.port.emitted_of(AnswersSlow) == []
        worker.app._guard.limit = 0.5
        await post(worker.app, BODY)
        (alarm,) = worker.port.emitted_of(AnswersSlow)
        assert alarm.mean > 0.5
        assert "may disable" in caplog.text


async def test_the_lifespan_of_the_server_is_answered() -> None:
    """There is nothing to start: the session owns everything."""
    sent: list[str] = []
    messages = iter(["lifespan.startup", "lifespan.unknown", "lifespan.shutdown"])

    async def receive() -> dict[str, str]:
        return {"type": next(messages)}

    async def send(message: Any) -> None:
        sent.append(message["type"])

    app = WebhookApp(_nowhere)
    await app({"type": "lifespan"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    with pytest.raises(RuntimeError, match="websocket"):
        await app({"type": "websocket"}, receive, send)


def _fastapi(app: WebhookApp) -> Any:
    web = FastAPI()
    web.add_route("/webhooks", app.endpoint, methods=["POST"])
    return web


def _starlette(app: WebhookApp) -> Any:
    return Starlette(routes=[Route("/webhooks", app.endpoint, methods=["POST"])])


@pytest.mark.parametrize("framework", [_fastapi, _starlette])
async def test_it_is_an_exact_route_in_fastapi_and_starlette(framework: Callable[[WebhookApp], Any]) -> None:
    """200, no 307: a redirect counts as a failure (issue of the webhooks, 2)."""
    async with rig() as worker:
        transport = httpx.ASGITransport(framework(worker.app))
        async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
            answer = await client.post("/webhooks", content=BODY, headers=headers_for(BODY))
            assert (answer.status_code, answer.content) == (200, b"")
            refused = await client.post("/webhooks", content=BODY, headers=headers_for(BODY, "forged"))
            assert refused.status_code == 401


async def test_w7_hanging_and_failing_handlers_do_not_delay_the_answers() -> None:
    """Ack p99 within 10 ms of work of ours, whatever the handlers do (fault table W7), and none is refused."""
    router = Router()

    @router.on(ContentEvent)
    async def misbehave(message: Incoming[ContentEvent]) -> None:
        if message.conversation_id < "c5":
            raise ValueError("no")
        await anyio.sleep_forever()

    durations: list[float] = []
    async with rig(router, drain=0.0, settings=WebhookSettings(max_handlers=64)) as worker:
        for number in range(1_000):
            body = encoded(notification(content(f"c{number % 10}", number // 10)))
            started = anyio.current_time()
            assert await post(worker.app, body) == 200
            durations.append(anyio.current_time() - started)
    durations.sort()
    assert durations[math.ceil(len(durations) * 0.95)] < 0.010


async def test_w4_an_identical_body_is_handled_once_and_always_answered_with_200() -> None:
    """Replayed in memory as often as one likes (fault table W4)."""
    router = Router()
    got = recording(router)
    async with rig(router) as worker:
        for number in range(1_000):
            assert await post(worker.app, BODY) == 200
            if number % 100 == 0:
                await worker.quiet()
    assert len(got) == 1
