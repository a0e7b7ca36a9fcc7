"""What goes out is exact: a value without a JSON form is refused before anything is sent, and its place is named."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from connector_async.errors import LocalProtocolError
from connector_async.wire import (
    AppManifest,
    ClientProperties,
    ContentEvent,
    ExternalId,
    PublishEvent,
    RawBody,
    Request,
    Response,
    decode_request,
    encode,
    encode_request,
    parse_manifest,
    parse_notification,
    parse_request,
    parse_response,
)

NAN = float("nan")


class Odd(dict[str, object]):
    """A mapping of somebody's own."""


def _request(body: object, **options: Any) -> Request[Any]:
    return Request(id="1", body=RawBody("x", body), **options)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (NAN, r"no finite number @ \$\.body$"),
        ({"a": [1, {"b": float("inf")}]}, r"no finite number @ \$\.body\.a\[1\]\.b$"),
        ({"a": (None, -float("inf"))}, r"no finite number @ \$\.body\.a\[1\]$"),
        ({"a": ExternalId("x", extra={"b": NAN})}, r"no finite number @ \$\.body\.a\.b$"),
        (Odd(a=NAN), r"no finite number @ \$\.body\.a$"),
        ({"a": {1: 2}}, r"a name that is no text @ \$\.body\.a$"),
        ({"a": {"\ud800": 2}}, r"a name that is no text @ \$\.body\.a$"),
        ({"a": ["é", "\ud800"]}, r"half a surrogate pair @ \$\.body\.a\[1\]$"),
        ({"a": b"x"}, r"no JSON form for bytes @ \$\.body\.a$"),
        ([2**64], r"an integer of more than 64 bits @ \$\.body\[0\]$"),
    ],
)
def test_what_has_no_json_form_is_refused_with_its_place(body: object, reason: str) -> None:
    """Locks a bug: NaN went out as `null`, and other refusals named no place."""
    for written in (encode, encode_request):
        with pytest.raises(LocalProtocolError, match=reason):
            written(_request(body))
    with pytest.raises(LocalProtocolError, match=reason.replace(r"\$", r"\$\[0\]", 1)):
        encode_request([_request(body)])


def test_nan_beside_the_body_is_refused_too() -> None:
    """Metadata and unknown fields go the same way."""
    body = PublishEvent("d", ContentEvent.text_of("x"))
    with pytest.raises(LocalProtocolError, match=r"@ \$\.metadata\[0\]\.v$"):
        encode_request(Request(id="1", body=body, metadata=[{"type": "x", "v": NAN}]))
    with pytest.raises(LocalProtocolError, match=r"@ \$\.later$"):
        encode_request(Request(id="1", body=body, extra={"later": NAN}))
    with pytest.raises(LocalProtocolError, match=r"@ \$\.later$"):
        ClientProperties(extra={"later": NAN}).to_header()


@pytest.mark.parametrize("body", [None, {"a": None, "b": "null", "c": [True, 1, 1.5]}, {"a": "nullify"}])
def test_a_true_null_goes_out(body: object) -> None:
    """Looking for NaN refuses nothing else."""
    assert decode_request(encode_request(_request(body))) == _request(body)


def test_kinds_that_the_writer_knows_go_out() -> None:
    """A date is none of JSON's kinds, but has a usual form."""
    assert b'"2026-01-02"' in encode_request(_request({"a": None, "b": dt.date(2026, 1, 2)}))


def test_a_value_that_holds_itself_is_nested_too_deeply() -> None:
    """Locks a bug: a RecursionError came out of `encode_request()`."""
    loop: list[object] = []
    loop.append(loop)
    deep: dict[str, object] = {}
    for _ in range(300):
        deep = {"a": deep}
    for body in (loop, deep):
        with pytest.raises(LocalProtocolError, match="nested too deeply"):
            encode_request(_request(body))


def test_a_batch_of_something_else_is_told_so() -> None:
    """Misuse is a TypeError that says what to pass."""
    with pytest.raises(TypeError, match="each item of a batch must be a `Request`, not int"):
        encode_request([5])  # type: ignore[list-item]  # wrong on purpose


def test_no_repr_shows_the_text_of_an_untyped_answer_or_notification() -> None:
    """Errors and logs show reprs; what the API says in a form that nobody knows may hold words of a consumer."""
    words = {"a": {"message": "my secret"}}
    shown = [
        repr(parse_response({"code": "OK", "reqId": "1", "body": words})),
        repr(parse_response({"code": "OK", "reqId": "1", "body": [words]})),
        repr(parse_response({"code": "OK", "reqId": "1", "body": "my secret"})),
        repr(parse_notification({"kind": "notification", "type": "new.One", "body": "my secret"})),
        repr(parse_notification({"kind": "notification", "type": "new.One", "body": words})),
        repr(
            parse_request(
                {
                    "kind": "req",
                    "id": "1",
                    "type": "x",
                    "body": words,
                    "metadata": [
                        {"type": "SocialMessagingEventData", "event": words, "actions": [words]},
                        {"type": "BotResponse", "intents": [words]},
                        {"type": "ConnectorAuthenticationResponse", "status": True, "errors": ["my secret"]},
                    ],
                }
            )
        ),
    ]
    assert not [one for one in shown if "secret" in one]
    assert repr(Response(code="OK", body=words)) == "Response(code='OK', body={...})"
    assert repr(Response(code="OK", body=[1])) == "Response(code='OK', body=[...])"


def test_a_manifest_that_cannot_be_written_is_refused_by_place() -> None:
    """Locks a bug: orjson's TypeError came out."""
    manifest = parse_manifest({"client_name": "x", "capabilities": {"odd": 10**30}})
    with pytest.raises(LocalProtocolError, match=r"more than 64 bits @ \$\.capabilities\.odd$"):
        manifest.to_json()
    wrong: Any
    for name, wrong in {"grant_types": 5, "response_types": [5], "redirect_uris": None}.items():
        with pytest.raises(TypeError, match=name):
            AppManifest(client_name="x", **{name: wrong})
