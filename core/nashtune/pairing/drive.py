"""Runs the pairings of many prompts side by side, so that the oracle is asked for all of them at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nashtune.interfaces.pairing import Comparisons, Pairs

Asked = tuple[int, int, int]
"""(prompt, i, j): completion i of a prompt against its completion j."""


def drive(generators: Sequence[Comparisons], ask: Callable[[list[Asked]], list[float]]) -> list[Pairs]:
    """The pairs of every prompt.

    Args:
        generators: What `Pairing.compare` gave for each prompt, not started yet.
        ask: P(i > j) of many comparisons; NaN where there is no answer. Called once per level of the deepest pairing,
            with what all prompts that are not finished want to know, ordered by prompt, and never with nothing.

    Returns:
        One `Pairs` per prompt, in their order.
    """
    done: dict[int, Pairs] = {}
    wanted: dict[int, list[tuple[int, int]]] = {}

    def advance(prompt: int, answers: list[float] | None) -> None:
        try:
            # a generator's first value is had by sending None
            wanted[prompt] = generators[prompt].send(answers)  # type: ignore[arg-type]
        except StopIteration as stop:
            wanted.pop(prompt, None)
            done[prompt] = stop.value

    for prompt in range(len(generators)):
        advance(prompt, None)
    while wanted:
        asked = [(prompt, i, j) for prompt, matches in sorted(wanted.items()) for i, j in matches]
        answers = ask(asked) if asked else []
        if len(answers) != len(asked):
            raise ValueError(f"the oracle gave {len(answers)} answers to {len(asked)} comparisons")
        left = iter(answers)
        for prompt, matches in sorted(wanted.items()):
            advance(prompt, [next(left) for _ in matches])
    return [done[prompt] for prompt in range(len(generators))]
