"""Who the connector is (AppJWT) and for whom it acts (ConsumerJWS)."""

from connector_async.auth.app_token import AppCredentials, AppTokenSource, CredentialsSource
from connector_async.auth.consumer_token import ConsumerTokens
from connector_async.auth.keeper import AppToken, TokenKeeper, TokenSettings

__all__ = [
    "AppCredentials",
    "AppToken",
    "AppTokenSource",
    "ConsumerTokens",
    "CredentialsSource",
    "TokenKeeper",
    "TokenSettings",
]
