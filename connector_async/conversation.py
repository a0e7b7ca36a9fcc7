"""A conversation, as the consumer's side handles it: what a person wants to do, in the API's words."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

import anyio

from connector_async._arguments import limit_of
from connector_async._feed import Feed, Listener, check_event_types
from connector_async._voice import Offer, Voice
from connector_async.errors import ConversationClosed, RequestError
from connector_async.exchange import Response
from connector_async.exchange.desk import ClientPropertiesHeader
from connector_async.wire import (
    ClientProperties,
    Confirmation,
    ConversationField,
    ConversationStateField,
    CSATRate,
    CsatStatus,
    DialogChange,
    MessageAudience,
    SetUserProfile,
    StageField,
    TTRField,
    UpdateConversationField,
)

if TYPE_CHECKING:
    from connector_async.webhooks import Incoming

__all__ = ["Conversation", "Offer"]

E = TypeVar("E")
E2 = TypeVar("E2")


class Conversation(Voice):
    """A handle to one conversation. Handed out by `Consumer.open_conversation` and `ConnectorSession.conversation`.

    Every method that sends raises `RequestError` when the request fails (see `errors` for the kinds),
    `LocalProtocolError` when it does not fit the API, and takes `timeout`: seconds for everything, queue, tokens,
    attempts and pauses included; the session's default when None. All are safe to cancel: what was not sent is not
    sent, what was sent is reported as unknown.

    Attributes:
        conversation_id: The id; its MAIN dialog has the same.
        ext_consumer_id: Whose conversation it is; `consumer` is the handle.
    """

    __slots__ = ("__weakref__",)

    @property
    def profile_error(self) -> RequestError | None:
        """Set if the conversation was opened but the profile that came with it was refused."""
        return None if self._rare is None else self._rare.profile_error

    @profile_error.setter
    def profile_error(self, error: RequestError) -> None:
        self._rarely.profile_error = error

    @property
    def dialog_id(self) -> str:
        """The MAIN dialog, which has the conversation's id."""
        return self.conversation_id

    def mark_closed(self) -> None:
        """Note that it is closed: sending content fails from now on, without asking the cloud."""
        super().mark_closed()
        if self._rarely.shut is not None:
            self._rarely.shut.set()

    def note_properties(self, properties: ClientProperties | ClientPropertiesHeader | str) -> None:
        """Note with what it was opened, if that was not known: a webhook may have named it before any answer did."""
        if self._properties is self._register.client_properties:
            self._rarely.properties = ClientPropertiesHeader.of(properties)

    # Listening

    @overload
    async def wait_for(
        self, event_type: type[E], /, *, role: str | None = None, timeout: float | None = None
    ) -> Incoming[E]: ...
    @overload
    async def wait_for(
        self, event_type: type[E], other: type[E2], /, *, role: str | None = None, timeout: float | None = None
    ) -> Incoming[E | E2]: ...
    @overload
    async def wait_for(
        self, *event_types: type, role: str | None = None, timeout: float | None = None
    ) -> Incoming[Any]: ...
    async def wait_for(
        self, *event_types: type, role: str | None = None, timeout: float | None = None
    ) -> Incoming[Any]:
        """Wait for the next event of these types in this conversation, and return it.

        Events that came before the call do not count. Without `role` our own echoes do not count either, and nothing
        counts that is not meant for the consumer.

        Not for a handler of this conversation: its events are handled one at a time, and the next one waits until
        the handler has returned. Let the handler start a task, and wait there.

        Args:
            event_types: Classes of `connector_async.wire`; any event if there are none.
            role: Of the originator; see `Role`.
            timeout: Seconds; None waits for ever.

        Raises:
            TimeoutError: None came in time.
            RuntimeError: No webhooks are connected, so that nothing can be heard; or a handler of this conversation
                would wait.
            SessionClosed: The session closed first.
        """
        self._check_hearing()
        with anyio.fail_after(limit_of(timeout)):
            return await anext(self._listen(event_types, role))

    @overload
    def events(self, event_type: type[E], /, *, role: str | None = None) -> AsyncIterator[Incoming[E]]: ...
    @overload
    def events(
        self, event_type: type[E], other: type[E2], /, *, role: str | None = None
    ) -> AsyncIterator[Incoming[E | E2]]: ...
    @overload
    def events(self, *event_types: type, role: str | None = None) -> AsyncIterator[Incoming[Any]]: ...
    def events(self, *event_types: type, role: str | None = None) -> AsyncIterator[Incoming[Any]]:
        """Iterate over the conversation's events from now on; arguments and errors as `wait_for`."""
        self._check_hearing()
        return self._listen(event_types, role)

    async def until_closed(self, *, timeout: float | None = None) -> None:
        """Return when the conversation is closed, by whomever.

        Raises:
            TimeoutError: It is still open after `timeout` seconds.
            RuntimeError: No webhooks are connected: nothing can be heard.
            SessionClosed: The session closed first.
        """
        if self.is_closed:
            return
        self._check_hearing()
        rare = self._rarely
        if rare.shut is None:
            rare.shut = anyio.Event()
        with anyio.fail_after(limit_of(timeout)), self._waiting():
            await rare.shut.wait()

    def tell(self, incoming: Incoming[Any]) -> bool:
        """A webhook brought an event of this conversation; whether anybody was waiting for it here."""
        rare = self._rare
        return rare is not None and rare.feed is not None and rare.feed.tell(incoming)

    def _listen(self, event_types: tuple[type, ...], role: str | None) -> Listener:
        check_event_types("event_types", event_types)
        rare = self._rarely
        if rare.feed is None:
            rare.feed = Feed()
        # A method, so that who listens keeps the handle that is told.
        return rare.feed.listen(partial(self._is_wanted, event_types, role), self._waiting)

    def _waiting(self) -> AbstractContextManager[None]:
        return self._desk.receipts.hearing.waiting(self.conversation_id)

    def _is_wanted(self, event_types: tuple[type, ...], role: str | None, incoming: Incoming[Any]) -> bool:
        if event_types and not isinstance(incoming.event, event_types):
            return False
        if role is None:
            return not incoming.is_echo and incoming.audience == MessageAudience.ALL
        return incoming.role == role

    def _check_hearing(self) -> None:
        if not self._desk.hears:
            raise RuntimeError(
                "events come by webhook, and this session has none connected: "
                "use `session.webhook_app()` or `session.serve()`"
            )

    # The conversation itself

    async def update_profile(
        self, profile: SetUserProfile, *, timeout: float | None = None
    ) -> Response[Confirmation]:
        """Tell the brand who the consumer is."""
        return await self._desk.request(
            profile, consumer_id=self.ext_consumer_id, properties=self._properties, timeout=timeout
        )

    async def update_field(
        self, field: ConversationField | Iterable[ConversationField], *, timeout: float | None = None
    ) -> Response[Confirmation]:
        """Change any field of the conversation; the methods below are made of this.

        Raises:
            ValueError: There is no field to change.
        """
        fields = field if isinstance(field, ConversationField) else tuple(field)
        if not fields:
            raise ValueError("an update changes at least one field")
        body = UpdateConversationField(conversation_id=self.conversation_id, conversation_field=fields)
        return await self._desk.request(
            body, consumer_id=self.ext_consumer_id, properties=self._properties, timeout=timeout
        )

    async def set_ttr(
        self, ttr_type: str, *, value: int | None = None, timeout: float | None = None
    ) -> Response[Confirmation]:
        """Say how urgent it is: a `TtrType`, and seconds for `CUSTOM`."""
        return await self.update_field(TTRField(ttr_type=ttr_type, value=value), timeout=timeout)

    async def submit_csat(
        self,
        rate: int | None = None,
        *,
        resolved: bool | None = None,
        status: CsatStatus | str | None = None,
        timeout: float | None = None,
    ) -> Response[Confirmation]:
        """Hand in the consumer's satisfaction, after the close.

        Args:
            rate: 1 to 5.
            resolved: Whether the matter was settled.
            status: FILLED, PARTIALLY_FILLED or SKIPPED; told from what is given if None.
        """
        given = (rate is not None) + (resolved is not None)
        told = (CsatStatus.SKIPPED, CsatStatus.PARTIALLY_FILLED, CsatStatus.FILLED)[given]
        field = CSATRate(csat_rate=rate, csat_resolution_confirmation=resolved, status=status or told)
        return await self.update_field(field, timeout=timeout)

    async def close_dialog(
        self, dialog_id: str | None = None, *, timeout: float | None = None
    ) -> Response[Confirmation]:
        """Close one dialog. Closing the MAIN one (None) starts the survey, where one is configured."""
        return await self.update_field(DialogChange.close(dialog_id or self.conversation_id), timeout=timeout)

    async def close(
        self, *, by: Literal["state", "stage"] = "state", timeout: float | None = None
    ) -> Response[Confirmation] | None:
        """Close the conversation with all its dialogs; no survey follows. Closing a closed one does nothing.

        Args:
            by: Which of the two documented fields to set; they are not known to differ.

        Returns:
            The answer, or None if it was closed already.
        """
        if by not in ("state", "stage"):
            raise ValueError(f"by must be 'state' or 'stage', got {by!r}")
        if self.is_closed:
            return None
        try:
            response = await self.update_field(
                ConversationStateField() if by == "state" else StageField(), timeout=timeout
            )
        except ConversationClosed:
            await self._note_closed()
            return None
        await self._note_closed()
        return response

    def __repr__(self) -> str:
        state = "closed" if self.is_closed else "open"
        return f"Conversation({self.conversation_id!r}, {state})"
