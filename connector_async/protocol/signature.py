"""Raw body, header and secrets in; which secret fits, or InvalidSignature, out.

The body is never parsed here: whoever reads JSON before the signature is checked lets strangers use the parser.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from connector_async.errors import InvalidSignature

__all__ = ["Algorithm", "Keyring", "diagnose", "sign"]

Algorithm = Literal["sha1", "sha256"]

_DIGEST_SIZES = {"sha1": 20, "sha256": 32}
_OTHER_HASHES = ("sha1", "sha256", "sha512", "sha384", "sha224", "md5")
_MAX_DIAGNOSED_BYTES = 16_384
"""Larger bodies get no diagnosis: it hashes the body some thirty times, and strangers may ask for it."""


def sign(body: bytes, secret: str, algorithm: Algorithm = "sha1") -> str:
    """The value of `x-liveperson-signature` for a body.

    Source: Connector API, "Webhooks: notification protocol"; SHA-256 is what accounts switched on request use.
    """
    return f"{algorithm}={_base64_hmac(body, secret, algorithm)}"


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
        self._begun: dict[bytes, list[Callable[[], hmac.HMAC]]] = {
            algorithm.encode(): [hmac.new(secret.encode(), digestmod=algorithm).copy for secret in self._secrets]
            for algorithm in ("sha1", "sha256")
        }

    def check(self, body: bytes, signature: bytes, *, with_diagnosis: bool) -> bool:
        """Whether the secret that the signature was made with is one of the past.

        Args:
            body: The body exactly as it was received.
            signature: The value of the header.
            with_diagnosis: Look for the likely cause of a misfit, at the price of hashing the body some thirty times.

        Raises:
            InvalidSignature: None fits; `reason` has the likely cause.
        """
        algorithm, _, given = signature.partition(b"=")
        begun = self._begun.get(algorithm)
        if begun is not None:
            for index, begin in enumerate(begun):
                mac = begin()
                mac.update(body)
                if hmac.compare_digest(binascii.b2a_base64(mac.digest(), newline=False), given):
                    return index >= self._current
        reason = diagnose(body, signature.decode("latin-1"), self._secrets, self._others) if with_diagnosis else ""
        raise InvalidSignature("the signature does not fit the body", reason=reason)

    def __repr__(self) -> str:
        return f"Keyring({len(self._secrets)} secrets)"


def diagnose(body: bytes, signature: str, secrets: Sequence[str], other_secrets: Sequence[str] = ()) -> str:
    """The likely cause of a signature that does not fit, in words for a log. Never a reason to accept.

    Args:
        body: The body as it was received.
        signature: The value of the header.
        secrets: Those that were tried.
        other_secrets: Those of other apps and accounts known here.
    """
    algorithm, _, given = signature.partition("=")
    if algorithm not in _DIGEST_SIZES:
        return _diagnose_label(signature)
    if not given:
        return "the signature is empty"
    if len(body) > _MAX_DIAGNOSED_BYTES:
        return "not diagnosed: the body is large"
    for reason, candidate in _readings(body, algorithm, secrets, other_secrets):
        if hmac.compare_digest(candidate.encode(), given.encode(errors="replace")):
            return reason
    return _diagnose_shape(algorithm, given)


def _base64_hmac(body: bytes, secret: str, algorithm: str) -> str:
    return base64.b64encode(hmac.digest(secret.encode(), body, algorithm)).decode()


def _diagnose_label(signature: str) -> str:
    label, separator, _ = signature.partition("=")
    if not signature.strip():
        return "the signature is empty"
    if separator and label.strip().lower() in _DIGEST_SIZES:
        return "the algorithm is spelled in another way than sha1= or sha256="
    return "the signature does not begin with sha1= or sha256="


def _diagnose_shape(algorithm: str, given: str) -> str:
    encoded_size = len(base64.b64encode(bytes(_DIGEST_SIZES[algorithm])))
    if len(given) != encoded_size:
        return f"not a base64 {algorithm} digest: {len(given)} characters, not {encoded_size}"
    return "another secret, or another body than the one that was signed"


def _readings(
    body: bytes, algorithm: str, secrets: Sequence[str], other_secrets: Sequence[str]
) -> Iterator[tuple[str, str]]:
    """What would have been the signature under each known mistake, the likely ones first."""
    for secret in other_secrets:
        yield "made with another secret known here: another app or account", _base64_hmac(body, secret, algorithm)
    for secret in secrets:
        if secret != secret.strip():
            yield "the configured secret has white space around it", _base64_hmac(body, secret.strip(), algorithm)
        for reason, original in _originals(body):
            yield reason, _base64_hmac(original, secret, algorithm)
        yield from _other_encodings(body, secret, algorithm)


def _other_encodings(body: bytes, secret: str, algorithm: str) -> Iterator[tuple[str, str]]:
    digest = hmac.digest(secret.encode(), body, algorithm)
    yield "hexadecimal where base64 belongs", digest.hex()
    yield "hexadecimal where base64 belongs", digest.hex().upper()
    yield "URL-safe base64 where the standard alphabet belongs", base64.urlsafe_b64encode(digest).decode()
    yield "base64 without its padding", base64.b64encode(digest).decode().rstrip("=")
    for other in _OTHER_HASHES:
        if other != algorithm:
            yield f"the digest is {other}, the label says {algorithm}", _base64_hmac(body, secret, other)


def _originals(body: bytes) -> Iterator[tuple[str, bytes]]:
    """Bodies that may have been signed, if what stands before us between the wire and here was changed."""
    yield "a trailing newline was added to the body", body.rstrip(b"\r\n")
    yield "a trailing newline was cut from the body", body + b"\n"
    yield "a trailing newline was cut from the body", body + b"\r\n"
    try:
        text = body.decode()
    except UnicodeDecodeError:
        # Not UTF-8: somebody decoded the UTF-8 of the wire and encoded it again in another way.
        for encoding in ("utf-16", "utf-16-le", "cp1252", "latin-1"):
            yield f"the body came as {encoding}, not UTF-8", body.decode(encoding, errors="replace").encode()
        return
    yield "a byte order mark was added to the body", text.removeprefix("\ufeff").encode()
    yield "the signer hashed the body as ASCII", text.encode("ascii", errors="replace")
    latin = text.encode("latin-1", errors="replace")
    yield _LATIN_TWICE if _is_utf8(latin) else "the signer hashed the body as latin-1", latin
    yield "the signer hashed the body as UTF-16", text.encode("utf-16-le")
    yield "the body was decoded as cp1252 and encoded as UTF-8", text.encode("cp1252", errors="ignore")
    compact = _compact(text)
    for original in (compact, _unescaped(compact), _escaped(compact), _escaped(text), _unescaped(text)):
        yield "the body is JSON written anew, not the bytes of the wire", original.encode()


_LATIN_TWICE = "the body was decoded as latin-1 and encoded as UTF-8"


def _is_utf8(data: bytes) -> bool:
    """UTF-8 that was taken for latin-1 is UTF-8 again; other text hardly ever is."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*+"?|\s++|[^"\s]++', re.DOTALL)
_ESCAPE = re.compile(r"(?:\\u[0-9a-fA-F]{4})+")
_NON_ASCII = re.compile(r"[^\x00-\x7f]")


def _compact(text: str) -> str:
    """The JSON text without the white space between its tokens."""
    return "".join(token for token in _TOKEN.findall(text) if not token.isspace())


def _unescaped(text: str) -> str:
    r"""The JSON text with characters in place of their `\uXXXX`, as most serialisers write it."""
    return _ESCAPE.sub(_unescape, text)


def _unescape(match: re.Match[str]) -> str:
    units = [int(unit, 16) for unit in match[0].split(r"\u")[1:]]
    if any(unit < 0x20 or unit in {0x22, 0x5C} for unit in units):
        return match[0]
    return b"".join(unit.to_bytes(2, "big") for unit in units).decode("utf-16-be", errors="replace")


def _escaped(text: str) -> str:
    r"""The JSON text with `\uXXXX` in place of all that is not ASCII, as Python's json writes it."""
    return _NON_ASCII.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    units = match[0].encode("utf-16-be")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))
