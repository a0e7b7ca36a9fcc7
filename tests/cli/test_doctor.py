"""The doctor examines a sandbox in the place of the real cloud, healthy and ill."""

from __future__ import annotations

import json
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import anyio
import httpx
import pytest

from connector_async.cli import doctor, main
from connector_async.cli._sandbox_process import SandboxAddress, sandbox_process
from connector_async.errors import NotSent

_NAMES = [
    "settings",
    *(f"{step} {service}" for step in ("host", "connect") for service in ("sentinel", "idp", "asyncMessagingEnt")),
    "token",
]
# Nobody listens there.
_CLOSED = "http://127.0.0.1:1"


@pytest.fixture(scope="module")
def cloud() -> Iterator[SandboxAddress]:
    with sandbox_process("--client-secret", "c4nary-secret") as address:
        yield address


@pytest.fixture(autouse=True)
def _account(cloud: SandboxAddress, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LP_ACCOUNT_ID", cloud.account_id)
    monkeypatch.setenv("LP_CLIENT_ID", cloud.client_id)
    monkeypatch.setenv("LP_CLIENT_SECRET", cloud.client_secret)
    monkeypatch.setenv("LP_DOMAIN_API", cloud.domain_api)


@contextmanager
def _domain_api(bases: dict[str, str]) -> Generator[str]:
    """A Domain API that knows these services."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            service = self.path.split("/")[5]
            body = json.dumps({"service": service, "baseURI": bases.get(service, _CLOSED)}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name there
            """Standard error is the doctor's."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def _examine(capsys: pytest.CaptureFixture[str], *, status: int) -> dict[str, Any]:
    assert main(["doctor", "--json"]) == status
    out, err = capsys.readouterr()
    assert out.count("\n") == 1
    assert "c4nary" not in out + err
    assert "Traceback" not in err
    report: dict[str, Any] = json.loads(out)
    assert report["ok"] == (status == 0)
    assert [check["name"] for check in report["checks"]] == _NAMES
    return {check["name"]: check for check in report["checks"]}


@pytest.mark.requirement("cli:json", "cli:exit-codes")
def test_of_a_healthy_account_every_step_is_well(cloud: SandboxAddress, capsys: pytest.CaptureFixture[str]) -> None:
    checks = _examine(capsys, status=0)
    assert {check["status"] for check in checks.values()} == {"ok"}
    assert {check["advice"] for check in checks.values()} == {None}
    assert checks["settings"]["says"] == f"account 12345678, app sandbox-client, hosts from {cloud.domain_api}"
    assert checks["host idp"]["says"] == f"{cloud.domain_api} gives the consumers' tokens"
    assert checks["connect asyncMessagingEnt"]["says"].startswith("it answers (status ")
    assert checks["token"]["says"] == "an AppJWT that holds for 3,600 s"
    assert 0 < checks["token"]["seconds"] < 15


def test_for_a_person_each_step_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    out, err = capsys.readouterr()
    assert [line.split()[0] for line in out.splitlines()] == ["ok"] * 8
    assert err == "looking up the hosts of account 12345678\nasking for a token\n"


@pytest.mark.requirement("cli:one-sentence")
@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("LP_CLIENT_ID", " ", "not set in the environment: LP_CLIENT_ID (the app installation's client id)"),
        ("LP_ACCOUNT_ID", "a b", "not an account id: 'a b'"),
        ("LP_DOMAIN_API", "http://cloud.example", "use https"),
        ("HTTPS_PROXY", "ftp://proxy.example", "a proxy in the environment"),
    ],
)
def test_an_environment_that_cannot_work_is_the_first_to_fail(
    variable: str, value: str, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(variable, value)
    checks = _examine(capsys, status=1)
    assert checks["settings"]["status"] == "failed"
    assert told in checks["settings"]["says"]
    assert {checks[name]["status"] for name in _NAMES[1:]} == {"skipped"}
    assert checks["token"]["says"] == "needs what failed: settings"


def test_a_wrong_secret_fails_the_token_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LP_CLIENT_SECRET", "c4nary-other")
    checks = _examine(capsys, status=1)
    assert [name for name in _NAMES if checks[name]["status"] != "ok"] == ["token"]
    assert "refused the app credentials (status 401)" in checks["token"]["says"]
    assert checks["token"]["advice"] == "check the client id and secret of the app installation"


def test_what_to_do_stands_below_what_failed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An account that the Domain API does not know: nothing after that can be tried."""
    monkeypatch.setenv("LP_ACCOUNT_ID", "99999999")
    assert main(["doctor"]) == 1
    out, err = capsys.readouterr()
    lines = [line.split(maxsplit=2) for line in out.splitlines()]
    assert lines[1][:2] == ["failed", "host"]
    assert "knows no service 'sentinel' for account '99999999'" in out
    assert " ".join(lines[2]) == "what to do: check the account id"
    assert lines[-1] == ["skipped", "token", "needs what failed: host sentinel"]
    assert err.splitlines()[-1] == "connector-async: failed: host sentinel, host idp, host asyncMessagingEnt"


def test_a_domain_api_that_nobody_answers_for_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LP_DOMAIN_API", _CLOSED)
    checks = _examine(capsys, status=1)
    assert f"the Domain API at {_CLOSED} cannot be reached" in checks["host idp"]["says"]
    assert "check the network" in checks["host idp"]["advice"]
    assert checks["connect idp"]["status"] == checks["token"]["status"] == "skipped"


def test_a_host_that_is_closed_to_this_machine_is_told_from_one_that_is_not_known(
    cloud: SandboxAddress, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A firewall that knows one host of three; the token is asked for all the same."""
    with _domain_api({"sentinel": cloud.url, "asyncMessagingEnt": cloud.url}) as api:
        monkeypatch.setenv("LP_DOMAIN_API", api)
        checks = _examine(capsys, status=1)
    assert [name for name in _NAMES if checks[name]["status"] != "ok"] == ["connect idp"]
    assert checks["connect idp"]["says"].startswith("it cannot be reached: ")
    assert checks["connect idp"]["advice"].startswith(f"let this machine connect to {_CLOSED}; HTTPS_PROXY names")


def test_a_certificate_that_is_not_trusted_is_told_as_such_and_gets_no_secret(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with sandbox_process("--tls") as other, _domain_api({"sentinel": other.url}) as api:
        monkeypatch.setenv("LP_DOMAIN_API", api)
        checks = _examine(capsys, status=1)
    assert "TLS failed: " in checks["connect sentinel"]["says"]
    assert "check the certificate" in checks["connect sentinel"]["advice"]
    assert checks["token"]["status"] == "skipped"


def test_a_token_service_that_is_down_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with sandbox_process("--faults", "no-tokens", "--client-secret", "c4nary-secret") as other:
        monkeypatch.setenv("LP_DOMAIN_API", other.domain_api)
        checks = _examine(capsys, status=1)
    assert checks["token"]["says"] == "the token service answers 503"
    assert "try again later" in checks["token"]["advice"]


def test_a_host_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever gives up first, httpx or we."""
    monkeypatch.setattr(doctor, "_CONNECT_TIMEOUT", 0.05)

    async def connect() -> None:
        async def silent(_request: httpx.Request) -> httpx.Response:
            await anyio.sleep_forever()
            raise AssertionError

        async with httpx.AsyncClient(transport=httpx.MockTransport(silent)) as client:
            with pytest.raises(NotSent, match=r"it cannot be reached: no answer within 0\.05 s"):
                await doctor._connect(client, "https://host.example")

    anyio.run(connect)
