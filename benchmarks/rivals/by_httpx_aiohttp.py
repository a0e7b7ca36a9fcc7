"""httpx's client over aiohttp's connections: what one line of change buys an httpx user."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from httpx_aiohttp import AiohttpTransport

from benchmarks.job import Job
from benchmarks.rivals import Send, payload
from benchmarks.rivals.by_httpx import sender


@asynccontextmanager
async def connect(job: Job) -> AsyncIterator[Send]:
    """A client whose pool is as wide as the load."""
    limits = httpx.Limits(max_connections=job.in_flight, keepalive_expiry=600)
    transport = AiohttpTransport(limits=limits, verify=payload.client_tls(job) or True)
    async with httpx.AsyncClient(transport=transport, timeout=600) as client:
        yield sender(job, client)
