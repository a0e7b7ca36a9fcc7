"""Every exception that leaves this package.

Facts are attributes; the message is one lower-case sentence. Nothing here imports the rest of the package,
and no class takes a required keyword, so that each error survives `copy.copy` and `pickle`. Tokens, secrets
and message text are never put into an error.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from connector_async.protocol.retry import Attempt

__all__ = [
    "AppTokenRefused",
    "AuthError",
    "BatchRefused",
    "ConfigurationError",
    "ConnectorError",
    "ConsumerTokenRefused",
    "ConversationAlreadyOpen",
    "ConversationClosed",
    "DeadlineExceeded",
    "InvalidSignature",
    "Landed",
    "LocalProtocolError",
    "MissingHeader",
    "NotSent",
    "OutcomeUnknown",
    "Phase",
    "ProtocolError",
    "QueueFull",
    "RateLimited",
    "RedirectRefused",
    "RemoteProtocolError",
    "ReqIdMismatch",
    "RequestError",
    "RequestRefused",
    "ResponseTooLarge",
    "SessionClosed",
    "StoreUnavailable",
    "TLSError",
    "TokenUnavailable",
    "TransportError",
    "UnknownAccount",
    "UnreadableNotification",
    "WebhookBodyTooLarge",
    "WebhookError",
    "WrongAccount",
    "WrongClient",
]


_LONGEST_FACT = 80  # characters; ids have at most 64


class Landed(Enum):
    """Whether the cloud acted on a request that did not end with its OK."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


class Phase(Enum):
    """How far an HTTP exchange had come when it failed."""

    POOL = "pool"
    CONNECT = "connect"
    TLS = "tls"
    WRITE = "write"
    WAIT = "wait"
    READ = "read"


def _shown(value: object) -> str:
    """A fact as part of one line: some come from the other side, and may hold anything."""
    text = str(value)
    return text if text.isprintable() and len(text) <= _LONGEST_FACT else ascii(text[:_LONGEST_FACT])


class ConnectorError(Exception):
    """Base of all errors of this package; never raised itself."""


class ConfigurationError(ConnectorError):
    """A setting is missing or cannot work; the message names it and says what to do."""


class UnknownAccount(ConnectorError):
    """No credentials are known for the account that was named."""


class StoreUnavailable(ConnectorError):
    """The store could not read or write: the disk is full, the file is locked, read-only or damaged."""


class RequestError(ConnectorError):
    """One request failed.

    Attributes:
        request_id: The id of the request on the wire, or None when it never got one.
        type: The request's wire type, such as `ms.PublishEvent`.
        code: The envelope's `code` as an int where it names an HTTP status, else as it came.
        error_code: The five digits of an authorization error, such as 40102.
        status: The HTTP status of the last answer.
        attempts: One `Attempt` for each time the request was sent, oldest first.
        landed: Whether the cloud acted on it.
        retryable: Whether sending it again later can succeed without a change.
        hint: What a person can do about it.
    """

    landed: Landed = Landed.NO
    retryable: bool = False
    hint: str = ""

    def __init__(
        self,
        message: str = "",
        *,
        request_id: str | None = None,
        type: str | None = None,  # noqa: A002 - the API's word
        code: int | str | None = None,
        error_code: int | None = None,
        status: int | None = None,
        attempts: Sequence[Attempt] = (),
        landed: Landed | None = None,
        retryable: bool | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message)
        self.request_id = request_id
        self.type = type
        self.code = code
        self.error_code = error_code
        self.status = status
        self.attempts = tuple(attempts)
        if landed is not None:
            self.landed = landed
        if retryable is not None:
            self.retryable = retryable
        if hint is not None:
            self.hint = hint

    def __str__(self) -> str:
        message = super().__str__() or type(self).__name__
        facts = [
            f"{name}={_shown(value)}"
            for name, value in (
                ("type", self.type),
                ("request_id", self.request_id),
                ("code", self.code),
                ("error_code", self.error_code),
                ("status", self.status),
                ("attempts", len(self.attempts) or None),
            )
            if value is not None
        ]
        if facts:
            message = f"{message} ({', '.join(facts)})"
        return f"{message}; {self.hint}" if self.hint else message


class RequestRefused(RequestError):
    """The cloud answered with a code other than OK."""

    hint = "the request itself has to change: `code` says what the cloud found wrong"


class ConversationClosed(RequestRefused):
    """The conversation was closed by the consumer, the agent or the system; it cannot be resumed."""

    hint = "open a new conversation: `await consumer.open_conversation()`"


class ConversationAlreadyOpen(RequestRefused):
    """The consumer has an open conversation, and may have only one.

    Attributes:
        conversation_id: Its id where this session knows it; the cloud's answer does not name it.
    """

    hint = "use the open one: `await consumer.ensure_conversation()`, or close it first"

    def __init__(self, message: str = "", *, conversation_id: str | None = None, **facts: object) -> None:
        super().__init__(message, **facts)  # type: ignore[arg-type]  # the keywords of RequestError, passed on
        self.conversation_id = conversation_id


class BatchRefused(RequestRefused):
    """At least one request of a batch was refused.

    Attributes:
        items: One entry for each request in the order given: the response, or the error.
    """

    hint = "`items` says which requests were refused and which were accepted"

    def __init__(self, message: str = "", *, items: Sequence[object] = (), **facts: object) -> None:
        super().__init__(message, **facts)  # type: ignore[arg-type]  # the keywords of RequestError, passed on
        self.items = tuple(items)


class NotSent(RequestError):
    """The request has certainly not landed: it never reached the API, and it is safe to send it again."""

    hint = "check that the host can be reached, then send it again"
    retryable = True


class OutcomeUnknown(RequestError):
    """The request was sent and no usable answer came: it may have landed; sending it again may double it."""

    hint = "sending it again may double it: look first whether it arrived"
    landed = Landed.UNKNOWN


class DeadlineExceeded(RequestError):
    """The time given for the request ran out; `landed` says whether the cloud may have acted on it.

    Attributes:
        stages: Seconds spent in each stage: `queued`, `token`, `sending`, `backing_off`.
    """

    hint = "`stages` says where the time went; if it is simply too short, raise `timeout=…`"
    landed = Landed.UNKNOWN

    def __init__(self, message: str = "", *, stages: dict[str, float] | None = None, **facts: object) -> None:
        super().__init__(message, **facts)  # type: ignore[arg-type]  # the keywords of RequestError, passed on
        self.stages = dict(stages or {})


class QueueFull(RequestError):
    """Too many requests are waiting already; this one was not sent.

    Attributes:
        depth: How many are waiting.
        age: Seconds that the oldest of them has waited.
    """

    hint = "send less at once, or raise `SessionLimits(max_queue=…)`"
    retryable = True

    def __init__(self, message: str = "", *, depth: int = 0, age: float = 0.0, **facts: object) -> None:
        super().__init__(message, **facts)  # type: ignore[arg-type]  # the keywords of RequestError, passed on
        self.depth = depth
        self.age = age


class RateLimited(RequestError):
    """The cloud answered 429 until the retry policy gave up.

    Attributes:
        retry_after: Seconds that the cloud asked to wait, or None when it did not say.
    """

    hint = "send more slowly: `SessionLimits(rate=…)` spreads the requests"
    retryable = True

    def __init__(self, message: str = "", *, retry_after: float | None = None, **facts: object) -> None:
        super().__init__(message, **facts)  # type: ignore[arg-type]  # the keywords of RequestError, passed on
        self.retry_after = retry_after


class SessionClosed(RequestError):
    """The session closed before the request ended; `landed` says whether it may have reached the cloud."""

    hint = "send it through an open session; `drain=…` gives a closing one more time"


class AuthError(RequestError):
    """The cloud did not accept who we are or for whom we act."""

    hint = "check the credentials of the app installation and whose conversation it is"


class AppTokenRefused(AuthError):
    """The app credentials, or the AppJWT made from them, were refused."""

    hint = "check the client id and secret of the app installation"


class ConsumerTokenRefused(AuthError):
    """The ConsumerJWS was refused, or the conversation belongs to another consumer."""

    hint = "check that the conversation belongs to this consumer"


class TokenUnavailable(AuthError):
    """A token is needed and the service that makes it gives none at the moment.

    Attributes:
        retry_after: Seconds that the service asked to wait, or None when it did not say.
    """

    hint = "the token service fails or cannot be reached: try again later"
    retryable = True

    def __init__(self, message: str = "", *, retry_after: float | None = None, **facts: object) -> None:
        super().__init__(message, **facts)  # type: ignore[arg-type]  # the keywords of RequestError, passed on
        self.retry_after = retry_after


class TransportError(ConnectorError):
    """No usable HTTP exchange took place.

    Attributes:
        phase: How far it had come.
        sent: False only if it is certain that no byte of the request left this process.
        reused: The connection had served an earlier request.
        answered: At least one byte of an answer came.
        timed_out: The deadline ended it.
        retryable: False where trying again cannot help, such as an untrusted certificate.
    """

    def __init__(
        self,
        message: str = "",
        *,
        phase: Phase = Phase.READ,
        sent: bool = True,
        reused: bool = False,
        answered: bool = False,
        timed_out: bool = False,
        retryable: bool = True,
    ) -> None:
        super().__init__(message)
        self.phase = phase
        self.sent = sent
        self.reused = reused
        self.answered = answered
        self.timed_out = timed_out
        self.retryable = retryable


class TLSError(TransportError):
    """The TLS handshake failed: untrusted, expired or for another host. Never retried."""

    def __init__(
        self,
        message: str = "",
        *,
        phase: Phase = Phase.TLS,
        sent: bool = False,
        reused: bool = False,
        answered: bool = False,
        timed_out: bool = False,
        retryable: bool = False,
    ) -> None:
        super().__init__(
            message,
            phase=phase,
            sent=sent,
            reused=reused,
            answered=answered,
            timed_out=timed_out,
            retryable=retryable,
        )


class ProtocolError(ConnectorError):
    """A rule of HTTP or of the API was broken."""


class LocalProtocolError(ProtocolError):
    """By us: the request does not fit the API; nothing was sent."""


class RemoteProtocolError(ProtocolError):
    """By them: what came cannot be read. Bytes of the request had been sent."""


class ResponseTooLarge(RemoteProtocolError):
    """The answer exceeds the size we read."""


class RedirectRefused(RemoteProtocolError):
    """The answer is a redirect; the API has none, and tokens are not carried to another place."""


class ReqIdMismatch(RemoteProtocolError):
    """The answer names a request that was not sent in this exchange; it is given to nobody."""


class WebhookError(ConnectorError):
    """A webhook delivery was refused.

    Attributes:
        status: The HTTP status to answer with.
    """

    status: int = 400


class MissingHeader(WebhookError):
    """A header that the API puts on every delivery is absent.

    Attributes:
        header: Its name.
    """

    status = 401

    def __init__(self, message: str = "", *, header: str = "") -> None:
        super().__init__(message)
        self.header = header


class WrongAccount(WebhookError):
    """The delivery names an account that this receiver does not serve."""

    status = 401


class WrongClient(WebhookError):
    """The delivery names an app (client id) that this receiver does not serve."""

    status = 401


class InvalidSignature(WebhookError):
    """The signature does not fit the body.

    Attributes:
        reason: The likely cause, for the log; never a reason to accept.
    """

    status = 401

    def __init__(self, message: str = "", *, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


class UnreadableNotification(WebhookError):
    """The signature fits, but the body is not a notification."""

    status = 400


class WebhookBodyTooLarge(WebhookError):
    """The body exceeds the size this receiver reads."""

    status = 413
