"""What webhooks tell about our own messages: that they landed, and who has seen them.

An echo does not carry the id of the request that caused it, and what a send returns as `sequence` need not be the
event's number in its dialog. So a message is recognised by its dialog and a digest of its event;
the echo tells its number; receipts name that number.
"""

from __future__ import annotations

import logging
from collections import OrderedDict, deque
from collections.abc import Iterable

import anyio

from connector_async._arguments import limit_of
from connector_async._feed import Hearing
from connector_async.errors import ConnectorError
from connector_async.store import Store
from connector_async.wire import AcceptStatus

__all__ = ["ReceiptBook", "SentMessage"]

logger = logging.getLogger("connector_async.receipts")

_MAX_MESSAGES = 50_000
_MAX_ALIKE = 1_000  # with the same words in one dialog

# Seconds between two looks into a store that other workers write to; doubled from the first to the last.
_FIRST_LOOK = 0.5
_LONGEST_PAUSE = 8.0

_SEEN = frozenset({AcceptStatus.READ.value, AcceptStatus.ACTION.value, AcceptStatus.ACCESS.value})
_DELIVERED = _SEEN | {AcceptStatus.ACCEPT.value}


class SentMessage:
    """One message of ours that an echo is expected for."""

    __slots__ = ("conversation_id", "dialog_id", "digest", "echoed", "number")

    def __init__(self, conversation_id: str, dialog_id: str, digest: str) -> None:
        self.conversation_id = conversation_id
        self.dialog_id = dialog_id
        self.digest = digest
        self.echoed = anyio.Event()
        self.number: int | None = None


class ReceiptBook:
    """Echoes and receipts of one session; bounded: the oldest are forgotten.

    Args:
        account_id: The account.
        store: Where other workers leave what they heard; asked only if it is durable.
    """

    def __init__(self, account_id: str, store: Store, max_messages: int = _MAX_MESSAGES) -> None:
        self._account_id = account_id
        self._store = store
        self.hearing = Hearing()
        self._max = max_messages
        self._numbers: OrderedDict[tuple[str, int], None] = OrderedDict()
        self._expected: OrderedDict[tuple[str, str], deque[SentMessage]] = OrderedDict()
        self._statuses: OrderedDict[tuple[str, int], set[str]] = OrderedDict()
        self._changed: dict[tuple[str, int], anyio.Event] = {}

    def expect(self, conversation_id: str, dialog_id: str, digest: str) -> SentMessage:
        """A message is about to be sent."""
        message = SentMessage(conversation_id, dialog_id, digest)
        key = (dialog_id, digest)
        self._expected.setdefault(key, deque(maxlen=_MAX_ALIKE)).append(message)
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
        self._found(message, number)
        return True

    async def look_for(self, message: SentMessage) -> None:
        """Take in echoes that came to other workers of a durable store, until that of a message is among them.

        An earlier message with the same words comes first, for the first of such echoes is its own: taken for that
        of a later one, which did not land, it would have that one lost in silence.
        """
        while self._store.durable and not message.echoed.is_set():
            found, number = await self._store.take_echo(self._account_id, message.conversation_id, message.digest)
            if not found:
                return
            self.echo(message.dialog_id, message.digest, number)

    def _found(self, message: SentMessage, number: int | None) -> None:
        message.number = number
        message.echoed.set()
        if number is not None:
            self._numbers[message.dialog_id, number] = None
            if len(self._numbers) > self._max:
                self._numbers.popitem(last=False)

    def receipt(self, dialog_id: str, numbers: Iterable[int], status: str) -> bool:
        """A receipt of the brand's side came; whether every number it names is of a message sent here."""
        is_ours = True
        for number in numbers:
            key = (dialog_id, number)
            is_ours = is_ours and key in self._numbers
            self._statuses.setdefault(key, set()).add(status)
            self._statuses.move_to_end(key)
            if len(self._statuses) > self._max:
                self._statuses.popitem(last=False)
            changed = self._changed.pop(key, None)
            if changed is not None:
                changed.set()
        return is_ours

    async def wait(self, message: SentMessage, status: str, timeout: float) -> None:
        """Return when the message has a receipt that says `ACCEPT` (or more), or `READ`.

        Raises:
            TimeoutError: None came within `timeout` seconds.
            SessionClosed: The session closed before one came.
        """
        wanted = _SEEN if status == AcceptStatus.READ else _DELIVERED
        if message.number is not None and self._statuses.get((message.dialog_id, message.number), set()) & wanted:
            return
        with anyio.fail_after(limit_of(timeout)), self.hearing.waiting(message.conversation_id):
            if not self._store.durable:
                await self._heard_here(message, wanted)
                return
            pause = _FIRST_LOOK
            while True:
                with anyio.move_on_after(pause):
                    await self._heard_here(message, wanted)
                    return
                # The webhook may have gone to another worker of the same store.
                await self._look(message)
                pause = min(2 * pause, _LONGEST_PAUSE)

    async def _heard_here(self, message: SentMessage, wanted: frozenset[str]) -> None:
        await message.echoed.wait()
        if message.number is None:
            await anyio.sleep_forever()  # an echo without a number: no receipt can name it
        key = (message.dialog_id, message.number or 0)
        while not self._statuses.get(key, set()) & wanted:
            changed = self._changed.setdefault(key, anyio.Event())
            await changed.wait()

    async def _look(self, message: SentMessage) -> None:
        """Take in what another worker heard of a message."""
        try:
            await self.look_for(message)
            if message.number is not None:
                number = message.number
                for status in await self._store.receipts_of(self._account_id, message.dialog_id, number):
                    self.receipt(message.dialog_id, [number], status)
        except ConnectorError:
            logger.warning("the store could not be asked for receipts", exc_info=True)
