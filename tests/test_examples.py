"""The examples run as they are, with real sockets against a sandbox of their own."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import httpx
import pytest

from connector_async import OutcomeStatus, Outgoing

EXAMPLES = Path(__file__).parent.parent / "examples"

pytestmark = pytest.mark.anyio


def load(name: str) -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name=name)


@pytest.mark.requirement("examples:run")
@pytest.mark.parametrize(("name", "last"), [("echo_bot", "closed"), ("menu_bot", "closed, survey and all")])
async def test_a_bot_holds_its_conversation_to_the_end(
    name: str, last: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Issue 6, item 6."""
    with anyio.fail_after(60):
        await load(name)["main"]()
    assert capsys.readouterr().out.splitlines()[-1] == last


@pytest.mark.requirement("examples:run")
async def test_the_fastapi_back_end_sends_and_hears() -> None:
    """Issue 6, item 6; the webhook route answers 200, not 307."""
    app = load("fastapi_backend")["app"]
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            said = await client.post("/say", json={"consumer": "shopper", "text": "hello"})
            assert said.status_code == 200
            assert said.json()["status"] == "accepted"
            with anyio.fail_after(60):
                while not (await client.get("/heard")).json():
                    await anyio.lowlevel.checkpoint()
            assert (await client.get("/health")).json()["ready"]
            assert (await client.post("/webhooks", content=b"{}")).status_code == 401


async def test_the_fastapi_back_end_hears_in_each_start_of_the_app() -> None:
    """Test suites start it again and again: deliveries must not go to the session of the first time."""
    module = load("fastapi_backend")
    app, heard = module["app"], module["heard"]
    for _ in range(2):
        heard.clear()
        async with app.router.lifespan_context(app):
            assert (await app.state.session.send(Outgoing("shopper", "hello"))).status is OutcomeStatus.ACCEPTED
            with anyio.fail_after(60):
                while not heard:
                    await anyio.lowlevel.checkpoint()
