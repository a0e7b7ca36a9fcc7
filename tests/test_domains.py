"""Where secrets may be sent: what the user wrote down, or a host of the vendor's over https."""

from __future__ import annotations

import gzip
import logging
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
import attrs
import httpx
import pytest

from connector_async._concurrency import SingleFlight, current_clock
from connector_async.domains import DOMAIN_API, Domains, DomainSettings, check_account_id, check_base_url
from connector_async.errors import ConfigurationError, NotSent, SessionClosed, TLSError, TransportError
from connector_async.sandbox import Sandbox
from connector_async.transport import as_transport
from tests.virtual_clock import VirtualClockLoop

pytestmark = pytest.mark.anyio

HOUR = 3600.0
GOOD = "va.sentinel.liveperson.net"


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return ("asyncio", {"loop_factory": VirtualClockLoop})


@attrs.define(eq=False)
class Api:
    """A Domain API that answers with `reply`, and the requests it got."""

    reply: Callable[[httpx.Request], httpx.Response | Exception]
    latency: float = 0.0
    asked: list[httpx.Request] = attrs.field(factory=list)

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        if self.latency:
            await anyio.sleep(self.latency)
        reply = self.reply(request)
        if isinstance(reply, Exception):
            raise reply
        return reply


def says(uri: object, status: int = 200) -> Callable[[httpx.Request], httpx.Response]:
    return lambda request: httpx.Response(
        status, json={"service": request.url.path.split("/")[-2], "account": "1", "baseURI": uri}
    )


def fails(error: Exception) -> Callable[[httpx.Request], Exception]:
    return lambda _request: error


@asynccontextmanager
async def domains_over(api: Api, settings: str | Mapping[str, str] | None = None) -> AsyncIterator[Domains]:
    async with anyio.create_task_group() as tasks, httpx.AsyncClient(transport=httpx.MockTransport(api)) as client:
        clock = current_clock(tasks)
        yield Domains(
            "12345678",
            DomainSettings.of(settings),
            clock=clock,
            client=client,
            flights=SingleFlight(tasks, clock, SessionClosed),
        )
        tasks.cancel_scope.cancel()


async def refused(api: Api, settings: str | None = None) -> NotSent:
    async with domains_over(api, settings) as domains:
        with pytest.raises(NotSent) as caught:
            await domains.resolve("sentinel")
        assert domains.known("sentinel") is None
        return caught.value


async def test_a_host_is_asked_for_at_the_documented_address_over_https() -> None:
    """Domain API page; `baseURI` is a bare host."""
    api = Api(says(GOOD))
    async with domains_over(api) as domains:
        assert await domains.resolve("sentinel") == f"https://{GOOD}"
    (request,) = api.asked
    assert str(request.url) == (
        "https://api.liveperson.net/api/account/12345678/service/sentinel/baseURI.json?version=1.0"
    )
    assert "authorization" not in request.headers
    assert DOMAIN_API == "https://api.liveperson.net"


@pytest.mark.parametrize(
    "answer",
    [
        {"service": "sentinel", "account": "1", "baseURI": GOOD},
        {"baseURIs": [{"service": "idp", "baseURI": "x"}, "odd", {"service": "sentinel", "baseURI": GOOD}]},
        {"baseURIs": {"service": "sentinel", "baseURI": GOOD}},
        {"baseURIs": None, "baseURI": GOOD},
        {"baseURIs": [], "service": "sentinel", "baseURI": GOOD},
        {"baseURI": f"https://{GOOD}"},
        {"baseURI": f"HTTPS://{GOOD.upper()}/"},
        {"baseURI": f"{GOOD}:443"},
    ],
)
async def test_both_shapes_of_the_answer_are_read(answer: object) -> None:
    """Domain API page: list and flat; a list of one may come bare."""
    async with domains_over(Api(lambda _request: httpx.Response(200, json=answer))) as domains:
        assert (await domains.resolve("sentinel")).removesuffix(":443") == f"https://{GOOD}"


TRICKS = [
    "evil.example",
    "liveperson.net",
    "liveperson.com",
    "liveperson.net.evil.tld",
    "liveperson.net.",
    f"{GOOD}.",
    "evilliveperson.net",
    "xliveperson.com",
    ".liveperson.net",
    "a..liveperson.net",
    "-a.liveperson.net",
    "a-.liveperson.net",
    f"{'a' * 64}.liveperson.net",
    f"{'a.' * 130}liveperson.net",
    "127.0.0.1",
    "127.1",
    "0177.0.0.1",
    "0x7f.0.0.1",
    "0x7f000001",
    "2130706433",
    "017700000001",
    "127.0.0.1:80",
    "[::1]",
    "[::1]:80",
    "::1",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[fe80::1%25lo]",
    "[::1",
    "169.254.169.254",
    "http://169.254.169.254/latest/meta-data",
    "10.0.0.1",
    "0.0.0.0",
    "localhost",
    f"http://{GOOD}",
    f"ftp://{GOOD}",
    f"file:///{GOOD}",
    f"javascript://{GOOD}",
    f"//{GOOD}",
    f"https:{GOOD}",
    f"https://{GOOD}/path",
    f"https://{GOOD}//",
    f"https://{GOOD}?x=1",
    f"https://{GOOD}#x",
    f"https://{GOOD};x",
    f"https://user@{GOOD}",
    f"https://user:pass@{GOOD}",
    f"https://{GOOD}@evil.example",
    f"https://{GOOD}:443@evil.example",
    f"https://evil.example\\@{GOOD}",
    f"https://evil.example\\.{GOOD}",
    f"evil.example%2e{GOOD}",
    f"evil.example%00.{GOOD}",
    f"evil.example\u0000.{GOOD}",
    f"evil.example\r\nHost: x.{GOOD}",
    f"{GOOD}\n",
    f" {GOOD}",
    f"{GOOD}\t",
    "evil.liveperson\u3002net",
    "l\u0131veperson.net",
    "x.livepers\u03bfn.net",
    "x.\u212aiveperson.net",
    "\u212a.liveperson.net",
    "x.l\u0456veperson.net",
    f"{GOOD}:",
    f"{GOOD}:0",
    f"{GOOD}:65536",
    f"{GOOD}:000019999999",
    f"{GOOD}:\uff14\uff14\uff13",
    f"{GOOD}:443:443",
    f"{GOOD}:-1",
    "",
    "https://",
    "x" * 50_000,
]


@pytest.mark.parametrize("trick", TRICKS, ids=range(len(TRICKS)))
async def test_s2_no_trick_leads_secrets_off_the_vendors_hosts(trick: str) -> None:
    """S2: 60 URL tricks and more; nothing but https to a host below the vendor's domains is taken."""
    assert len(TRICKS) >= 60
    error = await refused(Api(says(trick)))
    assert not error.retryable
    assert "must not be sent to" in str(error)
    assert "domains=" in error.hint
    assert len(str(error)) < 400


@pytest.mark.parametrize("uri", [None, 7, ["a"], {}, True])
async def test_an_answer_without_a_host_is_told_as_such(uri: object) -> None:
    """It may be right again in a moment, or is no host at all."""
    error = await refused(Api(says(uri)))
    assert error.retryable is (uri is None)


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"[]", b"null", b'{"baseURIs": []}', b'{"baseURIs": null}', b"[" * 70_000, b'"' + b"x" * 90_000],
)
async def test_a_body_that_is_no_answer_is_refused(body: bytes) -> None:
    """Also one that is too long to be one."""
    error = await refused(Api(lambda _request: httpx.Response(200, content=body)))
    assert "names no place" in str(error)


async def test_a_compressed_answer_is_not_unpacked() -> None:
    """It was not asked for, and a bomb can hide in it."""
    bomb = gzip.compress(b'{"baseURI": "' + GOOD.encode() + b'"}' + b" " * 10_000_000)
    reply = Api(lambda _request: httpx.Response(200, content=bomb, headers={"Content-Encoding": "gzip"}))
    assert "names no place" in str(await refused(reply))


@pytest.mark.parametrize(
    ("status", "retryable", "words"),
    [
        (400, False, "knows no service"),
        (401, False, "account id"),
        (404, False, "knows no service"),
        (301, False, "redirect"),
        (307, False, "redirect"),
        (429, True, "answers 429"),
        (500, True, "answers 500"),
        (503, True, "answers 503"),
        (204, False, "knows no service"),
    ],
)
async def test_other_statuses_are_told_and_redirects_are_not_followed(
    status: int, retryable: bool, words: str
) -> None:
    """Reliability 1, rule 12."""
    api = Api(lambda _request: httpx.Response(status, headers={"Location": "https://evil.example/"}))
    error = await refused(api)
    assert (error.status, error.retryable) == (status, retryable)
    assert words in str(error)
    assert len(api.asked) == 1


@pytest.mark.parametrize(
    "cause", [httpx.ConnectError("refused"), httpx.RemoteProtocolError("odd"), ZeroDivisionError("foreign")]
)
async def test_whatever_the_transport_raises_becomes_not_sent(cause: Exception) -> None:
    """No error of a foreign library escapes."""
    error = await refused(Api(fails(cause)))
    assert error.retryable
    assert error.__cause__ is cause
    assert type(cause).__name__ in str(error)


def _from(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


_UNTRUSTED = ssl.SSLCertVerificationError(1, "certificate verify failed")
_UNTRUSTED.verify_message = "unable to get local issuer certificate"


@pytest.mark.parametrize(
    ("error", "words", "hint"),
    [
        (
            httpx.ConnectError("no"),
            "reached (ConnectError)",
            "check the network, or pass `domains={'sentinel': ...}`",
        ),
        (_from(httpx.ConnectError("no"), _UNTRUSTED), "(TLS failed: unable to get local issuer", "`ssl_context=`"),
        (_from(httpx.ConnectError("no"), TLSError("TLS failed: expired")), "(TLS failed: expired)", "`ssl_context=`"),
        (_from(httpx.ConnectError("no"), TransportError("cannot connect: no such name")), "no such name)", "network"),
        (ZeroDivisionError(), "reached (ZeroDivisionError)", "the transport that you passed"),
        (TransportError("the client is closed"), "reached (the client is closed)", "network"),
    ],
)
async def test_a_look_up_that_fails_says_what_to_look_at(error: Exception, words: str, hint: str) -> None:
    """The network is seldom to blame where a certificate is not trusted, or a hook of the user's client has a bug."""
    caught = await refused(Api(fails(error)))
    assert words in str(caught)
    assert hint in caught.hint


async def test_a_look_up_has_an_end_however_slowly_it_drips() -> None:
    """httpx bounds each read, not the sum."""

    class Drip(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            while True:
                await anyio.sleep(1.0)
                yield b" "

    error = await refused(Api(lambda _request: httpx.Response(200, stream=Drip())))
    assert anyio.current_time() == pytest.approx(15.0, abs=0.1)
    assert "TimeoutError" in str(error)


async def test_however_many_ask_there_is_one_look_up_for_each_service() -> None:
    """Single flight."""
    api = Api(says(GOOD), latency=1.0)
    async with domains_over(api) as domains:
        found: list[str] = []

        async def ask(service: str) -> None:
            found.append(await domains.resolve(service))

        async with anyio.create_task_group() as tasks:
            for number in range(100):
                tasks.start_soon(ask, "idp" if number % 2 else "sentinel")
        assert len(found) == 100
        assert len(api.asked) == 2


async def test_a_caller_that_is_cancelled_leaves_the_look_up_to_the_others() -> None:
    """Nobody is hurt by another's deadline."""
    api = Api(says(GOOD), latency=1.0)
    async with domains_over(api) as domains:
        with anyio.move_on_after(0.5):
            await domains.resolve("idp")
        assert await domains.resolve("idp") == f"https://{GOOD}"
        assert len(api.asked) == 1


async def test_an_answer_serves_for_hours_and_on_while_it_is_looked_up_anew() -> None:
    """Domain API page: cache with a TTL of hours; nobody waits for a host that is known."""
    api = Api(says(GOOD))
    async with domains_over(api) as domains:
        await domains.resolve("idp")
        await anyio.sleep(3.9 * HOUR)
        assert domains.known("idp") == f"https://{GOOD}"
        assert len(api.asked) == 1
        await anyio.sleep(0.2 * HOUR)
        api.reply, api.latency = says("lo.idp.liveperson.net"), 5.0
        for _ in range(3):
            assert await domains.resolve("idp") == f"https://{GOOD}"
        await anyio.sleep(6.0)
        assert await domains.resolve("idp") == "https://lo.idp.liveperson.net"
        assert len(api.asked) == 2


async def test_while_the_domain_api_is_down_the_old_answer_serves_and_is_asked_for_once_a_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Stale is served; also where it lies or hangs."""
    api = Api(says(GOOD))
    async with domains_over(api) as domains:
        await domains.resolve("idp")
        api.reply, api.latency = says("evil.example"), 10.0
        await anyio.sleep(4.01 * HOUR)
        started = anyio.current_time()
        for _ in range(600):
            assert domains.known("idp") == f"https://{GOOD}"
            await anyio.sleep(1.0)
        assert anyio.current_time() - started == pytest.approx(600.0)
        assert 8 <= len(api.asked) - 1 <= 10
        warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
        assert {record.name for record in warnings} == {"connector_async.domains"}


async def test_a_host_that_is_suspected_is_looked_up_again_at_most_once_a_minute() -> None:
    """A connection failed: it may have moved; an outage must not become a storm on the Domain API."""
    api = Api(says(GOOD))
    async with domains_over(api) as domains:
        domains.suspect("idp")
        await domains.resolve("idp")
        for _ in range(300):
            domains.suspect("idp")
            await domains.resolve("idp")
            await anyio.sleep(1.0)
        assert len(api.asked) == 5


async def test_what_the_user_wrote_down_is_taken_as_it_is_and_never_looked_up() -> None:
    """Overrides win; what they lack is looked up."""
    api = Api(says(GOOD))
    async with domains_over(api, {"idp": "idp.company.example", "swift": "http://127.0.0.1:9000"}) as domains:
        assert domains.known("idp") == "https://idp.company.example"
        assert await domains.resolve("swift") == "http://127.0.0.1:9000"
        assert api.asked == []
        assert await domains.resolve("sentinel") == f"https://{GOOD}"
        assert len(api.asked) == 1


@pytest.mark.parametrize(
    ("uri", "url"),
    [
        ("127.0.0.1:9001", "http://127.0.0.1:9001"),
        ("http://127.0.0.1:9001/", "http://127.0.0.1:9001"),
        ("https://localhost", "https://localhost"),
        ("[::1]:80", "http://[::1]:80"),
        (GOOD, f"https://{GOOD}"),
    ],
)
async def test_a_domain_api_on_loopback_may_name_loopback(uri: str, url: str) -> None:
    """The sandbox: a bare host speaks what its Domain API speaks."""
    async with domains_over(Api(says(uri)), "http://127.0.0.1:9000") as domains:
        assert await domains.resolve("sentinel") == url


@pytest.mark.parametrize("uri", ["ftp://127.0.0.1", "evil.example", "http://10.0.0.1", "127.1", f"http://{GOOD}"])
async def test_a_domain_api_on_loopback_may_not_name_anything_else(uri: str) -> None:
    """S2."""
    await refused(Api(says(uri)), "http://127.0.0.1:9000")


@pytest.mark.parametrize("shape", ["flat", "list", "both"])
async def test_the_sandboxs_domain_api_is_understood_in_every_shape(shape: Any) -> None:
    """The truth, over the real adapter for httpx."""
    async with Sandbox(in_process=True, domain_shape=shape) as cloud:
        transport, _ = as_transport(httpx.ASGITransport(cloud.app))
        async with transport, anyio.create_task_group() as tasks:
            clock = current_clock(tasks)
            domains = Domains(
                cloud.account_id,
                DomainSettings.of(cloud.domain_api),
                clock=clock,
                client=transport.client,
                flights=SingleFlight(tasks, clock, SessionClosed),
            )
            assert await domains.resolve("sentinel") == "http://127.0.0.1"
            with pytest.raises(NotSent, match="knows no service"):
                await domains.resolve("nothing")


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("host.example", "https://host.example"),
        ("https://Host.Example/", "https://host.example"),
        ("host.example:8443", "https://host.example:8443"),
        ("http://127.0.0.1:9001", "http://127.0.0.1:9001"),
        ("http://localhost", "http://localhost"),
        ("http://[::1]:8080", "http://[::1]:8080"),
        ("https://[2001:db8::1]", "https://[2001:db8::1]"),
    ],
)
def test_base_urls_of_the_user_are_taken_with_or_without_scheme(given: str, url: str) -> None:
    """https, unless it says http to loopback."""
    assert check_base_url(given, what="x") == url
    assert DomainSettings.of(given).api == url


@pytest.mark.parametrize(
    "given", ["http://host.example", "http://10.0.0.1", "ftp://host", "", "a b", "https://u@h", "h/p", 7, None, "[x]"]
)
def test_base_urls_that_cannot_be_used_are_refused_by_name(given: Any) -> None:
    """One sentence that says what to do."""
    with pytest.raises(ConfigurationError, match=r"domains\['idp'\]"):
        DomainSettings.of({"idp": given})


def test_a_url_with_a_password_is_refused_without_it() -> None:
    """Locks a bug: the error quoted it."""
    for url in ("https://user:hunter2@host.example", "user:hunter2@host.example"):
        with pytest.raises(ConfigurationError, match="got one with a user or password in it") as caught:
            DomainSettings.of({"idp": url})
        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("sentinell", "sentinel"),
        ("sentinal", "sentinel"),
        ("Sentinel", "sentinel"),
        ("asyncMesagingEnt", "asyncMessagingEnt"),
        ("asyncMessaging", "asyncMessagingEnt"),
        ("SWFT", "swift"),
    ],
)
def test_a_misspelt_service_is_told(name: str, meant: str) -> None:
    """Locks a bug: the entry was ignored in silence, and the secrets went to the vendor's host."""
    with pytest.raises(ConfigurationError, match=rf"domains\['{name}'\]: the service is called '{meant}'"):
        DomainSettings.of({name: "host.example"})


def test_services_that_are_not_ours_may_stand_there_too() -> None:
    """Somebody may pass all that the Domain API lists."""
    names = ["agentVep", "msgHist", "smt", "asyncMessaging", "asyncMessagingEnt", "xyz"]
    hosts = dict.fromkeys(names, "host.example")
    assert set(DomainSettings.of(hosts).overrides) == set(hosts)


def test_without_anything_the_vendor_is_asked() -> None:
    """The default."""
    assert DomainSettings.of(None) == DomainSettings({}, DOMAIN_API)


@pytest.mark.parametrize("account", ["12345678", "le1234", "qa_1-2"])
def test_account_ids_that_can_stand_in_a_url_are_taken(account: str) -> None:
    assert check_account_id(account) == account


@pytest.mark.parametrize(
    "account", ["", "1/../2", "1?x", "1\r\n", "\uff11\uff12", "a" * 65, 12345678, None, "1 2", "%31"]
)
def test_s3_account_ids_that_would_change_the_url_are_refused_before_any_io(account: object) -> None:
    """S3."""
    with pytest.raises(ConfigurationError, match="not an account id"):
        check_account_id(account)
