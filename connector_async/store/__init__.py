"""Where a session keeps what it must remember: in memory, in a file that survives it, or in a database for many."""

from typing import TYPE_CHECKING

from connector_async._lazy import lazily as _lazily
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

_HOMES = {"postgres": "PostgresStore", "sqlite": "SqliteStore"}

if TYPE_CHECKING:
    from connector_async.store.postgres import PostgresStore
    from connector_async.store.sqlite import SqliteStore
else:  # type checkers would let every misspelt name pass
    __getattr__ = _lazily(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
