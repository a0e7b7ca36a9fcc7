"""The application on a real socket: uvicorn's HTTP protocol in the running event loop, without its process handling.

`uvicorn.Server` takes over signals, ticks ten times a second and needs a tenth of a second to stop; a sandbox that
tests open by the hundred wants none of that, so only the protocol and its configuration are used.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
import struct
from collections.abc import AsyncGenerator
from typing import Any, Final

import anyio
from starlette.types import ASGIApp
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from connector_async.errors import ConfigurationError

__all__ = ["WIRE", "Wire", "bind", "serve_on"]

WIRE: Final = "connector_async.sandbox.wire"
"""The key in `scope["extensions"]` under which the application finds the connection itself."""

_KEEP_ALIVE: Final = 75  # seconds, as the common proxies in front of real services have it
_GRACE: Final = 0.2  # seconds that requests in hand get when the server stops


class Wire:
    """The connection under a request, for faults that HTTP itself has no words for."""

    def __init__(self, transport: _JoinedWrites) -> None:
        self._transport = transport

    def reset(self) -> None:
        """Cut the connection with a TCP reset: what the peer has not read yet is lost."""
        sock = self._transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    def close(self) -> None:
        """Send what is buffered, then end the connection in order."""
        self._transport.close()

    def write(self, data: bytes) -> None:
        """Put bytes on the wire as they are."""
        self._transport.write_now(data)


class _JoinedWrites(asyncio.Transport):
    """A transport that sends head and body of an answer together.

    uvicorn writes them one by one, which costs both sides a system call and the client a second wake-up; at
    thousands of answers a second that is what a measurement of the client would see first.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__()
        self._transport = transport
        self._head = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        data = bytes(data)
        if not self._head and data.startswith(b"HTTP/1.1 ") and data[9:10] != b"1":
            self._head = data
            return
        head, self._head = self._head, b""
        self._transport.write(head + data)

    def write_now(self, data: bytes) -> None:
        """Send bytes, after what is held."""
        self.flush()
        self._transport.write(data)

    def flush(self) -> None:
        """Send a head that no body followed."""
        if self._head:
            self.write(b"")

    def close(self) -> None:
        self.flush()
        self._transport.close()

    def abort(self) -> None:
        self._transport.abort()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)


class _Protocol(HttpToolsProtocol):
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        self._joined = _JoinedWrites(transport)
        super().connection_made(self._joined)
        self.access_log = False  # uvicorn asks the root logger, which a test runner has filled
        self._extensions = {WIRE: Wire(self._joined)}

    def on_response_complete(self) -> None:
        self._joined.flush()
        super().on_response_complete()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = self._extensions  # type: ignore[typeddict-item]  # not an extension it knows


def bind(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        ConfigurationError: The address cannot be had; the message says why and what to do.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(2048)
        sock.settimeout(0)
    except (OSError, OverflowError) as error:
        sock.close()
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        advice = "choose another with --port, or --port 0 for any that is free"
        if isinstance(error, socket.gaierror) or getattr(error, "errno", None) == errno.EADDRNOTAVAIL:
            advice = "name an address of this machine with --host"
        raise ConfigurationError(f"cannot listen on {host} port {port}: {reason.lower()}; {advice}") from error
    return sock


@contextlib.asynccontextmanager
async def serve_on(sock: socket.socket, app: ASGIApp, *, tls: ssl.SSLContext | None) -> AsyncGenerator[None]:
    """Serve the application on a bound socket for as long as the context is open."""
    config = Config(
        app,
        log_config=None,
        log_level=None,
        lifespan="off",
        ws="none",
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE,
        server_header=False,
    )
    config.load()
    state = ServerState()
    app_state: dict[str, Any] = {}
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Protocol(config, state, app_state), sock=sock, ssl=tls, backlog=2048)
    try:
        yield
    finally:
        with anyio.move_on_after(5 * _GRACE, shield=True):
            server.close()
            await _stop(state)
            await server.wait_closed()


async def _stop(state: ServerState) -> None:
    for connection in list(state.connections):
        connection.shutdown()
    if state.tasks:
        await asyncio.wait(set(state.tasks), timeout=_GRACE)
    # Connections first: uvicorn answers 500 for a task that is cancelled while its client is there.
    for connection in list(state.connections):
        connection.transport.abort()
    while state.connections:  # noqa: ASYNC110 - uvicorn has no event for it, and an abort takes one turn of the loop
        await asyncio.sleep(0)
    tasks = set(state.tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
