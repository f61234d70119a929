"""`python -m nashtune` is the command `nashtune`."""

from nashtune.cli.entry import entry

if __name__ == "__main__":
    entry()
