"""Signatures are checked over raw bytes, in one spelling only, and a misfit is explained without being accepted."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector_async.errors import InvalidSignature
from connector_async.protocol.signature import Keyring, diagnose, sign

VECTORS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "vectors" / "webhook_signatures.json").read_text(encoding="utf-8")
)
SECRET = "rl9hacst6kqilbofup64n11ga3"
BODY = '{"kind":"notification","text":"naïve 你好 👩‍👩‍👧 e\u0301"}'.encode()


def check(
    body: bytes, signature: str, *secrets: str, others: Sequence[str] = (), with_diagnosis: bool = False
) -> bool:
    """Whether the secret that fits is not the first."""
    keyring = Keyring(current=secrets[:1], previous=secrets[1:], others=others)
    return keyring.check(body, signature.encode("latin-1", "replace"), with_diagnosis=with_diagnosis)


def slow_hmac(body: bytes, secret: str, name: str) -> bytes:
    """HMAC as RFC 2104 writes it, independent of the standard library's `hmac`."""
    key = secret.encode()
    block = hashlib.new(name).block_size
    if len(key) > block:
        key = hashlib.new(name, key).digest()
    key = key.ljust(block, b"\0")
    inner = hashlib.new(name, bytes(byte ^ 0x36 for byte in key) + body).digest()
    return hashlib.new(name, bytes(byte ^ 0x5C for byte in key) + inner).digest()


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_signatures_of_the_vendor_verify(vector: dict[str, Any]) -> None:
    """Both samples were published with secret, body and signature in the vendor's demo."""
    assert not check(vector["body"].encode(), vector["signature"], vector["secret"])
    assert sign(vector["body"].encode(), vector["secret"]) == vector["signature"]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_w2_a_flipped_bit_of_body_or_signature_is_refused(vector: dict[str, Any]) -> None:
    """Every single bit; base64 has unused bits, which count as well (fault table W2)."""
    body, signature, secret = vector["body"].encode(), vector["signature"].encode(), vector["secret"]
    for flipped in _flips(body):
        with pytest.raises(InvalidSignature):
            check(flipped, signature.decode(), secret)
    for flipped in _flips(signature):
        with pytest.raises(InvalidSignature):
            check(body, flipped.decode("latin-1"), secret)


@pytest.mark.no_cover
def test_w2_a_flipped_bit_of_eighteen_more_samples_is_refused() -> None:
    """Short and long bodies, both algorithms, text of all kinds (fault table W2: about 100,000 flips)."""
    flips = 0
    for number in range(18):
        body, name = BODY * (number % 9 + 6), ("sha1", "sha256")[number % 2]
        signature = f"{name}={base64.b64encode(slow_hmac(body, SECRET, name)).decode()}"
        for flipped in _flips(body):
            flips += 1
            assert not _fits(flipped, signature)
        for wrong in _flips(signature.encode()):
            flips += 1
            assert not _fits(body, wrong.decode("latin-1"))
    assert flips > 90_000


def _fits(body: bytes, signature: str) -> bool:
    try:
        check(body, signature, SECRET)
    except InvalidSignature:
        return False
    return True


def _flips(data: bytes) -> list[bytes]:
    number = int.from_bytes(data, "big")
    return [(number ^ (1 << bit)).to_bytes(len(data), "big") for bit in range(len(data) * 8)]


@given(
    body=st.binary(max_size=300), secret=st.text(min_size=1, max_size=80), name=st.sampled_from(["sha1", "sha256"])
)
def test_signatures_of_an_independent_implementation_verify(body: bytes, secret: str, name: str) -> None:
    """Any bytes, any secret: HMAC as the RFC defines it."""
    secret = secret.encode("utf-8", "replace").decode()
    signature = f"{name}={base64.b64encode(slow_hmac(body, secret, name)).decode()}"
    assert check(body, signature, "another", secret)


def test_it_is_told_whether_an_old_secret_fits() -> None:
    """Rotation: several secrets at once (issue of the webhooks, 1)."""
    for index, secret in enumerate(["new", "old", "older"]):
        assert check(BODY, sign(BODY, secret, "sha256"), "new", "old", "older") == (index > 0)


def _reason(body: bytes, signature: str, secrets: list[str] | None = None, others: list[str] | None = None) -> str:
    with pytest.raises(InvalidSignature) as caught:
        check(body, signature, *(secrets or [SECRET]), others=others or [], with_diagnosis=True)
    return caught.value.reason


def test_another_known_secret_is_named_but_not_believed() -> None:
    """A delivery of one app sent to the endpoint of another."""
    reason = _reason(BODY, sign(BODY, "theirs"), others=["theirs"])
    assert reason == "made with another secret known here: another app or account"


def test_white_space_around_the_configured_secret_is_noticed() -> None:
    """A secret read from a file ends with a newline."""
    reason = _reason(BODY, sign(BODY, SECRET), [SECRET + "\n"])
    assert reason == "the configured secret has white space around it"


@pytest.mark.parametrize(
    ("received", "signed"),
    [
        (json.dumps(json.loads(BODY)).encode(), BODY),
        (json.dumps(json.loads(BODY), ensure_ascii=False).encode(), BODY),
        (json.dumps(json.loads(BODY), ensure_ascii=False, indent=2).encode(), BODY),
        (json.dumps(json.loads(BODY), separators=(",", ":")).encode(), BODY),
        (BODY, json.dumps(json.loads(BODY), separators=(",", ":")).encode()),
        (b'{"a": "say \\"no\\u0022 \\u0007"}', b'{"a":"say \\"no\\u0022 \\u0007"}'),
        (b'{"a":"\\ud83d\\ude00", "b": 1}', '{"a":"😀","b":1}'.encode()),
        (
            rb'{"a": "\u00fcx\u0022x\u005cx\u001fx\u0020x\u0023x\u005d"}',
            '{"a":"\u00fcx\\u0022x\\u005cx\\u001fx x#x]"}'.encode(),
        ),
    ],
    ids=["spaces+escapes", "spaces", "indented", "escapes", "unescaped", "kept-escapes", "pair", "only-some"],
)
def test_json_that_was_written_anew_is_diagnosed(received: bytes, signed: bytes) -> None:
    """The demo's failure: verification over `JSON.stringify` of the parsed body (webhooks notification protocol)."""
    assert _reason(received, sign(signed, SECRET)) == "the body is JSON written anew, not the bytes of the wire"


def test_half_a_surrogate_pair_is_diagnosed_like_any_other_body() -> None:
    """Live systems cut texts in the middle of an emoji; the refusal must not become another error."""
    body = rb'{"a":"\ud83d", "b": "\ude00"}'
    assert _reason(body, sign(b"x", SECRET)) == "another secret, or another body than the one that was signed"


@pytest.mark.parametrize(
    ("received", "signed", "words"),
    [
        (BODY + b"\n", BODY, "a trailing newline was added to the body"),
        (b"boX\r\n", b"boX", "a trailing newline was added to the body"),
        (b"boX \r\n", b"boX ", "a trailing newline was added to the body"),
        (BODY, BODY + b"\n", "a trailing newline was cut from the body"),
        (BODY, BODY + b"\r\n", "a trailing newline was cut from the body"),
        (b"\xef\xbb\xbf" + BODY, BODY, "a byte order mark was added to the body"),
        (BODY, BODY.decode().encode("ascii", "replace"), "the signer hashed the body as ASCII"),
        ("ü".encode(), b"\xfc", "the signer hashed the body as latin-1"),
        ("ü€".encode(), b"\xfc?", "the signer hashed the body as latin-1"),
        (BODY, BODY.decode().encode("utf-16-le"), "the signer hashed the body as UTF-16"),
        (BODY.decode().encode("utf-16"), BODY, "the body came as utf-16, not UTF-8"),
        ("ab\u00fc".encode("utf-16-le"), "ab\u00fc".encode(), "the body came as utf-16, not UTF-8"),
        ("gr\u00fc\u00dfe".encode("cp1252"), "gr\u00fc\u00dfe".encode(), "the body came as cp1252, not UTF-8"),
        (b"\x81\xfc", "\x81\u00fc".encode(), "the body came as latin-1, not UTF-8"),
        ("€".encode().decode("cp1252").encode(), "€".encode(), "the body was decoded as cp1252 and encoded as UTF-8"),
    ],
)
def test_text_that_was_encoded_anew_is_diagnosed(received: bytes, signed: bytes, words: str) -> None:
    """Known in the field: a .NET client hashes the body as ASCII (webhooks notification protocol)."""
    assert _reason(received, sign(signed, SECRET)) == words


def test_bytes_that_are_no_text_at_all_get_the_plain_diagnosis() -> None:
    """Nothing to suggest: the reason says no more than is known."""
    reason = _reason(b"\xff\xff\xff", sign(b"x", SECRET))
    assert reason == "another secret, or another body than the one that was signed"


def test_text_that_was_doubly_encoded_is_diagnosed() -> None:
    """UTF-8 read as latin-1 and written as UTF-8. Locks a bug: the signer was blamed."""
    signed = "übergröße".encode()
    reason = _reason(signed.decode("latin-1").encode(), sign(signed, SECRET))
    assert reason == "the body was decoded as latin-1 and encoded as UTF-8"


@pytest.mark.parametrize("name", ["sha1", "sha256"])
def test_other_spellings_of_the_right_digest_are_diagnosed_and_refused(name: str) -> None:
    """One spelling is a signature, the rest is a mistake (fault table W1: swapped encodings)."""
    digest = slow_hmac(BODY, SECRET, name)
    assert _reason(BODY, f"{name}={digest.hex()}") == "hexadecimal where base64 belongs"
    assert _reason(BODY, f"{name}={digest.hex().upper()}") == "hexadecimal where base64 belongs"
    bare = base64.b64encode(digest).decode().rstrip("=")
    assert _reason(BODY, f"{name}={bare}") == "base64 without its padding"


def test_url_safe_base64_is_diagnosed() -> None:
    """The two alphabets differ in two characters only."""
    bodies = (b"%d" % number for number in range(1000))
    body = next(body for body in bodies if {"+", "/"} & set(sign(body, SECRET)[5:]))
    reason = _reason(body, sign(body, SECRET).replace("+", "-").replace("/", "_"))
    assert reason == "URL-safe base64 where the standard alphabet belongs"


def test_another_hash_under_the_label_is_diagnosed() -> None:
    """An account that was switched to SHA-256 while the label stayed."""
    value = base64.b64encode(slow_hmac(BODY, SECRET, "sha256")).decode()
    assert _reason(BODY, f"sha1={value}") == "the digest is sha256, the label says sha1"


@pytest.mark.parametrize(
    ("signature", "words"),
    [
        ("", "the signature is empty"),
        ("   ", "the signature is empty"),
        ("sha1=", "the signature is empty"),
        ("SHA1=e/TfS0wv1HbvEsMqcBMmFLcMslI=", "the algorithm is spelled in another way than sha1= or sha256="),
        (" sha1=e/TfS0wv1HbvEsMqcBMmFLcMslI=", "the algorithm is spelled in another way than sha1= or sha256="),
        ("md5=e/TfS0wv1HbvEsMqcBMmFLcMslI=", "the signature does not begin with sha1= or sha256="),
        ("e/TfS0wv1HbvEsMqcBMmFLcMslI=", "the signature does not begin with sha1= or sha256="),
        ("sha1", "the signature is empty"),
        ("sha1=e/TfS0wv1HbvEsMqcBMmFLcMslI=x", "not a base64 sha1 digest: 29 characters, not 28"),
        ("sha1=e/TfS0wv1HbvEsMqcBMmFLcMslI=", "another secret, or another body than the one that was signed"),
        ("sha1=e/TfS0wv1HbvEsMqcBMmFLcMsl\u0406=", "another secret, or another body than the one that was signed"),
        ("sha1=\ud800", "not a base64 sha1 digest: 1 characters, not 28"),
    ],
)
def test_what_is_no_signature_is_refused_and_named(signature: str, words: str) -> None:
    """Fault table W1: empty, extended, truncated, other label, look-alike letters."""
    assert _reason(BODY, signature) == words


def test_large_bodies_are_not_diagnosed() -> None:
    """A diagnosis hashes the body many times; strangers may ask for it."""
    assert _reason(b"x" * 16_385, "sha1=e/TfS0wv1HbvEsMqcBMmFLcMslI=") == "not diagnosed: the body is large"
    assert "another secret" in _reason(b"x" * 16_384, "sha1=e/TfS0wv1HbvEsMqcBMmFLcMslI=")
    assert diagnose(b"x" * 20_000, "nonsense", [SECRET]).startswith("the signature does not begin")


def test_a_diagnosis_can_be_left_out() -> None:
    """Under a flood of forgeries the reason is empty, the refusal the same."""
    with pytest.raises(InvalidSignature) as caught:
        check(BODY, "sha1=x", SECRET)
    assert caught.value.reason == ""


def test_no_secret_and_no_body_is_in_the_error() -> None:
    """Secrets and message text appear in no error (design, decision 7)."""
    with pytest.raises(InvalidSignature) as caught:
        check(BODY, sign(BODY, "wrong"), SECRET, others=["other-secret"], with_diagnosis=True)
    assert SECRET not in repr(caught.value) + caught.value.reason
    assert "naïve" not in repr(caught.value) + caught.value.reason
