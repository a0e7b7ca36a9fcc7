"""Requests, events, profiles, contexts and metadata as a person builds them, and how they stand on the wire."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from connector_async.wire import (
    Age,
    AuthenticatedData,
    BotResponse,
    CampaignInfo,
    ClientProperties,
    ConnectorAuthenticationResponse,
    ConsumerRequestConversation,
    Contact,
    ContentEvent,
    ConversationContext,
    ConversationStateField,
    CSATRate,
    CustomerInfo,
    CustomerInfoSde,
    Date,
    DialogChange,
    ExternalId,
    Feature,
    GenerateURLForDownloadFile,
    GenerateURLForUploadFile,
    HostedFile,
    MessagingEvent,
    MessagingEvents,
    Notification,
    ParticipantsChange,
    PersonalInfo,
    PersonalInfoSde,
    PublishEvent,
    RawBody,
    Request,
    SdeAuth,
    SecureForm,
    SetUserProfile,
    SkillChange,
    StageField,
    TTRField,
    UnknownField,
    UnknownMetadata,
    UpdateConversationField,
    parse_request,
    to_wire,
)
from connector_async.wire._converter import readers


@pytest.mark.parametrize(
    ("body", "kind", "wire"),
    [
        (SetUserProfile(), "userprofile.SetUserProfile", {}),
        (
            SetUserProfile(first_name="A", backgnd_img_uri="u"),
            "userprofile.SetUserProfile",
            {"firstName": "A", "backgndImgUri": "u"},
        ),
        (
            ConsumerRequestConversation(
                brand_id="1",
                skill_id="-1",
                ttr_def_name="URGENT",
                campaign_info=CampaignInfo(campaign_id=1, engagement_id="2"),
                conversation_context=ConversationContext(visitor_id="", lang="en-US"),
            ),
            "cm.ConsumerRequestConversation",
            {
                "brandId": "1",
                "channelType": "MESSAGING",
                "skillId": "-1",
                "ttrDefName": "URGENT",
                "campaignInfo": {"campaignId": 1, "engagementId": "2"},
                "conversationContext": {"type": "SharkContext", "visitorId": "", "lang": "en-US"},
            },
        ),
        (
            PublishEvent("d", ContentEvent.text_of("hi"), "c"),
            "ms.PublishEvent",
            {
                "dialogId": "d",
                "conversationId": "c",
                "event": {"type": "ContentEvent", "contentType": "text/plain", "message": "hi"},
            },
        ),
        (
            UpdateConversationField("c", ConversationStateField()),
            "cm.UpdateConversationField",
            {
                "conversationId": "c",
                "conversationField": {"field": "ConversationStateField", "conversationState": "CLOSE"},
            },
        ),
        (
            GenerateURLForUploadFile(1000, "PNG"),
            "ms.GenerateURLForUploadFile",
            {"fileSize": "1000", "fileType": "PNG"},
        ),
        (GenerateURLForUploadFile("7", "GIF"), "ms.GenerateURLForUploadFile", {"fileSize": "7", "fileType": "GIF"}),
        (GenerateURLForDownloadFile("/a"), "ms.GenerateURLForDownloadFile", {"relativePath": "/a"}),
        (RawBody("x.Y", [1, None]), "x.Y", [1, None]),
    ],
)
def test_request_stands_on_the_wire_as_documented(body: Any, kind: str, wire: Any) -> None:
    """Connector API: the type comes from the body."""
    request = Request(id="1", body=body)
    assert to_wire(request) == {"kind": "req", "id": "1", "type": kind, "body": wire}
    assert parse_request(to_wire(request)) == request


@pytest.mark.parametrize(
    ("field", "wire"),
    [
        (StageField(), {"field": "Stage", "conversationState": "CLOSE"}),
        (
            DialogChange.close("d"),
            {
                "field": "DialogChange",
                "type": "UPDATE",
                "dialog": {"dialogId": "d", "state": "CLOSE", "closedCause": "Closed by consumer"},
            },
        ),
        (
            CSATRate(csat_rate=5, csat_resolution_confirmation=True),
            {"field": "CSATRate", "csatRate": 5, "csatResolutionConfirmation": True, "status": "FILLED"},
        ),
        (TTRField(ttr_type="NORMAL", value=3600), {"field": "TTRField", "ttrType": "NORMAL", "value": 3600}),
        (SkillChange(skill="77"), {"field": "Skill", "type": "UPDATE", "skill": "77"}),
        (
            ParticipantsChange(type="ADD", role="READER", user_id="u"),
            {"field": "ParticipantsChange", "type": "ADD", "role": "READER", "userId": "u"},
        ),
        (UnknownField("NewField", extra={"value": 1}), {"field": "NewField", "value": 1}),
    ],
)
def test_conversation_field_stands_on_the_wire_as_documented(field: Any, wire: Any) -> None:
    """Connector API, cm.UpdateConversationField: one field is sent as the object."""
    body = UpdateConversationField("c", field)
    assert to_wire(body) == {"conversationId": "c", "conversationField": wire}
    assert body.fields == (field,)
    assert to_wire(UpdateConversationField("c", [field, field]))["conversationField"] == [wire, wire]
    assert field.wire_type == wire["field"]
    assert readers[UpdateConversationField](to_wire(body)) == body


def test_profile_takes_both_kinds_of_attributes() -> None:
    """Connector API: SDEs of the types ctmrinfo and personal, with their own spellings."""
    profile = SetUserProfile.of(
        CustomerInfo(ctype="vip", balance=1.5, registration_date=Date(day=1, month=2, year=2020)),
        PersonalInfo(first_name="J", last_name="D", age=Age(age=30), contacts=[Contact(email="a@b.c")]),
    )
    assert to_wire(profile) == {
        "authenticatedData": {
            "lp_sdes": [
                {
                    "type": "ctmrinfo",
                    "info": {
                        "ctype": "vip",
                        "balance": 1.5,
                        "registrationDate": {"day": 1, "month": 2, "year": 2020},
                    },
                },
                {
                    "type": "personal",
                    "personal": {
                        "firstname": "J",
                        "lastname": "D",
                        "age": {"age": 30},
                        "contacts": [{"email": "a@b.c"}],
                    },
                },
            ]
        }
    }
    vouched = CustomerInfoSde(CustomerInfo(), auth=SdeAuth(amr=["x"], iss="me"))
    assert AuthenticatedData([vouched, PersonalInfoSde(PersonalInfo())]).lp_sdes[0] is vouched


def test_nothing_of_a_profile_shows_in_its_repr() -> None:
    """Design decision 7."""
    profile = SetUserProfile.of(CustomerInfo(social_id="secret"), PersonalInfo(first_name="secret"))
    assert "secret" not in repr(profile) + repr(profile.authenticated_data)
    assert "secret" not in repr(CustomerInfo(social_id="secret", balance=1.0))


def test_file_event_carries_a_hosted_file() -> None:
    """Connector API examples, "File sharing": the caption is sent, also when empty."""
    event = ContentEvent.file("/a.PNG", "PNG", preview="data:image/png;base64,AA")
    assert to_wire(event) == {
        "type": "ContentEvent",
        "contentType": "hosted/file",
        "message": {
            "relativePath": "/a.PNG",
            "fileType": "PNG",
            "caption": "",
            "preview": "data:image/png;base64,AA",
        },
    }
    assert event.text is None
    assert event.hosted_file == HostedFile(
        relative_path="/a.PNG", file_type="PNG", caption="", preview="data:image/png;base64,AA"
    )
    assert ContentEvent.text_of("hi").text == "hi"
    assert ContentEvent.text_of("hi").hosted_file is None


@pytest.mark.parametrize(
    ("content_type", "message", "typed"),
    [
        ("hosted/file", {"relativePath": "/a", "fileType": "JPG"}, HostedFile),
        ("hosted/file", {"relativePath": "/a"}, dict),
        ("hosted/file", "text", str),
        ("forms/secure-invitation", {"invitationId": "i", "title": "t", "formId": "f"}, SecureForm),
        ("forms/secure-submission", {"invitationId": "i"}, SecureForm),
        ("forms/secure-submission", {}, dict),
        ("text/plain", {"odd": 1}, dict),
        ("text/plain", None, type(None)),
        ("application/new", [1, 2], list),
        (None, {"odd": 1}, dict),
    ],
)
def test_message_is_typed_by_its_content_type_or_stays_json(content_type: Any, message: Any, typed: type) -> None:
    """Secure forms, files and whatever comes next are surfaced, never refused (protocol 11.8)."""
    obj = {"type": "ContentEvent", "contentType": content_type, "message": message}
    event = readers[ContentEvent](obj)
    assert type(event.message) is typed
    assert to_wire(event) == obj


def test_content_of_another_type_is_taken_as_it_is() -> None:
    """Only what is known is checked."""
    event = ContentEvent(message={"invitationId": "i"}, content_type="forms/secure-submission")
    assert to_wire(event)["message"] == {"invitationId": "i"}


def test_metadata_stands_beside_the_body() -> None:
    """Connector API: top level of the envelope; typed items and plain mappings alike."""
    request = Request(
        id="1",
        body=PublishEvent("d", ContentEvent.text_of("hi")),
        metadata=[ExternalId("x"), {"type": "Mood", "level": 3}, BotResponse(intents=[{"id": "i"}])],
        encoded_metadata="AAAA",
    )
    wire = to_wire(request)
    assert wire["metadata"] == [
        {"type": "ExternalId", "id": "x"},
        {"type": "Mood", "level": 3},
        {"type": "BotResponse", "intents": [{"id": "i"}]},
    ]
    assert wire["encodedMetadata"] == "AAAA"
    assert request.metadata is not None
    assert request.metadata[1] == UnknownMetadata("Mood", extra={"level": 3})
    assert [item.wire_type for item in request.metadata] == ["ExternalId", "Mood", "BotResponse"]
    assert UnknownMetadata().wire_type == ""


def test_token_of_an_authentication_shows_in_no_repr() -> None:
    """Design decision 7."""
    item = ConnectorAuthenticationResponse(status=True, token="secret", errors=["e"])
    assert "secret" not in repr(item)
    assert to_wire(item)["errors"] == ["e"]


def test_client_properties_make_a_compact_ascii_header() -> None:
    """Connector API examples: the value is JSON; header values are ASCII."""
    assert ClientProperties(features=[Feature.AUTO_MESSAGES, "NEW"]).to_header() == (
        '{"type":".ClientProperties","features":["AUTO_MESSAGES","NEW"]}'
    )
    named = ClientProperties(app_id="Größe 😀", ip_address="10.0.0.1")
    assert named.to_header().isascii()
    assert orjson.loads(named.to_header()) == to_wire(named)


@pytest.mark.parametrize(
    "body",
    [SetUserProfile(), PublishEvent("d", ContentEvent.text_of("x")), RawBody("x.Y", None)],
    ids=lambda body: type(body).__name__,
)
def test_request_may_be_given_another_type_than_its_body(body: Any) -> None:
    """A renamed type is no reason to wait for a new version."""
    assert Request(id=1, body=body).type == body.wire_type
    assert to_wire(Request(id=1, body=body, type="new.Name"))["type"] == "new.Name"


def test_notification_takes_its_type_from_its_body() -> None:
    """The sandbox builds them."""
    news = Notification(body=MessagingEvents([MessagingEvent(event=ContentEvent.text_of("x"), dialog_id="d")]))  # type: ignore[arg-type]  # a plain id
    assert to_wire(news) == {
        "kind": "notification",
        "type": "ms.MessagingEventNotification",
        "body": {
            "changes": [
                {"dialogId": "d", "event": {"type": "ContentEvent", "contentType": "text/plain", "message": "x"}}
            ]
        },
    }
