"""Games small enough to be solved exactly, on which `nashtune verify` plays a method. Importing this needs no torch."""

from nashtune.games.find import find_game
from nashtune.games.matrices import Game

__all__ = ["Game", "find_game"]
