"""Forged deliveries: whatever the trick, 401, no handler, nothing parsed, no 500."""

from __future__ import annotations

import base64
import random
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connector_async.errors import WebhookError
from connector_async.protocol.signature import sign
from connector_async.webhooks import AppRecord, Router, WebhookReceiver
from connector_async.webhooks import receiver as receiver_module
from tests.protocol.test_signature import slow_hmac
from tests.webhooks.rig import ACCOUNT, APP, SECRET, content, encoded, headers_for, notification, rig
from tests.webhooks.test_dispatcher import recording

Pairs = list[tuple[str | bytes, str | bytes]]
RECORDS = [
    AppRecord(account_id=ACCOUNT, client_id=APP, secret=SECRET),
    AppRecord(account_id="2", client_id="other", secret="other"),
]


def _signature_tricks(body: bytes, name: str, rng: random.Random) -> Iterator[str]:
    """Values of the signature header that are wrong, most of them nearly right."""
    digest = slow_hmac(body, SECRET, name)
    right = base64.b64encode(digest).decode()
    other = {"sha1": "sha256", "sha256": "sha1"}[name]
    at = rng.randrange(len(right))
    yield from ("", name, f"{name}=", "=", right, f"={right}")
    yield f"{name}={right[:at]}"
    yield f"{name}={right}{rng.choice('=A ')}"
    yield f"{name}={right[:at]}{chr(ord(right[at]) ^ 1)}{right[at + 1 :]}"
    yield f"{other}={right}"
    yield f"{name.upper()}={right}"
    yield f"{name.capitalize()}={right}"
    yield f"hmac-{name}={right}"
    yield f"{name}:{right}"
    yield f"{name}={right.swapcase()}"
    yield f"{name}={digest.hex()}"
    yield f"{name}={digest.hex().upper()}"
    yield f"{name}={base64.b64encode(digest.hex().encode()).decode()}"
    yield f"{name}={base64.b32encode(digest).decode()}"
    yield f"{name}={right.rstrip('=')}"
    yield f" {name}={right}"
    yield f"{name}= {right}"
    yield f"{name}={right},{name}={right}"
    yield f"{name}={right[:at]}\0{right[at:]}"
    yield f"{name}={right[:at]}\n{right[at:]}"
    yield f"{name}={''.join(chr(ord(c) + 0xFEE0) for c in right)}"
    yield name[:3] + "".join(chr(ord(c) - 0x30 + 0x0660) for c in name[3:]) + f"={right}"
    yield sign(body, "", "sha1")
    yield sign(body, "other", "sha1")
    yield sign(body, SECRET + "\n", "sha1")
    yield sign(body, SECRET[:-1], "sha256")
    yield sign(body + b" ", SECRET, "sha1")
    yield sign(b"", SECRET, "sha1")


def _header_tricks(body: bytes, rng: random.Random) -> Iterator[Pairs]:
    """Right signatures under wrong headers."""
    plain = list(headers_for(body).items())
    right: Pairs = [*plain]
    for place in range(1, 4):
        yield [pair for at, pair in enumerate(right) if at != place]
        yield [*right, right[place]]
        yield [*right, (plain[place][0].upper().encode(), b"x")]
    for account, app in (("", APP), (ACCOUNT, ""), ("2", "other"), (f"{ACCOUNT} ", APP), (ACCOUNT, APP.upper())):
        yield list(headers_for(body, account=account, app=app).items())
    yield list(headers_for(body, account="".join(chr(0x0660 + int(c)) for c in ACCOUNT)).items())
    yield list(headers_for(body, account=f"{ACCOUNT}\0").items())
    yield [(name.replace("-", "_"), value) for name, value in plain]
    yield [(f"{name}\0", value) for name, value in plain]


@pytest.mark.no_cover
def test_w1_no_forgery_of_the_generator_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    """100,000 and more: signature, algorithm, encoding, header and case tricks (fault table W1)."""
    monkeypatch.setattr(receiver_module, "decode_notification", _must_not_be_called)
    receiver, rng, count = WebhookReceiver(RECORDS), random.Random(1), 0
    for number in range(1_450):
        body = encoded(notification(content("c", number, rng.choice(["text", "😀", "\u0301", ""]) * 9)))
        forged: list[Pairs] = []
        for name in ("sha1", "sha256"):
            for signature in _signature_tricks(body, name, rng):
                forged.append(list((headers_for(body) | {"X-Liveperson-Signature": signature}).items()))
        forged += _header_tricks(body, rng)
        for pairs in forged:
            _refused(receiver, pairs, body)
            count += 1
    assert count > 100_000


def _must_not_be_called(*args: object, **kwargs: object) -> None:
    raise AssertionError("parsed before it was verified")


def _refused(receiver: WebhookReceiver, headers: Pairs, body: bytes) -> None:
    try:
        receiver.verify(headers, body, with_diagnosis=False)
    except WebhookError:
        return
    raise AssertionError("a forgery was accepted")


def _forged(body: bytes, noise: bytes, number: int) -> bytes:
    """A body that the signature at hand was not made for."""
    at, tail = noise[number] % len(body), noise[number : number + 1 + noise[-number] % 30]
    return (noise[number:], body[:at], body + tail, body[:at] + tail + body[at:], body + b" " * 4_000)[at % 5]


@pytest.mark.no_cover
@pytest.mark.anyio
@given(text=st.text(min_size=1, max_size=50), noise=st.binary(min_size=120, max_size=300))
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_generated_deliveries_reach_no_handler_and_make_no_500(
    anyio_backend: Any, text: str, noise: bytes
) -> None:
    """10,000 forged, replayed, truncated and oversize bodies: refused without a handler call (issue, shown by)."""
    router = Router()
    got = recording(router)
    body = encoded(notification(content("c", 0, text)))
    right = headers_for(body)
    signatures = ["", "sha1=", "sha256=x", right["X-Liveperson-Signature"]]
    async with rig(router, max_body_bytes=4_000) as worker:
        for number in range(1, 51):
            forged = right | {"X-Liveperson-Signature": signatures[noise[-number] % 4]}
            status, _ = await worker.app.handle(forged, _forged(body, noise, number))
            assert status in {401, 413}
        assert worker.dispatcher.stats().refused == 50
    assert got == []
