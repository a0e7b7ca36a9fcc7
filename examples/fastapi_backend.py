"""A FastAPI back end: the session lives as long as the app, webhooks come in at an exact route.

    pip install fastapi
    python examples/fastapi_backend.py

Without LP_ACCOUNT_ID it starts a sandbox of its own, so that `POST /say` can be tried at once.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Request
from pydantic import BaseModel
from starlette.routing import Route

from connector_async import ConnectorSession, ContentEvent, Incoming, OutcomeStatus, Outgoing, Router
from connector_async.sandbox import Sandbox

router = Router()
heard: list[str] = []


@router.on(ContentEvent)
async def from_agent(message: Incoming[ContentEvent]) -> None:
    """What the agent says would go to the consumer's channel; here it is kept for `GET /heard`."""
    heard.append(message.text)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        environ = dict(os.environ)
        if "LP_ACCOUNT_ID" not in environ:
            cloud = await stack.enter_async_context(Sandbox())
            environ |= cloud.environ()
            # Where the sandbox delivers: to this app, without a socket in between.
            cloud.deliver_to(app, "/webhooks")
        session = ConnectorSession.from_env(environ=environ, router=router)
        # An exact route: a mounted app answers 307 at its own root, which the vendor counts as a failure.
        route = Route("/webhooks", session.webhook_app().endpoint, methods=["POST"])
        app.router.routes.append(route)
        # Tests start an app several times; each time it has another session.
        stack.callback(app.router.routes.remove, route)
        app.state.session = await stack.enter_async_context(session)
        yield


app = FastAPI(lifespan=lifespan)


def get_session(request: Request) -> ConnectorSession:
    """The session, for endpoints."""
    session: ConnectorSession = request.app.state.session
    return session


class Words(BaseModel):
    consumer: str
    text: str


@app.post("/say")
async def say(words: Words, session: Annotated[ConnectorSession, Depends(get_session)]) -> dict[str, object]:
    """Send a text. The session owns it: it is sent even if this web request is cancelled."""
    outcome = await session.send(Outgoing(words.consumer, words.text))
    if outcome.status is not OutcomeStatus.ACCEPTED:
        raise HTTPException(502, detail=f"{outcome.status.value}: {outcome.error}")
    return {"conversation": outcome.conversation_id, "status": outcome.status.value}


@app.get("/heard")
async def what_was_heard() -> list[str]:
    return heard


@app.get("/health")
async def health(session: Annotated[ConnectorSession, Depends(get_session)]) -> dict[str, object]:
    return session.health().as_dict()


if __name__ == "__main__":
    import uvicorn

    uvicorn.run(app, port=int(os.environ.get("PORT", "8000")))
