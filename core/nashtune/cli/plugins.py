"""`nashtune plugins`: what is installed, what works, and why the rest does not."""

from __future__ import annotations

import argparse
from typing import Any

from nashtune.cli.output import print_json, print_table
from nashtune.plugins import PluginRecord, load_plugins
from nashtune.plugins.component import KINDS
from nashtune.plugins.manager import refuse_if_strict
from nashtune.plugins.targets import looked_at
from nashtune.terminal import say

SUMMARY = "list plugins: name, version, status, components, failure reason"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `nashtune plugins`."""
    parser.add_argument("--json", action="store_true", help="print a JSON list instead of a table")


def run(args: argparse.Namespace) -> int:
    """Print every plugin; a failed one is part of the answer, not an error.

    Whether the classes that a plugin names are there is looked up here, and not by every command.

    Raises:
        InputError: something is wrong with one, and `NASHTUNE_STRICT_PLUGINS=1`.
    """
    records = looked_at(load_plugins(quiet=True).records)
    refuse_if_strict(records)
    if args.json:
        print_json([as_dict(record) for record in records])
    else:
        _print_table(records)
    return 0


def as_dict(record: PluginRecord) -> dict[str, Any]:
    """One plugin as plain data, for `--json`."""
    return {
        "name": record.name,
        "dist": record.dist,
        "version": record.version,
        "status": record.status,
        "reason": record.reason,
        "components": [vars(component) for component in record.components],
        "spec_dirs": [str(folder) for folder in record.spec_dirs],
    }


def _print_table(records: list[PluginRecord]) -> None:
    rows = []
    for record in records:
        names = {kind: [one.name for one in record.components if one.kind == kind] for kind in KINDS}
        lines = [f"{kind}: {', '.join(found)}" for kind, found in names.items() if found]
        rows.append((record.name, record.version, record.status, "\n".join(lines)))
    print_table(["plugin", "version", "status", "components"], rows)
    for record in records:
        if record.status != "ok":
            say(record.line())
