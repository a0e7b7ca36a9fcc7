"""pyreqwest (Rust's reqwest), written by hand; its thread runs on the same core and counts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
from pyreqwest.client import ClientBuilder

from benchmarks.job import Job
from benchmarks.rivals import Send, payload


@asynccontextmanager
async def connect(job: Job) -> AsyncIterator[Send]:
    """A client whose pool is as wide as the load."""
    builder = ClientBuilder().pool_max_idle_per_host(job.in_flight).max_connections(job.in_flight)
    if job.ca_file:
        builder = builder.add_root_certificate_pem(_certificate(job))
    url = job.base + payload.PATH
    headers = [payload.headers(worker) for worker in range(job.in_flight)]
    conversations = [payload.conversation_id(worker) for worker in range(job.in_flight)]
    async with builder.build() as client:

        async def send(worker: int) -> object:
            body = payload.body(conversations[worker])
            request = client.post(url).headers(headers[worker]).body_bytes(body).build()
            response = await request.send()
            return orjson.loads(memoryview(await response.bytes()))

        yield send


def _certificate(job: Job) -> bytes:
    return Path(job.ca_file).read_bytes()
