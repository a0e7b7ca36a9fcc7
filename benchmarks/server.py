"""The cloud of the benchmarks: as much of the API as a session needs, as little work per message as possible.

Runs in a process of its own (`python -m benchmarks.server`) on a bare asyncio protocol, on uvloop where it is
installed. It knows nothing of the client's classes. `POST /control` changes its behaviour and returns its counters.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import gc
import hashlib
import resource
import signal
import ssl
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson

from benchmarks.machine import loop_factory, pin

_SEND = b"/messaging/consumer/conversation/send"
_BACKLOG = 4096
# Real answers carry some headers; these are about as long as the cloud's.
_HEAD = "Content-Type: application/json\r\nServer: bench\r\nX-Request-Time: 3\r\n"
_OK = f"HTTP/1.1 200 OK\r\n{_HEAD}Content-Length: ".encode()
_EXPIRED = orjson.dumps(
    {
        "kind": "resp",
        "code": 401,
        "type": ".ReqBody$ErrorResp",
        "body": {"title": "Invalid AppJWT", "details": "AppJWT has expired or is invalid", "errorCode": 40102},
    }
)


def token(claims: dict[str, object], *, kid: str = "appjwt-bench") -> str:
    """A JWT as long as a real one; its signature is noise, for the client cannot check it either."""
    parts = orjson.dumps({"kid": kid, "typ": "JWT", "alg": "RS256"}), orjson.dumps(claims), b"\xa5" * 256
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


def reply(status: int, payload: object) -> bytes:
    """A whole HTTP answer with a JSON body."""
    body = payload if isinstance(payload, bytes) else orjson.dumps(payload)
    return f"HTTP/1.1 {status} -\r\n{_HEAD}Content-Length: {len(body)}\r\n\r\n".encode() + body


class Cloud:
    """The state behind every connection."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, latency: float, token_lifetime: float) -> None:
        self.loop = loop
        self.base = ""
        self.latency = latency
        self.token_delay = 0.0
        self.token_lifetime = token_lifetime
        self.holding = False
        self.sends = self.refused = self.tokens = self.consumers = self.conversations = self.connections = 0
        self._issued = 0
        self._revoked: set[bytes] = set()
        self._live: list[bytes] = []
        self._due: deque[tuple[float, asyncio.Transport, bytes]] = deque()

    def answer(self, transport: asyncio.Transport, data: bytes, head: int, end: int) -> None:
        """Answer the request whose head ends at `head` and whose body ends at `end`."""
        if data.find(_SEND, 0, 200) >= 0:
            self.sends += 1
            if self._revoked and self._is_revoked(data, head):
                self.refused += 1
                transport.write(reply(401, _EXPIRED))
                return
            request_id = orjson.dumps(orjson.loads(data[head + 4 : end])["id"])
            body = b'{"code":"OK","body":{"sequence":0},"reqId":%b}' % request_id
            self._write(transport, b"%b%d\r\n\r\n%b" % (_OK, len(body), body))
            return
        method, path, _ = data[: data.index(b"\r\n")].decode().split(" ", 2)
        self._rare(transport, method, path, data[head + 4 : end])

    def _write(self, transport: asyncio.Transport, answer: bytes) -> None:
        if not self.latency and not self.holding:
            transport.write(answer)
            return
        if not self._due and not self.holding:
            self.loop.call_later(self.latency, self._flush)
        self._due.append((self.loop.time() + self.latency, transport, answer))

    def _flush(self) -> None:
        # One timer for all: a heap of thousands of them would make the server the slowest part.
        now = self.loop.time()
        while self._due and self._due[0][0] <= now:
            _, transport, answer = self._due.popleft()
            transport.write(answer)
        if self._due and not self.holding:
            self.loop.call_at(self._due[0][0], self._flush)

    def _is_revoked(self, data: bytes, head: int) -> bool:
        start = data.find(b"uthorization: ", 0, head) + len(b"uthorization: ")
        return data[start : data.find(b"\r\n", start)] in self._revoked

    def _rare(self, transport: asyncio.Transport, method: str, path: str, body: bytes) -> None:
        if path == "/control":
            transport.write(reply(200, self.control(**orjson.loads(body or b"{}"))))
        elif "/app/token" in path:
            self.tokens += 1
            issued = reply(200, {"access_token": self._app_token(), "token_type": "Bearer"})
            if self.token_delay:
                self.loop.call_later(self.token_delay, transport.write, issued)
            else:
                transport.write(issued)
        elif "/baseURI" in path:
            transport.write(reply(200, self._domains(path)))
        elif method == "POST" and "/messaging/consumer/conversation" in path:
            self.conversations += 1
            self._write(transport, reply(200, self._opened(orjson.loads(body))))
        elif method == "POST" and "/consumer" in path:
            self.consumers += 1
            transport.write(reply(201, {"token": self._consumer_token(orjson.loads(body)["ext_consumer_id"])}))
        else:
            transport.write(reply(404, {"message": "no such path"}))

    def _app_token(self) -> str:
        self._issued += 1
        now = int(time.time())
        # Whole seconds would round a short lifetime to nothing; `exp` may be a fraction (RFC 7519, NumericDate).
        claims = {"aud": "12345678", "azp": "bench", "scope": "msg.consumer", "iss": "Sentinel", "iat": now}
        issued = token({**claims, "exp": now + self.token_lifetime, "jti": str(self._issued)})
        self._live.append(issued.encode())
        return issued

    @staticmethod
    def _consumer_token(ext_consumer_id: str) -> str:
        lp_consumer_id = hashlib.sha256(ext_consumer_id.encode()).hexdigest()
        claims: dict[str, object] = {"account_id": "12345678", "ext_consumer_id": ext_consumer_id}
        return token({**claims, "lp_consumer_id": lp_consumer_id}, kid="consumer-bench")

    def _domains(self, path: str) -> dict[str, object]:
        services = ("sentinel", "idp", "asyncMessagingEnt", "swift")
        entries = [{"service": name, "account": "12345678", "baseURI": self.base} for name in services]
        return {"baseURIs": [entry for entry in entries if f"/service/{entry['service']}/" in path] or entries}

    def _opened(self, requests: list[dict[str, Any]]) -> list[dict[str, object]]:
        answers: list[dict[str, object]] = []
        for request in requests:
            body: dict[str, object] = {"msg": "ok"}
            if request["type"] == "cm.ConsumerRequestConversation":
                body = {"conversationId": f"c0000000-0000-4000-8000-{self.conversations:012d}"}
            answers.append({"reqId": request["id"], "code": "OK", "body": body})
        return answers

    def control(
        self,
        *,
        latency: float | None = None,
        token_delay: float | None = None,
        token_lifetime: float | None = None,
        revoke: bool = False,
        hold: bool | None = None,
    ) -> dict[str, float]:
        """Change what is given and report the counters and the CPU time so far."""
        self.latency = self.latency if latency is None else latency
        self.token_delay = self.token_delay if token_delay is None else token_delay
        self.token_lifetime = self.token_lifetime if token_lifetime is None else token_lifetime
        if revoke:
            self._revoked.update(self._live)
            self._live.clear()
        if hold is not None:
            self.holding = hold
            self._flush()
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return {
            "cpu": usage.ru_utime + usage.ru_stime,
            "sends": self.sends,
            "refused": self.refused,
            "tokens": self.tokens,
            "consumers": self.consumers,
            "conversations": self.conversations,
            "connections": self.connections,
            "held": len(self._due),
        }


class Connection(asyncio.Protocol):
    """One client connection: cuts requests out of the stream by hand, pipelined or in pieces."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._pending = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where to write."""
        self._transport = transport  # type: ignore[assignment]  # asyncio gives stream protocols a Transport
        self._cloud.connections += 1

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 -- asyncio's interface
        """Count it out."""
        self._cloud.connections -= 1

    def data_received(self, data: bytes) -> None:
        """Answer every whole request that is there."""
        if self._pending:
            data = self._pending + data
        while data:
            head = data.find(b"\r\n\r\n")
            if head < 0:
                break
            # "Content-Length: " in whatever case; a token or a path has no "ength: " with a blank.
            at = data.find(b"ength: ", 0, head)
            end = head + 4 + (int(data[at + 7 : data.find(b"\r\n", at)]) if at > 0 else 0)
            if len(data) < end:
                break
            self._cloud.answer(self._transport, data, head, end)
            data = data[end:]
        self._pending = data


@contextlib.contextmanager
def certificate() -> Iterator[tuple[ssl.SSLContext, str]]:
    """A server context for loopback and the file of the throw-away CA behind it."""
    import trustme

    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder:
        ca_file = Path(folder) / "ca.pem"
        authority.cert_pem.write_to_path(str(ca_file))
        yield context, str(ca_file)


async def serve(options: argparse.Namespace, announce: Callable[[dict[str, str]], None]) -> None:
    """Listen until SIGTERM or until stdin ends, whichever comes first."""
    loop = asyncio.get_running_loop()
    cloud = Cloud(loop, latency=options.latency, token_lifetime=options.token_lifetime)
    done = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, done.set)
    # The parent holds the other end of stdin: if it dies, however it dies, so do we.
    loop.add_reader(sys.stdin.fileno(), done.set)
    with contextlib.ExitStack() as stack:
        context, ca_file = stack.enter_context(certificate()) if options.tls else (None, "")
        plain = await loop.create_server(lambda: Connection(cloud), "127.0.0.1", 0, backlog=_BACKLOG)
        secure = await loop.create_server(lambda: Connection(cloud), "127.0.0.1", 0, backlog=_BACKLOG, ssl=context)
        control = f"http://127.0.0.1:{plain.sockets[0].getsockname()[1]}"
        cloud.base = f"https://127.0.0.1:{secure.sockets[0].getsockname()[1]}" if context else control
        announce({"control": control, "base": cloud.base, "ca_file": ca_file})
        gc.freeze()
        await done.wait()
        for server in (plain, secure):
            server.close()


def main() -> None:
    """Serve; print one JSON line when ready."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before a message is answered")
    parser.add_argument("--token-lifetime", type=float, default=3600.0, help="seconds")
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--core", type=int, default=None, help="the CPU to run on")
    options = parser.parse_args()
    pin(options.core)
    with asyncio.Runner(loop_factory=loop_factory("uvloop", fallback=True)) as runner:
        runner.run(serve(options, lambda ready: print(orjson.dumps(ready).decode(), flush=True)))


if __name__ == "__main__":
    main()
