"""What a caller gets back for one request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, TypeVar

from connector_async.protocol.retry import Attempt
from connector_async.transport.base import Answer

__all__ = ["Response"]

R_co = TypeVar("R_co", covariant=True)


class Response(Generic[R_co]):
    """The cloud's OK to one request.

    Attributes:
        body: The typed body.
        request_id: The id the request went by.
        code: The envelope's `code`, as it came: `"OK"` or a number.
        attempts: One `Attempt` for each time it was sent, oldest first.
        maybe_duplicate: An earlier attempt may have landed too.
    """

    __slots__ = ("_answer", "attempts", "body", "code", "maybe_duplicate", "request_id")

    def __init__(
        self,
        body: R_co,
        *,
        request_id: str,
        code: int | str | None,
        attempts: tuple[Attempt, ...],
        maybe_duplicate: bool,
        answer: Answer,
    ) -> None:
        self.body = body
        self.request_id = request_id
        self.code = code
        self.attempts = attempts
        self.maybe_duplicate = maybe_duplicate
        self._answer = answer

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self._answer.status

    @property
    def headers(self) -> Mapping[str, str]:
        """The HTTP headers of the answer; names in lower case, the last of several wins."""
        return {name.decode("latin-1"): value.decode("latin-1") for name, value in self._answer.headers}

    @property
    def raw(self) -> bytes:
        """The HTTP body as it came; for a request of a batch, that of the whole batch."""
        return self._answer.body

    def __repr__(self) -> str:
        return f"Response(request_id={self.request_id!r}, status={self.status}, attempts={len(self.attempts)})"
