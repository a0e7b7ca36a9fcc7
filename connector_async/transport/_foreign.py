"""How far an exchange over somebody else's transport has come, and what its errors mean in our words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anyio
import httpx

from connector_async.errors import ConnectorError, Phase, RemoteProtocolError, TLSError, TransportError
from connector_async.transport._tls import is_refusal, reason_of
from connector_async.transport.base import Answer, Target

__all__ = ["Exchange", "tls_reason", "translated"]

_TLS_FAILED = "TLS failed: "

_PHASES: tuple[tuple[type[Exception], Phase], ...] = (
    (httpx.PoolTimeout, Phase.POOL),
    (httpx.ConnectTimeout, Phase.CONNECT),
    (httpx.ConnectError, Phase.CONNECT),
    (httpx.ProxyError, Phase.CONNECT),
    (httpx.UnsupportedProtocol, Phase.CONNECT),
    (httpx.WriteTimeout, Phase.WRITE),
    (httpx.WriteError, Phase.WRITE),
)


class Exchange:
    """One exchange: the task's scope, what became of it, and how far it had come."""

    __slots__ = ("answer", "answered", "connected", "done", "error", "queued", "scope", "target", "trusted", "wrote")

    def __init__(self, target: Target, *, trusted: bool) -> None:
        self.target = target
        self.scope = anyio.CancelScope()
        self.done = anyio.Event()
        self.answer: Answer | None = None
        self.error: ConnectorError | None = None
        # Whether what the transport says about "not sent" can be believed.
        self.trusted = trusted
        self.queued = True
        self.connected = self.wrote = self.answered = False

    async def trace(self, event: str, info: dict[str, Any]) -> None:
        """httpcore's own account of what it does: the only one that tells for certain whether a byte was written."""
        self.trusted = True
        if event.endswith("connect_tcp.started"):
            self.connected = True
        elif event.endswith("send_request_headers.started"):
            # What a proxy is asked before it passes anything on is told in the same words, and so is its answer.
            self.wrote = getattr(info.get("request"), "method", b"") != b"CONNECT"
        elif event.endswith("receive_response_headers.complete"):
            self.answered = self.wrote

    def failure(self, message: str, phase: Phase | None = None, *, timed_out: bool = False) -> TransportError:
        """A TransportError with what is known."""
        sent = not self.queued and (self.wrote or not self.trusted)
        if self.queued:
            phase = Phase.POOL
        elif phase is None:
            phase = Phase.READ if self.answered else Phase.WAIT if sent else Phase.CONNECT
        return TransportError(
            message,
            phase=phase,
            sent=sent,
            reused=self.wrote and not self.connected,
            answered=self.answered,
            timed_out=timed_out,
        )


def translated(error: Exception, exchange: Exchange) -> ConnectorError:
    result = _as_ours(error, exchange)
    result.__cause__ = error
    return result


def _as_ours(error: Exception, exchange: Exchange) -> ConnectorError:
    # Neither type names nor messages of foreign errors are shown beyond the type: they may quote a header.
    name = type(error).__name__
    known = getattr(error, "phase", None)
    if isinstance(known, Phase):  # our own pooled transport beneath: it knows for certain
        exchange.trusted = True
        exchange.wrote = exchange.wrote or bool(getattr(error, "sent", True))
        exchange.answered = exchange.answered or bool(getattr(error, "answered", False))
    tls = tls_reason(error)
    if tls is not None and not exchange.answered:
        sent = exchange.wrote or not (exchange.trusted or isinstance(error, httpx.ConnectError))
        return TLSError(f"{_TLS_FAILED}{tls}", phase=Phase.TLS, sent=sent, retryable=False)
    refused = next((cause for cause in _causes(error) if isinstance(cause, RemoteProtocolError)), None)
    if refused is not None:
        return type(refused)(str(refused))
    if isinstance(error, httpx.RemoteProtocolError) and not _is_early_end(error):
        return RemoteProtocolError(f"the answer is not valid HTTP ({name})")
    phase = known if isinstance(known, Phase) else None
    if phase is None and exchange.trusted:
        phase = next((phase for kind, phase in _PHASES if isinstance(error, kind)), None)
    # Never `timed_out`: the deadline is ours, and some transports call everything a timeout.
    return exchange.failure(f"the exchange failed ({name}{_detail(error)})", phase)


def _detail(error: Exception) -> str:
    """What helps, and cannot quote a header: the status that a proxy answers with, the system's own error."""
    if isinstance(error, httpx.ProxyError) and (status := str(error)[:3]).isdecimal():
        return f": the proxy answers {status}"
    if isinstance(error, httpx.ConnectError):
        system = [cause for cause in _causes(error) if isinstance(cause, OSError) and cause.errno]
        return f": {system[-1]}" if system else ""
    return ""


def _is_early_end(error: Exception) -> bool:
    """httpx tells an answer that is cut short only by its words from one that breaks the rules."""
    if isinstance(error.__cause__, TransportError):
        return True
    text = str(error)
    return "disconnected" in text or "without sending complete message body" in text or "peer closed" in text


def tls_reason(error: BaseException) -> str | None:
    """Why a TLS handshake failed, if that is what lies beneath an error."""
    for cause in _causes(error):
        if isinstance(cause, TLSError):
            return str(cause).removeprefix(_TLS_FAILED)
        if is_refusal(cause):
            return reason_of(cause)
    # What is not built on OpenSSL has only words for it.
    if isinstance(error, httpx.ConnectError) and any("certificate" in repr(cause) for cause in _causes(error)):
        return "certificate refused"
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__
