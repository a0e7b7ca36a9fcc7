"""`python -m connector_async.sandbox`: the sandbox without the rest of the command line."""

from __future__ import annotations

import argparse
import sys

from connector_async.errors import ConfigurationError
from connector_async.sandbox import serve


def main() -> int:
    """Parse the command line and serve; 1 with one sentence on standard error when it cannot."""
    parser = argparse.ArgumentParser(prog="python -m connector_async.sandbox", description=__doc__)
    serve.add_arguments(parser)
    try:
        return serve.main(parser.parse_args())
    except ConfigurationError as error:
        sys.stderr.write(f"{error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
