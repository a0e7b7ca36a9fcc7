"""The manifest from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from connector_async.cli import main
from connector_async.wire import parse_manifest

_URL = "https://connector.example.com/webhook"


def test_a_manifest_is_ready_to_be_installed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["manifest", "--name", "Shop", "--webhook-url", _URL, "--campaigns", "--description", "A shop."]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    manifest = parse_manifest(out)
    assert manifest.problems() == []
    assert (manifest.client_name, manifest.description) == ("Shop", "A shop.")
    assert manifest.capabilities is not None
    assert manifest.capabilities.engagement is not None
    assert manifest.capabilities.webhooks is not None
    assert manifest.capabilities.webhooks.retry is not None


@pytest.mark.requirement("cli:json")
def test_for_machines_it_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["manifest", "--json", "--webhook-url", _URL]) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert json.loads(out)["scope"] == "msg.consumer"


def test_an_app_without_webhooks_is_warned(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["manifest"]) == 0
    assert "--webhook-url" in capsys.readouterr().err


@pytest.mark.requirement("cli:exit-codes", "cli:one-sentence")
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--webhook-url", "http://connector.example.com/"], "must be an https URL"),
        (["--name", "x" * 129], "client_name"),
    ],
)
def test_what_the_api_would_refuse_is_wrong_use(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["manifest", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert told in err


@pytest.mark.requirement("cli:exit-codes")
@pytest.mark.parametrize("retention", ["1", "259201", "nan", "2.5", "-5"])
def test_a_retention_that_the_api_would_refuse_is_wrong_use_without_webhooks_too(
    retention: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["manifest", "--retention", retention])
    assert ended.value.code == 2
    assert f"must be a whole number from 2 to 259,200, not '{retention}'" in capsys.readouterr().err


def test_a_good_manifest_has_no_problems(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["manifest", "--webhook-url", _URL])
    file = tmp_path / "manifest.json"
    file.write_text(capsys.readouterr().out)
    assert main(["manifest", "--check", str(file)]) == 0
    assert capsys.readouterr().out == "no problems found\n"


def test_the_problems_of_a_manifest_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "manifest.json"
    file.write_text(json.dumps({"client_name": "Shop", "scope": "msg.agent"}))
    assert main(["manifest", "--check", str(file)]) == 1
    told = capsys.readouterr().out
    assert "scope" in told
    assert main(["manifest", "--json", "--check", str(file)]) == 1
    assert json.loads(capsys.readouterr().out) == {"problems": told.splitlines()}


@pytest.mark.requirement("cli:one-sentence", "cli:exit-codes")
def test_a_file_that_cannot_be_checked_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["manifest", "--check", str(tmp_path / "none.json")]) == 2
    assert "none.json cannot be read: No such file" in capsys.readouterr().err
    assert main(["manifest", "--check", str(tmp_path)]) == 2
    assert "cannot be read: Is a directory" in capsys.readouterr().err
    (tmp_path / "text").write_text("hello")
    assert main(["manifest", "--check", str(tmp_path / "text")]) == 1
    assert "no JSON" in capsys.readouterr().err
