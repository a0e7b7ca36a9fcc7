"""aiohttp as people write it by hand: orjson, one session, no checks, no tokens, no retry."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import orjson

from benchmarks.job import Job
from benchmarks.rivals import Send, payload


@asynccontextmanager
async def connect(job: Job) -> AsyncIterator[Send]:
    """A session whose pool is as wide as the load."""
    connector = aiohttp.TCPConnector(limit=job.in_flight, ssl=payload.client_tls(job) or True, keepalive_timeout=600)
    url = job.base + payload.PATH
    headers = [payload.headers(worker) for worker in range(job.in_flight)]
    conversations = [payload.conversation_id(worker) for worker in range(job.in_flight)]
    async with aiohttp.ClientSession(connector=connector) as client:

        async def send(worker: int) -> object:
            body = payload.body(conversations[worker])
            async with client.post(url, data=body, headers=headers[worker]) as response:
                return orjson.loads(await response.read())

        yield send
