"""The README says what is so: its commands, its example, its options."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

import connector_async
import connector_async.cli
from connector_async.sandbox import Sandbox
from connector_async.wire import PublishEvent

_ROOT = Path(__file__).parent.parent
_README = (_ROOT / "README.md").read_text(encoding="utf-8")
_BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", _README, re.MULTILINE | re.DOTALL)
_SHELL = [line for language, block in _BLOCKS if language == "sh" for line in block.splitlines()]
_PYTHON = [block for language, block in _BLOCKS if language == "python"]

pytestmark = pytest.mark.anyio


@pytest.mark.requirement("readme:commands")
def test_two_commands_make_their_own_environment_each_on_one_line() -> None:
    commands = [line for line in _SHELL if line.startswith("python3 -m venv .venv && ")]
    assert [line.rpartition(" && ")[2].split()[0] for line in commands] == [
        ".venv/bin/connector-async",
        ".venv/bin/pytest",
    ]


@pytest.mark.requirement("readme:commands")
def test_ci_takes_the_test_command_from_the_readme() -> None:
    pattern = re.search(r"grep -m1 '([^']*)' README\.md", (_ROOT / ".ci" / "run").read_text(encoding="utf-8"))
    assert pattern is not None
    found = subprocess.run(
        ["grep", pattern[1], "README.md"], cwd=_ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert len(found) == 1
    assert found[0] in _SHELL


def test_the_example_is_the_file_beside_it() -> None:
    assert (_ROOT / "examples" / "quickstart.py").read_text(encoding="utf-8") in _PYTHON


def test_the_example_has_about_twenty_lines() -> None:
    assert len(_PYTHON[0].splitlines()) <= 28


@pytest.mark.requirement("readme:example")
async def test_the_example_holds_a_conversation() -> None:
    """In a process of its own, as a reader runs it, against the sandbox on a real socket."""
    async with Sandbox() as cloud:
        environ = {**os.environ, **cloud.environ(), "PYTHONWARNINGS": "error"}
        process = await _run([sys.executable, str(_ROOT / "examples" / "quickstart.py")], environ)
        assert process.stderr == b""
        assert process.stdout.count(b"accepted at attempt 1") == 2
        assert cloud.ledger.summary()["applied_by_type"] == {
            "userprofile.SetUserProfile": 1,
            "cm.ConsumerRequestConversation": 1,
            PublishEvent.TYPE: 2,
            "cm.UpdateConversationField": 1,
        }


def _closes_at_the_first_word(desk: Any, happening: Any) -> None:
    event = happening.event if happening.role == "CONSUMER" else None
    if event is not None and event.get("message") == "Good morning!":
        desk.closes(happening.conversation.conversation_id)


async def test_the_example_says_everything_though_the_agent_closes_in_between() -> None:
    """It is copied: the text that finds the conversation closed must not be the price of opening another."""
    async with Sandbox(agent=_closes_at_the_first_word) as cloud:
        process = await _run(
            [sys.executable, str(_ROOT / "examples" / "quickstart.py")], {**os.environ, **cloud.environ()}
        )
        assert process.stdout.count(b"accepted at attempt 1") == 2
        assert cloud.ledger.summary()["applied_by_type"]["cm.ConsumerRequestConversation"] == 2
        assert cloud.ledger.summary()["applied_by_type"][PublishEvent.TYPE] == 2


async def _run(command: list[str], environ: dict[str, str]) -> subprocess.CompletedProcess[bytes]:

    with anyio.fail_after(60):
        return await anyio.run_process(command, env=environ, check=False, stdin=subprocess.DEVNULL)


@pytest.mark.requirement("cli:one-sentence")
async def test_the_example_without_an_account_names_the_variables() -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("LP_")}
    process = await _run([sys.executable, str(_ROOT / "examples" / "quickstart.py")], environ)
    last = process.stderr.decode().splitlines()[-1]
    assert all(name in last for name in ("LP_ACCOUNT_ID", "LP_CLIENT_ID", "LP_CLIENT_SECRET"))


@pytest.mark.parametrize("block", _PYTHON, ids=range(len(_PYTHON)))
def test_python_in_the_readme_is_python(block: str) -> None:
    compile(f"async def readme() -> None:\n    pass\n{_indented(block)}", "README.md", "exec")


def _indented(block: str) -> str:
    return "".join(f"    {line}\n" for line in block.splitlines())


def test_names_in_the_readme_exist() -> None:
    """Errors, classes and session methods that the text mentions in code quotes."""
    quoted = set(re.findall(r"`([A-Z]\w+)`", _README)) - {"Retry", "LP_DOMAIN_API"}
    offered = {*connector_async.__all__, "Sandbox"}
    assert {name for name in quoted if name not in offered and not name.isupper()} == set()
    methods = set(re.findall(r"`?session\.(\w+)\(", _README))
    assert {name for name in methods if not hasattr(connector_async.ConnectorSession, name)} == set()


@pytest.mark.parametrize("command", sorted(set(re.findall(r"connector-async (\w+)`", _README))))
def test_commands_in_the_readme_exist(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        connector_async.cli.main([command, "--help"])
    assert ended.value.code == 0
    words = capsys.readouterr().out
    mentioned = re.findall(rf"connector-async {command}` \| ([^\n]*)", _README)
    assert [option for row in mentioned for option in re.findall(r"`(--[\w-]+)", row) if option not in words] == []
