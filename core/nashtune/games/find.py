"""Games by name, or from a file."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nashtune.errors import InputError, nearest
from nashtune.games.files import SUFFIXES, read_game
from nashtune.games.matrices import Game, bradley_terry, condorcet, cycle, from_upper, make_game


def _weighted_rps(_: str) -> Game:
    """Three actions in a cycle of .9, .7, .6."""
    return make_game("weighted_rps", cycle(0.9, 0.7, 0.6))


def _rps(_: str) -> Game:
    """Rock, paper, scissors. From the uniform policy, which is its Nash policy, nothing would move."""
    return make_game("rps", cycle(1.0, 1.0, 1.0), (0.6, 0.3, 0.1))


def _random10(_: str) -> Game:
    """Ten actions, random preferences."""
    return make_game("random10", from_upper(np.random.default_rng(0).random((10, 10))))


def _condorcet(size: str) -> Game:
    """One action beats all others, which tie."""
    if not size:
        size = "10"
    if not size.isdecimal() or not 2 <= int(size) <= 1000:
        raise InputError(f"--game condorcet:{size}: expected the number of actions, 2 to 1000, as in condorcet:10")
    return make_game(f"condorcet:{size}", condorcet(int(size)))


def _bradley_terry(scores: str) -> Game:
    """Transitive, by scores."""
    try:
        values = [float(part) for part in (scores or "2,1,0").split(",")]
    except ValueError:
        raise InputError(
            f"--game bradley_terry:{scores}: expected scores, as in bradley_terry:2,1,0; the best action wins most"
        ) from None
    return make_game(f"bradley_terry:{scores}" if scores else "bradley_terry", bradley_terry(values))


GAMES: dict[str, Callable[[str], Game]] = {
    "weighted_rps": _weighted_rps,
    "rps": _rps,
    "random10": _random10,
    "condorcet": _condorcet,
    "bradley_terry": _bradley_terry,
}
"""Built-in games by name; made from what follows the name after a colon, "" where nothing does."""
WITH_ARGUMENT = ("condorcet", "bradley_terry")
"""Those that something may follow."""


def find_game(source: str) -> Game:
    """A built-in game by name, or one from a file.

    Args:
        source: A name, where the game has a size or scores with these after a colon; or a path that ends in .csv,
            .npy or .json.

    Raises:
        InputError: there is no such game, or the file holds none.
    """
    if source.lower().endswith(SUFFIXES):
        return read_game(source)
    name, colon, argument = source.partition(":")
    if name not in GAMES:
        raise InputError(
            f"--game {source}: no such game{nearest(name, GAMES)}; a file's name ends in {', '.join(SUFFIXES)}"
        )
    if colon and name not in WITH_ARGUMENT:
        raise InputError(f"--game {source}: {name} takes nothing after its name")
    return GAMES[name](argument)
