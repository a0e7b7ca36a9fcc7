"""The secrets of one app, made ready to verify with."""

from __future__ import annotations

import binascii
import hmac
from collections.abc import Callable, Sequence

from connector_async.errors import InvalidSignature
from connector_async.protocol.signature import diagnose

__all__ = ["Keyring"]


class Keyring:
    """Tells whether a signature was made with one of these secrets.

    The texts are compared, not what they decode to: base64 has several spellings of the same bytes, and only one of
    them is a signature. A comparison takes the same time wherever the texts differ. A MAC is begun once for each
    secret and hash, and copied for each body: taking in the key is half the work on a short one.

    Args:
        current: The secrets in use.
        previous: Those of the past that are still accepted.
        others: Those of other apps and accounts: named in the diagnosis, never accepted.

    Source: Connector API, "Webhooks: notification protocol".
    """

    __slots__ = ("_begun", "_current", "_others", "_secrets")

    def __init__(self, *, current: Sequence[str], previous: Sequence[str], others: Sequence[str]) -> None:
        self._secrets = (*current, *previous)
        self._current = len(current)
        self._others = others
        self._begun: dict[str, list[Callable[[], hmac.HMAC]]] = {
            algorithm: [hmac.new(secret.encode(), digestmod=algorithm).copy for secret in self._secrets]
            for algorithm in ("sha1", "sha256")
        }

    def check(self, body: bytes, signature: str, *, with_diagnosis: bool) -> bool:
        """Whether the secret that the signature was made with is one of the past.

        Args:
            body: The body exactly as it was received.
            signature: The value of the header.
            with_diagnosis: Look for the likely cause of a misfit, at the price of hashing the body some thirty times.

        Raises:
            InvalidSignature: None fits; `reason` has the likely cause.
        """
        algorithm, _, given = signature.partition("=")
        begun = self._begun.get(algorithm)
        if begun is not None and given.isascii():
            text = given.encode()
            for index, begin in enumerate(begun):
                mac = begin()
                mac.update(body)
                if hmac.compare_digest(binascii.b2a_base64(mac.digest(), newline=False), text):
                    return index >= self._current
        reason = diagnose(body, signature, self._secrets, self._others) if with_diagnosis else ""
        raise InvalidSignature("the signature does not fit the body", reason=reason)

    def __repr__(self) -> str:
        return f"Keyring({len(self._secrets)} secrets)"
