"""What a proxy does to an exchange over httpx's transport: asked to connect, it has seen nothing of the request."""

from __future__ import annotations

import ssl

import anyio
import httpx
import pytest

from connector_async.errors import ConnectorError, Phase, TLSError, TransportError
from connector_async.transport import HttpxTransport, Target
from tests.faults import Behaviour, FaultServer, Peer, refused_port
from tests.transport.wire import HEADERS

pytestmark = pytest.mark.anyio

_TARGET = Target("https://behind.invalid", "/path")


async def _failure(proxy: str, *, in_client: bool = False) -> ConnectorError:
    trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    inner: httpx.AsyncClient | httpx.AsyncHTTPTransport
    if in_client:
        inner = httpx.AsyncClient(proxy=proxy, verify=trust, trust_env=False)
    else:
        inner = httpx.AsyncHTTPTransport(proxy=proxy, verify=trust, trust_env=False)
    async with HttpxTransport(inner, close_inner=True) as transport:
        with pytest.raises(ConnectorError) as caught:
            await transport.post(_TARGET, HEADERS, b"{}", anyio.current_time() + 60)
    return caught.value


def _answers(answer: bytes, then: bytes = b"") -> Behaviour:
    async def behaviour(peer: Peer) -> None:
        assert (await peer.request()).startswith(b"CONNECT behind.invalid:443 ")
        await peer.send(answer)
        if then:
            await peer.reader.read(1)  # the client has begun to shake hands
            await peer.send(then)
            await peer.client_gone()

    return behaviour


@pytest.mark.parametrize("in_client", [True, False])
@pytest.mark.parametrize("status", [b"407 Proxy Authentication Required", b"503 Busy", b"403 Forbidden"])
async def test_what_a_proxy_does_not_pass_on_was_not_sent(status: bytes, in_client: bool) -> None:
    """httpcore tells of CONNECT as of any request: the outcome was unknown, and a text might not be sent again."""
    refusal = b"HTTP/1.1 %s\r\nContent-Length: 0\r\n\r\n" % status
    async with FaultServer(_answers(refusal)) as proxy:
        error = await _failure(proxy.base, in_client=in_client)
    assert isinstance(error, TransportError)
    assert (error.sent, error.answered, error.phase) == (False, False, Phase.CONNECT)
    assert f"the proxy answers {status[:3].decode()}" in str(error)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 200"])
async def test_a_proxy_that_goes_before_it_passes_anything_on_leaves_nothing_sent(answer: bytes) -> None:
    """Before, in and after its answer."""
    async with FaultServer(_answers(answer)) as proxy:
        error = await _failure(proxy.base)
    assert isinstance(error, TransportError)
    assert (error.sent, error.answered, error.reused) == (False, False, False)


async def test_a_failure_of_tls_behind_a_proxy_is_one() -> None:
    """Named, and never tried again; it was an unknown outcome, tried again until the deadline."""
    async with FaultServer(_answers(b"HTTP/1.1 200 OK\r\n\r\n", b"no TLS here")) as proxy:
        error = await _failure(proxy.base)
    assert isinstance(error, TLSError)
    assert (error.sent, error.retryable) == (False, False)


async def test_a_proxy_that_is_not_there_is_named() -> None:
    """By its address: "ConnectError" alone sends everybody to look at the API's host."""
    with refused_port() as port:
        error = await _failure(f"http://127.0.0.1:{port}")
    assert isinstance(error, TransportError)
    assert not error.sent
    assert f"('127.0.0.1', {port})" in str(error)
