"""`nashtune list`: the specs, pipelines and run files that are known by name."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from nashtune.cli.output import print_json, print_table
from nashtune.errors import InputError
from nashtune.pipeline import form
from nashtune.spec.loader import display, read_yaml
from nashtune.spec.locate import Listed, list_pipelines, list_runs, list_specs
from nashtune.spec.resolve import outline

SUMMARY = "list the specs that are known by name"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `nashtune list`."""
    parser.add_argument("--runs", action="store_true", help="list run files instead of specs")
    parser.add_argument("--pipelines", action="store_true", help="list pipelines alone")
    parser.add_argument("--json", action="store_true", help="print a JSON list instead of a table")


SPECS = ["name", "kind", "loss", "kl", "paper", "title"]
RUNS = ["name", "sections", "plugin"]
PIPELINES = ["pipeline", "stages", "paper", "title"]


def run(args: argparse.Namespace) -> int:
    """Print every spec and every pipeline; one that cannot be read is shown as broken, with the reason.

    Raises:
        InputError: run files and pipelines are both asked for.
    """
    if args.runs and args.pipelines:
        raise InputError("list: --runs and --pipelines are two lists; give one of them")
    entries = _runs() if args.runs else _pipelines() if args.pipelines else _specs()
    if args.json:
        print_json(entries)
        return 0
    _table(RUNS if args.runs else PIPELINES if args.pipelines else SPECS, entries)
    if not args.runs and not args.pipelines:
        _table(PIPELINES, _pipelines())
    return 0


def _table(columns: list[str], entries: list[dict[str, Any]]) -> None:
    rows = []
    for entry in entries:
        cells = [str(entry.get("name" if column == "pipeline" else column, "")) for column in columns]
        if entry["problem"]:
            cells[-1] = f"BROKEN: {entry['problem']}"
        rows.append(cells)
    print_table(columns, rows)


def _specs() -> list[dict[str, Any]]:
    return _outlined(list_specs(), outline)


def _pipelines() -> list[dict[str, Any]]:
    return _outlined(list_pipelines(), form.outline)


def _outlined(known: list[Listed], read: Callable[[Any], dict[str, str]]) -> list[dict[str, Any]]:
    entries = []
    for listed in known:
        entry: dict[str, Any] = {"name": listed.name, "plugin": listed.plugin, "file": str(listed.file), "problem": ""}
        try:
            entry |= read(listed.file)
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
