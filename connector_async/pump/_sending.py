"""One message of a claim on its way: its conversation is found, opened or opened anew, and it is published there."""

from __future__ import annotations

from typing import Any

from connector_async.errors import ConversationAlreadyOpen, ConversationClosed, Landed, RequestError, RequestRefused
from connector_async.pump._messages import event_of, opening_of
from connector_async.pump._policy import PumpPolicy, prior_attempts
from connector_async.session import ConnectorSession, Outcome, OutcomeStatus, Outgoing
from connector_async.session._delivery import MOST_PRIOR_ATTEMPTS, Delivery
from connector_async.store.outbox import Claim

__all__ = ["Sending"]


class Sending:
    """Not `ConnectorSession.send`: what that was given is sent even if its caller goes away, and a lease may not.

    Attributes:
        is_sent: False once it is known from elsewhere that no byte has gone out.
        reopened: Conversations opened because one turned out to be closed.
    """

    __slots__ = ("_claim", "_delivery", "_policy", "_session", "is_sent", "reopened")

    def __init__(self, claim: Claim, session: ConnectorSession, policy: PumpPolicy) -> None:
        self._claim = claim
        self._session = session
        self._policy = policy
        self._delivery: Delivery | None = None
        self.is_sent = True
        self.reopened = 0

    async def run(self) -> Outcome[Any]:
        """Send it; every error becomes an outcome. When it is cancelled, `cut_off` says what is known."""
        try:
            return await self._run()
        except Exception as error:  # noqa: BLE001 - one message's accident must not end the pump; it is in the outcome
            return self.cut_off(error)

    async def _run(self) -> Outcome[Any]:
        message, timeout = self._claim.message, self._policy.timeout
        try:
            event, opening = event_of(message), opening_of(message)
            consumer = self._session.consumer(message.consumer)
        except ValueError as error:
            return self._outcome(OutcomeStatus.REFUSED, error)
        while True:
            self._delivery = None
            try:
                conversation = await consumer.ensure_conversation(opening, timeout=timeout)
            except RequestError as error:
                return self._outcome(_without_conversation(error), error)
            outgoing: Outgoing[None] = Outgoing(
                conversation,
                event,
                request_id=message.request_id,
                prior_attempts=min(prior_attempts(self._claim), MOST_PRIOR_ATTEMPTS),
                timeout=timeout,
            )
            self._delivery = Delivery(outgoing, self._session.consumer)
            outcome = await self._delivery.run()
            if self.reopened or not self._may_reopen(outcome.error):
                return outcome
            self.reopened = 1

    @property
    def may_have_landed(self) -> bool:
        """Whether anything of the message may have been sent by now."""
        return self._delivery is not None and self.is_sent

    def cut_off(self, error: Exception) -> Outcome[Any]:
        """The outcome when something else than the request ended it."""
        if self._delivery is None or not self.may_have_landed:
            return self._outcome(OutcomeStatus.NOT_SENT, error)
        return self._delivery.cut_off(error)

    def _may_reopen(self, error: Exception | None) -> bool:
        if not isinstance(error, ConversationClosed) or not self._policy.reopen:
            return False
        # An earlier attempt may have landed before the close: in a new conversation that would be a second time.
        return error.landed is Landed.NO or self._policy.unknown == "resend"

    def _outcome(self, status: OutcomeStatus, error: Exception) -> Outcome[Any]:
        outgoing: Outgoing[None] = Outgoing(self._claim.message.consumer, "-")
        return Outcome(message=outgoing, status=status, error=error)


def _without_conversation(error: RequestError) -> OutcomeStatus:
    """The message was not sent; only a clear no to the opening means that it never can be."""
    refused = isinstance(error, RequestRefused) and not isinstance(error, ConversationAlreadyOpen)
    return OutcomeStatus.REFUSED if refused and error.landed is Landed.NO else OutcomeStatus.NOT_SENT
