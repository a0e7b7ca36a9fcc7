"""How users' code infers the messages; checked by mypy and pyright, never run."""

from __future__ import annotations

from typing import Any, TypeVar, assert_type

from connector_async.wire import (
    AcceptStatusEvent,
    ClientProperties,
    Confirmation,
    ConsumerRequestConversation,
    ContentEvent,
    ConversationChange,
    ConversationCreated,
    ConversationId,
    ConversationStateField,
    Dialog,
    Event,
    EventPublished,
    Feature,
    GenerateURLForUploadFile,
    HostedFile,
    MessagingEvent,
    Notification,
    Participant,
    PublishEvent,
    RawBody,
    Request,
    RequestBody,
    Response,
    SetUserProfile,
    TransferUrl,
    UpdateConversationField,
    decode_notification,
    decode_response,
    encode_request,
    normalize_code,
    parse_request,
    to_wire,
    unknown_fields,
)

R = TypeVar("R")


def ask(body: RequestBody[R]) -> Response[R]:
    """A stand-in for what sends requests."""
    raise AssertionError(body)


def answers_follow_their_requests() -> None:
    """The body of the answer is inferred from the class of the request."""
    published = ask(PublishEvent("d", ContentEvent.text_of("hi")))
    assert_type(published, Response[EventPublished])
    assert_type(published.body.sequence, int | None)
    assert_type(ask(SetUserProfile()).body, Confirmation)
    created = ask(ConsumerRequestConversation(brand_id="1"))
    assert_type(created.body, ConversationCreated)
    assert_type(created.body.conversation_id, ConversationId)
    assert_type(ask(UpdateConversationField("c", ConversationStateField())).body, Confirmation)
    assert_type(ask(GenerateURLForUploadFile(1, "PNG")).body, TransferUrl)
    assert_type(ask(RawBody("x.Y", {})).body, object)


def envelopes(request: Request[PublishEvent], raw: bytes) -> None:
    """Requests are generic in their bodies."""
    assert_type(request.body, PublishEvent)
    assert_type(request.body.event, Event)
    assert_type(Request(id="1", body=SetUserProfile()), Request[SetUserProfile])
    assert_type(encode_request(request), bytes)
    assert_type(encode_request([request, request]), bytes)
    assert_type(parse_request({}), Request[Any] | list[Request[Any]])
    assert_type(decode_response(raw, PublishEvent), Response[Any] | list[Response[Any]])
    assert_type(decode_response(raw, {"1": PublishEvent}), Response[Any] | list[Response[Any]])
    assert_type(decode_notification(raw), Notification[Any])
    assert_type(to_wire(request), dict[str, Any])
    assert_type(to_wire([request]), list[dict[str, Any]])
    assert_type(normalize_code("OK"), int | str | None)
    assert_type(unknown_fields(request), list[str])


def events(event: MessagingEvent, change: ConversationChange) -> None:
    """The questions have types."""
    assert_type(event.event, Event)
    assert_type(event.text, str | None)
    assert_type(event.conversation, ConversationId)
    if isinstance(event.event, ContentEvent):
        assert_type(event.event.hosted_file, HostedFile | None)
    assert_type(change.is_closed, bool)
    assert_type(change.survey_dialog, Dialog | None)
    assert_type(change.assigned_agent, Participant | None)


def natural_arguments() -> None:
    """Lists, single values and plain mappings go where tuples and items are kept."""
    assert_type(AcceptStatusEvent("READ", [4, 6]).sequence_list, tuple[int, ...])
    AcceptStatusEvent("READ", 4)
    ClientProperties(features=[Feature.AUTO_MESSAGES, "NEW"])
    Request(id="1", body=SetUserProfile(), metadata=[{"type": "ExternalId", "id": "x"}])
