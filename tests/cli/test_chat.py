"""The chat of the command line: with the sandbox's agents, and with a sandbox in the place of the real cloud."""

from __future__ import annotations

import argparse
import io
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from connector_async import Conversation, OutcomeUnknown
from connector_async.cli import chat, main
from connector_async.cli._chat_talk import Chat
from connector_async.cli._chat_view import ChatView
from connector_async.cli._console import OutputLost, say
from connector_async.cli._lines import MAX_LINE
from connector_async.cli._printable import choices_of, printable, words_of
from connector_async.cli._sandbox_process import SandboxAddress, sandbox_process
from connector_async.consumer import Consumer
from connector_async.sandbox import FaultPlan, FaultRule, Sandbox, Status
from connector_async.sandbox._state import Happening
from connector_async.sandbox.agents import AgentDesk
from connector_async.wire import ContentEvent, Event, RichContentEvent, parse_request

Use = Callable[[bytes], None]


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch) -> Iterator[Use]:
    """Makes a pipe standard input, which holds these bytes and whose end does not come."""
    opened: list[int] = []

    def use(content: bytes) -> None:
        reading, writing = os.pipe()
        opened.extend([reading, writing])
        os.write(writing, content)
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(fileno=lambda: reading))

    yield use
    for descriptor in opened:
        os.close(descriptor)


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Use]:
    """Makes a pipe standard input, which holds these bytes and no more."""
    reading, writing = os.pipe()

    def use(content: bytes) -> None:
        nonlocal writing
        os.write(writing, content)
        os.close(writing)
        writing = -1
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(fileno=lambda: reading))

    yield use
    os.close(reading)
    if writing >= 0:
        os.close(writing)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """The sandbox of the chat: its agent takes no time; the test may give it more options."""

    def use(**options: Any) -> None:
        def make(agent: Any, **given: Any) -> Sandbox:
            return Sandbox(**{"moment": 0.0, "agent": agent, **given, **options})

        monkeypatch.setattr("connector_async.sandbox.Sandbox", make)

    for name in [name for name in os.environ if name.startswith("LP_")]:
        monkeypatch.delenv(name)
    use()
    return use


@pytest.fixture
def interrupts() -> Iterator[None]:
    """Ctrl-C works as in a program of its own: the workers of pytest-xdist ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def _events(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


def _when_said(monkeypatch: pytest.MonkeyPatch, start: str, act: Callable[[], object]) -> None:
    """Do something after a line with this beginning was printed."""

    def watched(text: str) -> None:
        say(text)
        if text.startswith(start):
            act()

    monkeypatch.setattr("connector_async.cli._chat_view.say", watched)


@pytest.mark.requirement("cli:exit-codes")
def test_a_pipe_waits_for_the_answer_to_each_line(typed: Use, capsys: pytest.CaptureFixture[str]) -> None:
    typed(b"\xef\xbb\xbfhello\r\n\nagain\n//slash\n/close\n")
    assert main(["chat"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "you:    hello",
        "agent:  hello",
        "you:    again",
        "agent:  again",
        "you:    /slash",
        "agent:  /slash",
    ]
    asides = [line.strip() for line in err.splitlines()]
    assert {"(delivered)", "(read)", "(the agent is typing)"} <= {*asides}
    assert asides[-1] == "(the conversation is closed by consumer)"


@pytest.mark.parametrize("end", [b"", b"/quit\nnever read\n"])
def test_the_end_of_the_input_and_quit_leave_it_open_and_say_so(
    end: bytes, typed: Use, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lines after /quit were not sent, and that is told, and counts."""
    typed(b"hello\n" + end)
    assert main(["chat"]) == (1 if end else 0)
    out, err = capsys.readouterr()
    assert out == "you:    hello\nagent:  hello\n"
    assert err.splitlines()[-1].endswith(" is left open")
    assert ("line 3 was not sent: the conversation was over before" in err) == bool(end)


def test_for_machines_each_thing_that_happens_is_a_json_line(typed: Use, capsys: pytest.CaptureFixture[str]) -> None:
    typed(b"hello\n/close\n")
    assert main(["chat", "--json"]) == 0
    events = _events(capsys.readouterr().out)
    names = [event["event"] for event in events]
    assert names[0] == "opened"
    assert names[-2:] == ["closed", "end"]
    assert {"sent", "receipt", "chat_state", "message"} == {*names[1:-2]} - {"closed"}
    sent = events[names.index("sent")]
    assert (sent["line"], sent["text"], sent["attempts"], sent["maybe_duplicate"]) == (1, "hello", 1, False)
    heard = events[names.index("message")]
    assert (heard["text"], heard["role"]) == ("hello", "ASSIGNED_AGENT")
    assert heard["content"]["type"] == "ContentEvent"
    assert events[-1] == {
        "event": "end",
        "conversation_id": events[0]["conversation_id"],
        "closed": True,
        "lines_sent": 1,
        "failures": 0,
    }


@pytest.mark.requirement("cli:one-sentence")
def test_a_line_that_cannot_be_sent_is_told_and_the_next_one_goes_on(
    typed: Use, capsys: pytest.CaptureFixture[str]
) -> None:
    typed(b"/colse now\n\xff\n" + b"x" * 5_001 + b"\n   /\nhello\n")
    assert main(["chat", "--json"]) == 1
    out, err = capsys.readouterr()
    failed = [event for event in _events(out) if event["event"] == "failed"]
    assert [(event["line"], event["status"]) for event in failed] == [
        (1, "not_sent"),
        (2, "not_sent"),
        (3, "not_sent"),
    ]
    assert "/colse is no command; there is /close and /quit; a text that begins with a slash" in err
    assert "line 2 was not sent: invalid UTF-8 at byte 1" in err
    assert "5,000" in failed[2]["reason"] or "5000" in failed[2]["reason"]
    assert [event["text"] for event in _events(out) if event["event"] == "sent"] == ["   /", "hello"]


def test_a_line_too_long_to_be_read_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"x" * (MAX_LINE + 1) + b"\n")
    with path.open("rb") as opened:
        monkeypatch.setattr(sys, "stdin", opened)
        assert main(["chat"]) == 1
    assert "line 1 was not sent: longer than 1,048,576 bytes" in capsys.readouterr().err


def test_what_the_agent_writes_does_not_reach_the_terminal_raw(typed: Use, monkeypatch: pytest.MonkeyPatch) -> None:
    """Escapes, forged lines, and what the output's encoding does not have."""
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw := io.BytesIO(), encoding="ascii"))
    typed("a\x1b]0;title\x07\x9b2Jé\u202e\n".encode())
    assert main(["chat"]) == 0
    sys.stdout.flush()
    said = r"a\x1b]0;title\x07\x9b2J\xe9\u202e"
    assert raw.getvalue().decode() == f"you:    {said}\nagent:  {said}\n"


def test_no_line_of_the_agent_can_pretend_to_be_ours(
    typed: Use, quick: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    def forger(desk: AgentDesk, happening: Happening) -> None:
        if happening.role == "CONSUMER":
            desk.says(happening.conversation.conversation_id, "yes\r\nyou:    buy\rnow")

    quick(agent=forger)
    typed(b"hello\n")
    assert main(["chat"]) == 0
    assert set(capsys.readouterr().out.splitlines()) == {"you:    hello", "agent:  yes", r"        you:    buy\rnow"}


def test_a_silent_agent_is_waited_for_no_longer_than_said(typed: Use, capsys: pytest.CaptureFixture[str]) -> None:
    typed(b"one\ntwo\n")
    assert main(["chat", "--agent", "silent", "--wait", "0"]) == 0
    out, err = capsys.readouterr()
    assert out == "you:    one\nyou:    two\n"
    assert "no answer to line 2 within 0 s" in err


def test_choices_are_shown_and_the_agent_may_close(stdin: Use, capsys: pytest.CaptureFixture[str]) -> None:
    """The input has no end: that the agent closes ends the wait for more of it."""
    stdin(b"hello\nWhere is my order?\nThat is all\n")
    assert main(["chat", "--agent", "menu"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "you:    hello",
        "agent:  What can I do for you?",
        "        [Where is my order?] [When do you open?] [That is all]",
        "you:    Where is my order?",
        "agent:  Where is my order?",
        "        It is on its way.",
        "        [That is all]",
        "you:    That is all",
        "agent:  Good bye.",
    ]
    assert err.splitlines()[-1].strip() == "(the conversation is closed by agent)"


def test_a_line_that_meets_a_closed_conversation_is_told_with_those_behind_it(
    typed: Use, quick: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    """No webhook tells of the close: the refusal does."""

    def closer(desk: AgentDesk, happening: Happening) -> None:
        if happening.role == "CONSUMER":
            desk.closes(happening.conversation.conversation_id)

    quick(agent=closer, faults=FaultPlan(rules=[FaultRule(action=Status(status=400), endpoint="webhook")]))
    typed(b"one\ntwo\nthree\n")
    assert main(["chat", "--wait", "0"]) == 1
    out, err = capsys.readouterr()
    assert out == "you:    one\n"
    assert "line 2 was refused: the conversation is closed" in err
    assert "line 3 was not sent: the conversation was over before" in err
    assert "left open" not in err


def test_an_outcome_that_is_not_known_and_one_that_may_be_double_are_told(
    typed: Use, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def send_text(_conversation: Conversation, text: str) -> Any:
        if text == "one":
            raise OutcomeUnknown("no answer \x1b came")
        return SimpleNamespace(request_id="r", attempts=(1, 2), maybe_duplicate=True)

    monkeypatch.setattr(Conversation, "send_text", send_text)
    typed(b"one\ntwo\n")
    assert main(["chat", "--wait", "0", "--json"]) == 1
    out, err = capsys.readouterr()
    assert [event.get("status") for event in _events(out) if event["event"] in ("failed", "sent")] == [
        "unknown",
        None,
    ]
    assert "connector-async: line 1 may have arrived or not: no answer \\x1b came" in err
    assert "line 2 was sent 2 times and may have arrived more than once" in err


def test_a_close_that_fails_is_told(
    typed: Use, quick: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    rule = FaultRule(action=Status(status=400), endpoint="send", type="cm.UpdateConversationField")
    quick(faults=FaultPlan(rules=[rule]))
    typed(b"/close\n")
    assert main(["chat"]) == 1
    err = capsys.readouterr().err
    assert "the conversation could not be closed: " in err
    assert "is left open" in err.splitlines()[-1]


# Ctrl-C, terminals, what cannot be read or written


@pytest.mark.usefixtures("interrupts")
def test_ctrl_c_ends_the_chat_as_quit_does(
    stdin: Use, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stdin(b"hello\n")
    _when_said(monkeypatch, "agent:", lambda: os.kill(os.getpid(), signal.SIGINT))
    assert main(["chat"]) == 0
    err = capsys.readouterr().err
    assert "interrupted" in err
    assert err.splitlines()[-1].endswith("is left open")
    assert "Traceback" not in err


@pytest.mark.usefixtures("interrupts")
def test_ctrl_c_in_the_middle_of_a_line_says_what_is_not_known(
    stdin: Use, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def send_text(_conversation: Conversation, _text: str) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        await anyio.sleep_forever()

    monkeypatch.setattr(Conversation, "send_text", send_text)
    stdin(b"one\ntwo\nthree\n")
    assert main(["chat", "--json"]) == 1
    out, err = capsys.readouterr()
    assert "line 1 may have arrived or not: interrupted while it was being sent" in err
    assert "lines 2 to 3 were not sent: the conversation was over before" in err
    assert [(event.get("line"), event.get("status")) for event in _events(out)[1:]] == [
        (1, "unknown"),
        (2, "not_sent"),
        (3, "not_sent"),
        (None, None),
    ]
    assert _events(out)[-1]["failures"] == 3


@pytest.mark.usefixtures("interrupts")
def test_ctrl_c_before_the_conversation_is_open_is_a_failure(
    stdin: Use, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def open_conversation(_consumer: Consumer, **_options: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        await anyio.sleep_forever()

    monkeypatch.setattr(Consumer, "open_conversation", open_conversation)
    stdin(b"hello\n")
    assert main(["chat"]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == "connector-async: interrupted"


def test_on_a_terminal_nothing_is_said_twice(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    master, slave = os.openpty()
    try:
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(fileno=lambda: slave))
        os.write(master, b"hello\n")
        _when_said(monkeypatch, "agent:", lambda: os.write(master, b"/quit\n"))
        assert main(["chat"]) == 0
    finally:
        os.close(master)
        os.close(slave)
    out, err = capsys.readouterr()
    assert out == "agent:  hello\n"
    assert "type a line to say it; /close closes the conversation and ends" in err


def test_a_process_with_an_open_pipe_ends_by_itself() -> None:
    """The thread that reads must not keep the program alive."""
    command = [sys.executable, "-m", "connector_async", "chat"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"hello\n/close\n")
        process.stdin.flush()
        assert process.wait(20) == 0
        assert process.stdout.read() == b"you:    hello\nagent:  hello\n"


def test_an_input_that_cannot_be_read_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with (tmp_path / "file").open("wb") as opened:  # for writing only
        monkeypatch.setattr(sys, "stdin", opened)
        assert main(["chat"]) == 1
    assert "connector-async: cannot read standard input: Bad file descriptor" in capsys.readouterr().err


def test_an_output_that_takes_no_more_ends_the_chat(stdin: Use, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it fails is a webhook's handler, whose errors end nothing by themselves."""

    def full() -> None:
        raise OutputLost("cannot write to standard output: No space left on device")

    stdin(b"hello\n")
    _when_said(monkeypatch, "agent:", full)
    parser = argparse.ArgumentParser()
    chat.add_arguments(parser)
    with pytest.raises(OutputLost, match="No space left"):
        chat.run(parser.parse_args([]))


@pytest.mark.requirement("cli:exit-codes", "cli:one-sentence")
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--skill-id", "7"], "--skill-id is for the real cloud: add --live"),
        (["--port", "0"], "--port is for the real cloud: add --live"),
        (["--agent", "nobody"], "--agent: agent 'nobody' is not known; known are echo, menu"),
        (["--live", "--agent", "echo"], "leave one of them out"),
        (["--live", "--path", "/hook"], "--path says where to listen for webhooks: add --port"),
        (["--live", "--port", "0", "--path", "hook"], "--path must begin with a slash, not 'hook'"),
        ([], "standard input is closed"),
    ],
)
def test_wrong_use_says_what_to_do_before_anything_is_begun(
    words: list[str], told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    assert main(["chat", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert told in err
    assert err.count("\n") == 1


def test_a_directory_is_no_input(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(fileno=lambda: descriptor))
        assert main(["chat"]) == 2
    finally:
        os.close(descriptor)
    assert "standard input is a directory" in capsys.readouterr().err


# The real cloud


@pytest.fixture(scope="module")
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture(scope="module")
def cloud(port: int) -> Iterator[SandboxAddress]:
    with sandbox_process("--webhook-url", f"http://127.0.0.1:{port}/hook") as address:
        yield address


@pytest.fixture
def account(cloud: SandboxAddress, quick: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LP_ACCOUNT_ID", cloud.account_id)
    monkeypatch.setenv("LP_CLIENT_ID", cloud.client_id)
    monkeypatch.setenv("LP_CLIENT_SECRET", cloud.client_secret)
    monkeypatch.setenv("LP_DOMAIN_API", cloud.domain_api)


@pytest.mark.usefixtures("account")
def test_the_real_cloud_is_heard_where_something_listens(
    typed: Use, port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    typed(b"hello\n/close\n")
    assert main(["chat", "--live", "--skill-id", "77", "--port", str(port), "--path", "/hook"]) == 0
    out, err = capsys.readouterr()
    assert out == "you:    hello\nagent:  hello\n"
    assert f"listening for webhooks at http://127.0.0.1:{port}/hook: the endpoint of the app installation" in err


@pytest.mark.usefixtures("account")
def test_where_nothing_listens_it_says_so_and_only_sends(typed: Use, capsys: pytest.CaptureFixture[str]) -> None:
    typed(b"one\ntwo\n/close\n")
    assert main(["chat", "--live"]) == 0
    out, err = capsys.readouterr()
    assert out == "you:    one\nyou:    two\n"
    assert "nothing listens for webhooks, so what the agent says is not shown (--port N listens)" in err


@pytest.mark.requirement("cli:one-sentence", "cli:exit-codes")
@pytest.mark.usefixtures("account")
def test_a_conversation_that_cannot_be_opened_is_told_in_one_sentence(
    stdin: Use, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LP_CLIENT_SECRET", "c4nary-other")
    stdin(b"hello\n")
    assert main(["chat", "--live"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "check the client id and secret" in err.splitlines()[-1]
    assert "c4nary" not in err


# What is shown


def test_escapes_are_shown_and_not_obeyed() -> None:
    assert printable("a\tb\n\x00\x1b\x7f\x85\u2028\u2066\ud800") == "a\tb\\n\\x00\\x1b\\x7f\\x85\\u2028\\u2066\\ud800"
    family = "\U0001f468\u200d\U0001f469"
    assert printable(f"é 漢 {family}") == f"é 漢 {family}"


def _event(event: dict[str, Any]) -> ContentEvent | RichContentEvent:
    body = {"dialogId": "-", "event": event}
    request: Any = parse_request({"kind": "req", "id": "-", "type": "ms.PublishEvent", "body": body})
    parsed: Event = request.body.event
    assert isinstance(parsed, ContentEvent | RichContentEvent)
    return parsed


@pytest.mark.parametrize(
    ("content_type", "message", "words"),
    [
        ("hosted/file", {"relativePath": "/x", "fileType": "JPG", "caption": "a cat"}, "[a file: JPG] a cat"),
        ("hosted/file", {"relativePath": "/x", "fileType": "JPG"}, "[a file: JPG]"),
        ("forms/secure-invitation", {"invitationId": "1", "title": "Card"}, "[a form] Card"),
        ("new/kind", {"x": 1}, "[new/kind]"),
    ],
)
def test_what_is_no_text_is_named(content_type: str, message: object, words: str) -> None:
    event = _event({"type": "ContentEvent", "contentType": content_type, "message": message})
    assert (words_of(event), choices_of(event)) == (words, "")


def test_of_a_card_its_words_are_shown() -> None:
    elements = [
        {"type": "text", "text": "Title"},
        {"type": "image", "url": "https://example.com/x.png", "caption": "a shoe"},
        {"type": "map", "la": 1, "lo": 2},
        {"type": "button", "title": "Buy"},
    ]
    event = _event({"type": "RichContentEvent", "content": {"type": "vertical", "elements": elements}})
    assert words_of(event) == "Title\n[a picture] a shoe\n[Buy]"


async def _reading(descriptor: int) -> list[Any]:
    chat = Chat(ChatView(as_json=False, is_echoed=False), descriptor, wait=5.0)
    async with Sandbox(in_process=True, moment=0.0) as cloud, cloud.session(router=chat.router) as session:
        cloud.deliver_to(session.webhook_app())
        await chat.run(session, None)
        await cloud.settle()
        assert chat.conversation is not None
        said = cloud.agent.conversation(chat.conversation.conversation_id).main.transcript
        return [change["event"] for change in said if change["originatorMetadata"]["role"] == "CONSUMER"]


def test_the_agent_is_told_that_a_shown_message_was_read(typed: Use) -> None:
    """As an app of a consumer does (Connector API, "Send": AcceptStatusEvent)."""
    typed(b"hello\n")
    said, read = anyio.run(_reading, sys.stdin.fileno())
    assert said["message"] == "hello"
    assert (read["type"], read["status"]) == ("AcceptStatusEvent", "READ")


def test_what_happens_to_others_of_the_account_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    other: Any = SimpleNamespace(conversation=SimpleNamespace(ext_consumer_id="other"))
    anyio.run(Chat(ChatView(as_json=True, is_echoed=False), 0, wait=None)._hear, other)
    assert capsys.readouterr().out == ""
