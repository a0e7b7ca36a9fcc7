"""What the handles of consumers and conversations share: bodies in, responses out, and what is remembered of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar, cast

import httpx

from connector_async._arguments import check_kind, offers, timeout_of
from connector_async._concurrency import Clock, SingleFlight
from connector_async._receipts import ReceiptBook
from connector_async.auth import ConsumerTokens
from connector_async.errors import BatchRefused, RemoteProtocolError, RequestError
from connector_async.exchange._call import Call
from connector_async.exchange._response import Response
from connector_async.exchange.engine import Engine
from connector_async.protocol.correlation import RequestIds
from connector_async.protocol.lanes import Priority
from connector_async.protocol.retry import RetryPolicy
from connector_async.store.base import ContactStore, ConversationRecord, Store
from connector_async.transport.base import Headers
from connector_async.wire import (
    AcceptStatusEvent,
    ChatStateEvent,
    ClientProperties,
    ContentEvent,
    GenerateURLForDownloadFile,
    GenerateURLForUploadFile,
    MetadataItem,
    PublishEvent,
    RawBody,
    Request,
    RequestBody,
    UpdateConversationField,
)
from connector_async.wire._reading import is_object
from connector_async.wire.codec import load, request_of

__all__ = ["ClientPropertiesHeader", "Desk"]

R = TypeVar("R")
Metadata = Iterable[MetadataItem | Mapping[str, object]]


class ClientPropertiesHeader:
    """The `Client-Properties` of a conversation: as the user gave them, and as the header made once.

    They must be on every CONVERSATION and SEND request of the conversation (Connector API examples,
    "Client-Properties").
    """

    __slots__ = ("headers", "text", "value")

    def __init__(self, value: ClientProperties | str) -> None:
        check_kind("client_properties", value, (str, ClientProperties), "ClientProperties or the header's text")
        self.value = value
        self.text = value if isinstance(value, str) else value.to_header()
        self.headers = Headers([("Client-Properties", self.text)])
        if isinstance(value, str) and not _is_json_object(value):
            raise ValueError("client_properties is no JSON object: the cloud would refuse every request with it")

    @classmethod
    def of(cls, value: ClientProperties | ClientPropertiesHeader | str | None) -> ClientPropertiesHeader | None:
        """From what users pass; None stays None."""
        return value if value is None or isinstance(value, cls) else cls(cast("ClientProperties | str", value))


class Desk:
    """Turns bodies into calls of the engine: ids, lanes, policies.

    Args:
        retry: The session's policy.
        client_properties: Sent with every conversation that has none of its own.
    """

    def __init__(
        self,
        account_id: str,
        *,
        engine: Engine,
        store: Store,
        consumers: ConsumerTokens,
        clock: Clock,
        flights: SingleFlight,
        ids: RequestIds,
        retry: RetryPolicy,
        client_properties: ClientPropertiesHeader | None,
        client: httpx.AsyncClient,
        resolve: Callable[[str], Any],
        receipts: ReceiptBook,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.account_id = account_id
        self.engine = engine
        self.store = store
        self.clock = clock
        self.flights = flights
        self.client_properties = client_properties
        self.client = client
        self.resolve = resolve
        self.wall = wall
        self.receipts = receipts
        self.hears = False
        """Whether webhooks are connected, so that the cloud's word can be waited for."""
        self._consumers = consumers
        self._contacts = cast("ContactStore", store) if offers(store, ContactStore) else None
        self._ids = ids
        self._retry = retry

    def next_id(self) -> str:
        """A fresh request id."""
        return self._ids.next(self.wall())

    async def open_conversation_of(self, ext_consumer_id: str) -> ConversationRecord | None:
        """The newest open one that the store knows. Where the token is not in memory either, one look-up has both."""
        if self._contacts is None or self._consumers.known(ext_consumer_id) is not None:
            return await self.store.get_open_conversation(self.account_id, ext_consumer_id)
        consumer, conversation = await self._contacts.get_contact(self.account_id, ext_consumer_id)
        if consumer is not None:
            self._consumers.learn(consumer)
        return conversation

    def deadline(self, timeout: float | None) -> float:
        """When a flow of several requests that starts now must be done."""
        return self.clock.time() + (self.engine.settings.timeout if timeout is None else timeout_of(timeout))

    async def request(
        self,
        body: RequestBody[R],
        *,
        consumer_id: str,
        properties: ClientPropertiesHeader | None,
        metadata: Metadata | None = None,
        encoded_metadata: str | None = None,
        request_id: str | None = None,
        retry: RetryPolicy | None = None,
        timeout: float | None = None,
    ) -> Response[R]:
        """Send one body to SEND.

        Raises:
            RequestError, LocalProtocolError, Superseded: As `Engine.run`.
        """
        call = self.call(
            body,
            consumer_id=consumer_id,
            properties=properties,
            metadata=metadata,
            encoded_metadata=encoded_metadata,
            request_id=request_id,
            retry=retry,
        )
        results = await self.engine.run(call, timeout)
        return cast("Response[R]", results[0])

    def call(
        self,
        body: RequestBody[Any],
        *,
        consumer_id: str,
        properties: ClientPropertiesHeader | None,
        metadata: Metadata | None = None,
        encoded_metadata: str | None = None,
        request_id: str | None = None,
        retry: RetryPolicy | None = None,
        prior_attempts: int = 0,
    ) -> Call:
        """One body for SEND, ready for `Engine.run`.

        Raises:
            ValueError: `prior_attempts` is negative, or more than anybody sends.
            LocalProtocolError: It does not fit the API.
        """
        if request_id is None and metadata is None and encoded_metadata is None:
            request: Request[RequestBody[Any]] = request_of(self.next_id(), body)
        else:
            request = Request(
                id=request_id or self.next_id(), body=body, metadata=metadata, encoded_metadata=encoded_metadata
            )
        lane, priority, repeatable = manners_of(body, consumer_id, request.id)
        return Call(
            (request,),
            batch=False,
            consumer_id=consumer_id,
            lane=lane,
            priority=priority,
            policy=self._retry if retry is None else _policy(retry),
            repeatable=repeatable,
            properties=None if properties is None else properties.headers,
            prior_attempts=prior_attempts,
        )

    async def batch(
        self,
        bodies: Sequence[RequestBody[Any]],
        *,
        consumer_id: str,
        properties: ClientPropertiesHeader | None,
        retry: RetryPolicy | None = None,
        timeout: float | None = None,
    ) -> list[Response[Any] | RequestError]:
        """Send several bodies to CONVERSATION, in this order; the answers come in it too.

        Raises:
            ValueError: There is nothing to send.
            RequestError, LocalProtocolError: The batch as a whole failed.
        """
        if not bodies:
            raise ValueError("a batch has at least one request")
        requests = tuple(Request(id=self.next_id(), body=body) for body in bodies)
        repeatable = all(manners_of(body, consumer_id, "").repeatable for body in bodies)
        call = Call(
            requests,
            batch=True,
            consumer_id=consumer_id,
            lane=("consumer", consumer_id),
            priority=Priority.CONTENT,
            policy=self._retry if retry is None else _policy(retry),
            repeatable=repeatable,
            properties=None if properties is None else properties.headers,
        )
        return await self.engine.run(call, timeout)


def refuse_failed(results: list[Response[Any] | RequestError]) -> list[Response[Any]]:
    """The responses, if all are good.

    Raises:
        BatchRefused: At least one is an error; `items` has them all, in order.
    """
    failed = [result for result in results if isinstance(result, RequestError)]
    if failed:
        first = failed[0]
        raise BatchRefused(
            f"{len(failed)} of the {len(results)} requests of a batch were refused",
            items=results,
            request_id=first.request_id,
            type=first.type,
            code=first.code,
            status=first.status,
            attempts=first.attempts,
            landed=first.landed,
            hint="`items` has the response or the error of each, in the order given",
        ) from first
    return cast("list[Response[Any]]", results)


def _is_json_object(text: str) -> bool:
    try:
        return is_object(load("header", text.encode()))
    except RemoteProtocolError:
        return False


def _policy(given: RetryPolicy) -> RetryPolicy:
    # Looked at now: otherwise it would be found wrong only when a request has failed.
    check_kind("retry", given, RetryPolicy, "a RetryPolicy, such as `RetryPolicy.vendor()`")
    return given


_CONTENT = Priority.CONTENT  # looked up once; see `protocol.lanes`


class Manners(NamedTuple):
    """How a request is treated: what it must not overtake, what goes before it, whether repeating it is harmless."""

    lane: Hashable
    priority: Priority
    repeatable: bool


def manners_of(body: RequestBody[Any], consumer_id: str, request_id: object) -> Manners:
    """Texts and field changes of one dialog share a lane, so that a close never overtakes a text.

    Creating a conversation counts as harmless: the cloud refuses a second one. Of raw bodies
    nothing is known, so they are treated like content.
    """
    if isinstance(body, PublishEvent):
        return _of_event(body)
    if isinstance(body, RawBody):
        return Manners(_raw_lane(body, consumer_id), Priority.CONTENT, repeatable=False)
    if isinstance(body, UpdateConversationField):
        lane: Hashable = body.conversation_id
    elif isinstance(body, (GenerateURLForUploadFile, GenerateURLForDownloadFile)):
        lane = ("file", request_id)
    else:
        lane = ("consumer", consumer_id)
    return Manners(lane, Priority.CONTENT, repeatable=True)


def _of_event(body: PublishEvent) -> Manners:
    if body.event.__class__ is ContentEvent:  # nearly always
        return Manners(body.dialog_id, _CONTENT, False)  # noqa: FBT003 - a keyword costs here
    if isinstance(body.event, AcceptStatusEvent):
        return Manners(("receipt", body.dialog_id), Priority.RECEIPT, repeatable=True)
    if isinstance(body.event, ChatStateEvent):
        return Manners(("typing", body.dialog_id), Priority.TYPING, repeatable=True)
    return Manners(body.dialog_id, _CONTENT, False)  # noqa: FBT003 - a keyword costs here


def _raw_lane(body: RawBody, consumer_id: str) -> Hashable:
    inner: object = body.body
    if isinstance(inner, Mapping):
        inner = cast("Mapping[str, object]", inner)
        dialog_id = inner.get("dialogId", inner.get("conversationId"))
        if isinstance(dialog_id, str):
            return dialog_id
    return ("consumer", consumer_id)
