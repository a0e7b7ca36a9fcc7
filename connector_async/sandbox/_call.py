"""One envelope on its way through the model, and the checks that several request types share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import attrs

from connector_async.sandbox._json import Json, is_object
from connector_async.sandbox._replies import Denied, Refused
from connector_async.sandbox._state import Account, Consumer, Conversation

if TYPE_CHECKING:
    from connector_async.sandbox.model import CloudModel

__all__ = ["TTR_SECONDS", "Call", "Handler", "check_owner", "is_count"]

TTR_SECONDS: Final = {"URGENT": 120, "PRIORITIZED": 600, "NORMAL": 3600, "CUSTOM": 3600}


@attrs.frozen(eq=False)
class Call:
    """One envelope on its way through the model.

    Attributes:
        count: The how-manieth arrival of this request id.
        features: What Client-Properties announced with this very request.
    """

    model: CloudModel
    account: Account
    consumer: Consumer
    features: frozenset[str]
    request_id: str
    payload: Json
    count: int
    now: float

    @property
    def body(self) -> Json:
        """The envelope's body."""
        body = self.payload.get("body")
        if not is_object(body):
            raise Refused("Bad Request, body must be an object")
        return body


Handler = Callable[[Call], Json]


def check_owner(call: Call, conversation: Conversation) -> None:
    """Deny a consumer the conversation of another."""
    # Consumer A acting on the conversation of consumer B is a 401, by the seed page. Which errorCode it carries is
    # not documented; ConsumerJWS is what does not fit.
    if conversation.consumer is not call.consumer:
        raise Denied(40103, "The consumer is not part of the conversation")


def is_count(value: object) -> bool:
    """Whether a decoded value is an integer from 0 on."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
