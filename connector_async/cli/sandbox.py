"""`connector-async sandbox`: its options and its work are `connector_async.sandbox.serve`'s, if that is installed."""

from __future__ import annotations

import argparse

from connector_async.cli._console import require_extra

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the sandbox's options.

    Raises:
        ConfigurationError: The extra `sandbox` is not installed.
    """
    require_extra("sandbox", "the sandbox")
    from connector_async.sandbox import serve

    serve.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Serve until told to stop.

    Raises:
        ConfigurationError: An option cannot work, such as a port in use.
    """
    from connector_async.sandbox import serve

    return serve.main(arguments)
