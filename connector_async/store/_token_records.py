"""Consumer records as a durable store writes them: the token sealed, or left out."""

from __future__ import annotations

from typing import overload

import attrs

from connector_async.store.base import ConsumerRecord
from connector_async.store.tokens import TokenSeal

__all__ = ["app_identity", "opened", "sealed"]


def sealed(seal: TokenSeal | None, record: ConsumerRecord) -> ConsumerRecord:
    """The record as it is written; without a seal no token is."""
    token = seal.seal(_identity(record), record.token) if seal is not None and record.token else ""
    return attrs.evolve(record, token=token)


@overload
def opened(seal: TokenSeal | None, record: ConsumerRecord) -> ConsumerRecord: ...
@overload
def opened(seal: TokenSeal | None, record: None) -> None: ...
def opened(seal: TokenSeal | None, record: ConsumerRecord | None) -> ConsumerRecord | None:
    """The record as it was put; the token is empty if it was not written, or cannot be opened."""
    if record is None:
        return None
    token = seal.open(_identity(record), record.token) if seal is not None and record.token else ""
    return attrs.evolve(record, token=token)


def app_identity(account_id: str, name: str) -> str:
    """Whose an AppJWT is."""
    return f"{account_id}/app/{name}"


def _identity(record: ConsumerRecord) -> str:
    return f"{record.account_id}/{record.ext_consumer_id}"
