"""The request types of SEND and CONVERSATION: each checks its body strictly and then changes the model.

A handler returns the `body` of a success answer and raises `Refused` or `Denied` otherwise. Unknown fields are let
through: the real service ignores them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import attrs

from connector_async.sandbox._call import TTR_SECONDS, Call, Handler, check_owner, is_count
from connector_async.sandbox._fields import update_field
from connector_async.sandbox._json import Json, as_objects, digits, is_array, is_object, text, word
from connector_async.sandbox._replies import Refused
from connector_async.sandbox._state import Account, Conversation, Dialog

__all__ = ["BATCH_TYPES", "MAX_FILE_BYTES", "SEND_TYPES"]

_RECEIPTS: Final = frozenset({"ACCEPT", "READ", "ACCESS", "NACK", "ACTION"})
_CHAT_STATES: Final = frozenset({"ACTIVE", "INACTIVE", "GONE", "COMPOSING", "PAUSE", "BACKGROUND"})
_FILE_TYPES: Final = frozenset({"JPG", "JPEG", "PNG", "GIF"})
_PREVIEW_LIMIT: Final = 30 * 1024
MAX_FILE_BYTES: Final = 3 * 1024 * 1024


def _publish(call: Call) -> Json:
    body = call.body
    conversation, dialog = _addressed(call, body)
    event = body.get("event")
    if not is_object(event):
        raise Refused("Bad Request, event is missing")
    check = _EVENT_CHECKS.get(word(event.get("type")))
    if check is None:
        raise Refused("Bad Request, unknown event type")
    check(call, event, dialog)
    metadata = call.payload.get("metadata")
    if metadata is not None and as_objects(metadata) is None and metadata != []:
        raise Refused("Bad Request, metadata must be an array of objects")
    number = call.model.publish(
        conversation, dialog, call.consumer.lp_id, "CONSUMER", event, now=call.now, metadata=metadata
    )
    call.model.greet(conversation, event, call.features, call.now)
    return {"sequence": call.model.answer_sequence(number, call.count)}


def _addressed(call: Call, body: Json) -> tuple[Conversation, Dialog]:
    dialog_id = text(body.get("dialogId"))
    if dialog_id is None:
        raise Refused("Bad Request, dialogId is missing")
    found = call.account.dialogs.get(dialog_id)
    if found is None:
        raise Refused("Bad Request, dialog does not exist")
    conversation, dialog = found
    check_owner(call, conversation)
    named = body.get("conversationId")
    if named is not None and text(named) != conversation.conversation_id:
        raise Refused("Bad Request, dialog is not part of the conversation")
    if not dialog.is_open or not conversation.is_open:
        raise Refused("Bad Request, Conversation is close")
    return conversation, dialog


def _check_content(call: Call, event: Json, dialog: Dialog) -> None:
    del dialog
    kind, message = event.get("contentType"), event.get("message")
    if kind == "text/plain":
        if not isinstance(message, str):
            raise Refused("Bad Request, message must be a string")
        return
    if kind != "hosted/file":
        raise Refused("Bad Request, contentType must be text/plain or hosted/file")
    if not is_object(message) or text(message.get("relativePath")) not in call.account.files:
        raise Refused("Bad Request, file does not exist")
    if word(message.get("fileType")) not in _FILE_TYPES:
        raise Refused("Bad Request, fileType must be JPG, JPEG, PNG or GIF")
    preview = message.get("preview") or ""
    if not isinstance(preview, str) or len(preview) >= _PREVIEW_LIMIT:
        raise Refused("Bad Request, preview must be smaller than 30 KB")


def _check_receipt(call: Call, event: Json, dialog: Dialog) -> None:
    del call, dialog
    if word(event.get("status")) not in _RECEIPTS:
        raise Refused("Bad Request, unknown status")
    numbers = event.get("sequenceList")
    if not is_array(numbers) or not numbers or not all(is_count(number) for number in numbers):
        raise Refused("Bad Request, sequenceList must be an array of integers")


def _check_chat_state(call: Call, event: Json, dialog: Dialog) -> None:
    del call
    if word(event.get("chatState")) not in _CHAT_STATES:
        raise Refused("Bad Request, unknown chatState")
    if dialog.dialog_type != "MAIN":
        raise Refused("Bad Request, a survey dialog takes no chat states")


_EVENT_CHECKS: Final[dict[str, Callable[[Call, Json, Dialog], None]]] = {
    "ContentEvent": _check_content,
    "AcceptStatusEvent": _check_receipt,
    "ChatStateEvent": _check_chat_state,
}


def _set_profile(call: Call) -> Json:
    """`userprofile.SetUserProfile`: only customer info and personal info are taken as SDEs."""
    profile = call.body
    authenticated = profile.get("authenticatedData")
    if authenticated is not None:
        if not is_object(authenticated):
            raise Refused("Bad Request, authenticatedData must be an object")
        sdes = authenticated.get("lp_sdes", [])
        objects = as_objects(sdes)
        if objects is None and sdes != []:
            raise Refused("Bad Request, lp_sdes must be an array of objects")
        for sde in objects or []:
            _check_sde(sde)
    call.consumer.profile = profile
    return {"msg": "OK User Profile set successfully"}


def _check_sde(sde: Json) -> None:
    content = {"ctmrinfo": "info", "personal": "personal"}.get(word(sde.get("type")))
    if content is None:
        raise Refused("Bad Request, lp_sdes takes only the types ctmrinfo and personal")
    if not is_object(sde.get(content)):
        raise Refused(f"Bad Request, {content} must be an object")


def _open(call: Call) -> Json:
    body = call.body
    if text(body.get("brandId")) != call.account.account_id:
        raise Refused("Bad Request, brandId is not the account of the request")
    _check_opening(body)
    if call.consumer.open_conversation is not None:
        raise Refused(
            f"Consumer request conversation failed: User {call.consumer.lp_id} already has open conversation. "
            "Can't open another one."
        )
    kind = body.get("ttrDefName") or "NORMAL"
    conversation = call.model.open(
        call.account,
        call.consumer,
        skill_id=text(body.get("skillId")) or "-1",
        ttr=(kind, TTR_SECONDS[kind]),
        campaign=_numbers(body.get("campaignInfo")),
        context=body.get("conversationContext"),
        features=call.features,
        now=call.now,
    )
    return {"conversationId": conversation.conversation_id}


def _check_opening(body: Json) -> None:
    if body.get("channelType", "MESSAGING") != "MESSAGING":
        raise Refused("Bad Request, channelType must be MESSAGING")
    kind = body.get("ttrDefName")
    if kind is not None and (not isinstance(kind, str) or kind not in TTR_SECONDS):
        raise Refused("Bad Request, unknown ttrDefName")
    if body.get("skillId") is not None and text(body["skillId"]) is None:
        raise Refused("Bad Request, skillId must be a string or an integer")
    campaign, context = body.get("campaignInfo"), body.get("conversationContext")
    if campaign is not None:
        ids = (campaign.get("campaignId"), campaign.get("engagementId")) if is_object(campaign) else (None,)
        if not all(text(one) for one in ids):
            raise Refused("Bad Request, campaignInfo needs campaignId and engagementId")
    if context is not None and not is_object(context):
        raise Refused("Bad Request, conversationContext must be an object")


def _numbers(campaign: Any) -> Json | None:
    """Campaign ids as notifications show them: numbers, where they are."""
    if campaign is None:
        return None
    return {key: _number(value) for key, value in campaign.items()}


def _number(value: Any) -> Any:
    number = digits(value) if isinstance(value, str) else None
    return value if number is None else number


def _first_message(call: Call) -> Json:
    """A message in the batch itself, with an empty `dialogId`; only the old API description knows this form."""
    conversation = call.consumer.open_conversation
    if conversation is None:
        raise Refused("Bad Request, dialogId is missing")
    body = {**call.body, "dialogId": call.body.get("dialogId") or conversation.conversation_id}
    return _publish(attrs.evolve(call, payload={**call.payload, "body": body}))


def _upload_url(call: Call) -> Json:
    body = call.body
    kind, size = word(body.get("fileType")), digits(text(body.get("fileSize")) or "")
    if kind not in _FILE_TYPES:
        raise Refused("Bad Request, fileType must be JPG, JPEG, PNG or GIF")
    if size is None or not 0 < size <= MAX_FILE_BYTES:
        raise Refused("Bad Request, fileSize must be from 1 byte to 3 MB")
    _check_file_sharing(call.account)
    return call.model.upload_url(call.account, call.consumer, kind, size, call.now)


def _download_url(call: Call) -> Json:
    path = text(call.body.get("relativePath"))
    _check_file_sharing(call.account)
    if path is None or path not in call.account.files:
        raise Refused("Bad Request, file does not exist")
    return call.model.signed_path(path, "GET", call.now)


def _check_file_sharing(account: Account) -> None:
    if not account.file_sharing:
        raise Refused("Bad Request, file sharing is not enabled for the account")


SEND_TYPES: Final[dict[str, Handler]] = {
    "ms.PublishEvent": _publish,
    "cm.UpdateConversationField": update_field,
    "userprofile.SetUserProfile": _set_profile,
    "ms.GenerateURLForUploadFile": _upload_url,
    "ms.GenerateURLForDownloadFile": _download_url,
}
BATCH_TYPES: Final[dict[str, Handler]] = {
    "userprofile.SetUserProfile": _set_profile,
    "cm.ConsumerRequestConversation": _open,
    "ms.PublishEvent": _first_message,
}
