"""Names for the kinds of id, so that a type checker keeps them apart.

They are plain text at run time. An id that came in as a number keeps that form in the message that carried it;
`same_id` compares whatever two forms meet.
"""

from __future__ import annotations

from typing import NewType

__all__ = [
    "AccountId",
    "ConversationId",
    "DialogId",
    "ExtConsumerId",
    "RequestId",
    "same_id",
]

AccountId = NewType("AccountId", str)
"""The brand's account (`brandId`), such as `"12345678"`."""

RequestId = NewType("RequestId", str)
"""The `id` of a request and the `reqId` of its answer, 1 to 64 characters."""

ConversationId = NewType("ConversationId", str)
"""A conversation; its MAIN dialog has the same id."""

DialogId = NewType("DialogId", str)
"""A dialog of a conversation."""

ExtConsumerId = NewType("ExtConsumerId", str)
"""The connector's own id of a consumer; often a phone number, so it is masked wherever it is shown."""


def same_id(one: object, other: object) -> bool:
    """Whether two ids are the same when both are written as text.

    An absent id (None) equals nothing, and truth values are no ids.

    Source: Connector API examples: a request with the integer id 3 is answered with `"reqId": "3"`.
    """
    comparable = isinstance(one, int | str) and isinstance(other, int | str)
    return comparable and not isinstance(one, bool) and not isinstance(other, bool) and str(one) == str(other)
