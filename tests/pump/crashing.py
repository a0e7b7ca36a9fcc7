"""A pump whose process kills itself at a named point: `python -m tests.pump.crashing`, settings as JSON on stdin.

With `listen` it is no pump, but the process that webhooks come to: until its standard input ends.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from connector_async import AppCredentials, ConnectorSession
from connector_async.pump import Pump, PumpMessage, PumpPolicy
from connector_async.store import ConversationRecord, PostgresStore, SqliteStore
from connector_async.store.outbox import Advance, Claim, OutboxMessage, PutResult, Settlement

__all__ = ["OPENING", "POINTS", "main"]

POINTS = ("after put", "after claim", "before mark", "after mark")
OPENING = "after opening"


class CrashingOutbox:
    """The outbox of a store; kills the process at its point."""

    def __init__(self, outbox: Any, point: str | None) -> None:
        self._outbox = outbox
        self._point = point

    def __getattr__(self, name: str) -> Any:
        return getattr(self._outbox, name)

    def _crash(self, point: str) -> None:
        if point == self._point:
            os.kill(os.getpid(), signal.SIGKILL)

    async def put(self, account_id: str, messages: Sequence[OutboxMessage]) -> list[PutResult]:
        results: list[PutResult] = await self._outbox.put(account_id, messages)
        self._crash("after put")
        return results

    async def claim(self, account_id: str, **options: Any) -> list[Claim]:
        claims: list[Claim] = await self._outbox.claim(account_id, **options)
        if claims:
            self._crash("after claim")
        return claims

    async def advance(
        self, account_id: str, settlements: Sequence[tuple[Claim, Settlement]], *, lease: float
    ) -> list[Advance]:
        self._crash("before mark")
        advances: list[Advance] = await self._outbox.advance(account_id, settlements, lease=lease)
        self._crash("after mark")
        return advances


class CrashingStore(SqliteStore):
    """Kills the process when the cloud has opened a conversation, before its id is written down."""

    async def put_conversation(self, record: ConversationRecord) -> None:
        """Never returns."""
        os.kill(os.getpid(), signal.SIGKILL)


class CrashingPostgresStore(PostgresStore):
    """The same."""

    async def put_conversation(self, record: ConversationRecord) -> None:
        """Never returns."""
        os.kill(os.getpid(), signal.SIGKILL)


def _store(url: str, point: str | None) -> SqliteStore | PostgresStore:
    is_doomed = point == OPENING
    if url.startswith("sqlite"):
        return (CrashingStore if is_doomed else SqliteStore)(Path(url.removeprefix("sqlite:///")))
    return (CrashingPostgresStore if is_doomed else PostgresStore)(url)


def _session(asked: dict[str, Any], store: SqliteStore | PostgresStore) -> ConnectorSession:
    return ConnectorSession(
        asked["account_id"],
        AppCredentials(asked["client_id"], asked["client_secret"]),
        domains=asked["domain_api"],
        store=store,
    )


async def _listen(asked: dict[str, Any]) -> None:
    store = _store(asked["outbox"], None)
    session = _session(asked, store)
    async with session, session.serve(port=0) as url:
        print(url, flush=True)
        await anyio.to_thread.run_sync(sys.stdin.read)
    await store.aclose()


async def _pump(asked: dict[str, Any]) -> None:
    store = _store(asked["outbox"], asked["point"])
    session = _session(asked, store)
    told: dict[str, list[Any]] = {}
    reasons: dict[str, str | None] = {}

    def on_settled(claim: Claim, settlement: Settlement) -> None:
        told[claim.message.id] = [settlement.state.value, settlement.attempts, settlement.maybe_duplicate]
        reasons[claim.message.id] = settlement.reason

    outbox: Any = CrashingOutbox(store.outbox, asked["point"])
    policy = PumpPolicy(**asked.get("policy", {}))
    async with (
        session,
        Pump(session, outbox, policy=policy, lease=asked.get("lease", 3.0), on_settled=on_settled) as pump,
    ):
        for message_id in asked.get("revive", ()):
            assert await store.outbox.revive(asked["account_id"], message_id)
        results = await pump.put(*(PumpMessage(one["id"], one["consumer"], one["id"]) for one in asked["messages"]))
        await pump.drained()
    await store.aclose()
    print(json.dumps({"put": [result.value for result in results], "told": told, "reasons": reasons}))


def main() -> None:
    """Pump until done, or until the point is reached; or listen."""
    asked = json.loads(sys.stdin.readline())
    anyio.run(_listen if asked.get("listen") else _pump, asked)


if __name__ == "__main__":
    main()
