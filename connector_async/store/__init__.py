"""Where a session keeps what it must remember: in memory, or in a file that survives it."""

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
from connector_async.store.sqlite import SqliteStore

__all__ = [
    "Admission",
    "ConsumerRecord",
    "ConversationRecord",
    "DeadDelivery",
    "Delivery",
    "DeliveryCounts",
    "MemoryStore",
    "SqliteStore",
    "Store",
]
