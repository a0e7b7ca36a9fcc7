"""A bot in an afternoon: it speaks as the consumer, hears the agent, and answers.

    python examples/echo_bot.py

With LP_ACCOUNT_ID, LP_CLIENT_ID and LP_CLIENT_SECRET set it talks to the real cloud (give the app installation the
URL that it prints, over https); otherwise to a sandbox that it starts itself, whose agent answers for a while.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack

from connector_async import ConnectorSession, ContentEvent, Incoming, Opening, Router

router = Router()


@router.on(ContentEvent)
async def reply(message: Incoming[ContentEvent]) -> None:
    """Answer the agent, as a shopper who is easily satisfied."""
    print(f"agent:   {message.text}")
    async with message.conversation.typing():
        await asyncio.sleep(0.2)
    words = (
        "Thank you, that is all." if message.sequence and message.sequence > 8 else f"You say: {message.text[:40]}"
    )
    await message.reply(words)
    print(f"shopper: {words}")
    if words.startswith("Thank you"):
        await message.conversation.close()


async def main() -> None:
    async with AsyncExitStack() as stack:
        environ = dict(os.environ)
        cloud = None
        if "LP_ACCOUNT_ID" not in environ:
            from connector_async.sandbox import Sandbox

            cloud = await stack.enter_async_context(Sandbox(agent="echo"))
            environ |= cloud.environ()
        session = await stack.enter_async_context(ConnectorSession.from_env(environ=environ, router=router))
        url = await stack.enter_async_context(session.serve(port=int(environ.get("PORT", "0"))))
        print(f"listening for webhooks at {url}")
        if cloud is not None:
            cloud.deliver_to_url(url)
        conversation = await session.consumer("shopper-1").ensure_conversation(Opening(skill_id="77"))
        await conversation.send_text("Is my order on its way?")
        await conversation.until_closed(timeout=900)
        print("closed")


if __name__ == "__main__":
    asyncio.run(main())
