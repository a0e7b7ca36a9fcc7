"""`errors.py`: every exception class, as a program, a log line and another process see it."""

from __future__ import annotations

import copy
import inspect
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector_async import errors
from connector_async.errors import (
    BatchRefused,
    ConnectorError,
    DeadlineExceeded,
    Landed,
    LocalProtocolError,
    Phase,
    QueueFull,
    RequestError,
    RequestRefused,
    TLSError,
    TransportError,
    WebhookError,
)
from connector_async.protocol.retry import Attempt

ATTEMPTS = (Attempt(1, 0, None, "connection reset", 0.25), Attempt(2, 2, 503, "503", 0.5))

FACTS: dict[str, object] = {
    "request_id": "id-1",
    "type": "ms.PublishEvent",
    "code": "BAD_REQUEST",
    "error_code": 40102,
    "status": 503,
    "attempts": ATTEMPTS,
    "landed": Landed.YES,
    "retryable": True,
    "hint": "do this",
}

OWN_FACTS: dict[str, dict[str, object]] = {
    "ConversationAlreadyOpen": {"conversation_id": "conv-1"},
    "BatchRefused": {"items": ("first", RequestRefused("second", code=400))},
    "DeadlineExceeded": {"stages": {"queued": 1.5}},
    "QueueFull": {"depth": 3, "age": 2.5},
    "RateLimited": {"retry_after": 7.0},
    "TokenUnavailable": {"retry_after": 7.0},
    "MissingHeader": {"header": "X-Liveperson-Signature"},
    "InvalidSignature": {"reason": "other secret"},
}

TRANSPORT_FACTS: dict[str, object] = {
    "phase": Phase.WRITE,
    "sent": True,
    "reused": True,
    "answered": True,
    "timed_out": True,
    "retryable": True,
}


def _classes() -> list[type[ConnectorError]]:
    found = [value for value in vars(errors).values() if inspect.isclass(value) and issubclass(value, ConnectorError)]
    return sorted(found, key=lambda found: found.__name__)


CLASSES = _classes()
REQUEST_ERRORS = [cls for cls in CLASSES if issubclass(cls, RequestError)]


def _full(cls: type[ConnectorError]) -> ConnectorError:
    """One with every fact set to something else than its default."""
    facts = dict(OWN_FACTS.get(cls.__name__, {}))
    if issubclass(cls, RequestError):
        facts |= FACTS
    elif issubclass(cls, TransportError):
        facts |= TRANSPORT_FACTS
    make: Any = cls
    made: ConnectorError = make("the request failed", **facts)
    return made


def _facts(error: ConnectorError) -> dict[str, object]:
    return {name: repr(value) for name, value in vars(error).items()}


def test_all_names_every_class_and_no_other() -> None:
    """our style 1: a test compares `__all__` with what the module defines."""
    defined = {
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and value.__module__ == errors.__name__ and not name.startswith("_")
    }
    assert sorted(defined) == errors.__all__


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("full", [True, False], ids=["full", "bare"])
def test_every_error_survives_copy_and_pickle_with_all_that_it_says(cls: type[ConnectorError], full: bool) -> None:
    """our style 4: a process pool, a task queue and `twin()` copy errors."""
    error = _full(cls) if full else cls("the request failed")
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        for other in (copy.copy(error), copy.deepcopy(error), pickle.loads(pickle.dumps(error, protocol))):
            assert type(other) is cls
            assert other is not error
            assert str(other) == str(error)
            assert other.args == error.args == ("the request failed",)
            assert _facts(other) == _facts(error)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_fact_given_is_an_attribute(cls: type[ConnectorError]) -> None:
    """our style 4: facts are attributes."""
    error = _full(cls)
    expected = dict(OWN_FACTS.get(cls.__name__, {}))
    if issubclass(cls, RequestError):
        expected |= FACTS
    elif issubclass(cls, TransportError):
        expected |= TRANSPORT_FACTS
    assert {name: getattr(error, name) for name in expected} == expected


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_error_can_be_made_of_nothing_and_still_says_something(cls: type[ConnectorError]) -> None:
    """our style 4: no class takes a required keyword."""
    error = cls()
    assert str(error) != "" or not issubclass(cls, RequestError)
    assert "\n" not in str(error)
    assert cls.__doc__
    assert issubclass(cls, ConnectorError)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_a_fact_that_does_not_exist_is_a_type_error(cls: type[ConnectorError]) -> None:
    """Misuse is TypeError."""
    make: Any = cls
    with pytest.raises(TypeError):
        make("message", no_such_fact=1)


@pytest.mark.parametrize("cls", REQUEST_ERRORS, ids=lambda cls: cls.__name__)
def test_a_request_error_reads_as_one_sentence_with_its_facts_and_a_hint(cls: type[RequestError]) -> None:
    """our design, 4.7: a hint that a person can act on."""
    assert str(_full(cls)) == (
        "the request failed (type=ms.PublishEvent, request_id=id-1, code=BAD_REQUEST, error_code=40102, status=503, "
        "attempts=2); do this"
    )


@pytest.mark.parametrize(
    "cls", [cls for cls in REQUEST_ERRORS if cls is not RequestError], ids=lambda cls: cls.__name__
)
def test_every_kind_of_request_error_has_a_hint_of_its_own(cls: type[RequestError]) -> None:
    """our design, 4.7. Locks a gap: most kinds had none unless whoever raised them thought of it."""
    assert cls.hint
    assert str(cls("it failed")) == f"it failed; {cls.hint}"
    assert str(cls("it failed", hint="")) == "it failed"


def test_an_error_without_a_message_is_called_by_its_class() -> None:
    """Locks a bug: it began with a space and a bracket."""
    assert str(RequestRefused(code=400, hint="")) == "RequestRefused (code=400)"
    assert str(RequestError()) == "RequestError"


@pytest.mark.parametrize(
    ("cls", "landed", "retryable"),
    [
        ("RequestRefused", Landed.NO, False),
        ("ConversationClosed", Landed.NO, False),
        ("NotSent", Landed.NO, True),
        ("OutcomeUnknown", Landed.UNKNOWN, False),
        ("DeadlineExceeded", Landed.UNKNOWN, False),
        ("QueueFull", Landed.NO, True),
        ("RateLimited", Landed.NO, True),
        ("SessionClosed", Landed.NO, False),
        ("AppTokenRefused", Landed.NO, False),
        ("ConsumerTokenRefused", Landed.NO, False),
        ("TokenUnavailable", Landed.NO, True),
    ],
)
def test_an_error_assumes_what_its_kind_implies(cls: str, landed: Landed, retryable: bool) -> None:
    """our design, 4.7: `landed` and `retryable` are never left open."""
    error = getattr(errors, cls)("it failed")
    assert (error.landed, error.retryable) == (landed, retryable)
    turned = getattr(errors, cls)("it failed", landed=Landed.YES, retryable=not retryable)
    assert (turned.landed, turned.retryable) == (Landed.YES, not retryable)
    assert (getattr(errors, cls).landed, getattr(errors, cls).retryable) == (landed, retryable)


def test_what_is_given_is_copied_so_that_nobody_changes_an_error_later() -> None:
    """Ours: the caller goes on using its lists."""
    attempts, items, stages = list(ATTEMPTS), [1, 2], {"queued": 1.0}
    batch, late = BatchRefused("it failed", attempts=attempts, items=items), DeadlineExceeded("late", stages=stages)
    attempts.clear()
    items.clear()
    stages.clear()
    assert (batch.attempts, batch.items, late.stages) == (ATTEMPTS, (1, 2), {"queued": 1.0})


def test_a_tls_failure_is_not_retried_and_sent_nothing_unless_told_otherwise() -> None:
    """Wire-fault catalogue: untrusted certificate, never. Locks a bug: the class itself said `retryable`."""
    error = TLSError("the certificate is for another host")
    assert (error.phase, error.sent, error.retryable) == (Phase.TLS, False, False)


def test_a_transport_error_is_taken_for_sent_and_worth_another_try_unless_told_otherwise() -> None:
    """Rule 4: only certainty that no byte left makes it *not sent*."""
    error = TransportError("connection reset")
    assert (error.phase, error.sent, error.retryable) == (Phase.READ, True, True)
    assert (error.reused, error.answered, error.timed_out) == (False, False, False)


@pytest.mark.parametrize(
    ("cls", "status"),
    [
        ("WebhookError", 400),
        ("MissingHeader", 401),
        ("WrongAccount", 401),
        ("WrongClient", 401),
        ("InvalidSignature", 401),
        ("UnreadableNotification", 400),
        ("WebhookBodyTooLarge", 413),
    ],
)
def test_a_refused_delivery_says_with_which_status_to_answer(cls: str, status: int) -> None:
    """Rows W1 and W6."""
    error = getattr(errors, cls)("refused")
    assert isinstance(error, WebhookError)
    assert error.status == status


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_message_text_among_the_results_of_a_batch_shows_neither_in_str_nor_in_repr(
    cls: type[ConnectorError], canary: str
) -> None:
    """S1: what an error carries is for the program; what it prints is for the log."""
    facts: dict[str, object] = {"items": [canary], "cause": canary, "reason": canary, "conversation_id": canary}
    accepted = inspect.signature(cls.__init__).parameters
    make: Any = cls
    error = make("it failed", **{name: value for name, value in facts.items() if name in accepted})
    assert canary not in f"{error} {error!r}"


@pytest.mark.parametrize(
    ("code", "shown"),
    [
        ("BAD\nREQUEST", r"'BAD\nREQUEST'"),
        ("\x1b[31mred", r"'\x1b[31mred'"),
        ("\ud800", r"'\ud800'"),
        ("x" * 10_000, "'" + "x" * 80 + "'"),
        ("BAD_REQUEST", "BAD_REQUEST"),
    ],
    ids=["newline", "escape", "surrogate", "long", "plain"],
)
def test_a_code_from_the_other_side_cannot_break_a_log_line(code: str, shown: str) -> None:
    """S3 and C17: it may hold anything."""
    assert str(RequestRefused("refused", code=code, hint="")) == f"refused (code={shown})"


@given(
    code=st.one_of(st.none(), st.text(), st.integers(-(10**30), 10**30)), request_id=st.none() | st.text(max_size=64)
)
def test_any_facts_print_as_one_encodable_line(code: str | int | None, request_id: str | None) -> None:
    """C17: printing an error never fails."""
    text = str(RequestError("it failed", code=code, request_id=request_id))
    assert len(text.splitlines()) == 1
    assert text.encode()


def test_the_tree_of_classes_is_the_one_that_users_catch_by() -> None:
    """our style 4."""
    tree = {cls.__name__: cls.__bases__[0].__name__ for cls in CLASSES if cls is not ConnectorError}
    assert tree["BatchRefused"] == tree["ConversationClosed"] == tree["ConversationAlreadyOpen"] == "RequestRefused"
    assert tree["AppTokenRefused"] == tree["ConsumerTokenRefused"] == tree["TokenUnavailable"] == "AuthError"
    assert tree["TLSError"] == "TransportError"
    assert tree["LocalProtocolError"] == tree["RemoteProtocolError"] == "ProtocolError"
    assert tree["ReqIdMismatch"] == tree["ResponseTooLarge"] == tree["RedirectRefused"] == "RemoteProtocolError"
    assert issubclass(QueueFull, RequestError)
    assert not issubclass(LocalProtocolError, RequestError)
    assert not issubclass(ConnectorError, RuntimeError | TypeError | ValueError)
