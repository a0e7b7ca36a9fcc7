"""Signatures are checked over raw bytes, in one spelling only, and a misfit is explained without being accepted."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector_async.errors import InvalidSignature
from connector_async.protocol.signature import diagnose, sign, verify_signature

VECTORS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "vectors" / "webhook_signatures.json").read_text(encoding="utf-8")
)
SECRET = "rl9hacst6kqilbofup64n11ga3"
BODY = '{"kind":"notification","text":"naïve 你好 👩‍👩‍👧 e\u0301"}'.encode()


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
    assert verify_signature(vector["body"].encode(), vector["signature"], [vector["secret"]]) == 0
    assert sign(vector["body"].encode(), vector["secret"]) == vector["signature"]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_w2_a_flipped_bit_of_body_or_signature_is_refused(vector: dict[str, Any]) -> None:
    """Every single bit; base64 has unused bits, which count as well (fault table W2)."""
    body, signature, secrets = vector["body"].encode(), vector["signature"].encode(), [vector["secret"]]
    for flipped in _flips(body):
        with pytest.raises(InvalidSignature):
            verify_signature(flipped, signature.decode(), secrets, with_diagnosis=False)
    for flipped in _flips(signature):
        with pytest.raises(InvalidSignature):
            verify_signature(body, flipped.decode("latin-1"), secrets, with_diagnosis=False)


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
        verify_signature(body, signature, [SECRET], with_diagnosis=False)
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
    assert verify_signature(body, signature, ["another", secret]) == 1


def test_the_secret_that_fits_is_named() -> None:
    """Rotation: several secrets at once (issue of the webhooks, 1)."""
    for index, secret in enumerate(["new", "old", "older"]):
        assert verify_signature(BODY, sign(BODY, secret, "sha256"), ["new", "old", "older"]) == index


def _reason(body: bytes, signature: str, secrets: list[str] | None = None, others: list[str] | None = None) -> str:
    with pytest.raises(InvalidSignature) as caught:
        verify_signature(body, signature, secrets or [SECRET], other_secrets=others or [])
    return caught.value.reason


def test_another_known_secret_is_named_but_not_believed() -> None:
    """A delivery of one app sent to the endpoint of another."""
    assert "another secret known here" in _reason(BODY, sign(BODY, "theirs"), others=["theirs"])


def test_white_space_around_the_configured_secret_is_noticed() -> None:
    """A secret read from a file ends with a newline."""
    assert "white space" in _reason(BODY, sign(BODY, SECRET), [SECRET + "\n"])


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
    ],
    ids=["spaces+escapes", "spaces", "indented", "escapes", "unescaped", "kept-escapes", "pair"],
)
def test_json_that_was_written_anew_is_diagnosed(received: bytes, signed: bytes) -> None:
    """The demo's failure: verification over `JSON.stringify` of the parsed body (webhooks notification protocol)."""
    assert "written anew" in _reason(received, sign(signed, SECRET))


@pytest.mark.parametrize(
    ("received", "signed", "words"),
    [
        (BODY + b"\n", BODY, "trailing newline was added"),
        (BODY, BODY + b"\n", "trailing newline was cut"),
        (BODY, BODY + b"\r\n", "trailing newline was cut"),
        (b"\xef\xbb\xbf" + BODY, BODY, "byte order mark"),
        (BODY, BODY.decode().encode("ascii", "replace"), "as ASCII"),
        ("ü".encode(), b"\xfc", "as latin-1"),
        (BODY, BODY.decode().encode("utf-16-le"), "as UTF-16"),
        (BODY.decode().encode("utf-16"), BODY, "utf-16"),
        ("gr\u00fc\u00dfe".encode("cp1252"), "gr\u00fc\u00dfe".encode(), "cp1252"),
        ("€".encode().decode("cp1252").encode(), "€".encode(), "cp1252 and encoded"),
    ],
)
def test_text_that_was_encoded_anew_is_diagnosed(received: bytes, signed: bytes, words: str) -> None:
    """Known in the field: a .NET client hashes the body as ASCII (webhooks notification protocol)."""
    assert words in _reason(received, sign(signed, SECRET))


def test_bytes_that_are_no_text_at_all_get_the_plain_diagnosis() -> None:
    """Nothing to suggest: the reason says no more than is known."""
    assert "another secret" in _reason(b"\xff\xff\xff", sign(b"x", SECRET))


def test_text_that_was_doubly_encoded_is_diagnosed() -> None:
    """UTF-8 read as latin-1 and written as UTF-8."""
    signed = "übergröße".encode()
    assert "latin-1" in _reason(signed.decode("latin-1").encode(), sign(signed, SECRET))


@pytest.mark.parametrize("name", ["sha1", "sha256"])
def test_other_spellings_of_the_right_digest_are_diagnosed_and_refused(name: str) -> None:
    """One spelling is a signature, the rest is a mistake (fault table W1: swapped encodings)."""
    digest = slow_hmac(BODY, SECRET, name)
    assert "hexadecimal" in _reason(BODY, f"{name}={digest.hex()}")
    assert "hexadecimal" in _reason(BODY, f"{name}={digest.hex().upper()}")
    assert "padding" in _reason(BODY, f"{name}={base64.b64encode(digest).decode().rstrip('=')}")


def test_url_safe_base64_is_diagnosed() -> None:
    """The two alphabets differ in two characters only."""
    bodies = (b"%d" % number for number in range(1000))
    body = next(body for body in bodies if {"+", "/"} & set(sign(body, SECRET)[5:]))
    assert "URL-safe" in _reason(body, sign(body, SECRET).replace("+", "-").replace("/", "_"))


def test_another_hash_under_the_label_is_diagnosed() -> None:
    """An account that was switched to SHA-256 while the label stayed."""
    value = base64.b64encode(slow_hmac(BODY, SECRET, "sha256")).decode()
    assert "sha256, the label says sha1" in _reason(BODY, f"sha1={value}")


@pytest.mark.parametrize(
    ("signature", "words"),
    [
        ("", "empty"),
        ("   ", "empty"),
        ("sha1=", "empty"),
        ("SHA1=e/TfS0wv1HbvEsMqcBMmFLcMslI=", "another way"),
        (" sha1=e/TfS0wv1HbvEsMqcBMmFLcMslI=", "another way"),
        ("md5=e/TfS0wv1HbvEsMqcBMmFLcMslI=", "does not begin"),
        ("e/TfS0wv1HbvEsMqcBMmFLcMslI=", "does not begin"),
        ("sha1", "empty"),
        ("sha1=e/TfS0wv1HbvEsMqcBMmFLcMslI=x", "29 characters, not 28"),
        ("sha1=e/TfS0wv1HbvEsMqcBMmFLcMslI=", "another secret"),
        ("sha1=e/TfS0wv1HbvEsMqcBMmFLcMsl\u0406=", "another secret"),
        ("sha1=\ud800", "1 characters"),
    ],
)
def test_what_is_no_signature_is_refused_and_named(signature: str, words: str) -> None:
    """Fault table W1: empty, extended, truncated, other label, look-alike letters."""
    assert words in _reason(BODY, signature)


def test_large_bodies_are_not_diagnosed() -> None:
    """A diagnosis hashes the body many times; strangers may ask for it."""
    assert "large" in _reason(b"x" * 20_000, "sha1=e/TfS0wv1HbvEsMqcBMmFLcMslI=")
    assert diagnose(b"x" * 20_000, "nonsense", [SECRET]).startswith("the signature does not begin")


def test_a_diagnosis_can_be_left_out() -> None:
    """Under a flood of forgeries the reason is empty, the refusal the same."""
    with pytest.raises(InvalidSignature) as caught:
        verify_signature(BODY, "sha1=x", [SECRET], with_diagnosis=False)
    assert caught.value.reason == ""


def test_no_secret_and_no_body_is_in_the_error() -> None:
    """Secrets and message text appear in no error (design, decision 7)."""
    with pytest.raises(InvalidSignature) as caught:
        verify_signature(BODY, sign(BODY, "wrong"), [SECRET], other_secrets=["other-secret"])
    assert SECRET not in repr(caught.value) + caught.value.reason
    assert "naïve" not in repr(caught.value) + caught.value.reason
