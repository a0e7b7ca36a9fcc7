"""Whom an authorization error blames. The codes are stable, their titles are not.

Source: Connector API, "Authorization and authentication" (error codes).
"""

from __future__ import annotations

__all__ = ["APP_TOKEN_CODES", "CONSUMER_TOKEN_CODES"]

APP_TOKEN_CODES = frozenset({40102, 40105})
"""The AppJWT: expired or invalid; missing."""

CONSUMER_TOKEN_CODES = frozenset({40103, 40104})
"""The ConsumerJWS: invalid; missing."""
