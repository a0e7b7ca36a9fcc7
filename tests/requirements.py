"""What the API's documentation and our own rules demand, each with an id and its source.

A test shows a requirement by `@pytest.mark.requirement("responses:reqid-echo")` (several ids may be given), or, for
the rows of the fault tables, by its name: `test_c5_…` shows `C5`. `tests/test_requirements.py` fails for an id here
that no test shows and for an id in a test that is not here. To add one, add a line to `_ROWS`.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

__all__ = ["REQUIREMENTS", "Requirement", "shown_in"]


class Requirement(NamedTuple):
    """One behaviour.

    Attributes:
        id: `area:behaviour`, or the row of a fault table (`C5`).
        statement: What must be seen.
        source: Where it is demanded: a page of the API's documentation, an RFC, or "ours".
    """

    id: str
    statement: str
    source: str


_ROWS = [
    # command line
    ("cli:json", "--json prints one JSON object on stdout and nothing else; progress goes to stderr", "ours"),
    ("cli:exit-codes", "0 done, 1 something failed and said what, 2 wrong use", "ours"),
    ("cli:sandbox-ready", "the sandbox command prints one JSON line when it accepts connections", "ours"),
    (
        "cli:storm",
        "after a storm every message is accounted for, and the sandbox's ledger agrees to the unit",
        "ours",
    ),
    ("cli:one-sentence", "what a person can mend is told in one sentence that says how, without a traceback", "ours"),
    # documents
    ("readme:example", "the example of the README runs as printed", "ours"),
    ("readme:commands", "the README has one command that runs the demo and one that runs the tests", "ours"),
    # the session
    ("session:lazy", "building needs no loop, and neither building nor entering does I/O", "ours"),
    ("session:from-env", "LP_* variables make a session; a missing one is named", "ours"),
    ("session:drain", "a clean exit waits for what is under way and reports what is left", "ours"),
    ("session:closed", "a request after the close ends with SessionClosed", "ours"),
    ("outbound:one-outcome", "each message read has exactly one outcome, with its key", "ours"),
    ("outbound:order", "messages of a consumer arrive in order, consumers run in parallel", "ours"),
    ("outbound:bounded", "no more is read than is taken or under way", "ours"),
    ("outbound:survives-caller", "a message outlives its cancelled caller", "ours"),
    (
        "conversation:open",
        "profile and conversation in one batch, then texts, then the close",
        "Create conversation, Send",
    ),
    ("conversation:single-flight", "however many ask, a consumer's conversation is opened once", "ours"),
    ("batch:order", "answers of a batch come in the order given, matched by reqId", "Create conversation"),
    ("typing:stop", "the stop of a typing state is always sent", "Send, ChatStateEvent"),
    ("files:send", "URL, PUT to the storage, publish; within the URL's minute", "Examples, File sharing"),
    ("client-properties:every-call", "Client-Properties are on every call of their conversation", "Examples"),
    ("webhooks:loop", "receipts, events and the close reach the handles", "Webhooks events"),
    ("webhooks:echo", "an unknown send is settled by its own echo, and stays unknown without", "ours"),
    ("accounts:fair", "accounts share one width in turn", "ours"),
    ("accounts:unknown", "unknown accounts are remembered and cannot drive the credentials callable", "ours"),
    ("testing:plugin", "bots are tested without a socket", "ours"),
    ("bots:loop-guard", "two bots that answer each other are slowed down and reported", "ours"),
    ("examples:run", "the examples run as they are", "ours"),
    ("pump:watermarks", "nothing is committed of a log past a message whose end is not known", "ours"),
    ("pump:broker", "a broker is acknowledged when its message is in the outbox, and not before", "ours"),
    ("retry:same-bytes", "a retry keeps the request id and the very bytes", "ours"),
    ("retry:sequence", "our counter of sends is 0, 2, 4, 8 …", "Overview, Responses"),
    # rows of the fault tables
    ("C7", "an outage of the token service is not noticed while the old token holds, and told at once after", "ours"),
    ("C8", "no wall clock, however wrong, moves a renewal", "ours"),
    ("C9", "Retry-After is honoured, capped, never undercut", "ours"),
    ("C10", "a bad day is not made worse", "ours"),
    ("C11", "the vendor's pauses", "ours"),
    ("C12", "cancelled at any await, everything is as before", "ours"),
    ("C14", "everybody in flight hears of the close", "ours"),
    ("C15", "a stray answer reaches nobody", "ours"),
    ("C16", "any mixture of accidents leaves one outcome each", "ours"),
    ("C23", "sessions come and go without growth", "ours"),
    ("C5", "a revoked token is renewed once, however many are in flight", "ours"),
    ("C6", "a bad ConsumerJWS hurts that consumer alone", "ours"),
    ("C17", "no bytes from the other side break the reader", "ours"),
    ("C21", "a stuck peer slows nobody else", "ours"),
    ("C22", "memory stays flat under load", "ours"),
    ("S3", "line breaks never get into a head", "ours"),
    # webhooks (fault table)
    ("W1", "no forged delivery is accepted, echoed or parsed", "ours"),
    ("W2", "no delivery with one bit flipped is accepted", "ours"),
    ("W3", "the time of a refusal does not tell where a signature is wrong", "ours"),
    ("W4", "a replayed delivery is handled once and answered with 200, across restarts and workers", "ours"),
    ("W5", "handlers get the events of a conversation once and in the order of their sequence; gaps end", "ours"),
    ("W6", "slow, huge, aborted and lying uploads are refused and disturb nobody", "ours"),
    ("W7", "handlers that fail or hang delay no answer; an error is answered only for what is not durable", "ours"),
    ("W8", "a process killed between write and answer loses and doubles nothing", "ours"),
    ("W9", "rotating the secret refuses nothing valid and accepts nothing after the window", "ours"),
    ("W10", "any text verifies from its raw bytes", "ours"),
    ("P1", "a pump that is killed at any time loses nothing, and reports whatever may be there twice", "ours"),
    ("P4", "of two pumps on one outbox, the one that wakes after its lease settles nothing", "ours"),
    ("P5", "messages of a consumer are accepted in the order they were put, through faults", "ours"),
    ("P7", "a source is read no faster than the outbox has room, and the oldest age is right", "ours"),
    ("P8", "a message that can never succeed is dead after one attempt, and the others flow", "ours"),
    ("P6", "a signal drains the pump, a second one stops it at once; nothing is lost either way", "ours"),
    ("P2", "a process killed at a named point loses nothing, and what may be doubled says so", "ours"),
    ("P3", "a file that cannot be written gives an error, never a false acknowledgement, and all goes on", "ours"),
    ("P9", "what is acknowledged is flushed to the disk", "ours"),
    # rows of docs/checklist.md that no other requirement states
    ("checklist:1", "hosts are looked up once, in both shapes, or given", "Domain API"),
    (
        "checklist:5",
        "both tokens and the content type are on every message, the AppJWT bare",
        "Create conversation, headers",
    ),
    ("checklist:7", "the least opening is an empty profile and a conversation request", "Create conversation"),
    ("checklist:8", "a conversation is opened with engagement attributes", "Create conversation, SetUserProfile"),
    (
        "checklist:9",
        "a conversation is opened with profile fields and private data",
        "Create conversation, SetUserProfile",
    ),
    ("checklist:10", "a conversation is routed by campaign and context", "Create conversation, routing"),
    ("checklist:11", "a conversation is routed by skill, with its urgency", "Create conversation, routing"),
    ("checklist:15", "every receipt can be given", "Send, AcceptStatusEvent"),
    ("checklist:16", "every chat state can be shown", "Send, ChatStateEvent"),
    ("checklist:17", "metadata stand beside the body, plain and encoded", "Send, metadata"),
    ("checklist:18", "an element is chosen by ACTION receipt and text", "Rich messaging"),
    ("checklist:19", "a conversation is closed by either field", "Send, UpdateConversationField"),
    ("checklist:20", "closing the MAIN dialog leaves room for the survey", "Send, DialogChange"),
    ("checklist:21", "satisfaction is handed in after the close", "Send, CSATRate"),
    ("checklist:22", "urgency is set while the conversation runs", "Send, TTRField"),
    ("checklist:23", "fields that are the agents' are passed through", "Send, UpdateConversationField"),
    ("checklist:24", "the profile changes while the conversation runs", "Send, SetUserProfile"),
    ("checklist:42", "echoes and what is for agents only are not shown", "Webhooks events"),
    (
        "checklist:45",
        "a conversation change answers what a person would ask",
        "Webhooks, ExConversationChangeNotification",
    ),
    ("checklist:46", "a survey is held in a dialog of its own", "Examples, post-conversation survey"),
    ("checklist:48", "structured content and quick replies come typed", "Rich messaging"),
    ("checklist:49", "content that is new reaches the handlers as it came", "Webhooks events"),
    ("loops:core-flow", "open, send, send_many and close run on asyncio, uvloop and trio", "ours"),
    ("C2", "each wire fault becomes the error that its table names", "ours"),
    ("C4", "a dripping or deaf peer costs no more than the deadline", "ours"),
    ("C13", "churn of cancellations loses no connection", "ours"),
    ("C19", "bombs stop at the cap", "ours"),
    ("S5", "bad certificates are refused and named", "ours"),
    ("C1", "an answer cut at any byte never becomes a wrong result", "ours"),
    ("C3", "a half-open peer costs no more than the deadline", "ours"),
    ("C18", "unknown names and values survive", "ours"),
    ("C20", "a moved host is followed", "ours"),
    ("C24", "rate and p99 beside hand-written code", "ours"),
    # hygiene of the tests themselves
    ("S1", "a secret shows in no log line, output, error or repr", "ours"),
    ("S2", "no trick in a URL sends a secret to a host that is not the vendor's", "ours"),
    ("S4", "no token, however malformed, breaks the reading of its life", "ours"),
    ("S6", "tests reach nothing beyond loopback", "ours"),
]

REQUIREMENTS: Mapping[str, Requirement] = {row[0]: Requirement(*row) for row in _ROWS}

_ROW_TEST = re.compile(r"test_([cswp]\d{1,2})_")


def shown_in(files: Iterable[Path]) -> Mapping[str, set[str]]:
    """Requirement id -> the tests that claim to show it, read from the source without importing it."""
    claims: defaultdict[str, set[str]] = defaultdict(set)
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and _name(node.func) == "requirement":
                for argument in node.args:
                    if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                        claims[argument.value].add(f"{file.name}:{node.lineno}")
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (row := _ROW_TEST.match(node.name)):
                claims[row[1].upper()].add(f"{file.name}:{node.name}")
    return claims


def _name(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
