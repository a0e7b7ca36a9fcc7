"""The session: the composition root, and the only place that starts tasks."""

from connector_async.session._outbound import Outcome, OutcomeStatus, OutcomeStream, Outgoing, Submission
from connector_async.session._session import CloseReport, ConnectorSession
from connector_async.session._settings import SessionLimits
from connector_async.session._stats import Health, SessionStats

__all__ = [
    "CloseReport",
    "ConnectorSession",
    "Health",
    "Outcome",
    "OutcomeStatus",
    "OutcomeStream",
    "Outgoing",
    "SessionLimits",
    "SessionStats",
    "Submission",
]
