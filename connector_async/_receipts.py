"""What webhooks tell about our own messages: that they landed, and who has seen them.

An echo does not carry the id of the request that caused it, and what a send returns as `sequence` need not be the
event's number in its dialog (protocol notes 7.2). So a message is recognised by its dialog and a digest of its event;
the echo tells its number; receipts name that number.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable

import anyio

from connector_async.wire import AcceptStatus

__all__ = ["ReceiptBook", "SentMessage"]

_MAX_MESSAGES = 50_000

_SEEN = frozenset({AcceptStatus.READ.value, AcceptStatus.ACTION.value, AcceptStatus.ACCESS.value})
_DELIVERED = _SEEN | {AcceptStatus.ACCEPT.value}


class SentMessage:
    """One message of ours that an echo is expected for."""

    __slots__ = ("dialog_id", "digest", "echoed", "number")

    def __init__(self, dialog_id: str, digest: str) -> None:
        self.dialog_id = dialog_id
        self.digest = digest
        self.echoed = anyio.Event()
        self.number: int | None = None


class ReceiptBook:
    """Echoes and receipts of one session; bounded: the oldest are forgotten."""

    def __init__(self, max_messages: int = _MAX_MESSAGES) -> None:
        self._max = max_messages
        self._expected: OrderedDict[tuple[str, str], deque[SentMessage]] = OrderedDict()
        self._statuses: OrderedDict[tuple[str, int], set[str]] = OrderedDict()
        self._changed: dict[tuple[str, int], anyio.Event] = {}

    def expect(self, dialog_id: str, digest: str) -> SentMessage:
        """A message is about to be sent."""
        message = SentMessage(dialog_id, digest)
        key = (dialog_id, digest)
        self._expected.setdefault(key, deque()).append(message)
        self._expected.move_to_end(key)
        if len(self._expected) > self._max:
            self._expected.popitem(last=False)
        return message

    def forget(self, message: SentMessage) -> None:
        """It was not sent after all: its echo must not be taken for that of a later one with the same words."""
        key = (message.dialog_id, message.digest)
        waiting = self._expected.get(key)
        if waiting is not None and message in waiting:
            waiting.remove(message)
            if not waiting:
                del self._expected[key]

    def echo(self, dialog_id: str, digest: str, number: int | None) -> bool:
        """An echo came; whether one of our messages was waiting for it."""
        key = (dialog_id, digest)
        waiting = self._expected.get(key)
        if not waiting:
            return False
        message = waiting.popleft()
        if not waiting:
            del self._expected[key]
        message.number = number
        message.echoed.set()
        return True

    def receipt(self, dialog_id: str, numbers: Iterable[int], status: str) -> None:
        """A receipt of the brand's side came."""
        for number in numbers:
            key = (dialog_id, number)
            self._statuses.setdefault(key, set()).add(status)
            self._statuses.move_to_end(key)
            if len(self._statuses) > self._max:
                self._statuses.popitem(last=False)
            changed = self._changed.pop(key, None)
            if changed is not None:
                changed.set()

    async def wait(self, message: SentMessage, status: str, timeout: float) -> None:
        """Return when the message has a receipt that says `ACCEPT` (or more), or `READ`.

        Raises:
            TimeoutError: None came within `timeout` seconds.
        """
        wanted = _SEEN if status == AcceptStatus.READ else _DELIVERED
        with anyio.fail_after(timeout):
            await message.echoed.wait()
            if message.number is None:
                await anyio.sleep_forever()  # an echo without a number: no receipt can name it
            key = (message.dialog_id, message.number or 0)
            while not self._statuses.get(key, set()) & wanted:
                changed = self._changed.setdefault(key, anyio.Event())
                await changed.wait()
