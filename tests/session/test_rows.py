"""Rows of the checklist (`docs/checklist.md`) through the public API, against the sandbox in process."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import attrs
import httpx
import pytest

from connector_async import (
    AcceptStatus,
    AcceptStatusEvent,
    CampaignInfo,
    ChatState,
    ClientProperties,
    ConnectorSession,
    ContentEvent,
    Conversation,
    ConversationContext,
    Feature,
    Incoming,
    RequestRefused,
    RichContentEvent,
    Router,
    SetUserProfile,
    TtrType,
)
from connector_async.sandbox import Sandbox
from connector_async.wire import (
    AuthenticatedData,
    ContainerElement,
    ConversationChange,
    CustomerInfo,
    DialogType,
    ExternalId,
    MetadataItem,
    ParticipantsChange,
    PersonalInfo,
    PrivateData,
    SdeAuth,
    SkillChange,
    UnknownEvent,
    UnknownField,
    decode_notification,
)
from connector_async.wire.profile import CustomerInfoSde

pytestmark = pytest.mark.anyio


@attrs.define(eq=False)
class Watch(httpx.AsyncBaseTransport):
    """Passes everything on and keeps what was asked."""

    inner: httpx.AsyncBaseTransport
    requests: list[httpx.Request] = attrs.field(factory=list)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return await self.inner.handle_async_request(request)

    def last(self, kind: str) -> Any:
        """The last request of this type, as it went out."""
        for request in reversed(self.requests):
            if "/messaging/" in request.url.path:
                payload = json.loads(request.content)
                for item in payload if isinstance(payload, list) else [payload]:
                    if item["type"] == kind:
                        return item
        raise AssertionError(f"no {kind} was sent")


@attrs.frozen
class Scene:
    cloud: Sandbox
    session: ConnectorSession
    watch: Watch


@asynccontextmanager
async def scene(*, sandbox: dict[str, Any] | None = None, **options: Any) -> AsyncIterator[Scene]:
    chosen: dict[str, Any] = {"agent": "silent"} | (sandbox or {})
    async with Sandbox(in_process=True, **chosen) as cloud:
        watch = Watch(httpx.ASGITransport(cloud.app))
        async with cloud.session(transport=watch, **options) as session:
            yield Scene(cloud, session, watch)


@pytest.mark.requirement("checklist:1")
@pytest.mark.parametrize("shape", ["flat", "list"])
async def test_hosts_are_looked_up_once_in_either_shape(shape: str) -> None:
    """Domain API page."""
    async with scene(sandbox={"domain_shape": shape}) as here:
        await here.session.consumer("one").open_conversation()
        asked = here.cloud.ledger.domain_calls
        assert asked == 3
        await here.session.consumer("two").open_conversation()
        assert here.cloud.ledger.domain_calls == asked


@pytest.mark.requirement("checklist:1")
async def test_given_hosts_are_not_looked_up() -> None:
    """Domain API page: allow overrides."""
    async with Sandbox(in_process=True, agent="silent") as cloud:
        async with cloud.session(domains=cloud.domains) as session:
            await session.consumer("customer").open_conversation()
        assert cloud.ledger.domain_calls == 0


@pytest.mark.requirement("checklist:5")
async def test_both_tokens_are_on_every_message_and_bare() -> None:
    """Connector API, "Create conversation": Authorization without `Bearer`, X-LP-ON-BEHALF, Content-Type."""
    async with scene() as here:
        conversation = await here.session.consumer("customer").open_conversation()
        await conversation.send_text("hello")
        messages = [request for request in here.watch.requests if "/messaging/" in request.url.path]
        assert len(messages) == 2
        for request in messages:
            assert request.headers["authorization"].count(".") == 2
            assert " " not in request.headers["authorization"]
            assert request.headers["x-lp-on-behalf"].count(".") == 2
            assert request.headers["content-type"] == "application/json"
            assert "client-properties" not in request.headers


@pytest.mark.requirement("checklist:7")
async def test_the_least_opening_is_an_empty_profile_and_a_request() -> None:
    """Connector API, `Create conversation`."""
    async with scene() as here:
        await here.session.consumer("customer").open_conversation()
        assert here.watch.last("userprofile.SetUserProfile")["body"] == {}
        body = here.watch.last("cm.ConsumerRequestConversation")["body"]
        assert body == {"brandId": here.cloud.account_id, "channelType": "MESSAGING"}


@pytest.mark.requirement("checklist:8", "checklist:9")
async def test_a_conversation_is_opened_with_attributes_and_private_data() -> None:
    """Connector API, `Create conversation`."""
    customer = CustomerInfoSde(CustomerInfo(customer_id="c-1", balance=-12.5), auth=SdeAuth(amr=["pwd"], iss="shop"))
    profile = SetUserProfile(
        first_name="Ada",
        authenticated_data=AuthenticatedData([customer, PersonalInfo(first_name="Ada", language="en")]),
        private_data=PrivateData(mobile_num="5550100", mail="ada@example.com"),
    )
    async with scene() as here:
        conversation = await here.session.consumer("customer").open_conversation(profile=profile)
        assert conversation.profile_error is None
        assert here.watch.last("userprofile.SetUserProfile")["body"] == {
            "firstName": "Ada",
            "authenticatedData": {
                "lp_sdes": [
                    {
                        "type": "ctmrinfo",
                        "info": {"customerId": "c-1", "balance": -12.5},
                        "auth": {"amr": ["pwd"], "iss": "shop"},
                    },
                    {"type": "personal", "personal": {"firstname": "Ada", "language": "en"}},
                ]
            },
            "privateData": {"mobileNum": "5550100", "mail": "ada@example.com"},
        }


@pytest.mark.requirement("checklist:10", "checklist:11")
async def test_a_conversation_is_routed_by_campaign_context_skill_and_urgency() -> None:
    """Connector API, `Create conversation`."""
    async with scene() as here:
        await here.session.consumer("customer").open_conversation(
            campaign=CampaignInfo(campaign_id="244127", engagement_id="244128"),
            context=ConversationContext(visitor_id="v", session_id="s", interaction_context_id="2", lang="en-US"),
            skill_id="77",
            ttr=TtrType.URGENT,
        )
        body = here.watch.last("cm.ConsumerRequestConversation")["body"]
        assert body["campaignInfo"] == {"campaignId": "244127", "engagementId": "244128"}
        assert body["conversationContext"]["interactionContextId"] == "2"
        assert body["conversationContext"]["type"] == "SharkContext"
        assert (body["skillId"], body["ttrDefName"]) == ("77", "URGENT")


@pytest.mark.requirement("checklist:15")
@pytest.mark.parametrize("status", ["ACCEPT", "READ", "ACCESS", "NACK", "ACTION"])
async def test_every_receipt_can_be_given(status: str) -> None:
    """Connector API, `Send`."""
    async with scene() as here:
        conversation = await here.session.consumer("customer").open_conversation()
        sequence = here.cloud.agent.says(conversation.conversation_id, "hello") or 0
        metadata = [ExternalId("element-1")] if status == AcceptStatus.ACTION else None
        await conversation.publish(AcceptStatusEvent(AcceptStatus(status), [sequence]), metadata=metadata)
        event = here.watch.last("ms.PublishEvent")["body"]["event"]
        assert event == {"type": "AcceptStatusEvent", "status": status, "sequenceList": [sequence]}


@pytest.mark.requirement("checklist:16")
@pytest.mark.parametrize("state", ["ACTIVE", "INACTIVE", "GONE", "COMPOSING", "PAUSE"])
async def test_every_chat_state_can_be_shown(state: str) -> None:
    """Connector API, `Send`."""
    async with scene() as here:
        conversation = await here.session.consumer("customer").open_conversation()
        assert await conversation.set_chat_state(ChatState(state)) is not None
        event = here.watch.last("ms.PublishEvent")["body"]["event"]
        assert event == {"type": "ChatStateEvent", "chatState": state}


@pytest.mark.requirement("checklist:17")
async def test_metadata_stands_beside_the_body_plain_and_encoded() -> None:
    """Connector API, "Send": top level of the envelope; types that are new are taken as they are."""
    async with scene() as here:
        conversation = await here.session.consumer("customer").open_conversation()
        items: list[MetadataItem | Mapping[str, object]] = [
            ExternalId("ref-1"),
            {"type": "TypeOfTomorrow", "id": 7},
        ]
        await conversation.publish(ContentEvent.text_of("hi"), metadata=items, encoded_metadata="eyJhIjoxfQ==")
        sent = here.watch.last("ms.PublishEvent")
        assert sent["metadata"] == [{"type": "ExternalId", "id": "ref-1"}, {"type": "TypeOfTomorrow", "id": 7}]
        assert sent["encodedMetadata"] == "eyJhIjoxfQ=="


@pytest.mark.requirement("checklist:19")
@pytest.mark.parametrize(("by", "field"), [("state", "ConversationStateField"), ("stage", "Stage")])
async def test_a_conversation_is_closed_by_either_field(by: Any, field: str) -> None:
    """Connector API, `Send`."""
    async with scene() as here:
        conversation = await here.session.consumer("customer").open_conversation()
        assert await conversation.close(by=by) is not None
        body = here.watch.last("cm.UpdateConversationField")["body"]
        assert body["conversationId"] == conversation.conversation_id
        assert body["conversationField"]["field"] == field
        assert here.cloud.agent.conversation(conversation.conversation_id).stage == "CLOSE"


@pytest.mark.requirement("checklist:20", "checklist:21", "checklist:22", "checklist:24")
async def test_dialog_satisfaction_urgency_and_profile_change_later() -> None:
    """Connector API, `Send`."""
    async with scene() as here:
        conversation = await here.session.consumer("customer").open_conversation()

        def field() -> Any:
            return here.watch.last("cm.UpdateConversationField")["body"]["conversationField"]

        await conversation.update_profile(SetUserProfile(last_name="Lovelace"))
        assert here.watch.last("userprofile.SetUserProfile")["body"] == {"lastName": "Lovelace"}
        await conversation.set_ttr(TtrType.CUSTOM, value=600)
        assert field() == {"field": "TTRField", "ttrType": "CUSTOM", "value": 600}
        await conversation.close_dialog()
        assert field()["field"] == "DialogChange"
        assert field()["dialog"]["dialogId"] == conversation.dialog_id
        await conversation.submit_csat(5, resolved=True)
        assert field() == {
            "field": "CSATRate",
            "csatRate": 5,
            "csatResolutionConfirmation": True,
            "status": "FILLED",
        }
        await conversation.submit_csat()
        assert field()["status"] == "SKIPPED"


@pytest.mark.requirement("checklist:23")
async def test_fields_that_are_the_agents_are_passed_through_and_the_no_is_told() -> None:
    """Connector API, "Send": skill and participants; a field of tomorrow goes out as it is."""
    async with scene() as here:
        conversation = await here.session.consumer("customer").open_conversation()
        fields = [
            SkillChange(skill="77"),
            ParticipantsChange(type="ADD", role="MANAGER", user_id="u-1"),
            UnknownField("FieldOfTomorrow", extra={"value": 1}),
        ]
        for field in fields:
            try:
                await conversation.update_field(field)
            except RequestRefused as refused:
                assert refused.code == 400
            sent = here.watch.last("cm.UpdateConversationField")["body"]["conversationField"]
            assert sent["field"] == field.wire_type


@pytest.mark.requirement("checklist:42", "checklist:45")
async def test_a_conversation_change_answers_what_a_person_would_ask() -> None:
    """Webhooks events; what is foreign, an echo, or for agents only is not shown."""
    heard: list[object] = []
    router = Router()

    @router.on()
    async def listen(incoming: Incoming[Any]) -> None:
        heard.append(incoming.event)

    async with scene(router=router) as here:
        here.cloud.deliver_to(here.session.webhook_app())
        conversation = await here.session.consumer("customer").open_conversation()
        here.cloud.agent.joins(conversation.conversation_id, "agent-7", "ASSIGNED_AGENT")
        await conversation.send_text("an echo that is not shown")
        here.cloud.agent.says(conversation.conversation_id, "for agents only", audience="AGENTS_AND_MANAGERS")
        here.cloud.agent.says(conversation.conversation_id, "for the consumer")
        here.cloud.agent.closes(conversation.conversation_id)
        await here.cloud.settle()
    assert [event.text for event in heard if isinstance(event, ContentEvent)] == ["for the consumer"]
    changes = [event for event in heard if isinstance(event, ConversationChange)]
    joined = next(change for change in changes if change.assigned_agent is not None)
    assert joined.assigned_agent is not None
    assert joined.assigned_agent.id
    assert joined.main_dialog is not None
    assert (joined.is_closed, joined.main_dialog.is_open, joined.consumer is not None) == (False, True, True)
    assert (changes[-1].is_closed, changes[-1].close_reason) == (True, "AGENT")


@pytest.mark.requirement("checklist:20", "checklist:46")
async def test_a_survey_is_held_in_a_dialog_of_its_own() -> None:
    """Post-conversation survey tutorial: close the MAIN dialog, answer in the survey's, and it ends."""
    questions: list[Incoming[ContentEvent]] = []
    router = Router()

    @router.on(ContentEvent, dialog_type=DialogType.POST_SURVEY)
    async def answer(question: Incoming[ContentEvent]) -> None:
        questions.append(question)
        replies = question.event.quick_replies
        if replies is not None and replies.replies:
            await question.conversation.choose(replies.replies[0], of=question)
        elif question.metadata:
            await question.reply("fine")

    properties = ClientProperties(features=[Feature.MULTI_DIALOG, Feature.RICH_CONTENT, Feature.QUICK_REPLIES])
    async with scene(
        sandbox={"agent": "survey", "survey": True}, router=router, client_properties=properties
    ) as here:
        here.cloud.deliver_to(here.session.webhook_app())
        conversation = await here.session.consumer("customer").open_conversation(skill_id="77")
        here.cloud.agent.joins(conversation.conversation_id, "agent-7", "ASSIGNED_AGENT")
        await conversation.send_text("thanks, that was all")
        await conversation.close_dialog()
        await conversation.until_closed(timeout=120)
        await here.cloud.settle()
    assert questions
    assert {question.dialog_id for question in questions} != {conversation.dialog_id}
    assert min(question.sequence or 0 for question in questions) <= 1


@pytest.mark.requirement("checklist:48", "checklist:18")
async def test_structured_content_and_quick_replies_come_typed_and_can_be_chosen() -> None:
    """Rich messaging introduction."""
    card = {
        "type": "vertical",
        "elements": [
            {"type": "text", "text": "Which size?"},
            {
                "type": "button",
                "title": "XL",
                "click": {
                    "metadata": [{"type": "ExternalId", "id": "size-XL"}],
                    "actions": [{"type": "publishText", "text": "XL please"}],
                },
            },
            {"type": "hologram", "depth": 3},
        ],
    }
    router = Router()

    @router.on(RichContentEvent)
    async def choose(incoming: Incoming[RichContentEvent]) -> None:
        content = incoming.event.content
        assert isinstance(content, ContainerElement)
        button = next(element for element in content.walk() if element.click is not None)
        await incoming.conversation.choose(button, of=incoming)

    async with scene(router=router) as here:
        here.cloud.deliver_to(here.session.webhook_app())
        conversation = await here.session.consumer("customer").open_conversation()
        sequence = here.cloud.agent.shows(conversation.conversation_id, card)
        assert await here.cloud.agent.hears(conversation.conversation_id) == "XL please"
        await here.cloud.settle()
        action = _events(here.cloud, conversation)[-2]
        assert (action["event"]["status"], action["event"]["sequenceList"]) == ("ACTION", [sequence])


@pytest.mark.requirement("checklist:49")
async def test_content_that_is_new_to_us_reaches_the_handlers_as_it_came() -> None:
    """Connector API overview: surface unknown ones, never fail."""
    heard: list[object] = []
    router = Router()

    @router.on()
    async def listen(incoming: Incoming[Any]) -> None:
        if not isinstance(incoming.event, ConversationChange):
            heard.append(incoming.event)

    form = {
        "type": "ContentEvent",
        "contentType": "forms/secure-invitation",
        "message": {"invitationId": "i-1", "title": "Your card", "formId": "f-1"},
    }
    async with scene(router=router) as here:
        here.cloud.deliver_to(here.session.webhook_app())
        conversation = await here.session.consumer("customer").open_conversation()
        here.cloud.agent.publishes(conversation.conversation_id, form)
        await here.cloud.settle()
        change = {
            "sequence": 7,
            "originatorMetadata": {"id": "agent-1", "role": "ASSIGNED_AGENT"},
            "event": {"type": "CoBrowseEvent", "depth": [1, {"a": 2}]},
            "conversationId": conversation.conversation_id,
            "dialogId": conversation.dialog_id,
        }
        notification = {
            "kind": "notification",
            "type": "ms.MessagingEventNotification",
            "body": {"changes": [change]},
        }
        await here.session.dispatch(decode_notification(json.dumps(notification).encode()))
    invitation, new = heard
    assert isinstance(invitation, ContentEvent)
    assert invitation.content_type == "forms/secure-invitation"
    assert isinstance(new, UnknownEvent)
    assert (new.type, new.extra["depth"]) == ("CoBrowseEvent", [1, {"a": 2}])


def _events(cloud: Sandbox, conversation: Conversation) -> list[Any]:
    return list(cloud.agent.conversation(conversation.conversation_id).main.transcript)
