"""The message pump: messages that must not be lost, from an outbox to the cloud, each accounted for.

from connector_async.pump import Pump, PumpMessage

async with ConnectorSession.from_env(store=store) as session, Pump(session, store) as pump:
    await pump.put(PumpMessage("order-1", "customer-42", "Is my order on its way?"))
    await pump.drained()
"""

from connector_async.pump._messages import PumpMessage
from connector_async.pump._policy import PumpPolicy
from connector_async.pump._pump import Pump
from connector_async.pump._report import PumpReport, PumpStats
from connector_async.pump._signals import run_until_signalled
from connector_async.pump.watermarks import Mark, Watermarks

__all__ = [
    "Mark",
    "Pump",
    "PumpMessage",
    "PumpPolicy",
    "PumpReport",
    "PumpStats",
    "Watermarks",
    "run_until_signalled",
]
