"""The cloud in a box: a server that behaves like the Connector API, for tests, demos and measurements.

It needs the extra `sandbox`: `pip install 'connector-async[sandbox]'`.
"""

from __future__ import annotations

from connector_async.sandbox._fault_actions import (
    Action,
    BadSignature,
    Double,
    Drip,
    Drop,
    Latency,
    Malformed,
    Reorder,
    ReqId,
    Reset,
    Revoke,
    Silence,
    Status,
    Unauthorized,
)
from connector_async.sandbox.cloud import Sandbox
from connector_async.sandbox.faults import PRESETS, FaultPlan, FaultRule, load_faults
from connector_async.sandbox.ledger import Ledger, LedgerEntry

__all__ = [
    "PRESETS",
    "Action",
    "BadSignature",
    "Double",
    "Drip",
    "Drop",
    "FaultPlan",
    "FaultRule",
    "Latency",
    "Ledger",
    "LedgerEntry",
    "Malformed",
    "Reorder",
    "ReqId",
    "Reset",
    "Revoke",
    "Sandbox",
    "Silence",
    "Status",
    "Unauthorized",
    "load_faults",
]
