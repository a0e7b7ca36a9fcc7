"""Takes one event to the session and to the handlers that want it.

Knows nothing of queues, doubles and the durable inbox: what it is given is handled now.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Collection
from typing import Any, cast

import attrs

from connector_async.protocol.inbox import event_digest
from connector_async.webhooks._parts import Part
from connector_async.webhooks._patience import within
from connector_async.webhooks._ports import FoundConversation, SessionPort
from connector_async.webhooks.incoming import Incoming, Unclaimed, guess_dialog_type, is_from_consumer
from connector_async.webhooks.router import Bound, Handler, Router
from connector_async.webhooks.settings import WebhookStats
from connector_async.wire import AcceptStatusEvent, ConversationChange, Message, MessagingEvent, to_wire

__all__ = ["Failure", "Result", "Runner", "Turn"]

logger = logging.getLogger("connector_async.webhooks")

_MAX_DIALOG_TYPES = 10_000


@attrs.frozen(kw_only=True)
class Turn:
    """The circumstances in which an event is handed out."""

    after_gap: bool = False
    is_late: bool = False
    attempt: int = 1
    done: Collection[Handler[Any]] = ()
    """Handlers that succeeded with it at an earlier attempt."""


@attrs.frozen
class Failure:
    """A handler that raised, or the session that could not say whose the conversation is."""

    name: str
    error: Exception


@attrs.define(eq=False)
class Result:
    """What came of one turn."""

    done: list[Handler[Any]] = attrs.field(factory=list[Handler[Any]])
    failures: list[Failure] = attrs.field(factory=list[Failure])


@attrs.define(eq=False)
class Runner:
    """Runs the handlers of one session."""

    port: SessionPort
    router: Router
    stats: WebhookStats
    handler_timeout: float | None
    _dialog_types: OrderedDict[tuple[str, str], str | None] = attrs.field(
        factory=OrderedDict[tuple[str, str], "str | None"], init=False
    )
    _has_warned: bool = attrs.field(default=False, init=False)

    async def run(self, part: Part, turn: Turn) -> Result:
        """Hand out one event; never raises but for cancellation."""
        result = Result(done=list(turn.done))
        try:
            found = await self._find(part)
        except Exception as error:
            logger.exception("cannot tell whose conversation %s is", part.conversation_id)
            result.failures.append(Failure("find_conversation", error))
            return result
        if found is None:
            self._skip_unclaimed(part)
            return result
        incoming = self._incoming(part, found, turn)
        await self._observe(incoming, result)
        for bound in self._handlers(incoming, result):
            if bound.handler not in turn.done:
                await self._call(bound, incoming, result)
        return result

    def _handlers(self, incoming: Incoming[Any], result: Result) -> list[Bound]:
        try:
            return self.router.handlers_for(incoming)
        except Exception as error:
            logger.exception("a condition of a handler failed")
            result.failures.append(Failure("when", error))
            return []

    async def _find(self, part: Part) -> FoundConversation | None:
        change = part.change
        found = await self.port.find_conversation(
            part.conversation_id,
            lp_consumer_id=part.lp_consumer_id,
            is_told_apart=isinstance(change, ConversationChange) or change.role is not None,
        )
        if found is not None:
            return found
        for ask in self.router.unclaimed_handlers:
            unclaimed = Unclaimed(
                account_id=self.port.account_id,
                conversation_id=part.conversation_id,
                lp_consumer_id=part.lp_consumer_id,
                event=part.event,
                notification=part.notification,
            )
            ext_consumer_id = await ask(unclaimed)
            if ext_consumer_id is not None:
                return await self.port.adopt_conversation(part.conversation_id, ext_consumer_id)
        return None

    def _skip_unclaimed(self, part: Part) -> None:
        self.stats.unclaimed += 1
        if not self._has_warned:
            self._has_warned = True
            logger.warning(
                "events of conversation %s are skipped: no store knows it. Webhooks bring all conversations of the "
                "account, so this is as it should be for those of other channels; if this one is ours, share one "
                "durable store between all workers (store=SqliteStore(path)), or name its consumer in "
                "@router.on_unclaimed. Not told again; see stats().unclaimed",
                part.conversation_id,
            )

    def _incoming(self, part: Part, found: FoundConversation, turn: Turn) -> Incoming[Any]:
        change = part.change if isinstance(part.change, MessagingEvent) else None
        return Incoming(
            event=part.event,
            conversation=found.conversation,
            consumer=found.consumer,
            session=self.port.session,
            account_id=self.port.account_id,
            conversation_id=part.conversation_id,
            dialog_id=part.dialog_id,
            dialog_type=self._dialog_type(part),
            sequence=part.sequence,
            role=None if change is None else change.role,
            originator_id=None if change is None else change.originator_id,
            is_echo=change is not None and is_from_consumer(change, found.lp_consumer_id),
            after_gap=turn.after_gap,
            is_late=turn.is_late,
            attempt=turn.attempt,
            change=part.change,
            notification=part.notification,
        )

    def _dialog_type(self, part: Part) -> str | None:
        """What a conversation change told of the dialog, else what its id tells."""
        if isinstance(part.change, ConversationChange):
            for dialog in part.change.details.dialogs:
                self._dialog_types[part.conversation_id, str(dialog.dialog_id)] = dialog.dialog_type
                if len(self._dialog_types) > _MAX_DIALOG_TYPES:
                    self._dialog_types.popitem(last=False)
        if part.dialog_id is None:
            return None
        told = self._dialog_types.get((part.conversation_id, part.dialog_id))
        return told or guess_dialog_type(part.conversation_id, part.dialog_id)

    async def _observe(self, incoming: Incoming[Any], result: Result) -> None:
        """Let the session take note; an echo that it did not wait for is left for the worker that did."""
        try:
            is_awaited = self.port.observe(incoming)
            if not incoming.is_echo:
                if isinstance(incoming.event, AcceptStatusEvent) and not is_awaited and self.port.store.durable:
                    await self._keep_receipt(incoming, incoming.event)
                return
            self.stats.echoes += 1
            if not is_awaited and self.port.store.durable:
                # An echo is an event in a dialog: a message, never a conversation change.
                digest = event_digest(to_wire(cast("Message", incoming.event)))
                await self.port.store.put_echo(
                    incoming.account_id, incoming.conversation_id, digest, incoming.sequence
                )
        except Exception as error:
            logger.exception("the session could not take note of an event of %s", incoming.conversation_id)
            result.failures.append(Failure("observe", error))

    async def _keep_receipt(self, incoming: Incoming[Any], receipt: AcceptStatusEvent) -> None:
        """Leave a receipt for the worker that sent what it names; numbers count within a dialog."""
        if incoming.dialog_id is not None:
            await self.port.store.put_receipt(
                incoming.account_id, incoming.dialog_id, receipt.status, receipt.sequence_list
            )

    async def _call(self, bound: Bound, incoming: Incoming[Any], result: Result) -> None:
        try:
            if self.handler_timeout is None:
                await bound.call(incoming)
            else:
                await within(self.handler_timeout, bound.call(incoming))
        except Exception as error:
            logger.exception("handler %s failed", bound.name)
            result.failures.append(Failure(bound.name, error))
            await self._tell(bound, incoming, error)
        else:
            result.done.append(bound.handler)

    async def _tell(self, bound: Bound, incoming: Incoming[Any], error: Exception) -> None:
        for tell in bound.error_handlers:
            try:
                await tell(incoming, error)
            except Exception:
                logger.exception("the error handler %r failed", tell)
