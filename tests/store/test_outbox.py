"""What every outbox does, whichever engine keeps it. No clock is turned: a lease of no seconds is over at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from connector_async.store import MemoryStore, PostgresStore, SqliteStore, Store
from connector_async.store.outbox import (
    Claim,
    MessageState,
    Outbox,
    OutboxCounts,
    OutboxMessage,
    OutboxStore,
    PutResult,
    Settlement,
)
from tests.guards import CANARY

pytestmark = pytest.mark.anyio

A, B = "12345678", "87654321"
ACCEPTED = Settlement(state=MessageState.ACCEPTED, attempts=1, sequence=7, conversation_id="c-1")
REFUSED = Settlement(state=MessageState.REFUSED, attempts=1, reason="it is too long")
HELD = Settlement(state=MessageState.REFUSED, attempts=1, reason="it is too long", holds_lane=True)
ADDED, KNOWN, FULL = PutResult.ADDED, PutResult.KNOWN, PutResult.FULL


def message(message_id: str, consumer: str = "anna") -> OutboxMessage:
    body = f"{CANARY} of {message_id}".encode()
    return OutboxMessage(id=message_id, consumer=consumer, body=body, request_id=f"r-{message_id}", opening=b"{}")


async def put(outbox: Outbox, *ids: str, consumer: str = "anna", account: str = A) -> list[PutResult]:
    return await outbox.put(account, [message(one, consumer) for one in ids])


async def claim(outbox: Outbox, owner: str = "me", lease: float = 60.0, limit: int = 10) -> list[Claim]:
    return await outbox.claim(A, owner=owner, lease=lease, limit=limit)


async def claim_one(outbox: Outbox, owner: str = "me", lease: float = 60.0) -> Claim:
    (only,) = await claim(outbox, owner, lease)
    return only


async def settle(outbox: Outbox, claimed: Claim, settlement: Settlement = ACCEPTED) -> Claim | None:
    (answer,) = await outbox.advance(A, [(claimed, settlement)], lease=60.0)
    assert answer.is_settled
    return answer.next


def ids(claims: list[Claim]) -> list[str]:
    return [one.message.id for one in claims]


async def exceptions(outbox: Outbox, after: int = 0) -> list[str]:
    return [entry.message.id for _, entry in await outbox.exceptions(A, after=after)]


@pytest.fixture
def outbox(store: Store) -> Outbox:
    """The outbox of a store of each engine: 100 messages wait or are remembered, 3 are kept aside."""
    assert isinstance(store, OutboxStore)
    assert store.outbox.durable is store.durable
    return store.outbox


async def test_a_message_is_claimed_as_it_was_put(outbox: Outbox) -> None:
    """Nothing of it is lost on the way."""
    assert await put(outbox, "m1") == [ADDED]
    claimed = await claim_one(outbox)
    assert claimed.message == message("m1")
    assert (claimed.account_id, claimed.owner, claimed.attempts) == (A, "me", 0)
    assert not claimed.was_begun
    assert not claimed.maybe_duplicate
    assert claimed.put_at > 0
    assert CANARY not in repr(claimed)


async def test_a_lane_goes_in_the_order_of_putting(outbox: Outbox) -> None:
    """Also within one call, and also for messages put while the lane is under way."""
    await put(outbox, "m3", "m1")
    await put(outbox, "m2")
    head: Claim | None = await claim_one(outbox)
    await put(outbox, "m0")
    order: list[str] = []
    while head is not None:
        order.append(head.message.id)
        head = await settle(outbox, head)
    assert order == ["m3", "m1", "m2", "m0"]


async def test_an_id_is_kept_once(outbox: Outbox) -> None:
    """Of two puts, in one call or later, settled or not; another account's ids are its own."""
    assert await put(outbox, "m1", "m1", "m2") == [ADDED, KNOWN, ADDED]
    await settle(outbox, await claim_one(outbox))
    assert await put(outbox, "m1", consumer="bert") == [KNOWN]
    assert await put(outbox, "m1", account=B) == [ADDED]
    assert (await outbox.counts(A)).accepted == 1
    assert await outbox.find(A, "m9") is None
    assert await outbox.put(A, []) == []


async def test_a_full_outbox_takes_no_more_until_something_is_settled(outbox: Outbox) -> None:
    """Those that are known are told so all the same; accounts have room of their own."""
    assert await put(outbox, *(f"m{number}" for number in range(99))) == [ADDED] * 99
    assert await put(outbox, "m99", "m100", "m5") == [ADDED, FULL, KNOWN]
    assert await put(outbox, "m100", account=B) == [ADDED]
    assert await outbox.find(A, "m100") is None
    await settle(outbox, await claim_one(outbox))
    assert await put(outbox, "m100", "m101") == [ADDED, FULL]


async def test_only_free_lanes_are_claimed_and_each_by_one(outbox: Outbox) -> None:
    """Up to the limit, longest due first."""
    for consumer in ("a", "b", "c"):
        await put(outbox, f"{consumer}1", f"{consumer}2", consumer=consumer)
    first = await claim(outbox, "one", limit=2)
    assert ids(first) == ["a1", "b1"]
    assert ids(await claim(outbox, "two")) == ["c1"]
    assert await claim(outbox, "one") == []
    assert await outbox.claim(B, owner="one", lease=60.0, limit=10) == []


async def test_fences_grow_with_each_owner(outbox: Outbox) -> None:
    """Over all lanes and accounts, and not while an owner goes on."""
    await put(outbox, "a1", "a2", consumer="a")
    await put(outbox, "b1", consumer="b")
    await put(outbox, "c1", consumer="c", account=B)
    fences = [one.fence for one in await claim(outbox, lease=0.0)]
    fences += [one.fence for one in await outbox.claim(B, owner="me", lease=0.0, limit=1)]
    again = await claim(outbox, "me")
    fences += [one.fence for one in again]
    assert fences == sorted(set(fences))
    followed = await settle(outbox, again[0])
    assert followed is not None
    assert followed.fence == again[0].fence


async def test_a_settled_head_makes_room_for_the_next(outbox: Outbox) -> None:
    """One step for both; what is known of the settled one stays, its body does not."""
    await put(outbox, "m1", "m2")
    first = await claim_one(outbox)
    second = await settle(outbox, first)
    assert second is not None
    assert (second.message, second.was_begun, second.owner) == (message("m2"), False, "me")
    assert second.account_id == A
    entry = await outbox.find(A, "m1")
    assert entry is not None
    assert (entry.state, entry.attempts, entry.sequence) == (MessageState.ACCEPTED, 1, 7)
    assert (entry.conversation_id, entry.reason, entry.maybe_duplicate) == ("c-1", None, False)
    assert (entry.message.body, entry.message.opening, entry.message.request_id) == (b"", None, "r-m1")
    assert entry.put_at <= (entry.settled_at or 0)


async def test_a_lane_is_given_back_when_nothing_is_left(outbox: Outbox) -> None:
    """What is put later is anyone's; the old claim is worth nothing."""
    await put(outbox, "m1")
    claimed = await claim_one(outbox)
    assert await settle(outbox, claimed) is None
    assert await outbox.renew(A, owner="me", lease=60.0) == frozenset()
    await put(outbox, "m2")
    (late,) = await outbox.advance(A, [(claimed, ACCEPTED)], lease=60.0)
    assert not late.is_settled
    assert ids(await claim(outbox, "other")) == ["m2"]


async def test_many_lanes_are_settled_in_one_call(outbox: Outbox) -> None:
    """Answers in the order of the settlements, each its own."""
    for consumer in ("a", "b", "c", "d"):
        await put(outbox, f"{consumer}1", f"{consumer}2", consumer=consumer)
    a, b, c, d = await claim(outbox)
    rests = Settlement(state=MessageState.WAITING, attempts=3, retry_in=60.0)
    lost = await outbox.release(A, [c])
    answers = await outbox.advance(A, [(d, ACCEPTED), (c, ACCEPTED), (b, rests), (a, REFUSED)], lease=60.0)
    assert lost == 1
    assert [answer.is_settled for answer in answers] == [True, False, True, True]
    assert [answer.next and answer.next.message.id for answer in answers] == ["d2", None, None, "a2"]
    assert await outbox.advance(A, [], lease=60.0) == []


async def test_an_owner_whose_lease_ended_settles_nothing(outbox: Outbox) -> None:
    """The lane went to another; what the second one says counts."""
    await put(outbox, "m1", "m2")
    stale = await claim_one(outbox, "one", lease=0.0)
    live = await claim_one(outbox, "two")
    (answer,) = await outbox.advance(A, [(stale, REFUSED)], lease=60.0)
    assert (answer.is_settled, answer.next) == (False, None)
    assert await outbox.release(A, [stale]) == 0
    assert await settle(outbox, live) is not None
    assert (await outbox.counts(A)).refused == 0


async def test_a_lease_that_ended_is_the_owners_until_another_takes_it(outbox: Outbox) -> None:
    """Nobody else can have sent it."""
    await put(outbox, "m1")
    await settle(outbox, await claim_one(outbox, lease=0.0))
    assert (await outbox.counts(A)).accepted == 1


async def test_a_message_to_be_sent_again_rests_its_lane(outbox: Outbox) -> None:
    """At the head, with its attempts; the others wait behind it."""
    await put(outbox, "m1", "m2")
    later = Settlement(state=MessageState.WAITING, attempts=2, reason="503", retry_in=60.0, maybe_duplicate=True)
    assert await settle(outbox, await claim_one(outbox), later) is None
    assert await claim(outbox, "other") == []
    due = await outbox.next_due(A)
    assert due is not None
    assert 50 < due <= 60
    entry = await outbox.find(A, "m1")
    assert entry is not None
    assert (entry.state, entry.attempts, entry.reason, entry.settled_at) == (MessageState.WAITING, 2, "503", None)
    assert entry.maybe_duplicate
    assert await exceptions(outbox) == []


async def test_a_message_to_be_sent_again_at_once_stays_with_its_owner(outbox: Outbox) -> None:
    """It was told how that attempt ended: a doubt is there only if the settlement says so."""
    await put(outbox, "m1", "m2")
    again = await settle(outbox, await claim_one(outbox), Settlement(state=MessageState.WAITING, attempts=2))
    assert again is not None
    assert (again.message.id, again.attempts) == ("m1", 2)
    assert (again.was_begun, again.maybe_duplicate) == (False, False)
    doubtful = Settlement(state=MessageState.WAITING, attempts=3, maybe_duplicate=True)
    again = await settle(outbox, again, doubtful)
    assert again is not None
    assert (again.attempts, again.was_begun, again.maybe_duplicate) == (3, False, True)


async def test_what_an_owner_began_and_never_told_is_doubtful(outbox: Outbox) -> None:
    """It may have been sent, for this and for every later owner."""
    await put(outbox, "m1", "m2")
    await claim_one(outbox, "one", lease=0.0)
    second = await claim_one(outbox, "two", lease=0.0)
    assert (second.message.id, second.attempts, second.was_begun, second.maybe_duplicate) == ("m1", 0, True, True)
    third = await claim_one(outbox, "three")
    assert third.was_begun
    doubt = Settlement(state=MessageState.ACCEPTED, attempts=2, maybe_duplicate=True)
    following = await settle(outbox, third, doubt)
    assert following is not None
    assert (following.was_begun, following.maybe_duplicate) == (False, False)
    counts = await outbox.counts(A)
    assert (counts.accepted, counts.maybe_duplicate) == (1, 1)
    assert await exceptions(outbox) == ["m1"]


async def test_what_was_released_was_never_claimed(outbox: Outbox) -> None:
    """Attempts as before, no doubt; but an earlier owner's doubt stays."""
    await put(outbox, "m1")
    claimed = await claim_one(outbox)
    assert await outbox.release(A, [claimed]) == 1
    assert await outbox.release(A, [claimed]) == 0
    counts = await outbox.counts(A)
    assert (counts.waiting, counts.begun) == (1, 0)
    again = await claim_one(outbox, "other", lease=0.0)
    assert (again.attempts, again.was_begun, again.maybe_duplicate) == (0, False, False)
    doubtful = await claim_one(outbox)
    await outbox.release(A, [doubtful])
    assert (await claim_one(outbox)).was_begun
    assert await outbox.release(A, []) == 0


async def test_several_lanes_are_released_in_one_call(outbox: Outbox) -> None:
    """A pump that stops gives back what it had not begun."""
    for consumer in ("a", "b"):
        await put(outbox, f"{consumer}1", consumer=consumer)
    assert await outbox.release(A, await claim(outbox)) == 2
    assert ids(await claim(outbox, "other")) == ["a1", "b1"]


async def test_a_refused_message_holds_its_lane_until_it_is_discarded(outbox: Outbox) -> None:
    """For those to whom the order matters more than the rest; other lanes go on."""
    await put(outbox, "m1", "m2")
    await put(outbox, "b1", consumer="bert")
    first, _ = await claim(outbox)
    assert await settle(outbox, first, HELD) is None
    assert await claim(outbox, "other") == []
    counts = await outbox.counts(A)
    assert (counts.waiting, counts.begun, counts.refused, counts.held_lanes) == (1, 1, 1, 1)
    assert not await outbox.discard(A, "m2")
    assert not await outbox.discard(B, "m1")
    assert not await outbox.discard(A, "nothing")
    assert await outbox.discard(A, "m1")
    assert not await outbox.discard(A, "m1")
    assert ids(await claim(outbox, "other")) == ["m2"]
    assert await exceptions(outbox) == ["m1"]


async def test_a_lane_that_is_held_alone_holds_what_is_put_later(outbox: Outbox) -> None:
    """And is nothing that is due."""
    await put(outbox, "m1")
    await settle(outbox, await claim_one(outbox), HELD)
    assert await outbox.next_due(A) is None
    await put(outbox, "m2")
    assert await claim(outbox) == []
    assert await outbox.next_due(A) is None
    assert await outbox.discard(A, "m1")
    assert ids(await claim(outbox)) == ["m2"]


async def test_nothing_is_left_of_a_lane_whose_only_message_was_discarded(outbox: Outbox) -> None:
    """Its holder was the last."""
    await put(outbox, "m1")
    await settle(outbox, await claim_one(outbox), HELD)
    assert await outbox.discard(A, "m1")
    assert await outbox.next_due(A) is None
    assert await claim(outbox) == []
    assert (await outbox.counts(A)).held_lanes == 0


async def test_a_revived_message_goes_first_again(outbox: Outbox) -> None:
    """In its old place, before those that were put after it, with what it is worth knowing."""
    await put(outbox, "m1", "m2", "m3")
    await settle(outbox, await claim_one(outbox), HELD)
    assert await outbox.revive(A, "m1")
    assert not await outbox.revive(A, "m1")
    assert not await outbox.revive(A, "nothing")
    counts = await outbox.counts(A)
    assert (counts.waiting, counts.refused, counts.held_lanes) == (3, 0, 0)
    assert await exceptions(outbox) == []
    head: Claim | None = await claim_one(outbox)
    assert head is not None
    assert (head.message, head.attempts) == (message("m1"), 1)
    order: list[str] = []
    while head is not None:
        order.append(head.message.id)
        head = await settle(outbox, head)
    assert order == ["m1", "m2", "m3"]
    assert not await outbox.revive(A, "m1")


async def test_a_message_revived_while_its_lane_is_under_way_goes_next(outbox: Outbox) -> None:
    """Never two of one lane at once."""
    await put(outbox, "m1", "m2", "m3")
    second = await settle(outbox, await claim_one(outbox), REFUSED)
    assert second is not None
    assert await outbox.revive(A, "m1")
    assert await claim(outbox, "other") == []
    revived = await settle(outbox, second)
    assert revived is not None
    assert revived.message.id == "m1"
    last = await settle(outbox, revived)
    assert last is not None
    assert last.message.id == "m3"


async def test_a_message_of_a_lane_that_is_gone_can_be_revived(outbox: Outbox) -> None:
    """One whose fate is unknown may have landed: it is a doubtful one now."""
    await put(outbox, "m1")
    await settle(outbox, await claim_one(outbox), Settlement(state=MessageState.UNKNOWN, attempts=1))
    assert await outbox.revive(A, "m1")
    claimed = await claim_one(outbox)
    assert (claimed.was_begun, claimed.maybe_duplicate) == (False, True)


async def test_a_pump_renews_what_is_still_its(outbox: Outbox) -> None:
    """The lanes by their names; those that another has are not among them."""
    for consumer in ("a", "b"):
        await put(outbox, f"{consumer}1", consumer=consumer)
    await claim(outbox, "one", lease=0.0)
    (taken,) = await claim(outbox, "two", limit=1)
    assert await outbox.renew(A, owner="one", lease=60.0) == {"a", "b"} - {taken.message.consumer}
    assert await outbox.renew(A, owner="two", lease=60.0) == {taken.message.consumer}
    assert await claim(outbox, "three") == []
    assert await outbox.renew(B, owner="one", lease=60.0) == frozenset()


async def test_a_pump_lets_go_what_it_does_not_name_when_it_renews(outbox: Outbox) -> None:
    """A claim whose answer was lost is carried by nobody."""
    for consumer in ("a", "b"):
        await put(outbox, f"{consumer}1", consumer=consumer)
    await claim(outbox, "one", lease=0.0)
    assert await outbox.renew(A, owner="one", lease=60.0, consumers={"a", "c"}) == {"a"}
    assert [one.message.id for one in await claim(outbox, "two")] == ["b1"]
    assert await outbox.renew(A, owner="one", lease=60.0, consumers=()) == frozenset()


async def test_the_counts_say_where_everything_is(outbox: Outbox) -> None:
    """And how long the oldest has waited."""
    assert await outbox.counts(A) == OutboxCounts()
    for consumer, state in zip("abcd", ("ACCEPTED", "REFUSED", "NOT_SENT", "UNKNOWN"), strict=True):
        await put(outbox, f"{consumer}1", consumer=consumer)
        await settle(outbox, await claim_one(outbox), Settlement(state=MessageState[state]))
    await put(outbox, "m1", "m2", "m3")
    await claim_one(outbox)
    counts = await outbox.counts(A)
    assert (counts.waiting, counts.begun, counts.unsettled) == (2, 1, 3)
    assert (counts.accepted, counts.refused, counts.not_sent, counts.unknown) == (1, 1, 1, 1)
    assert counts.oldest_age is not None
    assert 0 <= counts.oldest_age < 60
    assert await outbox.counts(B) == OutboxCounts()


async def test_the_next_due_lane_is_told(outbox: Outbox) -> None:
    """At once, at the end of a lease, or never."""
    assert await outbox.next_due(A) is None
    await put(outbox, "m1")
    assert await outbox.next_due(A) == 0
    claimed = await claim_one(outbox)
    due = await outbox.next_due(A)
    assert due is not None
    assert 50 < due <= 60
    await settle(outbox, claimed)
    assert await outbox.next_due(A) is None


async def test_exceptions_are_read_in_steps(outbox: Outbox) -> None:
    """By number, which only grows, so that none is seen twice or missed."""
    for number in range(3):
        await put(outbox, f"m{number}", consumer=f"lane{number}")
        await settle(outbox, await claim_one(outbox), REFUSED)
    first = await outbox.exceptions(A, limit=2)
    assert [entry.message.id for _, entry in first] == ["m0", "m1"]
    assert first[0][1].reason == "it is too long"
    assert first[0][1].message == message("m0", "lane0")
    assert await exceptions(outbox, after=first[-1][0]) == ["m2"]
    assert await outbox.exceptions(B) == []


async def test_a_forgotten_consumer_leaves_nothing(outbox: Outbox) -> None:
    """Whatever the state of its messages; others stay; who was sending can tell nothing any more."""
    await put(outbox, "m1", "m2", "m3", "m4")
    await put(outbox, "b1", consumer="bert")
    first, _ = await claim(outbox)
    second = await settle(outbox, first)
    assert second is not None
    third = await settle(outbox, second, REFUSED)
    assert third is not None
    await outbox.forget(A, "anna")
    assert [await outbox.find(A, name) for name in ("m1", "m2", "m3", "m4")] == [None] * 4
    assert await exceptions(outbox) == []
    counts = await outbox.counts(A)
    assert (counts.begun, counts.waiting, counts.accepted, counts.refused) == (1, 0, 0, 0)
    (answer,) = await outbox.advance(A, [(third, ACCEPTED)], lease=60.0)
    assert not answer.is_settled
    assert await put(outbox, "m1") == [ADDED]
    await outbox.forget(A, "nobody")


async def test_what_is_forgotten_makes_room_and_what_is_revived_takes_it(outbox: Outbox) -> None:
    """The bound is on what is unsettled, however it came to be that."""
    await put(outbox, "b1", consumer="bert")
    await settle(outbox, await claim_one(outbox), REFUSED)
    await put(outbox, "c1", "c2", consumer="carl")
    await settle(outbox, await claim_one(outbox))
    await put(outbox, *(f"m{number}" for number in range(99)))
    assert await put(outbox, "late") == [FULL]
    assert await outbox.revive(A, "b1")
    await outbox.forget(A, "carl")
    assert await put(outbox, "late") == [FULL]
    await outbox.forget(A, "anna")
    assert await put(outbox, *(f"n{number}" for number in range(100))) == [*[ADDED] * 99, FULL]


async def test_what_is_forgotten_is_not_among_those_remembered(outbox: Outbox) -> None:
    """A bound that still counted it would let another one go too early."""
    await put(outbox, "m1")
    await settle(outbox, await claim_one(outbox))
    await outbox.forget(A, "anna")
    for start in (0, 50):
        await put(outbox, *(f"b{start + number}" for number in range(50)), consumer="bert")
        head: Claim | None = await claim_one(outbox)
        while head is not None:
            head = await settle(outbox, head)
    assert await outbox.find(A, "b0") is not None
    assert (await outbox.counts(A)).accepted == 100


async def test_a_store_forgets_a_consumers_messages_too(store: Store) -> None:
    """One call for all that is known of a person."""
    assert isinstance(store, OutboxStore)
    await put(store.outbox, "m1")
    await store.forget(A, "anna")
    assert await store.outbox.find(A, "m1") is None


async def test_accepted_messages_are_remembered_up_to_the_bound(outbox: Outbox) -> None:
    """The oldest go, and stay in the counts."""
    for start in range(0, 150, 50):
        await put(outbox, *(f"m{start + number}" for number in range(50)))
        head: Claim | None = await claim_one(outbox)
        while head is not None:
            head = await settle(outbox, head)
    assert await outbox.find(A, "m49") is None
    assert await outbox.find(A, "m50") is not None
    assert (await outbox.counts(A)).accepted == 150


async def test_of_those_that_ended_otherwise_the_oldest_go(outbox: Outbox) -> None:
    """They stay in the counts; a lane that such a one held goes on."""
    await put(outbox, "m0", "after it")
    await settle(outbox, await claim_one(outbox), HELD)
    await put(outbox, "alone", consumer="bert")
    await settle(outbox, await claim_one(outbox), HELD)
    for number in range(2, 5):
        await put(outbox, f"m{number}", consumer=f"lane{number}")
        await settle(outbox, (await claim(outbox))[-1], REFUSED)
    assert await exceptions(outbox) == ["m2", "m3", "m4"]
    assert await outbox.find(A, "m0") is None
    counts = await outbox.counts(A)
    assert (counts.refused, counts.held_lanes, counts.unsettled) == (5, 0, 1)


@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
async def test_the_dead_are_not_looked_through_each_time(
    engine: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Where everything is refused, each refusal would cost a look at all: a tenth more than the bound stay."""
    place = request.getfixturevalue("postgres") if engine == "postgres" else None
    store = (
        SqliteStore(tmp_path / "s.db", max_dead=20)
        if place is None
        else PostgresStore(place.dsn, schema=place.schema, max_dead=20)
    )
    kept: list[int] = []
    for number in range(22):
        await put(store.outbox, f"m{number}")
        await settle(store.outbox, await claim_one(store.outbox), REFUSED)
        kept.append(len(await exceptions(store.outbox)))
    assert kept == [*range(1, 21), 21, 20]
    assert (await store.outbox.counts(A)).refused == 22
    await store.aclose()


async def test_a_settlement_counts_once(outbox: Outbox) -> None:
    """Told twice, the second one is not taken for the next message's."""
    await put(outbox, "m1", "m2")
    first = await claim_one(outbox)
    assert await settle(outbox, first) is not None
    (again,) = await outbox.advance(A, [(first, REFUSED)], lease=60.0)
    assert (again.is_settled, again.next) == (False, None)
    found = {name: await outbox.find(A, name) for name in ("m1", "m2")}
    assert {name: entry and entry.state for name, entry in found.items()} == {
        "m1": MessageState.ACCEPTED,
        "m2": MessageState.BEGUN,
    }
    assert await exceptions(outbox) == []


async def test_what_was_settled_is_not_given_back(outbox: Outbox) -> None:
    """Nor is the next message of its lane, which is under way: nobody else may have it."""
    await put(outbox, "m1", "m2")
    first = await claim_one(outbox)
    second = await settle(outbox, first)
    assert second is not None
    assert await outbox.release(A, [first]) == 0
    assert await claim(outbox, "other") == []
    counts = await outbox.counts(A)
    assert (counts.accepted, counts.begun, counts.waiting) == (1, 1, 0)
    await settle(outbox, second)


async def test_the_clock_can_be_another() -> None:
    """In memory too, leases run by one clock that tests may turn."""
    store = MemoryStore()
    now = 100.0
    store.outbox.wall = lambda: now
    await put(store.outbox, "m1")
    await claim_one(store.outbox, lease=30.0)
    now = 129.0
    assert await store.outbox.next_due(A) == 1.0
    assert await claim(store.outbox, "other") == []
    now = 130.0
    assert (await claim_one(store.outbox, "other")).was_begun


@pytest.mark.parametrize("end", ["accepted", "discarded", "pruned", "revived"])
async def test_in_memory_a_lane_without_messages_takes_no_room(end: str) -> None:
    """Consumers come and go for as long as the process lives."""
    outbox = MemoryStore(max_dead=1).outbox
    await put(outbox, "m1")
    await settle(outbox, await claim_one(outbox), ACCEPTED if end == "accepted" else HELD)
    if end == "discarded":
        assert await outbox.discard(A, "m1")
    elif end == "revived":
        assert await outbox.revive(A, "m1")
        await settle(outbox, await claim_one(outbox))
    elif end == "pruned":
        await put(outbox, "b1", consumer="bert")
        await settle(outbox, await claim_one(outbox), REFUSED)
    assert not outbox._lanes
