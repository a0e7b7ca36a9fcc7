"""Whatever a client sends, it gets an answer of the API: random JSON never makes the sandbox fail."""

from __future__ import annotations

import functools
import json
from typing import Any

import hypothesis.strategies as st
from hypothesis import given

from connector_async.sandbox import Sandbox
from connector_async.sandbox.api import Arrival
from connector_async.sandbox.ledger import Ledger

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 10**20) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
KEYS = (
    "body", "campaignInfo", "chatState", "contentType", "conversationField", "conversationId", "csatRate", "dialog",
    "dialogId", "event", "field", "fileSize", "fileType", "lp_sdes", "message", "metadata", "role", "sequenceList",
    "skillId", "state", "status", "ttrType", "type",
)  # fmt: skip
WORDS = (
    "ms.PublishEvent", "cm.UpdateConversationField", "userprofile.SetUserProfile", "ms.GenerateURLForUploadFile",
    "ms.GenerateURLForDownloadFile", "cm.ConsumerRequestConversation", "ContentEvent", "AcceptStatusEvent",
    "ChatStateEvent", "hosted/file", "text/plain", "CSATRate", "TTRField", "DialogChange", "ParticipantsChange",
    "Skill", "UPDATE", "CLOSE", "ctmrinfo", "FILLED", "PNG", "READ",
)  # fmt: skip


@functools.cache
def _cloud() -> tuple[Sandbox, bytes, bytes, str]:
    cloud = Sandbox(in_process=True)
    api = cloud._api
    token = api.mint_app_token(cloud.account, cloud._clock())
    consumer = api._consumer_of(cloud.account, "someone")
    return cloud, token.text.encode(), consumer.token.encode(), consumer.lp_id


def _filled(shape: Any, conversation_id: str) -> Any:
    if shape == "THE CONVERSATION":
        return conversation_id
    if isinstance(shape, dict):
        return {key: _filled(value, conversation_id) for key, value in shape.items()}
    return [_filled(value, conversation_id) for value in shape] if isinstance(shape, list) else shape


def _shapes(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.dictionaries(st.sampled_from(KEYS), inner, max_size=6) | st.lists(inner, max_size=3)


LIKELY = st.recursive(
    st.sampled_from((*WORDS, "THE CONVERSATION")) | st.integers(0, 5) | JSON, _shapes, max_leaves=12
)
ENVELOPE = st.fixed_dictionaries({"id": st.just("x"), "type": st.sampled_from(WORDS[:6]), "body": LIKELY})
PUBLISH = st.fixed_dictionaries(
    {
        "id": st.just("x"),
        "type": st.just("ms.PublishEvent"),
        "metadata": JSON,
        "body": st.fixed_dictionaries({"dialogId": st.just("THE CONVERSATION"), "event": LIKELY}),
    }
)
FIELD = st.fixed_dictionaries(
    {
        "id": st.just("x"),
        "type": st.just("cm.UpdateConversationField"),
        "body": st.fixed_dictionaries({"conversationId": st.just("THE CONVERSATION"), "conversationField": LIKELY}),
    }
)


@given(payload=JSON | ENVELOPE | PUBLISH | FIELD | st.lists(ENVELOPE, max_size=3))
def test_random_json_is_answered_by_the_rules(payload: Any) -> None:
    """A server that fails on a client's mistake hides it."""
    cloud, token, consumer_token, lp_id = _cloud()
    consumer = cloud.account.consumers[lp_id]
    if consumer.open_conversation is None:
        cloud.model.open(
            cloud.account, consumer, skill_id="-1", ttr=("NORMAL", 1), campaign=None, context=None,
            features=frozenset(), now=cloud._clock(),
        )  # fmt: skip
    assert consumer.open_conversation is not None
    body = json.dumps(_filled(payload, consumer.open_conversation.conversation_id)).encode()
    for endpoint in ("send", "conversation", "consumer"):
        cloud._api.ledger = Ledger()
        arrival = Arrival(
            endpoint,
            cloud.account_id,
            authorization=token,
            on_behalf=consumer_token,
            body=body,
            now=cloud._clock(),
        )
        reply = cloud._api.perform(cloud._api.arrive(arrival))
        assert reply.status in (200, 201, 400, 401)
        assert json.loads(reply.body)
