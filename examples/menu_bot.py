"""Structured content from the other side: quick replies chosen, and the survey after the close answered.

    python examples/menu_bot.py

Runs against a sandbox of its own, whose agent shows a menu.
"""

from __future__ import annotations

import asyncio

from connector_async import (
    ClientProperties,
    ContentEvent,
    Feature,
    Incoming,
    Opening,
    RichContentEvent,
    Router,
)
from connector_async.sandbox import Sandbox
from connector_async.wire import Element

router = Router()


@router.on(ContentEvent, RichContentEvent)
async def answer(message: Incoming[ContentEvent | RichContentEvent]) -> None:
    """Choose the first thing offered; say so in words where nothing is."""
    print(f"{message.role}: {message.text or '(a card)'}")
    offered = list(offers(message.event))
    if offered:
        print(f"shopper chooses {getattr(offered[0], 'title', None) or offered[0].tooltip}")
        await message.conversation.choose(offered[0], of=message)


def offers(event: ContentEvent | RichContentEvent) -> list[Element]:
    """The elements that a consumer can use."""
    elements = list(event.quick_replies.replies) if event.quick_replies else []
    if isinstance(event, RichContentEvent):
        elements += event.content.walk()
    return [element for element in elements if element.click is not None]


async def main() -> None:
    features = [Feature.RICH_CONTENT, Feature.QUICK_REPLIES, Feature.MULTI_DIALOG]
    opening = Opening(skill_id="77", client_properties=ClientProperties(features=features))
    async with (
        Sandbox(agent="menu", survey=True) as cloud,
        cloud.session(router=router) as session,
        session.serve(port=0) as url,
    ):
        cloud.deliver_to_url(url)
        conversation = await session.consumer("shopper-1").ensure_conversation(opening)
        await conversation.send_text("I would like to return something.")
        # The agent says good bye, which closes the MAIN dialog; the survey that follows is a dialog of its own.
        await conversation.until_closed(timeout=30)
        print("closed, survey and all")


if __name__ == "__main__":
    asyncio.run(main())
