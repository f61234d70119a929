"""A user's own game, from a CSV, NPY or JSON file."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np

from nashtune.errors import InputError, nearest
from nashtune.games.matrices import Array, Game, make_game

SUFFIXES = (".csv", ".npy", ".json")
KEYS = ("name", "matrix", "start")


def read_game(path: str) -> Game:
    """Read and check a game.

    A CSV file holds one row of the matrix per line, without a header; an NPY file the array; a JSON file the list of
    rows, or an object {"matrix": [[...]], "start": [...], "name": "..."} of which only the matrix is needed.

    Raises:
        InputError: the file is missing or no game; says which entry is wrong.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise InputError(f"--game {path}: no such file")
    name, start, rows = file.stem, None, None
    match file.suffix.lower():
        case ".npy":
            return make_game(name, _from_npy(file))
        case ".csv":
            rows = _from_csv(file)
        case _:
            rows = _from_json(file)
    if isinstance(rows, dict):
        for key in rows:
            if key not in KEYS:
                raise InputError(f"{file}: '{key}' is not a key of a game{nearest(str(key), KEYS)}")
        if "matrix" not in rows:
            raise InputError(f"{file}: 'matrix' is missing; it is the list of rows of P(row beats column)")
        name, start, rows = str(rows.get("name", name)), rows.get("start"), rows["matrix"]
    policy = None if start is None else _numbers(start, f"{file}: start")
    return make_game(name, _numbers(rows, f"{file}: matrix"), policy)


def _from_npy(file: Path) -> Array:
    try:
        loaded = np.load(file, allow_pickle=False)
        matrix: Array = np.asarray(loaded, dtype=np.float64)
    except (ValueError, TypeError, OSError, EOFError) as error:
        raise InputError(f"{file}: is not an NPY file of numbers: {error}") from error
    return matrix


def _from_csv(file: Path) -> list[list[float]]:
    rows: list[list[float]] = []
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream)
            for row in reader:
                if any(cell.strip() for cell in row):
                    rows.append([_number(cell, f"{file}:{reader.line_num}") for cell in row])
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{file}: is not a CSV file: {error}") from error
    return rows


def _number(cell: str, where: str) -> float:
    try:
        return float(cell)
    except ValueError:
        raise InputError(
            f"{where}: '{cell.strip()}' is not a number; the file has no header and no row names"
        ) from None


def _from_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}: is not JSON: {error}") from error


def _numbers(value: Any, where: str) -> Array:
    try:
        numbers: Array = np.asarray(value, dtype=np.float64)
    except (ValueError, TypeError) as error:
        raise InputError(f"{where}: expected numbers in rows of equal length: {error}") from error
    return numbers
