"""A consumer: for whom messages are sent."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping
from typing import cast

import anyio
import attrs

from connector_async._arguments import check_kind, timeout_of
from connector_async._redact import mask
from connector_async._register import Register
from connector_async._send_result import SendResult
from connector_async.conversation import Conversation
from connector_async.errors import (
    ConversationAlreadyOpen,
    ConversationClosed,
    DeadlineExceeded,
    Landed,
    OutcomeUnknown,
    RequestError,
)
from connector_async.exchange import Response
from connector_async.exchange.desk import ClientPropertiesHeader, Desk
from connector_async.protocol.retry import RetryPolicy
from connector_async.store.base import ConversationRecord
from connector_async.wire import (
    CampaignInfo,
    ClientProperties,
    ConsumerRequestConversation,
    ConversationContext,
    ConversationCreated,
    MetadataItem,
    SetUserProfile,
)

__all__ = ["Consumer", "Opening"]

logger = logging.getLogger("connector_async.consumer")

RECOVERY_WAIT = 10.0
"""Seconds that messages wait for a webhook to name a conversation whose creation was lost on the way."""

_NOT_KNOWN_HERE = (
    "another program opened it, or this one before its restart: a durable store keeps conversations "
    "(`store=SqliteStore(path)`), a connected webhook names it with its next change, and who knows its id takes it "
    "up with `session.conversation(id, consumer)`"
)
_STORE_WITHIN = RECOVERY_WAIT + 5.0  # seconds for what is beside the request: the store, and that wait


@attrs.frozen(kw_only=True)
class Opening:
    """How to open a conversation; the same keywords as `Consumer.open_conversation`."""

    profile: SetUserProfile | None = None
    skill_id: str | int | None = None
    campaign: CampaignInfo | None = None
    context: ConversationContext | None = None
    ttr: str | None = None
    client_properties: ClientProperties | str | None = None


_PLAIN = Opening()


class Consumer:
    """A handle to one consumer; costs nothing to make. Handed out by `ConnectorSession.consumer`.

    Attributes:
        ext_consumer_id: The channel's id of the consumer: unique, unguessable, never recycled.
    """

    __slots__ = ("__weakref__", "_register", "ext_consumer_id")

    def __init__(self, ext_consumer_id: str, register: Register) -> None:
        self.ext_consumer_id = ext_consumer_id
        self._register = register

    @property
    def _desk(self) -> Desk:
        return self._register.desk

    async def open_conversation(
        self,
        *,
        profile: SetUserProfile | None = None,
        skill_id: str | int | None = None,
        campaign: CampaignInfo | None = None,
        context: ConversationContext | None = None,
        ttr: str | None = None,
        client_properties: ClientProperties | str | None = None,
        timeout: float | None = None,
    ) -> Conversation:
        """Open a conversation; a consumer may have one open at a time.

        A refused profile does not cost the conversation: it is logged, and stands in `profile_error` of the handle.

        Args:
            profile: Who the consumer is; without it the agent sees nothing.
            skill_id: Direct routing; `"-1"` is any skill.
            campaign: Campaign routing, which reporting needs.
            context: With values from Monitoring.
            ttr: How urgent; a `TtrType`.
            client_properties: Features of the consumer's side; sent with every call of this conversation from now
                on, and kept in the store.
            timeout: Seconds for everything; the session's default when None.

        Raises:
            ConversationAlreadyOpen: The consumer has one; `conversation_id` names it if this session knows it.
            RequestError: Any other failure.

        Source: Connector API, "Create conversation" (batch of userprofile.SetUserProfile and
        cm.ConsumerRequestConversation).
        """
        check_kind("profile", profile, (SetUserProfile, type(None)), "a SetUserProfile")
        given = ClientPropertiesHeader.of(client_properties)
        properties = given or self._desk.client_properties
        self._register.note_opening(self.ext_consumer_id, given)
        results = await self._desk.batch(
            [
                profile if profile is not None else SetUserProfile(),
                ConsumerRequestConversation(
                    brand_id=self._desk.account_id,
                    skill_id=skill_id,
                    campaign_info=campaign,
                    conversation_context=context,
                    ttr_def_name=ttr,
                ),
            ],
            consumer_id=self.ext_consumer_id,
            properties=properties,
            timeout=timeout,
        )
        told, opened = results
        if isinstance(opened, RequestError):
            if isinstance(opened, ConversationAlreadyOpen):
                opened.conversation_id = await self._known_open_id()
            try:
                raise opened
            finally:
                del results, told, opened  # its traceback holds this frame
        conversation = await self._remember(cast("Response[ConversationCreated]", opened), properties)
        if isinstance(told, RequestError):
            conversation.profile_error = told
            logger.warning("the conversation is open, but its profile was refused: %s", told)
        return conversation

    async def ensure_conversation(
        self, opening: Opening | None = None, *, timeout: float | None = None
    ) -> Conversation:
        """The consumer's open conversation: the one we know, else a new one. However many ask, one is opened.

        Args:
            opening: How to open one, if need be.
            timeout: Seconds; the session's default when None. Others that wait are not affected by it.

        Raises:
            ConversationAlreadyOpen: The cloud has one that this session cannot name.
            RequestError: It could not be opened.
        """
        how = _PLAIN if opening is None else opening
        check_kind("opening", how, Opening, "an `Opening(...)`")
        key = ("ensure", self.ext_consumer_id)
        current = self._register.current(self.ext_consumer_id)
        # Whoever comes while others wait for the opening, or just go on, stays behind them: texts keep their order.
        if current is not None and not current.is_closed and not self._desk.flights.is_under_way(key):
            if how.client_properties is not None:
                current.note_properties(how.client_properties)
            return current
        # By default the request inside ends in time and says more; what outlasts it is a store that does not answer.
        within = self._desk.engine.settings.timeout + _STORE_WITHIN if timeout is None else timeout_of(timeout)
        with anyio.move_on_after(within):
            return await self._desk.flights.run(key, lambda: self._find_or_open(how))
        raise DeadlineExceeded(
            "the time ran out while the conversation was being opened",
            type=ConsumerRequestConversation.TYPE,
            landed=Landed.UNKNOWN,
            hint="opening goes on; ask again",
        )

    async def send_text(
        self,
        text: str,
        *,
        opening: Opening | None = None,
        metadata: Iterable[MetadataItem | Mapping[str, object]] | None = None,
        request_id: str | None = None,
        retry: RetryPolicy | None = None,
        timeout: float | None = None,
    ) -> SendResult:
        """Send a text in the consumer's conversation, opening one if there is none, or none any more.

        Arguments and errors as `Conversation.send_text` and `ensure_conversation`; one `timeout` for all of it.
        """
        deadline = math.inf if timeout is None else self._desk.deadline(timeout)

        def left() -> float | None:
            return None if timeout is None else max(0.0, deadline - self._desk.clock.time())

        for last_chance in (False, True):
            conversation = await self.ensure_conversation(opening, timeout=left())
            try:
                return await conversation.send_text(
                    text, metadata=metadata, request_id=request_id, retry=retry, timeout=left()
                )
            except ConversationClosed as error:
                # Closed by the agent or the system since: the next message opens a new one.
                if last_chance or error.landed is Landed.UNKNOWN:
                    raise
        raise AssertionError("the loop returns or raises")

    def note_closed(self, conversation_id: str) -> None:
        """A conversation of this consumer is closed."""
        current = self._register.current(self.ext_consumer_id)
        if current is not None and current.conversation_id == conversation_id:
            current.mark_closed()
            self._register.leave(current)

    def adopt(self, conversation: Conversation) -> None:
        """A conversation of this consumer is open, as a webhook or the store says."""
        self._register.adopt(conversation)
        ear = self._register.ears.get(self.ext_consumer_id)
        if ear is not None:
            ear.settle()

    async def _find_or_open(self, opening: Opening) -> Conversation:
        known = await self._from_store(opening)
        if known is not None:
            return known
        try:
            return await self.open_conversation(**attrs.asdict(opening, recurse=False))
        except ConversationAlreadyOpen as error:
            # Our own lost create, or another program's: where webhooks are connected, they name it in a moment.
            found = await self._from_store(opening) or await self._told()
            if found is None:
                # "Use the open one" is what was just tried.
                error.hint = _NOT_KNOWN_HERE
                raise
            return found

    async def _told(self) -> Conversation | None:
        """Wait a bounded time for a webhook to name the consumer's open conversation."""
        if not self._desk.hears:
            return None
        slot = self._register.ears[self.ext_consumer_id] = self._desk.clock.slot()
        timer = self._desk.clock.call_at(self._desk.clock.time() + RECOVERY_WAIT, slot.settle)
        try:
            await slot
        finally:
            del self._register.ears[self.ext_consumer_id]
            timer.cancel()
        return self._register.current(self.ext_consumer_id)

    async def _from_store(self, opening: Opening) -> Conversation | None:
        record = await self._desk.open_conversation_of(self.ext_consumer_id)
        if record is None:
            return None
        properties = ClientPropertiesHeader.of(record.client_properties)
        if properties is None and opening.client_properties is not None:
            # A webhook named it to a process that did not open it.
            properties = ClientPropertiesHeader(opening.client_properties)
            await self._desk.store.put_conversation(attrs.evolve(record, client_properties=properties.text))
        conversation = self._register.conversation(record.conversation_id, self, properties=properties)
        self._register.adopt(conversation)
        return conversation

    async def _known_open_id(self) -> str | None:
        record = await self._desk.store.get_open_conversation(self._desk.account_id, self.ext_consumer_id)
        return None if record is None else record.conversation_id

    async def _remember(
        self, opened: Response[ConversationCreated], properties: ClientPropertiesHeader | None
    ) -> Conversation:
        conversation_id = str(opened.body.conversation_id)
        try:
            conversation = self._register.conversation(
                conversation_id, self, properties=properties, opened_at=self._desk.clock.time()
            )
        except ValueError as error:
            raise OutcomeUnknown(
                "the cloud opened a conversation under an id that cannot be used",
                request_id=opened.request_id,
                type=ConsumerRequestConversation.TYPE,
                status=opened.status,
                attempts=opened.attempts,
            ) from error
        self._register.adopt(conversation)
        record = ConversationRecord(
            account_id=self._desk.account_id,
            conversation_id=conversation_id,
            ext_consumer_id=self.ext_consumer_id,
            client_properties=None if properties is None else properties.text,
            opened_at=self._desk.wall(),
        )
        try:
            await self._desk.store.put_conversation(record)
        except Exception:
            # The conversation exists, and its id is known only here: losing the handle would lose it.
            logger.exception("the store did not take an open conversation")
        return conversation

    def __repr__(self) -> str:
        return f"Consumer({mask(self.ext_consumer_id)!r})"
