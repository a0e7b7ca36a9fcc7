"""The subject: a whole session with everything on, one conversation per worker."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from benchmarks.job import Job
from benchmarks.rivals import Send, payload
from connector_async import AppCredentials, ConnectorSession, SessionLimits
from connector_async.store.memory import MemoryStore

ACCOUNT = "12345678"


def open_session(
    job: Job, limits: SessionLimits, store: MemoryStore | None = None
) -> AbstractAsyncContextManager[ConnectorSession]:
    """A session whose every service is the benchmark's server."""
    if job.ca_file:
        # What a company with a CA of its own does; this process exists for one measurement.
        os.environ["SSL_CERT_FILE"] = job.ca_file
    services = ("sentinel", "idp", "asyncMessagingEnt")
    return ConnectorSession(
        ACCOUNT,
        AppCredentials("bench", "bench-secret"),
        domains=dict.fromkeys(services, job.base),
        limits=limits,
        store=store,
    )


@asynccontextmanager
async def connect(job: Job) -> AsyncIterator[Send]:
    """As many messages in flight as there are workers."""
    async with open_session(job, SessionLimits(max_in_flight=job.in_flight)) as session:
        conversations = [
            session.conversation(payload.conversation_id(worker), session.consumer(f"consumer-{worker}"))
            for worker in range(job.in_flight)
        ]
        yield lambda worker: conversations[worker].send_text(payload.TEXT)
