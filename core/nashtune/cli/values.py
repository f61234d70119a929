"""Values of a command's own options: numbers, and where a picture is saved."""

from __future__ import annotations

import math
from pathlib import Path

from nashtune.errors import InputError


def whole(text: str, option: str, *, least: int) -> int:
    """A whole number.

    Args:
        text: As it was given.
        option: Of the command line, for the message.
        least: The smallest that is allowed.

    Raises:
        InputError: it is none, or too small.
    """
    if not text.isdecimal() or int(text) < least:
        raise InputError(f"{option}: expected a whole number >= {least}, found '{text}'")
    return int(text)


def number(text: str, option: str, *, least: float) -> float:
    """As `whole`, of a finite number."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not least <= value < math.inf:
        raise InputError(f"{option}: expected a number >= {least:g}, found '{text}'")
    return value


def picture_path(text: str | None) -> Path | None:
    """Where `--plot` saves; None where it was not given.

    Raises:
        InputError: it is no PNG, or its folder is missing.
    """
    if text is None:
        return None
    path = Path(text).expanduser()
    if path.suffix.lower() != ".png":
        raise InputError(f"--plot {text}: a picture is a PNG file; give a name that ends in .png")
    if not path.parent.is_dir():
        raise InputError(f"--plot {text}: there is no folder {path.parent}")
    return path
