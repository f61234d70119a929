"""What an import did with a config, for people and as plain data."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from nashtune.cli.output import print_table
from nashtune.importing import files
from nashtune.importing.method import word
from nashtune.importing.translate import Item, Translation
from nashtune.spec.loader import display
from nashtune.terminal import say

HEADINGS = {
    "same": "means what is done here anyway",
    "left": "left out, nothing that is learned depends on it",
    "unread": "not read by the tool itself",
    "lost": "LOST",
}


def print_import(
    translation: Translation, source: str, spec_file: Path, run_file: Path, notes: list[str], new: Collection[Path]
) -> None:
    """Print what became of every key, what was written, and what the check says of it.

    Args:
        translation: The import.
        source: The config.
        spec_file: The spec.
        run_file: The run file.
        notes: Of the check.
        new: Those of the two files that were written now.
    """
    table, method = translation.table, translation.method
    say(f"{source}: {method.name} of {table.tool} {table.version} is the spec '{method.base}' here")
    mapped = translation.of("mapped")
    print_table(
        [f"{table.tool}", "value", "here"],
        [[item.key, word(item.value), _settings(item.settings)] for item in mapped if item.given],
    )
    defaults = [item for item in mapped if not item.given]
    if defaults:
        say(f"defaults of {table.tool}, written out: {', '.join(f'{one.key} {word(one.value)}' for one in defaults)}")
    for outcome in ("same", "left", "unread", "lost"):
        items = translation.of(outcome)
        if not items:
            continue
        say(f"{HEADINGS[outcome]}:")
        if outcome == "same":
            say(f"  {', '.join(f'{item.key} {word(item.value)}' for item in items)}")
            continue
        for text in dict.fromkeys(item.text for item in items):
            say(f"  {', '.join(item.key for item in items if item.text == text)}: {text}")
    for note in translation.notes:
        say(f"note: {note}")
    kept = [display(path) for path in (spec_file, run_file) if path not in new]
    if new:
        say(f"written: {', '.join(display(path) for path in new)}")
    if kept:
        say(f"left as they are, with the same text already: {', '.join(kept)}")
    for note in notes:
        say(f"  {note}")
    say(f"next: nashtune fit {files.fit_options(display(spec_file), display(run_file))}")


def _settings(settings: Any) -> str:
    return ", ".join(f"{path}: {word(value)}" for path, value in settings.items()) or "-"


def _item(item: Item) -> dict[str, Any]:
    """One key; values that are not used may be passwords of trackers, and are not shown."""
    shown = dict(vars(item))
    if item.outcome not in ("mapped", "same"):
        del shown["value"]
    return shown


def as_dict(
    translation: Translation,
    spec_file: Path,
    run_file: Path,
    findings: list[str],
    notes: list[str],
    new: Collection[Path],
) -> dict[str, Any]:
    """The same as plain data, with the check's findings."""
    table = translation.table
    return {
        "tool": table.tool,
        "version": table.version,
        "method": translation.method.name,
        "base": translation.method.base,
        "spec": str(spec_file),
        "run": str(run_file),
        "written": [str(path) for path in new],
        "keys": [_item(item) for item in translation.items],
        "notes": list(translation.notes),
        "findings": findings,
        "check": notes,
    }
