"""Doubles are dropped, order is restored within a window, gaps end; all with time as an argument."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from connector_async.protocol.inbox import Inbox, Offer, Release, Verdict, _Stream, event_digest


def offer(
    inbox: Inbox[int], sequence: int, now: float = 0.0, *, dialog: str = "d", is_new: bool = False
) -> Offer[int]:
    return inbox.offer(sequence, conversation_id="c", dialog_id=dialog, sequence=sequence, now=now, is_new=is_new)


def items(releases: Iterable[Release[int]]) -> list[int]:
    return [release.item for release in releases]


def test_events_in_order_pass_at_once() -> None:
    """Zero is the first number of a dialog, so nothing before it is waited for."""
    inbox = Inbox[int]()
    assert [offer(inbox, number) for number in range(4)] == [
        Offer(Verdict.RELEASED, (Release(number),)) for number in range(4)
    ]
    assert inbox.held == 0
    assert inbox.next_deadline is None


def test_what_comes_in_its_turn_can_be_taken_without_an_offer() -> None:
    """Nearly all do; the first of a dialog, and what waits or others wait behind, are for `offer` to judge."""
    inbox = Inbox[int]()
    assert not inbox.take_next("c", "d", 0)
    offer(inbox, 0)
    assert [inbox.take_next("c", "d", number) for number in (1, 2, 2, 4, 3)] == [True, True, False, False, True]
    assert [offer(inbox, number).verdict for number in range(4)] == [Verdict.DUPLICATE] * 4
    offer(inbox, 5)
    assert not inbox.take_next("c", "d", 4)
    assert items(offer(inbox, 4).released) == [4, 5]


@pytest.mark.parametrize("taken_before", [1, 3])
def test_what_was_retracted_is_not_seen_again_by_what_is_taken_next(taken_before: int) -> None:
    """A handler failed with the newest event; the next comes in its turn, then the vendor brings that one again."""
    inbox = Inbox[int]()
    for number in range(taken_before):
        offer(inbox, number)
    inbox.retract(conversation_id="c", dialog_id="d", sequence=taken_before - 1)
    assert inbox.take_next("c", "d", taken_before)
    assert inbox.take_next("c", "d", taken_before + 1)
    assert offer(inbox, taken_before - 1) == Offer(Verdict.RELEASED, (Release(taken_before - 1, is_late=True),))
    assert [offer(inbox, number).verdict for number in range(taken_before + 2)] == (
        [Verdict.DUPLICATE] * (taken_before + 2)
    )


def test_a_dialog_whose_events_are_taken_is_not_the_least_recently_used() -> None:
    """It would be the first to be forgotten."""
    inbox = Inbox[int](max_streams=2)
    for dialog in ("a", "b"):
        offer(inbox, 0, dialog=dialog)
    assert inbox.take_next("c", "a", 1)
    offer(inbox, 0, dialog="c")
    assert offer(inbox, 1, dialog="a").verdict is Verdict.DUPLICATE
    assert offer(inbox, 0, dialog="b").verdict is Verdict.RELEASED


@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from(["offer", "retract", "expire"])), max_size=60))
def test_to_take_what_comes_in_its_turn_is_the_same_as_to_offer_it(steps: list[tuple[int, str]]) -> None:
    """What was seen, what is next and what waits are the same afterwards, whatever happened before."""
    quick, slow = Inbox[int](window=3), Inbox[int](window=3)
    for now, (number, action) in enumerate(steps):
        if action == "retract":
            for inbox in (quick, slow):
                inbox.retract(conversation_id="c", dialog_id="d", sequence=number)
        elif action == "expire":
            assert quick.expire(now + 1.0) == slow.expire(now + 1.0)
        else:
            expected = offer(slow, number, float(now))
            if quick.take_next("c", "d", number):
                assert expected == Offer(Verdict.RELEASED, (Release(number),))
            else:
                assert offer(quick, number, float(now)) == expected
        states = [[(s.next, s.seen, s.floor, s.held) for s in inbox._streams.values()] for inbox in (quick, slow)]
        assert states[0] == states[1]
        assert quick.held == slow.held


def test_an_early_event_waits_for_those_before_it() -> None:
    """Order is by sequence within a dialog (webhooks disclaimers)."""
    inbox = Inbox[int]()
    offer(inbox, 0)
    assert offer(inbox, 2) == Offer(Verdict.HELD)
    assert offer(inbox, 3) == Offer(Verdict.HELD)
    assert inbox.held == 2
    assert offer(inbox, 1) == Offer(Verdict.RELEASED, (Release(1), Release(2), Release(3)))
    assert inbox.held == 0
    assert inbox.next_deadline is None


def test_a_stream_met_in_the_middle_waits_for_what_may_come_before() -> None:
    """After a restart the first event that arrives need not be the first one."""
    inbox = Inbox[int](patience=1.0)
    assert offer(inbox, 18, 0.0).verdict is Verdict.HELD
    assert offer(inbox, 17, 0.5).verdict is Verdict.HELD
    assert inbox.next_deadline == 1.0
    assert inbox.expire(0.9) == []
    assert inbox.expire(1.0) == [Release(17), Release(18)]
    assert offer(inbox, 19).released == (Release(19),)


def test_doubles_are_dropped_wherever_they_are() -> None:
    """At-least-once: by (conversation, dialog, sequence) (webhooks disclaimers)."""
    inbox = Inbox[int]()
    offer(inbox, 0)
    offer(inbox, 2)
    assert offer(inbox, 0).verdict is Verdict.DUPLICATE
    assert offer(inbox, 2).verdict is Verdict.DUPLICATE
    offer(inbox, 1)
    assert [offer(inbox, number).verdict for number in range(3)] == [Verdict.DUPLICATE] * 3


def test_dialogs_count_on_their_own() -> None:
    """Numbering restarts per dialog (Connector API overview)."""
    inbox = Inbox[int]()
    assert offer(inbox, 0, dialog="main").released == (Release(0),)
    assert offer(inbox, 0, dialog="survey").released == (Release(0),)


def test_a_gap_ends_after_the_patience_and_is_marked() -> None:
    """Deliveries can be lost; what follows must not wait for ever (fault table W5)."""
    inbox = Inbox[int](patience=2.0)
    offer(inbox, 0, 0.0)
    offer(inbox, 2, 10.0)
    offer(inbox, 3, 10.5)
    offer(inbox, 7, 11.0)
    assert inbox.next_deadline == 12.0
    assert inbox.expire(12.0) == [Release(2, after_gap=True), Release(3)]
    assert inbox.next_deadline == 13.0
    assert inbox.held == 1
    assert inbox.expire(13.0) == [Release(7, after_gap=True)]
    assert inbox.held == 0
    assert offer(inbox, 8).verdict is Verdict.RELEASED


def test_what_was_filled_before_its_time_does_not_keep_others_waiting() -> None:
    """Its deadline has passed as well, and says nothing any more."""
    inbox = Inbox[int](patience=1.0)
    for dialog in ("a", "b"):
        offer(inbox, 0, dialog=dialog)
    offer(inbox, 2, 0.0, dialog="a")
    offer(inbox, 2, 0.5, dialog="b")
    offer(inbox, 1, 0.6, dialog="a")
    assert inbox.expire(2.0) == [Release(2, after_gap=True)]


def test_what_comes_after_its_gap_was_given_up_is_late_not_lost() -> None:
    """0 lost (fault table W5)."""
    inbox = Inbox[int]()
    offer(inbox, 0)
    offer(inbox, 3)
    inbox.expire(1.0)
    assert offer(inbox, 1).released == (Release(1, is_late=True),)
    assert offer(inbox, 1).verdict is Verdict.DUPLICATE
    assert offer(inbox, 2).released == (Release(2, is_late=True),)
    assert offer(inbox, 4).released == (Release(4),)


def test_the_window_bounds_what_waits() -> None:
    """Bounded memory: beyond the window the first gap is given up."""
    inbox = Inbox[int](window=3)
    offer(inbox, 0)
    for number in (2, 3, 5):
        assert offer(inbox, number).verdict is Verdict.HELD
    released = offer(inbox, 7)
    assert released == Offer(Verdict.HELD, (Release(2, after_gap=True), Release(3)))
    assert inbox.held == 2


def test_a_window_that_overflows_once_too_often_lets_everything_go() -> None:
    """The third gap in a row that nobody filled: those behind further gaps go with it, and none is lost."""
    inbox = Inbox[int](window=1)
    assert [items(offer(inbox, number).released) for number in (0, 2, 4, 6, 8)] == [[0], [], [2], [4], [6, 8]]


def test_a_dialog_of_holes_is_not_waited_for() -> None:
    """An app that is not registered for receipts sees no number of a receipt, ever."""
    inbox = Inbox[int](patience=1.0)
    offer(inbox, 0)
    for turn in (1, 2, 3):
        assert offer(inbox, 2 * turn, float(turn)).verdict is Verdict.HELD
        inbox.expire(turn + 1.0)
    assert offer(inbox, 8) == Offer(Verdict.RELEASED, (Release(8, after_gap=True),))
    offer(inbox, 7)  # late: somebody does fill the gaps of this dialog
    for number in (10, 12, 14):
        assert offer(inbox, number, 10.0).verdict is Verdict.HELD
        inbox.expire(11.0)
    assert offer(inbox, 16).verdict is Verdict.RELEASED


def test_several_that_wait_behind_one_gap_do_not_fill_it() -> None:
    """Gaps in a row are counted, however many events come between them."""
    inbox = Inbox[int]()
    offer(inbox, 0)
    for number in (2, 5, 8):
        offer(inbox, number)
        assert offer(inbox, number + 1).verdict is Verdict.HELD
        inbox.expire(1.0)
    assert offer(inbox, 11).verdict is Verdict.RELEASED


def test_a_gap_that_was_filled_restores_patience() -> None:
    """Three in a row count, not three in all."""
    inbox = Inbox[int](patience=1.0)
    offer(inbox, 0)
    for number in (2, 4):
        offer(inbox, number)
        inbox.expire(1.0)
    offer(inbox, 6)
    offer(inbox, 5)
    for number in (8, 10):
        assert offer(inbox, number).verdict is Verdict.HELD
        inbox.expire(1.0)
    assert offer(inbox, 12).verdict is Verdict.HELD


def test_several_gaps_of_a_hopeless_dialog_end_together() -> None:
    """Once it is clear that nobody fills them, those that wait behind further gaps go as well."""
    inbox = Inbox[int](patience=1.0)
    offer(inbox, 0)
    for at, number in ((0.0, 2), (0.0, 4), (0.0, 6), (0.9, 8)):
        offer(inbox, number, at)
    assert items(inbox.expire(1.0)) == [2, 4, 6, 8]
    assert inbox.held == 0


def test_without_patience_nothing_waits() -> None:
    """`gap_timeout=0`: order of arrival, with marks."""
    inbox = Inbox[int](patience=0.0)
    assert offer(inbox, 5).released == (Release(5),)
    assert offer(inbox, 7).released == (Release(7, after_gap=True),)
    assert offer(inbox, 6).released == (Release(6, is_late=True),)


def test_a_second_try_is_no_double() -> None:
    """The durable store knows better: an event whose handler failed comes again."""
    inbox = Inbox[int]()
    offer(inbox, 0)
    assert offer(inbox, 0, is_new=True).released == (Release(0, is_late=True),)
    assert offer(inbox, 0).verdict is Verdict.DUPLICATE
    assert inbox.offer(0, conversation_id="c", dialog_id="d", sequence=0, now=0.0).verdict is Verdict.DUPLICATE


def test_a_second_try_does_not_hide_what_came_after_it() -> None:
    """Locks a bug: events above one that was tried again were taken for new when they came twice."""
    inbox = Inbox[int]()
    for number in range(5):
        offer(inbox, number)
    assert offer(inbox, 1, is_new=True).verdict is Verdict.RELEASED
    assert [offer(inbox, number).verdict for number in range(5)] == [Verdict.DUPLICATE] * 5


@given(st.lists(st.tuples(st.integers(0, 30), st.booleans()), max_size=80))
@example([(3, True), (4, True), (2, True), (1, False), (0, True), (1, True)])
def test_numbers_seen_and_forgotten_in_any_order_are_kept_as_the_fewest_ranges(steps: list[tuple[int, bool]]) -> None:
    """What is remembered of a dialog is bounded by its ranges, so none may be there twice or in two pieces."""
    stream, seen = _Stream[int](), set[int]()
    for number, is_seen in steps:
        (stream.see if is_seen else stream.unsee)(number)
        (seen.add if is_seen else seen.discard)(number)
        starts = [one for one in sorted(seen) if one - 1 not in seen]
        ends = [one for one in sorted(seen) if one + 1 not in seen]
        assert stream.seen == list(zip(starts, ends, strict=True))
        assert [one for one in range(-1, 32) if stream.has_seen(one)] == sorted(seen)
    assert stream.floor == -1


def test_a_retracted_event_counts_again() -> None:
    """Its handler failed and the vendor was told so: the next delivery is the one that counts."""
    inbox = Inbox[int]()
    for number in range(4):
        offer(inbox, number)
    for number in (1, 0, 3):
        inbox.retract(conversation_id="c", dialog_id="d", sequence=number)
        inbox.retract(conversation_id="c", dialog_id="d", sequence=number)
    assert [offer(inbox, number).verdict for number in (1, 0, 3, 2)] == [Verdict.RELEASED] * 3 + [Verdict.DUPLICATE]
    inbox.retract(conversation_id="unknown", dialog_id="d", sequence=0)


def test_only_newer_conversation_changes_count() -> None:
    """By `metaDataLastUpdateTs`; older ones are ignored (webhooks disclaimers)."""
    inbox = Inbox[int]()
    verdicts = [inbox.offer_change(conversation_id="c", stamp=stamp) for stamp in (10, 10, 9, 11)]
    assert verdicts == [Verdict.RELEASED, Verdict.DUPLICATE, Verdict.OUTDATED, Verdict.RELEASED]
    assert inbox.offer_change(conversation_id="other", stamp=1) is Verdict.RELEASED


def test_a_retracted_change_counts_again_unless_a_newer_one_came() -> None:
    """What failed may be delivered again, but never over what is newer."""
    inbox = Inbox[int]()
    inbox.offer_change(conversation_id="c", stamp=10)
    inbox.retract_change(conversation_id="c", stamp=10)
    assert inbox.offer_change(conversation_id="c", stamp=10) is Verdict.RELEASED
    inbox.offer_change(conversation_id="c", stamp=11)
    inbox.retract_change(conversation_id="c", stamp=10)
    assert inbox.offer_change(conversation_id="c", stamp=10) is Verdict.OUTDATED


def test_streams_and_conversations_are_bounded() -> None:
    """The least recently used go; what waited in them is handed out, not lost."""
    inbox = Inbox[int](max_streams=2)
    offer(inbox, 5, dialog="a")
    offer(inbox, 0, dialog="b")
    offer(inbox, 0, dialog="c")
    assert inbox.held == 0
    assert offer(inbox, 1, dialog="b").released == (Release(1),)
    inbox = Inbox[int](max_streams=1)
    offer(inbox, 5, dialog="a")
    assert offer(inbox, 0, dialog="b") == Offer(Verdict.RELEASED, (Release(5), Release(0)))
    for conversation in ("x", "y"):
        inbox.offer_change(conversation_id=conversation, stamp=5)
    assert inbox.offer_change(conversation_id="x", stamp=5) is Verdict.RELEASED
    assert inbox.next_deadline is None
    offer(inbox, 0, dialog="c")
    assert offer(inbox, 0, dialog="b").released == (Release(0),)


def test_as_many_conversations_are_remembered_as_streams() -> None:
    """Not one less."""
    inbox = Inbox[int](max_streams=2)
    for conversation in ("x", "y"):
        inbox.offer_change(conversation_id=conversation, stamp=5)
    assert inbox.offer_change(conversation_id="x", stamp=5) is Verdict.DUPLICATE


def test_ranges_of_seen_numbers_are_bounded() -> None:
    """Beyond what is remembered an event is reported as outdated instead of being handled twice."""
    inbox = Inbox[int](patience=0.0)
    for number in range(0, 400, 2):
        offer(inbox, number)
    assert offer(inbox, 1).verdict is Verdict.OUTDATED
    assert offer(inbox, 397).verdict is Verdict.RELEASED
    assert offer(inbox, 1, is_new=True).verdict is Verdict.RELEASED
    assert offer(inbox, 3).verdict is Verdict.OUTDATED


def test_the_64_newest_ranges_of_a_dialog_are_remembered() -> None:
    """Of the range that was forgotten even the last number is outdated."""
    inbox = Inbox[int](patience=0.0)
    for number in (*range(10), *range(20, 20 + 2 * 63, 2)):
        offer(inbox, number)
    assert offer(inbox, 9).verdict is Verdict.DUPLICATE
    offer(inbox, 20 + 2 * 63)
    assert [offer(inbox, number).verdict for number in (9, 20)] == [Verdict.OUTDATED, Verdict.DUPLICATE]
    assert offer(inbox, 10).verdict is Verdict.RELEASED


def test_all_that_waits_can_be_flushed() -> None:
    """A session that ends hands out what it holds."""
    inbox = Inbox[int]()
    offer(inbox, 2)
    offer(inbox, 4)
    offer(inbox, 9, dialog="e")
    assert sorted(items(inbox.flush())) == [2, 4, 9]
    assert inbox.held == 0
    assert inbox.flush() == []


@given(
    order=st.permutations(range(25)),
    doubles=st.lists(st.integers(0, 24), max_size=25),
    start=st.sampled_from([0, 1, 7]),
)
@settings(max_examples=200)
def test_any_order_and_any_doubles_come_out_once_and_in_order(
    order: list[int], doubles: list[int], start: int
) -> None:
    """Within the window nothing is lost, doubled or out of order, whatever arrives when."""
    inbox = Inbox[int](window=32)
    arriving = [*order, *doubles]
    random.Random(len(doubles)).shuffle(arriving)
    released: list[int] = []
    for number in arriving:
        released += items(offer(inbox, number + start).released)
    released += items(inbox.expire(1.0))
    assert released == [number + start for number in range(25)]


@given(st.lists(st.tuples(st.integers(0, 40), st.booleans()), max_size=120), st.integers(1, 8))
@settings(max_examples=300)
def test_whatever_happens_each_number_comes_out_once(steps: list[tuple[int, bool]], window: int) -> None:
    """Gaps, lates, overflow, expiry in any order: exactly once each, held within bounds."""
    inbox = Inbox[int](window=window)
    released: list[int] = []
    for now, (number, is_expiring) in enumerate(steps):
        offered = offer(inbox, number, float(now))
        released += items(offered.released)
        assert inbox.held <= window
        if is_expiring:
            released += items(inbox.expire(now + 1.0))
    released += items(inbox.flush())
    assert sorted(released) == sorted({number for number, _ in steps})


@pytest.mark.parametrize("sequence", [10**30, 2**63])
def test_huge_numbers_cost_no_memory(sequence: int) -> None:
    """The other side chooses the numbers."""
    inbox = Inbox[int]()
    offer(inbox, 0)
    offer(inbox, sequence)
    assert inbox.expire(1.0) == [Release(sequence, after_gap=True)]


def test_an_echo_is_known_by_its_content() -> None:
    """It carries no request id, and the order of names means nothing."""
    assert event_digest({"type": "ContentEvent", "message": "a"}) == event_digest(
        {"message": "a", "type": "ContentEvent"}
    )
    assert event_digest({"message": "a"}) != event_digest({"message": "b"})
    # Workers of two releases may share a store.
    assert event_digest({"b": 1, "a": "x"}) == hashlib.sha256(b'{"a":"x","b":1}').hexdigest()


def test_what_comes_in_its_turn_needs_no_verdict() -> None:
    """The short way and the long one remember the same, also around an event that was taken back."""
    inbox = Inbox[int]()
    assert not inbox.take_next("c", "d", 0), "a dialog that nobody knows"
    offer(inbox, 0)
    assert inbox.take_next("c", "d", 1)
    assert not inbox.take_next("c", "d", 1)
    assert offer(inbox, 1).verdict is Verdict.DUPLICATE
    inbox.retract(conversation_id="c", dialog_id="d", sequence=1)
    assert inbox.take_next("c", "d", 2)
    assert offer(inbox, 1).released == (Release(1, is_late=True),)
    assert offer(inbox, 4).verdict is Verdict.HELD
    assert not inbox.take_next("c", "d", 3), "something waits behind it"
    assert items(offer(inbox, 3).released) == [3, 4]
