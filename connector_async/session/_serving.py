"""The webhook app on a server of its own, for bots."""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import anyio

from connector_async.errors import ConfigurationError

__all__ = ["serve_app"]

_STOP_WITHIN = 3  # seconds that deliveries under way have, when the block is left
_LAST_PORT = 65_535


@asynccontextmanager
async def serve_app(app: Any, *, host: str, port: int, path: str) -> AsyncGenerator[str]:
    """Serve an ASGI app at one path while the block runs; yields its URL.

    Raises:
        ConfigurationError: uvicorn is not installed, the port cannot be had, or the path is none.
    """
    if not path.startswith("/"):
        raise ConfigurationError(f"path must begin with a slash, got {path!r}")
    try:
        import uvicorn
    except ImportError as error:
        raise ConfigurationError("serving webhooks needs uvicorn: pip install 'connector-async[sandbox]'") from error

    class Server(uvicorn.Server):
        """Leaves signals to the program around it."""

        @contextmanager
        def capture_signals(self) -> Generator[None]:
            yield

    listener = _listen(host, port)
    actual = listener.getsockname()[1]
    config = uvicorn.Config(
        _at(path, app),
        lifespan="off",
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=_STOP_WITHIN,
    )
    server = Server(config)
    failure: BaseException | None = None
    try:
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(server.serve, [listener])
            try:
                # Connections wait in the listener's backlog until the server has started.
                shown = f"[{host}]" if ":" in host else host
                yield f"http://{shown}:{actual}{path}"
            except BaseException as error:  # noqa: BLE001 - raised again below, outside the task group
                failure = error
            server.should_exit = True
        if failure is not None:
            raise failure
    finally:
        listener.close()


def _listen(host: str, port: int) -> socket.socket:
    if port not in range(_LAST_PORT + 1) or port is True:
        raise ConfigurationError(
            f"port must be a number from 0 to {_LAST_PORT}, 0 for any that is free; got {port!r}"
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise ConfigurationError(
            f"cannot listen on {host}:{port} ({error.strerror or error}); choose another port, or 0 for any"
        ) from error
    return listener


def _at(path: str, app: Any) -> Any:
    """The app at one exact path; anything else is 404. A redirect would count as a failed delivery."""

    async def routed(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"] != path:
            await send({"type": "http.response.start", "status": 404, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body", "body": b""})
            return
        await app(scope, receive, send)

    return routed
