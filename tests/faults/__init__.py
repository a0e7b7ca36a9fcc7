"""A server that misbehaves on demand, byte by byte: for tests of anything that speaks HTTP/1.1.

    async with FaultServer(catalogue.rst_after_request) as server:
        ...  # server.port, server.connections, server.requests

A behaviour is a coroutine function that gets one `Peer` per connection; `catalogue` has one per row of the wire-fault
catalogue and some generic makers.
"""

from tests.faults.catalogue import BEHAVIOURS, answer, dripping, endless_chunks, well_behaved
from tests.faults.server import Behaviour, FaultServer, Peer, black_hole, refused_port

__all__ = [
    "BEHAVIOURS",
    "Behaviour",
    "FaultServer",
    "Peer",
    "answer",
    "black_hole",
    "dripping",
    "endless_chunks",
    "refused_port",
    "well_behaved",
]
