"""SIGTERM and SIGINT: the first lets the pump drain, the second stops it at once."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable

import anyio
from anyio.abc import TaskStatus

from connector_async.pump._pump import Pump

__all__ = ["run_until_signalled"]


async def run_until_signalled(
    pump: Pump, work: Callable[[], Awaitable[object]] | None = None, *, drain: float = 30.0
) -> signal.Signals | None:
    """Do `work`, or let the pump run for ever, until it is done or a signal asks to stop. In the main thread only.

        async with Pump(session, store) as pump:
            received = await run_until_signalled(pump, work)

    The first SIGTERM or SIGINT cancels `work` and stops the pump with `drain` seconds for what is under way; a second
    one stops it at once. Nothing is lost either way: what was not sent is in the outbox, what may have been says so.

    Returns:
        The first signal, after which the pump has stopped; None if `work` was done.
    """
    received: list[signal.Signals] = []
    failure: Exception | None = None
    async with anyio.create_task_group() as task_group:
        scope = anyio.CancelScope()
        await task_group.start(_listen, pump, received, scope)
        try:
            with scope:
                await (work() if work is not None else anyio.sleep_forever())
            if received:
                await pump.stop(drain)
        except Exception as error:  # noqa: BLE001 - raised again below, outside the task group
            failure = error
        task_group.cancel_scope.cancel()
    if failure is not None:
        raise failure
    return received[0] if received else None


async def _listen(
    pump: Pump, received: list[signal.Signals], scope: anyio.CancelScope, *, task_status: TaskStatus[None]
) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started()
        async for number in signals:
            received.append(number)
            if len(received) == 1:
                scope.cancel()
            else:
                await pump.stop(0.0)
