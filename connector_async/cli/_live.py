"""One polite conversation with the real cloud: opened, one sentence, closed."""

from __future__ import annotations

import argparse
import secrets
import time
from typing import Any

import anyio
import attrs

from connector_async.cli._console import CommandFailed, emit, print_table, quiet_log, tell
from connector_async.errors import RequestError
from connector_async.session import ConnectorSession

__all__ = ["run_live"]

_SENTENCE = "Hello! This is a test of connector_async; no answer is needed. The conversation closes now."


@attrs.frozen(kw_only=True)
class _Visit:
    """What the cloud said."""

    conversation_id: str
    request_id: str
    attempts: int
    sequence: int | None
    seconds: float
    tokens_fetched: int

    def as_json(self) -> dict[str, Any]:
        milliseconds = round(self.seconds * 1000, 3)
        return {
            "consumers": 1,
            "messages_sent": 1,
            "messages_accepted": 1,
            "errors": 0,
            "tokens_fetched": self.tokens_fetched,
            "seconds": round(self.seconds, 3),
            "messages_per_second": round(1 / self.seconds, 1) if self.seconds else 0.0,
            "p50_ms": milliseconds,
            "p99_ms": milliseconds,
            "conversation_id": self.conversation_id,
            "request_id": self.request_id,
            "attempts": self.attempts,
            "sequence": self.sequence,
        }

    def print(self) -> None:
        rows = [
            ("conversation", self.conversation_id),
            ("request", self.request_id),
            ("attempts", str(self.attempts)),
            ("server's sequence", str(self.sequence)),
            ("time", f"{self.seconds * 1000:.0f} ms"),
        ]
        print_table("accepted by the cloud", rows)


def run_live(arguments: argparse.Namespace) -> int:
    """Hold the conversation with the account that the `LP_` variables name.

    Raises:
        ConfigurationError: A variable is missing.
        CommandFailed: The cloud did not accept something; the message is its error.
    """
    session = ConnectorSession.from_env()
    with quiet_log():
        visit = anyio.run(_visit, session, arguments.skill_id)
    if arguments.json:
        emit(visit.as_json())
    else:
        visit.print()
    return 0


async def _visit(session: ConnectorSession, skill_id: str | None) -> _Visit:
    try:
        async with session:
            tell(f"opening a conversation of account {session.account_id}")
            # A consumer of its own, so that nobody's open conversation is in the way.
            consumer = session.consumer(f"connector-async-demo-{secrets.token_hex(8)}")
            conversation = await consumer.open_conversation(skill_id=skill_id)
            try:
                started = time.perf_counter()
                result = await conversation.send_text(_SENTENCE)
                elapsed = time.perf_counter() - started
            finally:
                # Also after a failed send: an agent must not be left waiting for a consumer who does not exist.
                await conversation.close()
            tell("closed it")
    except RequestError as error:
        raise CommandFailed(str(error)) from error
    return _Visit(
        conversation_id=conversation.conversation_id,
        request_id=result.request_id,
        attempts=len(result.attempts),
        sequence=result.sequence,
        seconds=elapsed,
        tokens_fetched=session.stats().tokens_fetched,
    )
