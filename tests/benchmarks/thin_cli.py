"""Times the commands that must not import torch. Run it by hand: `python tests/benchmarks/thin_cli.py [REPEATS]`.

Each command is a fresh process, as a user starts it; shown is the best and the median of the repeats, in seconds.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

COMMANDS = (
    "--version",
    "",
    "list",
    "list --json",
    "show epsilon_dpo",
    "show epsilon_dpo --json",
    "diff dpo epsilon_dpo",
    "check dpo",
    "check --all",
    "schema",
    "plugins --json",
)


def seconds(arguments: list[str]) -> float:
    """Wall-clock time of one command."""
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "nashtune.cli.main", *arguments], capture_output=True)
    assert done.returncode in (0, 1), done.stderr.decode()
    return time.perf_counter() - start


def main() -> None:
    """Print a table."""
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    print(f"{'command':<28}{'best':>8}{'median':>8}")
    for command in COMMANDS:
        times = [seconds(command.split()) for _ in range(repeats)]
        print(f"nashtune {command:<19}{min(times):8.3f}{statistics.median(times):8.3f}")


if __name__ == "__main__":
    main()
