"""A pump whose process kills itself at a named point: `python -m tests.pump.crashing`, settings as JSON on stdin."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio

from connector_async import AppCredentials, ConnectorSession
from connector_async.pump import Pump, PumpMessage
from connector_async.store import PostgresStore, SqliteStore
from connector_async.store.outbox import Advance, Claim, OutboxMessage, PutResult, Settlement

__all__ = ["POINTS", "main"]

POINTS = ("after put", "after claim", "before mark", "after mark")


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


def _store(url: str) -> Any:
    return SqliteStore(Path(url.removeprefix("sqlite:///"))) if url.startswith("sqlite") else PostgresStore(url)


async def _pump(asked: dict[str, Any]) -> None:
    store = _store(asked["outbox"])
    session = ConnectorSession(
        asked["account_id"],
        AppCredentials(asked["client_id"], asked["client_secret"]),
        domains=asked["domain_api"],
        store=store,
    )
    told: dict[str, list[Any]] = {}

    def on_settled(claim: Claim, settlement: Settlement) -> None:
        told[claim.message.id] = [settlement.state.value, settlement.attempts, settlement.maybe_duplicate]

    outbox: Any = CrashingOutbox(store.outbox, asked["point"])
    async with session, Pump(session, outbox, lease=0.5, on_settled=on_settled) as pump:
        results = await pump.put(*(PumpMessage(one["id"], one["consumer"], one["id"]) for one in asked["messages"]))
        await pump.drained()
    await store.aclose()
    print(json.dumps({"put": [result.value for result in results], "told": told}))


def main() -> None:
    """Pump until done, or until the point is reached."""
    anyio.run(_pump, json.loads(sys.stdin.readline()))


if __name__ == "__main__":
    main()
