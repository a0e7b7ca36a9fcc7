"""The command line: `connector-async`, same as `python -m connector_async`."""

from connector_async.cli._main import main

__all__ = ["main"]
