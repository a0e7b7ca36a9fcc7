"""The cloud in a box: a server that behaves like the Connector API, for tests, demos and measurements.

It needs the extra `sandbox`: `pip install 'connector-async[sandbox]'`.
"""

from __future__ import annotations

from connector_async.sandbox.cloud import Sandbox
from connector_async.sandbox.ledger import Ledger, LedgerEntry

__all__ = ["Ledger", "LedgerEntry", "Sandbox"]
