"""The asyncio client for LivePerson's Conversational Cloud Connector API.

from connector_async import AppCredentials, ConnectorSession

async with ConnectorSession("12345678", AppCredentials("client-id", "client-secret")) as session:
    conversation = await session.consumer("customer-42").open_conversation(skill_id="77")
    result = await conversation.send_text("Is my order on its way?")
    await conversation.close()
"""

import logging as _logging
from typing import TYPE_CHECKING

from connector_async._lazy import lazily as _lazily
from connector_async._version import __version__

_logging.getLogger("connector_async").addHandler(_logging.NullHandler())

__all__ = [
    "AcceptStatus",
    "AcceptStatusEvent",
    "Accounts",
    "AppCredentials",
    "AppTokenRefused",
    "Attempt",
    "AuthError",
    "BatchRefused",
    "CampaignInfo",
    "ChatState",
    "ChatStateEvent",
    "ClientProperties",
    "CloseReport",
    "ConfigurationError",
    "ConnectorError",
    "ConnectorSession",
    "Consumer",
    "ConsumerTokenRefused",
    "ContentEvent",
    "Conversation",
    "ConversationAlreadyOpen",
    "ConversationClosed",
    "ConversationContext",
    "DeadlineExceeded",
    "Feature",
    "Health",
    "Incoming",
    "InvalidSignature",
    "Landed",
    "LocalProtocolError",
    "MemoryStore",
    "NotSent",
    "Opening",
    "Outcome",
    "OutcomeStatus",
    "OutcomeStream",
    "OutcomeUnknown",
    "Outgoing",
    "PendingRequest",
    "PlaintextTokens",
    "PostgresStore",
    "ProtocolError",
    "QueueFull",
    "RateLimited",
    "RawBody",
    "RemoteProtocolError",
    "RequestError",
    "RequestRefused",
    "Response",
    "RetryPolicy",
    "RichContentEvent",
    "Role",
    "Router",
    "SealedTokens",
    "SendResult",
    "SessionClosed",
    "SessionLimits",
    "SessionStats",
    "SetUserProfile",
    "SqliteStore",
    "Store",
    "Submission",
    "TokenSettings",
    "TokenUnavailable",
    "TransportError",
    "TtrType",
    "UnknownAccount",
    "UnreadableNotification",
    "WebhookApp",
    "WebhookError",
    "WebhookReceiver",
    "__version__",
]

_HOMES = {
    "_send_result": "SendResult",
    "auth": "AppCredentials TokenSettings",
    "consumer": "Consumer Opening",
    "conversation": "Conversation",
    "errors": (
        "AppTokenRefused AuthError BatchRefused ConfigurationError ConnectorError ConsumerTokenRefused "
        "ConversationAlreadyOpen ConversationClosed DeadlineExceeded InvalidSignature Landed "
        "LocalProtocolError NotSent OutcomeUnknown ProtocolError QueueFull RateLimited RemoteProtocolError "
        "RequestError RequestRefused SessionClosed TokenUnavailable TransportError UnknownAccount "
        "UnreadableNotification WebhookError"
    ),
    "exchange": "PendingRequest Response",
    "protocol.retry": "Attempt RetryPolicy",
    "session": (
        "Accounts CloseReport ConnectorSession Health Outcome OutcomeStatus OutcomeStream Outgoing "
        "SessionLimits SessionStats Submission"
    ),
    "store": "MemoryStore PlaintextTokens PostgresStore SealedTokens SqliteStore Store",
    "webhooks": "Incoming Router WebhookApp WebhookReceiver",
    "wire": (
        "AcceptStatus AcceptStatusEvent CampaignInfo ChatState ChatStateEvent ClientProperties ContentEvent "
        "ConversationContext Feature RawBody RichContentEvent Role SetUserProfile TtrType"
    ),
}
_MODULES = frozenset(
    {"auth", "consumer", "conversation", "domains", "errors", "exchange", "hooks", "protocol", "session", "store"}
    | {"transport", "webhooks", "wire"}
)

if TYPE_CHECKING:
    from connector_async._send_result import SendResult
    from connector_async.auth import AppCredentials, TokenSettings
    from connector_async.consumer import Consumer, Opening
    from connector_async.conversation import Conversation
    from connector_async.errors import (
        AppTokenRefused,
        AuthError,
        BatchRefused,
        ConfigurationError,
        ConnectorError,
        ConsumerTokenRefused,
        ConversationAlreadyOpen,
        ConversationClosed,
        DeadlineExceeded,
        InvalidSignature,
        Landed,
        LocalProtocolError,
        NotSent,
        OutcomeUnknown,
        ProtocolError,
        QueueFull,
        RateLimited,
        RemoteProtocolError,
        RequestError,
        RequestRefused,
        SessionClosed,
        TokenUnavailable,
        TransportError,
        UnknownAccount,
        UnreadableNotification,
        WebhookError,
    )
    from connector_async.exchange import PendingRequest, Response
    from connector_async.protocol.retry import Attempt, RetryPolicy
    from connector_async.session import (
        Accounts,
        CloseReport,
        ConnectorSession,
        Health,
        Outcome,
        OutcomeStatus,
        OutcomeStream,
        Outgoing,
        SessionLimits,
        SessionStats,
        Submission,
    )
    from connector_async.store import (
        MemoryStore,
        PlaintextTokens,
        PostgresStore,
        SealedTokens,
        SqliteStore,
        Store,
    )
    from connector_async.webhooks import Incoming, Router, WebhookApp, WebhookReceiver
    from connector_async.wire import (
        AcceptStatus,
        AcceptStatusEvent,
        CampaignInfo,
        ChatState,
        ChatStateEvent,
        ClientProperties,
        ContentEvent,
        ConversationContext,
        Feature,
        RawBody,
        RichContentEvent,
        Role,
        SetUserProfile,
        TtrType,
    )
else:  # type checkers would let every misspelt name pass
    __getattr__ = _lazily(__name__, _HOMES, _MODULES)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
