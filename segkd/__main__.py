"""`python -m segkd` is the command `segkd`."""

import sys

from segkd.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
