"""The session as its users see it: handles, sending, webhooks."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal, overload

from typing_extensions import TypeVar

from connector_async._arguments import check_kind, kind_of, timeout_of
from connector_async._concurrency import ELSEWHERE
from connector_async.consumer import Consumer
from connector_async.conversation import Conversation
from connector_async.errors import RequestError
from connector_async.exchange import Response
from connector_async.exchange.desk import ClientPropertiesHeader, Metadata, refuse_failed
from connector_async.protocol.retry import RetryPolicy
from connector_async.session._lifecycle import Lifecycle
from connector_async.session._messages import Outcome, Outgoing, Submission
from connector_async.session._serving import serve_app
from connector_async.session._stream import OutcomeStream
from connector_async.webhooks import Ack
from connector_async.wire import ClientProperties, RequestBody

if TYPE_CHECKING:
    from connector_async.session._parts import Parts
    from connector_async.webhooks import Dispatched, WebhookApp
    from connector_async.wire import Notification

__all__ = ["ConnectorSession"]

R = TypeVar("R")
K = TypeVar("K", default=None)


class ConnectorSession(Lifecycle):
    """A connector of one account: many consumers, many requests in flight, one token for all.

        async with ConnectorSession("12345678", AppCredentials("client-id", "client-secret")) as session:
            conversation = await session.consumer("customer-42").open_conversation(skill_id="77")
            await conversation.send_text("Is my order on its way?")

    Building one needs no event loop, and neither building nor entering does I/O: hosts and tokens are fetched at
    first use. It is entered once, in one event loop. Leaving the block without an error drains: requests under way
    have `drain` seconds to end. Leaving it with one ends them at once. Either way every waiter gets its outcome, and
    an error raised in the block leaves as itself.

    Args:
        account_id: The account (brand) id.
        credentials: The app installation's, or an async callable that is asked at each renewal (a vault).
        domains: None looks hosts up through the vendor's Domain API. A mapping of service name (`sentinel`, `idp`,
            `asyncMessagingEnt`, `swift`) to base URL or bare host overrides it; a text is the base URL of another
            Domain API. Plain http is allowed to loopback only.
        transport: A `Transport`, an `httpx.AsyncBaseTransport` or an `httpx.AsyncClient`, which stay yours to close.
            None: our pooled one; httpx's where a proxy is given or set in the environment, and on trio.
        proxy: URL of a proxy for everything.
        ssl_context: Instead of the default trust; for a private CA or a client certificate.
        retry: When a failed send is repeated; per call too.
        limits: How much at once.
        timeout: Seconds for one request: queue, tokens, attempts (15 each at most) and pauses included. None: none.
        client_properties: Features of the consumer's side, for conversations that are given none of their own.
        router: Handlers for what webhooks bring.
        store: Who belongs to which conversation. In memory if None; what you pass you close.
        hooks: Callables that get the events of `connector_async.hooks`.
        drain: Seconds that a clean exit waits for requests under way.
        tokens: When tokens are renewed.

    Attributes:
        router: Its handlers; `on` is `router.on`.

    Raises:
        ConfigurationError: A setting cannot work; the message names it.
    """

    # Handles

    def consumer(self, ext_consumer_id: str) -> Consumer:
        """A handle to a consumer; no I/O. The ConsumerJWS is fetched at first use, once, however many tasks ask.

        Args:
            ext_consumer_id: The channel's id: unique, unguessable, never recycled.

        Raises:
            ValueError: It is empty or no text.
            RuntimeError: The session is not entered yet.
        """
        return self._handles.consumer(ext_consumer_id)

    def conversation(
        self,
        conversation_id: str,
        consumer: Consumer | str,
        *,
        client_properties: ClientProperties | str | None = None,
    ) -> Conversation:
        """A handle to a conversation that exists; no I/O.

        Args:
            consumer: Whose it is; the cloud refuses anybody else.
            client_properties: What it was opened with; the session's default if None.

        Raises:
            ValueError: The id is no text of 1 to 64 characters.
        """
        owner = consumer if isinstance(consumer, Consumer) else self.consumer(_id_of(consumer))
        properties = ClientPropertiesHeader.of(client_properties)
        return self._handles.conversation(conversation_id, owner, properties=properties)

    async def find_conversation(self, conversation_id: str) -> Conversation | None:
        """A handle to a conversation that the store knows, or None."""
        self._here()
        return await self._handles.find(conversation_id)

    # Sending

    async def request(
        self,
        body: RequestBody[R],
        *,
        consumer: Consumer | str,
        metadata: Metadata | None = None,
        encoded_metadata: str | None = None,
        client_properties: ClientProperties | str | None = None,
        request_id: str | None = None,
        retry: RetryPolicy | None = None,
        timeout: float | None = None,
    ) -> Response[R]:
        """Send any request body to SEND and wait for the answer that names its id.

        Cancelling is safe: the connection is closed and a late answer reaches nobody.

        Args:
            body: Any class of `connector_async.wire`; `RawBody(type, body)` for what has none.
            consumer: For whom.
            timeout: Seconds for everything; the session's default when None.

        Raises:
            RequestError: It failed; see `errors` for the kinds.
            LocalProtocolError: It does not fit the API; nothing was sent.

        Source: Connector API, "Send".
        """
        return await self._here().desk.request(
            body,
            consumer_id=_id_of(consumer),
            properties=self._properties(client_properties),
            metadata=metadata,
            encoded_metadata=encoded_metadata,
            request_id=request_id,
            retry=retry,
            timeout=timeout,
        )

    @overload
    async def batch(
        self,
        bodies: Sequence[RequestBody[Any]],
        *,
        consumer: Consumer | str,
        return_errors: Literal[False] = False,
        client_properties: ClientProperties | str | None = None,
        retry: RetryPolicy | None = None,
        timeout: float | None = None,
    ) -> list[Response[Any]]: ...
    @overload
    async def batch(
        self,
        bodies: Sequence[RequestBody[Any]],
        *,
        consumer: Consumer | str,
        return_errors: Literal[True],
        client_properties: ClientProperties | str | None = None,
        retry: RetryPolicy | None = None,
        timeout: float | None = None,
    ) -> list[Response[Any] | RequestError]: ...
    async def batch(
        self,
        bodies: Sequence[RequestBody[Any]],
        *,
        consumer: Consumer | str,
        return_errors: bool = False,
        client_properties: ClientProperties | str | None = None,
        retry: RetryPolicy | None = None,
        timeout: float | None = None,
    ) -> list[Response[Any]] | list[Response[Any] | RequestError]:
        """Send several bodies at once to CONVERSATION; the answers come in the order given, matched by id.

        Args:
            return_errors: Return the error of a refused item in its place, instead of raising.

        Raises:
            BatchRefused: At least one item failed; `items` has the response or error of each.
            RequestError: The batch as a whole failed.

        Source: Connector API, "Create conversation" (array of requests).
        """
        results = await self._here().desk.batch(
            bodies,
            consumer_id=_id_of(consumer),
            properties=self._properties(client_properties),
            retry=retry,
            timeout=timeout,
        )
        return results if return_errors else refuse_failed(results)

    async def send(self, message: Outgoing[K]) -> Outcome[K]:
        """Send a message that the session owns: it is sent even if this caller is cancelled.

        Raises:
            QueueFull: Too many messages wait already.
            SessionClosed: The session is closed.
        """
        return await (await self.submit(message)).outcome()

    async def submit(self, message: Outgoing[K]) -> Submission[K]:
        """Hand a message to the session and return as soon as it is admitted; errors as `send`."""
        return self._here().outbound.submit(message)

    def send_many(
        self,
        messages: Iterable[Outgoing[K]] | AsyncIterable[Outgoing[K]],
        *,
        concurrency: int | None = None,
        per_consumer: int = 100,
        ordered: bool = False,
        lane_timeout: float | None = None,
    ) -> OutcomeStream[K]:
        """Send many messages: in order for each consumer, in parallel across consumers, in bounded memory.

            async with session.send_many(source(), concurrency=20_000) as outcomes:
                async for outcome in outcomes:
                    ...

        Args:
            messages: Read only as fast as outcomes are taken.
            concurrency: Most messages between being read and having their outcome taken; four times `max_in_flight`
                if None.
            per_consumer: Most of them for one consumer; the reader waits when the next message is one too many.
            ordered: Yield outcomes in the order of the messages.
            lane_timeout: Seconds that a message may wait for those before it of its consumer; None for no limit.

        Raises:
            ValueError: A number is below 1, or no number.
            SessionClosed: The session is closed (when the stream is entered).
        """
        parts = self._here()
        if concurrency is None:
            concurrency = 4 * self._settings.limits.max_in_flight
        _check_at_least_one("concurrency", concurrency)
        _check_at_least_one("per_consumer", per_consumer)
        return OutcomeStream(
            parts.outbound,
            messages,
            clock=parts.clock,
            task_group=parts.task_group,
            concurrency=concurrency,
            per_consumer=per_consumer,
            ordered=ordered,
            lane_timeout=None if lane_timeout is None else timeout_of(lane_timeout),
        )

    def _here(self) -> Parts:
        parts = self._entered()
        if not parts.clock.is_here():
            # What is put into a queue from elsewhere may lie there for ever: nothing wakes the loop that reads it.
            raise RuntimeError(ELSEWHERE)
        return parts

    def _properties(self, given: ClientProperties | str | None) -> ClientPropertiesHeader | None:
        return ClientPropertiesHeader.of(given) or self._settings.client_properties

    # Webhooks

    def webhook_app(self, *, ack: Ack | None = None, **options: Any) -> WebhookApp:
        """The ASGI app for the endpoint of the app installation; may be made before the session is entered.

            app.add_route("/webhooks", session.webhook_app().endpoint, methods=["POST"])

        Args:
            ack: When to answer 200: `queued`, `stored` or `handled`; None: `stored` with a durable store, else
                `queued`.
            options: As for `WebhookApp`.
        """
        from connector_async.webhooks import WebhookApp

        self._hears = True
        if self._parts is not None:
            self._connect_webhooks()
        return WebhookApp(self._dispatcher_of, ack=ack, **options)

    async def dispatch(self, notification: Notification[Any]) -> Dispatched:
        """Run the handlers for a notification and return when they are done: for queues of your own, and for tests.

        What handlers raise is in the result, not raised.
        """
        from connector_async.wire import Notification

        self._here()
        check_kind("notification", notification, Notification, "what `wire.parse_notification(...)` returns")
        if not self._hears:
            self._hears = True
            self._connect_webhooks()
        return await self.dispatcher.dispatch(notification)

    @asynccontextmanager
    async def serve(
        self, *, host: str = "127.0.0.1", port: int, path: str = "/", ack: Ack | None = None
    ) -> AsyncGenerator[str]:
        """Serve the webhook app on uvicorn while the block runs, for bots; yields its URL.

        Args:
            port: 0 for any free one.

        Raises:
            ConfigurationError: uvicorn is not installed, the port is in use, or the path begins with no slash.
            RuntimeError: The session is not entered yet.
        """
        self._here()  # a forgotten `async with session` would be answered to each delivery, and told to nobody here
        app = self.webhook_app(ack=ack)
        async with serve_app(app, host=host, port=port, path=path) as url:
            yield url

    def __repr__(self) -> str:
        return f"ConnectorSession({self._settings.account_id!r}, {self._state})"


def _id_of(consumer: object) -> str:
    if isinstance(consumer, Consumer):
        return consumer.ext_consumer_id
    if not isinstance(consumer, str):
        raise TypeError(f"consumer must be a Consumer or an ext_consumer_id, not {kind_of(consumer)}")
    if not consumer.strip():
        raise ValueError("an ext_consumer_id is a text that is not empty")
    return consumer


def _check_at_least_one(name: str, value: object) -> None:
    # With less, nothing would ever be read.
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 1:
        raise ValueError(f"{name} must be a number of at least 1, got {value!r}")
