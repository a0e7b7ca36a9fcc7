"""`wire`: what typed messages cost beside plain `orjson` on the same payloads, both directions."""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable
from statistics import median

import orjson

from benchmarks.report import Result, table
from benchmarks.targets import Verdict, judge

TARGET = 6.0
"""Typed against plain, for a text event."""
TEXT = "text event"
_CONVERSATION = "11111111-2222-4333-8444-555555555555"
_ORIGINATOR = "a9e27c4bd3f0a1e2"

PAYLOADS: dict[str, tuple[str, object]] = {
    TEXT: (
        "request",
        {
            "kind": "req",
            "id": "m-17",
            "type": "ms.PublishEvent",
            "body": {
                "dialogId": _CONVERSATION,
                "conversationId": _CONVERSATION,
                "event": {"type": "ContentEvent", "contentType": "text/plain", "message": "Is my order on its way?"},
            },
        },
    ),
    "answer to it": ("response", {"code": "OK", "body": {"sequence": 7}, "reqId": "m-17"}),
    "notified text": (
        "notification",
        {
            "kind": "notification",
            "type": "ms.MessagingEventNotification",
            "body": {
                "changes": [
                    {
                        "sequence": 6,
                        "originatorId": _ORIGINATOR,
                        "originatorMetadata": {"id": _ORIGINATOR, "role": "ASSIGNED_AGENT"},
                        "serverTimestamp": 1_700_000_123_456,
                        "event": {"type": "ContentEvent", "contentType": "text/plain", "message": "It leaves today."},
                        "conversationId": _CONVERSATION,
                        "dialogId": _CONVERSATION,
                        "messageAudience": "ALL",
                    }
                ]
            },
        },
    ),
    "notified receipt": (
        "notification",
        {
            "kind": "notification",
            "type": "ms.MessagingEventNotification",
            "body": {
                "changes": [
                    {
                        "sequence": 7,
                        "originatorId": _ORIGINATOR,
                        "serverTimestamp": 1_700_000_123_999,
                        "event": {"type": "AcceptStatusEvent", "status": "READ", "sequenceList": [4, 5, 6]},
                        "conversationId": _CONVERSATION,
                        "dialogId": _CONVERSATION,
                    }
                ]
            },
        },
    ),
}


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `wire`."""
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--messages", type=int, default=20_000, help="of each kind in each round")


def run(options: argparse.Namespace) -> Result:
    """Measure reading and writing, plain and typed in turn."""
    rows = [
        {"payload": name, "direction": direction, **_compare(plain, typed, options.rounds, options.messages)}
        for name, (kind, payload) in PAYLOADS.items()
        for direction, (plain, typed) in _ways(kind, payload).items()
    ]
    lines = [
        (row["payload"], row["direction"], *(f"{row[key]:.2f}" for key in ("plain_us", "typed_us", "ratio")))
        for row in rows
    ]
    return {
        "title": "wire: typed messages beside plain orjson, one message",
        "tables": [table(("payload", "direction", "orjson us", "typed us", "ratio"), lines)],
        "rows": rows,
        "targets": [_judge(row) for row in rows if row["payload"] in {TEXT, "notified text"}],
        "problems": [],
        "settings": {"rounds": options.rounds, "messages": options.messages},
    }


def _ways(kind: str, payload: object) -> dict[str, tuple[Callable[[], object], Callable[[], object]]]:
    from connector_async import wire

    raw = orjson.dumps(payload)
    readers: dict[str, Callable[[bytes], object]] = {
        "request": wire.decode_request,
        "response": wire.decode_response,
        "notification": wire.decode_notification,
    }
    decode = readers[kind]
    message = decode(raw)
    assert isinstance(message, wire.Message)
    return {
        "read": (lambda: orjson.loads(raw), lambda: decode(raw)),
        "write": (lambda: orjson.dumps(payload), lambda: wire.encode(message)),
    }


def _compare(
    plain: Callable[[], object], typed: Callable[[], object], rounds: int, messages: int
) -> dict[str, float]:
    gc.collect()
    taken = [(_seconds(plain, messages), _seconds(typed, messages)) for _ in range(rounds)]
    each = 1e6 / messages
    return {
        "plain_us": median(first for first, _ in taken) * each,
        "typed_us": median(second for _, second in taken) * each,
        "ratio": median(second / first for first, second in taken),
    }


def _seconds(call: Callable[[], object], times: int) -> float:
    begin = time.process_time()
    for _ in range(times):
        call()
    return time.process_time() - begin


def _judge(row: dict[str, object]) -> Verdict:
    return judge(f"{row['direction']} a {row['payload']}, typed / orjson", float(str(row["ratio"])), TARGET)
