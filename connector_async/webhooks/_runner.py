"""Takes one event to the session and to the handlers that want it.

Knows nothing of queues, doubles and the durable inbox: what it is given is handled now.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, cast

import anyio
import attrs

from connector_async._concurrency import failure_of, go_on, is_cancelled_by_name
from connector_async._feed import handled, task_here
from connector_async.protocol.inbox import event_digest
from connector_async.webhooks._parts import Part
from connector_async.webhooks._patience import Patience
from connector_async.webhooks._ports import FoundConversation, SessionPort
from connector_async.webhooks.incoming import Incoming, Turn, Unclaimed, guess_dialog_type, is_from_consumer
from connector_async.webhooks.router import Bound, Handler, Router
from connector_async.webhooks.settings import WebhookStats
from connector_async.wire import AcceptStatusEvent, ConversationChange, Message, MessagingEvent, to_wire

if TYPE_CHECKING:
    from connector_async.conversation import Conversation

__all__ = ["Failure", "Result", "Runner"]

logger = logging.getLogger("connector_async.webhooks")

_MAX_DIALOG_TYPES = 10_000


@attrs.frozen
class Failure:
    """A handler that raised, or the session that could not say whose the conversation is."""

    name: str
    error: Exception


@attrs.define(eq=False)
class Result:
    """What came of one turn."""

    done: list[Handler[Any]]
    failures: list[Failure]


async def note_taken(_: Incoming[Any]) -> None:
    """Stands among the handlers that are done for the session itself, which takes note of an event once, too."""


@attrs.define(eq=False)
class Runner:
    """Runs the handlers of one session."""

    port: SessionPort
    router: Router
    stats: WebhookStats
    handler_timeout: float | None
    patience: Patience
    _dialog_types: OrderedDict[tuple[str, str], str | None] = attrs.field(
        factory=OrderedDict[tuple[str, str], "str | None"], init=False
    )
    _has_warned: bool = attrs.field(default=False, init=False)

    async def run(self, part: Part, turn: Turn) -> Result:
        """Hand out one event; never raises but for cancellation."""
        result = Result([*turn.done], [])
        conversation = self.port.conversation_in_use(part.conversation_id) if part.is_told_apart else None
        if conversation is not None:
            incoming = self._incoming(part, conversation, None, turn)
        else:
            found = await self._find_safely(part, result)
            if found is None:
                return result
            incoming = self._incoming(part, found.conversation, found.lp_consumer_id, turn)
        if note_taken not in turn.done and self._is_for_others(incoming, result):
            await self._keep_for_others(incoming, result)
        note = handled.set((task_here(), part.conversation_id))
        for bound in self._handlers(incoming, result):
            if bound.handler in turn.done:
                continue
            try:
                work = bound.call(incoming)
                is_done, waits_for = self.patience.begin(work)
                if not is_done:
                    await self.patience.finish(self.handler_timeout, work, waits_for)
            except BaseException as error:
                await go_on()  # the handler may have cancelled the task it runs in, which is ours
                failure = failure_of(error)
                logger.exception("handler %s failed", bound.name)
                result.failures.append(Failure(bound.name, failure))
                await self._tell(bound, incoming, failure)
            else:
                result.done.append(bound.handler)
                if is_cancelled_by_name():
                    await go_on()
        handled.reset(note)  # if cancelled, the task ends with its context
        return result

    def _handlers(self, incoming: Incoming[Any], result: Result) -> list[Bound]:
        try:
            return self.router.handlers_for(incoming)
        except Exception as error:
            logger.exception("a condition of a handler failed")
            result.failures.append(Failure("when", error))
            return []

    async def _find_safely(self, part: Part, result: Result) -> FoundConversation | None:
        try:
            found = await self._find(part)
        except BaseException as error:
            failure = failure_of(error)
            logger.exception("cannot tell whose conversation %s is", part.conversation_id)
            result.failures.append(Failure("find_conversation", failure))
            return None
        if found is None:
            self._skip_unclaimed(part)
        return found

    async def _find(self, part: Part) -> FoundConversation | None:
        found = await self.port.find_conversation(
            part.conversation_id, lp_consumer_id=part.lp_consumer_id, is_told_apart=part.is_told_apart
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
            with anyio.fail_after(self.handler_timeout):
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

    def _incoming(
        self, part: Part, conversation: Conversation, lp_consumer_id: str | None, turn: Turn
    ) -> Incoming[Any]:
        is_echo = isinstance(part.change, MessagingEvent) and is_from_consumer(
            part.role, part.change.originator_id, lp_consumer_id
        )
        return Incoming(part, turn, conversation, self.port, self._dialog_type(part), is_echo)

    def _dialog_type(self, part: Part) -> str | None:
        """What a conversation change told of the dialog, else what its id tells."""
        if isinstance(part.change, ConversationChange):
            for dialog in part.change.details.dialogs:
                self._dialog_types[part.conversation_id, str(dialog.dialog_id)] = dialog.dialog_type
                if len(self._dialog_types) > _MAX_DIALOG_TYPES:
                    self._dialog_types.popitem(last=False)
        if part.dialog_id is None:
            return None
        told = self._dialog_types.get((part.conversation_id, part.dialog_id)) if self._dialog_types else None
        return told or guess_dialog_type(part.conversation_id, part.dialog_id)

    def _is_for_others(self, incoming: Incoming[Any], result: Result) -> bool:
        """Let the session take note; whether another worker may be waiting for what it has not waited for."""
        try:
            is_awaited = self.port.observe(incoming)
        except Exception as error:
            logger.exception("the session could not take note of an event of %s", incoming.conversation_id)
            result.failures.append(Failure("observe", error))
            return False
        result.done.append(note_taken)
        self.stats.echoes += incoming.is_echo
        return (
            not is_awaited
            and (incoming.is_echo or isinstance(incoming.event, AcceptStatusEvent))
            and self.port.store.durable
        )

    async def _keep_for_others(self, incoming: Incoming[Any], result: Result) -> None:
        """Leave an echo or a receipt for the worker that sent what it is about."""
        store, event = self.port.store, incoming.event
        try:
            if incoming.is_echo:
                # An echo is an event in a dialog: a message, never a conversation change.
                digest = event_digest(to_wire(cast("Message", event)))
                await store.put_echo(incoming.account_id, incoming.conversation_id, digest, incoming.sequence)
            elif incoming.dialog_id is not None:
                # The numbers count within a dialog.
                await store.put_receipt(incoming.account_id, incoming.dialog_id, event.status, event.sequence_list)
        except Exception as error:
            logger.exception("the session could not take note of an event of %s", incoming.conversation_id)
            result.done.remove(note_taken)
            result.failures.append(Failure("observe", error))

    async def _tell(self, bound: Bound, incoming: Incoming[Any], error: Exception) -> None:
        for tell in bound.error_handlers:
            try:
                with anyio.fail_after(self.handler_timeout):
                    await tell(incoming, error)
            except BaseException as failure:
                failure_of(failure)
                logger.exception("the error handler %r failed", tell)
