"""Entry: `python tests/benchmarks/speed [OPTIONS]`; `--help` says what there is."""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # so that the modules here are `speed.NAME`
    from speed.suite import main

    sys.exit(main())
