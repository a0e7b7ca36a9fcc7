"""The cloud's state and its rules, without I/O: requests as decoded JSON in, replies out, the time passed in.

Whoever wants to know what happens (webhooks, scripted agents) is told by a plain call in `listeners`.
"""

from __future__ import annotations

import hashlib
import hmac
import uuid
from collections.abc import Callable
from typing import Final, Literal
from urllib.parse import parse_qsl

import attrs

from connector_async.sandbox._json import Json, digits
from connector_async.sandbox._state import (
    Account,
    Consumer,
    Conversation,
    Dialog,
    Happening,
    StoredFile,
    millis,
)
from connector_async.sandbox.tokens import signing_key

__all__ = ["CloudModel", "SequenceMode", "resend_sequence"]

SequenceMode = Literal["resend", "dialog"]

_CHANGE_KEY: Final = "cqm.ExConversationChangeNotification"
_AUTO_MESSAGE_WINDOW: Final = 10.0  # seconds from create to the first message
_URL_LIFE: Final = 60  # seconds that a signed storage URL holds
_AUTO_MESSAGE: Final = "Thank you for your message. Someone will be with you soon."


def resend_sequence(count: int) -> int:
    """The counter of the seed page for the how-manieth arrival of a request: 0, 2, 4, 8 …

    The page says 0, then 2, then 4, "doubles"; we read on as 8, where steps of two would give 6.
    """
    return 0 if count == 1 else 1 << (count - 1)


def _new_id() -> str:
    return str(uuid.uuid4())


@attrs.define(eq=False)
class CloudModel:
    """Everything that the cloud remembers.

    Attributes:
        sequence: `resend` answers the seed page's counter, `dialog` the event's number in its dialog.
        token_lifetime: Seconds that an AppJWT holds.
        listeners: Called with each `Happening`, in order, within the request that causes it.
    """

    sequence: SequenceMode = "resend"
    token_lifetime: float = 3600.0
    accounts: dict[str, Account] = attrs.field(init=False, factory=dict[str, Account])
    listeners: list[Callable[[Happening], None]] = attrs.field(init=False, factory=list[Callable[[Happening], None]])
    new_id: Callable[[], str] = _new_id
    _url_key: bytes = attrs.field(init=False, repr=False, factory=lambda: uuid.uuid4().bytes)

    def add_account(self, account_id: str, client_id: str, client_secret: str, *, survey: bool = False) -> Account:
        """Install the app in one more account; replaces an account of that id."""
        signing_key()  # made now, so that the first token call is as quick as the rest
        account = Account(account_id, client_id, client_secret, survey=survey)
        self.accounts[account_id] = account
        return account

    # -- conversations

    def open(
        self,
        account: Account,
        consumer: Consumer,
        *,
        skill_id: str,
        ttr: tuple[str, int],
        campaign: Json | None,
        context: Json | None,
        features: frozenset[str],
        now: float,
    ) -> Conversation:
        """Open a conversation for a consumer who has none open."""
        conversation_id = self.new_id()
        conversation = Conversation(
            conversation_id,
            account,
            consumer,
            now,
            skill_id=skill_id,
            ttr_type=ttr[0],
            ttr_seconds=ttr[1],
            campaign=campaign,
            context=context,
            features=features,
            is_first=not consumer.has_conversed,
        )
        conversation.participants[consumer.lp_id] = "CONSUMER"
        self._add_dialog(conversation, conversation_id, "MAIN", now)
        account.conversations[conversation_id] = conversation
        consumer.open_conversation = conversation
        consumer.has_conversed = True
        self.changed(conversation, now)
        return conversation

    def _add_dialog(self, conversation: Conversation, dialog_id: str, dialog_type: str, now: float) -> Dialog:
        dialog = Dialog(dialog_id, dialog_type, now)
        dialog.participants[conversation.consumer.lp_id] = "CONSUMER"
        conversation.dialogs.append(dialog)
        conversation.account.dialogs[dialog_id] = (conversation, dialog)
        return dialog

    def changed(self, conversation: Conversation, now: float) -> None:
        """Tell the listeners the complete state of a conversation."""
        conversation.touch(now)
        if self.listeners:
            change: Json = {"type": "UPSERT", "result": conversation.describe()}
            self._tell(Happening(conversation.account, conversation, conversation.current, _CHANGE_KEY, change, now))

    def _tell(self, happening: Happening) -> None:
        for listener in self.listeners:
            listener(happening)

    def close(self, conversation: Conversation, *, by: str, cause: str, now: float) -> None:
        """Close the whole conversation with all its dialogs."""
        for dialog in conversation.dialogs:
            if dialog.is_open:
                self._end_dialog(dialog, by=by, cause=cause, now=now)
        self._end(conversation, by=by, now=now)
        self.changed(conversation, now)

    def _end_dialog(self, dialog: Dialog, *, by: str, cause: str, now: float) -> None:
        dialog.is_open, dialog.ended_at, dialog.closed_by, dialog.closed_cause = False, now, by, cause

    def _end(self, conversation: Conversation, *, by: str, now: float) -> None:
        conversation.stage, conversation.ended_at = "CLOSE", now
        conversation.close_reason = conversation.close_reason or by
        conversation.consumer.open_conversation = None

    def close_dialog(
        self,
        conversation: Conversation,
        dialog: Dialog,
        *,
        by: str,
        cause: str,
        now: float,
        features: frozenset[str] | None = None,
    ) -> None:
        """Close one dialog: after MAIN a survey may begin, after the last one the conversation ends."""
        self._end_dialog(dialog, by=by, cause=cause, now=now)
        announced = conversation.features if features is None else features
        if dialog is conversation.main:
            conversation.close_reason = by
            if conversation.account.survey and "MULTI_DIALOG" in announced and self._was_served(conversation):
                self._add_dialog(conversation, self.new_id(), "POST_SURVEY", now)
        if not any(one.is_open for one in conversation.dialogs):
            self._end(conversation, by=by, now=now)
        self.changed(conversation, now)

    def _was_served(self, conversation: Conversation) -> bool:
        # "No survey without an assigned skill/agent".
        return conversation.agent_id is not None or conversation.skill_id != "-1"

    def join(self, conversation: Conversation, identity: str, role: str, now: float) -> None:
        """Let somebody take part; an assigned agent takes the place of the one before."""
        if role == "ASSIGNED_AGENT":
            self._drop_agent(conversation)
        conversation.participants[identity] = role
        conversation.current.participants[identity] = role
        self.changed(conversation, now)

    def leave(self, conversation: Conversation, identity: str, now: float) -> None:
        """Let somebody go who takes part."""
        self._remove(conversation, identity)
        self.changed(conversation, now)

    def _remove(self, conversation: Conversation, identity: str) -> None:
        conversation.participants.pop(identity, None)
        for dialog in conversation.dialogs:
            dialog.participants.pop(identity, None)

    def transfer(self, conversation: Conversation, skill_id: str, now: float) -> None:
        """Hand the conversation to another skill: the agent goes."""
        self._drop_agent(conversation)
        conversation.skill_id = skill_id
        self.changed(conversation, now)

    def _drop_agent(self, conversation: Conversation) -> None:
        agent = conversation.agent_id
        if agent is not None:
            self._remove(conversation, agent)

    # -- messages

    def publish(
        self,
        conversation: Conversation,
        dialog: Dialog,
        originator_id: str,
        role: str,
        event: Json,
        *,
        now: float,
        metadata: object = None,
        audience: str = "ALL",
    ) -> int | None:
        """Put an event into a dialog; its number there, or None for a chat state, which has none."""
        change: Json = {
            "originatorId": originator_id,
            "originatorMetadata": {"id": originator_id, "role": role},
            "event": event,
            "conversationId": conversation.conversation_id,
            "dialogId": dialog.dialog_id,
        }
        number: int | None = None
        if event["type"] != "ChatStateEvent":
            number = dialog.take_sequence()
            change = {"sequence": number, **change}
            change |= {"serverTimestamp": millis(now), "messageAudience": audience}
            if metadata:
                change["metadata"] = metadata if isinstance(metadata, list) else [metadata]
            dialog.transcript.append(change)
            if role == "CONSUMER" and event["type"] != "AcceptStatusEvent":
                dialog.unaccepted.append(number)
                dialog.unread.append(number)
        if self.listeners:
            key = "ms.MessagingEventNotification." + event["type"]
            self._tell(Happening(conversation.account, conversation, dialog, key, change, now))
        return number

    def answer_sequence(self, number: int | None, count: int) -> int:
        """What the answer to a publish says as `sequence`."""
        if self.sequence == "resend":
            return resend_sequence(count)
        return number or 0  # a chat state is always answered with 0

    def greet(self, conversation: Conversation, event: Json, features: frozenset[str], now: float) -> None:
        """Answer the first message with an automatic one, where both requests announced the feature in time."""
        if conversation.greeted or event["type"] != "ContentEvent":
            return
        conversation.greeted = True
        in_time = now - conversation.started_at <= _AUTO_MESSAGE_WINDOW
        if in_time and "AUTO_MESSAGES" in features and "AUTO_MESSAGES" in conversation.features:
            greeting = {"type": "ContentEvent", "contentType": "text/plain", "message": _AUTO_MESSAGE}
            self.publish(conversation, conversation.main, "controller-bot", "CONTROLLER", greeting, now=now)

    # -- files

    def upload_url(self, account: Account, consumer: Consumer, kind: str, size: int, now: float) -> Json:
        """A signed path under which a file of that size may be PUT for one minute."""
        path = f"/v1/AUTH_async-images/{account.account_id}/{consumer.lp_id}_uuid_{self.new_id()}.{kind}"
        account.uploads[path] = size
        return self.signed_path(path, "PUT", now)

    def signed_path(self, path: str, method: str, now: float) -> Json:
        """The answer that names a path and the signature with which it may be used for one minute."""
        expires = str(int(now) + _URL_LIFE)
        query = {"temp_url_sig": self._signature(method, path, expires), "temp_url_expires": expires}
        return {"relativePath": path, "queryParams": query}

    def _signature(self, method: str, path: str, expires: str) -> str:
        return hmac.new(self._url_key, f"{method}\n{expires}\n{path}".encode(), hashlib.sha1).hexdigest()

    def may_use(self, method: str, path: str, query: str, now: float) -> bool:
        """Whether a storage URL is signed for that method and has not lapsed."""
        given = dict(parse_qsl(query))
        expires, signature = given.get("temp_url_expires", ""), given.get("temp_url_sig", "")
        ends_at = digits(expires)
        if ends_at is None or now > ends_at:
            return False
        return hmac.compare_digest(self._signature(method, path, expires).encode(), signature.encode())

    def store(self, account: Account, path: str, data: bytes, content_type: str) -> None:
        """Keep a file."""
        account.uploads.pop(path, None)
        account.files[path] = StoredFile(data, content_type)

    def describe(self, account: Account) -> Json:
        """The account's conversations, for people and tests to look at."""
        return {
            "account_id": account.account_id,
            "consumers": len(account.consumers),
            "conversations": [one.describe() for one in account.conversations.values()],
        }
