"""`python -m connector_async`: the same as the command `connector-async`."""

import sys

from connector_async.cli import main

if __name__ == "__main__":
    sys.exit(main())
