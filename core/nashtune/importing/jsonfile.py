"""A JSON file as plain data with the line of every key."""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from json.decoder import scanstring  # type: ignore[attr-defined]  # it is there, and typeshed leaves it out
from pathlib import Path
from typing import Any

from nashtune.errors import InputError
from nashtune.spec.loader import KeyPath, Located, display, read_text

_SPACE = re.compile(r"[ \t\n\r]*")


def read_json(file: Path) -> Located:
    """Read a JSON file.

    Raises:
        InputError: it cannot be read, is not UTF-8 or too large, broken JSON, a key given twice, NaN or infinity, or
            one of the two codes of a character without the other.
    """
    source = display(file)
    text = read_text(file)
    lines: dict[KeyPath, int] = {}
    try:
        data = json.loads(text, parse_constant=_no_number)
        json.dumps(data, ensure_ascii=False).encode()
        _Walk(text, source, lines).value(0, ())
    except json.JSONDecodeError as error:
        raise InputError(f"{source}:{error.lineno}: broken JSON: {error.msg}") from error
    except UnicodeEncodeError as error:
        raise InputError(
            f"{source}: broken JSON: half of a character, one of its two codes without the other"
        ) from error
    except ValueError as error:
        raise InputError(f"{source}: broken JSON: {error}") from error
    except RecursionError:
        raise InputError(f"{source}: broken JSON: nested too deeply") from None
    return Located(data, source, lines)


def _no_number(word: str) -> Any:
    raise ValueError(f"{word} is no number of JSON")


class _Walk:
    """Through a text that is known to be JSON, for the lines of its keys and items alone."""

    def __init__(self, text: str, source: str, lines: dict[KeyPath, int]) -> None:
        self.text, self.source, self.lines = text, source, lines
        self.breaks = [found.start() for found in re.finditer("\n", text)]
        self.decoder = json.JSONDecoder()

    def value(self, at: int, path: KeyPath) -> int:
        """Walk over the value that begins at `at`, or after spaces; returns where it ends."""
        at = self._over_space(at)
        self.lines.setdefault(path, self._line(at))
        if self.text[at] not in "{[":
            return self.decoder.raw_decode(self.text, at)[1]
        pairs, end = self.text[at] == "{", "}" if self.text[at] == "{" else "]"
        at, number = self._over_space(at + 1), 0
        while self.text[at] != end:
            here: KeyPath = (*path, number)
            if pairs:
                key, after = scanstring(self.text, at + 1, True)
                here = (*path, key)
                self._new(here, at)
                at = self._over_space(after) + 1  # the colon
            at, number = self._over_space(self.value(at, here)), number + 1
            if self.text[at] == ",":
                at = self._over_space(at + 1)
        return at + 1

    def _new(self, path: KeyPath, at: int) -> None:
        line = self._line(at)
        if path in self.lines:
            first = self.lines[path]
            raise InputError(f"{self.source}:{line}: '{path[-1]}' is given twice (first on line {first}); keep one")
        self.lines[path] = line

    def _line(self, at: int) -> int:
        return bisect_left(self.breaks, at) + 1

    def _over_space(self, at: int) -> int:
        found = _SPACE.match(self.text, at)
        return at if found is None else found.end()
