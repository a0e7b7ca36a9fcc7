"""One HTTP exchange: the seam, the pooled default, the adapter for httpx."""

from connector_async.transport._choose import as_transport, check_transport
from connector_async.transport._httpx import HttpxTransport
from connector_async.transport.base import Answer, Headers, Target, Transport, header_pairs
from connector_async.transport.pooled import HostStatistics, PooledTransport, PoolStatistics

__all__ = [
    "Answer",
    "Headers",
    "HostStatistics",
    "HttpxTransport",
    "PoolStatistics",
    "PooledTransport",
    "Target",
    "Transport",
    "as_transport",
    "check_transport",
    "header_pairs",
]
