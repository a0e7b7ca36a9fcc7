"""File storage: signed URLs that live one minute, and the limits on what is put there."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.sandbox.caller import Caller
from tests.sandbox.conftest import Opener, in_process

pytestmark = pytest.mark.anyio

PNG = b"\x89PNG\r\n\x1a\n" + bytes(1000)


async def _url(call: Caller, headers: dict[str, str], wire_type: str, body: dict[str, Any]) -> str:
    answer = (await call.send(headers, wire_type, body)).json()
    assert answer["code"] == "OK"
    query = "&".join(f"{key}={value}" for key, value in answer["body"]["queryParams"].items())
    return f"{answer['body']['relativePath']}?{query}"


async def _upload_url(call: Caller, headers: dict[str, str], size: object = "1008") -> str:
    return await _url(call, headers, "ms.GenerateURLForUploadFile", {"fileSize": size, "fileType": "PNG"})


async def _put(call: Caller, url: str, data: bytes = PNG, content_type: str = "image/png") -> httpx.Response:
    return await call.http.put(url, content=data, headers={"Content-Type": content_type})


async def test_a_file_goes_up_is_published_and_comes_down_again(cloud_of: Opener) -> None:
    """Connector API examples, "File sharing": the four steps."""
    async with cloud_of() as call:
        headers = await call.headers()
        conversation_id = await call.open(headers)
        url = await _upload_url(call, headers)
        path = url.partition("?")[0]
        assert path.startswith(f"/v1/AUTH_async-images/{call.cloud.account_id}/")
        assert (await _put(call, url)).status_code == 201
        message = {"caption": "", "relativePath": path, "fileType": "PNG", "preview": "x" * 6000}
        event = {"type": "ContentEvent", "contentType": "hosted/file", "message": message}
        assert (await call.publish(headers, conversation_id, event)).status_code == 200
        down = await _url(call, headers, "ms.GenerateURLForDownloadFile", {"relativePath": path})
        got = await call.http.get(down)
        assert (got.status_code, got.content, got.headers["content-type"]) == (200, PNG, "image/png")
        assert call.cloud.ledger.calls["upload"] == call.cloud.ledger.calls["download"] == 1


async def test_a_preview_must_stay_below_30_kb_and_the_type_must_be_an_image() -> None:
    """Connector API, `Send`."""
    async with in_process() as call:
        headers = await call.headers()
        conversation_id = await call.open(headers)
        url = await _upload_url(call, headers)
        await _put(call, url)
        message = {"caption": "", "relativePath": url.partition("?")[0], "fileType": "PNG"}
        for change in ({"preview": "x" * 30 * 1024}, {"preview": 5}, {"fileType": "PDF"}):
            event = {"type": "ContentEvent", "contentType": "hosted/file", "message": {**message, **change}}
            assert (await call.publish(headers, conversation_id, event)).status_code == 400


async def test_urls_live_one_minute_and_serve_one_method() -> None:
    """Connector API examples, `File sharing`."""
    now = 1_700_000_000.0
    async with in_process(clock=lambda: now) as call:
        headers = await call.headers()
        url = await _upload_url(call, headers, 1008)
        assert (await call.http.get(url)).status_code == 401
        assert (await _put(call, url.replace("temp_url_sig=", "temp_url_sig=0"))).status_code == 401
        assert (await _put(call, url.partition("?")[0])).status_code == 401
        now += 61
        assert (await _put(call, url)).status_code == 401
        fresh = await _upload_url(call, headers)
        now += 59
        assert (await _put(call, fresh)).status_code == 201
        path = fresh.partition("?")[0]
        down = await _url(call, headers, "ms.GenerateURLForDownloadFile", {"relativePath": path})
        del call.cloud.account.files[path]
        assert (await call.http.get(down)).status_code == 404


@pytest.mark.parametrize(
    ("data", "content_type", "status"),
    [
        (b"", "image/png", 400),
        (PNG, "text/html", 415),
        (PNG, "application/octet-stream", 201),
        (bytes(3 * 1024 * 1024), "image/png", 201),
        (bytes(3 * 1024 * 1024 + 1), "image/png", 413),
        (bytes(5 * 1024 * 1024), "image/png", 413),
    ],
)
async def test_limits_of_what_is_put(data: bytes, content_type: str, status: int) -> None:
    """Connector API, "Send": at most 3 MB, images only."""
    async with in_process() as call:
        url = await _upload_url(call, await call.headers())
        assert (await _put(call, url, data, content_type)).status_code == status


@pytest.mark.parametrize(
    "body",
    [
        {"fileSize": "1000", "fileType": "EXE"},
        {"fileSize": "0", "fileType": "PNG"},
        {"fileSize": str(3 * 1024 * 1024 + 1), "fileType": "PNG"},
        {"fileSize": "many", "fileType": "PNG"},
        {"fileType": "PNG"},
    ],
)
async def test_upload_url_is_refused_for_what_could_not_be_stored(body: dict[str, Any]) -> None:
    """Connector API examples, `File sharing`."""
    async with in_process() as call:
        answer = await call.send(await call.headers(), "ms.GenerateURLForUploadFile", body)
        assert (answer.status_code, answer.json()["code"]) == (400, "BAD_REQUEST")


async def test_no_urls_without_file_sharing_or_file() -> None:
    """Connector API examples, "File sharing": the account's `messaging.file.sharing.enabled`."""
    async with in_process() as call:
        headers = await call.headers()
        down = {"relativePath": "/nothing"}
        assert (await call.send(headers, "ms.GenerateURLForDownloadFile", down)).status_code == 400
        call.cloud.account.file_sharing = False
        up = {"fileSize": 5, "fileType": "PNG"}
        assert (await call.send(headers, "ms.GenerateURLForUploadFile", up)).status_code == 400
        unknown = await call.http.put("/v1/AUTH_async-images/nobody/x.PNG", content=PNG)
        assert unknown.status_code == 401
