"""The ledger: loss, doubling and order are counted from it."""

from __future__ import annotations

from connector_async.sandbox import Ledger, LedgerEntry


def _arrive(ledger: Ledger, request_id: str, *, applied: bool = True, dialog: str = "d") -> LedgerEntry:
    entry = ledger.arrive(
        endpoint="send",
        account_id="1",
        request_id=request_id,
        type="ms.PublishEvent",
        dialog_id=dialog,
        consumer="c",
        generation=1,
        at=5.0,
    )
    entry.applied = applied
    return entry


def test_arrivals_effects_and_losses_are_told_apart() -> None:
    """our fault tables 4.9."""
    ledger = Ledger()
    for request_id, applied in (("a", True), ("b", False), ("b", True), ("c", True), ("c", True), ("d", False)):
        _arrive(ledger, request_id, applied=applied)
    assert ledger.arrivals("b") == 2
    assert ledger.applied("b") == 1
    assert ledger.doubled() == ledger.doubled("ms.PublishEvent") == {"c": 2}
    assert ledger.doubled("other") == {}
    assert ledger.lost(["a", "b", "d", "e"]) == ["d", "e"]
    assert ledger.order("d") == ["a", "b", "c", "c"]
    assert [entry.count for entry in ledger.entries] == [1, 1, 2, 1, 2, 1]
    assert [entry.number for entry in ledger.entries] == [1, 2, 3, 4, 5, 6]
    summary = ledger.summary()
    assert (summary["arrivals"], summary["applied"], summary["requests"], summary["repeated"]) == (6, 4, 4, 2)
    assert summary["statuses"] == {"none": 6}
    assert ledger.entries[0].as_dict()["request_id"] == "a"


def test_the_ledger_is_bounded_and_says_what_it_forgot() -> None:
    """A soak of millions must not grow the sandbox without end."""
    ledger = Ledger(limit=20)
    for number in range(21):
        _arrive(ledger, str(number))
    assert len(ledger.entries) == 19
    assert ledger.forgotten == 2
    assert ledger.entries[0].number == 3
    ledger.clear()
    assert (ledger.entries, ledger.forgotten, ledger.summary()["requests"]) == ([], 0, 0)
    assert _arrive(ledger, "0").number == 22
