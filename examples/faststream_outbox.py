"""From a message broker into the outbox: the broker hears "acknowledged" when the message is on disk here.

    pip install 'faststream[nats]'
    python examples/faststream_outbox.py

With NATS_URL set (a nats-server with --jetstream) it takes what is published to `shop.messages` until it is stopped;
otherwise FastStream plays the broker in memory and a few messages are published. The outbox is the file OUTBOX, and
the account is LP_ACCOUNT_ID; without, both are made for the occasion, the account in a sandbox. With Kafka, RabbitMQ
or Redis the broker's class and the subscriber's options change, the handler does not.
"""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from faststream import AckPolicy, Context, ContextRepo, FastStream
from faststream.exceptions import NackMessage
from faststream.nats import JStream, NatsBroker, PullSub, TestNatsBroker
from nats.js.api import ConsumerConfig
from pydantic import BaseModel

from connector_async import ConnectorSession
from connector_async.errors import StoreUnavailable
from connector_async.pump import Pump, PumpMessage
from connector_async.sandbox import Sandbox
from connector_async.store import SqliteStore
from connector_async.store.outbox import PutResult

AGAIN_IN = 1.0  # seconds until the broker delivers again what could not be put

broker = NatsBroker(os.environ.get("NATS_URL", "nats://127.0.0.1:4222"), log_level=logging.DEBUG)
shop = JStream(name="shop", subjects=["shop.*"])


class ForTheCloud(BaseModel):
    """What a producer publishes. The id is the producer's: by it a message that comes again is known."""

    id: str
    consumer: str
    text: str


@broker.subscriber(
    "shop.messages",
    stream=shop,
    durable="connector",
    # One at a time: so a message that comes again is not overtaken by the next one of its consumer.
    pull_sub=PullSub(batch_size=1),
    config=ConsumerConfig(ack_wait=float(os.environ.get("ACK_WAIT", "30")), max_ack_pending=1),
    ack_policy=AckPolicy.NACK_ON_ERROR,
)
async def take_in(body: Any, pump: Annotated[Pump, Context()]) -> None:
    """Acknowledged by returning, and not before `put` has returned."""
    try:
        read = ForTheCloud.model_validate(body)
        message = PumpMessage(read.id, read.consumer, read.text)
    except ValueError:  # pydantic's ValidationError is one
        # It would come for ever: kept where a person can look at it, before it is acknowledged.
        await broker.publish(body, "shop.unreadable", stream=shop.name)
        return
    try:
        [result] = await pump.put(message)
    except StoreUnavailable as error:
        raise NackMessage(delay=AGAIN_IN) from error
    if result is PutResult.FULL:
        raise NackMessage(delay=AGAIN_IN)
    # KNOWN is as good as ADDED: the broker did not hear our last acknowledgement and has delivered it again.


@asynccontextmanager
async def lifespan(context: ContextRepo) -> AsyncIterator[None]:
    """Everything that the handler needs; the broker is started after and stopped before it."""
    async with AsyncExitStack() as stack:
        environ = dict(os.environ)
        if "LP_ACCOUNT_ID" not in environ:
            environ |= (await stack.enter_async_context(Sandbox())).environ()
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        store = SqliteStore(Path(environ.get("OUTBOX", f"{folder}/outbox.db")))
        stack.push_async_callback(store.aclose)
        session = await stack.enter_async_context(ConnectorSession.from_env(environ=environ, store=store))
        # The lease is how long what a killed process was sending waits for the next one.
        async with Pump(session, store, lease=float(environ.get("LEASE", "90"))) as pump:
            context.set_global("pump", pump)
            yield
        # What was under way when the app was told to stop has had its time by now.
        print(f"accepted {(await pump.report()).counts.accepted}")


app = FastStream(broker, lifespan=lifespan)


async def try_it() -> None:
    """A few messages, one of which the broker delivers twice, and one that nobody can read."""
    async with lifespan(app.context), TestNatsBroker(broker):
        for number in (0, 1, 2, 3, 3):
            order = ForTheCloud(id=f"order-{number}", consumer="shopper", text=f"Where is order {number}?")
            await broker.publish(order, "shop.messages", stream=shop.name)
        await broker.publish({"id": "order-4"}, "shop.messages", stream=shop.name)
        pump: Pump = app.context.get("pump")
        await pump.drained()


if __name__ == "__main__":
    asyncio.run(app.run() if "NATS_URL" in os.environ else try_it())
