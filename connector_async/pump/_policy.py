"""From what became of a send to what becomes of the message: one pure function, and the settings it goes by."""

from __future__ import annotations

from typing import Any, Literal, cast

import attrs

from connector_async._send_result import SendResult
from connector_async.errors import (
    AuthError,
    ConfigurationError,
    ConnectorError,
    ConversationAlreadyOpen,
    ConversationClosed,
    LocalProtocolError,
    NotSent,
    QueueFull,
    RateLimited,
    RequestError,
    RequestRefused,
)
from connector_async.session import Outcome, OutcomeStatus
from connector_async.store.outbox import Claim, MessageState, Settlement

__all__ = ["PumpPolicy", "in_doubt", "is_accident", "judge", "left_behind", "prior_attempts"]


_MOST_DOUBLINGS = 30  # beyond this every pause is the longest one; keeps the power of two small


def _one_of(*values: str) -> Any:
    def check(_policy: object, attribute: attrs.Attribute[Any], value: object) -> None:
        if value not in values:
            raise ConfigurationError(f"policy: {attribute.name} must be one of {values}, got {value!r}")

    return check


def _above_zero(_policy: object, attribute: attrs.Attribute[Any], value: float | None) -> None:
    if value is not None and not value > 0:
        raise ConfigurationError(f"policy: {attribute.name} must be above 0, got {value!r}")


@attrs.frozen(kw_only=True)
class PumpPolicy:
    """What a pump does with messages that were not accepted.

    Attributes:
        unknown: `resend` what may have landed, under the same request id and marked `maybe_duplicate`; or `leave` it,
            UNKNOWN, for a person. What a crashed process had begun may have landed too, and no echo settles it: an
            echo does not name its request, so that of an earlier message with the same text would be taken for it,
            and the message be lost in silence. Sent again it is there twice at worst, and says so.
        after_refusal: `continue` with the messages behind a dead one, or let them `wait` until it is revived or
            discarded.
        reopen: Open a new conversation for a message whose conversation turns out to be closed. If not, that message
            is refused.
        max_attempts: Give a message up after it was sent this often; None for never. What never reaches the cloud
            costs no attempt; but an error that is none of ours does, such as that of a bug, for it may come for ever.
        max_openings: Give a message up after the cloud has said this often in a row that its consumer has an open
            conversation, and nobody here could name it; None for never. That is so after a process has died between
            the opening and writing down the id, which the cloud tells once. A conversation change that comes to the
            webhooks of any process with this store names it. Without webhooks it has to be closed by an agent; then
            the message is sent in a new one, if it waits, or once it is revived. It ends NOT_SENT, but UNKNOWN if a
            process has died over it.
        first_backoff: Seconds until a message that was not accepted is sent again; doubled each time.
        longest_backoff: Seconds that they never exceed, unless the cloud says more.
        timeout: Seconds for opening a conversation, and for sending a message.

    Raises:
        ConfigurationError: A value cannot work; the message names it.
    """

    unknown: Literal["resend", "leave"] = attrs.field(default="resend", validator=_one_of("resend", "leave"))
    after_refusal: Literal["continue", "wait"] = attrs.field(
        default="continue", validator=_one_of("continue", "wait")
    )
    reopen: bool = True
    max_attempts: int | None = attrs.field(default=None, validator=_above_zero)
    max_openings: int | None = attrs.field(default=None, validator=_above_zero)
    first_backoff: float = attrs.field(default=1.0, validator=_above_zero)
    longest_backoff: float = attrs.field(default=60.0, validator=_above_zero)
    timeout: float = attrs.field(default=60.0, validator=_above_zero)


def in_doubt(claim: Claim) -> bool:
    """Whether it may have landed before this claim."""
    return claim.was_begun or claim.maybe_duplicate


def prior_attempts(claim: Claim) -> int:
    """What the counter of its sends goes on from.

    The session takes whatever was sent before as something that may have landed. So sends that certainly did not land
    (a 429, say) are kept from it; they count in the outbox alone.
    """
    return max(1, claim.attempts) if in_doubt(claim) else 0


def left_behind(claim: Claim, policy: PumpPolicy) -> Settlement | None:
    """The end of a message that an owner left begun, where nothing may be doubled."""
    if not claim.was_begun or policy.unknown == "resend":
        return None
    return Settlement(
        state=MessageState.UNKNOWN,
        attempts=max(1, claim.attempts),
        reason="a process ended while it was sending this; the policy is to leave it",
        maybe_duplicate=True,
    )


def judge(claim: Claim, outcome: Outcome[Any], policy: PumpPolicy, *, failures: int = 0) -> Settlement:
    """What becomes of a message that was sent, or could not be.

    Args:
        failures: How often in a row it was put off before, which doubles the pause each time.
    """
    if outcome.status is OutcomeStatus.ACCEPTED and outcome.result is not None:
        return _accepted(claim, outcome, outcome.result)
    unclear = _is_unclear(claim, outcome)
    maybe = in_doubt(claim) or unclear
    attempts = _attempts(claim, outcome)
    given_up = policy.max_attempts is not None and attempts >= policy.max_attempts
    if isinstance(outcome.error, ConversationAlreadyOpen) and policy.max_openings is not None:
        given_up = given_up or failures + 1 >= policy.max_openings
    refused = _is_refusal(outcome, policy)
    if refused or given_up or (unclear and policy.unknown == "leave"):
        state = MessageState.UNKNOWN if maybe else MessageState.REFUSED if refused else MessageState.NOT_SENT
    else:
        state = MessageState.WAITING
    is_dead = refused or state is MessageState.NOT_SENT
    return Settlement(
        state=state,
        attempts=attempts,
        conversation_id=_text(outcome.conversation_id),
        reason=_unnamed(claim)
        if isinstance(outcome.error, ConversationAlreadyOpen)
        else _text(_reason(outcome.error)),
        maybe_duplicate=maybe,
        retry_in=0.0 if state.is_final else _pause(outcome.error, policy, failures),
        holds_lane=is_dead and policy.after_refusal == "wait",
    )


def _accepted(claim: Claim, outcome: Outcome[Any], result: SendResult) -> Settlement:
    return Settlement(
        state=MessageState.ACCEPTED,
        attempts=_attempts(claim, outcome),
        sequence=_number(result.sequence),
        conversation_id=_text(outcome.conversation_id),
        maybe_duplicate=in_doubt(claim) or outcome.maybe_duplicate,
    )


# What the cloud says of one message is written down with what it says of others. What an engine refuses it refuses
# each time, and with it the ends of all of them.


def _number(value: object) -> int | None:
    """A number that every engine can keep."""
    try:
        number = int(cast("Any", value))
    except (TypeError, ValueError, OverflowError):
        return None
    return number if -(2**63) <= number < 2**63 else None


def _text(value: str | None) -> str | None:
    """A text that every engine can keep: NUL is none of PostgreSQL's characters."""
    return None if value is None else value.replace("\0", "\ufffd").encode(errors="replace").decode()


def is_accident(outcome: Outcome[Any]) -> bool:
    """Whether something failed that says nothing of the message: a bug, of ours or of a transport's or a store's."""
    is_told = outcome.error is None or isinstance(outcome.error, ConnectorError)
    return not is_told and outcome.status is not OutcomeStatus.REFUSED


def _attempts(claim: Claim, outcome: Outcome[Any]) -> int:
    """How often it was sent until now."""
    before = max(prior_attempts(claim), claim.attempts)
    if outcome.result is not None:
        return before + max(1, len(outcome.result.attempts))
    error = outcome.error
    if is_accident(outcome):
        return before + 1
    if outcome.conversation_id is None or isinstance(error, NotSent):
        return before  # attempts of the error, if any, are those of opening the conversation
    sent = len(error.attempts) if isinstance(error, RequestError) else 0
    return before + max(sent, 1 if outcome.status is OutcomeStatus.UNKNOWN else 0)


def _is_unclear(claim: Claim, outcome: Outcome[Any]) -> bool:
    """Whether it may have landed this time; that it may have before makes the session say so of any failure."""
    clear = isinstance(outcome.error, RateLimited | AuthError | QueueFull | NotSent | RequestRefused)
    return outcome.status is OutcomeStatus.UNKNOWN and not (clear and in_doubt(claim))


def _is_refusal(outcome: Outcome[Any], policy: PumpPolicy) -> bool:
    """Whether the message can never succeed as it is: credentials, load and open conversations are not its fault."""
    error = outcome.error
    if isinstance(error, ConversationClosed):
        return not policy.reopen
    if isinstance(error, ConversationAlreadyOpen):
        return False
    if isinstance(error, RequestRefused):
        return not error.retryable
    # A ValueError or a TypeError may come of anything; the session says whether it is of the message.
    is_unfit = outcome.status is OutcomeStatus.REFUSED and isinstance(error, ValueError | TypeError)
    return is_unfit or isinstance(error, LocalProtocolError)


def _pause(error: Exception | None, policy: PumpPolicy, failures: int) -> float:
    pause = min(policy.first_backoff * 2.0 ** min(failures, _MOST_DOUBLINGS), policy.longest_backoff)
    asked: object = getattr(error, "retry_after", None)
    return max(pause, asked) if isinstance(asked, int | float) else pause


def _unnamed(claim: Claim) -> str:
    """Why a message waits for a conversation, or was given up over it, and what helps.

    That a process has died over it is written down, what that process was at is not: one more flush of the disk for
    each opening would say no more than that the cloud knows a conversation which the store does not.
    """
    if in_doubt(claim):
        cause = "a process died when this was its turn, most likely while the conversation was being opened"
    else:
        cause = "another program opened it, or a process that died before it could write down the id"
    return (
        f"ConversationAlreadyOpen: the consumer has an open conversation whose id is not known here: {cause}. "
        "What helps: a webhook connected to this store, which names it with its next change; or an agent who closes "
        "it, after which this can be sent again"
    )


def _reason(error: Exception | None) -> str | None:
    """One sentence. Our own errors show no texts and no secrets; of others nobody can know."""
    if isinstance(error, ConnectorError):
        return f"{type(error).__name__}: {error}"
    return None if error is None else type(error).__name__
