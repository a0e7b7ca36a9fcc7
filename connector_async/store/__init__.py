"""Where a session keeps what it must remember: in memory, in a file that survives it, or in a database for many."""

from connector_async.store.base import (
    Admission,
    ConsumerRecord,
    ConversationRecord,
    DeadDelivery,
    Delivery,
    DeliveryCounts,
    Store,
)
from connector_async.store.memory import MemoryStore
from connector_async.store.postgres import PostgresStore
from connector_async.store.sqlite import SqliteStore

__all__ = [
    "Admission",
    "ConsumerRecord",
    "ConversationRecord",
    "DeadDelivery",
    "Delivery",
    "DeliveryCounts",
    "MemoryStore",
    "PostgresStore",
    "SqliteStore",
    "Store",
]
