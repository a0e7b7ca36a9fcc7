"""The session's transport alone: its pool, framing and limits, without messages, tokens, retries."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import orjson

from benchmarks.job import Job
from benchmarks.rivals import Send, payload
from connector_async.transport import PooledTransport
from connector_async.transport.base import Headers, Target


@asynccontextmanager
async def connect(job: Job) -> AsyncIterator[Send]:
    """A pool as wide as the load, headers prepared once."""
    loop = asyncio.get_running_loop()
    target = Target(job.base, payload.PATH)
    headers = [Headers(payload.headers(worker).items()) for worker in range(job.in_flight)]
    conversations = [payload.conversation_id(worker) for worker in range(job.in_flight)]
    async with PooledTransport(max_connections=job.in_flight, ca_file=job.ca_file or None) as transport:

        async def send(worker: int) -> object:
            body = payload.body(conversations[worker])
            answer = await transport.post(target, headers[worker], body, loop.time() + 15)
            return orjson.loads(answer.body)

        yield send
