"""The outbox in a file does what the one in memory does, whatever is asked of both."""

from __future__ import annotations

import random

import pytest

from connector_async.store import Claim, MemoryStore, MessageState, Outbox, OutboxMessage, Settlement, SqliteStore

pytestmark = pytest.mark.anyio

A = "12345678"


def _facts(claim: Claim | None) -> tuple[object, ...] | None:
    if claim is None:
        return None
    return (
        claim.message,
        claim.owner,
        claim.fence,
        claim.attempts,
        claim.was_begun,
        claim.maybe_duplicate,
        claim.put_at,
    )


def _settlement(chance: random.Random) -> Settlement:
    state = chance.choice([state for state in MessageState if state is not MessageState.BEGUN])
    return Settlement(
        state=state,
        attempts=chance.randrange(5),
        maybe_duplicate=chance.random() < 0.2,
        retry_in=chance.choice([0.0, 0.5, 3.0]),
        holds_lane=state.is_final and chance.random() < 0.3,
    )


async def _step(outbox: Outbox, chance: random.Random, held: dict[str, Claim]) -> object:
    """Ask something; what was answered, without the ids of engines."""
    lane, message_id, owner = chance.choice("abc"), f"m{chance.randrange(60)}", chance.choice(["p", "q"])
    action = chance.choice(
        ["put", "put", "claim", "claim", "advance", "advance", "advance", "renew", "release", "look"]
    )
    if chance.random() < 0.15:
        action = chance.choice(["revive", "discard", "forget"])
    if action == "put":
        message = OutboxMessage(id=message_id, consumer=lane, body=b"{}", request_id=message_id)
        return await outbox.put(A, [message])
    if action == "claim":
        lease = chance.choice([1.0, 5.0])
        claims = await outbox.claim(A, owner=owner, lease=lease, limit=chance.randrange(1, 4))
        held.update({claim.message.consumer + owner: claim for claim in claims})
        return [_facts(claim) for claim in claims]
    if action == "advance":
        mine = [claim for claim in held.values() if claim.owner == owner]
        answers = await outbox.advance(A, [(claim, _settlement(chance)) for claim in mine], lease=5.0)
        for claim, answer in zip(mine, answers, strict=True):
            del held[claim.message.consumer + owner]
            if answer.next is not None:
                held[claim.message.consumer + owner] = answer.next
        return [(answer.is_settled, _facts(answer.next)) for answer in answers]
    if action == "renew":
        return await outbox.renew(A, owner=owner, lease=5.0)
    if action == "release":
        return await outbox.release(A, [held.pop(lane + owner)] if lane + owner in held else [])
    if action == "revive":
        return await outbox.revive(A, message_id)
    if action == "discard":
        return await outbox.discard(A, message_id)
    if action == "forget":
        await outbox.forget(A, lane)
    return await outbox.find(A, message_id)


@pytest.mark.parametrize("seed", range(8))
async def test_both_answer_alike(seed: int) -> None:
    """Two pumps, three lanes, leases that end, messages that are revived, discarded and forgotten."""
    now = 1000.0
    memory = MemoryStore(max_entries=25, max_dead=4, wall=lambda: now)
    file = SqliteStore(":memory:", max_entries=25, max_waiting=25, max_dead=4, wall=lambda: now)
    outboxes: tuple[Outbox, Outbox] = memory.outbox, file.outbox
    chances = random.Random(seed), random.Random(seed)
    held: tuple[dict[str, Claim], dict[str, Claim]] = {}, {}
    for _ in range(250):
        now += chances[0].choice([0.0, 0.0, 1.0, 4.0])
        chances[1].choice([0.0, 0.0, 1.0, 4.0])
        answers = [
            await _step(outbox, chance, mine) for outbox, chance, mine in zip(outboxes, chances, held, strict=True)
        ]
        assert answers[0] == answers[1]
        assert await memory.outbox.counts(A) == await file.outbox.counts(A)
        assert await memory.outbox.next_due(A) == await file.outbox.next_due(A)
        listed = [[entry for _, entry in await outbox.exceptions(A)] for outbox in outboxes]
        assert listed[0] == listed[1]
    await file.aclose()
