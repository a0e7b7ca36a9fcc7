"""A signature that is wrong in its first byte is refused as late as one that is wrong in its last."""

from __future__ import annotations

import contextlib
import gc
import math
import random
import time
from collections.abc import Iterator
from statistics import fmean, variance

import pytest

from connector_async.errors import InvalidSignature
from connector_async.webhooks._head import read_head
from connector_async.webhooks.receiver import WebhookReceiver
from tests.webhooks.rig import SECRET, content, encoded, headers_for, notification

VERIFICATIONS = 200_000
_CUT = 0.9
"""Of all times, those beyond this quantile are left out: they tell what else the machine did."""


@pytest.mark.soak
def test_w3_the_time_of_a_refusal_does_not_tell_where_the_signature_is_wrong() -> None:
    """Welch's t of both kinds, verified in random turn, stays below 4.5 (fault table W3)."""
    body = encoded(notification(content("c", 0)))
    # The last character before the padding is -2.
    first, last = _wrong_at(body, 0), _wrong_at(body, -2)
    figure = _welch(*_times(WebhookReceiver(SECRET), body, first, last))
    print(f"Welch's t = {figure:.2f} over {VERIFICATIONS:,} verifications")
    assert abs(figure) < 4.5


def test_welchs_t_tells_different_times_from_equal_ones() -> None:
    """The yardstick itself: 1 % of difference does not escape it."""
    rng = random.Random(3)
    one, same = ([rng.gauss(10_000, 300) for _ in range(20_000)] for _ in range(2))
    assert abs(_welch(one, same)) < 4.5
    assert abs(_welch(one, [time + 100 for time in same])) > 4.5


def _wrong_at(body: bytes, at: int) -> bytes:
    """The right signature but for one character of its base64 text."""
    algorithm, _, text = headers_for(body)["X-Liveperson-Signature"].partition("=")
    characters = list(text)
    characters[at] = "A" if characters[at] != "A" else "B"
    return f"{algorithm}={''.join(characters)}".encode()


def _times(receiver: WebhookReceiver, body: bytes, *signatures: bytes) -> tuple[list[float], ...]:
    """Nanoseconds of each refusal, by signature, without the slowest of all."""
    rng, times = random.Random(7), tuple(list[float]() for _ in signatures)
    turns = [at for at in range(len(signatures)) for _ in range(VERIFICATIONS // len(signatures))]
    rng.shuffle(turns)
    head = read_head(headers_for(body))
    with _no_collection():
        for at in turns:
            # A text of its own each time, as each delivery has: two that stay differ by where they lie in memory.
            head.signature = bytes(bytearray(signatures[at]))
            started = time.perf_counter_ns()
            try:
                receiver.open(head, body, with_diagnosis=False)
            except InvalidSignature:
                times[at].append(time.perf_counter_ns() - started)
    assert sum(map(len, times)) == VERIFICATIONS, "none was accepted"
    limit = sorted(one for of_kind in times for one in of_kind)[int(VERIFICATIONS * _CUT)]
    return tuple([one for one in of_kind if one <= limit] for of_kind in times)


def _welch(one: list[float], other: list[float]) -> float:
    spread = variance(one) / len(one) + variance(other) / len(other)
    return (fmean(one) - fmean(other)) / math.sqrt(spread)


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
