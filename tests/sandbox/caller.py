"""A hand-written client of the API, so that the sandbox is judged by what shares no code with the product."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import AsyncGenerator
from typing import Any

import httpx

from connector_async.sandbox import Sandbox

__all__ = ["Caller", "calling"]


class Caller:
    """Speaks to one sandbox over httpx."""

    def __init__(self, cloud: Sandbox, http: httpx.AsyncClient) -> None:
        self.cloud = cloud
        self.http = http
        self.account = f"/api/account/{cloud.account_id}"
        self._ids = itertools.count(1)

    async def ask_for_token(self) -> httpx.Response:
        """The token call as the page documents it."""
        return await self.http.post(
            f"/sentinel{self.account}/app/token",
            params={"v": "1.0", "grant_type": "client_credentials"},
            data={"client_id": self.cloud.client_id, "client_secret": self.cloud.client_secret},
        )

    async def token(self) -> str:
        """A fresh AppJWT."""
        return str((await self.ask_for_token()).json()["access_token"])

    async def headers(self, ext_consumer_id: str = "someone", token: str | None = None) -> dict[str, str]:
        """The two tokens as headers."""
        token = token or await self.token()
        answer = await self.http.post(
            f"{self.account}/consumer?v=1.0",
            headers={"Authorization": token},
            json={"ext_consumer_id": ext_consumer_id},
        )
        assert answer.status_code == 201
        return {"Authorization": token, "X-LP-ON-BEHALF": answer.json()["token"]}

    async def batch(self, headers: dict[str, str], *, profile: object = None, **body: object) -> httpx.Response:
        """A CONVERSATION call."""
        opening = {"brandId": self.cloud.account_id, "channelType": "MESSAGING", **body}
        envelopes = [
            self.envelope("userprofile.SetUserProfile", {} if profile is None else profile),
            self.envelope("cm.ConsumerRequestConversation", opening),
        ]
        return await self.post(headers, envelopes, path="")

    async def open(self, headers: dict[str, str], **body: object) -> str:
        """A new conversation's id."""
        answer = await self.batch(headers, **body)
        assert answer.status_code == 200, answer.text
        return str(answer.json()[1]["body"]["conversationId"])

    def envelope(self, wire_type: str, body: object, *, request_id: object = None, **top: object) -> dict[str, Any]:
        """A request envelope."""
        return {
            "kind": "req",
            "id": f"r-{next(self._ids)}" if request_id is None else request_id,
            "type": wire_type,
            "body": body,
            **top,
        }

    async def post(self, headers: dict[str, str], payload: object, *, path: str = "/send") -> httpx.Response:
        """Any payload to SEND or CONVERSATION."""
        return await self.http.post(
            f"{self.account}/messaging/consumer/conversation{path}?v=3", headers=headers, json=payload
        )

    async def send(
        self, headers: dict[str, str], wire_type: str, body: object, *, request_id: object = None, **top: object
    ) -> httpx.Response:
        """One envelope to SEND."""
        return await self.post(headers, self.envelope(wire_type, body, request_id=request_id, **top))

    async def say(
        self,
        headers: dict[str, str],
        dialog_id: str,
        text: str = "hello",
        *,
        request_id: object = None,
        **top: object,
    ) -> httpx.Response:
        """A text."""
        event = {"type": "ContentEvent", "contentType": "text/plain", "message": text}
        return await self.publish(headers, dialog_id, event, request_id=request_id, **top)

    async def publish(
        self, headers: dict[str, str], dialog_id: str, event: object, *, request_id: object = None, **top: object
    ) -> httpx.Response:
        """An event."""
        return await self.send(
            headers, "ms.PublishEvent", {"dialogId": dialog_id, "event": event}, request_id=request_id, **top
        )

    async def field(self, headers: dict[str, str], conversation_id: str, field: object) -> httpx.Response:
        """A field of a conversation."""
        body = {"conversationId": conversation_id, "conversationField": field}
        return await self.send(headers, "cm.UpdateConversationField", body)

    async def close(self, headers: dict[str, str], conversation_id: str) -> httpx.Response:
        """Close a conversation."""
        return await self.field(
            headers, conversation_id, {"field": "ConversationStateField", "conversationState": "CLOSE"}
        )


@contextlib.asynccontextmanager
async def calling(cloud: Sandbox, *, timeout: float = 5) -> AsyncGenerator[Caller]:
    """A caller of an opened sandbox: through its socket where it has one, else in process."""
    transport = httpx.ASGITransport(app=cloud.app) if cloud.in_process else None
    async with httpx.AsyncClient(
        transport=transport, base_url=cloud.url, verify=cloud.ssl_context or True, timeout=timeout, trust_env=False
    ) as http:
        yield Caller(cloud, http)
