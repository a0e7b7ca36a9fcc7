"""Tokens at rest, and one AppJWT for all processes that share a store."""

from __future__ import annotations

from types import ModuleType
from typing import Any, Protocol, runtime_checkable

import attrs

from connector_async._arguments import check_kind
from connector_async.errors import ConfigurationError

__all__ = ["PlaintextTokens", "SealedTokens", "SharedToken", "TokenSeal", "TokenShare", "check_seal"]


@runtime_checkable
class TokenSeal(Protocol):
    """How a durable store writes tokens down."""

    def seal(self, identity: str, token: str) -> str:
        """What is written for a token. `identity` says whose it is: what is sealed for one opens for no other."""
        ...

    def open(self, identity: str, sealed: str) -> str:
        """The token; empty if it cannot be opened (another key, another identity, damaged)."""
        ...


def check_seal(_store: object, _attribute: object, value: TokenSeal | None) -> None:
    """Raise TypeError for what is no seal: found out later, no token would be kept, and nobody told."""
    if value is not None:
        check_kind("tokens", value, TokenSeal, "`SealedTokens(key)`, `PlaintextTokens()` or None")


class PlaintextTokens:
    """Tokens are written as they are: whoever reads the store can speak for its consumers."""

    def seal(self, identity: str, token: str) -> str:
        """The token itself."""
        del identity
        return token

    def open(self, identity: str, sealed: str) -> str:
        """The token itself."""
        del identity
        return sealed


class SealedTokens:
    """Tokens are encrypted and authenticated (Fernet: AES-128-CBC with HMAC-SHA256); needs the extra `encryption`.

        store = SqliteStore("connector.db", tokens=SealedTokens(os.environ["TOKEN_KEY"]))

    Args:
        key: 32 bytes in URL-safe base64, as `SealedTokens.new_key()` makes them.
        previous: Older keys, which only open: for a rotation.

    Raises:
        ConfigurationError: A key is not of that form, or `cryptography` is not installed.
    """

    def __init__(self, key: str | bytes, *previous: str | bytes) -> None:
        fernet = _fernet()
        try:
            self._box: Any = fernet.MultiFernet([fernet.Fernet(one) for one in (key, *previous)])
        except (ValueError, TypeError):
            # Not `from`: that error may quote the key.
            raise ConfigurationError(
                "a token key is 32 bytes in URL-safe base64; SealedTokens.new_key() makes one"
            ) from None
        self._refused: type[Exception] = fernet.InvalidToken

    @staticmethod
    def new_key() -> str:
        """A fresh random key."""
        return str(_fernet().Fernet.generate_key(), "ascii")

    def seal(self, identity: str, token: str) -> str:
        """The token, encrypted together with whose it is."""
        return str(self._box.encrypt(f"{identity}\0{token}".encode()), "ascii") if token else ""

    def open(self, identity: str, sealed: str) -> str:
        """The token; empty if it cannot be opened, or was sealed for another."""
        try:
            whose, _, token = str(self._box.decrypt(sealed), "utf-8").rpartition("\0")
        except self._refused:
            return ""
        return token if whose == identity else ""

    def __repr__(self) -> str:
        return "SealedTokens()"


def _fernet() -> ModuleType:
    try:
        from cryptography import fernet
    except ImportError as error:
        raise ConfigurationError(
            "sealing tokens needs `cryptography`: pip install 'connector-async[encryption]'"
        ) from error
    return fernet


@attrs.frozen(kw_only=True)
class SharedToken:
    """An AppJWT that some process fetched for all."""

    value: str = attrs.field(repr=False)
    seconds: float
    """How long it lives on, by the store's clock."""


@runtime_checkable
class TokenShare(Protocol):
    """A place where the processes of an app installation find one AppJWT, and agree on who renews it.

    `name` is the app installation's client id. Times are seconds by the store's own clock.
    """

    @property
    def shares_tokens(self) -> bool:
        """Whether tokens put here can be read back (by a store that was given a way to write them)."""
        ...

    async def get_app_token(self, account_id: str, name: str) -> SharedToken | None:
        """The newest one, if it has not ended."""
        ...

    async def put_app_token(self, account_id: str, name: str, *, value: str, seconds: float, fence: int) -> bool:
        """Keep a token; False, and nothing changes, when one was put under a later lease."""
        ...

    async def acquire_lease(self, account_id: str, name: str, *, owner: str, seconds: float) -> int | None:
        """Become, or stay, the one who renews; the fencing number, or None while another holds the lease."""
        ...

    async def release_lease(self, account_id: str, name: str, *, owner: str) -> None:
        """Let the next one renew; ignored when the owner does not hold it."""
        ...
