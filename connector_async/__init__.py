"""The asyncio client for LivePerson's Conversational Cloud Connector API.

from connector_async import AppCredentials, ConnectorSession

async with ConnectorSession("12345678", AppCredentials("client-id", "client-secret")) as session:
    conversation = await session.consumer("customer-42").open_conversation(skill_id="77")
    result = await conversation.send_text("Is my order on its way?")
    await conversation.close()
"""

import importlib as _importlib
import logging as _logging
from collections.abc import Mapping as _Mapping
from typing import TYPE_CHECKING
from typing import Final as _Final

from connector_async._version import __version__

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

# What is asked for is imported, and only that: a program that reads recorded webhooks, or catches our errors, does
# not pay for the session. Type checkers see the imports above.
_HOMES: _Final[_Mapping[str, tuple[str, ...]]] = {
    "_send_result": ("SendResult",),
    "auth": ("AppCredentials", "TokenSettings"),
    "consumer": ("Consumer", "Opening"),
    "conversation": ("Conversation",),
    "errors": (
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
        "NotSent",
        "OutcomeUnknown",
        "ProtocolError",
        "QueueFull",
        "RateLimited",
        "RemoteProtocolError",
        "RequestError",
        "RequestRefused",
        "SessionClosed",
        "TokenUnavailable",
        "TransportError",
        "UnknownAccount",
        "UnreadableNotification",
        "WebhookError",
    ),
    "exchange": ("PendingRequest", "Response"),
    "protocol.retry": ("Attempt", "RetryPolicy"),
    "session": (
        "Accounts",
        "CloseReport",
        "ConnectorSession",
        "Health",
        "Outcome",
        "OutcomeStatus",
        "OutcomeStream",
        "Outgoing",
        "SessionLimits",
        "SessionStats",
        "Submission",
    ),
    "store": ("MemoryStore", "PlaintextTokens", "PostgresStore", "SealedTokens", "SqliteStore", "Store"),
    "webhooks": ("Incoming", "Router", "WebhookApp", "WebhookReceiver"),
    "wire": (
        "AcceptStatus",
        "AcceptStatusEvent",
        "CampaignInfo",
        "ChatState",
        "ChatStateEvent",
        "ClientProperties",
        "ContentEvent",
        "ConversationContext",
        "Feature",
        "RawBody",
        "RichContentEvent",
        "Role",
        "SetUserProfile",
        "TtrType",
    ),
}
_MODULE_OF: _Final = {name: home for home, names in _HOMES.items() for name in names}
_MODULES: _Final = frozenset(
    {"auth", "consumer", "conversation", "domains", "errors", "exchange", "hooks", "protocol", "session", "store"}
    | {"transport", "webhooks", "wire"}
)

if not TYPE_CHECKING:  # else every misspelt name would pass

    def __getattr__(name: str) -> object:
        if name in _MODULES:
            return _importlib.import_module(f"{__name__}.{name}")
        home = _MODULE_OF.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(_importlib.import_module(f"{__name__}.{home}"), name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__, *_MODULES})
