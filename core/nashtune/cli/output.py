"""How commands print: tables, and JSON for `--json`."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from nashtune.terminal import one_line, plain, say

if TYPE_CHECKING:
    from nashtune.consoles import Console

PIPED_WIDTH = 1000
_UNSEEN = re.compile(r"[^ -~\n\w]")


def console() -> Console:
    """A console as wide as the terminal; into a pipe or file lines are not broken, so that they can be searched."""
    from nashtune.consoles import Console

    return Console(width=None if sys.stdout.isatty() else PIPED_WIDTH, highlight=False, markup=False, emoji=False)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows under a header."""
    from rich import box
    from rich.table import Table

    table = Table(*map(one_line, columns), box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(one_line(row[0]), *map(plain, row[1:]))  # the first cell begins a line, as an error does
    console().print(table)


def print_json(data: Any) -> None:
    """Print data as JSON; Greek letters stay readable where the output can hold them, and no control character does."""
    unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    text = json.dumps(data, indent=2, ensure_ascii=not unicode)
    print(_UNSEEN.sub(lambda one: one[0] if plain(one[0]) == one[0] else _escape(one[0]), text))


def progress(*, as_json: bool) -> Callable[[str], None]:
    """Prints a line at once; to stderr where stdout is for the JSON alone."""
    stream = sys.stderr if as_json else sys.stdout
    return lambda line: say(line, file=stream, flush=True)


def _escape(character: str) -> str:
    escaped = json.dumps(character)[1:-1]  # two of them above U+FFFF
    return escaped if escaped != character else f"\\u{ord(character):04x}"  # JSON leaves U+007F as it is
