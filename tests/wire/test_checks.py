"""What we build is checked: the error names the field and the limit. What we receive is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from connector_async.wire import (
    AcceptStatusEvent,
    ActionReason,
    AuthenticatedData,
    BotResponse,
    ButtonElement,
    CampaignInfo,
    Click,
    ClientProperties,
    ConnectorAuthenticationResponse,
    ConnectorPaymentResponse,
    ConsumerRequestConversation,
    Contact,
    ContainerElement,
    ContentEvent,
    ConversationContext,
    CSATRate,
    CustomerInfo,
    DialogChange,
    EscalationSummary,
    ExternalId,
    GenerateURLForUploadFile,
    HostedFile,
    ImageElement,
    LinkAction,
    MapElement,
    Notification,
    PersonalInfo,
    PublishEvent,
    PublishTextAction,
    Question,
    QuickReplies,
    Request,
    RichContentEvent,
    SetUserProfile,
    SocialMessagingEventData,
    TextElement,
    TTRField,
    UnknownEvent,
    UnknownSde,
    UpdateConversationField,
    parse_request,
    to_wire,
)

TEXT = ContentEvent.text_of("hi")
NO_BODY: Any = {}

REFUSED: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: ContentEvent.text_of(""), ValueError, "ContentEvent.message must have 1 to 5000 characters, not 0"),
    (lambda: ContentEvent.text_of("x" * 5001), ValueError, "ContentEvent.message must have 1 to 5000 .* not 5001"),
    (lambda: ContentEvent.text_of("\ud83d"), ValueError, "ContentEvent.message holds half a surrogate pair"),
    (lambda: ContentEvent(message=5), TypeError, "ContentEvent.message must be a str, not int"),
    (lambda: ContentEvent(message="x", content_type="hosted/file"), TypeError, "message must be HostedFile, not str"),
    (lambda: ContentEvent.file("", "PNG"), ValueError, "HostedFile.relative_path must have 1 to any number of"),
    (lambda: ContentEvent.file("/a", "PNG", preview="data:image/" + "x" * 40_000), ValueError, "preview .* 30720"),
    (lambda: ContentEvent.file("/a", "PNG", preview="http://x"), ValueError, "HostedFile.preview must be a data URL"),
    (lambda: HostedFile(relative_path="/a", file_type="PNG", preview=1), TypeError, "preview must be a str"),  # type: ignore[arg-type]  # wrong on purpose
    (lambda: AcceptStatusEvent("READ", []), ValueError, "sequence_list must name at least one message"),
    (lambda: AcceptStatusEvent("READ", [-1]), ValueError, "sequence_list must be at least 0, not -1"),
    (lambda: AcceptStatusEvent("READ", [True]), TypeError, "sequence_list must be an int, not bool"),
    (lambda: PublishEvent("", TEXT), ValueError, "PublishEvent.dialog_id must have 1 to 64 characters, not 0"),
    (lambda: PublishEvent("d" * 65, TEXT), ValueError, "PublishEvent.dialog_id must have 1 to 64 .* not 65"),
    (lambda: PublishEvent("d", "hi"), TypeError, "PublishEvent.event must be Event, not str"),  # type: ignore[arg-type]  # wrong on purpose
    (lambda: Request(id="", body=PublishEvent("d", TEXT)), ValueError, "Request.id must have 1 to 64 characters"),
    (lambda: Request(id=True, body=PublishEvent("d", TEXT)), TypeError, "Request.id must be a str"),
    (lambda: Request(id=1, body=NO_BODY, type="x"), TypeError, "Request.body must be RequestBody, not dict"),
    (lambda: Request(id=1, body=PublishEvent("d", TEXT), type=5), TypeError, "Request.type must be a str, not int"),  # type: ignore[arg-type]  # wrong on purpose
    (lambda: Request(id=1, body=PublishEvent("d", TEXT), type=""), ValueError, "Request.type must have 1 to"),
    (lambda: Request(id=1, body=PublishEvent("d", TEXT), kind=None), TypeError, "Request.kind must be a str"),  # type: ignore[arg-type]  # wrong on purpose
    (
        lambda: Request(id=1, body=PublishEvent("d", TEXT), encoded_metadata="x" * 5121),
        ValueError,
        "Request.encoded_metadata must have 0 to 5120 characters, not 5121",
    ),
    (
        lambda: Request(id=1, body=PublishEvent("d", TEXT), metadata=["x"]),  # type: ignore[list-item]  # wrong on purpose
        TypeError,
        "Request.metadata must hold metadata items or mappings, not str",
    ),
    (
        lambda: Request(id=1, body=PublishEvent("d", TEXT), metadata=5),  # type: ignore[arg-type]  # wrong on purpose
        TypeError,
        "Request.metadata must be metadata items or mappings, not int",
    ),
    (
        lambda: Request(id=1, body=PublishEvent("d", TEXT), metadata=[{"id": "x"}]),
        ValueError,
        "each mapping in Request.metadata needs a `type`",
    ),
    (
        lambda: Request(id=1, body=PublishEvent("d", TEXT), metadata=[{"type": "ExternalId"}]),
        ValueError,
        "metadata item: required field missing",
    ),
    (lambda: SetUserProfile(authenticated_data=5), TypeError, "authenticated_data must be AuthenticatedData, not"),  # type: ignore[arg-type]  # wrong on purpose
    (lambda: SetUserProfile(private_data=5), TypeError, "private_data must be PrivateData, not int"),  # type: ignore[arg-type]  # wrong on purpose
    (lambda: AuthenticatedData(5), TypeError, "AuthenticatedData.lp_sdes must be a tuple or list, not int"),  # type: ignore[arg-type]  # wrong on purpose
    (lambda: CustomerInfo(last_payment_date="2020"), TypeError, "last_payment_date must be Date, not str"),  # type: ignore[arg-type]  # wrong on purpose
    (lambda: PersonalInfo(contacts=5), TypeError, "PersonalInfo.contacts must be a tuple or list, not int"),  # type: ignore[arg-type]  # wrong on purpose
    (lambda: PersonalInfo(contacts=[5]), TypeError, "PersonalInfo.contacts must be Contact, not int"),  # type: ignore[list-item]  # wrong on purpose
    (lambda: ConversationContext(features=[5]), TypeError, "ConversationContext.features must be a str, not int"),  # type: ignore[list-item]  # wrong on purpose
    (lambda: ConversationContext(client_properties=5), TypeError, "must be ClientProperties, not int"),  # type: ignore[arg-type]  # wrong on purpose
    (lambda: ClientProperties(features=None), TypeError, "features must be a tuple or list, not NoneType"),  # type: ignore[arg-type]  # wrong on purpose
    (lambda: BotResponse(intents=["x"]), TypeError, "BotResponse.intents must be a mapping, not str"),  # type: ignore[list-item]  # wrong on purpose
    (lambda: Question(replies=[5]), TypeError, "Question.replies must be a str, not int"),  # type: ignore[list-item]  # wrong on purpose
    (lambda: EscalationSummary(conversation_duration="x"), TypeError, "conversation_duration must be a number"),  # type: ignore[arg-type]  # wrong on purpose
    (lambda: SocialMessagingEventData(actions=None), TypeError, "actions must be a tuple or list, not NoneType"),  # type: ignore[arg-type]  # wrong on purpose
    (lambda: AcceptStatusEvent("READ", None), TypeError, "sequence_list must be a tuple or list, not NoneType"),  # type: ignore[arg-type]  # wrong on purpose
    (lambda: UpdateConversationField("c", ()), ValueError, "conversation_field must name at least one field"),
    (lambda: UpdateConversationField("c", 5), TypeError, "conversation_field must be ConversationField, not int"),  # type: ignore[arg-type]  # wrong on purpose
    (lambda: GenerateURLForUploadFile("9" * 5000, "PNG"), TypeError, "file_size must be an int, not str"),
    (lambda: Notification(body={}), TypeError, "Notification.type must be given"),
    (
        lambda: GenerateURLForUploadFile(0, "PNG"),
        ValueError,
        "file_size must be at least 1 and at most 3145728, not 0",
    ),
    (lambda: GenerateURLForUploadFile(3_145_729, "PNG"), ValueError, "file_size must be .* at most 3145728"),
    (lambda: GenerateURLForUploadFile("many", "PNG"), TypeError, "file_size must be an int, not str"),
    (lambda: GenerateURLForUploadFile(True, "PNG"), TypeError, "file_size must be an int, not bool"),
    (lambda: GenerateURLForUploadFile(1, "PDF"), ValueError, "file_type must be one of JPG, JPEG, PNG, GIF"),
    (lambda: UpdateConversationField("c", ["x"]), TypeError, "conversation_field must be ConversationField, not str"),  # type: ignore[list-item]  # wrong on purpose
    (lambda: DialogChange.close(""), ValueError, "DialogUpdate.dialog_id must have 1 to 64 characters"),
    (lambda: CSATRate(csat_rate=6), ValueError, "CSATRate.csat_rate must be at least 1 and at most 5, not 6"),
    (lambda: CSATRate(csat_resolution_confirmation=1), TypeError, "csat_resolution_confirmation must be a bool"),  # type: ignore[arg-type]  # wrong on purpose
    (lambda: TTRField(ttr_type="NORMAL", value=-1), ValueError, "TTRField.value must be at least 0, not -1"),
    (lambda: CampaignInfo(campaign_id=1.5, engagement_id=1), TypeError, "campaign_id must be a str or an int"),  # type: ignore[arg-type]  # wrong on purpose
    (lambda: ConsumerRequestConversation(skill_id=True), TypeError, "skill_id must be a str or an int, not bool"),
    (lambda: ConsumerRequestConversation(campaign_info=3), TypeError, "campaign_info must be CampaignInfo, not int"),  # type: ignore[arg-type]  # wrong on purpose
    (lambda: SetUserProfile(first_name=1), TypeError, "SetUserProfile.first_name must be a str, not int"),  # type: ignore[arg-type]  # wrong on purpose
    (
        lambda: AuthenticatedData([UnknownSde("cart")]),
        TypeError,
        "lp_sdes must be CustomerInfoSde or PersonalInfoSde",
    ),
    (lambda: CustomerInfo(balance="12"), TypeError, "CustomerInfo.balance must be a number, not str"),  # type: ignore[arg-type]  # wrong on purpose
    (lambda: CustomerInfo(balance=float("nan")), ValueError, "CustomerInfo.balance must be a finite number"),
    (lambda: ClientProperties(app_id="x" * 65), ValueError, "ClientProperties.app_id must have 0 to 64 characters"),
    (lambda: ClientProperties(app_version="x" * 33), ValueError, "app_version must have 0 to 32 characters, not 33"),
    (lambda: ClientProperties(ip_address="::1"), ValueError, "ClientProperties.ip_address must be an IPv4 address"),
    (lambda: ClientProperties(features=[""]), ValueError, "ClientProperties.features must have 1 to"),
    (lambda: ExternalId("x" * 65), ValueError, "ExternalId.id must have 0 to 64 characters, not 65"),
    (lambda: ActionReason(reason="x" * 65), ValueError, "ActionReason.reason must have 0 to 64 characters"),
    (lambda: BotResponse(business_cases=["x"] * 257), ValueError, "BotResponse.business_cases must be at most 256"),
    (lambda: BotResponse(intents=[{}] * 17), ValueError, "BotResponse.intents must be at most 16, not 17"),
    (lambda: ConnectorPaymentResponse(status="yes"), TypeError, "ConnectorPaymentResponse.status must be a bool"),  # type: ignore[arg-type]  # wrong on purpose
    (lambda: ButtonElement(title="x" * 129), ValueError, "ButtonElement.title must have 0 to 128 characters"),
    (lambda: ButtonElement(tooltip="x" * 257), ValueError, "ButtonElement.tooltip must have 0 to 256 characters"),
    (lambda: ImageElement(url="x" * 2049), ValueError, "ImageElement.url must have 0 to 2048 characters"),
    (lambda: ImageElement(caption="x" * 129), ValueError, "ImageElement.caption must have 0 to 128 characters"),
    (lambda: MapElement(lo="x"), TypeError, "MapElement.lo must be a number"),  # type: ignore[arg-type]  # wrong on purpose
    (lambda: TextElement(text="x" * 5001), ValueError, "TextElement.text must have 0 to 5000 characters"),
    (lambda: Click(actions=[LinkAction("u")] * 5), ValueError, "Click.actions must be at most 4, not 5"),
    (lambda: Click(actions=["x"]), TypeError, "Click.actions must be Action, not str"),  # type: ignore[list-item]  # wrong on purpose
    (lambda: PublishTextAction("x" * 5001), ValueError, "PublishTextAction.text must have 0 to 5000 characters"),
    (lambda: ContainerElement(type="vertical", elements=[1]), TypeError, "elements must be Element, not int"),  # type: ignore[list-item]  # wrong on purpose
    (
        lambda: QuickReplies(replies=[ButtonElement()] * 25),
        ValueError,
        "QuickReplies.replies must be at most 24, not 25",
    ),
    (lambda: QuickReplies(replies=[ButtonElement(title="x" * 26)]), ValueError, "at most 25 characters, not 26"),
    (lambda: QuickReplies(items_per_row=9), ValueError, "items_per_row must be at least 1 and at most 8, not 9"),
    (lambda: RichContentEvent("card"), TypeError, "RichContentEvent.content must be Element, not str"),  # type: ignore[arg-type]  # wrong on purpose
]


@pytest.mark.parametrize(("build", "error", "words"), REFUSED)
def test_misuse_is_refused_by_field_and_limit(build: Callable[[], Any], error: type[Exception], words: str) -> None:
    """Issue 5: builders refuse what the API would refuse."""
    with pytest.raises(error, match=words):
        build()


def test_errors_never_show_the_text_that_was_refused() -> None:
    """Design decision 7: message text appears in no error."""
    with pytest.raises(ValueError, match="ContentEvent") as refused:
        ContentEvent.text_of("secret words" * 500)
    assert "secret" not in str(refused.value)


def test_what_the_other_side_sends_is_not_checked() -> None:
    """Reading is tolerant: a limit of ours is no reason to lose a message."""
    payload = {
        "kind": "req",
        "id": "",
        "type": "ms.PublishEvent",
        "body": {
            "dialogId": "d" * 80,
            "event": {"type": "ContentEvent", "contentType": "text/plain", "message": "x" * 6000},
        },
        "metadata": [{"type": "ExternalId", "id": "x" * 100}],
        "encodedMetadata": "x" * 6000,
    }
    assert to_wire(parse_request(payload)) == payload


def test_words_that_are_new_to_us_are_taken() -> None:
    """Open vocabularies stay open."""
    assert to_wire(AcceptStatusEvent("SEEN_TWICE", [1]))["status"] == "SEEN_TWICE"
    assert to_wire(TTRField(ttr_type="YESTERDAY"))["ttrType"] == "YESTERDAY"
    assert to_wire(UnknownEvent("Wave", extra={"strength": 3})) == {"type": "Wave", "strength": 3}


def test_tuples_are_made_of_what_people_pass() -> None:
    """A list, one number, one text: all are natural where several may stand."""
    assert AcceptStatusEvent("READ", 4).sequence_list == (4,)
    assert AcceptStatusEvent("READ", [4, 6]).sequence_list == (4, 6)
    assert ClientProperties(features="AUTO_MESSAGES").features == ("AUTO_MESSAGES",)
    assert ConnectorAuthenticationResponse(status=False, errors="one").errors == ("one",)
    assert PersonalInfo(contacts=Contact(email="a@b")).contacts == (Contact(email="a@b"),)
    assert AuthenticatedData(CustomerInfo(role="x")) == AuthenticatedData([CustomerInfo(role="x")])
    one = ExternalId("x")
    for metadata in (one, [one], {"type": "ExternalId", "id": "x"}):
        assert Request(id=1, body=PublishEvent("d", TEXT), metadata=metadata).metadata == (one,)
