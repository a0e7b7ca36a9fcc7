"""The `sequence` counter: how often the same request has been sent.

The documentation says that a response may carry a `sequence` that is 0 on the first send, then 2, then 4, "etc.", and
that the value doubles. Two readings fit the three numbers given: steps of two (0, 2, 4, 6) and doubling (0, 2, 4, 8).
The words say doubling, so that is what we count.

Live systems also use the field as the number of the event in its dialog. What the server returns
is therefore handed on as it came: never required, never predicted.
"""

from __future__ import annotations

from enum import Enum

__all__ = ["SequenceReading", "read_sequence", "sequence_of"]


def sequence_of(attempt: int) -> int:
    """The counter of attempt 1, 2, 3, 4 …: 0, 2, 4, 8 …

    Raises:
        ValueError: `attempt` is below 1.

    Source: Connector API overview, "Responses".
    """
    if attempt < 1:
        raise ValueError(f"attempts are counted from 1, got {attempt}")
    return 0 if attempt == 1 else 2 ** (attempt - 1)


class SequenceReading(Enum):
    """What the server's counter says beside our own, where the server follows the documentation."""

    AGREES = "agrees"
    SAW_MORE = "saw_more"
    """The server counted more sends than we made: something on the way doubled the request."""
    SAW_FEWER = "saw_fewer"
    """The server counted fewer: an earlier send was lost."""


_AGREES = SequenceReading.AGREES  # looked up once; see `lanes`


def read_sequence(returned: int, attempt: int) -> SequenceReading:
    """Compare the server's counter with the one of our latest attempt."""
    ours = sequence_of(attempt)
    if returned == ours:
        return _AGREES
    return SequenceReading.SAW_MORE if returned > ours else SequenceReading.SAW_FEWER
