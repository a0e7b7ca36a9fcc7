"""The polite conversation, held with a sandbox in the place of the real cloud."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from connector_async.cli import main
from connector_async.cli._sandbox_process import SandboxAddress, sandbox_process


@pytest.fixture(scope="module")
def cloud() -> Iterator[SandboxAddress]:
    with sandbox_process() as address:
        yield address


@pytest.fixture(autouse=True)
def _account(cloud: SandboxAddress, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LP_ACCOUNT_ID", cloud.account_id)
    monkeypatch.setenv("LP_CLIENT_ID", cloud.client_id)
    monkeypatch.setenv("LP_CLIENT_SECRET", cloud.client_secret)
    monkeypatch.setenv("LP_DOMAIN_API", cloud.domain_api)


def test_one_sentence_is_said_and_the_conversation_closed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--live", "--json", "--skill-id", "77"]) == 0
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert (report["messages_sent"], report["messages_accepted"], report["tokens_fetched"]) == (1, 1, 1)
    assert "closed it" in err


def test_for_a_person_the_conversation_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--live"]) == 0
    assert "accepted by the cloud" in capsys.readouterr().out


@pytest.mark.requirement("cli:one-sentence", "cli:exit-codes")
@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("LP_CLIENT_SECRET", "c4nary-secret", "check the client id and secret"),
        ("LP_ACCOUNT_ID", "99999999", "check the account id"),
        ("LP_CLIENT_ID", "", "LP_CLIENT_ID"),
        ("LP_DOMAIN_API", "http://cloud.example", "use https"),
    ],
)
def test_what_keeps_it_from_working_is_told_in_one_sentence(
    variable: str, value: str, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(variable, value)
    assert main(["demo", "--live"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert told in err.splitlines()[-1]
    assert "Traceback" not in err
