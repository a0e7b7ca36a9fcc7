"""A session is built, entered, left; and everybody who waits for it hears how it ended."""

from __future__ import annotations

import asyncio
import inspect
import logging
from pathlib import Path
from typing import Any, get_type_hints

import anyio
import attrs
import pytest

from connector_async import (
    AppCredentials,
    ConfigurationError,
    ConnectorSession,
    ContentEvent,
    Landed,
    MemoryStore,
    OutcomeStatus,
    Outgoing,
    RequestError,
    Router,
    SessionClosed,
    SessionLimits,
    TokenSettings,
    hooks,
)
from connector_async.pump import Pump, PumpMessage
from connector_async.sandbox import Sandbox
from connector_async.session._options import SessionOptions
from tests.doubles import ScriptedTransport, answer
from tests.session.rig import FakeCloud, session_over

pytestmark = pytest.mark.anyio


def never(*_args: Any) -> Any:
    raise AssertionError("no I/O here")


@pytest.mark.requirement("session:lazy")
def test_building_a_session_needs_no_loop_and_does_no_io() -> None:
    """Our decision: a session can stand at module level."""
    session = ConnectorSession("12345678", AppCredentials("client", "secret"))
    assert "new" in repr(session)
    assert session.account_id == "12345678"
    assert session.pending() == ()
    assert session.stats().requests == 0
    assert not session.health().live


@pytest.mark.requirement("session:lazy")
async def test_entering_and_leaving_a_session_does_no_io() -> None:
    """Our decision: hosts and tokens are fetched at first use."""
    async with session_over(FakeCloud(), transport=ScriptedTransport(never)) as session:
        assert session.health().ready
        assert session.stats().tokens_fetched == 0


async def test_a_session_is_entered_once() -> None:
    """Our decision."""
    session = session_over(FakeCloud())
    async with session:
        with pytest.raises(RuntimeError, match="open: a session is entered once, in one event loop"):
            async with session:
                raise AssertionError("entered twice")
    with pytest.raises(RuntimeError, match="closed"):
        async with session:
            raise AssertionError("entered again")


def test_entering_from_a_second_loop_says_so() -> None:
    """Issue 2, item 5."""
    session = session_over(FakeCloud())

    async def enter() -> None:
        async with session:
            await anyio.lowlevel.checkpoint()

    asyncio.run(enter())
    with pytest.raises(RuntimeError, match="in one event loop; build another"):
        asyncio.run(enter())


async def test_a_handle_before_entering_says_what_to_do() -> None:
    """Our decision."""
    with pytest.raises(RuntimeError, match="async with ConnectorSession"):
        session_over(FakeCloud()).consumer("customer")
    assert (await session_over(FakeCloud()).aclose()).done == 0


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"timeout": 0}, "timeout"),
        ({"timeout": "soon"}, "timeout"),
        ({"drain": -1}, "drain"),
        ({"domains": {"idp": "http://example.net"}}, "https"),
        ({"domains": "ftp://example.net"}, "Domain API"),
    ],
)
def test_a_setting_that_cannot_work_is_named(options: dict[str, Any], named: str) -> None:
    """Our decision: at construction, not at the first message."""
    with pytest.raises(ConfigurationError, match=named):
        ConnectorSession("12345678", AppCredentials("client", "secret"), **options)


def test_wrong_credentials_and_accounts_are_named() -> None:
    """Issue 2, "How it must feel"."""
    with pytest.raises(ConfigurationError, match="AppCredentials"):
        ConnectorSession("12345678", "secret")  # type: ignore[arg-type]  # what a hurried user passes
    with pytest.raises(ConfigurationError, match="account id"):
        ConnectorSession("../etc", AppCredentials("client", "secret"))
    with pytest.raises(ConfigurationError, match="client_secret is empty"):
        AppCredentials("client", " ")
    with pytest.raises(ConfigurationError, match="max_in_flight"):
        SessionLimits(max_in_flight=0)
    with pytest.raises(ConfigurationError, match="rate"):
        SessionLimits(rate=0)
    with pytest.raises(ValueError, match="fraction"):
        TokenSettings(fraction=0)


@pytest.mark.requirement("session:from-env")
def test_missing_variables_are_named_all_at_once() -> None:
    """Issue 2, "How it must feel"."""
    with pytest.raises(ConfigurationError) as caught:
        ConnectorSession.from_env(environ={"LP_CLIENT_ID": "client"})
    assert "LP_ACCOUNT_ID" in str(caught.value)
    assert "LP_CLIENT_SECRET" in str(caught.value)
    assert "LP_CLIENT_ID (" not in str(caught.value)


@pytest.mark.requirement("session:from-env")
async def test_a_session_comes_from_the_environment_and_a_secret_file(tmp_path: Path) -> None:
    """our design, section 2."""
    secret = tmp_path / "secret"
    async with Sandbox(in_process=True) as cloud:
        secret.write_text(cloud.client_secret + "\n")
        environ = dict(cloud.environ())
        del environ["LP_CLIENT_SECRET"]
        environ["LP_CLIENT_SECRET_FILE"] = str(secret)
        import httpx

        session = ConnectorSession.from_env(environ=environ, transport=httpx.ASGITransport(cloud.app))
        async with session:
            assert (await session.check()).ready
    with pytest.raises(ConfigurationError, match="cannot be read"):
        ConnectorSession.from_env(environ=environ | {"LP_CLIENT_SECRET_FILE": str(tmp_path / "none")})


async def test_an_error_of_the_block_leaves_as_itself() -> None:
    """our style 5.8."""
    with pytest.raises(KeyError, match="mine"):
        async with session_over(FakeCloud()) as session:
            await session.consumer("customer").open_conversation()
            raise KeyError("mine")


async def test_a_group_of_the_block_stays_a_group() -> None:
    """our style 5.8."""
    with pytest.raises(ExceptionGroup) as caught:
        async with session_over(FakeCloud()):
            raise ExceptionGroup("two", [KeyError("one"), KeyError("two")])
    assert len(caught.value.exceptions) == 2


async def test_the_cancellation_of_the_block_is_not_swallowed() -> None:
    """our style 5.4."""
    with anyio.move_on_after(1) as scope:
        async with session_over(FakeCloud()):
            await anyio.sleep_forever()
    assert scope.cancelled_caught


@pytest.mark.requirement("session:drain")
async def test_a_clean_exit_waits_for_what_is_under_way() -> None:
    """Issue 3, item 5."""
    cloud = FakeCloud(latency=2.0)
    results: list[object] = []
    events: list[hooks.Event] = []

    async def send() -> None:
        results.append(await conversation.send_text("hello"))

    async with anyio.create_task_group() as tasks:
        async with session_over(cloud, hooks=[events.append]) as session:
            conversation = session.conversation("c-1", "customer")
            tasks.start_soon(send)
            await anyio.sleep(0.5)
        assert session.stats().accepted == 1
    assert len(results) == 1
    drained = [event for event in events if isinstance(event, hooks.Drained)]
    assert [(event.done, event.unknown, event.unsent) for event in drained] == [(1, 0, 0)]


@pytest.mark.requirement("session:drain")
async def test_what_does_not_end_in_time_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    """Issue 3, item 5: done, unknown, unsent; to the log and to the caller."""
    cloud = FakeCloud()
    errors: list[RequestError] = []

    async def silence(post: Any) -> Any:
        await anyio.sleep_forever()

    async def send(conversation: Any) -> None:
        try:
            await conversation.send_text("hello")
        except RequestError as error:
            errors.append(error)

    async with anyio.create_task_group() as tasks:
        limits = SessionLimits(max_in_flight=1)
        async with session_over(cloud, drain=1.0, limits=limits) as session:
            await session.conversation("warm", "customer").send_text("first")
            cloud.on_message = silence
            for number in range(3):
                tasks.start_soon(send, session.conversation(f"c-{number}", "customer"))
            await anyio.sleep(0.1)
            report = await session.aclose()
    assert (report.done, report.unknown, report.unsent) == (0, 1, 2)
    assert report.seconds == pytest.approx(1.0, abs=0.1)
    assert sorted(error.landed.value for error in errors) == ["no", "no", "unknown"]
    assert all(isinstance(error, SessionClosed) for error in errors)
    assert any(record.levelno == logging.WARNING and "session closed" in record.message for record in caplog.records)


@pytest.mark.requirement("session:closed")
async def test_a_request_after_the_close_ends_with_session_closed() -> None:
    """our style 5.3."""
    async with session_over(FakeCloud()) as session:
        conversation = session.conversation("c-1", "customer")
        await session.aclose()
        with pytest.raises(SessionClosed):
            await conversation.send_text("late")
        with pytest.raises(SessionClosed):
            await session.submit(object())  # type: ignore[arg-type]  # refused before it is looked at
        assert (await session.aclose()) == await session.aclose()
    assert not session.health().live


@pytest.mark.requirement("C14")
@pytest.mark.parametrize("by_error", [False, True])
@pytest.mark.parametrize("moment", [0.0, 0.05, 0.3, 0.7])
async def test_c14_everybody_in_flight_hears_of_the_close(by_error: bool, moment: float) -> None:
    """C14: N futures end with SessionClosed within a second; here 1,000 for each of 8 closes."""
    cloud = FakeCloud(latency=0.5)
    ended: list[str] = []

    async def send(conversation: Any) -> None:
        try:
            await conversation.send_text("hello", timeout=3600)
            ended.append("accepted")
        except SessionClosed as error:
            ended.append(error.landed.value)

    async with anyio.create_task_group() as tasks:
        try:
            async with session_over(cloud, drain=0.0, limits=SessionLimits(max_in_flight=300)) as session:
                for number in range(1_000):
                    tasks.start_soon(send, session.conversation(f"c-{number}", f"customer-{number % 7}"))
                await anyio.sleep(moment)
                if by_error:
                    raise KeyError("mine")
        except KeyError:
            pass
        closed_at = anyio.current_time()
    assert anyio.current_time() - closed_at < 1
    assert len(ended) == 1_000
    stats = session.stats()
    assert session.pending() == ()
    assert stats.accepted == ended.count("accepted")


async def test_a_close_in_the_middle_of_a_token_renewal_lets_everybody_go() -> None:
    """Every await can be the last."""
    cloud = FakeCloud()

    async def silence(post: Any) -> Any:
        await anyio.sleep_forever()

    cloud.on_token = silence
    errors: list[BaseException] = []

    async def send(conversation: Any) -> None:
        try:
            await conversation.send_text("hello")
        except SessionClosed as error:
            errors.append(error)
            assert error.landed is Landed.NO

    async with anyio.create_task_group() as tasks, session_over(cloud, drain=0.0) as session:
        tasks.start_soon(send, session.conversation("c-1", "customer"))
        await anyio.sleep(0.1)
        assert [pending.stage for pending in session.pending()] == ["token"]
    assert len(errors) == 1


async def test_pending_shows_age_stage_and_attempt() -> None:
    """Issue 3, item 1."""
    cloud = FakeCloud(latency=1.0)
    async with anyio.create_task_group() as tasks, session_over(cloud) as session:
        conversation = session.conversation("c-1", "customer")
        await conversation.send_text("warm")
        tasks.start_soon(conversation.send_text, "one")
        tasks.start_soon(conversation.send_text, "two")
        await anyio.sleep(0.25)
        first, second = session.pending()
        assert (first.stage, first.attempt, first.type) == ("sending", 1, "ms.PublishEvent")
        assert (second.stage, second.attempt) == ("queued", 0)
        assert first.age == pytest.approx(0.25, abs=0.05)


async def test_health_says_what_is_wrong() -> None:
    """our design, section 2."""
    cloud = FakeCloud()

    async def down(post: Any) -> Any:
        return answer(503)

    cloud.on_token = down
    async with session_over(cloud) as session:
        health = await session.check()
        assert (health.live, health.ready) == (True, False)
        (problem,) = health.problems  # told once, however many know of it
        assert problem.startswith("the AppJWT cannot be renewed: ")
        assert "answers 503" in problem
        assert health.as_dict()["ready"] is False
        cloud.on_token = cloud.give_token
        await anyio.sleep(5)
        assert (await session.check()).ready


async def test_check_names_an_unknown_account() -> None:
    """Issue 2, "How it must feel"."""
    import httpx

    async with Sandbox(in_process=True) as cloud:
        credentials = AppCredentials(cloud.client_id, cloud.client_secret)
        transport = httpx.ASGITransport(cloud.app)
        async with ConnectorSession("999", credentials, domains=cloud.domain_api, transport=transport) as session:
            health = await session.check()
            assert not health.ready
            assert "check the account id" in health.problems[0]


async def test_a_failing_hook_costs_a_log_line(caplog: pytest.LogCaptureFixture) -> None:
    """Issue 3, item 7."""

    def broken(event: hooks.Event) -> None:
        raise ValueError("hook")

    async with session_over(FakeCloud(), hooks=[broken]) as session:
        await session.conversation("c-1", "customer").send_text("hello")
    assert "failed" in caplog.text
    assert session.stats().accepted == 1


async def test_hooks_hear_of_tokens_requests_and_the_end() -> None:
    """our design, section 2."""
    events: list[hooks.Event] = []
    async with session_over(FakeCloud(), hooks=[events.append]) as session:
        await session.conversation("c-1", "customer").send_text("hello")
    assert [type(event).__name__ for event in events] == ["TokenRefreshed", "RequestFinished", "Drained"]
    assert all(attrs.has(type(event)) for event in events)


@pytest.mark.no_cover
@pytest.mark.requirement("C23")
async def test_c23_sessions_come_and_go_without_growth() -> None:
    """C23: a thousand sessions, less than 4 MiB."""
    import gc
    import tracemalloc

    async def once() -> None:
        async with session_over(FakeCloud()) as session:
            await session.conversation("c-1", "customer").send_text("hello")

    for _ in range(50):
        await once()
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(200):
            await once()
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 4 * 2**20 / 5, f"{grown} bytes for 200 sessions"


async def test_a_session_that_another_task_leaves_is_closed_and_says_why() -> None:
    """Its task group can only end in its own task; tried elsewhere, it cancelled what that was doing."""
    cloud = FakeCloud()
    session = session_over(cloud)
    await session.__aenter__()
    conversation = await session.consumer("customer").open_conversation()

    async def leave() -> None:
        with pytest.raises(RuntimeError, match="left by the task that entered it"):
            await session.__aexit__(None, None, None)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(leave)
        await anyio.sleep(1)  # nobody cancels this
    with pytest.raises(SessionClosed):
        await conversation.send_text("hello")
    await session.__aexit__(None, None, None)


@pytest.mark.parametrize("by_error", [False, True])
async def test_who_waits_for_webhooks_hears_that_the_session_has_closed(by_error: bool) -> None:
    """Every waiter gets its outcome: without a timeout of its own it would wait for ever."""
    ended: list[str] = []

    async def waits(name: str, wait: Any) -> None:
        with pytest.raises(SessionClosed, match="no webhook reaches it any more"):
            await wait
        ended.append(name)

    async with anyio.create_task_group() as tasks:
        try:
            async with session_over(FakeCloud()) as session:
                session.webhook_app()
                conversation = await session.consumer("customer").open_conversation()
                result = await conversation.send_text("hello")
                tasks.start_soon(waits, "wait_for", conversation.wait_for(ContentEvent))
                tasks.start_soon(waits, "events", anext(conversation.events()))
                tasks.start_soon(waits, "until_closed", conversation.until_closed())
                tasks.start_soon(waits, "delivered", result.delivered())
                tasks.start_soon(waits, "read", result.read())
                await anyio.sleep(1)
                if by_error:
                    raise KeyError("mine")
        except KeyError:
            assert by_error
        await anyio.sleep(0.1)
        assert sorted(ended) == ["delivered", "events", "read", "until_closed", "wait_for"]
        await waits("later", conversation.wait_for(ContentEvent))
        await waits("later", conversation.until_closed(timeout=5))
    conversation.mark_closed()
    await conversation.until_closed()


async def test_leaving_while_another_task_closes_waits_for_that_close() -> None:
    """A signal handler closes, and the block ends by itself: found by reading, the drain was cut off."""
    reports: list[object] = []
    cloud = FakeCloud(latency=3.0)
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:

            async def close(session: ConnectorSession) -> None:
                reports.append(await session.aclose())

            async with session_over(cloud, drain=60.0) as session:
                submission = await session.submit(Outgoing("customer", "hello"))
                await anyio.sleep(1)
                tasks.start_soon(close, session)
                await anyio.sleep(0.1)
            reports.append(await session.aclose())
            outcome = await submission.outcome()
    assert outcome.status is OutcomeStatus.ACCEPTED
    assert reports[0] is reports[1]


async def test_an_error_in_the_block_does_not_wait_for_a_close_by_another_task() -> None:
    """Leaving with an error ends what is under way at once."""
    cloud = FakeCloud(latency=1000.0)
    reports: list[object] = []
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:

            async def close(session: ConnectorSession) -> None:
                reports.append(await session.aclose())

            with pytest.raises(LookupError):
                async with session_over(cloud, drain=100.0) as session:
                    submission = await session.submit(Outgoing("customer", "hello"))
                    await anyio.sleep(1)
                    tasks.start_soon(close, session)
                    await anyio.sleep(0.1)
                    raise LookupError
            assert (await submission.outcome()).status in {OutcomeStatus.UNKNOWN, OutcomeStatus.NOT_SENT}
            assert session.stats() is not None
    assert len(reports) == 1


def test_the_typed_keywords_are_those_of_the_constructor() -> None:
    """`from_env`, `Accounts` and the sandbox pass them on; a list that fell behind would refuse the new ones."""
    hints = get_type_hints(ConnectorSession.__init__)
    parameters = inspect.signature(ConnectorSession).parameters.values()
    keywords = {one.name: hints[one.name] for one in parameters if one.kind is inspect.Parameter.KEYWORD_ONLY}
    assert get_type_hints(SessionOptions) == keywords


async def test_a_repr_is_a_short_line_that_says_what_it_is() -> None:
    """For whoever looks with a debugger; a number may be somebody's telephone."""
    inner, router, store = Router(), Router(), MemoryStore()
    inner.on()(never_called)
    router.on()(never_called)
    router.include(inner)
    async with Sandbox(in_process=True) as cloud, cloud.session() as session, Pump(session, store) as pump:
        assert repr(router) == "Router(2 handlers)"
        assert repr(cloud) == "Sandbox('http://127.0.0.1')"
        assert repr(session) == "ConnectorSession('12345678', open)"
        assert repr(pump) == "Pump('12345678', 0 in flight)"
        assert repr(PumpMessage("m-1", "+4912345678", "hi")).startswith("PumpMessage(id='m-1', consumer='…78', ")
        assert repr(store.outbox) == "MemoryOutbox(max_waiting=100000, max_settled=100000, max_dead=1000)"
    assert repr(Pump(session, store)) == "Pump('12345678', 0 in flight)"


async def never_called(_: object) -> None:
    raise AssertionError
