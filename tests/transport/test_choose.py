"""Which transport is used when (`as_transport`)."""

from __future__ import annotations

import sys
from typing import Any

import httpx
import pytest

from connector_async import ConfigurationError
from connector_async.transport import HttpxTransport, PooledTransport, Transport, as_transport
from tests.backends import TRIO
from tests.faults import FaultServer, Peer, answer

pytestmark = pytest.mark.anyio


async def test_ours_on_asyncio() -> None:
    """The default."""
    transport, owned = as_transport(max_connections=7)
    assert isinstance(transport, PooledTransport)
    assert isinstance(transport, Transport)
    assert owned


@pytest.mark.parametrize("anyio_backend", [TRIO])
async def test_httpx_own_under_trio(anyio_backend: Any) -> None:
    """The pooled one stands on asyncio."""
    transport, owned = as_transport()
    assert isinstance(transport, HttpxTransport)
    assert isinstance(transport, Transport)
    assert owned
    async with transport:
        pass
    with pytest.raises(ConfigurationError, match="on asyncio only"):  # it told of a token service that fails
        as_transport(PooledTransport())


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "ALL_PROXY"])
async def test_a_proxy_in_the_environment_is_honoured(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As httpx users expect."""
    monkeypatch.setenv(name, "http://127.0.0.1:1")
    transport, owned = as_transport()
    assert isinstance(transport, HttpxTransport)
    assert owned
    monkeypatch.setenv("NO_PROXY", "localhost, *")
    assert isinstance(as_transport()[0], PooledTransport)
    async with transport:
        pass


async def test_no_proxy_is_respected_host_by_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest goes through the proxy."""
    seen: list[bytes] = []

    async def serve(peer: Peer) -> None:
        while True:
            seen.append((await peer.request()).split(b"\r\n")[0])
            await peer.send(answer())

    async with FaultServer(serve) as server:
        monkeypatch.setenv("HTTP_PROXY", server.base)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        transport, _ = as_transport()
        async with transport:
            await transport.client.get(f"{server.base}/direct")
            await transport.client.get("http://elsewhere.example/")
    assert seen == [b"GET /direct HTTP/1.1", b"GET http://elsewhere.example/ HTTP/1.1"]


async def test_a_proxy_by_argument_is_honoured() -> None:
    """For this session only."""
    transport, owned = as_transport(proxy="http://127.0.0.1:1")
    assert isinstance(transport, HttpxTransport)
    assert owned
    async with transport:
        pass


@pytest.mark.parametrize(
    "proxy", ["ftp://127.0.0.1:1", "127.0.0.1:1", "http://proxy:port", httpx.URL("ftp://user:pass@h")]
)
async def test_a_proxy_that_cannot_be_one_is_refused_without_showing_it(proxy: Any) -> None:
    """httpx says ValueError, or InvalidURL, and names no setting; the URL may hold a password."""
    with pytest.raises(ConfigurationError, match="proxy: a proxy is a URL that begins with http://") as caught:
        as_transport(proxy=proxy)
    assert "pass" not in str(caught.value)


async def test_a_proxy_of_another_kind_is_refused() -> None:
    """The old httpx took mappings."""
    proxy: Any = {"all://": "http://127.0.0.1:1"}
    with pytest.raises(ConfigurationError, match=r"must be the URL of a proxy.* got dict"):
        as_transport(proxy=proxy)
    transport, _ = as_transport(proxy=httpx.Proxy("http://127.0.0.1:1"))
    async with transport:
        pass


async def test_a_proxy_of_the_environment_that_cannot_be_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody who reads the program sees where it comes from."""
    monkeypatch.setenv("HTTP_PROXY", "htp://127.0.0.1:1")
    with pytest.raises(ConfigurationError, match=r"in the environment \(HTTP_PROXY.*begins with http://"):
        as_transport()


async def test_a_proxy_that_needs_another_package_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    """SOCKS is an extra of httpx."""
    monkeypatch.setitem(sys.modules, "socksio", None)
    with pytest.raises(ConfigurationError, match=r"proxy: .*'socksio' package is not installed"):
        as_transport(proxy="socks5://127.0.0.1:1")


@pytest.mark.parametrize("value", [False, "/etc/ssl/ca.pem"])
async def test_what_is_no_tls_context_is_refused(value: Any) -> None:
    """httpx's `verify` takes these; here they would fail at the first https request, in the middle of a renewal."""
    with pytest.raises(ConfigurationError, match=r"ssl_context must be an ssl\.SSLContext, such as"):
        as_transport(ssl_context=value)


async def test_what_the_user_passes_is_used_as_it_is() -> None:
    """What he passes he closes; a wrapper around it is ours."""
    pooled = PooledTransport()
    assert as_transport(pooled) == (pooled, False)
    wrapped = HttpxTransport(httpx.MockTransport(lambda _: httpx.Response(200)))
    assert as_transport(wrapped) == (wrapped, False)
    for value in (httpx.MockTransport(lambda _: httpx.Response(200)), httpx.AsyncClient(trust_env=False)):
        transport, owned = as_transport(value)
        assert isinstance(transport, HttpxTransport)
        assert owned


async def test_a_transport_of_the_users_own_is_used_as_it_is() -> None:
    """Anything with the right methods."""

    class Own:
        def post(self) -> None: ...

        discard = abort = client = aclose = __aenter__ = __aexit__ = post

    own: Any = Own()
    assert as_transport(own) == (own, False)


@pytest.mark.parametrize("value", ["http://proxy", httpx.HTTPTransport(verify=False), 5])
async def test_what_is_no_transport_is_refused(value: Any) -> None:
    """httpx's synchronous ones included."""
    with pytest.raises(ConfigurationError, match="transport must be"):
        as_transport(value)
