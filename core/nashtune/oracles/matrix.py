"""Matrix: a game's preference matrix as an oracle, for answers that can be listed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nashtune.data.texts import check_lengths
from nashtune.errors import InputError, nearest
from nashtune.interfaces.oracle import PreferenceOracle, Prompt


class MatrixOracle(PreferenceOracle):
    """P(y > y') is an entry of a preference matrix; the prompt is not read.

    Args:
        game: A built-in game, such as `rps`, or a file with a preference matrix, as `nashtune verify --game` takes it.
        answers: The completion that stands for each action, in the matrix's order; spaces at its ends do not count.
    """

    def __init__(self, *, game: str, answers: list[str]) -> None:
        self.game = game
        self.answers = [answer.strip() for answer in answers]
        if twice := sorted({answer for answer in self.answers if self.answers.count(answer) > 1}):
            raise InputError(f"oracle.answers: {twice[0]!r} stands for two actions")
        self._matrix: Tensor | None = None

    def prepare(self) -> None:
        """Reads the game.

        Raises:
            InputError: no such game or file, or it has another number of actions.
        """
        self.matrix()

    def matrix(self) -> Tensor:
        """P[i, j], float64 (n, n).

        Raises:
            InputError: no such game or file, or it has another number of actions.
        """
        if self._matrix is None:
            from nashtune.games.find import find_game

            try:
                given = find_game(self.game).matrix
            except InputError as error:
                raise InputError(f"oracle.game: {str(error).removeprefix('--game ')}") from error
            if given.shape != (len(self.answers), len(self.answers)):
                raise InputError(
                    f"oracle.answers: {len(self.answers)} answers for a game of {given.shape[0]} actions; name the "
                    "completion of every action"
                )
            self._matrix = torch.from_numpy(given.copy()).double()
        return self._matrix

    def compare(self, prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str]) -> Tensor:
        """Entries of the matrix (N,), float64.

        Raises:
            InputError: a completion is none of the answers.
        """
        check_lengths(prompts, first, second)
        rows = torch.tensor([self._action(text) for text in first], dtype=torch.long)
        columns = torch.tensor([self._action(text) for text in second], dtype=torch.long)
        return self.matrix()[rows, columns]

    def _action(self, text: str) -> int:
        try:
            return self.answers.index(text.strip())
        except ValueError:
            raise InputError(
                f"oracle.answers: the completion {text[:80]!r} stands for no action{nearest(text, self.answers)}; this "
                "oracle judges only the answers it lists"
            ) from None
