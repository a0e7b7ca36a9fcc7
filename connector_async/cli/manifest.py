"""`connector-async manifest`: write the app manifest that an installation starts from, or check one."""

from __future__ import annotations

import argparse
from pathlib import Path

from connector_async.cli._console import WrongUse, emit, say, tell
from connector_async.cli._options import whole
from connector_async.wire import (
    AppManifest,
    Capabilities,
    EngagementCapability,
    Webhooks,
    parse_manifest,
    to_wire,
)

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `connector-async manifest`."""
    parser.add_argument(
        "--name", default="My connector", help="unique; agents see it as the source (default: %(default)s)"
    )
    parser.add_argument("--display-name", metavar="TEXT")
    parser.add_argument("--description", metavar="TEXT")
    parser.add_argument("--logo-uri", metavar="URL", help="70 by 70 pixels")
    parser.add_argument("--webhook-url", metavar="URL", help="https address that gets every kind of event")
    parser.add_argument(
        "--retention",
        type=whole(2, 259_200),
        default=86_400,
        metavar="SECONDS",
        help="how long undelivered events are kept and tried again, 2 to 259200 (default: %(default)s)",
    )
    parser.add_argument("--campaigns", action="store_true", help="take part in campaigns, which reporting needs")
    parser.add_argument("--check", metavar="FILE", help="read a manifest instead and say what is wrong with it")
    parser.add_argument("--json", action="store_true", help="one line, without indentation")


def run(arguments: argparse.Namespace) -> int:
    """Print a manifest, or what is wrong with one.

    Returns:
        0 done, 1 the checked manifest has problems.

    Raises:
        WrongUse: An option does not fit the API's limits; the file to check cannot be read.
        RemoteProtocolError: It is no manifest.
    """
    if arguments.check is not None:
        return _check(Path(arguments.check), as_json=arguments.json)
    try:
        manifest = _build(arguments)
    except ValueError as error:
        raise WrongUse(str(error)) from error
    if manifest.capabilities is None or manifest.capabilities.webhooks is None:
        tell("without --webhook-url this app will hear nothing: no answers, no receipts, no closes")
    if arguments.json:
        emit(to_wire(manifest))
    else:
        say(manifest.to_json())
    return 0


def _build(arguments: argparse.Namespace) -> AppManifest:
    webhooks = engagement = None
    if arguments.webhook_url is not None:
        webhooks = Webhooks.to(arguments.webhook_url, retention=arguments.retention)
    if arguments.campaigns:
        engagement = EngagementCapability(design_engagement=True, design_window=True)
    return AppManifest(
        client_name=arguments.name,
        display_name=arguments.display_name,
        description=arguments.description,
        logo_uri=arguments.logo_uri,
        capabilities=Capabilities(webhooks=webhooks, engagement=engagement) if webhooks or engagement else None,
    )


def _check(path: Path, *, as_json: bool) -> int:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise WrongUse(
            f"--check: {path} cannot be read: {error.strerror}; name a file that holds a manifest"
        ) from error
    problems = parse_manifest(raw).problems()
    if as_json:
        emit({"problems": problems})
    else:
        say("\n".join(problems) or "no problems found")
    return 1 if problems else 0
