"""Client credentials in, an AppJWT out; whatever the service answers."""

from __future__ import annotations

import base64
import json
import math
import sys
import time
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from typing import Any
from urllib.parse import parse_qs

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector_async.auth import AppCredentials, AppTokenSource
from connector_async.auth._jwt import is_token, load, read_claims
from connector_async.auth.keeper import FetchedToken
from connector_async.errors import (
    AppTokenRefused,
    AuthError,
    ConfigurationError,
    NotSent,
    RemoteProtocolError,
    TLSError,
    TokenUnavailable,
)
from connector_async.transport.base import Answer
from tests.doubles import BASE, Post, ScriptedTransport, answer, lost, not_sent
from tests.guards import CANARY, assert_canary_absent

pytestmark = pytest.mark.anyio

SECRET = f"{CANARY}-client-secret"
CREDENTIALS = AppCredentials("client", SECRET)


def jwt(claims: object, *, alg: str = "RS256", signature: str = "c2ln") -> str:
    def part(value: object) -> str:
        raw = value if isinstance(value, bytes) else json.dumps(value).encode()
        return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()

    return f"{part({'alg': alg, 'typ': 'JWT'})}.{part(claims)}.{signature}"


def test_pyjwt_can_be_imported_before_a_loop_would_wait_for_it() -> None:
    """A session does so when it is built."""
    load()
    assert "jwt" in sys.modules


async def at_home(service: str) -> str:
    assert service == "sentinel"
    return BASE


async def fetch(
    reply: Answer | Exception,
    credentials: Any = CREDENTIALS,
    *,
    resolve: Callable[[str], Awaitable[str]] = at_home,
    suspected: list[str] | None = None,
) -> FetchedToken:
    async def handle(_post: Post) -> Answer:
        if isinstance(reply, Exception):
            raise reply
        return reply

    async with ScriptedTransport(handle) as transport:
        source = AppTokenSource(
            "12345678",
            credentials,
            transport=transport,
            resolve=resolve,
            now=anyio.current_time,
            **({} if suspected is None else {"suspect": suspected.append}),
        )
        return await source.fetch()


async def refused(reply: Answer | Exception, credentials: Any = CREDENTIALS, **options: Any) -> AuthError:
    with pytest.raises(AuthError) as caught:
        await fetch(reply, credentials, **options)
    assert_canary_absent(caught.value)
    return caught.value


async def test_the_secret_goes_in_the_form_body_and_never_into_the_url() -> None:
    """Connector API, authorization; access logs hold URLs."""
    seen: list[Post] = []

    async def handle(post: Post) -> Answer:
        seen.append(post)
        return answer(200, {"access_token": "opaque", "token_type": "Bearer"})

    async with ScriptedTransport(handle) as transport:
        source = AppTokenSource(
            "12345678", AppCredentials("id", "a&b=c ü"), transport=transport, resolve=at_home, now=anyio.current_time
        )
        assert source.credentials == AppCredentials("id", "a&b=c ü")
        assert (await source.fetch()).value == "opaque"
        await source.fetch()
    (post, again) = seen
    path = "/sentinel/api/account/12345678/app/token?v=1.0&grant_type=client_credentials"
    assert post.target.path == path
    assert again.target is post.target
    assert post.header("Content-Type") == "application/x-www-form-urlencoded"
    assert parse_qs(post.body.decode()) == {"client_id": ["id"], "client_secret": ["a&b=c ü"]}


@pytest.mark.parametrize(
    ("claims", "expires_in", "seconds"),
    [
        ({"iat": 1_000, "exp": 4_600}, None, 3600.0),
        ({"iat": 1_000, "exp": 2_800}, None, 1800.0),
        ({"iat": 1_000, "exp": 4_600}, 600, 600.0),
        ({"iat": 1_000, "exp": 4_600}, "600", 600.0),
        ({}, None, 3600.0),
        ({}, 120, 120.0),
        ({"exp": [1]}, None, 3600.0),
        ({"exp": None}, None, 3600.0),
        ({"exp": "soon"}, None, 3600.0),
        ({"exp": True, "iat": False}, None, 3600.0),
        ({"exp": math.nan, "iat": 0}, None, 3600.0),
        ({"exp": math.inf, "iat": 0}, None, 3600.0),
        ({"exp": -5, "iat": 10}, None, 3600.0),
        ({"exp": 10**30, "iat": 0}, None, 3600.0),
        ({}, -1, 3600.0),
        ({}, 0, 3600.0),
        ({}, [60], 3600.0),
        ({}, True, 3600.0),
    ],
)
async def test_s4_the_life_is_read_from_what_is_sane_and_is_60_minutes_else(
    claims: dict[str, Any], expires_in: object, seconds: float
) -> None:
    """S4, C7: `exp` less `iat`, `expires_in`, or 60 minutes."""
    got = await fetch(answer(200, {"access_token": jwt(claims), "expires_in": expires_in}))
    assert got.seconds == seconds


async def test_an_end_without_a_beginning_is_compared_with_our_clock() -> None:
    """Never to make a token live longer than 60 minutes."""
    got = await fetch(answer(200, {"access_token": jwt({"exp": time.time() + 600})}))
    assert got.seconds == pytest.approx(600.0, abs=30.0)


@pytest.mark.parametrize(
    "token",
    [
        jwt({"exp": 5, "iat": 1}, alg="none", signature=""),
        jwt({"exp": 5, "iat": 1}, alg="HS256"),
        jwt(b"[" * 5_000 + b"]" * 5_000),
        jwt(b'{"exp": 1e400, "iat": 0}'),
        jwt(b'{"exp": NaN}'),
        jwt([1, 2]),
        jwt(b"\xff\xfe"),
        jwt(b'{"exp": ' + b"9" * 5_000 + b"}"),
        "a.b.c",
        "....",
        "opaque-token",
        "e30.e30.e30",
        base64.urlsafe_b64encode(b'{"b64": false, "crit": ["b64"], "alg": "RS256"}').decode().rstrip("=")
        + ".e30.e30",
    ],
    ids=range(13),
)
async def test_s4_no_odd_token_stops_the_client(token: str) -> None:
    """S4: no crash; the life is a sane number."""
    got = await fetch(answer(200, {"access_token": token}))
    assert got.value == token
    assert 0 < got.seconds <= 3600.0


@given(st.binary(max_size=200))
def test_s4_any_bytes_as_claims_are_read_or_ignored(raw: bytes) -> None:
    """S4."""
    claims = read_claims(jwt(raw))
    assert isinstance(claims, dict)


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(max_size=5), st.lists, max_leaves=5))
def test_s4_claims_of_any_type_are_read(value: object) -> None:
    """S4: PyJWT does not check types when it does not verify."""
    claims = read_claims(jwt({"exp": value, "iat": value, "aud": value, "nbf": value}))
    assert claims == {} or "exp" in claims


@pytest.mark.parametrize(
    "token", ["", "with space", "line\r\nbreak: x", "ü", "a" * 16_385, 7, None, ["a"], "tab\t", '"quoted"']
)
async def test_s3_what_cannot_be_a_header_value_is_no_token(token: object) -> None:
    """S3, S4: a token becomes a header; a 10 MB one is refused."""
    assert is_token("a" * 16_384)
    assert not is_token(token)
    error = await refused(answer(200, {"access_token": token}))
    assert isinstance(error, TokenUnavailable)
    assert error.args[0] == "the token service's answer holds no usable access_token"


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b"null", b'"text"', b"{}", b"[" * 100_000, b"\xff", b"1" + b"0" * 400]
)
async def test_a_body_that_is_no_answer_is_told_without_being_shown(body: bytes) -> None:
    """C7, malformed."""
    error = await refused(answer(200, body))
    assert isinstance(error, TokenUnavailable)
    assert (error.status, error.retryable) == (200, True)


@pytest.mark.parametrize("status", [400, 401, 403])
async def test_refused_credentials_are_told_as_such(status: int) -> None:
    """Connector API, authorization: expect 401 for a wrong secret."""
    error = await refused(answer(status, {"internalErrorCode": "9", "echo": SECRET}))
    assert isinstance(error, AppTokenRefused)
    assert (error.status, error.retryable) == (status, False)
    assert error.args[0] == f"the token service refused the app credentials (status {status})"
    assert "client id and secret" in error.hint


@pytest.mark.parametrize(
    ("status", "header", "asked"),
    [(500, None, None), (429, "7", 7.0), (302, None, None), (300, None, None), (503, "x", None)],
)
async def test_a_service_out_of_order_may_say_when_to_come_back(
    status: int, header: str | None, asked: float | None
) -> None:
    """`Retry-After` is honoured where it comes."""
    error = await refused(answer(status, b"", {} if header is None else {"Retry-After": header}))
    assert isinstance(error, TokenUnavailable)
    assert (error.status, error.retry_after, error.retryable) == (status, asked, True)
    assert error.args[0] == f"the token service answers {status}"


async def test_a_service_may_name_the_hour_to_come_back() -> None:
    """RFC 9110 10.2.3: `Retry-After` may be a date."""
    error = await refused(answer(503, b"", {"Retry-After": formatdate(time.time() + 600, usegmt=True)}))
    assert isinstance(error, TokenUnavailable)
    assert error.retry_after == pytest.approx(600.0, abs=30.0)


@pytest.mark.parametrize(
    ("cause", "retryable", "suspected"),
    [
        (lost(), True, []),
        (not_sent(), True, ["sentinel"]),
        (TLSError("TLS failed: self-signed certificate"), False, ["sentinel"]),
        (RemoteProtocolError("the answer is not valid HTTP"), True, []),
    ],
)
async def test_a_service_that_cannot_be_reached_is_told_with_its_cause(
    cause: Exception, retryable: bool, suspected: list[str]
) -> None:
    """S5: a certificate that is not trusted does not heal; a host that is not there may have moved."""
    seen: list[str] = []
    error = await refused(cause, suspected=seen)
    assert isinstance(error, TokenUnavailable)
    assert (error.retryable, seen) == (retryable, suspected)
    assert error.__cause__ is cause
    assert error.args[0] == f"the token service does not answer: {cause}"
    assert error.hint == (TokenUnavailable.hint if retryable else "check the certificate and the host")
    await refused(cause)  # nobody is told


async def test_a_host_that_cannot_be_found_is_told() -> None:
    """The Domain API's error in the words of the token."""

    async def nowhere(_service: str) -> str:
        raise NotSent("the Domain API answers 404", status=404, retryable=False, hint="check the account id")

    error = await refused(answer(200), resolve=nowhere)
    assert isinstance(error, TokenUnavailable)
    assert (error.status, error.retryable, error.hint) == (404, False, "check the account id")
    assert error.args[0] == "the token service cannot be found: the Domain API answers 404"


async def test_a_host_that_cannot_be_used_is_told() -> None:
    """Overrides are checked before; a resolver of another kind may still be wrong."""

    async def odd(_service: str) -> str:
        return "ftp://there"

    assert isinstance(await refused(answer(200), resolve=odd), TokenUnavailable)


async def test_a_callable_is_asked_at_each_renewal_and_its_answer_is_kept() -> None:
    """Vaults."""
    asked: list[int] = []

    async def vault() -> AppCredentials:
        asked.append(1)
        return CREDENTIALS

    async def handle(_post: Post) -> Answer:
        return answer(200, {"access_token": "a"})

    async with ScriptedTransport(handle) as transport:
        source = AppTokenSource("1", vault, transport=transport, resolve=at_home, now=anyio.current_time)
        known = [source.credentials]
        await source.fetch()
        await source.fetch()
        assert [*known, source.credentials] == [None, CREDENTIALS]
    assert len(asked) == 2


async def test_a_callable_that_fails_hangs_or_returns_nonsense_is_told() -> None:
    """Its error is the cause; its words are not repeated."""

    async def fails() -> AppCredentials:
        raise OSError(f"vault sealed for {SECRET}")

    async def hangs() -> AppCredentials:
        await anyio.sleep_forever()
        raise AssertionError

    async def nonsense() -> object:
        return {"client_id": "id", "client_secret": SECRET}

    with pytest.raises(TokenUnavailable, match="callable failed") as caught:
        await fetch(answer(200), fails)
    assert isinstance(caught.value.__cause__, OSError)
    assert SECRET not in str(caught.value)
    started = anyio.current_time()
    assert "TimeoutError" in str(await refused(answer(200), hangs))
    assert anyio.current_time() - started == pytest.approx(15.0)
    error = await refused(answer(200), nonsense)
    assert "returned dict" in str(error)
    assert not error.retryable


async def test_an_abort_ends_the_exchange_under_way() -> None:
    """The close of a session."""

    async def hang(_post: Post) -> Answer:
        await anyio.sleep_forever()
        raise AssertionError

    async with ScriptedTransport(hang) as transport:
        source = AppTokenSource("1", CREDENTIALS, transport=transport, resolve=at_home, now=anyio.current_time)
        source.abort()  # nothing yet

        async def run() -> None:
            with pytest.raises(TokenUnavailable, match="aborted"):
                await source.fetch()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            await anyio.sleep(1.0)
            source.abort()
        with pytest.raises(TokenUnavailable, match="deadline"):
            await source.fetch()


@pytest.mark.parametrize(
    ("client_id", "secret", "named"),
    [
        ("", "s", "client_id"),
        ("c", "  ", "client_secret"),
        ("c", None, "client_secret"),
        (" c", "s", "client_id begins or ends with white space"),
        ("c", "s\n", "client_secret begins or ends with white space"),
        ("\udc80", "s", "client_id"),
    ],
)
def test_credentials_that_cannot_be_are_refused_by_name(client_id: str, secret: Any, named: str) -> None:
    """One sentence that says what to do."""
    with pytest.raises(ConfigurationError, match=named):
        AppCredentials(client_id, secret)


def test_half_a_surrogate_in_a_secret_is_refused_without_showing_the_secret() -> None:
    """Python's own error would hold all of it."""
    with pytest.raises(ConfigurationError) as caught:
        AppCredentials("c", f"{SECRET}\udc80")
    assert_canary_absent(caught.value)
    assert caught.value.__cause__ is None


def test_old_secrets_are_whole_texts_and_never_empty() -> None:
    """An empty one would accept everybody's signature, and so would the letters of one given as plain text."""
    assert AppCredentials("c", "s", previous_secrets="old").previous_secrets == ("old",)
    assert AppCredentials("c", "s", previous_secrets=("a1", "b2")).previous_secrets == ("a1", "b2")
    with pytest.raises(ConfigurationError, match="previous_secrets"):
        AppCredentials("c", "s", previous_secrets=("old", ""))
    assert_canary_absent(AppCredentials("c", SECRET, previous_secrets=(SECRET,)))
