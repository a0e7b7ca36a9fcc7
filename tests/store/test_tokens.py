"""Tokens at rest, one AppJWT for all, and receipts that another worker heard: the same for every engine."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import attrs
import pytest

from connector_async.errors import ConfigurationError
from connector_async.store import ConsumerRecord, ConversationRecord, MemoryStore, PostgresStore, SqliteStore, Store
from connector_async.store.tokens import PlaintextTokens, SealedTokens

pytestmark = pytest.mark.anyio

A = "12345678"
Sharing = MemoryStore | SqliteStore | PostgresStore


@pytest.fixture
def sharing(store: Store) -> Sharing:
    assert isinstance(store, MemoryStore | SqliteStore | PostgresStore)
    assert store.shares_tokens
    return store


async def test_a_token_is_found_by_all_until_it_ends(sharing: Sharing) -> None:
    """Issue of the pump, 4: one AppJWT for all processes."""
    assert await sharing.get_app_token(A, "client") is None
    fence = await sharing.acquire_lease(A, "client", owner="one", seconds=60)
    assert fence is not None
    assert await sharing.put_app_token(A, "client", value="jwt", seconds=3600, fence=fence)
    found = await sharing.get_app_token(A, "client")
    assert found is not None
    assert found.value == "jwt"
    assert 3590 < found.seconds <= 3600
    assert "jwt" not in repr(found)
    assert await sharing.get_app_token(A, "another") is None
    assert await sharing.get_app_token("another", "client") is None
    assert await sharing.put_app_token(A, "client", value="ended", seconds=0, fence=fence)
    assert await sharing.get_app_token(A, "client") is None


async def test_one_renews_at_a_time(sharing: Sharing) -> None:
    first = await sharing.acquire_lease(A, "client", owner="one", seconds=60)
    assert first is not None
    assert await sharing.acquire_lease(A, "client", owner="two", seconds=60) is None
    assert await sharing.acquire_lease(A, "client", owner="one", seconds=60) == first
    await sharing.release_lease(A, "client", owner="two")
    assert await sharing.acquire_lease(A, "client", owner="two", seconds=60) is None
    await sharing.release_lease(A, "client", owner="one")
    second = await sharing.acquire_lease(A, "client", owner="two", seconds=60)
    assert second is not None
    assert second > first


async def test_who_lost_the_lease_puts_no_token_over_a_newer_one(sharing: Sharing) -> None:
    """A paused process that wakes late must not bring an old token back."""
    paused = await sharing.acquire_lease(A, "client", owner="paused", seconds=0)
    assert paused is not None
    fence = await sharing.acquire_lease(A, "client", owner="next", seconds=60)
    assert fence is not None
    assert await sharing.put_app_token(A, "client", value="new", seconds=60, fence=fence)
    assert not await sharing.put_app_token(A, "client", value="old", seconds=60, fence=paused)
    found = await sharing.get_app_token(A, "client")
    assert found is not None
    assert found.value == "new"


async def test_receipts_are_told_to_every_worker(store: Store) -> None:
    await store.put_receipt(A, "c", "ACCEPT", [1, 2])
    await store.put_receipt(A, "c", "READ", [2, 2])
    assert await store.receipts_of(A, "c", 1) == {"ACCEPT"}
    assert await store.receipts_of(A, "c", 2) == {"ACCEPT", "READ"}
    assert await store.receipts_of(A, "c", 3) == frozenset()
    assert await store.receipts_of(A, "another", 1) == frozenset()


async def test_receipts_are_bounded_and_forgotten(store: Store) -> None:
    await store.put_conversation(ConversationRecord(account_id=A, conversation_id="c", ext_consumer_id="anna"))
    for number in range(150):
        await store.put_receipt(A, "c", "ACCEPT", [number])
    assert await store.receipts_of(A, "c", 0) == frozenset()
    assert await store.receipts_of(A, "c", 149) == {"ACCEPT"}
    await store.forget(A, "anna")
    assert await store.receipts_of(A, "c", 149) == frozenset()


RECORD = ConsumerRecord(account_id=A, ext_consumer_id="anna", lp_consumer_id="lp", token="a-consumer-jws")


def _all_bytes_in(folder: Path) -> str:
    return "".join(file.read_bytes().decode("latin-1") for file in folder.iterdir())


async def test_sealed_tokens_open_with_their_key_alone(tmp_path: Path) -> None:
    """Issue of the pump, 4: stored tokens are encrypted with a key that the user passes."""
    path = tmp_path / "s.db"
    key = SealedTokens.new_key()
    store = SqliteStore(path, tokens=SealedTokens(key))
    await store.put_consumer(RECORD)
    assert await store.get_consumer(A, "anna") == RECORD
    await store.aclose()
    assert "a-consumer-jws" not in _all_bytes_in(tmp_path)
    rotated = SqliteStore(path, tokens=SealedTokens(SealedTokens.new_key(), key))
    assert await rotated.get_consumer(A, "anna") == RECORD
    await rotated.aclose()
    stranger = SqliteStore(path, tokens=SealedTokens(SealedTokens.new_key()))
    assert await stranger.get_consumer(A, "anna") == attrs.evolve(RECORD, token="")
    await stranger.aclose()


async def test_a_store_that_was_told_nothing_writes_no_token(tmp_path: Path) -> None:
    """The user passes a key, or opts out by name; without either nothing is at rest."""
    store = SqliteStore(tmp_path / "s.db")
    await store.put_consumer(RECORD)
    assert await store.get_consumer(A, "anna") == attrs.evolve(RECORD, token="")
    assert not store.shares_tokens
    assert not await store.put_app_token(A, "client", value="jwt", seconds=60, fence=1)
    assert await store.get_app_token(A, "client") is None
    await store.aclose()
    with sqlite3.connect(tmp_path / "s.db") as db:
        assert db.execute("SELECT token FROM consumers UNION ALL SELECT token FROM app_tokens").fetchall() == [("",)]
    db.close()


def test_a_token_sealed_for_one_opens_for_no_other() -> None:
    """Whoever may write the store cannot give one consumer the token of another."""
    seal = SealedTokens(SealedTokens.new_key())
    sealed = seal.seal("a/anna", "jws")
    assert seal.open("a/anna", sealed) == "jws"
    assert seal.open("a/bert", sealed) == ""
    assert seal.open("a/anna", sealed[:-4] + "AAAA") == ""
    assert seal.open("a/anna", "nonsense") == ""
    assert seal.seal("a/anna", "") == ""
    assert repr(seal) == "SealedTokens()"


def test_a_key_of_another_form_is_refused_without_being_shown() -> None:
    with pytest.raises(ConfigurationError, match="32 bytes") as caught:
        SealedTokens("my-password")
    assert "my-password" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_missing_cryptography_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cryptography", None)
    with pytest.raises(ConfigurationError, match="encryption"):
        SealedTokens.new_key()


def test_plain_text_is_what_it_says() -> None:
    seal = PlaintextTokens()
    assert seal.open("anybody", seal.seal("a/anna", "jws")) == "jws"
