import asyncio

from connector_async import ConnectorSession, ConversationClosed, RequestError


async def main() -> None:
    # Reads LP_ACCOUNT_ID, LP_CLIENT_ID and LP_CLIENT_SECRET.
    async with ConnectorSession.from_env() as session:
        conversation = await session.consumer("customer-42").open_conversation(skill_id="77")
        for text in ("Good morning!", "Is my order on its way?"):
            try:
                result = await conversation.send_text(text)
            except ConversationClosed:
                conversation = await session.consumer("customer-42").open_conversation(skill_id="77")
            except RequestError as error:
                print("not accepted:", error, "- did it arrive?", error.landed.value)
            else:
                print("accepted at attempt", len(result.attempts), "as", result.request_id)
        await conversation.close()


asyncio.run(main())
