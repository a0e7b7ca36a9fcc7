"""Where a session keeps what it must remember: in memory, in a file that survives it, or in a database for many."""

from connector_async.store.base import (
    Admission,
    ConsumerRecord,
    ContactStore,
    ConversationRecord,
    DeadDelivery,
    Delivery,
    DeliveryCounts,
    Store,
)
from connector_async.store.memory import MemoryStore
from connector_async.store.outbox import (
    Advance,
    Claim,
    MessageState,
    Outbox,
    OutboxCounts,
    OutboxEntry,
    OutboxMessage,
    OutboxStore,
    PutResult,
    Settlement,
)
from connector_async.store.postgres import PostgresStore
from connector_async.store.sqlite import SqliteStore
from connector_async.store.tokens import PlaintextTokens, SealedTokens, SharedToken, TokenSeal, TokenShare

__all__ = [
    "Admission",
    "Advance",
    "Claim",
    "ConsumerRecord",
    "ContactStore",
    "ConversationRecord",
    "DeadDelivery",
    "Delivery",
    "DeliveryCounts",
    "MemoryStore",
    "MessageState",
    "Outbox",
    "OutboxCounts",
    "OutboxEntry",
    "OutboxMessage",
    "OutboxStore",
    "PlaintextTokens",
    "PostgresStore",
    "PutResult",
    "SealedTokens",
    "Settlement",
    "SharedToken",
    "SqliteStore",
    "Store",
    "TokenSeal",
    "TokenShare",
]
