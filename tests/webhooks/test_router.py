"""Which events reach which handler, and what stands around it."""

from __future__ import annotations

import functools
import gc
import operator
import weakref
from collections.abc import AsyncIterator, Awaitable
from typing import Any
from unittest.mock import AsyncMock

import anyio
import pytest

from connector_async.webhooks import Incoming, Router
from connector_async.webhooks.router import CallNext
from connector_async.wire import (
    AcceptStatusEvent,
    ChatStateEvent,
    ContentEvent,
    ConversationChange,
    Event,
    MessageAudience,
    MessagingEvent,
    Role,
    UnknownEvent,
)
from tests.webhooks.rig import change, chat_state, content, receipt, rig

pytestmark = pytest.mark.anyio

UNKNOWN: dict[str, Any] = {"event": {"type": "CatEvent", "mood": "sleepy"}}


class Recorder:
    """A handler that remembers what it got."""

    def __init__(self) -> None:
        self.got: list[Incoming[Any]] = []

    async def __call__(self, incoming: Incoming[Any]) -> None:
        self.got.append(incoming)

    @property
    def sequences(self) -> list[int | None]:
        return [incoming.sequence for incoming in self.got]


async def test_a_handler_gets_the_events_of_its_classes() -> None:
    """`.on(*event_types)`; none: all of them."""
    router, text, two, everything = Router(), Recorder(), Recorder(), Recorder()
    router.on(ContentEvent)(text)
    router.on(AcceptStatusEvent, ChatStateEvent)(two)
    router.on()(everything)
    async with rig(router) as worker:
        await worker.deliver(content("c", 0), receipt("c", 1, 0), chat_state("c"), content("c", 2, **UNKNOWN))
        await worker.post(change("c", 1))
        await worker.quiet()
    assert text.sequences == [0]
    assert [type(one.event) for one in two.got] == [AcceptStatusEvent, ChatStateEvent]
    assert {type(one.event) for one in everything.got} == {
        ContentEvent,
        AcceptStatusEvent,
        ChatStateEvent,
        UnknownEvent,
        ConversationChange,
    }


async def test_our_own_echo_is_not_shown_by_default() -> None:
    """The default is the brand's side; role=CONSUMER asks for the echoes."""
    router, default, echoes = Router(), Recorder(), Recorder()
    router.on(ContentEvent)(default)
    router.on(ContentEvent, role=Role.CONSUMER)(echoes)
    async with rig(router) as worker:
        await worker.deliver(content("c", 0, role="CONSUMER"), content("c", 1), content("c", 2, role="MANAGER"))
        await worker.quiet()
        assert worker.dispatcher.stats().echoes == 1
    assert default.sequences == [1, 2]
    assert echoes.sequences == [0]
    assert echoes.got[0].is_echo


async def test_feeds_without_roles_are_told_apart_by_the_originator() -> None:
    """The oldest samples have no originatorMetadata (what live systems do)."""
    router, default = Router(), Recorder()
    router.on(ContentEvent)(default)
    async with rig(router) as worker:
        await worker.deliver(
            content("c", 0, originatorMetadata=None),
            content("c", 1, role="CONSUMER", originatorMetadata=None),
            content("c", 2, originatorMetadata=None, originatorId=None),
        )
        await worker.quiet()
        worker.port.lp_consumer_id = None  # it could be us: a bot must not answer itself
        await worker.deliver(content("c", 3, originatorMetadata=None))
        await worker.quiet()
    assert default.sequences == [0]
    assert default.got[0].role is None


async def test_what_is_not_for_the_consumer_is_not_shown_by_default() -> None:
    """Audience other than ALL (webhooks events)."""
    router, default, whispers, anybody = Router(), Recorder(), Recorder(), Recorder()
    router.on(ContentEvent)(default)
    router.on(ContentEvent, audience=MessageAudience.AGENTS_AND_MANAGERS)(whispers)
    router.on(ContentEvent, audience=None)(anybody)
    async with rig(router) as worker:
        await worker.deliver(
            content("c", 0),
            content("c", 1, messageAudience="AGENTS_AND_MANAGERS"),
            content("c", 2, messageAudience=None),
            content("c", 3, messageAudience="NEW_KIND"),
        )
        await worker.quiet()
    assert default.sequences == [0, 2]
    assert whispers.sequences == [1]
    assert anybody.sequences == [0, 1, 2, 3]


def _says_yes(message: Incoming[ContentEvent]) -> bool:
    return message.text == "yes"


def _fails_on_short_texts(message: Incoming[ContentEvent]) -> bool:
    return message.text[99] == "x"


async def test_filters_by_role_conversation_dialog_type_and_condition() -> None:
    """Each may be one value or several."""
    router = Router()
    by_role, by_conversation, survey, main, when = (Recorder() for _ in range(5))
    router.on(ContentEvent, role=[Role.AGENT, Role.CONTROLLER])(by_role)
    router.on(ContentEvent, conversation_id="c2")(by_conversation)
    router.on(ContentEvent, dialog_type="POST_SURVEY")(survey)
    router.on(ContentEvent, dialog_type=["MAIN"])(main)
    router.on(ContentEvent, when=_says_yes)(when)
    dialogs = [
        {"dialogId": "c1", "dialogType": "MAIN", "channelType": "MESSAGING", "state": "CLOSE"},
        {"dialogId": "survey-1", "dialogType": "POST_SURVEY", "channelType": "MESSAGING", "state": "OPEN"},
    ]
    async with rig(router) as worker:
        await worker.post(change("c1", 5, dialogs=dialogs))
        await worker.deliver(
            content("c1", 0, role="AGENT"),
            content("c2", 0, "yes"),
            content("survey-1", 0, conversationId="c1"),
            content("unknown-dialog", 0, conversationId="c1"),
        )
        await worker.quiet()
    assert [one.dialog_id for one in by_role.got] == ["c1"]
    assert [one.conversation_id for one in by_conversation.got] == ["c2"]
    assert [one.dialog_id for one in survey.got] == ["survey-1"]
    assert sorted(str(one.dialog_id) for one in main.got) == ["c1", "c2"]
    assert [one.text for one in when.got] == ["yes"]


async def test_an_incoming_event_has_everything_at_hand() -> None:
    """What a handler gets (design, section 2)."""
    router, heard = Router(), Recorder()
    router.on(ContentEvent)(heard)
    router.on(ConversationChange)(heard)
    facts: dict[str, Any] = {"metadata": [{"type": "ExternalId", "id": "x"}]}
    async with rig(router) as worker:
        await worker.deliver(content("c", 0, "hello", **facts), content("c", 1, event=_file()))
        await worker.post(change("c", 9))
        await worker.quiet()
        first, file, changed = heard.got
        reply: object = await first.reply("hi", request_id="r")
        assert reply == "sent"
        assert worker.port.conversations["c"].said == [("hi", {"request_id": "r", "dialog_id": "c"})]
        session: object = first.session
        assert session is worker.port
    assert (first.text, first.account_id, first.conversation_id, first.dialog_id) == ("hello", "12345678", "c", "c")
    assert (first.sequence, first.role, first.originator_id, first.attempt) == (0, "ASSIGNED_AGENT", "agent-1", 1)
    assert (first.is_echo, first.after_gap, first.is_late, first.dialog_type) == (False, False, False, "MAIN")
    assert first.consumer.ext_consumer_id == "anna"
    assert first.sent_at is not None
    assert first.sent_at.timestamp() == 1700000000.0
    assert [item.wire_type for item in first.metadata] == ["ExternalId"]
    assert first.notification.body.changes == (first.change,)
    assert (file.text, file.metadata) == ("", ())
    assert (changed.text, changed.sent_at, changed.metadata, changed.role) == ("", None, (), None)
    assert (changed.dialog_id, changed.sequence, changed.audience) == (None, None, "ALL")


def _file() -> dict[str, Any]:
    return {
        "type": "ContentEvent",
        "contentType": "hosted/file",
        "message": {"relativePath": "/a", "fileType": "PNG"},
    }


async def test_all_that_want_an_event_get_it_in_the_order_of_their_adding() -> None:
    """Included routers stand where they were included, and may grow later."""
    router, inner, order = Router(), Router(), list[str]()

    def named(name: str) -> Any:
        async def handler(incoming: Incoming[Any]) -> None:
            order.append(name)

        return handler

    router.on(ContentEvent)(named("first"))
    router.include(inner)
    router.on(ContentEvent)(named("last"))
    inner.on(ContentEvent)(named("inner"))
    async with rig(router) as worker:
        await worker.deliver(content("c", 0))
        await worker.quiet()
    assert order == ["first", "inner", "last"]


async def _grow_while_events_come(inner: Router, log: list[str]) -> weakref.ref[Router]:
    """Hear, add, and hear again; all that stood around the router is gone afterwards but for a name of it."""
    middle, outer = Router(), Router()
    middle.include(inner)
    outer.include(middle)
    async with rig(outer) as worker:
        await worker.deliver(content("c", 0))
        await worker.quiet()

        @inner.on(ContentEvent)
        async def late(message: Incoming[ContentEvent]) -> None:
            log.append(f"handled {message.sequence}")

        await worker.deliver(content("c", 1))
        await worker.quiet()

        @middle.middleware
        async def around(incoming: Incoming[Any], call_next: Any) -> None:
            log.append("around")
            await call_next(incoming)

        await worker.deliver(content("c", 2))
        await worker.quiet()
    return weakref.ref(middle)


def test_what_is_added_to_an_included_router_later_counts_too() -> None:
    """Also once events have come; and a router that is gone is not held by those that it included."""
    inner, log = Router(), list[str]()
    gone = anyio.run(_grow_while_events_come, inner, log)  # a loop of its own: tracebacks of its tasks go with it
    assert log == ["handled 1", "around", "handled 2"]
    gc.collect()
    assert gone() is None
    inner.include(Router())


def test_a_router_cannot_contain_itself() -> None:
    """It would have no end."""
    router, inner = Router(), Router()
    router.include(inner)
    for outer, included in ((router, router), (inner, router)):
        with pytest.raises(ValueError, match="itself"):
            outer.include(included)


async def test_middleware_stands_around_the_handlers_of_its_router() -> None:
    """The first is outermost; an inner router's is around its own handlers only."""
    router, inner, steps = Router(), Router(), list[str]()

    def layer(name: str) -> Any:
        async def middleware(incoming: Incoming[Any], call_next: CallNext) -> object:
            steps.append(f"+{name}")
            try:
                return await call_next(incoming)
            finally:
                steps.append(f"-{name}")

        return middleware

    for name in ("a", "b"):
        router.middleware(layer(name))
    inner.middleware(layer("inner"))
    router.include(inner)

    @inner.on(ContentEvent)
    async def inside(incoming: Incoming[ContentEvent]) -> None:
        steps.append("inside")

    @router.on(ContentEvent)
    async def outside(incoming: Incoming[ContentEvent]) -> None:
        steps.append("outside")

    async with rig(router) as worker:
        await worker.deliver(content("c", 0))
        await worker.quiet()
    assert steps == ["+a", "+b", "+inner", "inside", "-inner", "-b", "-a", "+a", "+b", "outside", "-b", "-a"]


async def test_middleware_can_keep_an_event_from_its_handler() -> None:
    """It need not call on."""
    router, heard = Router(), Recorder()

    @router.middleware
    async def stop(incoming: Incoming[Any], call_next: CallNext) -> None: ...

    router.on(ContentEvent)(heard)
    async with rig(router) as worker:
        await worker.deliver(content("c", 0))
        await worker.quiet()
    assert heard.got == []


async def test_errors_go_to_the_inner_router_first() -> None:
    """`on_error` of the router that has the handler, then of those around it; other handlers go on."""
    router, inner, told, heard = Router(), Router(), list[str](), Recorder()
    router.include(inner)
    router.on(ContentEvent)(heard)

    @inner.on(ContentEvent)
    async def failing(incoming: Incoming[ContentEvent]) -> None:
        raise ValueError("no")

    @router.on_error
    async def outer_error(incoming: Incoming[Any], error: Exception) -> None:
        told.append(f"outer {error}")

    @inner.on_error
    async def inner_error(incoming: Incoming[Any], error: Exception) -> None:
        told.append(f"inner {error}")
        raise RuntimeError("the error handler fails as well")

    async with rig(router) as worker:
        await worker.deliver(content("c", 0))
        await worker.quiet()
        assert worker.dispatcher.stats().failed == 1
    assert told == ["inner no", "outer no"]
    assert heard.sequences == [0]


async def test_a_condition_that_fails_costs_only_its_event(caplog: pytest.LogCaptureFixture) -> None:
    """Everything a user gives us may raise."""
    router, heard = Router(), Recorder()
    router.on(ContentEvent, when=_fails_on_short_texts)(heard)
    async with rig(router) as worker:
        assert await worker.deliver(content("c", 0), content("c", 1, "x" * 100)) == [200, 200]
        await worker.quiet()
    assert heard.sequences == [1]
    assert "condition" in caplog.text


async def test_an_unclaimed_conversation_may_be_given_a_consumer() -> None:
    """`on_unclaimed` may name the consumer (issue of the webhooks, 3)."""
    router, heard, asked = Router(), Recorder(), list[tuple[str, str | None]]()
    router.on(ContentEvent)(heard)
    inner = Router()
    router.include(inner)

    @router.on_unclaimed
    async def nobody(unclaimed: Any) -> None:
        asked.append((unclaimed.conversation_id, unclaimed.lp_consumer_id))

    @inner.on_unclaimed
    async def somebody(unclaimed: Any) -> str | None:
        return "anna" if unclaimed.conversation_id == "mine" else None

    async with rig(router) as worker:
        worker.port.foreign = {"mine", "theirs"}
        await worker.deliver(content("mine", 0, role="CONSUMER"), content("mine", 1), content("theirs", 0))
        await worker.post(change("theirs", 1))
        await worker.quiet()
        assert worker.port.adopted == {"mine": "anna"}
        assert worker.dispatcher.stats().unclaimed == 2
        assert ("theirs", "lp-consumer") in worker.port.asked
    assert heard.sequences == [1]
    assert sorted(asked, key=str) == [("mine", "lp-consumer"), ("theirs", "lp-consumer"), ("theirs", None)]


async def test_foreign_conversations_are_warned_of_once_with_the_cure(caplog: pytest.LogCaptureFixture) -> None:
    """Counted, skipped, and warned of once (issue of the webhooks, 3)."""
    router, heard = Router(), Recorder()
    router.on()(heard)
    async with rig(router) as worker:
        worker.port.foreign = {"a", "b"}
        await worker.deliver(content("a", 0), content("b", 0), chat_state("a"))
        await worker.quiet()
        assert worker.dispatcher.stats().unclaimed == 3
    assert heard.got == []
    assert caplog.text.count("SqliteStore") == 1


async def test_kinds_of_dialogs_are_remembered_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest go; a MAIN dialog is known by its id anyway."""
    monkeypatch.setattr("connector_async.webhooks._runner._MAX_DIALOG_TYPES", 1)
    router, heard = Router(), Recorder()
    router.on(ContentEvent)(heard)
    dialogs = [{"dialogId": name, "dialogType": "POST_SURVEY", "state": "OPEN"} for name in ("s1", "s2")]
    async with rig(router) as worker:
        await worker.post(change("c", 1, dialogs=dialogs))
        await worker.deliver(content("s1", 0, conversationId="c"), content("s2", 0, conversationId="c"))
        await worker.quiet()
    assert [one.dialog_type for one in heard.got] == [None, "POST_SURVEY"]


async def _answer(_incoming: Incoming[Any], *_more: object) -> None: ...


def _plain(_incoming: Incoming[Any], *_more: object) -> None: ...


def _untold(incoming):  # type: ignore[no-untyped-def]  # as many write them
    return _answer(incoming)


def _told(incoming: Incoming[Any]) -> Awaitable[None]:
    return _answer(incoming)


@functools.wraps(_answer)
def _wrapped(*given):  # type: ignore[no-untyped-def]  # as decorators are written
    return _answer(*given)


@functools.wraps(_plain)
async def _in_a_thread(incoming: Incoming[Any]) -> None: ...


async def _generator(_incoming: Incoming[Any]) -> AsyncIterator[int]:
    yield 1


class _Plain:
    def __call__(self, incoming: Incoming[Any]) -> None: ...

    def method(self, incoming: Incoming[Any]) -> None: ...


REFUSED: list[Any] = [
    _plain,
    _untold,
    _Plain(),
    _Plain().method,
    functools.partial(_plain),
    _generator,
    None,
    "answer",
]
TAKEN: list[Any] = [
    _answer,
    _told,
    _wrapped,
    _in_a_thread,
    functools.partial(_answer),
    Recorder(),
    Recorder().__call__,
    lambda incoming: _answer(incoming, 5),
    AsyncMock(),
    operator.methodcaller("acknowledge"),
]


@pytest.mark.parametrize("given", REFUSED)
def test_a_plain_def_is_refused_where_it_is_added(given: Any) -> None:
    """Found by trial: it ran, counted as failed, and a durable store had it run again."""
    router = Router()
    for add in (router.on(ContentEvent), router.on_error, router.on_unclaimed, router.middleware):
        with pytest.raises(TypeError, match="must be an `async def`"):
            add(given)
    assert not router.unclaimed_handlers


@pytest.mark.parametrize("given", TAKEN)
def test_whatever_may_give_an_awaitable_is_taken(given: Any) -> None:
    """Our decision: what cannot be told without a call is the handler's word; a type checker tells the rest."""
    router = Router()
    for add in (router.on(ContentEvent), router.on_error, router.on_unclaimed, router.middleware):
        assert add(given) is given


@pytest.mark.parametrize("kind", [object, Event, UnknownEvent, ConversationChange, type("Own", (Event,), {})])
def test_a_class_that_an_event_may_have_is_taken(kind: type) -> None:
    """Bases stand for all of their kind."""
    assert callable(Router().on(kind))


@pytest.mark.parametrize("given", ["ContentEvent", print, 5, int, MessagingEvent, Recorder])
def test_what_is_no_event_type_is_refused(given: Any) -> None:
    """Found by trial: `@router.on` without parentheses added nothing, and said nothing."""
    router = Router()
    with pytest.raises(TypeError, match="classes"):
        router.on(given)
    with pytest.raises(TypeError, match="Router"):
        router.include(given)
