"""`nashtune list`: the specs and run files that are known by name."""

from __future__ import annotations

import argparse
from typing import Any

from nashtune.cli.output import print_json, print_table
from nashtune.errors import InputError
from nashtune.spec.loader import display, read_yaml
from nashtune.spec.locate import list_runs, list_specs
from nashtune.spec.resolve import outline

SUMMARY = "list the specs that are known by name"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `nashtune list`."""
    parser.add_argument("--runs", action="store_true", help="list run files instead of specs")
    parser.add_argument("--json", action="store_true", help="print a JSON list instead of a table")


def run(args: argparse.Namespace) -> int:
    """Print every spec; one that cannot be read is shown as broken, with the reason."""
    entries = _runs() if args.runs else _specs()
    if args.json:
        print_json(entries)
        return 0
    columns = ["name", "sections", "plugin"] if args.runs else ["name", "kind", "loss", "kl", "paper", "title"]
    rows = []
    for entry in entries:
        cells = [str(entry.get(column, "")) for column in columns]
        if entry["problem"]:
            cells[-1] = f"BROKEN: {entry['problem']}"
        rows.append(cells)
    print_table(columns, rows)
    return 0


def _specs() -> list[dict[str, Any]]:
    entries = []
    for listed in list_specs():
        entry: dict[str, Any] = {"name": listed.name, "plugin": listed.plugin, "file": str(listed.file), "problem": ""}
        try:
            entry |= outline(listed.file)
        except InputError as error:
            entry["problem"] = str(error)
        entries.append(entry)
    return entries


def _runs() -> list[dict[str, Any]]:
    entries = []
    for listed in list_runs():
        entry: dict[str, Any] = {
            "name": listed.name,
            "plugin": listed.plugin,
            "file": display(listed.file),
            "problem": "",
        }
        try:
            data = read_yaml(listed.file).data
            entry["sections"] = ", ".join(data) if isinstance(data, dict) else ""
        except InputError as error:
            entry["problem"] = str(error)
        entries.append(entry)
    return entries
