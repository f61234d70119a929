"""`nashtune schema`: the JSON schema of spec files."""

from __future__ import annotations

import argparse

from nashtune.cli.output import print_json
from nashtune.spec.schema import spec_schema

SUMMARY = "print the JSON schema of spec files, for editors"
EPILOG = """\
Write it once, and name it in the first line of a spec; editors with the YAML language server then complete and check:
    nashtune schema > spec.schema.json
    # yaml-language-server: $schema=spec.schema.json"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `nashtune schema`."""
    parser.add_argument("--json", action="store_true", help="accepted as everywhere; the schema is JSON in any case")


def run(args: argparse.Namespace) -> int:
    """Print the schema of everything that is installed."""
    print_json(spec_schema())
    return 0
