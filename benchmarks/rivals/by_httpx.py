"""httpx as people write it by hand, with a pool as wide as the load."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import orjson

from benchmarks.job import Job
from benchmarks.rivals import Send, payload


@asynccontextmanager
async def connect(job: Job) -> AsyncIterator[Send]:
    """A client whose pool is as wide as the load."""
    limits = httpx.Limits(
        max_connections=job.in_flight, max_keepalive_connections=job.in_flight, keepalive_expiry=600
    )
    # Waiting in its pool is part of what it costs: no timeout may end it.
    async with httpx.AsyncClient(limits=limits, timeout=600, verify=payload.client_tls(job) or True) as client:
        yield sender(job, client)


def sender(job: Job, client: httpx.AsyncClient) -> Send:
    """What posts one message through any httpx client."""
    url = job.base + payload.PATH
    headers = [payload.headers(worker) for worker in range(job.in_flight)]
    conversations = [payload.conversation_id(worker) for worker in range(job.in_flight)]

    async def send(worker: int) -> object:
        response = await client.post(url, content=payload.body(conversations[worker]), headers=headers[worker])
        return orjson.loads(response.content)

    return send
