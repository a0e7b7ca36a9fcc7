"""One request in, one response out: deadline, queue, tokens, attempts, correlation."""

from connector_async.exchange._authorizing import Authorizer
from connector_async.exchange._books import outcome_of
from connector_async.exchange._call import Call, Endpoint, PendingRequest, Stage, Superseded, session_owned
from connector_async.exchange._response import Response
from connector_async.exchange.engine import Engine, EngineSettings
from connector_async.exchange.stats import Counters

__all__ = [
    "Authorizer",
    "Call",
    "Counters",
    "Endpoint",
    "Engine",
    "EngineSettings",
    "PendingRequest",
    "Response",
    "Stage",
    "Superseded",
    "outcome_of",
    "session_owned",
]
