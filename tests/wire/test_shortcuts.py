"""The quick ways of making what the session sends give the same as the checked ones."""

from __future__ import annotations

import pytest

from connector_async.wire import ContentEvent, PublishEvent, RawBody, Request, RequestBody, StageField
from connector_async.wire.codec import main_event, request_of


@pytest.mark.parametrize(
    "body", [PublishEvent("d-1", ContentEvent.text_of("hello")), RawBody("new.Kind", {"a": 1})], ids=["known", "raw"]
)
def test_a_request_with_an_id_of_our_own_is_like_any_other(body: RequestBody[object]) -> None:
    """Equality covers every field."""
    assert request_of("m-1", body) == Request(id="m-1", body=body)


def test_an_event_for_the_main_dialog_is_like_any_other() -> None:
    """The MAIN dialog has the id of its conversation (how-to guide)."""
    event = ContentEvent.text_of("hello")
    assert main_event("d-1", event) == PublishEvent("d-1", event, "d-1")


def test_what_is_no_body_and_no_event_is_refused_all_the_same() -> None:
    """In the words of the checked way."""
    with pytest.raises(TypeError, match=r"Request\.body must be RequestBody, not StageField"):
        request_of("m-1", StageField())
    with pytest.raises(TypeError, match=r"PublishEvent\.event must be Event, not str"):
        main_event("d-1", "hello")
