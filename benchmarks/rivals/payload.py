"""What the hand-written rivals send: the same URL, headers and body as the session."""

from __future__ import annotations

import ssl
from itertools import count

import orjson

from benchmarks.job import Job
from benchmarks.server import token

PATH = "/api/account/12345678/messaging/consumer/conversation/send?v=3"
TEXT = "Is my order on its way?"
APP_TOKEN = token({"aud": "12345678", "azp": "bench", "scope": "msg.consumer", "iss": "Sentinel", "exp": 2**31})

_numbers = count()


def conversation_id(worker: int) -> str:
    """The conversation that this worker speaks in."""
    return f"c0000000-0000-4000-8000-{worker:012d}"


def headers(worker: int) -> dict[str, str]:
    """The headers of this worker's consumer, with tokens of real length."""
    return {
        "Authorization": APP_TOKEN,
        "X-LP-ON-BEHALF": consumer_token(worker),
        "Content-Type": "application/json",
    }


def consumer_token(worker: int) -> str:
    """A ConsumerJWS of real length."""
    claims: dict[str, object] = {"account_id": "12345678", "ext_consumer_id": f"consumer-{worker}"}
    return token({**claims, "lp_consumer_id": f"{worker:064x}"})


def body(conversation: str) -> bytes:
    """One text message as JSON, with a new id."""
    return orjson.dumps(
        {
            "kind": "req",
            "id": f"m-{next(_numbers)}",
            "type": "ms.PublishEvent",
            "body": {
                "conversationId": conversation,
                "dialogId": conversation,
                "event": {"type": "ContentEvent", "contentType": "text/plain", "message": TEXT},
            },
        }
    )


def client_tls(job: Job) -> ssl.SSLContext | None:
    """The context that trusts the benchmark's server, or None for plain http."""
    return ssl.create_default_context(cafile=job.ca_file) if job.ca_file else None
