"""`Sandbox`: the cloud in a box, on a real socket or in process, for as long as its `async with` is open."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ssl
import tempfile
import time
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any, Final, Literal, Self

import anyio
import attrs
import trustme
from starlette.types import ASGIApp

from connector_async.sandbox._background import Background
from connector_async.sandbox._client import ForClients
from connector_async.sandbox._fault_actions import Action, Reset, Status, Unauthorized
from connector_async.sandbox._manifest import EVENT_KEYS, WebhookEndpoint, webhooks_of_manifest
from connector_async.sandbox._post import AsgiTarget, HttpTarget, Target
from connector_async.sandbox._socket_server import bind, serve_on
from connector_async.sandbox._state import Account, Happening
from connector_async.sandbox.admin import make_admin
from connector_async.sandbox.agents import AgentDesk, Script
from connector_async.sandbox.api import SERVICES, CloudApi
from connector_async.sandbox.app import CloudApp
from connector_async.sandbox.faults import FaultPlan, FaultRule, load_faults
from connector_async.sandbox.ledger import Ledger
from connector_async.sandbox.model import CloudModel, SequenceMode
from connector_async.sandbox.scripts import SurveyBot, make_agent
from connector_async.sandbox.webhooks import Algorithm, WebhookSender

__all__ = ["Sandbox"]

IN_PROCESS_URL: Final = "http://127.0.0.1"


@attrs.frozen(eq=False)
class _Branch:
    """What the sandbox keeps beside the state of an account."""

    desk: AgentDesk
    sender: WebhookSender


class Sandbox(ForClients, anyio.AsyncContextManagerMixin):
    """A cloud that behaves like the Connector API.

    On a socket it runs in the event loop that opens it (asyncio only). In process there is neither socket nor thread:
    `app` is the ASGI application, and everything that waits does so on anyio's clock, a virtual one included.

    Args:
        account_id: The first account; `add_account()` makes more.
        token_lifetime: Seconds that an AppJWT holds.
        sequence: What answers say as `sequence`: `resend` counts how often the request came, `dialog` numbers the
            events of the dialog.
        tls: Serve https, with a certificate of a throw-away CA (`ca_file`, `ssl_context`).
        in_process: Open no socket.
        port: 0 takes any that is free.
        clock: Wall-clock seconds.
        survey: Whether closing a MAIN dialog starts a survey, for clients that announce MULTI_DIALOG.
        domain_shape: How the Domain API answers for one service: `flat`, `list`, or `both` at once.
        faults: A plan, the name of a preset, or the path of a fault file.
        agent: Who answers: `echo`, `menu`, `survey`, `silent`, `slow`, or a function of desk and happening.
        moment: Seconds that a scripted agent takes for each step.
        webhook_url: Where everything that happens is delivered; see `deliver_to()` and `use_manifest()` for more.
        webhook_signature: `sha1`, or `sha256` as accounts have it on request.

    Attributes:
        url: The base URL of everything; `domain_api` is the same.
        ledger: What arrived, was applied and answered.
        faults: The plan in force; it may be changed at any time.
    """

    def __init__(
        self,
        *,
        account_id: str = "12345678",
        client_id: str = "sandbox-client",
        client_secret: str = "sandbox-secret",  # noqa: S107 - it opens nothing but this sandbox
        token_lifetime: float = 3600.0,
        sequence: SequenceMode = "resend",
        tls: bool = False,
        in_process: bool = False,
        host: str = "127.0.0.1",
        port: int = 0,
        clock: Callable[[], float] = time.time,
        survey: bool = False,
        domain_shape: Literal["flat", "list", "both"] = "both",
        faults: FaultPlan | str | None = None,
        agent: str | Script = "echo",
        moment: float = 0.05,
        webhook_url: str | None = None,
        webhook_signature: Algorithm = "sha1",
    ) -> None:
        self.account_id = account_id
        self.client_id = client_id
        self.client_secret = client_secret
        self.url = IN_PROCESS_URL
        self.ca_file: str | None = None
        self.ssl_context: ssl.SSLContext | None = None
        self.model = CloudModel(sequence=sequence, token_lifetime=token_lifetime)
        self.ledger = Ledger()
        plan = load_faults(faults) if isinstance(faults, str) else faults
        self.faults = FaultPlan() if plan is None else plan
        self._tls, self.in_process, self._host, self._port = tls, in_process, host, port
        self._clock = clock
        self._api = CloudApi(self.model, self.ledger, domain_shape=domain_shape)
        self._background = Background()
        self._script, self._survey_bot = make_agent(agent, moment), SurveyBot(moment)
        self._branches: dict[str, _Branch] = {}
        self.add_account(account_id, client_id, client_secret, survey=survey or agent == "survey")
        self.model.listeners.append(self._on_happening)
        self.app = CloudApp(self._api, clock=clock, faults=self.faults, admin=make_admin(self))
        if webhook_url is not None:
            self.deliver_to_url(webhook_url, algorithm=webhook_signature)

    def __repr__(self) -> str:
        return f"Sandbox({self.url!r})"

    @property
    def domain_api(self) -> str:
        """Base URL of the Domain API."""
        return self.url

    @property
    def domains(self) -> dict[str, str]:
        """Every service name with its base URL, for clients that take overrides."""
        return dict.fromkeys(SERVICES, self.url)

    def environ(self) -> dict[str, str]:
        """The environment variables that point a client here."""
        return {
            "LP_ACCOUNT_ID": self.account_id,
            "LP_CLIENT_ID": self.client_id,
            "LP_CLIENT_SECRET": self.client_secret,
            "LP_DOMAIN_API": self.domain_api,
        }

    def add_account(self, account_id: str, client_id: str, client_secret: str, *, survey: bool = False) -> Account:
        """Install the app in one more account."""
        account = self.model.add_account(account_id, client_id, client_secret, survey=survey)
        desk = AgentDesk(self.model, account, self._background, self._clock)
        sender = WebhookSender(account, self._background, self.faults, self._clock)
        self._branches[account_id] = _Branch(desk, sender)
        return account

    @property
    def account(self) -> Account:
        """The state of the first account."""
        return self.model.accounts[self.account_id]

    @property
    def agent(self) -> AgentDesk:
        """Plays the agents of the first account."""
        return self.agent_of(self.account_id)

    def agent_of(self, account_id: str) -> AgentDesk:
        """Plays the agents of an account."""
        return self._branches[account_id].desk

    @property
    def webhooks(self) -> WebhookSender:
        """The deliveries of the first account, with what became of them."""
        return self.webhooks_of(self.account_id)

    def webhooks_of(self, account_id: str) -> WebhookSender:
        """The deliveries of an account."""
        return self._branches[account_id].sender

    def _on_happening(self, happening: Happening) -> None:
        branch = self._branches[happening.account.account_id]
        branch.desk.on_happening(happening)
        branch.sender.on_happening(happening)
        if self._background.is_alive:
            self._script(branch.desk, happening)
            self._survey_bot(branch.desk, happening)

    # -- webhooks

    def deliver_to_url(
        self,
        url: str,
        *,
        account_id: str | None = None,
        retention_time: float | None = None,
        max_retries: int | None = None,
        algorithm: Algorithm = "sha1",
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        """Deliver everything that happens to one URL.

        Args:
            retention_time: Seconds for which failures are retried (`retry.retention_time` of the manifest).
            max_retries: 0 to 5, the older law: so many attempts more, 30 s apart.
            ssl_context: How an https endpoint is trusted; as the system does it when None.
        """
        target = HttpTarget(url, ssl_context=ssl_context)
        self._deliver(target, account_id, retention_time, max_retries, algorithm)

    def deliver_to(
        self,
        app: ASGIApp,
        path: str = "/",
        *,
        account_id: str | None = None,
        retention_time: float | None = None,
        max_retries: int | None = None,
        algorithm: Algorithm = "sha1",
    ) -> None:
        """Deliver everything that happens to an ASGI application in this process."""
        self._deliver(AsgiTarget(app, path), account_id, retention_time, max_retries, algorithm)

    def _deliver(
        self,
        target: Target,
        account_id: str | None,
        retention_time: float | None,
        max_retries: int | None,
        algorithm: Algorithm,
    ) -> None:
        sender = self.webhooks_of(account_id or self.account_id)
        sender.algorithm = algorithm
        endpoint = WebhookEndpoint(target=target, max_retries=max_retries)
        sender.configure(dict.fromkeys(EVENT_KEYS, endpoint), retention_time)

    def use_manifest(
        self,
        manifest: object,
        *,
        account_id: str | None = None,
        algorithm: Algorithm = "sha1",
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        """Deliver to the endpoints of an app manifest, by its retry settings.

        Raises:
            ConfigurationError: The manifest's webhooks cannot be used; the message says why.
        """
        endpoints, retention = webhooks_of_manifest(manifest, functools.partial(HttpTarget, ssl_context=ssl_context))
        sender = self.webhooks_of(account_id or self.account_id)
        sender.algorithm = algorithm
        sender.configure(endpoints, retention)

    async def settle(self, *, timeout: float = 30.0) -> None:
        """Wait until there is nothing left to do: no agent about to answer, no webhook on its way or due again.

        Raises:
            TimeoutError: It still has after so many seconds.
        """
        with anyio.fail_after(timeout):
            await self._background.wait_idle()

    def stats(self) -> dict[str, Any]:
        """Everything that is counted, as a JSON object."""
        return {
            "ledger": self.ledger.summary(),
            "faults": dict(self.faults.hits),
            "webhooks": {name: branch.sender.as_json() for name, branch in self._branches.items()},
            "accounts": {
                account.account_id: {
                    "consumers": len(account.consumers),
                    "conversations": len(account.conversations),
                    "open": sum(one.is_open for one in account.conversations.values()),
                    "tokens": account.generation,
                }
                for account in self.model.accounts.values()
            },
        }

    def revoke_tokens(self, account_id: str | None = None) -> int:
        """Refuse every AppJWT given out so far; returns the generation of the newest of them."""
        return self._api.revoke_tokens(self.model.accounts[account_id or self.account_id])

    def fail_next(
        self,
        action: Action | None = None,
        *,
        status: int | None = None,
        error_code: int | None = None,
        retry_after: str | float | None = None,
        endpoint: str = "send",
        type: str | None = None,  # noqa: A002 - the API's word
        times: int = 1,
    ) -> FaultRule:
        """Let the next request fail, or the next few.

        Args:
            action: What happens; or say `status` or `error_code`. A connection reset when none is given.
            endpoint: Which endpoint is hit; `*` takes any.
            type: Only requests of this wire type.
            times: How many requests.
        """
        if action is None:
            if status is not None:
                action = Status(status=status, retry_after=retry_after)
            else:
                action = Reset() if error_code is None else Unauthorized(error_code=error_code)
        rule = FaultRule(action=action, endpoint=endpoint, type=type, count=times)
        self.faults.add(rule)
        return rule

    @contextlib.asynccontextmanager
    async def __asynccontextmanager__(self) -> AsyncGenerator[Self]:
        failure: BaseException | None = None
        async with contextlib.AsyncExitStack() as stack:
            if not self.in_process:
                await stack.enter_async_context(self._on_socket())
            tasks = await stack.enter_async_context(anyio.create_task_group())
            await tasks.start(self._background.run, tasks)
            try:
                yield self
            except BaseException as error:  # noqa: BLE001 - raised again below, outside of the task group
                failure = error
            finally:
                tasks.cancel_scope.cancel()
                for branch in self._branches.values():
                    await branch.sender.aclose()
        if failure is not None:
            raise failure  # as itself: a task group would hand it on inside a group of one

    @contextlib.asynccontextmanager
    async def _on_socket(self) -> AsyncGenerator[None]:
        try:
            asyncio.get_running_loop()
        except RuntimeError as error:
            raise RuntimeError("a sandbox on a socket needs asyncio; elsewhere use in_process=True") from error
        with contextlib.ExitStack() as stack:
            context = self._make_certificates(stack) if self._tls else None
            sock = bind(self._host, self._port)
            port: int = sock.getsockname()[1]
            host = f"[{self._host}]" if ":" in self._host else self._host
            self.url = f"{'https' if self._tls else 'http'}://{host}:{port}"
            async with serve_on(sock, self.app, tls=context):
                yield

    def _make_certificates(self, stack: contextlib.ExitStack) -> ssl.SSLContext:
        authority = trustme.CA(organization_name="connector_async sandbox", organization_unit_name="throw-away CA")
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="connector-async-sandbox-"))
        path = Path(directory, "ca.pem")
        authority.cert_pem.write_to_path(str(path))
        self.ca_file = str(path)
        self.ssl_context = ssl.create_default_context(cafile=self.ca_file)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate = authority.issue_cert("localhost", "127.0.0.1", "::1", self._host)
        certificate.configure_cert(context)  # pyright: ignore[reportUnknownMemberType]  # it also takes pyOpenSSL
        return context
