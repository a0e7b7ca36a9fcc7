"""The sandbox's own HTTP client, against raw sockets, and its way into ASGI applications."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncGenerator
from typing import Any

import anyio
import httptools
import pytest
import trustme
from anyio.streams.tls import TLSListener

from connector_async.sandbox import Sandbox
from connector_async.sandbox._post import AsgiTarget, HttpTarget
from tests.sandbox.caller import calling

pytestmark = pytest.mark.anyio


class Server:
    """A raw server that answers each request on a connection with the next of its scripts."""

    def __init__(self, *scripts: bytes, close: bool = False) -> None:
        self.scripts = list(scripts)
        self.requests: list[bytes] = []
        self.connections = 0
        self.close = close

    async def __call__(self, stream: Any) -> None:
        self.connections += 1
        async with stream:
            while self.scripts:
                with contextlib.suppress(anyio.EndOfStream):
                    request = await self._request(stream)
                    self.requests.append(request)
                    await stream.send(self.scripts.pop(0))
                    if not self.close:
                        continue
                return

    async def _request(self, stream: Any) -> bytes:
        request = b""
        while not request.endswith(b"body"):
            request += await stream.receive()
        return request


@contextlib.asynccontextmanager
async def serving(server: Server, *, tls: ssl.SSLContext | None = None) -> AsyncGenerator[int]:
    """Serve on a free port for as long as the block lasts."""
    listener: Any = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    if tls is not None:
        listener = TLSListener(listener, tls, standard_compatible=False)
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, server)
        with anyio.fail_after(60):
            yield port
        tasks.cancel_scope.cancel()


OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


async def test_connections_are_used_again_and_replaced_when_the_endpoint_closed_them() -> None:
    """An idle connection that the endpoint has closed is no failure of the delivery."""
    server = Server(OK, OK, b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n")
    async with serving(server) as port:
        target = HttpTarget(f"http://127.0.0.1:{port}/hook?a=b")
        headers = ((b"x-one", b"1"),)
        assert await target.post(headers, b"body") == 200
        assert await target.post(headers, b"body") == 200
        assert server.connections == 1
        assert await target.post(headers, b"body") == 201
        server.scripts = [OK]
        assert await target.post(headers, b"body") == 200
        assert server.connections == 2
        await target.aclose()
    assert server.requests[0] == (
        f"POST /hook?a=b HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nx-one: 1\r\ncontent-length: 4\r\n\r\nbody".encode()
    )


async def test_answers_that_end_with_the_connection_are_read() -> None:
    """HTTP/1.1 without a length."""
    server = Server(b"HTTP/1.1 200 OK\r\n\r\nok", OK, close=True)
    async with serving(server) as port:
        target = HttpTarget(f"http://127.0.0.1:{port}")
        assert await target.post((), b"body") == 200
        assert await target.post((), b"body") == 200
        assert server.connections == 2
        await target.aclose()


@pytest.mark.parametrize(
    ("script", "error"),
    [
        (b"", anyio.EndOfStream),
        (b"HTTP/1.1 200 OK\r\nconte", anyio.EndOfStream),
        (b"rubbish\r\n\r\n", httptools.HttpParserError),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 99999\r\n\r\n" + b"x" * 99_999, Exception),
    ],
)
async def test_answers_that_are_none_raise(script: bytes, error: type[Exception]) -> None:
    """Each is a failed attempt."""
    async with serving(Server(script, close=True)) as port:
        with pytest.raises(error):
            await HttpTarget(f"http://127.0.0.1:{port}").post((), b"body")


async def test_a_reused_connection_that_breaks_inside_the_answer_is_a_failure() -> None:
    """Bytes of an answer came: the endpoint has had the event."""
    server = Server(OK, b"HTTP/1.1 200 OK\r\nconte")
    async with serving(server) as port:
        target = HttpTarget(f"http://127.0.0.1:{port}")
        assert await target.post((), b"body") == 200
        with pytest.raises(anyio.EndOfStream):
            await target.post((), b"body")


async def test_https_endpoints_are_verified() -> None:
    """Webhooks notification protocol: valid certificate."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    async with serving(Server(OK), tls=context) as port:
        target = HttpTarget(f"https://127.0.0.1:{port}/", ssl_context=trusting)
        assert await target.post((), b"body") == 200
        await target.aclose()


async def test_webhook_url_of_the_constructor_reaches_another_process_like_server() -> None:
    """`--webhook-url`: one real socket talks to another."""
    server = Server(*[OK.replace(b"200 OK", b"500 Oh")] * 3)
    server._request = _any_request  # type: ignore[method-assign]  # a webhook's body does not end with "body"
    async with serving(server) as port:
        url = f"http://127.0.0.1:{port}/"
        async with (
            Sandbox(webhook_url=url, webhook_signature="sha256", agent="silent") as cloud,
            calling(cloud) as call,
        ):
            await call.open(await call.headers())
            await cloud.settle()
        assert cloud.webhooks.deliveries[0].attempts == [500]
    assert b"x-liveperson-signature: sha256=" in server.requests[0]


async def _any_request(stream: Any) -> bytes:
    request = b""
    while not request.endswith(b"}"):
        request += await stream.receive()
    return request


async def test_asgi_target_hands_over_path_and_query() -> None:
    """`deliver_to(app, path)`."""
    seen: dict[str, Any] = {}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.update(scope)
        await send({"type": "http.response.start", "status": 200, "headers": []})

    target = AsgiTarget(app, "/a/b?c=d")
    assert await target.post(((b"x", b"y"),), b"{}") == 200
    assert (seen["path"], seen["query_string"], seen["method"]) == ("/a/b", b"c=d", "POST")
    await target.aclose()
