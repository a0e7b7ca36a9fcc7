"""What an answer says, and what its code means."""

from __future__ import annotations

from typing import Any

import pytest

from connector_async.wire import (
    Confirmation,
    EventPublished,
    Refusal,
    Response,
    SetUserProfile,
    normalize_code,
    parse_response,
    to_wire,
)


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("OK", 200),
        ("BAD_REQUEST", 400),
        ("bad request", 400),
        ("TOO_MANY_REQUESTS", 429),
        ("200", 200),
        (401, 401),
        ("WEIRD", "WEIRD"),
        ("9" * 12, "9" * 12),
        ("٣", "٣"),
        (True, None),
        (None, None),
        (2.5, None),
    ],
)
def test_code_is_read_as_an_http_status_where_it_names_one(code: object, status: object) -> None:
    """Seed: values are taken from HTTP semantics; samples show "OK", 200 and 401."""
    assert normalize_code(code) == status


def one(obj: dict[str, Any]) -> Response[Any]:
    """The one answer that this is."""
    response = parse_response(obj)
    assert isinstance(response, Response)
    assert to_wire(response) == obj
    return response


def test_refusal_of_who_we_are_has_an_error_code() -> None:
    """Connector API, "Authorization and authentication": branch on the code, texts are for logs."""
    response = one(
        {
            "kind": "resp",
            "code": 401,
            "type": ".ReqBody$ErrorResp",
            "body": {"title": "Invalid AppJWT", "details": "AppJWT has expired or is invalid", "errorCode": 40102},
        }
    )
    assert not response.is_ok
    assert response.status == 401
    assert response.error_code == 40102
    assert response.reason == "AppJWT has expired or is invalid"
    assert not response.answers("1")


def test_refusal_of_a_request_says_why() -> None:
    """How-to guide: "Bad Request, Conversation is close"."""
    response = one({"code": "BAD_REQUEST", "body": {"msg": "Bad Request, Conversation is close"}, "reqId": "1"})
    assert response.body == Refusal(msg="Bad Request, Conversation is close")
    assert response.reason == "Bad Request, Conversation is close"
    assert response.answers(1)


@pytest.mark.parametrize(
    ("obj", "body", "reason"),
    [
        ({"code": "OK", "body": {"sequence": 0}, "reqId": "1"}, EventPublished(0), None),
        ({"code": "OK", "body": {"msg": "done"}, "reqId": "1"}, Confirmation("done"), "done"),
        ({"code": 200, "body": "OK done", "reqId": "1"}, "OK done", "OK done"),
        ({"code": 200, "body": {"errorCode": 40001}, "reqId": "1"}, Refusal(error_code=40001), None),
        ({"code": 400, "body": "no", "reqId": "1"}, "no", "no"),
        ({"code": 400, "reqId": "1"}, None, None),
        ({"code": "OK", "body": {"conversationId": []}, "reqId": "1"}, {"conversationId": []}, None),
        ({"reqId": "1", "body": {"title": "t"}}, {"title": "t"}, None),
    ],
)
def test_answer_to_an_unknown_request_is_typed_by_its_shape(
    obj: dict[str, Any], body: Any, reason: str | None
) -> None:
    """Without knowing what was asked, the members of the body decide; anything else stays as it came."""
    response = one(obj)
    assert response.body == body
    assert response.reason == reason
    assert (response.error_code is None) == (not isinstance(body, Refusal))


def test_general_error_of_the_swagger_file_is_kept() -> None:
    """Protocol 8.3: `{"code": int, "message": str}`."""
    response = one({"code": 500, "message": "Internal"})
    assert response.status == 500
    assert response.extra == {"message": "Internal"}


@pytest.mark.parametrize(
    "refusal", [Refusal(title="t", msg="m", details="d"), Refusal(title="t", msg="d"), Refusal(title="d")]
)
def test_the_most_telling_text_is_the_reason(refusal: Refusal) -> None:
    """For people and logs."""
    assert refusal.reason == "d"


@pytest.mark.parametrize("expected", [5, [5], "PublishEvent", {"1": None}, str, [SetUserProfile()]])
def test_an_expectation_that_is_no_class_of_requests_is_named(expected: Any) -> None:
    """Found by trial: it was an AttributeError of ours."""
    answer = {"code": "OK", "reqId": "1", "body": {"msg": "done"}}
    for obj in (answer, [answer]):
        with pytest.raises(TypeError, match="expected must be a class of requests, such as PublishEvent, or for a"):
            parse_response(obj, expected)
