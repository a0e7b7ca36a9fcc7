"""Many accounts in one process."""

from __future__ import annotations

from collections import Counter
from typing import Any

import anyio
import httpx
import pytest

from connector_async import (
    Accounts,
    AppCredentials,
    ConfigurationError,
    ContentEvent,
    Incoming,
    MemoryStore,
    Outgoing,
    Router,
    SessionClosed,
    SessionLimits,
    UnknownAccount,
)
from connector_async.sandbox import Sandbox
from connector_async.testing import signed_headers
from tests.doubles import FakeCloud, ScriptedTransport
from tests.session.rig import DOMAINS

pytestmark = pytest.mark.anyio

CREDENTIALS = AppCredentials("client", "a-secret")


def accounts_over(cloud: FakeCloud, credentials: Any = None, **options: Any) -> Accounts:
    known = {"1": CREDENTIALS, "2": CREDENTIALS} if credentials is None else credentials
    return Accounts(known, transport=ScriptedTransport(cloud), domains=DOMAINS, **options)


async def test_a_session_is_made_at_first_use_and_used_again() -> None:
    """our design, section 2."""
    async with accounts_over(FakeCloud()) as accounts:
        first = await accounts.session("1")
        assert await accounts.session("1") is first
        await first.conversation("c-1", "customer").send_text("hello")
        assert {name: stats.accepted for name, stats in accounts.stats().items()} == {"1": 1}
        assert accounts.health()["1"].ready
        await accounts.remove("1")
        assert accounts.stats() == {}
        assert repr(accounts) == "Accounts(0 open)"
        again = await accounts.session("1")
        assert again is not first
        with pytest.raises(SessionClosed):
            await first.conversation("c-1", "customer").send_text("late")
        await accounts.remove("nobody")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"limits": {"max_in_flight": 5}}, "limits must be `SessionLimits"),
        ({"router": Router}, "the class Router"),
        ({"store": MemoryStore}, "the class MemoryStore"),
        ({"hooks": print}, r"hooks=\[callable\]"),
        ({"transport": httpx.Client()}, "AsyncClient of httpx, got Client"),
        ({"proxy": "ftp://127.0.0.1"}, "begins with http://"),
        ({"ssl_context": "/etc/ssl/ca.pem"}, "must be an ssl.SSLContext"),
        ({"timeout": "60"}, "timeout must be a number of seconds"),
    ],
)
async def test_a_setting_of_the_wrong_kind_is_refused_when_it_is_passed(options: dict[str, Any], words: str) -> None:
    """As for one session: else it would fail for each account anew, in the middle of its first message."""
    with pytest.raises(ConfigurationError, match=words):
        Accounts({"1": CREDENTIALS}, **options)


async def test_an_option_that_no_session_knows_is_refused_when_it_is_passed() -> None:
    """A typo."""
    with pytest.raises(TypeError, match="unexpected keyword argument 'timeot'"):
        Accounts({"1": CREDENTIALS}, timeot=3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def test_an_idle_session_is_let_go() -> None:
    """our design, section 2: idle_after."""
    async with accounts_over(FakeCloud(), idle_after=100.0) as accounts:
        session = await accounts.session("1")
        await session.conversation("c-1", "customer").send_text("hello")
        await anyio.sleep(90)
        await session.conversation("c-1", "customer").send_text("hello")
        await anyio.sleep(90)
        assert set(accounts.stats()) == {"1"}
        await anyio.sleep(120)
        assert accounts.stats() == {}


async def test_one_account_is_made_once_however_many_ask() -> None:
    """Single flight."""
    asked: Counter[str] = Counter()

    async def find(account_id: str) -> AppCredentials | None:
        asked[account_id] += 1
        await anyio.sleep(1)
        return CREDENTIALS

    async with accounts_over(FakeCloud(), find) as accounts:
        found = []

        async def ask() -> None:
            found.append(await accounts.session("7"))

        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(ask)
        assert len(set(map(id, found))) == 1
        assert asked["7"] == 1


@pytest.mark.requirement("accounts:unknown")
async def test_unknown_accounts_are_remembered_and_strangers_rationed() -> None:
    """Issue 6, item 7."""
    asked: Counter[str] = Counter()

    async def find(account_id: str) -> AppCredentials | None:
        asked[account_id] += 1
        return None

    async with accounts_over(FakeCloud(), find) as accounts:
        for _ in range(5):
            with pytest.raises(UnknownAccount):
                await accounts.session("404")
        assert asked["404"] == 1
        app = accounts.webhook_app()
        for number in range(500):
            headers = signed_headers(b"{}", account_id=str(number), client_id="c", secret="s")
            assert (await app.handle(headers, b"{}"))[0] == 401
        assert sum(asked.values()) <= 52
        headers = signed_headers(b"{}", account_id="../../etc", client_id="c", secret="s")
        await anyio.sleep(400)
        assert (await app.handle(headers, b"{}"))[0] == 401
        with pytest.raises(UnknownAccount):
            await accounts.session("404")
        assert asked["404"] == 2


@pytest.mark.requirement("accounts:fair")
async def test_accounts_share_one_width_in_turn() -> None:
    """our design, section 2: one pool, one gate, fair between accounts."""
    cloud = FakeCloud(latency=0.1)
    transport = ScriptedTransport(cloud)
    limits = SessionLimits(max_in_flight=10)
    async with Accounts(
        {"1": CREDENTIALS, "2": CREDENTIALS}, transport=transport, domains=DOMAINS, limits=limits
    ) as both:
        busy, modest = await both.session("1"), await both.session("2")
        for session in (busy, modest):
            for number in range(30):
                await session.send(Outgoing(f"customer-{number}", "warm"))
        done: dict[str, float] = {}
        started = anyio.current_time()

        async def load(name: str, session: Any, count: int) -> None:
            messages = (Outgoing(f"customer-{number % 30}", "text") for number in range(count))
            async with session.send_many(messages) as outcomes:
                async for _ in outcomes:
                    pass
            done[name] = anyio.current_time() - started

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(load, "busy", busy, 600)
            await anyio.sleep(0.05)
            tasks.start_soon(load, "modest", modest, 60)
        assert transport.most_open <= 10
    # Alone it would take 0.6 s; served in turn with the other about 1.2 s; behind the other 6 s.
    assert done["modest"] < 2
    assert done["busy"] == pytest.approx(6.6, abs=0.8)


async def test_one_url_serves_the_deliveries_of_all_accounts() -> None:
    """Issue 6, item 7."""
    heard: list[tuple[str, str]] = []
    router = Router()

    @router.on(ContentEvent)
    async def hear(message: Incoming[ContentEvent]) -> None:
        heard.append((message.account_id, message.text))

    async with Sandbox(in_process=True, account_id="1", agent="silent") as cloud:
        cloud.add_account("2", "client-2", "secret-2")
        known = {
            "1": AppCredentials(cloud.client_id, cloud.client_secret),
            "2": AppCredentials("client-2", "secret-2"),
        }
        transport = httpx.ASGITransport(cloud.app)
        async with Accounts(known, router=router, transport=transport, domains=cloud.url) as accounts:
            app = accounts.webhook_app()
            for account_id in known:
                cloud.deliver_to(app, account_id=account_id)
                session = await accounts.session(account_id)
                conversation = await session.consumer("customer").open_conversation()
                cloud.agent_of(account_id).says(conversation.conversation_id, f"hello {account_id}")
            await cloud.settle()
        assert sorted(heard) == [("1", "hello 1"), ("2", "hello 2")]


async def test_a_bad_signature_reloads_the_secrets_at_most_every_30_seconds() -> None:
    """Issue 6, item 7."""
    secret = "old"
    asked = 0

    async def find(account_id: str) -> AppCredentials | None:
        nonlocal asked
        asked += 1
        return AppCredentials("client", secret)

    async with accounts_over(FakeCloud(), find) as accounts:
        app = accounts.webhook_app()
        body = b'{"kind":"notification","type":"x","body":{}}'

        async def deliver(with_secret: str) -> int:
            headers = signed_headers(body, account_id="1", client_id="client", secret=with_secret)
            return (await app.handle(headers, body))[0]

        assert await deliver("old") == 200
        before = asked
        secret = "new"
        assert await deliver("new") == 200
        for _ in range(50):
            assert await deliver("forged") == 401
        assert asked == before + 1
        await anyio.sleep(31)
        assert await deliver("forged") == 401
        assert asked == before + 2


async def test_accounts_say_what_is_wrong() -> None:
    """Bad input gets a clear error."""
    with pytest.raises(ConfigurationError, match="mapping of account id"):
        Accounts("secret")  # type: ignore[arg-type]  # what a hurried user passes
    accounts = accounts_over(FakeCloud())
    with pytest.raises(RuntimeError, match="not entered"):
        await accounts.session("1")
    with pytest.raises(KeyError, match="mine"):
        async with accounts:
            await accounts.session("1")
            with pytest.raises(ConfigurationError, match="account id"):
                await accounts.session("no/account")
            raise KeyError("mine")
    with pytest.raises(RuntimeError):
        async with accounts:
            raise AssertionError("entered again")


async def test_a_session_that_somebody_has_closed_is_not_handed_out_again() -> None:
    """It would refuse each message of its account, for as long as the process lives."""
    async with accounts_over(FakeCloud()) as accounts:
        closed = await accounts.session("1")
        await closed.aclose()
        assert closed.is_closed
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(accounts.session, "1")
        again = await accounts.session("1")
        assert again is not closed
        assert not again.is_closed
        await again.consumer("anna").open_conversation()
