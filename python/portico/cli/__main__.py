"""`python -m portico.cli` is the command `portico`."""

import sys

from portico.cli import main

if __name__ == "__main__":
    sys.exit(main())
