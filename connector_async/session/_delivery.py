"""One message on its way to its conversation, which is found or opened first; every end is an outcome."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import anyio

from connector_async._arguments import check_kind, timeout_of
from connector_async._send_result import SendResult
from connector_async.consumer import Consumer, Opening
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
from connector_async.exchange.desk import ClientPropertiesHeader
from connector_async.session._messages import Outcome, OutcomeStatus, Outgoing
from connector_async.wire import (
    ConsumerRequestConversation,
    ContentEvent,
    Event,
    PublishEvent,
    Request,
    SetUserProfile,
    encode_request,
)

__all__ = ["MOST_PRIOR_ATTEMPTS", "Delivery"]

MOST_PRIOR_ATTEMPTS = 1_000  # the session counts no further

# What is raised where something is given that cannot be sent; by a bug, too.
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
        """Send it; every error of ours becomes an outcome.

        Raises:
            Exception: What is none of ours and not the message's fault: a bug. `cut_off` says what is known then.
        """
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
            if not isinstance(error, LocalProtocolError) and self._is_fit():
                raise
            return self._outcome(OutcomeStatus.REFUSED, error=error)
        raise AssertionError("the second round returns")

    def _target(self) -> Consumer | Conversation:
        to = self._message.to
        if isinstance(to, str):
            return self._find(to)
        check_kind("Outgoing.to", to, (Consumer, Conversation), "an ext_consumer_id, a Consumer or a Conversation")
        # A session has one handle of a consumer at a time. Another session may be another account's.
        if (to if isinstance(to, Consumer) else to.consumer) is not self._find(to.ext_consumer_id):
            raise ValueError("Outgoing.to is a handle of another session; give its ext_consumer_id")
        return to

    def _time_left(self) -> float | None:
        # One time for all that it takes: finding or opening a conversation, sending, and both once more.
        return None if self._message.timeout is None else max(0.0, self._deadline - anyio.current_time())

    async def _publish(self, conversation: Conversation) -> SendResult:
        message, event = self._message, self._event()
        if conversation.is_closed:
            raise ConversationClosed("the conversation is closed")
        return await conversation.publish(
            event,
            request_id=message.request_id,
            timeout=self._time_left(),
            prior_attempts=message.prior_attempts,
        )

    def _event(self) -> Event:
        body = self._message.body
        return ContentEvent.text_of(body) if isinstance(body, str) else body

    def _is_fit(self) -> bool:
        """Whether the message can be sent as it is: it is made once more, apart from all that may fail beside it.

        Asked only when something has failed: the way that nearly all go is not to be walked twice.
        """
        message = self._message
        try:
            self._target()
            if message.opening is not None:
                _check_opening(message.opening)
            if message.timeout is not None:
                timeout_of(message.timeout)
            published = PublishEvent(dialog_id="1", event=self._event())
            encode_request(Request(id=message.request_id or "1", body=published))
            return 0 <= message.prior_attempts <= MOST_PRIOR_ATTEMPTS
        except _UNFIT:
            return False

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


def _check_opening(opening: object) -> None:
    check_kind("opening", opening, Opening, "an `Opening(...)`")
    asked = cast("Opening", opening)
    ClientPropertiesHeader.of(asked.client_properties)
    check_kind("profile", asked.profile, (SetUserProfile, type(None)), "a SetUserProfile")
    ConsumerRequestConversation(
        skill_id=asked.skill_id,
        campaign_info=asked.campaign,
        conversation_context=asked.context,
        ttr_def_name=asked.ttr,
    )


def _status(error: RequestError) -> OutcomeStatus:
    return OutcomeStatus(outcome_of(error))


def _status_without_conversation(error: RequestError) -> OutcomeStatus:
    """The message itself was not sent; only a clear no to the opening means that it never can be."""
    refused = isinstance(error, RequestRefused) and not isinstance(error, ConversationAlreadyOpen)
    return OutcomeStatus.REFUSED if refused and error.landed is Landed.NO else OutcomeStatus.NOT_SENT
