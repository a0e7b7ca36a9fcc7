"""The pump of the command line: what it reads, what it refuses, what it leaves behind; kills are in tests/pump."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

from connector_async.cli import _pump_report, main
from connector_async.cli._console import CommandFailed
from connector_async.cli._lines import MAX_LINE, Line, _Cutter, read_lines
from connector_async.cli._pump_input import BadLine, read_line
from connector_async.cli._pump_progress import Standing, _Bar, _clock, _Lines
from connector_async.cli._pump_report import Results, Summary, write_dead_letters
from connector_async.pump import PumpMessage
from connector_async.store import MemoryStore
from connector_async.store.outbox import MessageState, OutboxCounts, OutboxEntry, OutboxMessage
from connector_async.wire import ContentEvent


@pytest.fixture(autouse=True)
def no_account(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("LP_")]:
        monkeypatch.delenv(name)


def _message(raw: str, number: int = 1) -> PumpMessage:
    message = read_line(Line(number, raw.encode()))
    assert isinstance(message, PumpMessage), message
    return message


def _reason(raw: bytes | str | None) -> str:
    bad = read_line(Line(3, raw.encode() if isinstance(raw, str) else raw))
    assert isinstance(bad, BadLine), bad
    assert bad.number == 3
    return bad.reason


def test_a_line_is_a_message_with_all_that_it_says_of_the_opening() -> None:
    message = _message(
        '{"id": "7", "consumer": "jo", "text": "hi", "skill_id": "12", "ttr": "URGENT", '
        '"profile": {"firstName": "Jo"}, "campaign": {"campaignId": 1, "engagementId": 2}, '
        '"outcome": {"status": "refused"}}'
    )
    assert (message.id, message.consumer, message.body) == ("7", "jo", "hi")
    opening = message.opening
    assert opening is not None
    assert (opening.skill_id, opening.ttr) == ("12", "URGENT")
    assert opening.profile is not None
    assert opening.campaign is not None
    assert opening.campaign.campaign_id == 1
    assert _message('{"consumer": "jo", "text": "hi"}').opening is None


def test_a_body_is_any_event() -> None:
    event = _message('{"consumer": "jo", "body": {"type": "ContentEvent", "message": "hi"}}').body
    assert isinstance(event, ContentEvent)
    assert event.text == "hi"


def test_the_same_line_has_the_same_id_and_another_line_another() -> None:
    raw = '{"consumer": "jo", "text": "hi"}'
    assert _message(raw, 2).id == _message(raw + "\r", 2).id
    assert len({_message(raw, 2).id, _message(raw, 3).id, _message(raw.replace("hi", "ho"), 2).id}) == 3


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("no", "no JSON: "),
        ("[1]", "no JSON object"),
        (b'{"consumer": "\xff", "text": "x"}', "invalid UTF-8 at byte 15"),
        ('{"text": "x"}', "no consumer"),
        ('{"consumer": 5, "text": "x"}', "consumer must be a text"),
        ('{"consumer": " ", "text": "x"}', "consumer must be a text"),
        ('{"consumer": "c"}', "neither text nor body"),
        ('{"consumer": "c", "text": "x", "body": {"type": "ContentEvent", "message": "x"}}', "both text and body"),
        ('{"consumer": "c", "text": ""}', "text must be a text that is not empty"),
        (json.dumps({"consumer": "c", "text": "x" * 5001}), "5000 characters, not 5001"),
        (
            json.dumps({"consumer": "c", "body": {"type": "ContentEvent", "message": "x" * 5001}}),
            "5000 characters, not 5001",
        ),
        ('{"consumer": "c", "body": {"message": "x"}}', "an object with a type"),
        ('{"consumer": "c", "body": {"type": "ContentEvent"}}', "required field missing"),
        ('{"consumer": "c", "text": "x", "id": ""}', "id must be a text"),
        ('{"consumer": "c", "text": "x", "skillid": "5"}', "unknown field 'skillid'; there is body, campaign"),
        ('{"consumer": "c", "text": "x", "profile": "Jo"}', "must be an object"),
        (None, "longer than 1,048,576 bytes"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, str) and not value.startswith("{") else "",
)
def test_a_bad_line_says_what_is_wrong_with_it(raw: bytes | str | None, reason: str) -> None:
    assert reason in _reason(raw)


def test_lines_are_cut_wherever_a_reading_ends() -> None:
    text = b'\xef\xbb\xbf{"a": 1}\n\n  \r\n{"b": 2}\r\n{"c": 3}'
    for size in (1, 2, 7, 100):
        cutter = _Cutter()
        lines = [line for at in range(0, len(text), size) for line in cutter.cut(text[at : at + size])]
        assert [line.number for line in [*lines, *cutter.cut(b"")]] == [1, 4, 5]


def test_an_endless_line_costs_no_memory_and_not_its_neighbours() -> None:
    cutter = _Cutter()
    lines = cutter.cut(b"first\n")
    for _ in range(3 * MAX_LINE // 65536):
        lines += cutter.cut(b"x" * 65536)
        assert len(cutter.rest) <= MAX_LINE
    lines += cutter.cut(b"x\nlast")
    lines += cutter.cut(b"")
    assert [(line.number, line.raw) for line in lines] == [(1, b"first"), (2, None), (3, b"last")]
    assert [line.raw for line in [*cutter.cut(b"x" * (MAX_LINE + 1)), *cutter.cut(b"")]] == [None]


def test_a_pipe_that_says_nothing_can_be_left() -> None:
    reading, writing = os.pipe()

    async def read() -> list[Line]:
        lines: list[Line] = []
        os.write(writing, b"one\ntw")
        with anyio.move_on_after(60) as waiting:
            async for some in read_lines(reading):
                lines += some
                waiting.deadline = anyio.current_time() + 0.05
        return lines

    try:
        assert [line.raw for line in anyio.run(read)] == [b"one"]
    finally:
        os.close(reading)
        os.close(writing)


def _write(file: Path, *lines: object) -> str:
    file.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return str(file)


def _json_lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.requirement("cli:json", "cli:exit-codes")
def test_a_file_is_sent_to_a_sandbox_where_no_account_is_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [{"consumer": f"c{number % 3}", "text": f"text {number}"} for number in range(9)]
    source, results = _write(tmp_path / "in", *lines), tmp_path / "results"
    assert main(["pump", source, "--json", "--results", str(results)]) == 0
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert (report["accepted"], report["waiting"], report["bad_lines"], report["stopped_by"]) == (9, 0, 0, None)
    assert "LP_ACCOUNT_ID is not set" in err
    assert "a crash would lose what was not sent" in err
    assert "pumping: 9/9" in err
    told = _json_lines(results)
    assert {len(told), len({one["id"] for one in told})} == {9}
    keys = ["id", "status", "sequence", "attempts", "maybe_duplicate", "reason", "conversation_id"]
    assert [*told[0]] == keys
    assert {(one["status"], one["attempts"]) for one in told} == {("accepted", 1)}
    assert len({one["conversation_id"] for one in told}) == 3


def test_what_is_refused_is_set_aside_and_the_rest_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file of dead letters is an input again."""
    faults = tmp_path / "faults.json"
    action = {"kind": "status", "status": 400}
    faults.write_text(json.dumps({"rules": [{"endpoint": "send", "nth": [2], "action": action}]}))
    lines = [{"id": f"m{number}", "consumer": "c", "text": "x", "skill_id": "5"} for number in range(4)]
    source, dead = _write(tmp_path / "in", "no", *lines), tmp_path / "dead"
    outbox = f"sqlite:///{tmp_path / 'outbox.db'}"
    options = ["--outbox", outbox, "--sandbox", "--faults", str(faults), "--dead-letters", str(dead)]
    assert main(["pump", source, *options]) == 1
    out, err = capsys.readouterr()
    rows = dict(line.rsplit(maxsplit=1) for line in out.splitlines()[2:] if "  " in line)
    assert (rows["accepted"], rows["refused"], rows["bad lines"]) == ("3", "1", "1")
    assert "line 1: no JSON" in err
    assert "1 messages were not accepted; --dead-letters FILE" in err
    (letter,) = _json_lines(dead)
    assert (letter["id"], letter["consumer"], letter["skill_id"]) == ("m1", "c", "5")
    assert letter["outcome"]["status"] == "refused"
    assert isinstance(read_line(Line(1, dead.read_bytes())), PumpMessage)
    # The outbox knows them all: nothing is sent again, and what it holds does not change.
    assert main(["pump", source, "--outbox", outbox, "--sandbox", "--json"]) == 1
    again = json.loads(capsys.readouterr().out)
    assert (again["already_known"], again["accepted"], again["refused"]) == (4, 3, 1)
    # Its dead letters are sent again, once.
    results = tmp_path / "results"
    results.write_text(json.dumps({"id": "m1", "status": "refused"}) + "\n")
    more = ["--outbox", outbox, "--sandbox", "--json", "--resume", "--results", str(results)]
    assert main(["pump", str(dead), *more]) == 0
    again = json.loads(capsys.readouterr().out)
    assert (again["already_known"], again["accepted"], again["refused"]) == (1, 4, 0)
    assert [one["status"] for one in _json_lines(results)] == ["refused", "accepted"]
    assert main(["pump", str(dead), *more]) == 0
    assert len(_json_lines(results)) == 2


@pytest.mark.requirement("cli:exit-codes")
def test_what_an_earlier_run_left_needs_resume(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from connector_async.pump._messages import to_outbox
    from connector_async.store import SqliteStore

    async def leave() -> None:
        store = SqliteStore(tmp_path / "outbox.db")
        await store.outbox.put("12345678", [to_outbox(PumpMessage("m1", "c", "hi"))])
        await store.aclose()

    anyio.run(leave)
    outbox, results = f"sqlite:///{tmp_path / 'outbox.db'}", tmp_path / "results"
    source = _write(tmp_path / "in", {"id": "m1", "consumer": "c", "text": "hi"})
    assert main(["pump", source, "--outbox", outbox, "--json"]) == 2
    out, err = capsys.readouterr()
    assert "1 messages of an earlier run" in json.loads(out)["error"]
    assert "add --resume" in err
    # As a kill leaves it: half a line.
    results.write_text('{"id": "m0"}\n{"id": "m')
    assert main(["pump", "--outbox", outbox, "--json", "--resume", "--results", str(results)]) == 0
    assert json.loads(capsys.readouterr().out)["accepted"] == 1
    assert [one["id"] for one in _json_lines(results)] == ["m0", "m1"]
    results.write_text("")
    assert main(["pump", source, "--outbox", outbox, "--json", "--resume", "--results", str(results)]) == 0
    assert [one["id"] for one in _json_lines(results)] == ["m1"], "its end is made up for from the outbox"


def test_standard_input_is_a_source(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "connector_async", "pump", "-", "--json"],
        input='{"consumer": "c", "text": "x"}\n',
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["accepted"] == 1


@pytest.mark.requirement("cli:exit-codes", "cli:one-sentence")
@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["pump"], "INPUT is missing"),
        (["pump", "no-such-file"], "cannot read no-such-file: No such file"),
        (["pump", "x", "--outbox", "mysql://x"], "must be sqlite:///FILE or postgresql://"),
        (["pump", "x", "--outbox", "sqlite:///"], "must be sqlite:///FILE"),
        (["pump", "."], "cannot read .: it is a directory"),
        (["pump", ""], "cannot read INPUT"),
        (["pump", os.devnull, "--sandbox", "--faults", "no-such-file"], "give a JSON file or one of storm"),
        (["pump", os.devnull, "--outbox", "sqlite:///."], "--outbox names ., which is a directory"),
        (["pump", os.devnull, "--results", "."], "--results names ., which is a directory"),
        (["pump", os.devnull, "--dead-letters", "nowhere/x"], "there is no directory nowhere"),
        (["pump", "x", "--concurrency", "0"], "must be a whole number of at least 1, not '0'"),
        (["pump", "x", "--rate", "0"], "must be a number from 0.001 to 1,000,000, not '0'"),
        (["pump", "x", "--rate", "inf"], "not 'inf'"),
        (["pump", "x", "--rate", "1e-300"], "must be a number from 0.001"),
        (["pump", "x", "--drain", "-1"], "must be a number from 0 to 86,400, not '-1'"),
        (["pump", "x", "--lease", "nan"], "must be a number from 1 to 86,400, not 'nan'"),
        (["pump", "x", "--unknown", "guess"], "invalid choice"),
    ],
    ids=lambda value: " ".join(value[1:]) if isinstance(value, list) else "",
)
def test_wrong_use_ends_with_2(words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        status: object = main(words)
    except SystemExit as end:
        status = end.code
    assert status == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert sentence in err
    assert err.count("\n") <= 2


@pytest.mark.parametrize("option", ["--results", "--dead-letters", "--outbox"])
@pytest.mark.parametrize("through", ["its name", "another name", "standard input"])
def test_a_file_that_is_being_read_is_not_written_over(
    option: str, through: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Found in a shell: `pump in.jsonl --results in.jsonl` emptied its input and said that all went well."""
    source = _write(tmp_path / "in", {"consumer": "c", "text": "x"})
    before = Path(source).read_text()
    (tmp_path / "link").hardlink_to(source)
    written = str(tmp_path / "link") if through == "another name" else source
    with Path(source).open() as opened:
        monkeypatch.setattr(sys, "stdin", opened)
        read = "-" if through == "standard input" else source
        assert main(["pump", read, option, f"sqlite:///{written}" if option == "--outbox" else written]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert f"{option} names {written}, which is the input already: name another file" in err
    assert Path(source).read_text() == before


def test_one_file_cannot_hold_two_things_but_a_device_takes_any_number(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, file = _write(tmp_path / "in"), str(tmp_path / "x")
    assert main(["pump", source, "--results", file, "--dead-letters", file]) == 2
    assert "--dead-letters names" in capsys.readouterr().err
    assert main(["pump", source, "--results", file, "--outbox", f"sqlite:///{file}"]) == 2
    assert "which is the file of --outbox already" in capsys.readouterr().err
    assert main(["pump", source, "--results", os.devnull, "--dead-letters", os.devnull]) == 0


def test_faults_are_not_for_a_real_account(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LP_ACCOUNT_ID", "12345678")
    assert main(["pump", "x", "--faults", "storm"]) == 2
    assert "add --sandbox" in capsys.readouterr().err


def test_a_real_account_without_a_secret_is_told_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LP_ACCOUNT_ID", "12345678")
    assert main(["pump", _write(tmp_path / "in"), "--outbox", f"sqlite:///{tmp_path / 'o.db'}"]) == 1
    assert "LP_CLIENT_SECRET" in capsys.readouterr().err


def test_a_file_that_holds_something_else_is_not_overwritten(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("dear diary\n")
    with pytest.raises(CommandFailed, match="is no file of results"), Results(other, resume=True):
        pytest.fail("it was opened")
    with pytest.raises(CommandFailed, match="cannot write"), Results(tmp_path / "no" / "where", resume=False):
        pytest.fail("it was opened")


def test_two_runs_at_once_do_not_write_one_file_of_results(tmp_path: Path) -> None:
    """The second cut off what the first had written since, and half a line of one stood in a line of the other."""
    file = tmp_path / "results"
    with Results(file, resume=False) as first:
        for resume in (False, True):
            with pytest.raises(CommandFailed, match="another process"), Results(file, resume=resume):
                pytest.fail("it was opened")
        first.add_entry(_ended("m1"))
    with Results(file, resume=True) as second:
        assert "m1" in second


def _ended(name: str) -> OutboxEntry:
    return OutboxEntry(
        message=OutboxMessage(id=name, consumer="c", body=b"{}", request_id=name),
        state=MessageState.ACCEPTED,
        attempts=1,
        sequence=0,
        conversation_id="d",
        reason=None,
        maybe_duplicate=False,
        put_at=0.0,
        settled_at=1.0,
    )


def test_dead_letters_wait_for_another_process_that_writes_its_own_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pumps of one outbox are stopped together; what one wrote stood in what the other did."""
    file, outbox = tmp_path / "dead", MemoryStore().outbox

    async def end_meanwhile(other: Results) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(write_dead_letters, file, outbox, "1")
            await anyio.wait_all_tasks_blocked()
            other.__exit__()

    monkeypatch.setattr(_pump_report, "_LOOK", 0.001)
    with Results(file, resume=False) as other:
        other.add_entry(_ended("m1"))
        anyio.run(end_meanwhile, other)
    assert file.read_text() == ""
    monkeypatch.setattr(_pump_report, "_PATIENCE", 0.0)
    with Results(file, resume=False), pytest.raises(CommandFailed, match="another process"):
        anyio.run(write_dead_letters, file, outbox, "1")


def test_where_files_cannot_be_locked_they_are_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError

    monkeypatch.setattr("fcntl.flock", fail)
    with Results(tmp_path / "results", resume=False) as results:
        results.add_entry(_ended("m1"))
    assert "m1" in (tmp_path / "results").read_text()


def _summary(**facts: Any) -> Summary:
    given: dict[str, Any] = {"counts": OutboxCounts(), "sent": 0, "retried": 0, "lease_lost": 0, "known": 0}
    return Summary(**given | {"bad_lines": 0, "seconds": 2.0, "durable": True} | facts)


def test_a_summary_says_what_can_be_done() -> None:
    left = OutboxCounts(waiting=3, begun=1, accepted=4)
    (said,) = _summary(counts=left, stopped_by="SIGTERM").complaints()
    assert said == "stopped by SIGTERM: 4 messages are left in the outbox; --resume goes on with them"
    (said,) = _summary(counts=left, durable=False).complaints()
    assert said == "4 messages were not sent and are gone: the outbox was in memory"
    assert _summary(stopped_by="SIGINT").complaints() == ["stopped by SIGINT: nothing is left in the outbox"]
    assert _summary(failure="the input broke").complaints() == ["the input broke"]
    assert not _summary(failure="the input broke").is_success
    assert _summary(counts=OutboxCounts(accepted=4), sent=4).is_success
    assert _summary(sent=4).as_json()["messages_per_second"] == 2.0
    assert _summary(seconds=0.0).rate == 0.0


def test_lines_of_progress_say_rate_and_what_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    with _Lines() as lines:
        lines.show(Standing(done=5, total=20, in_flight=2, retried=1, unknown=3))
        lines.show(Standing(done=7))
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("pumping: 5/20, ")
    assert "/s, 2 in flight, 1 retried, 3 unknown, ETA " in first
    assert second.startswith("pumping: 7, ")
    assert second.endswith("ETA -")
    assert (_clock(59.6), _clock(3700)) == ("1:00", "1:01:40")


def test_a_bar_shows_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("rich")
    with _Bar() as bar:
        bar.show(Standing(done=5, total=20, in_flight=2))
    assert "5/20" in capsys.readouterr().err
