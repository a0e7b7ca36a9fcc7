"""`connector-async sandbox`: the sandbox as a process of its own.

When it is ready it prints one JSON line on standard output, which names everything a client needs; nothing else goes
there. SIGINT, SIGTERM and, on request, the end of the parent process stop it within a second.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import signal
import stat
import sys
from collections.abc import Callable
from typing import Any, Final

import anyio

from connector_async.errors import ConfigurationError
from connector_async.sandbox._json import dumps
from connector_async.sandbox._post import HttpTarget
from connector_async.sandbox.cloud import Sandbox
from connector_async.sandbox.faults import PRESETS, FaultPlan, load_faults
from connector_async.sandbox.scripts import AGENTS

__all__ = ["add_arguments", "main", "ready_line", "run"]

_log = logging.getLogger(__name__)
_LONGEST_LIFETIME: Final = 1_000_000_000  # seconds; a token's `exp` must stay a number that clients can read
_ACCOUNT_ID: Final = re.compile(r"[0-9A-Za-z_-]{1,64}", re.ASCII)
_STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


def _port(value: str) -> int:
    if not value.isascii() or not value.isdecimal() or len(value) > 5 or int(value) > 65535:
        raise argparse.ArgumentTypeError(f"a port is a number from 0 to 65535, not {value}")
    return int(value)


def _lifetime(value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = float("nan")
    if not 0 < seconds <= _LONGEST_LIFETIME:
        raise argparse.ArgumentTypeError(
            f"must be seconds, more than 0 and at most {_LONGEST_LIFETIME:,}, not {value}"
        )
    return seconds


def _account_id(value: str) -> str:
    if not _ACCOUNT_ID.fullmatch(value):
        raise argparse.ArgumentTypeError(f"must be letters and digits, since it stands in the URLs, not {value!r}")
    return value


def _filled(value: str) -> str:
    # The client takes no others.
    if not value or value != value.strip():
        raise argparse.ArgumentTypeError("must be a text that is not empty, without white space around it")
    return value


def _faults(value: str) -> FaultPlan:
    try:
        return load_faults(value)
    except ConfigurationError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _webhook_url(value: str) -> str:
    try:
        HttpTarget(value)
    except ConfigurationError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return value


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `connector-async sandbox`; hand what is parsed to `main()`."""
    parser.add_argument(
        "--host", type=_filled, default="127.0.0.1", help="address to listen on (default: %(default)s)"
    )
    parser.add_argument("--port", type=_port, default=0, help="0 takes any that is free (default: %(default)s)")
    parser.add_argument("--tls", action="store_true", help="serve https with a throw-away CA (see ca_file)")
    parser.add_argument("--account-id", type=_account_id, default="12345678", help="(default: %(default)s)")
    parser.add_argument("--client-id", type=_filled, default="sandbox-client", help="(default: %(default)s)")
    parser.add_argument("--client-secret", type=_filled, default="sandbox-secret", help="(default: %(default)s)")
    parser.add_argument(
        "--token-lifetime",
        type=_lifetime,
        default=3600.0,
        metavar="SECONDS",
        help="how long an AppJWT holds (default: %(default)g)",
    )
    parser.add_argument(
        "--sequence",
        choices=("resend", "dialog"),
        default="resend",
        help="what answers say as `sequence`: how often the request came, or the event's number (default: resend)",
    )
    parser.add_argument(
        "--faults",
        type=_faults,
        metavar="FILE",
        help=f"scripted faults: a JSON file, or a preset: {', '.join(PRESETS)}",
    )
    parser.add_argument(
        "--webhook-url", type=_webhook_url, metavar="URL", help="where everything that happens is delivered, signed"
    )
    parser.add_argument(
        "--webhook-signature", choices=("sha1", "sha256"), default="sha1", help="(default: %(default)s)"
    )
    parser.add_argument("--agent", choices=AGENTS, default="echo", help="who answers (default: %(default)s)")
    parser.add_argument("--survey", action="store_true", help="closing a MAIN dialog starts a survey (MULTI_DIALOG)")
    parser.add_argument(
        "--exit-with-parent", action="store_true", help="stop when standard input, a pipe, comes to its end"
    )


def main(arguments: argparse.Namespace) -> int:
    """Run the sandbox with parsed arguments until it is told to stop.

    Raises:
        ConfigurationError: An argument cannot work, such as a port in use; the message says what to do.
    """
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    run(
        exit_with_parent=arguments.exit_with_parent,
        host=arguments.host,
        port=arguments.port,
        tls=arguments.tls,
        account_id=arguments.account_id,
        client_id=arguments.client_id,
        client_secret=arguments.client_secret,
        token_lifetime=arguments.token_lifetime,
        sequence=arguments.sequence,
        survey=arguments.survey,
        faults=arguments.faults,
        agent=arguments.agent,
        webhook_url=arguments.webhook_url,
        webhook_signature=arguments.webhook_signature,
    )
    return 0


def run(*, exit_with_parent: bool = False, ready: Callable[[str], None] | None = None, **options: Any) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        exit_with_parent: Stop as well when standard input ends, which a pipe from the parent does when that dies.
        ready: Gets the JSON line instead of standard output.
        options: Those of `Sandbox`.

    Raises:
        ConfigurationError: An option cannot work; the message says what to do.
    """
    if exit_with_parent:
        _check_standard_input()
    anyio.run(_serve, ready or _print, options, exit_with_parent)


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def ready_line(cloud: Sandbox) -> str:
    """The JSON line that says where the sandbox is and with what to enter it."""
    return dumps(
        {
            "url": cloud.url,
            "domain_api": cloud.domain_api,
            "account_id": cloud.account_id,
            "client_id": cloud.client_id,
            "client_secret": cloud.client_secret,
            "ca_file": cloud.ca_file,
        }
    ).decode()


async def _serve(ready: Callable[[str], None], options: dict[str, Any], exit_with_parent: object) -> None:
    with anyio.open_signal_receiver(*_STOP_SIGNALS) as signals:
        async with Sandbox(**options) as cloud, anyio.create_task_group() as tasks:
            if exit_with_parent:
                tasks.start_soon(_stop_at_end_of_input, tasks.cancel_scope)
            ready(ready_line(cloud))
            _log.info("sandbox at %s for account %s; Ctrl-C stops it", cloud.url, cloud.account_id)
            async for number in signals:
                _log.info("stopping after %s", number.name)
                tasks.cancel_scope.cancel()
                break


async def _stop_at_end_of_input(scope: anyio.CancelScope) -> None:
    await anyio.wait_readable(0)
    while os.read(0, 4096):
        await anyio.wait_readable(0)
    _log.info("stopping: standard input has ended")
    scope.cancel()


def _check_standard_input() -> None:
    # A file or /dev/null has no end that could be waited for.
    try:
        mode = os.fstat(0).st_mode
    except OSError:
        mode = 0
    if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(0)):
        raise ConfigurationError("--exit-with-parent watches standard input, which must be a pipe")
