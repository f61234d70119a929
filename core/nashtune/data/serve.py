"""Whether data settings can serve a loss or a game: what can be said before a row is read. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

DataKind = Literal["pairs", "examples", "rollouts", "ranked", "comparisons", "prompts"]
"""What rows are read as: what a loss trains on, or prompts for a game."""


def refusals(
    rows: DataKind,
    *,
    labels: str,
    uses_p_chosen: bool,
    ranked_pairs: str,
    prompts_per_round: int | None,
    sizes: Mapping[str, int],
    max_length: int,
    batch_tokens: int | None = None,
    max_prompt_length: int | None = None,
    overflow: str = "error",
    reads: str = "logprobs",
    context: int | None = None,
    completion_room: int = 0,
    compares_rows: bool = False,
) -> Iterator[tuple[str, str]]:
    """(option, what is wrong with it) for each setting that nothing would read, or that leaves no room.

    Args:
        rows: What rows are read as.
        labels: `data.labels`.
        uses_p_chosen: Whether the loss reads soft labels.
        ranked_pairs: `data.ranked_pairs`.
        prompts_per_round: `data.prompts_per_round`.
        sizes: Micro-batch sizes by the option's name.
        max_length: `data.max_length`.
        batch_tokens: `data.batch_tokens`.
        max_prompt_length: `data.max_prompt_length`.
        overflow: `data.overflow`.
        reads: What the loss reads, "logprobs" or "scores".
        context: Tokens that the model can read, where it is known.
        completion_room: Most tokens that a game's sampler draws for a prompt.
        compares_rows: Whether the spec's loss or KL controller compares the rows of a micro-batch.
    """
    if labels == "soft" and not uses_p_chosen:
        yield (
            "data.labels",
            "soft, but the spec's loss does not read p_chosen; use data.labels: hard, or another loss",
        )
    if rows == "prompts":
        yield from _of_a_game(ranked_pairs, max_length, context, completion_room)
        return
    if prompts_per_round is not None:
        yield (
            "data.prompts_per_round",
            f"{prompts_per_round}, but the spec's schedule draws no completions, so that no round has prompts; "
            "remove it",
        )
    for name, size in sizes.items():
        if rows == "examples" and size < 2:
            yield (
                f"data.{name}",
                f"{size}, but the spec's loss compares each example with another one of its micro-batch; use 2 or more",
            )
    if compares_rows and batch_tokens is not None:
        yield (
            "data.batch_tokens",
            f"{batch_tokens} would split a micro-batch into several passes, and the spec compares the rows of a "
            "micro-batch with one another; remove it, and lower data.batch_size",
        )
    yield from _of_whole_texts(rows, reads, ranked_pairs, max_prompt_length, overflow)


def _of_whole_texts(
    rows: DataKind, reads: str, ranked_pairs: str, max_prompt_length: int | None, overflow: str
) -> Iterator[tuple[str, str]]:
    """Where the model reads prompt and completion as one text, or both completions."""
    if rows == "ranked" and ranked_pairs != "best_worst":
        yield (
            "data.ranked_pairs",
            f"{ranked_pairs} makes pairs of ranked rows, and the spec's loss reads whole lists; remove the option",
        )
    if max_prompt_length is not None and (reads == "scores" or rows == "comparisons"):
        one = "prompt and completion" if reads == "scores" else "prompt and both answers"
        yield (
            "data.max_prompt_length",
            f"{max_prompt_length}, but the model reads {one} as one text; remove it, and set data.max_length",
        )
    if rows == "comparisons" and overflow == "truncate_prompt":
        yield (
            "data.overflow",
            "truncate_prompt would cut off the beginning of the question, which holds the prompt and both answers; use "
            "drop",
        )


def _of_a_game(
    ranked_pairs: str, max_length: int, context: int | None, completion_room: int
) -> Iterator[tuple[str, str]]:
    if ranked_pairs != "best_worst":
        yield (
            "data.ranked_pairs",
            f"{ranked_pairs} pairs the answers of the rows, and a game reads their prompts: the spec's pairing makes "
            "its pairs; remove the option",
        )
    if completion_room >= max_length:
        yield (
            "data.max_length",
            f"{max_length} leaves no token for a prompt, because the sampler draws up to {completion_room} "
            "(sampler.max_new_tokens); raise data.max_length, or lower --spec.sampler.max_new_tokens",
        )
    elif context is not None and completion_room >= context:
        yield (
            "sampler.max_new_tokens",
            f"{completion_room} leaves no token for a prompt in the model's context of {context} tokens "
            "(max_position_embeddings); lower --spec.sampler.max_new_tokens",
        )
