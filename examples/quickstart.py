import asyncio

from connector_async import ConnectorSession, Opening, RequestError


async def main() -> None:
    # Reads LP_ACCOUNT_ID, LP_CLIENT_ID and LP_CLIENT_SECRET.
    async with ConnectorSession.from_env() as session:
        consumer = session.consumer("customer-42")
        for text in ("Good morning!", "Is my order on its way?"):
            try:
                # Opens a conversation, and another one where the agent has closed it in between.
                result = await consumer.send_text(text, opening=Opening(skill_id="77"))
            except RequestError as error:
                print("not accepted:", error, "- did it arrive?", error.landed.value)
            else:
                print("accepted at attempt", len(result.attempts), "as", result.request_id)
        conversation = await consumer.ensure_conversation()
        await conversation.close()


asyncio.run(main())
