"""The columns of a row: which format they say it is, and what to tell of those that are missing, misspelt or unused."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from nashtune.data.messages import RowError

PREFERENCE = ("prompt", "chosen", "rejected", "p_chosen", "margin")
UNPAIRED = ("prompt", "completion", "label")
RANKED = ("prompt", "responses", "scores")
RESPONSE = ("text", "score", "win_rate")
COLUMNS = {"preference": PREFERENCE, "unpaired": UNPAIRED, "ranked": RANKED}
KNOWN = {name for names in COLUMNS.values() for name in names}
NEEDED = {"preference": {"chosen", "rejected"}, "unpaired": {"completion", "label"}, "ranked": {"responses"}}
CLOSE = 0.8  # likeness above which a column counts as a misspelt one; 'chosen_model' and 'chosen' are at 0.67


def row_format(row: Mapping[str, Any]) -> str:
    """'preference', 'unpaired' or 'ranked', by the columns that only one of them has.

    Raises:
        RowError: the columns fit none of them, or several.
    """
    whole = [form for form, names in NEEDED.items() if names <= row.keys()]
    if len(whole) == 1:
        return whole[0]  # another format's column, such as a label beside chosen and rejected, is one that is not used
    own = {form: set(names) - {"prompt"} for form, names in COLUMNS.items()}
    fits = [form for form, names in own.items() if names & row.keys()]
    if len(fits) > 1:
        mixed = ", ".join(sorted(set().union(*(own[form] & row.keys() for form in fits))))
        raise RowError(f"the columns {mixed} belong to different formats ({' and '.join(fits)}); keep one format's")
    if fits:
        return fits[0]
    wanted = "; ".join(f"{form}: {', '.join(names)}" for form, names in COLUMNS.items())
    found = ", ".join(sorted(row)) or "nothing"
    raise RowError(f"no known columns, found {found}{misspelt(row, set().union(*own.values()))} ({wanted})")


def likeness(name: str, known: Iterable[str]) -> str | None:
    """The known column that `name` is a misspelling of, if any."""
    match = difflib.get_close_matches(name.lower(), sorted(known), n=1, cutoff=CLOSE)
    return match[0] if match else None


def not_used(unused: Mapping[str, int], read: int) -> str:
    """Columns that nothing reads, for one note; with the number of rows where not every one of the `read` has it."""
    names = (name if n == read else f"{name} ({n})" for name, n in sorted(unused.items()))
    return f"columns not used: {', '.join(names)}"


def misspelt(row: Mapping[str, Any], wanted: Iterable[str]) -> str:
    """The end of a message where a column of the row looks like one of those that are wanted; else ""."""
    missing = set(wanted) - row.keys()
    for name in row:
        if name not in KNOWN and (match := likeness(name, missing)):
            return f"; did you mean '{match}' by '{name}'? Rename the column"
    return ""


def why_no_prompt(data: Mapping[str, Any]) -> str:
    """The end of a message about a row that lacks its prompt, where its columns, nulls among them, say why; else ""."""
    if "prompt" in data:
        return "; 'prompt' is null here, which counts as absent"
    return "; did you mean 'prompt' by 'messages'? Rename the column" if data.get("messages") else ""
