"""A sandbox in process, and one on a socket, each with a caller."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable
from typing import Any, TypeAlias

import anyio
import pytest

from connector_async.sandbox import Sandbox
from tests.sandbox.caller import Caller, calling

Opener: TypeAlias = Callable[..., contextlib.AbstractAsyncContextManager[Caller]]


@contextlib.asynccontextmanager
async def in_process(**options: Any) -> AsyncGenerator[Caller]:
    """A sandbox in process, with a caller."""
    async with Sandbox(in_process=True, **options) as cloud, calling(cloud) as caller:
        with anyio.fail_after(60):
            yield caller


@contextlib.asynccontextmanager
async def on_socket(**options: Any) -> AsyncGenerator[Caller]:
    """A sandbox on a socket, with a caller."""
    async with Sandbox(**options) as cloud, calling(cloud) as caller:
        with anyio.fail_after(60):
            yield caller


@pytest.fixture(params=["in process", "socket", "tls"])
def cloud_of(request: pytest.FixtureRequest) -> Opener:
    """Opens a sandbox in one of its three forms, with a caller."""

    @contextlib.asynccontextmanager
    async def opened(**options: Any) -> AsyncGenerator[Caller]:
        kind = request.param
        async with Sandbox(in_process=kind == "in process", tls=kind == "tls", **options) as cloud:
            with anyio.fail_after(60):
                async with calling(cloud) as caller:
                    yield caller

    return opened
