"""`python -m nashtune` is the command `nashtune`."""

import sys

from nashtune.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
