"""One message on its way to its conversation, which is found or opened first; every end is an outcome."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import anyio

from connector_async._arguments import check_kind, timeout_of
from connector_async._send_result import SendResult
from connector_async.consumer import Consumer
from connector_async.conversation import Conversation
from connector_async.errors import (
    ConversationAlreadyOpen,
    ConversationClosed,
    Landed,
    LocalProtocolError,
    RequestError,
    RequestRefused,
)
from connector_async.exchange import outcome_of
from connector_async.session._messages import Outcome, OutcomeStatus, Outgoing
from connector_async.wire import ContentEvent

__all__ = ["Delivery"]

# What the message itself is to blame for, whatever is tried.
_UNFIT = (LocalProtocolError, ValueError, TypeError)


class Delivery:
    """One message on its way to a conversation."""

    __slots__ = ("_conversation", "_deadline", "_find", "_message")

    def __init__(self, message: Outgoing[Any], find: Callable[[str], Consumer]) -> None:
        self._message = message
        self._find = find
        self._deadline = math.inf
        self._conversation: Conversation | None = None

    async def run(self) -> Outcome[Any]:
        """Send it; every error of ours becomes an outcome."""
        timeout = self._message.timeout
        try:
            target = self._target()
            if timeout is not None:
                self._deadline = anyio.current_time() + timeout_of(timeout)
            for last_chance in (False, True):
                self._conversation = None
                self._conversation = conversation = (
                    target
                    if isinstance(target, Conversation)
                    else await target.ensure_conversation(self._message.opening, timeout=self._time_left())
                )
                try:
                    result = await self._publish(conversation)
                except ConversationClosed as error:
                    # Closed since: a consumer's next message opens a new one.
                    if last_chance or isinstance(target, Conversation) or error.landed is Landed.UNKNOWN:
                        raise
                else:
                    return self._outcome(OutcomeStatus.ACCEPTED, result=result)
        except RequestError as error:
            status = _status_without_conversation if self._conversation is None else _status
            return self._outcome(status(error), error=error)
        except _UNFIT as error:
            return self._outcome(OutcomeStatus.REFUSED, error=error)
        raise AssertionError("the second round returns")

    def _target(self) -> Consumer | Conversation:
        to = self._message.to
        if isinstance(to, str):
            return self._find(to)
        check_kind("Outgoing.to", to, (Consumer, Conversation), "an ext_consumer_id, a Consumer or a Conversation")
        return to

    def _time_left(self) -> float | None:
        # One time for all that it takes: finding or opening a conversation, sending, and both once more.
        return None if self._message.timeout is None else max(0.0, self._deadline - anyio.current_time())

    async def _publish(self, conversation: Conversation) -> SendResult:
        message = self._message
        event = ContentEvent.text_of(message.body) if isinstance(message.body, str) else message.body
        if conversation.is_closed:
            raise ConversationClosed("the conversation is closed")
        return await conversation.publish(
            event,
            request_id=message.request_id,
            timeout=self._time_left(),
            prior_attempts=message.prior_attempts,
        )

    def cut_off(self, error: Exception) -> Outcome[Any]:
        """The outcome when something else than the request ended it."""
        if self._conversation is None:
            return self._outcome(OutcomeStatus.NOT_SENT, error=error)
        if isinstance(error, RequestError):
            error.landed = Landed.UNKNOWN
        return self._outcome(OutcomeStatus.UNKNOWN, error=error)

    def _outcome(
        self, status: OutcomeStatus, *, result: SendResult | None = None, error: Exception | None = None
    ) -> Outcome[Any]:
        conversation = self._conversation
        return Outcome(
            message=self._message,
            status=status,
            result=result,
            error=error,
            conversation_id=None if conversation is None else conversation.conversation_id,
        )


def _status(error: RequestError) -> OutcomeStatus:
    return OutcomeStatus(outcome_of(error))


def _status_without_conversation(error: RequestError) -> OutcomeStatus:
    """The message itself was not sent; only a clear no to the opening means that it never can be."""
    refused = isinstance(error, RequestRefused) and not isinstance(error, ConversationAlreadyOpen)
    return OutcomeStatus.REFUSED if refused and error.landed is Landed.NO else OutcomeStatus.NOT_SENT
