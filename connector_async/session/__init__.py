"""The session: the composition root, and the only place that starts tasks."""

from connector_async.session._accounts import AccountCredentials, Accounts
from connector_async.session._lifecycle import CloseReport
from connector_async.session._messages import Outcome, OutcomeStatus, Outgoing, Submission
from connector_async.session._session import ConnectorSession
from connector_async.session._settings import SessionLimits
from connector_async.session._stats import Health, SessionStats
from connector_async.session._stream import OutcomeStream

__all__ = [
    "AccountCredentials",
    "Accounts",
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
