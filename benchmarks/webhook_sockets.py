"""Both endpoints behind one uvicorn in this process, and a client in another that keeps its connections."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

from benchmarks.webhook_endpoints import bare_endpoint, delivery, ours

__all__ = ["measure_on_sockets"]


async def measure_on_sockets(
    rounds: int, messages: int, conversations: int, connections: int
) -> list[dict[str, Any]]:
    """The serving process's CPU for one notification, in us, and the seconds of each round at the client."""
    from starlette.applications import Starlette
    from starlette.routing import Route

    rows: list[dict[str, Any]] = []
    async with ours(conversations) as subject:
        routes = [Route("/bare", bare_endpoint, methods=["POST"])]
        app = Starlette(routes=routes)
        app.add_route("/ours", subject.app, methods=["POST"])  # type: ignore[arg-type]  # an ASGI app, at run time
        async with _served(app) as port, _client(port, messages, conversations, connections) as client:
            for turn in range(rounds + 1):
                row: dict[str, Any] = {"place": "uvicorn, sockets"}
                for name in ("bare", "ours"):
                    if name == "ours":
                        subject.expect(messages)
                    before = time.process_time()
                    row[f"{name}_seconds"] = await _have_sent(client, f"/{name} {turn * messages}")
                    if name == "ours":
                        await subject.all_handled()
                    row[name] = (time.process_time() - before) * 1e6 / messages
                rows.append(row)
    return rows[1:]  # the first round warms up


@contextlib.asynccontextmanager
async def _served(app: Any) -> AsyncIterator[int]:
    import uvicorn

    config = uvicorn.Config(app, port=0, lifespan="off", log_config=None, access_log=False, http="httptools")
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign, assignment]  # those of the benchmark stay
    async with asyncio.TaskGroup() as group:
        group.create_task(server.serve())
        while not server.started:  # noqa: ASYNC110 - uvicorn tells nobody
            await asyncio.sleep(0.01)
        try:
            yield server.servers[0].sockets[0].getsockname()[1]
        finally:
            server.should_exit = True


@contextlib.asynccontextmanager
async def _client(port: int, messages: int, conversations: int, connections: int) -> AsyncIterator[Any]:
    sizes = map(str, (port, messages, conversations, connections))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "benchmarks.webhook_sockets",
        *sizes,
        cwd=Path(__file__).parents[1],
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.stdin is not None:
            process.stdin.close()
        await process.wait()


async def _have_sent(client: Any, what: str) -> float:
    """Seconds that the client took for a round."""
    assert (await client.stdout.readline()) == b"ready\n"
    client.stdin.write(f"{what}\n".encode())
    line = await client.stdout.readline()
    if not line:
        raise RuntimeError("the client of the webhooks gave up: see above")
    return float(line)


# The client's process


async def _send_rounds(port: int, messages: int, conversations: int, connections: int) -> None:
    loop = asyncio.get_running_loop()
    senders = [(await loop.create_connection(_Sender, "127.0.0.1", port))[1] for _ in range(connections)]
    while True:
        print("ready", flush=True)
        line = await asyncio.to_thread(sys.stdin.readline)
        if not line:
            break
        path, first = line.split()
        # A conversation stays on its connection, so that its events come in order.
        lots = [
            [
                _wire(path, number + int(first), conversations)
                for number in range(messages)
                if number % connections == at
            ]
            for at in range(connections)
        ]
        started = time.perf_counter()
        await asyncio.gather(*[sender.send(lot) for sender, lot in zip(senders, lots, strict=True)])
        print(time.perf_counter() - started, flush=True)
    for sender in senders:
        sender.transport.close()


class _Sender(asyncio.Protocol):
    """One connection; so lean that the server is what is waited for."""

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._answer = b""

    def send(self, requests: list[bytes]) -> asyncio.Future[None]:
        """Send one after the other; done when all are answered with 200."""
        self._left = iter(requests)
        self._done = asyncio.get_running_loop().create_future()
        self._send_next()
        return self._done

    def data_received(self, data: bytes) -> None:
        self._answer += data
        if not self._answer.endswith(b"\r\n\r\n"):  # neither endpoint answers with a body
            return
        if self._answer.startswith(b"HTTP/1.1 200 "):
            self._answer = b""
            self._send_next()
        else:
            self._done.set_exception(RuntimeError(f"not every delivery was taken: {self._answer[:12]!r}"))

    def _send_next(self) -> None:
        request = next(self._left, None)
        if request is None:
            self._done.set_result(None)
        else:
            self.transport.write(request)


def _wire(path: str, number: int, conversations: int) -> bytes:
    headers, body = delivery(number, conversations)
    lines = [f"POST {path} HTTP/1.1".encode(), *(name + b": " + value for name, value in headers), b"", body]
    return b"\r\n".join(lines)


def _main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("port", "messages", "conversations", "connections"):
        parser.add_argument(name, type=int)
    given = parser.parse_args()
    asyncio.run(_send_rounds(given.port, given.messages, given.conversations, given.connections))


if __name__ == "__main__":
    _main()
