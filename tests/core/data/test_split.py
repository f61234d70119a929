"""A micro-batch in parts: every field follows its row, and no pass is larger than its budget."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
import torch

from nashtune.data.collate import collate_pairs, collate_ranked, completion_batch
from nashtune.data.split import rows_of_passes, select
from nashtune.data.tokenise import TokenRow
from nashtune.interfaces import TokenBatch
from nashtune.logprobs import EngineName, get_engine

ENGINE = get_engine("tiled")


def row(prompt: int, *completions: int) -> TokenRow:
    ids = iter(range(100, 10_000))
    return TokenRow(
        prompt_ids=tuple(next(ids) for _ in range(prompt)),
        completions=tuple(tuple(next(ids) for _ in range(size)) for size in completions),
        prompt_text="",
        where=f"rows:{prompt}",
        p_chosen=prompt / 100,
    )


def pairs(*sizes: tuple[int, int, int]) -> TokenBatch:
    batch = collate_pairs([(10 + i, row(*size)) for i, size in enumerate(sizes)])
    sides = torch.arange(2.0 * len(sizes))
    return replace(batch, win_rate=sides, variance=sides + 0.5, share=torch.ones(len(sizes), 3), known={"ref": -sides})


def sequence(batch: TokenBatch, n: int) -> tuple[list[int], list[bool]]:
    real = batch.attention_mask[n].bool()
    return batch.input_ids[n][real].tolist(), batch.completion_mask[n][real].tolist()


def test_pairs_keep_both_sides_and_every_column() -> None:
    whole = pairs((5, 3, 4), (2, 1, 9), (7, 2, 2))
    part = select(whole, [2, 0])
    assert len(part) == 2 and part.input_ids.shape == (4, 9)
    assert part.rows.tolist() == [12, 10] and part.p_chosen is not None
    assert part.p_chosen.tolist() == pytest.approx([0.07, 0.05])
    for n, of in enumerate((2, 0, 5, 3)):  # chosen of both, then rejected of both
        assert sequence(part, n) == sequence(whole, of)
    for name, shift in (("win_rate", 0.0), ("variance", 0.5)):
        assert getattr(part, name).tolist() == [2 + shift, shift, 5 + shift, 3 + shift]
    assert part.known["ref"].tolist() == [-2.0, 0.0, -5.0, -3.0] and part.share is not None and len(part.share) == 2


def test_lists_keep_their_completions_together() -> None:
    whole = collate_ranked([(i, row(*sizes)) for i, sizes in enumerate([(3, 1, 2), (4, 5, 1, 2, 2), (2, 6)])])
    part = select(whole, [2, 1])
    assert part.sizes is not None and part.sizes.tolist() == [1, 4]
    assert part.levels is not None and part.levels.tolist() == [0, 0, 1, 2, 3]
    assert [sequence(part, n) for n in range(5)] == [sequence(whole, n) for n in (6, 2, 3, 4, 5)]


def rollouts(*sizes: tuple[int, int]) -> TokenBatch:
    batch = completion_batch([(tuple(range(1, p + 1)), tuple(range(50, 50 + c))) for p, c in sizes])
    count = sum(c for _, c in sizes)
    return replace(
        batch,
        kind="rollouts",
        group=torch.tensor([p for p, _ in sizes]),
        score=torch.arange(float(len(sizes))),
        beta=torch.arange(float(len(sizes))) + 1,
        per_token={"old": torch.arange(float(count)), "target_end": torch.arange(float(len(sizes))) * 10},
    )


def test_rollouts_keep_what_belongs_to_each_token() -> None:
    whole = rollouts((4, 3), (2, 1), (4, 2))
    part = select(whole, [2, 1])
    assert part.per_token["old"].tolist() == [4.0, 5.0, 3.0]
    assert part.per_token["target_end"].tolist() == [20.0, 10.0]
    assert part.beta is not None and part.beta.tolist() == [3.0, 2.0]
    assert part.score is not None and part.score.tolist() == [2.0, 1.0]


@pytest.mark.parametrize("name", ["tiled", "packed", "shared"])
@pytest.mark.parametrize("budget", [1, 40, 100, 10_000])
def test_passes_hold_every_row_once_within_the_budget(budget: int, name: EngineName) -> None:
    engine = get_engine(name)
    draw = random.Random(0)
    sizes = [(draw.randint(1, 20), draw.randint(1, 20), draw.randint(1, 20)) for _ in range(17)]
    whole = pairs(*sizes)
    passes = rows_of_passes(whole, engine, budget)
    assert sorted(row for rows in passes for row in rows) == list(range(17))
    for rows in passes:
        assert len(rows) == 1 or engine.plan(select(whole, rows)).positions <= budget
    assert passes == rows_of_passes(whole, engine, budget)
    assert len(passes) > 1 or (budget == 10_000 and not engine.pads)


def test_rows_alike_in_length_meet() -> None:
    """So that an engine that pads hardly pads: 12 long and 12 short pairs, drawn in turns."""
    whole = pairs(*[(10, 5, 5) if i % 2 else (100, 50, 50) for i in range(24)])
    passes = rows_of_passes(whole, ENGINE, 1000)
    layouts = [ENGINE.plan(select(whole, rows)) for rows in passes]
    padding = sum(at.positions - at.tokens for at in layouts) / sum(at.positions for at in layouts)
    together: Any = ENGINE.plan(whole)
    assert padding < 0.1 < 0.4 < 1 - together.tokens / together.positions


def test_answers_to_one_prompt_stay_side_by_side() -> None:
    whole = rollouts((9, 3), (2, 4), (9, 8), (2, 5), (9, 1))
    order = [row for rows in rows_of_passes(whole, ENGINE, 20) for row in rows]
    assert order == [0, 2, 4, 1, 3]
