"""TLS: who is believed, who is refused, and that a refusal is named and never retried (our fault tables, S5)."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Callable
from typing import Any

import anyio
import httpx
import pytest

from connector_async.errors import ConfigurationError, Phase, TLSError, TransportError
from connector_async.transport import Headers, PooledTransport, Target, Transport
from connector_async.transport import _tls as tls
from tests.backends import ASYNCIO, UVLOOP
from tests.faults import FaultServer, Peer, well_behaved
from tests.transport.certificates import Authority, authority
from tests.transport.kinds import EVERY_KIND, Kind

pytestmark = pytest.mark.anyio

_HEADERS = Headers([])


async def _post(transport: Transport, base: str) -> int:
    target = Target(base.replace("127.0.0.1", "localhost").replace("http://", "https://"), "/")
    return (await transport.post(target, _HEADERS, b"{}", anyio.current_time() + 5)).status


@pytest.mark.parametrize("kind", EVERY_KIND)
async def test_a_server_with_the_right_certificate_is_believed(kind: Kind) -> None:
    """And its connection is kept."""
    async with FaultServer(well_behaved, tls=authority().server_context("localhost")) as server:
        async with kind(authority().client_context(), authority().pem) as transport:
            assert [await _post(transport, server.base) for _ in range(2)] == [200, 200]
            assert server.connections == 1


async def _old(peer: Peer) -> None:
    """Knows only versions of TLS that we do not speak: a fatal alert, "protocol version"."""
    await peer.reader.read(5)
    await peer.send(b"\x15\x03\x01\x00\x02\x02\x46")
    await peer.client_gone()


async def _chatty(peer: Peer) -> None:
    """Plain http that speaks first, as some servers do when they do not understand."""
    await peer.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
    await peer.client_gone()


_REFUSED: dict[str, Callable[[], FaultServer]] = {
    "untrusted": lambda: FaultServer(well_behaved, tls=Authority().server_context("localhost")),
    "wrong host": lambda: FaultServer(well_behaved, tls=authority().server_context("other.example")),
    "expired": lambda: FaultServer(well_behaved, tls=authority().server_context("localhost", expired=True)),
    "TLS 1.1": lambda: FaultServer(_old),
    "plain http": lambda: FaultServer(_chatty),
}


@pytest.mark.requirement("S5")
@pytest.mark.parametrize("what", _REFUSED)
@pytest.mark.parametrize("kind", EVERY_KIND)
async def test_a_server_that_cannot_be_believed_is_refused_and_never_retried(kind: Kind, what: str) -> None:
    """our fault tables, section 2: TLSError, whatever the transport calls it."""
    async with _REFUSED[what]() as server:
        async with kind(authority().client_context(), authority().pem) as transport:
            known = kind.shortcomings.get(f"tls {what}")
            if known is not None:
                with pytest.raises(TransportError) as unnamed:
                    await _post(transport, server.base)
                assert not isinstance(unnamed.value, TLSError)
                return
            with pytest.raises(TLSError) as caught:
                await _post(transport, server.base)
            assert not caught.value.retryable
            assert str(caught.value).startswith("TLS failed: ")
            assert server.requests == []
            if kind.knows_not_sent:
                assert not caught.value.sent


@pytest.mark.parametrize("anyio_backend", [ASYNCIO, UVLOOP])
async def test_a_handshake_that_breaks_may_be_tried_again(anyio_backend: Any) -> None:
    """A reset in the middle says nothing about certificates."""

    async def breaks(peer: Peer) -> None:
        await peer.reader.read(10)
        peer.reset()

    async with FaultServer(breaks) as server, PooledTransport(ssl_context=authority().client_context()) as transport:
        with pytest.raises(TransportError) as caught:
            await _post(transport, server.base)
        assert not isinstance(caught.value, TLSError)
        assert (caught.value.phase, caught.value.sent, caught.value.retryable) == (Phase.TLS, False, True)


@pytest.mark.parametrize("one_file", [True, False])
async def test_a_client_certificate_is_shown(one_file: bool) -> None:
    """`cert` and `ca_file`: one PEM file, or certificate and key."""
    both, chain, key = authority().client_files()
    context = authority().server_context("localhost", asks_for_client=True)
    async with FaultServer(well_behaved, tls=context) as server:
        cert = both if one_file else (chain, key)
        async with PooledTransport(ca_file=authority().ca_file(), cert=cert) as transport:
            assert await _post(transport, server.base) == 200


async def test_a_missing_client_certificate_is_a_tls_error() -> None:
    """TLS 1.3 tells it only after the handshake."""
    context = authority().server_context("localhost", asks_for_client=True)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def refuse() -> None:  # in a thread, for asyncio's server closes before its alert is out
            connected, _ = listener.accept()
            with context.wrap_socket(connected, server_side=True, do_handshake_on_connect=False) as wrapped:
                with contextlib.suppress(ssl.SSLError):
                    wrapped.do_handshake()
                with contextlib.suppress(OSError):  # closing with bytes unread would reset, and sweep the alert away
                    while socket.socket.recv(wrapped, 65_536):
                        pass

        thread = threading.Thread(target=refuse)
        thread.start()
        async with PooledTransport(ca_file=authority().ca_file()) as transport:
            with pytest.raises(TLSError) as caught:
                await _post(transport, f"http://127.0.0.1:{listener.getsockname()[1]}")
            assert not caught.value.retryable
        thread.join()


async def test_a_certificate_that_cannot_be_read_is_named() -> None:
    """At the first use; nothing is read before."""
    async with FaultServer(well_behaved) as server, PooledTransport(ca_file="/does/not/exist") as transport:
        with pytest.raises(ConfigurationError, match="certificates"):
            await _post(transport, server.base)
        assert transport.statistics().opening == 0


def test_either_a_context_or_files() -> None:
    """Both would leave open which counts."""
    with pytest.raises(ConfigurationError):
        PooledTransport(ssl_context=authority().client_context(), ca_file="x")


def test_the_usual_context_is_built_once_and_speaks_http_1_only() -> None:
    """20 ms and some memory, for all transports of the process together."""
    first, second = tls.TLSSettings(), tls.TLSSettings()
    assert first.context is second.context
    both, _, _ = authority().client_files()
    own = tls.TLSSettings(cert=both)
    assert own.context is not first.context
    assert own.context is own.context


@pytest.mark.parametrize("anyio_backend", [ASYNCIO, UVLOOP])
async def test_many_exchanges_over_tls(anyio_backend: Any) -> None:
    """With the write limits that only TLS needs."""
    async with FaultServer(well_behaved, tls=authority().server_context("localhost")) as server:
        async with PooledTransport(ssl_context=authority().client_context(), max_connections=3) as transport:
            target = Target(server.base.replace("127.0.0.1", "localhost"), "/")
            loop = asyncio.get_running_loop()
            posts = [transport.post(target, _HEADERS, b"x" * 3_000, loop.time() + 5) for _ in range(60)]
            assert {answer.status for answer in await asyncio.gather(*posts)} == {200}
            assert transport.statistics().idle == 3
            assert len(transport.statistics().hosts) == 1


@pytest.mark.parametrize("anyio_backend", [ASYNCIO, UVLOOP])
async def test_a_protocol_that_we_do_not_speak_is_refused_in_the_handshake(anyio_backend: Any) -> None:
    """httpx writes "h2" into the context that it gets for HTTP/2; shared with us, the server spoke HTTP/2 to us."""
    serves, offers = authority().server_context("localhost"), authority().client_context()
    serves.set_alpn_protocols(["h2", "http/1.1"])
    offers.set_alpn_protocols(["h2", "http/1.1"])
    async with FaultServer(well_behaved, tls=serves) as server, PooledTransport(ssl_context=offers) as transport:
        with pytest.raises(TLSError, match="the server chose h2") as caught:
            await _post(transport, server.base)
        assert not caught.value.sent
        offers.set_alpn_protocols(["http/1.1"])
        assert await _post(transport, server.base) == 200


async def test_a_server_that_speaks_none_of_our_protocols_is_named_with_its_reason() -> None:
    """OpenSSL's name for this alert is unknown to Python: the error said "TLS failed: None"."""
    error = ssl.SSLError(1, "[SSL] tlsv1 alert no application protocol (_ssl.c:1006)")
    assert "no application protocol" in tls.reason_of(error)
    assert tls.reason_of(ssl.SSLError()) == "handshake failed"


async def test_the_sni_hostname_extension_says_whom_the_certificate_must_name() -> None:
    """As httpx documents it; for those who look a host up themselves and connect to the address that they checked."""
    async with FaultServer(well_behaved, tls=authority().server_context("other.example")) as server:
        async with PooledTransport(ssl_context=authority().client_context()) as transport:
            url = server.base.replace("http://", "https://")

            async def get(name: str | None) -> int:
                request = httpx.Request("GET", url, extensions={"sni_hostname": name})
                response = await transport.handle_async_request(request)
                await response.aread()
                return response.status_code

            assert [await get("other.example") for _ in range(2)] == [200, 200]
            for wrong in ("localhost", None):  # also while a connection to the other name is idle
                with pytest.raises(httpx.ConnectError, match="certificate is not valid"):
                    await get(wrong)
            hosts = transport.statistics().hosts
            assert hosts[f"https://127.0.0.1:{server.port} as other.example"].idle == server.connections == 1
